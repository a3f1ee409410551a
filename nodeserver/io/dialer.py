"""The connecting end of a link: one peer, and its session over all reconnects.

Who is called by address alone is met when it answers.

connected ─▶ HELLO each second ─▶ WELCOME ─▶ session open ─▶ messages
disconnected ─▶ session paused ─▶ connected again, or the peer is certainly gone ─▶ PeerLost
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nodeserver.core.errors import ProtocolError
from nodeserver.core.events import (
    LinkBroken,
    LinkMended,
    MessageArrived,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
)
from nodeserver.core.messages import Message
from nodeserver.core.values import CLIENT_ROLE, SCHEDULER_ROLE
from nodeserver.io.linkoptions import Surroundings, new_session
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import (
    Kind,
    objection,
    open_header,
    read_greeting,
    read_refusal,
    write_refusal,
)
from nodeserver.wire.session import Greeting

log = logging.getLogger('nodeserver.link')

OTHER_WAY_ROUND = 'it is connected the other way round already'
_GOOD_BYE_LINGER = 1.0
_TOLD = (SCHEDULER_ROLE, CLIENT_ROLE)  # of connections that break and are mended


@dataclass(frozen=True, slots=True)
class Target:
    """Where a peer listens; `local_path` is its ipc socket and wins where it is given.

    `via` is the peer id of the relay that carries the connection: the address is one of its
    network, and may be another machine's here.
    """

    address: str
    port: int
    local_path: str = ''
    via: str = ''

    def __str__(self) -> str:
        if self.local_path:
            return self.local_path
        return f'[{self.address}]:{self.port}' if ':' in self.address else self.host_port

    @property
    def host_port(self) -> str:
        """The usual way to write it."""
        return f'{self.address}:{self.port}'


class Dialer(ABC):
    """Greets one peer over whatever connects to it, and keeps their session."""

    def __init__(
        self,
        around: Surroundings,
        peer: str,  # its id; of one that is to be met, a name until then
        target: Target,
        gone: Callable[[str], None],
        met: Callable[[str, str], None] | None = None,
    ) -> None:
        self._around = around
        self._peer = peer
        self.target = target
        self._gone = gone
        self._met = met
        self._name = around.name_for(peer if met is None else '')
        self._session = new_session(around, bool(target.local_path), self._name)
        self._told_refusal = False
        self.has_answered = False  # well or not
        self._hello_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self.is_up = False
        self._table = {Kind.WELCOME: self._on_welcome, Kind.REFUSE: self._on_refusal}
        self._open()

    # what a kind of connection has to do

    @abstractmethod
    def _open(self) -> None:
        """Begin to connect; `_on_connected` follows."""

    @abstractmethod
    def _transmit(self, frames: Sequence[Frame]) -> None:
        """Put an envelope on the wire."""

    @abstractmethod
    def _shut(self, linger: float) -> None:
        """Close the connection; what is under way has `linger` seconds."""

    # what the link calls

    @property
    def is_greeted(self) -> bool:
        """Whether the peer has ever welcomed us."""
        return self._session.theirs is not None

    def send(self, message: Message) -> None:
        """Put the message on the wire now if it may, else keep it."""
        self._session.send(message)
        self._flush()

    def when_sent(self, call: Callable[[], object]) -> None:
        """Have this called when nothing waits to go out."""
        self._session.when_sent(call)
        self._flush()

    def redirect(self, target: Target) -> None:
        """Go on with the same session where the peer is now; for one that is not connected."""
        self._stop(0)
        self.target = target
        self._open()

    def close(self, linger: float, good_bye: str) -> None:
        """Say good-bye and close; what is under way has `linger` seconds."""
        if self.is_up:
            self._flush()
            self._transmit(write_refusal(good_bye))
        self._stop(linger if self.is_up else 0)

    @property
    def _title(self) -> str:
        return f'{self._peer} at {self.target}' if self._met is None else str(self.target)

    # envelopes

    def _flush(self) -> None:
        for frames in self._session.due():
            self._transmit(frames)

    def _received(self) -> None:
        """All that had come in was taken."""
        self._around.posted()
        self._flush()

    def _receive(self, frames: Sequence[Frame]) -> None:
        try:
            kind, _, _ = open_header(frames[0])
            handler = self._table.get(Kind(kind)) if kind in (Kind.WELCOME, Kind.REFUSE) else None
            if handler is not None:
                handler(frames)
                return
            for message in self._session.receive(frames):
                self._around.post(MessageArrived(self._peer, message))
        except ProtocolError as error:
            self._broken(error)

    def _broken(self, error: ProtocolError) -> None:
        log.warning('closing the link to %s: %s', self._title, error)
        self.give_up(f'it broke the protocol: {error}')

    # greetings

    def _hello(self) -> None:
        self._transmit(self._session.greeting(Kind.HELLO))
        interval = self._around.options.hello_interval
        self._hello_timer = self._around.loop.call_later(interval, self._hello)

    def _on_welcome(self, frames: Sequence[Frame]) -> None:
        self.has_answered = True
        if text := objection(frames):
            self._refused(text)
            return
        theirs, received = read_greeting(frames)
        if self._met is not None:
            meet, self._met, called, self._peer = self._met, None, self._peer, theirs.peer
            meet(called, theirs.peer)
        elif theirs.peer != self._peer:
            self.give_up('another program answers at its address now')
            return
        if self._session.is_stale(theirs):
            return
        self._stop_hello()
        greeting = self._session.greeted(theirs, received)
        self._told_refusal = False
        if greeting is Greeting.RESTARTED:
            self._around.post(PeerLost(self._peer, 'its connection was lost and taken up anew'))
        if greeting is not Greeting.AGAIN:
            self._around.post(PeerConnected(self._peer, str(self.target)))
        elif self._around.us[1] in _TOLD:
            self._around.post(LinkMended(self._peer))

    def _on_refusal(self, frames: Sequence[Frame]) -> None:
        self._stop_hello()
        if self.is_greeted:
            self.give_up(read_refusal(frames))
        else:
            self._refused(read_refusal(frames))

    def _stop_hello(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None

    # the connection

    def _on_connected(self) -> None:
        self.is_up = True
        self._session.connected()
        self._stop_hello()
        self._hello()

    def _on_disconnected(self) -> None:
        self.is_up = False
        self._session.pause()
        self._stop_hello()
        if self.is_greeted:
            log.info('the connection to %s broke; it is being made anew', self._title)
            if self._around.us[1] in _TOLD:  # a node has no other place to look
                self._around.post(LinkBroken(self._peer))

    def _open_after(self, seconds: float) -> None:
        self._retry_timer = self._around.loop.call_later(seconds, self._open)

    def _stop(self, linger: float) -> None:
        self.is_up = False
        for timer in (self._hello_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._shut(linger)

    def _refused(self, words: str) -> None:
        """Tell it once, and try again slowly: the peer may be started anew with the right key."""
        self.has_answered = True
        if self.is_greeted:
            self.give_up(words)
            return
        self._stop(0)
        self._open_after(self._around.options.refused_retry)
        if not self._told_refusal and words != OTHER_WAY_ROUND:
            self._told_refusal = True
            self._around.post(PeerRefusedUs(self._peer, str(self.target), words))

    def give_up(self, reason: str) -> None:
        """Give the peer up: it is certainly gone, or it cannot be talked to."""
        self._stop(_GOOD_BYE_LINGER if self.is_up else 0)
        self._gone(self._peer)
        if self.is_greeted:
            self._around.post(PeerLost(self._peer, reason))
        else:
            self._around.post(PeerRefusedUs(self._peer, str(self.target), reason))
