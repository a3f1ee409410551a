"""The ends of links in a world of one thread: the real sessions, on connections in memory.

They do what `io/zmqdial.py` and `io/zmqlisten.py` do, step by step, and post what those post; only
the socket below and the loop above are others.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from nodeserver.core.errors import ProtocolError
from nodeserver.core.events import (
    Event,
    LinkBroken,
    LinkMended,
    MessageArrived,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
)
from nodeserver.core.messages import Message
from nodeserver.core.values import CLIENT_ROLE, SCHEDULER_ROLE
from nodeserver.io.dialer import OTHER_WAY_ROUND
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import Kind, read_greeting, read_refusal, write_refusal
from nodeserver.wire.session import Greeting, Limits, Session
from tests.support.agenda import Program
from tests.support.network import Connection, End, Listening, Network
from tests.support.promises import Promise, broken

OPTIONS = LinkOptions()
_RECONNECT_PAUSES = (0.1, 0.2, 0.4, 0.5)
_PROBE_PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0)
_OTHER_PROGRAM = 'another program answers at its address now'
STARTED_ANEW = 'its connection was lost and taken up anew'


class Place(Protocol):
    """A machine as those see it who dial it."""

    end: End

    @property
    def listener(self) -> 'Listening | None':
        """Who listens there."""


class Around:
    """What the ends of one program's links share."""

    def __init__(
        self,
        program: Program,
        end: End,
        network: Network,
        us: tuple[str, str],
        limits: Limits,
        post: Callable[[Event], None],
    ) -> None:
        self.program, self.end, self.network = program, end, network
        self.us, self.limits, self.post = us, limits, post
        # of two connections between the same two one gives way: '' takes that of a peer
        self.admits: Callable[[str], str] = lambda peer: ''
        self._incarnations = 0
        self._answers: set[tuple[Callable[..., None], tuple[str, ...]]] = set()

    def session(self) -> Session:
        """A fresh session."""
        self._incarnations += 1
        return Session(self.us, f'{self.us[0]}.{self._incarnations}', self.limits)

    def answer(self, flush: Callable[..., None], *args: str) -> None:
        """Send what is due once all that has come is read, as real links do."""
        if not self.network.agenda.has_more_now:
            flush(*args)
        elif (flush, args) not in self._answers:
            self._answers.add((flush, args))
            self.later(0.0, self._answer, flush, args)

    def _answer(self, flush: Callable[..., None], args: tuple[str, ...]) -> None:
        self._answers.discard((flush, args))
        flush(*args)

    def later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        """Have this program do something after a while."""
        self.network.agenda.later(seconds, self.program, call, *args)


