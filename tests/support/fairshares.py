"""Whether the clients of one scheduler have equal parts of its cpus, as those see it who watch.

    SharesWatch ── each second ──▶ who has jobs that wait, and how many cpus do its jobs have
               └─▶ two that have had jobs waiting for long enough: have they had the same?

Nothing is asked of the scheduler.  Where nodes come and go, or some may serve only one of the two,
equal parts are not promised: then it begins anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from nodeserver.core.messages import ONE_CPU
from tests.support.promises import Promise, Witness, broken
from tests.support.users import Cluster, UserProgram

LOOK_INTERVAL = 1.0
MEASURED = 240.0  # seconds, after those in which jobs of before may run
SETTLING = 30.0  # seconds for whatever else was before
MOST_APART = 0.15  # of what the one has had that has had more


class Site(Protocol):
    """A scheduler, its clients, and all that its nodes are at a moment."""

    @property
    def clients(self) -> Iterable[UserProgram]:
        """The programs that live and use it."""
        ...

    @property
    def nodes(self) -> object:
        """Equal to what it was before as long as all of them serve everybody; None: they do not."""
        ...


@dataclass(slots=True)
class _Pair:
    since: float
    measured_from: float
    longest: float  # seconds of their longest job
    used: tuple[float, float] = (0.0, 0.0)


class SharesWatch:
    """Compares the clients of one scheduler, two by two."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._nodes: object = None
        self.compared = 0  # how often two had had jobs waiting for long enough

    def look(self, now: float, site: Site) -> None:
        """See how it is now."""
        nodes = site.nodes
        if nodes is None or nodes != self._nodes:
            self._nodes = nodes
            self._pairs.clear()
            return
        hungry = {c.name: c for c in site.clients if self._is_hungry(c)}
        together = set(combinations(hungry, 2))
        for pair in self._pairs.keys() - together:
            del self._pairs[pair]
        if not together:
            return
        cpus = {name: self._cpus(program) for name, program in hungry.items()}
        for one, other in together:
            self._compare(now, (one, other), (cpus[one], cpus[other]), hungry)

    def _compare(
        self,
        now: float,
        names: tuple[str, str],
        cpus: tuple[int, int],
        hungry: dict[str, UserProgram],
    ) -> None:
        longest = max(self._longest(hungry[name]) for name in names)
        pair = self._pairs.get(names)
        if pair is None or longest > pair.longest:
            self._pairs[names] = _Pair(now, now + longest + SETTLING, longest)
            return
        if now < pair.measured_from:
            return
        used = pair.used[0] + cpus[0] * LOOK_INTERVAL, pair.used[1] + cpus[1] * LOOK_INTERVAL
        pair.used = used
        if now - pair.measured_from < MEASURED:
            return
        self.compared += 1
        del self._pairs[names]
        # one more job each, at the beginning and at the end, is as fair as can be
        if max(used) - min(used) > MOST_APART * max(used) + 2 * pair.longest + SETTLING:
            text = f'{names[0]} and {names[1]} have had {used[0]:.0f} and {used[1]:.0f} cpu seconds'
            broken(Promise.SHARES, f'{text} since {pair.measured_from:.0f}, and wanted more')

    def _is_hungry(self, program: UserProgram) -> bool:
        """Whether more of its jobs wait than can have been handed out ahead, for any node."""
        clusters = program.clusters
        if not clusters or not all(_takes_any_node(cluster) for cluster in clusters):
            return False
        waiting = sum(self._waiting(cluster) for cluster in clusters)
        return waiting > 0 and program.is_alive

    def _waiting(self, cluster: Cluster) -> int:
        return self._witness.waiting(cluster.id)

    def _cpus(self, program: UserProgram) -> int:
        return sum(self._witness.cpus_of(cluster.id) for cluster in program.clusters)

    def _longest(self, program: UserProgram) -> float:
        return max(self._witness.longest(cluster.id) for cluster in program.clusters)


def _takes_any_node(cluster: Cluster) -> bool:
    declared = cluster.declared
    is_limited = any(spec.cpus or spec.asks_client for spec in declared.specs)
    return cluster.is_open and declared.resources == ONE_CPU and not (is_limited or cluster.steers)
