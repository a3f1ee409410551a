"""Which jobs are with which nodes, as it is put on record before they go there.

A job without a record was never started: so the records of a turn are committed before its jobs
are sent.  Older records that do not matter any more are dropped now and then, all at once.
"""

from collections.abc import Callable, Mapping

from nodeserver.core.computation import Computation, Portion
from nodeserver.core.effects import Effect
from nodeserver.core.recoveryeffects import (
    ForgetComputation,
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
)
from nodeserver.core.recoverymessages import KnownNode

MOST_NODES = 10_000  # of a computation
SPARE = 10_000  # placements that do not matter and are kept all the same


class Records:
    """What is put on record, and when it is written anew."""

    def __init__(
        self, computations: Mapping[int, Computation], emit: Callable[[Effect], None]
    ) -> None:
        self._computations = computations
        self._emit = emit
        self._turn = RecordPlacements([], [], [])

    def declared(self, comp: Computation) -> None:
        """A client has declared a computation, for the first time or once more."""
        self._emit(RecordComputation(comp.client, comp.declared))

    def node(self, comp: Computation, known: KnownNode) -> None:
        """A node may have something of a computation from now on."""
        if comp.nodes.get(known.node) != known:
            comp.nodes[known.node] = known
            if len(comp.nodes) > MOST_NODES:
                del comp.nodes[next(iter(comp.nodes))]
            self._emit(RecordNode(comp.id, known))

    def forgotten(self, gone: int) -> None:
        """Nothing of a computation is left, or its client will not come back."""
        turn = self._turn
        rows = zip(turn.computations, turn.nodes, turn.ids, strict=True)
        self._turn = RecordPlacements([], [], [])
        for computation, node, ids in rows:
            if computation != gone:
                self._turn.computations.append(computation)
                self._turn.nodes.append(node)
                self._turn.ids.append(ids)
        self._emit(ForgetComputation(gone))

    def note(self, comp: Computation, node: str, ids: list[int]) -> None:
        """Jobs were found with a node, or ('') are with none any more."""
        if ids:
            self._turn.computations.append(comp.id)
            self._turn.nodes.append(node)
            self._turn.ids.append(ids)

    def placed(self, plan: Mapping[tuple[str, int], Portion]) -> None:
        """Jobs are about to go to nodes."""
        turn = self._turn
        for (node, computation), portion in plan.items():
            turn.computations.append(computation)
            turn.nodes.append(node)
            turn.ids.append(portion[0])
        self.flush()

    def flush(self) -> None:
        """Put on record what this turn has brought."""
        turn = self._turn
        if not turn.ids:
            return
        self._turn = RecordPlacements([], [], [])
        self._emit(turn)
        for computation, ids in zip(turn.computations, turn.ids, strict=True):
            comp = self._computations.get(computation)
            if comp is not None:
                comp.recorded += len(ids)
                if comp.recorded > comp.rewrite_at + SPARE:
                    self._rewrite(comp)

    def _rewrite(self, comp: Computation) -> None:
        """Name all that matters; it is done again when as much that does not has come to it."""
        by_node = placements(comp)
        comp.recorded = sum(map(len, by_node.values()))
        comp.rewrite_at = 2 * comp.recorded
        self._emit(RewritePlacements(comp.id, [*by_node], [*by_node.values()]))


def placements(comp: Computation) -> dict[str, list[int]]:
    """All jobs that nodes have, may have, or keep outcomes of."""
    by_node: dict[str, list[int]] = {}
    for job, node in comp.places.items():
        by_node.setdefault(node, []).append(job)
    if comp.takeover is not None:
        for node, doubts in comp.takeover.doubts.items():
            by_node.setdefault(node, []).extend(doubts)
    for node, ids in comp.undelivered.places():
        by_node.setdefault(node, []).extend(ids)
    return by_node
