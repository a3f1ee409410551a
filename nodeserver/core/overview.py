"""What a scheduler has to do, in figures: for its status, and for who watches it."""

from collections.abc import Callable
from dataclasses import dataclass

from nodeserver.core.listing import NodeRow
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.wording import harmless_name


@dataclass(frozen=True, slots=True)
class ComputationRow:
    """One computation; `owner` says whose it is, in words."""

    name: str
    owner: str
    waiting: int  # jobs
    running: int  # jobs that are with nodes
    nodes: int  # that can run them
    is_exclusive: bool
    is_away: bool  # its program is gone, and may come back


@dataclass(frozen=True, slots=True)
class Overview:
    """A scheduler at one moment."""

    computations: tuple[ComputationRow, ...]
    nodes: int  # that are connected
    cpus: int  # of these
    cpus_used: int  # by jobs of ours, at the most

    @property
    def waiting(self) -> int:
        """How many jobs wait for a node."""
        return sum(row.waiting for row in self.computations)

    @property
    def running(self) -> int:
        """How many jobs are with nodes."""
        return sum(row.running for row in self.computations)


def overview(fleet: Recruiting, is_away: Callable[[str], bool]) -> Overview:
    """Count what waits and runs, and where."""
    rows = tuple(
        ComputationRow(
            harmless_name(comp.declared.name),
            harmless_name(comp.declared.owner),
            len(comp.waiting),
            len(comp.jobs),
            fleet.discovery.ready_count(comp),
            comp.declared.exclusive,
            is_away(comp.client),
        )
        for comp in fleet.computations.values()
        if not comp.closing
    )
    nodes = [node for node in fleet.nodes.values() if node.connected and node.details]
    used = sum(min(node.load, node.cpus) for node in nodes)
    return Overview(rows, len(nodes), sum(node.cpus for node in nodes), used)


def describe(seen: Overview, nodes: tuple[NodeRow, ...], clients: int) -> list[str]:
    """Say in words what a scheduler does."""
    programs, computations = _count(clients, 'program'), _count(len(seen.computations), 'cluster')
    lines = [f'{programs} connected, {computations} open']
    for row in seen.computations:
        exclusive = ' (exclusive)' if row.is_exclusive else ''
        lines.append(
            f'{row.name}{exclusive} of {row.owner}: {_count(row.running, "job")} running, '
            f'{row.waiting} waiting, on {_count(row.nodes, "node")}'
            f'{"; its program is gone" if row.is_away else ""}'
        )
    return [*lines, *map(_node_line, nodes)]


def _node_line(node: NodeRow) -> str:
    title = f'{harmless_name(node.name)} ({node.address})' if node.name else node.address
    if node.cpus is None:
        return f'node {title}: {node.words or "not connected"}'
    used = '' if node.free is None else f', {node.cpus - node.free} in use'
    words = f': {node.words}' if node.words else ''
    return f'node {title}: {_count(node.cpus, "cpu")}{used}{words}'


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
