"""The listening end of a link: one ROUTER for many peers that connect.

HELLO ─▶ session made or resumed ─▶ WELCOME ─▶ messages
a connection closed ─▶ a while later an ACK to every peer ─ unreachable ─▶ PeerLost

This end sends no heartbeats, and only answers them: a peer that is silent may be a program that
was suspended, which goes on later where it was (D17).  How long to wait is for the core to say.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

import zmq
from zmq.utils.monitor import parse_monitor_message

from nodeserver.core.errors import PortBusy, ProtocolError
from nodeserver.core.events import MessageArrived, PeerConnected, PeerLost
from nodeserver.core.messages import Message
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
    is_peer_id,
    objection,
    open_header,
    read_greeting,
    read_refusal,
    write_refusal,
)
from nodeserver.wire.session import Greeting, Session

log = logging.getLogger('dispy.link')

_FOREIGN = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FOREIGN
_ONE_LINE_PER = 60.0
_REMEMBERED = 1000


class Listener:
    """Holds the sessions of the peers that connected to one address."""

    def __init__(self, around: Surroundings, admits: Callable[[str, 'Listener'], str]) -> None:
        self._around = around
        self._admits = admits
        self._sessions: dict[bytes, Session] = {}
        self._touched: dict[bytes, Session] = {}
        self._check_timer: asyncio.TimerHandle | None = None
        self._is_local = False
        self._strangers = _Strangers(around.loop)
        sock = self._sock = make_socket(around, zmq.ROUTER)
        sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # Else a peer that reconnects is ignored while its dead connection lingers.
        sock.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._monitor = sock.get_monitor_socket(_WATCHED)
        self._monitored = WatchedSocket(around.loop, self._monitor, self._take_monitor)
        self._watched = WatchedSocket(around.loop, sock, self._take, self._flush_touched)

    # what the link calls

    def bind(self, address: str, port: int, option: str) -> int:
        """Listen on TCP, with CURVE where there are keys; answers with the port."""
        sock, keys = self._sock, self._around.keys
        if keys:
            sock.curve_server = True
            sock.curve_publickey, sock.curve_secretkey = keys.server_public, keys.server_secret
            sock.zap_domain = b'dispy-nb'
        sock.setsockopt(zmq.IPV6, int(':' in address))
        try:
            sock.bind(tcp_endpoint(address or '*', port or '*'))
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise PortBusy(port, address, option) from error
            raise
        endpoint: str = sock.getsockopt_string(zmq.LAST_ENDPOINT)
        return int(endpoint.rpartition(':')[2])

    def bind_local(self, path: str) -> None:
        """Listen on a local socket; its directory says who may connect."""
        self._is_local = True
        self._sock.bind(f'ipc://{path}')

    def has(self, peer: str) -> bool:
        """Whether this peer is connected here."""
        return peer.encode() in self._sessions

    def send(self, peer: str, message: Message) -> None:
        """Put the message on the wire now if it may, else keep it."""
        name = peer.encode()
        session = self._sessions[name]
        session.send(message)
        self._flush(name, session)

    def forget(self, peer: str, reason: str) -> None:
        """Tell the peer that we are done with it, and drop its session."""
        name = peer.encode()
        if self._sessions.pop(name, None) is not None:
            self._transmit(name, write_refusal(reason))

    def close(self, linger: float, good_bye: str) -> None:
        """Say good-bye to all and close; what is under way has `linger` seconds."""
        for name, session in self._sessions.items():
            self._flush(name, session)
            self._transmit(name, write_refusal(good_bye))
        self._sessions.clear()
        if self._check_timer is not None:
            self._check_timer.cancel()
        self._sock.disable_monitor()
        self._monitored.close(0)
        self._watched.close(linger)

    # out

    def _transmit(self, name: bytes, frames: Sequence[Frame]) -> bool:
        try:
            self._watched.send([name, *frames])
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def _flush(self, name: bytes, session: Session) -> None:
        for frames in session.due():
            if not self._transmit(name, frames):
                session.pause()
                self._check_later()
                return

    def _flush_touched(self) -> None:
        touched, self._touched = self._touched, {}
        for name, session in touched.items():
            self._flush(name, session)

    # in

    def _take(self) -> None:
        # Only the frame object knows the sender's address; the rest is cheaper as bytes.
        first = self._sock.recv(zmq.NOBLOCK, copy=False)
        name = first.bytes
        frames = receive(self._sock) if first.more else []
        session = self._sessions.get(name)
        try:
            kind = open_header(frames[0])[0] if frames else 0
            if kind == Kind.HELLO:
                self._on_hello(name, frames, first)
            elif session is not None:
                self._on_envelope(name, session, kind, frames)
        except ProtocolError as error:
            self._break(name, error)

    def _on_envelope(self, name: bytes, session: Session, kind: int, frames: list[Frame]) -> None:
        if kind == Kind.REFUSE:
            del self._sessions[name]
            self._around.post(PeerLost(name.decode(), read_refusal(frames)))
            return
        self._touched[name] = session
        messages = session.receive(frames)
        if messages:
            peer = name.decode()
            for message in messages:
                self._around.post(MessageArrived(peer, message))

    def _on_hello(self, name: bytes, frames: list[Frame], first: zmq.Frame) -> None:
        refusal = objection(frames)
        if refusal:
            self._transmit(name, write_refusal(refusal))
            return
        theirs, received = read_greeting(frames)
        if theirs.peer.encode() != name:
            raise ProtocolError('a greeting under another name than its connection has')
        session = self._sessions.get(name)
        if session is None:
            refusal = self._admits(theirs.peer, self)
            if refusal:
                self._transmit(name, write_refusal(refusal))
                return
            session = new_session(self._around, self._is_local)
            self._sessions[name] = session
        greeting = session.greeted(theirs, received)
        self._transmit(name, session.greeting(Kind.WELCOME))
        if greeting is Greeting.RESTARTED:
            self._around.post(PeerLost(theirs.peer, 'its connection was lost and taken up anew'))
        if greeting is not Greeting.AGAIN:
            self._around.post(PeerConnected(theirs.peer, _address_of(first)))
        self._touched[name] = session

    def _break(self, name: bytes, error: ProtocolError) -> None:
        """Close the session of a peer that sent nonsense; all others go on."""
        peer = name.decode('latin-1')
        known = self._sessions.pop(name, None)
        if known is None and not is_peer_id(peer):
            peer = 'a stranger'
        log.warning('closing the link to %s: %s', peer, error)
        self._transmit(name, write_refusal(f'the other side could not read it: {error}'))
        if known is not None:
            self._touched.pop(name, None)
            self._around.post(PeerLost(peer, f'it broke the protocol: {error}'))

    # connections

    def _take_monitor(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
        kind, value = event['event'], event['value']
        if kind == zmq.EVENT_ACCEPTED:
            self._strangers.accepted(value)
        elif kind & _FOREIGN:
            self._strangers.failed()
        elif kind == zmq.EVENT_DISCONNECTED:
            self._strangers.disconnected(value)
            self._check_later()

    def _check_later(self) -> None:
        if self._check_timer is None:
            pause = self._around.options.gone_after
            self._check_timer = self._around.loop.call_later(pause, self._check)

    def _check(self) -> None:
        """Find who is unreachable: the library does not say whose connection it was."""
        self._check_timer = None
        for name, session in list(self._sessions.items()):
            if not self._transmit(name, session.acknowledgement()):
                del self._sessions[name]
                reason = 'its connection closed and did not come back'
                self._around.post(PeerLost(name.decode(), reason))


class _Strangers:
    """Says in the log, seldom, that somebody with another key tries to connect.

    A failed handshake names neither the address nor the file descriptor; the end of its
    connection, which follows at once, names the descriptor, and its beginning had both.  A
    connection that was closed before we heard of its beginning stays without an address.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._addresses: dict[int, str] = {}
        self._said_at: dict[str, float] = {}
        self._has_failed = False

    def accepted(self, fd: int) -> None:
        """Remember whose connection this is."""
        self._addresses[fd] = _remote_address(fd)

    def failed(self) -> None:
        """Note that the next connection to end is a stranger's."""
        self._has_failed = True

    def disconnected(self, fd: int) -> None:
        """Say so if the connection that ended was a stranger's."""
        address = self._addresses.pop(fd, '')
        if not self._has_failed:
            return
        self._has_failed = False
        if not self._may_say(address):
            return
        place = f' from {address}' if address else ''
        log.warning('a program with another key (or none) tried to connect%s', place)

    def _may_say(self, address: str) -> bool:
        """Whether a minute has passed; a line without an address stands for every address."""
        said_at, now = self._said_at, self._loop.time()
        relevant = (said_at.get(address), said_at.get('')) if address else said_at.values()
        if any(at is not None and now - at < _ONE_LINE_PER for at in relevant):
            return False
        if len(said_at) >= _REMEMBERED:
            said_at.clear()
        said_at[address] = now
        return True


def _remote_address(fd: int) -> str:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # closed in the meantime
        return ''
    try:
        name = sock.getpeername()
        return str(name[0]) if isinstance(name, tuple) else ''
    except OSError:
        return ''
    finally:
        sock.detach()


def _address_of(frame: zmq.Frame) -> str:
    try:
        return str(frame.get('Peer-Address'))
    except zmq.ZMQError:  # a local socket has none
        return ''
