"""Taking jobs back: a node that holds more than it runs gives some up when a cpu idles elsewhere.

Estimates of lengths err, nodes come, and others may use their cpus.
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import RecallJobs
from nodeserver.core.policy import Placement

ANSWER_SECONDS = 1.0  # after which another one is asked for the idle node, if one is silent
FORGET_SECONDS = 30.0  # after which the silent one is asked again
MOST_IDLE = 4  # idle nodes that are looked at in one turn
MOST_FULL = 16  # full nodes, for each of them


class _Asked(NamedTuple):
    """What a node was asked for."""

    computation: int
    idle: str  # the node that could run some
    at: float


class Recalls:
    """Which nodes were asked for jobs, for whom, and who had none to give."""

    def __init__(
        self,
        placement: Placement,
        emit: Callable[[Effect], None],
        count_bound: Callable[[int, str], int],
    ) -> None:
        self._placement = placement
        self._emit = emit
        self._count_bound = count_bound  # of a computation on a node: jobs that must run there
        self._capped: dict[str, NodeRecord] = {}  # some computation may use only part of their cpus
        self._asked: dict[str, _Asked] = {}  # by node
        # by node: computations of which it had none to give, and has got or ended none since
        self._barren: dict[str, set[int]] = {}
        self._idle_at = self._full_at = 0  # where to look on in the next turn
        self._given: dict[tuple[str, int], int] = {}  # in this turn, by node and computation

    def watch(self, node: NodeRecord) -> None:
        """A node can run jobs; one with unused cpus may hold too many all the same."""
        if node.is_capped:
            self._capped[node.id] = node

    def unwatch(self, node: NodeRecord) -> None:
        """A node can run no jobs at the moment."""
        self._capped.pop(node.id, None)

    def forget(self, node: NodeRecord) -> None:
        """A node is gone."""
        self._capped.pop(node.id, None)
        self._asked.pop(node.id, None)
        self._barren.pop(node.id, None)

    def closed(self, computation: int) -> None:
        """A computation has ended: nobody answers for it any more."""
        for node in [n for n, asked in self._asked.items() if asked.computation == computation]:
            del self._asked[node]
        for barren in self._barren.values():
            barren.discard(computation)

    def moved(self, node: NodeRecord, computation: int) -> None:
        """Jobs of a computation have come to a node or ended there: some may be to be had."""
        barren = self._barren.get(node.id)
        if barren is not None:
            barren.discard(computation)

    def given(self, node: NodeRecord, computation: int, count: int) -> None:
        """A node is given jobs: they are not taken back at once, or they might go round for ever.

        It has had no time to begin one.
        """
        key = node.id, computation
        self._given[key] = self._given.get(key, 0) + count

    def is_asked(self, node: NodeRecord, computation: int) -> bool:
        """Whether a node still owes an answer about this computation."""
        asked = self._asked.get(node.id)
        return asked is not None and asked.computation == computation

    def returned(self, node: NodeRecord, computation: int, of_use: bool) -> None:
        """A node has answered, with jobs that others can run or without."""
        asked = self._asked.get(node.id)
        if asked is not None and asked.computation == computation:
            del self._asked[node.id]
        if not of_use:  # asked again at once, it would answer the same, turn after turn
            self._barren.setdefault(node.id, set()).add(computation)

    def run(self, now: float) -> None:
        """Ask full nodes for what idle ones could run, at the end of a turn."""
        self._ask_some(now)
        self._given.clear()

    def _ask_some(self, now: float) -> None:
        placement = self._placement
        if not (placement.is_uneven() or (self._capped and placement.idlest() is not None)):
            return
        asked = self._asked.values()
        served = {each.idle for each in asked if now < each.at + ANSWER_SECONDS}
        idles, self._idle_at = _some(lambda: placement.candidates(1), self._idle_at, MOST_IDLE)
        wanting = [node for node in idles if node.id not in served]
        if not wanting:
            return
        full, self._full_at = _some(self._full_nodes, self._full_at, MOST_FULL)
        for node in full:
            before = self._asked.get(node.id)
            if before is None or now > before.at + FORGET_SECONDS:
                offers = self._offers(node)
                served_now = next((i for i in wanting if self._ask(node, offers, i, now)), None)
                if served_now is not None:
                    wanting.remove(served_now)

    def _full_nodes(self) -> Iterator[NodeRecord]:
        return chain(self._placement.fullest_first(), self._capped.values())

    def _offers(self, full: NodeRecord) -> list[tuple[int, int]]:
        """Find what a node may hold and not run: computations, and how many jobs of each."""
        barren = self._barren.get(full.id, ())
        offers = []
        for computation, load in full.loads.items():
            if computation not in barren:
                held = load - self._given.get((full.id, computation), 0)
                count = full.surplus(computation, held)
                if count > 0:
                    offers.append((computation, count))
        return offers

    def _ask(
        self, full: NodeRecord, offers: list[tuple[int, int]], idle: NodeRecord, now: float
    ) -> bool:
        """Ask one node for what the other could run; False when there is nothing of that kind."""
        for computation, most in offers:
            count = min(most, idle.room(computation, 1))
            if count <= 0 or full is idle:
                continue
            bound = self._count_bound(computation, full.id)
            if bound < full.loads[computation]:  # they may be behind others: given back with them
                self._asked[full.id] = _Asked(computation, idle.id, now)
                self._emit(Send(full.id, RecallJobs(computation, count + bound)))
                return True
        return False


def _some(
    nodes: Callable[[], Iterator[NodeRecord]], at: int, most: int
) -> tuple[list[NodeRecord], int]:
    """Take some nodes from a place on, or from the first on; and where to look on next time."""
    found = list(islice(nodes(), at, at + most))
    if not found and at:
        at, found = 0, list(islice(nodes(), most))
    return found, at + most if len(found) == most else 0
