"""Which jobs are with which nodes, as it is put on record before they go there.

A job without a record was never started: so the records of a turn are committed before its jobs
are sent.  Older records that do not matter any more are dropped now and then, all at once.
"""

from collections.abc import Callable, Iterable, Mapping

from nodeserver.core.computation import Computation, Portion
from nodeserver.core.effects import Effect
from nodeserver.core.messages import CloseComputation
from nodeserver.core.recoveryeffects import (
    ForgetComputation,
    ForgetUntold,
    RecordClosed,
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
)
from nodeserver.core.recoverymessages import KnownNode
from nodeserver.core.takeover import ALL_JOBS, ANYWHERE

MOST_NODES = 10_000  # of a computation
SPARE = 10_000  # placements that do not matter and are kept all the same


class Records:
    """What is put on record, and when it is written anew."""

    def __init__(
        self, computations: Mapping[int, Computation], emit: Callable[[Effect], None]
    ) -> None:
        self._computations = computations
        self._emit = emit
        self._turn = RecordPlacements([], [], [], [])
        self._told: dict[int, list[str]] = {}  # in this turn: nodes, of computations closed before
        self._count = 0  # placements since they were written anew
        self._rewrite_at = SPARE  # when there are more

    def declared(self, comp: Computation) -> None:
        """A client has declared a computation, for the first time or once more."""
        self._told.pop(comp.id, None)  # its nodes may have something of it again
        is_unknown = comp.takeover is not None and comp.takeover.asks_all
        self._emit(RecordComputation(comp.client, comp.declared, is_unknown))

    def node(self, comp: Computation, known: KnownNode) -> None:
        """A node may have something of a computation from now on."""
        if comp.nodes.get(known.node) != known:
            comp.nodes[known.node] = known
            if len(comp.nodes) > MOST_NODES:
                del comp.nodes[next(iter(comp.nodes))]
            self._emit(RecordNode(comp.id, known))

    def forgotten(self, gone: int) -> None:
        """Nothing of a computation is left, or its client will not come back."""
        self._leave_out(gone)
        self._emit(ForgetComputation(gone))

    def closed(self, message: CloseComputation, nodes: Iterable[KnownNode]) -> None:
        """A computation is closed, and these nodes are yet to be told."""
        self._leave_out(message.computation)
        self._emit(RecordClosed(message, [*nodes]))

    def told(self, closed: int, nodes: Iterable[str]) -> None:
        """Nodes know now that a computation is closed."""
        self._told.setdefault(closed, []).extend(nodes)

    def _leave_out(self, gone: int) -> None:
        turn = self._turn
        rows = zip(turn.computations, turn.nodes, turn.ids, turn.attempts, strict=True)
        left = [row for row in rows if row[0] != gone]
        self._turn = RecordPlacements(*map(list, zip(*left, strict=True) if left else [()] * 4))
        self._told.pop(gone, None)

    def note(
        self, comp: Computation, node: str, ids: list[int], attempts: list[int] | None = None
    ) -> None:
        """Jobs were found with a node, or ('') are with none any more."""
        if ids:
            self._turn.computations.append(comp.id)
            self._turn.nodes.append(node)
            self._turn.ids.append(ids)
            self._turn.attempts.append(attempts or [])

    def unknown(self, comp: Computation, is_so: bool) -> None:
        """Nobody knows where jobs are that are not on record; or that is over."""
        self.note(comp, ANYWHERE[0] if is_so else '', [ALL_JOBS])

    def placed(self, plan: Mapping[tuple[str, int], Portion]) -> None:
        """Jobs are about to go to nodes."""
        turn = self._turn
        turn.computations.extend([computation for _, computation in plan])
        turn.nodes.extend([node for node, _ in plan])
        turn.ids.extend([portion[0] for portion in plan.values()])
        turn.attempts.extend([portion[1] for portion in plan.values()])
        self.flush()

    def flush(self) -> None:
        """Put on record what this turn has brought."""
        if self._told:
            told, self._told = self._told, {}
            self._emit(ForgetUntold([*told], [*told.values()]))
        turn = self._turn
        if not turn.ids:
            return
        self._turn = RecordPlacements([], [], [], [])
        self._emit(turn)
        self._count += sum(map(len, turn.ids))
        if self._count > self._rewrite_at:
            self._rewrite()

    def _rewrite(self) -> None:
        """Name all that matters; it is done again when as much that does not has come to it."""
        self._count = 0
        for comp in self._computations.values():
            by_node = placements(comp)
            columns = [[ids for ids, _ in by_node.values()], [told for _, told in by_node.values()]]
            self._count += sum(map(len, columns[0]))
            self._emit(RewritePlacements(comp.id, [*by_node], *columns))
        self._rewrite_at = 2 * self._count + SPARE


def placements(comp: Computation) -> dict[str, tuple[list[int], list[int]]]:
    """All jobs that nodes have, may have, or keep outcomes of, and their attempts, by node."""
    by_node: dict[str, tuple[list[int], list[int]]] = {}

    def add(node: str, ids: Iterable[int], attempts: Iterable[int]) -> None:
        columns = by_node.setdefault(node, ([], []))
        columns[0].extend(ids)
        columns[1].extend(attempts)

    for job, node in comp.places.items():
        add(node, (job,), (comp.attempt(job),))
    if comp.takeover is not None:
        for node, doubts in comp.takeover.doubts.items():
            if node != ANYWHERE[0]:
                add(node, doubts, map(comp.takeover.attempt_of, doubts))
        if comp.takeover.asks_all:
            add(ANYWHERE[0], (ALL_JOBS,), ANYWHERE[1:])
    for node, ids, attempts in comp.undelivered.places():
        add(node, ids, attempts)
    for node, columns in comp.unreached.items():
        add(node, *columns)
    return by_node
