"""The connecting end over ZeroMQ: one DEALER for one peer.

HANDSHAKE_SUCCEEDED ─▶ greeting
DISCONNECTED ─▶ session paused, probe ─ refused ─▶ PeerLost
                                      └ else ────▶ ZeroMQ reconnects, greeting again
HANDSHAKE_FAILED ─▶ PeerRefusedUs once, a new socket after a pause
"""

import errno
from collections.abc import Callable, Sequence

import zmq
from zmq.utils.monitor import parse_monitor_message

from nodeserver.core.errors import ProtocolError
from nodeserver.io.dialer import Dialer, Target, log
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.probe import Probe
from nodeserver.io.zmqsocket import WatchedSocket, make_socket, receive_rest, tcp_endpoint
from nodeserver.wire.codec import Frame

_MECHANISM_MISMATCH = 0x11000002
_CLOSED_BY_PEER = (errno.EPIPE, errno.ECONNRESET)
_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILURES


class ZmqDialer(Dialer):
    """Holds the DEALER of one peer."""

    def __init__(
        self,
        around: Surroundings,
        peer: str,
        target: Target,
        gone: Callable[[str], None],
        met: Callable[[str, str], None] | None = None,
    ) -> None:
        self._failures = 0
        self._probe: Probe | None = None
        super().__init__(around, peer, target, gone, met)

    def _open(self) -> None:
        around, target = self._around, self.target
        self._retry_timer = None
        sock = self._sock = make_socket(around, zmq.DEALER)
        sock.setsockopt(zmq.ROUTING_ID, self._name.encode())
        self._watch_the_wire(sock)
        if around.keys:
            sock.curve_serverkey = around.keys.server_public
            sock.curve_publickey = around.keys.client_public
            sock.curve_secretkey = around.keys.client_secret
        self._monitor = sock.get_monitor_socket(_WATCHED)
        self._monitored = WatchedSocket(around.loop, self._monitor, self._take_monitor)
        self._watched = WatchedSocket(around.loop, sock, self._take, self._received)
        sock.setsockopt(zmq.IPV6, int(':' in target.address))
        sock.connect(self._endpoint())

    def _endpoint(self) -> str:
        """Where to connect to."""
        return tcp_endpoint(self.target.address, self.target.port)

    def _look_whether_gone(self) -> None:
        """Find out whether a peer whose connection closed is certainly gone."""
        where = (self.target.address, self.target.port)
        self._probe = Probe(self._around.loop, where, self.give_up)

    def _watch_the_wire(self, sock: zmq.Socket[bytes]) -> None:
        """Have a wire that is cut noticed, and one that is whole again used soon.

        Without heartbeats sends into a cut wire "succeed".  Their answer may be late where much is
        under way, so it is the system that judges: what it has sent must be acknowledged by the
        system at the other end, however slowly.  Left alone it would try for longer and longer
        pauses: a wire that was cut for ten seconds would be used again ten seconds later.
        """
        options = self._around.options
        for option, seconds in (
            (zmq.HEARTBEAT_IVL, options.heartbeat_interval),
            (zmq.HEARTBEAT_TIMEOUT, options.heartbeat_timeout),
            (zmq.TCP_MAXRT, options.unacknowledged_timeout),
            (zmq.CONNECT_TIMEOUT, options.connect_timeout),
            (zmq.RECONNECT_IVL, 0.1),
            (zmq.RECONNECT_IVL_MAX, 0.5),
        ):
            sock.setsockopt(option, int(seconds * 1000))

    def _shut(self, linger: float) -> None:
        if self._probe is not None:
            self._probe.close()
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

    def _take(self) -> None:
        try:
            first = self._sock.recv(zmq.NOBLOCK)
            rest = receive_rest(self._sock) if self._sock.getsockopt(zmq.RCVMORE) else []
        except MemoryError:
            log.warning('no memory is left for what %s sends', self._title)
            self._session.shed()
            return
        except ProtocolError as error:
            self._broken(error)
            return
        self._receive([first, *rest])

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
        self._failures = 0
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        super()._on_connected()

    def _on_disconnected(self) -> None:
        if self.is_up:
            super()._on_disconnected()
            if self.is_greeted:
                self._look_whether_gone()

    def _on_handshake_failed(self, kind: int, value: int) -> None:
        if kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # A hung peer runs into a time limit, and one that dies closes once: neither is a
            # refusal.  A peer with another key closes every time.
            self._failures += value in _CLOSED_BY_PEER
            if self._failures < 2 or self.is_greeted:
                return
            words = (
                'it has another key, or none, or uses SSL'
                if self._around.keys
                else 'it asks for a key or uses SSL, or is another program; this side runs insecure'
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
        # The library never retries after some refusals, and ten times a second after others.
        self._failures = 0
        super()._refused(words)
