"""The connecting end of a link: one DEALER for one peer.

HANDSHAKE_SUCCEEDED ─▶ HELLO each second ─▶ WELCOME ─▶ session open ─▶ messages
DISCONNECTED ─▶ session paused, probe ─ refused ─▶ PeerLost
                                      └ else ────▶ ZeroMQ reconnects, HELLO again
HANDSHAKE_FAILED ─▶ PeerRefusedUs once, a new socket after a pause
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from nodeserver.core.errors import ProtocolError
from nodeserver.core.events import MessageArrived, PeerConnected, PeerLost, PeerRefusedUs
from nodeserver.core.messages import Message
from nodeserver.io.probe import Probe
from nodeserver.io.zmqsocket import (
    Surroundings,
    WatchedSocket,
    make_socket,
    new_session,
    receive,
    tcp_endpoint,
)
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

log = logging.getLogger('dispy.link')

_MECHANISM_MISMATCH = 0x11000002
_CLOSED_BY_PEER = (errno.EPIPE, errno.ECONNRESET)
_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILURES
_GOOD_BYE_LINGER = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a peer listens; `local_path` is its ipc socket and wins where it is given."""

    address: str
    port: int
    local_path: str = ''

    def __str__(self) -> str:
        if self.local_path:
            return self.local_path
        return f'[{self.address}]:{self.port}' if ':' in self.address else self.host_port

    @property
    def host_port(self) -> str:
        """The usual way to write it."""
        return f'{self.address}:{self.port}'


