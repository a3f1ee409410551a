"""The listening end of a link: the sessions of the peers that connect to one address.

HELLO ─▶ session made or resumed ─▶ WELCOME ─▶ messages
a connection closed ─▶ an ACK to every peer ─ unreachable for a while ─▶ PeerLost

This end sends no heartbeats, and only answers them: a peer that is silent may be a program that
was suspended, which goes on later where it was (D17).  How long to wait is for the core to say.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from nodeserver.core.errors import ProtocolError
from nodeserver.core.events import MessageArrived, PeerConnected, PeerLost
from nodeserver.core.messages import Message
from nodeserver.io.datagrams import Throttle
from nodeserver.io.linkoptions import Surroundings, new_session
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import (
    Introduction,
    Kind,
    objection,
    open_header,
    read_greeting,
    read_refusal,
    write_refusal,
)
from nodeserver.wire.session import Greeting, Session

log = logging.getLogger('nodeserver.link')

ONE_LINE_PER = 60.0  # seconds, of complaints about one peer
LINES_PER = 20  # of different peers, in that time
LONGEST_LINE = 300  # characters of what peers may have a hand in
_LOOKS = 8  # at who is missing, until it is given up

Admits = Callable[[Introduction, 'Listener', bytes], str]


class Listener(ABC):
    """Holds the sessions of the peers that connected to one address.

    A session belongs to the name of a connection, which only its two ends know; what comes under
    it is its peer's.  Whoever claims the id of a peer that is here under another name is refused.
    """

    is_local = False  # whether peers are programs of this user on this machine

    def __init__(self, around: Surroundings, admits: Admits) -> None:
        self._around = around
        self._admits = admits
        self._sessions: dict[bytes, Session] = {}
        self._names: dict[str, bytes] = {}  # of the connections of peers
        self._touched: dict[bytes, Session] = {}
        self._unread: dict[bytes, tuple[int, float]] = {}  # acknowledged until then, and when
        self._check_timer: asyncio.TimerHandle | None = None
        self._has_closed = False  # some connection, since the last look
        self._missing: dict[bytes, float] = {}  # who cannot be reached, and since when
        self._complaints = Throttle(ONE_LINE_PER, LINES_PER)

    # what a kind of connection has to do

    @abstractmethod
    def _transmit(self, name: bytes, frames: Sequence[Frame]) -> bool:
        """Put an envelope on the wire; whether the peer can be reached."""

    @abstractmethod
    def _shut(self, linger: float) -> None:
        """Close everything; what is under way has `linger` seconds."""

    # what the link calls

    def has(self, peer: str) -> bool:
        """Whether this peer is connected here."""
        return peer in self._names

    def reaches(self, peer: str) -> bool:
        """Whether the connection of a peer stands, as far as the library knows."""
        name = self.name_of(peer)
        session = self._sessions.get(name)
        return session is not None and self._transmit(name, session.acknowledgement())

    def name_of(self, peer: str) -> bytes:
        """Under which name a peer is connected here; b'' if it is not."""
        return self._names.get(peer, b'')

    def send(self, peer: str, message: Message) -> None:
        """Put the message on the wire now if it may, else keep it."""
        name = self._names[peer]
        session = self._sessions[name]
        session.send(message)
        self._flush(name, session)
        if session.queued > self._around.options.most_unread:
            self._look_for_reader(name, session)

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have this called when nothing waits to go out to this peer."""
        name = self._names[peer]
        session = self._sessions[name]
        session.when_sent(call)
        self._flush(name, session)

    def forget(self, peer: str, reason: str) -> None:
        """Tell the peer that we are done with it, and drop its session."""
        name = self.name_of(peer)
        if self._drop_session(name) is not None:
            self._transmit(name, write_refusal(reason))

    def close(self, linger: float, good_bye: str) -> None:
        """Say good-bye to all and close; what is under way has `linger` seconds."""
        for name, session in self._sessions.items():
            self._flush(name, session)
            self._transmit(name, write_refusal(good_bye))
        self._sessions.clear()
        self._names.clear()
        if self._check_timer is not None:
            self._check_timer.cancel()
        self._shut(linger)

    def _drop_session(self, name: bytes) -> str | None:
        """Forget a session; whose it was, or None if there is none."""
        session = self._sessions.pop(name, None)
        self._touched.pop(name, None)
        self._unread.pop(name, None)
        if session is None or session.theirs is None:
            return None
        del self._names[session.theirs.peer]
        return session.theirs.peer

    def _lose(self, name: bytes, reason: str) -> None:
        peer = self._drop_session(name)
        if peer is not None:
            self._around.post(PeerLost(peer, reason))

    # out

    def _flush(self, name: bytes, session: Session) -> None:
        for frames in session.due():
            if not self._transmit(name, frames):
                session.pause()
                self._check_later()
                return

    def _look_for_reader(self, name: bytes, session: Session) -> None:
        """Lose a peer that does not take what waits for it, and grows."""
        options, now = self._around.options, self._around.loop.time()
        number, since = self._unread.setdefault(name, (session.acknowledged, now))
        if number != session.acknowledged:
            self._unread[name] = (session.acknowledged, now)
        elif now - since > options.unread_patience:
            words = (
                f'it has taken nothing for {options.unread_patience:g} s, and '
                f'{session.queued >> 20} MB wait for it'
            )
            self._transmit(name, write_refusal(words))
            self._lose(name, words)

    def _received(self) -> None:
        """All that had come in was taken: who owes an acknowledgement sends it."""
        self._around.posted()
        touched, self._touched = self._touched, {}
        for name, session in touched.items():
            self._flush(name, session)

    # in

    def _receive(self, name: bytes, frames: Sequence[Frame], address: Callable[[], str]) -> None:
        session = self._sessions.get(name)
        try:
            kind = open_header(frames[0])[0] if frames else 0
            if kind == Kind.HELLO:
                self._on_hello(name, frames, address)
            elif session is not None:
                self._on_envelope(name, session, kind, frames)
        except ProtocolError as error:
            self._break(name, error)

    def _on_envelope(
        self, name: bytes, session: Session, kind: int, frames: Sequence[Frame]
    ) -> None:
        if kind == Kind.REFUSE:
            self._lose(name, read_refusal(frames))
            return
        self._touched[name] = session
        messages = session.receive(frames)
        if messages and session.theirs is not None:
            peer = session.theirs.peer
            for message in messages:
                self._around.post(MessageArrived(peer, message))

    def _on_hello(self, name: bytes, frames: Sequence[Frame], address: Callable[[], str]) -> None:
        refusal = objection(frames)
        if refusal:
            self._transmit(name, write_refusal(refusal))
            return
        theirs, received = read_greeting(frames)
        session = self._sessions.get(name)
        if session is not None and session.theirs is not None:
            if session.theirs.peer != theirs.peer:
                raise ProtocolError('a greeting of another peer than before')
            if not session.is_of(theirs):
                # ours ends too: who knows it would go on with numbers that nobody else has
                session = None
                self._lose(name, 'its connection was lost and taken up anew')
        if session is None:
            refusal = self._objects(theirs, name)
            if refusal:
                self._transmit(name, write_refusal(refusal))
                return
            session = self._sessions[name] = new_session(self._around, self.is_local)
            self._names[theirs.peer] = name
        greeting = session.greeted(theirs, received)
        self._transmit(name, session.greeting(Kind.WELCOME))
        if greeting is not Greeting.AGAIN:
            self._around.post(PeerConnected(theirs.peer, address(), theirs.role))
        self._touched[name] = session

    def _objects(self, theirs: Introduction, name: bytes) -> str:
        """Why a peer that is not here under this name cannot be taken, in words; '' if it can."""
        if theirs.peer in self._names:
            self._complain(theirs.peer, 'another program claims to be it, and is refused')
            return 'a program with this id is connected already'
        return self._admits(theirs, self, name)

    def _complain(self, peer: str, words: object) -> None:
        if self._complaints.allows(peer, self._around.loop.time()):
            log.warning('closing the link to %s: %s', peer, str(words)[:LONGEST_LINE])

    def _break(self, name: bytes, error: ProtocolError) -> None:
        """Close the session of a peer that sent nonsense; all others go on."""
        peer = self._drop_session(name)
        self._complain(peer or 'a stranger', error)
        self._transmit(name, write_refusal(f'the other side could not read it: {error}'))
        if peer is not None:
            self._around.post(PeerLost(peer, f'it broke the protocol: {error}'))

    # connections

    def _check_later(self) -> None:
        """A connection has closed: look soon whose it was, which the library does not say."""
        self._has_closed = True
        self._look_later()

    def _look_later(self) -> None:
        if self._check_timer is None:
            pause = self._gone_after / _LOOKS
            self._check_timer = self._around.loop.call_later(pause, self._check)

    def _check(self) -> None:
        """Find who is unreachable, and who has been so for too long."""
        self._check_timer = None
        now = self._around.loop.time()
        names = list(self._sessions) if self._has_closed else list(self._missing)
        self._has_closed = False
        for name in names:
            session = self._sessions.get(name)
            if session is None or self._transmit(name, session.acknowledgement()):
                self._missing.pop(name, None)
            elif now - self._missing.setdefault(name, now) >= self._gone_after:
                del self._missing[name]
                self._lose(name, 'its connection closed and did not come back')
        if self._missing:
            self._look_later()

    @property
    def _gone_after(self) -> float:
        options = self._around.options
        return options.local_gone_after if self.is_local else options.gone_after
