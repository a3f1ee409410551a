"""Nodes that were away when a computation was closed: what they keep of it goes when they are back.

    closed ──▶ nodes that have not said ComputationClosed ── NodeDetails ──▶ CloseComputation(token)
       └── RecordClosed ──▶ the next scheduler: ClosingKnown ──▶ the same

They are asked for at their places now and then, as nobody else may look for nodes.
So it does at once at those that are here and not used, as they came too late for a takeover.
Nobody else will ever ask for it, as the client is done with it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from nodeserver.core.deadlines import Deadlines
from nodeserver.core.effects import Effect, Send
from nodeserver.core.events import ClosingKnown
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import CloseComputation, DeclareComputation, KnownNode
from nodeserver.core.records import Records
from nodeserver.core.takeover import Takeover

MOST_CLOSED = 1000  # computations; a node drops what nobody comes for, in the end
MOST_UNTOLD = 100_000  # nodes of all of them: programs say which they had
CLOSED_SECONDS = 30 * 86400.0  # by then it has done so
ASK_INTERVAL = 60.0  # between two questions to nodes that are away
MOST_ASKED = 100  # places at a time, in turn: others are looked for at the same time


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

    def __init__(
        self,
        emit: Callable[[Effect], None],
        records: Records,
        deadlines: Deadlines,
        knock: Callable[[Iterable[tuple[str, int]]], None],
    ) -> None:
        self._emit = emit
        self._records = records
        self._deadlines = deadlines
        self._knock = knock  # sees whether nodes are at places
        self._closed: dict[int, _Closed] = {}  # the oldest first
        self._asked_last = '', 0  # the place

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
        message = CloseComputation(declared.computation, token=declared.token, epoch=declared.epoch)
        closed = _Closed(message, away, now)
        if declared.token and away.known:
            self._records.closed(message, away.known.values())
            self._enter(closed, now)
        else:
            self._records.forgotten(declared.computation)
        for node in here if declared.token else ():
            # one that hangs may lose this: it is told again when it is met
            # who takes over may not know all nodes that have something: they alone could tell
            may_have = declared.resumes or away.names_of(node) or closed.may_be(node)
            if may_have and node.id not in answered:
                self._emit(Send(node.id, message))

    def known(self, event: ClosingKnown, now: float) -> None:
        """A scheduler of before has left this on disk."""
        self._enter(_Closed(event.message, Takeover(event.nodes), now - event.age), now)
        self._deadlines.late_at = now

    def _enter(self, closed: _Closed, now: float) -> None:
        self._closed[closed.message.computation] = closed
        while len(self._closed) > MOST_CLOSED or self._count_untold() > MOST_UNTOLD:
            self._drop(next(iter(self._closed)))
        self._deadlines.late_at = min(self._deadlines.late_at, now + ASK_INTERVAL)

    def _count_untold(self) -> int:
        return sum(len(closed.away.known) for closed in self._closed.values())

    def _drop(self, computation: int) -> None:
        """Its nodes are told no more: what they keep, they drop by themselves."""
        del self._closed[computation]
        self._records.forgotten(computation)

    def awaits(self, node: NodeRecord) -> bool:
        """Whether a node that was found is one of those that are to be told."""
        return any(closed.away.names_of(node) for closed in self._closed.values())

    def due(self, now: float) -> None:
        """Ask for those that are away, and tell them no more once they have dropped it."""
        if now < self._deadlines.late_at:
            return
        for computation, closed in list(self._closed.items()):
            if now >= closed.since + CLOSED_SECONDS:
                self._drop(computation)
        self._knock(self._next_places())
        self._deadlines.late_at = now + ASK_INTERVAL if self._closed else inf

    def _next_places(self) -> list[tuple[str, int]]:
        """Of all places where one may be, those whose turn it is."""
        places = sorted({p for closed in self._closed.values() for p in closed.away.places()})
        begin = bisect_right(places, self._asked_last)
        chosen = (places[begin:] + places[:begin])[:MOST_ASKED]
        self._asked_last = chosen[-1] if chosen else self._asked_last
        return chosen

    def declared(self, computation: int) -> None:
        """It is used once more, after all."""
        self._closed.pop(computation, None)

    def met(self, node: NodeRecord) -> None:
        """A node is here: what it keeps of what was closed can go, as it is to confirm."""
        for closed in self._closed.values():
            if closed.away.names_of(node) or closed.may_be(node):
                self._emit(Send(node.id, closed.message))

    def confirmed(self, node: NodeRecord, computation: int) -> None:
        """A node keeps nothing of a computation any more."""
        closed = self._closed.get(computation)
        if closed is not None:
            names = _leave_out(closed.away, node)
            if names:
                self._records.told(computation, names)
            if not closed.away.known:
                del self._closed[computation]


def _leave_out(away: Takeover, node: NodeRecord) -> set[str]:
    names = away.names_of(node)
    for name in names:
        away.forget(name)
    return names