class Dialer:
    """Holds the connection to one peer, and its session over all reconnects."""

    def __init__(
        self, around: Surroundings, peer: str, target: Target, gone: Callable[[str], None]
    ) -> None:
        self._around = around
        self._peer = peer
        self.target = target
        self._gone = gone
        self._session = new_session(around, bool(target.local_path))
        self._told_refusal = False
        self._failures = 0
        self._probe: Probe | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self.is_up = False
        self._table = {Kind.WELCOME: self._on_welcome, Kind.REFUSE: self._on_refusal}
        self._open()

    # what the link calls

    @property
    def is_greeted(self) -> bool:
        """Whether the peer has ever welcomed us."""
        return self._session.theirs is not None

    def send(self, message: Message) -> None:
        """Put the message on the wire now if it may, else keep it."""
        self._session.send(message)
        self._flush()

    def close(self, linger: float, good_bye: str) -> None:
        """Say good-bye and close; what is under way has `linger` seconds."""
        if self.is_up:
            self._flush()
            self._transmit(write_refusal(good_bye))
        self._stop(linger if self.is_up else 0)

    # the socket

    def _open(self) -> None:
        around, target = self._around, self.target
        self._retry_timer = None
        sock = self._sock = make_socket(around, zmq.DEALER)
        sock.setsockopt(zmq.ROUTING_ID, around.us[0].encode())
        # Without heartbeats a cut wire is never noticed, and sends "succeed".
        sock.setsockopt(zmq.HEARTBEAT_IVL, int(around.options.heartbeat_interval * 1000))
        sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(around.options.heartbeat_timeout * 1000))
        sock.setsockopt(zmq.RECONNECT_IVL, 100)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        if around.keys and not target.local_path:
            sock.curve_serverkey = around.keys.server_public
            sock.curve_publickey = around.keys.client_public
            sock.curve_secretkey = around.keys.client_secret
        self._monitor = sock.get_monitor_socket(_WATCHED)
        self._monitored = WatchedSocket(around.loop, self._monitor, self._take_monitor)
        self._watched = WatchedSocket(around.loop, sock, self._take, self._flush)
        if target.local_path:
            sock.connect(f'ipc://{target.local_path}')
        else:
            sock.setsockopt(zmq.IPV6, int(':' in target.address))
            sock.connect(tcp_endpoint(target.address, target.port))

    def _stop(self, linger: float) -> None:
        self.is_up = False
        for timer in (self._hello_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        if self._probe is not None:
            self._probe.close()
        self._shut(linger)

    def _shut(self, linger: float) -> None:
        if not self._sock.closed:
            self._sock.disable_monitor()
            self._monitored.close(0)
            self._watched.close(linger)

    def _transmit(self, frames: Sequence[Frame]) -> None:
        try:
            self._watched.send(frames)
        except zmq.Again:
            # Without a queue to a peer nothing can go out; the next greeting sends it again.
            self._session.pause()

    def _flush(self) -> None:
        for frames in self._session.due():
            self._transmit(frames)

    def _take(self) -> None:
        frames = receive(self._sock, zmq.NOBLOCK)
        try:
            kind, _, _ = open_header(frames[0])
            handler = self._table.get(Kind(kind)) if kind in (Kind.WELCOME, Kind.REFUSE) else None
            if handler is not None:
                handler(frames)
                return
            for message in self._session.receive(frames):
                self._around.post(MessageArrived(self._peer, message))
        except ProtocolError as error:
            log.warning('closing the link to %s at %s: %s', self._peer, self.target, error)
            self._end(f'it broke the protocol: {error}')

    # greetings

    def _hello(self) -> None:
        self._transmit(self._session.greeting(Kind.HELLO))
        interval = self._around.options.hello_interval
        self._hello_timer = self._around.loop.call_later(interval, self._hello)

    def _on_welcome(self, frames: list[Frame]) -> None:
        if text := objection(frames):
            self._refused(text)
            return
        theirs, received = read_greeting(frames)
        if theirs.peer != self._peer:
            self._end('another program answers at its address now')
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

    def _on_refusal(self, frames: list[Frame]) -> None:
        self._stop_hello()
        if self.is_greeted:
            self._end(read_refusal(frames))
        else:
            self._refused(read_refusal(frames))

    def _stop_hello(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None

    # the connection

    def _take_monitor(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
        kind = event['event']
        if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._on_connected()
        elif kind == zmq.EVENT_DISCONNECTED:
            self._on_disconnected()
        elif kind & _FAILURES:
            self._on_handshake_failed(kind, event['value'])

    def _on_connected(self) -> None:
        self.is_up = True
        self._failures = 0
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        self._session.connected()
        self._stop_hello()
        self._hello()

    def _on_disconnected(self) -> None:
        if not self.is_up:
            return
        self.is_up = False
        self._session.pause()
        self._stop_hello()
        if self.is_greeted:
            target = self.target
            where = target.local_path or (target.address, target.port)
            self._probe = Probe(self._around.loop, where, self._end)

    def _on_handshake_failed(self, kind: int, value: int) -> None:
        if kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # A hung peer runs into a time limit, and one that dies closes once: neither is a
            # refusal.  A peer with another key closes every time.
            self._failures += value in _CLOSED_BY_PEER
            if self._failures < 2 or self.is_greeted:
                return
            words = (
                'it has another key, or none'
                if self._around.keys
                else 'it asks for a key, or is another program; this side runs insecure'
            )
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MECHANISM_MISMATCH:
            words = (
                'it runs insecure, without a key, and this side has a key'
                if self._around.keys
                else 'it asks for a key, and this side runs insecure, without one'
            )
        else:
            words = 'it has another key'
        self._refused(words)

    def _refused(self, words: str) -> None:
        """Tell it once, and try again slowly: the peer may be started anew with the right key."""
        if self.is_greeted:
            self._end(words)
            return
        self._stop(0)
        # The library never retries after some refusals, and ten times a second after others.
        pause = self._around.options.refused_retry
        self._retry_timer = self._around.loop.call_later(pause, self._open)
        self._failures = 0
        if not self._told_refusal:
            self._told_refusal = True
            self._around.post(PeerRefusedUs(self._peer, str(self.target), words))

    def _end(self, reason: str) -> None:
        """Give the peer up: it is certainly gone, or it cannot be talked to."""
        self._stop(_GOOD_BYE_LINGER if self.is_up else 0)
        self._gone(self._peer)
        if self.is_greeted:
            self._around.post(PeerLost(self._peer, reason))
        else:
            self._around.post(PeerRefusedUs(self._peer, str(self.target), reason))
