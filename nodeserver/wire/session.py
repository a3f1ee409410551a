"""One peer's session, the same on both ends: messages in, envelopes out, and the other way.

    send(message) ─▶ small queue ─┐ credit            ┌─▶ due() ─▶ socket
                  └▶ bulk lane ───┴─ numbered, kept ──┤
                     pulses ──────────────────────────┘ overtake what waits
    socket ─▶ receive(envelope) ─▶ believed once, in order ─▶ messages

It does no I/O and knows no clock: whoever owns the socket puts `due()` on the wire after each
call, says when the connection broke (`pause`) and hands greetings over (`greeted`).
"""

import errno
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec

from nodeserver.core.delivery import Inbound, Outbound, Verdict
from nodeserver.core.errors import ProtocolError, UsageError
from nodeserver.core.filemessages import FileBlocks
from nodeserver.core.messages import Message, ShareData
from nodeserver.core.values import value
from nodeserver.wire import bulk, codec
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import (
    HEADER_SIZE,
    Introduction,
    Kind,
    head,
    open_header,
    write_greeting,
)
from nodeserver.wire.limits import Limits as Limits
from nodeserver.wire.order import Place, Waiting, place_of


class Greeting(Enum):
    """What a greeting turned out to be."""

    FIRST = 'first'
    AGAIN = 'again'  # a reconnect, nothing lost
    RESTARTED = 'restarted'  # the other side lost its state: everything starts anew


@value
class _Envelope:
    """A numbered envelope as it is kept: the header is written anew each time it goes out."""

    kind: Kind
    frames: list[Frame]
    files: tuple[bulk.InFile, ...] = ()  # which stay open until the other side has them


@value
class _Large:
    """A message on the bulk lane; some later ones of its computation may not overtake it."""

    parts: Iterator[tuple[Kind, list[Frame]]]
    place: Place
    after: int  # this many small messages go first
    size: int


_IN_PARTS = (ShareData, FileBlocks)
_ON_BULK_LANE = (Kind.BULK, Kind.PART)
_NUMBERED = (Kind.MESSAGE, Kind.PART, Kind.BULK, Kind.PLACED)
_MOST_RESENDS = 16
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_PLACES = msgspec.msgpack.Decoder(list[str])


def _open(files: bulk.FileAccess, place: str) -> Any:
    """Have a frame from its file; as with those that are shed, b'' if there is no room for it."""
    try:
        return files.open(place)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return b''


def _placed(frames: list[Any]) -> _Envelope:
    """Put the places of frames in files into the envelope instead of the frames."""
    files = tuple(frame for frame in frames if isinstance(frame, bulk.InFile))
    places = [frame.place if isinstance(frame, bulk.InFile) else '' for frame in frames]
    here = [frame for frame in frames if not isinstance(frame, bulk.InFile)]
    return _Envelope(Kind.PLACED, [msgspec.msgpack.encode(places), *here], files)


