"""`%dispy nodes`: the nodes that were found, and for each that is not used the reason (V03).

scheduler's records ──▶ NodeList ──▶ a table

Where there is no cluster, one that takes no cpus of any node looks around for a moment.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from dispy_nb import closing, local
from dispy_nb.cells import statement_about
from dispy_nb.cluster import Cluster, JobCluster
from dispy_nb.nodes import NodeAllocate
from dispy_nb.notebook.tables import Table, size_text
from nodeserver.core.errors import ClusterClosed
from nodeserver.core.explain import NOBODY
from nodeserver.core.listing import NodeList, NodeRow

LOOK_TIMEOUT = 1.8  # seconds: as long as nobody needs to be told that nothing happens
QUIET = 0.7  # seconds without anything new after which the look ends
INTERVAL = 0.1
HEADS = ('node', 'address', 'cpus', 'free', 'memory', 'free memory', 'state')
NOT_ASKED = 'answers; no cluster of this program uses it'


class _NoCpus(NodeAllocate):
    """Finds nodes, and takes none."""

    def allocate(self, *args: Any, **kwargs: Any) -> int:
        return 0


def _nothing() -> None:
    """Be the function of a cluster that runs no jobs."""


def node_table(cluster: Cluster | None) -> Table:
    """Lay out the nodes that a cluster has found; by default all of this program, or around it.

    Raises
    ------
    ClusterClosed
        The cluster is closed: it has no nodes.
    """
    if cluster is not None:
        if cluster._is_closed:
            raise ClusterClosed(f'cluster {cluster.name} is closed: it has no nodes')
        return _table([cluster._runtime.list_nodes()], cluster._computation)
    runtimes = {each._runtime: None for each in closing.open_clusters()}
    if runtimes:
        return _table([runtime.list_nodes() for runtime in runtimes])
    return _table([look_around()], looked=True)


def look_around() -> NodeList:
    """Ask for nodes, and return those that have answered soon; nobody's node is taken."""
    own = [address for group in local.running_nodes() for address in group.nodes]
    nodes = [_NoCpus('*'), *(_NoCpus(*address) for address in own)]
    level = logging.getLogger('dispy_nb').level or logging.WARNING
    with statement_about(''):
        looking = JobCluster(_nothing, nodes=nodes, name='look', loglevel=level, progress=False)
    with looking as cluster:
        began = changed = time.monotonic()
        found = cluster._runtime.list_nodes()
        while (now := time.monotonic()) - began < LOOK_TIMEOUT:
            if found.rows and _have_told(found.rows) and now - changed >= QUIET:
                break
            time.sleep(INTERVAL)
            before, found = found, cluster._runtime.list_nodes()
            if _who(found) != _who(before):
                changed = time.monotonic()
    return found


def _have_told(rows: Sequence[NodeRow]) -> bool:
    return all(row.words or row.cpus is not None for row in rows)


def _who(found: NodeList) -> list[tuple[str, str, int | None]]:
    return [(row.name, row.address, row.cpus) for row in found.rows]


def _table(
    lists: Sequence[NodeList], computation: int | None = None, looked: bool = False
) -> Table:
    rows = sorted((row for each in lists for row in each.rows), key=_by_name)
    places = {
        text: None
        for each in lists
        for number, text in each.places.items()
        if computation in (None, number)
    }
    notes = [each.words for each in lists if each.words]
    is_whole = not notes
    if places or is_whole:
        notes.append(f'looked for nodes at: {"; ".join(places)}')
    if not rows and is_whole:
        notes.append(f'{NOBODY}; `%dispy start` starts node servers on this machine')
    return Table(HEADS, [_cells(row, computation, looked) for row in rows], notes=notes)


def _by_name(row: NodeRow) -> tuple[bool, str, str]:
    return row.cpus is None, row.name, row.address


def _cells(row: NodeRow, computation: int | None, looked: bool) -> tuple[object, ...]:
    state = NOT_ASKED if looked and row.usages else state_of(row, computation)
    memory, free = size_text(row.memory), size_text(row.memory_free)
    return row.name, row.address, row.cpus, row.free, memory, free, state


def state_of(row: NodeRow, computation: int | None = None) -> str:
    """Say what a node does, or why it is not used, for one computation or for all of them."""
    usages = [each for each in row.usages if computation in (None, each.computation)]
    words = {each.words for each in usages}
    if row.words or not usages:
        return row.words
    if len(words) == 1:
        return words.pop()
    return '; '.join(f'{each.name}: {each.words}' for each in usages)