class SimulatedDialer:
    """The connection to one peer, and its session over all reconnects."""

    def __init__(
        self,
        around: Around,
        peer: str,
        place: Place,
        gone: Callable[[str], None],
        met: Callable[[str], None] = lambda peer: None,  # before its first greeting is told
    ) -> None:
        self._around = around
        self.program, self.end = around.program, around.end
        self.peer, self.place = peer, place
        self._gone, self._met = gone, met
        self.session = around.session()
        self.is_pulsed = around.us[1] != CLIENT_ROLE
        self._connection: Connection | None = None
        self._is_closed = False
        self._told_refusal = False
        self._attempts = 0
        self._hellos = 0  # what an older timer of the same kind is known by
        self._probes = 0
        self._dial()

    # what the link calls

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, as far as this end knows."""
        return self._connection is not None

    @property
    def is_greeted(self) -> bool:
        """Whether the peer has ever welcomed us."""
        return self.session.theirs is not None

    def send(self, message: Message) -> None:
        """Put the message on the wire now if it may, else keep it."""
        self.session.send(message)
        self._flush()

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have this called when nothing waits to go out to this peer."""
        self.session.when_sent(call)
        self._flush()

    def close(self, good_bye: str) -> None:
        """Say good-bye and close."""
        if self.is_up:
            self._flush()
            self._transmit(write_refusal(good_bye))
        self._stop()

    def supersede(self) -> None:
        """Give the peer up, as another program has its address."""
        self._end(_OTHER_PROGRAM)

    # the connection

    def _dial(self) -> None:
        """Try to connect, and again after a pause."""
        if self._is_closed or self.is_up:
            return
        network = self._around.network
        pause = _RECONNECT_PAUSES[min(self._attempts, len(_RECONNECT_PAUSES) - 1)]
        self._attempts += 1
        listener = self.place.listener
        if listener is not None and network.is_open(self.end, self.place.end):
            network.connect(self, listener, self._around.us[0])
            pause = OPTIONS.handshake_timeout
        self._around.later(pause, self._dial)

    def connected(self, connection: Connection) -> None:
        """The connection stands."""
        if self._is_closed or self.is_up:
            connection.close_at_dialer()
            return
        self._connection = connection
        self._attempts = 0
        self._probes += 1
        self.session.connected()
        self._hellos += 1
        self._hello(self._hellos)

    def disconnected(self) -> None:
        """The connection is gone."""
        if self._is_closed or not self.is_up:
            return
        self._connection = None
        self.session.pause()
        self._hellos += 1
        self._around.later(_RECONNECT_PAUSES[0], self._dial)
        if self.is_greeted:
            if self._around.us[1] == SCHEDULER_ROLE:
                self._around.post(LinkBroken(self.peer))
            self._probes += 1
            self._probe(self._probes, 0)

    def _probe(self, number: int, looks: int) -> None:
        """Ask whether anybody listens there, until the port refuses."""
        if number != self._probes or self._is_closed:
            return
        if self.place.listener is None and self._around.network.is_open(self.end, self.place.end):
            self._end('connection refused')
            return
        pause = _PROBE_PAUSES[min(looks, len(_PROBE_PAUSES) - 1)]
        self._around.later(pause, self._probe, number, looks + 1)

    def _stop(self) -> None:
        self._is_closed = True
        if self._connection is not None:
            self._connection.close_at_dialer()
            self._connection = None

    def _transmit(self, frames: Sequence[Frame]) -> None:
        if self._connection is not None:
            self._connection.to_listener(frames)

    def _flush(self) -> None:
        for frames in self.session.due():
            self._transmit(frames)

    def take(self, frames: Sequence[Frame]) -> None:
        """Take in what came."""
        kind = frames[0][0]
        try:
            if kind == Kind.WELCOME:
                self._on_welcome(frames)
            elif kind == Kind.REFUSE:
                self._on_refusal(frames)
            else:
                for message in self.session.receive(frames):
                    self._around.post(MessageArrived(self.peer, message))
        except ProtocolError as error:
            broken(Promise.PROTOCOL, f'{self.program.name}: {error}')
        if not self._is_closed:
            self._around.answer(self._flush)

    # greetings

    def _hello(self, number: int) -> None:
        if number == self._hellos and not self._is_closed:
            self._transmit(self.session.greeting(Kind.HELLO))
            self._around.later(OPTIONS.hello_interval, self._hello, number)

    def _on_welcome(self, frames: Sequence[Frame]) -> None:
        theirs, received = read_greeting(frames)
        if theirs.peer != self.peer:
            self._end(_OTHER_PROGRAM)
            return
        if not self.is_greeted:
            self._met(self.peer)
        if self.session.is_stale(theirs):
            return
        self._hellos += 1
        greeting = self.session.greeted(theirs, received)
        self._told_refusal = False
        if greeting is Greeting.RESTARTED:
            self._around.post(PeerLost(self.peer, STARTED_ANEW))
        if greeting is not Greeting.AGAIN:
            self._around.post(PeerConnected(self.peer, self.place.end.name))
        elif self._around.us[1] == SCHEDULER_ROLE:
            self._around.post(LinkMended(self.peer))

    def _on_refusal(self, frames: Sequence[Frame]) -> None:
        self._hellos += 1
        words = read_refusal(frames)
        if self.is_greeted:
            self._end(words)
            return
        if self._connection is not None:
            self._connection.close_at_dialer()
            self._connection = None
        self._around.later(OPTIONS.refused_retry, self._dial)
        if not self._told_refusal and words != OTHER_WAY_ROUND:
            self._told_refusal = True
            self._around.post(PeerRefusedUs(self.peer, self.place.end.name, words))

    def _end(self, reason: str) -> None:
        """Give the peer up: it is certainly gone, or it cannot be talked to."""
        self._stop()
        self._gone(self.peer)
        if self.is_greeted:
            self._around.post(PeerLost(self.peer, reason))
        else:
            self._around.post(PeerRefusedUs(self.peer, self.place.end.name, reason))


def goes_on(dialer: SimulatedDialer, us: tuple[str, str]) -> bool:
    """Whether our own connection to a peer stays when that connects to us, as in `ZmqLink`."""
    if dialer.is_greeted:
        return dialer.is_up or us[1] == SCHEDULER_ROLE
    return dialer.is_up and us[0] > dialer.peer