class Session:
    """What one side knows of a peer: who it is, what it has, what it lacks."""

    def __init__(
        self,
        us: tuple[str, str],
        incarnation: str,
        limits: Limits,
        *,
        sink: Callable[[int], bulk.Sink] = bulk.MemorySink,
        files: bulk.FileAccess | None = None,
        name: str = '',
    ) -> None:
        self._peer_id, self._role = us
        self._incarnation = incarnation
        self._name = name
        self._limits = limits
        self._sink = sink
        self._files = files
        self._small: deque[_Envelope] = deque()
        self._bulk: deque[_Large] = deque()
        self._waiting = Waiting()  # there
        self._watchers: list[Callable[[], object]] = []
        self._small_sent = 0
        self.queued = 0  # bytes that have not gone out yet, but for those in files
        self.is_open = False
        self.theirs: Introduction | None = None
        self._connections = 0
        self._start_counting()

    def _start_counting(self) -> None:
        self._outbound: Outbound[_Envelope] = Outbound()
        self._inbound = Inbound()
        self._peer_opens = False  # our files, where they lie
        self._parts = 0  # of them in flight
        self._assembler = bulk.Assembler(self._limits.largest, self._sink)
        self._urgent: list[list[Frame]] = []
        self._asks_again = False  # for what is missing
        self._owed_bytes = 0
        self._owed_messages = 0
        self._owes_now = False
        self._resent = 0  # times, since the other side last took something

    # greetings

    def connected(self) -> None:
        """Note a fresh connection, on the connecting side: the next HELLO speaks of it."""
        self._connections += 1

    def greeting(self, kind: Kind) -> list[bytes]:
        """Write our HELLO or WELCOME as things stand now."""
        theirs = self.theirs
        introduction = Introduction(
            peer=self._peer_id,
            role=self._role,
            python=platform.python_version(),
            incarnation=self._incarnation,
            knows=theirs.incarnation if theirs else '',
            connection=self._connections,
            name=self._name,
            probe=self._files.probe if self._files else '',
        )
        return write_greeting(kind, introduction, self._inbound.received)

    def is_stale(self, welcome: Introduction) -> bool:
        """Whether a WELCOME answers the HELLO of a connection that is gone by now."""
        return welcome.connection != self._connections

    def is_of(self, theirs: Introduction) -> bool:
        """Whether this session is with that incarnation; what was counted with another is void."""
        return self.theirs is None or self.theirs.incarnation == theirs.incarnation

    def greeted(self, theirs: Introduction, received: int) -> Greeting:
        """Believe the other side's greeting, and send again what it has not received."""
        before, self.theirs = self.theirs, theirs
        opens = bool(self._files and theirs.probe and self._files.can_open(theirs.probe))
        self._connections = theirs.connection  # the listening side's WELCOME repeats it
        if before is None or before.incarnation != theirs.incarnation:
            if before is not None:
                self._small.clear()
                self._bulk.clear()
                self._waiting.clear()
                self.queued = 0
                self._start_counting()
            self.is_open = True
            self._say_opens(opens)
            return Greeting.FIRST if before is None else Greeting.RESTARTED
        # A greeting repeated on one connection is no loss: nothing has to go out twice for it.
        repeated = self.is_open and before.connection == theirs.connection
        if not repeated:
            self._acknowledged(received if theirs.knows == self._incarnation else 0)
            self._send_again()
        self.is_open = True
        self._say_opens(opens)
        return Greeting.AGAIN

    def _say_opens(self, opens: bool) -> None:
        if opens:
            self._urgent.append([self._head(Kind.OPENS, 0)])

    def pause(self) -> None:
        """Note that nothing can go out: keep everything until the next greeting.

        What still comes in was sent before the connection broke, and is believed as ever.
        """
        self.is_open = False
        self._urgent.clear()
        self._asks_again = False

    # out

    def send(self, message: Message) -> None:
        """Queue a message; pulses are only worth something now, so they are never kept."""
        frames = codec.encode(message)
        if isinstance(message, codec.PULSES):
            if self.is_open:
                self._urgent.append(self._enveloped(Kind.PULSE, self._outbound.last, frames))
            return
        must_wait = self._waiting.hold_up(message)
        if len(frames) > 1 and any(isinstance(frame, bulk.InFile) for frame in frames):
            if self._peer_opens and not must_wait:
                self._small.append(_placed(frames))
                return
            frames = [f.mapped() if isinstance(f, bulk.InFile) else f for f in frames]
        size = sum(map(len, frames))
        if size > self._limits.largest:
            raise UsageError(
                f'{type(message).__name__} has {size} bytes, {self._limits.largest} are allowed: '
                'write large data to files that the nodes can read'
            )
        # shared data always go in parts, so that the other side gathers them as it wants, and
        # pieces of files so that everything else overtakes them
        if size > self._limits.bulk_above or isinstance(message, _IN_PARTS) or must_wait:
            parts = bulk.split(frames, self._limits.part)
            # what it must not overtake may be among the small ones, which wait for credit
            after = self._small_sent + len(self._small)
            place = place_of(message)
            self._bulk.append(_Large(parts, place, after, size))
            self._waiting.enter(place)
        else:
            self._small.append(_Envelope(Kind.MESSAGE, frames))
        self.queued += size

    def when_sent(self, call: Callable[[], object]) -> None:
        """Have this called once, when nothing waits; it must not send by itself."""
        self._watchers.append(call)

    @property
    def acknowledged(self) -> int:
        """The number up to which the other side has everything."""
        return self._outbound.acknowledged

    def due(self) -> list[list[Frame]]:
        """Take the envelopes that are to go on the wire now, in this order."""
        if not self.is_open:
            return []
        envelopes, self._urgent = self._urgent, []
        if self._asks_again:  # once for all that came, such as the pulses of a minute that hung
            self._asks_again = False
            envelopes.append([self._head(Kind.RESEND, 0)])
        if self._small or self._bulk:
            self._fill(envelopes)
        if self._watchers and not (self._small or self._bulk):
            watchers, self._watchers = self._watchers, []
            for call in watchers:
                call()
        if self._owes_acknowledgement():
            envelopes.append([self._head(Kind.ACK, 0)])
        return envelopes

    def acknowledgement(self) -> list[Frame]:
        """Write an ACK, as a sign of life that needs no answer."""
        return [self._head(Kind.ACK, 0)]

    def _fill(self, envelopes: list[list[Frame]]) -> None:
        """Number what credit allows, taking turns between small messages and parts."""
        credit, outbound = self._limits.credit, self._outbound
        while outbound.in_flight < credit:
            has_part = self._parts < self._limits.parts_in_flight and self._may_begin_part()
            if not (self._small or has_part):
                return
            if self._small:
                self._small_sent += 1
                small = self._small.popleft()
                if small.kind is Kind.MESSAGE:
                    self.queued -= sum(map(len, small.frames))
                envelopes.append(self._numbered(small))
            if has_part:
                self._add_part(envelopes)

    def _may_begin_part(self) -> bool:
        return bool(self._bulk) and self._bulk[0].after <= self._small_sent

    def _add_part(self, envelopes: list[list[Frame]]) -> None:
        following = next(self._bulk[0].parts, None)
        if following is None:
            large = self._bulk.popleft()
            self.queued -= large.size
            self._waiting.leave(large.place)
            return
        self._parts += 1
        envelopes.append(self._numbered(_Envelope(*following)))

    def _numbered(self, envelope: _Envelope) -> list[Frame]:
        size = HEADER_SIZE + sum(map(len, envelope.frames))
        number = self._outbound.number(envelope, size)
        return self._enveloped(envelope.kind, number, envelope.frames)

    def _enveloped(self, kind: Kind, number: int, frames: Sequence[Frame]) -> list[Frame]:
        """Join header and first frame; parts keep theirs apart, a copy of 1 MiB costs more."""
        header = self._head(kind, number)
        if kind is Kind.PART:
            return [header, *frames]
        return [header + frames[0], *frames[1:]]

    def _head(self, kind: Kind, number: int) -> bytes:
        """Write a header, which acknowledges everything received so far."""
        self._owed_bytes = self._owed_messages = 0
        self._owes_now = False
        return head(kind, number, self._inbound.received)

    def _owes_acknowledgement(self) -> bool:
        limits = self._limits
        return (
            self._owes_now
            or self._owed_messages >= limits.unacknowledged
            or self._owed_bytes >= limits.credit // 4
        )

    def _acknowledged(self, received: int) -> None:
        freed = self._outbound.acknowledge(received)
        if freed:
            self._resent = 0
        for envelope in freed:
            if envelope.kind in _ON_BULK_LANE:
                self._parts -= 1

    def _send_again(self) -> None:
        for number, envelope in self._outbound.kept():
            self._urgent.append(self._enveloped(envelope.kind, number, envelope.frames))

    # in

    def receive(self, frames: Sequence[Frame]) -> list[Message]:
        """Take an envelope that is no greeting; answers with the messages it brings.

        Before the greeting nothing is believed: it is of a session that one side has forgotten.
        """
        kind, number, received = open_header(frames[0])
        if self.theirs is None:
            return []
        self._acknowledged(received)
        if kind in _NUMBERED:
            return self._believe(kind, number, frames)
        if kind == Kind.PULSE:
            if self._inbound.misses(number):
                self._asks_again = True
            return [codec.decode_pulse([memoryview(frames[0])[HEADER_SIZE:], *frames[1:]])]
        if kind == Kind.RESEND:
            self._resent += 1
            if self._resent > _MOST_RESENDS:  # each puts all that is under way on the wire anew
                raise ProtocolError('it asks again and again for what it does not take')
            self._send_again()
        elif kind == Kind.OPENS:
            self._peer_opens = True
        elif kind != Kind.ACK:
            raise ProtocolError(f'an envelope of the unknown kind {kind} came in')
        return []

    def shed(self) -> None:
        """Do without the payloads that are being received: memory has run out.

        What was lost with that is asked for again; a message of jobs arrives with empty payloads,
        which no job has, so that its receiver can say which ones it could not take.
        """
        self._assembler.shed()

    def _believe(self, kind: int, number: int, frames: Sequence[Frame]) -> list[Message]:
        verdict = self._inbound.believe(number)
        if verdict is Verdict.GAP and self._inbound.asks_again():
            self._asks_again = True
        if verdict is not Verdict.NEW:
            self._owes_now = self._owes_now or verdict is Verdict.REPEATED
            return []
        self._owed_messages += 1
        self._owed_bytes += sum(map(len, frames))
        first = memoryview(frames[0])[HEADER_SIZE:]
        if kind == Kind.MESSAGE:
            return [codec.decode([first, *frames[1:]])]
        self._owes_now = True
        if kind == Kind.PLACED:
            return [codec.decode(self._opened(first, frames[1:]))]
        whole = self._assembler.take(kind, [first, *frames[1:]])
        return [] if whole is None else [codec.decode(whole)]

    def _opened(self, announcement: Frame, frames: Sequence[Frame]) -> list[Any]:
        """Put a message together of frames that came and of those that lie in files."""
        here = iter(frames)
        try:
            places = _PLACES.decode(announcement)
            if self._files is None:
                raise ValueError('files of peers are not opened on this link')
            return [_open(self._files, place) if place else next(here) for place in places]
        except (msgspec.DecodeError, OSError, ValueError, StopIteration) as error:
            raise ProtocolError(f'a payload is not where it was said to be: {error}') from error
