"""Nodes that were away when a computation was closed: what they keep of it goes when they are back.

    closed ──▶ nodes that have not said ComputationClosed ── NodeDetails ──▶ CloseComputation(token)

So it does at once at those that are here and not used, as they came too late for a takeover.
Nobody else will ever ask for it, as the client is done with it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import CloseComputation, DeclareComputation, KnownNode
from nodeserver.core.takeover import Takeover

MOST_CLOSED = 1000  # computations; a node drops what nobody comes for, in the end
CLOSED_SECONDS = 30 * 86400.0  # by then it has done so


@dataclass(frozen=True, slots=True)
class _Closed:
    """A computation that was closed, and the nodes that were not told."""

    message: CloseComputation
    away: Takeover  # knows nodes by their ids and by their places
    since: float

    def may_be(self, node: NodeRecord) -> bool:
        """Whether a node that calls may be one of those, under an id that it has got since.

        It alone could tell: where nothing of the computation is kept, the message does nothing.
        """
        return node.has_called and any(not known.port for known in self.away.known.values())


class LateClosings:
    """Closes computations on nodes that come too late for it."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._closed: dict[int, _Closed] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._closed)

    def closed(
        self,
        declared: DeclareComputation,
        nodes: Iterable[KnownNode],
        told: Iterable[NodeRecord],
        here: Iterable[NodeRecord],
        now: float,
    ) -> None:
        """A computation is closed, which these nodes had; some know it, and some are here."""
        away, answered = Takeover(nodes), set[str]()
        for node in told:
            _leave_out(away, node)
            answered.add(node.id)
        if not declared.token:
            return
        message = CloseComputation(declared.computation, token=declared.token, epoch=declared.epoch)
        closed = _Closed(message, away, now)
        if away.known:
            self._closed[declared.computation] = closed
        for node in here:  # one that hangs may lose this: it is told again when it is met
            # who takes over may not know all nodes that have something: they alone could tell
            may_have = declared.resumes or away.names_of(node) or closed.may_be(node)
            if may_have and node.id not in answered:
                self._emit(Send(node.id, message))
        if len(self._closed) > MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def declared(self, computation: int) -> None:
        """It is used once more, after all."""
        self._closed.pop(computation, None)

    def met(self, node: NodeRecord, now: float) -> None:
        """A node is here: what it keeps of what was closed can go, as it is to confirm."""
        for computation, closed in list(self._closed.items()):
            if now >= closed.since + CLOSED_SECONDS:
                del self._closed[computation]
            elif closed.away.names_of(node) or closed.may_be(node):
                self._emit(Send(node.id, closed.message))

    def confirmed(self, node: NodeRecord, computation: int) -> None:
        """A node keeps nothing of a computation any more."""
        closed = self._closed.get(computation)
        if closed is not None:
            _leave_out(closed.away, node)
            if not closed.away.known:
                del self._closed[computation]


def _leave_out(away: Takeover, node: NodeRecord) -> None:
    for name in away.names_of(node):
        away.forget(name)