class SimulatedListener:
    """The sessions of the peers that connected here."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self.program, self.end = around.program, around.end
        self.sessions: dict[str, Session] = {}
        self._connections: dict[str, Connection] = {}
        self._names: dict[Connection, str] = {}
        self._check_due = False
        self._missing: dict[str, float] = {}

    # what the link calls

    def send(self, peer: str, message: Message) -> None:
        """Put the message on the wire now if it may; one for an unknown peer is dropped."""
        session = self.sessions.get(peer)
        if session is not None:
            session.send(message)
            self._flush(peer, session)

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have this called when nothing waits to go out to this peer."""
        session = self.sessions.get(peer)
        if session is not None:
            session.when_sent(call)
            self._flush(peer, session)

    def forget(self, peer: str, reason: str) -> None:
        """Tell the peer that we are done with it, and drop its session."""
        if self.sessions.pop(peer, None) is not None:
            self._transmit(peer, write_refusal(reason))

    def close(self, good_bye: str) -> None:
        """Say good-bye to all and close."""
        for peer, session in self.sessions.items():
            self._flush(peer, session)
            self._transmit(peer, write_refusal(good_bye))
        self.sessions.clear()
        for connection in self._connections.values():
            connection.close_at_listener()

    def connected_session(self, peer: str) -> Session | None:
        """A peer's session, unless its connection is gone: then it goes on, or is lost soon."""
        return self.sessions.get(peer) if peer in self._connections else None

    # out

    def _transmit(self, peer: str, frames: Sequence[Frame]) -> bool:
        """Send; False when there is no way to the peer."""
        connection = self._connections.get(peer)
        if connection is None:
            return False
        connection.to_dialer(frames)
        return True

    def _flush(self, peer: str, session: Session) -> None:
        for frames in session.due():
            if not self._transmit(peer, frames):
                session.pause()
                self._check_later()
                return

    # in

    def take(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Take in what came on the connection that a peer has now; older ones have no name."""
        peer = self._names.get(connection, '')
        if self._connections.get(peer) is not connection:
            return
        session = self.sessions.get(peer)
        try:
            if frames[0][0] == Kind.HELLO:
                self._on_hello(peer, frames)
            elif session is not None:
                self._on_envelope(peer, session, frames)
        except ProtocolError as error:
            broken(Promise.PROTOCOL, f'{self.program.name}: {error}')
        self._around.answer(self._flush_to, peer)

    def _flush_to(self, peer: str) -> None:
        session = self.sessions.get(peer)
        if session is not None:
            self._flush(peer, session)

    def _on_envelope(self, peer: str, session: Session, frames: Sequence[Frame]) -> None:
        if frames[0][0] == Kind.REFUSE:
            del self.sessions[peer]
            self._around.post(PeerLost(peer, read_refusal(frames)))
            return
        for message in session.receive(frames):
            self._around.post(MessageArrived(peer, message))

    def _on_hello(self, peer: str, frames: Sequence[Frame]) -> None:
        theirs, received = read_greeting(frames)
        session = self.sessions.get(peer)
        if session is not None and not session.is_of(theirs):
            session = None
            self._around.post(PeerLost(peer, STARTED_ANEW))
        if session is None:
            if refusal := self._around.admits(peer):
                self._transmit(peer, write_refusal(refusal))
                return
            session = self.sessions[peer] = self._around.session()
        greeting = session.greeted(theirs, received)
        self._transmit(peer, session.greeting(Kind.WELCOME))
        if greeting is not Greeting.AGAIN:
            where = self._connections[peer].dialer.end.name
            self._around.post(PeerConnected(peer, where, theirs.role))

    # connections

    def accepted(self, name: str, connection: Connection) -> None:
        """A peer connected; the connection that it had before is closed."""
        before = self._connections.get(name)
        self._connections[name] = connection
        self._names[connection] = name
        if before is not None:
            before.close_at_listener()
            self._names.pop(before, None)
            self._check_later()

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone: look a while later who is unreachable."""
        name = self._names.pop(connection, '')
        if self._connections.get(name) is connection:
            del self._connections[name]
        self._check_later()

    def _check_later(self) -> None:
        if not self._check_due:
            self._check_due = True
            self._around.later(OPTIONS.gone_after / 8, self._check)

    def _check(self) -> None:
        """Find who is unreachable, and who has been so for too long."""
        self._check_due = False
        now = self._around.network.agenda.now
        for peer, session in list(self.sessions.items()):
            if self._transmit(peer, session.acknowledgement()):
                self._missing.pop(peer, None)
            elif now - self._missing.setdefault(peer, now) >= OPTIONS.gone_after:
                del self.sessions[peer]
                reason = 'its connection closed and did not come back'
                self._around.post(PeerLost(peer, reason))
        self._missing = {peer: at for peer, at in self._missing.items() if peer in self.sessions}
        if self._missing:
            self._check_later()
