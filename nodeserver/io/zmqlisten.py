"""The listening end over ZeroMQ: one ROUTER for many peers."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence

import zmq

from nodeserver.core.errors import PortBusy, ProtocolError
from nodeserver.core.events import OtherKeySeen
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.anteroom import Anteroom, plain
from nodeserver.io.datagrams import Throttle, bind_address
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.listener import Admits, Listener
from nodeserver.io.zmqsocket import (
    ZAP_DOMAIN,
    WatchedSocket,
    make_socket,
    receive_rest,
    tcp_endpoint,
)
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import Kind

log = logging.getLogger('nodeserver.link')

_FOREIGN = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED | zmq.EVENT_DISCONNECTED | _FOREIGN
_ONE_LINE_PER = 60.0
_LINES_PER = 20  # of different addresses, which may be a new one each time
_BACKLOG = 128
_HELLO = bytes((Kind.HELLO,))
_event = struct.Struct('=HI')  # of the library's monitor: kind, value

_not_for_forks: set[int] = set()  # descriptors that listen: a fork would keep the port


class ZmqListener(Listener):
    """Holds the ROUTER that listens at one address."""

    def __init__(self, around: Surroundings, admits: Admits) -> None:
        super().__init__(around, admits)
        self._strangers = _Strangers(around.loop, self._saw_other_key)
        options = around.options
        self._anteroom = Anteroom(around.loop, options.handshake_timeout, options.origin)
        self._full = Throttle(_ONE_LINE_PER)
        self._fd = self._spare_fd = -1
        sock = self._sock = make_socket(around, zmq.ROUTER)
        sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # Else a peer that reconnects is ignored while its dead connection lingers.
        sock.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._monitor = sock.get_monitor_socket(_WATCHED)
        self._monitored = WatchedSocket(around.loop, self._monitor, self._take_monitor)
        self._watched = WatchedSocket(around.loop, sock, self._take, self._received)

    def bind(self, address: str, port: int, option: str) -> int:
        """Listen on TCP, with CURVE where there are keys; answers with the port."""
        sock, keys = self._sock, self._around.keys
        if keys:
            sock.curve_server = True
            sock.curve_publickey, sock.curve_secretkey = keys.server_public, keys.server_secret
            sock.zap_domain = ZAP_DOMAIN
        try:
            self._fd, bound = open_listening(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortBusy(port, address, option) from error
            raise
        try:
            sock.setsockopt(zmq.USE_FD, self._fd)
            sock.setsockopt(zmq.IPV6, 1)
            sock.bind(tcp_endpoint(address or '*', bound))
        except zmq.ZMQError:
            _not_for_forks.discard(self._fd)
            os.close(self._fd)  # which ZeroMQ has not taken over
            raise
        self._spare_fd = os.open(os.devnull, os.O_RDONLY)
        return bound

    def _shut(self, linger: float) -> None:
        _not_for_forks.discard(self._fd)
        self._anteroom.close()
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
        self._sock.disable_monitor()
        self._monitored.close(0)
        self._watched.close(linger)

    def _transmit(self, name: bytes, frames: Sequence[Frame]) -> bool:
        try:
            self._watched.send([name, *frames])
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def _take(self) -> None:
        # Only the frame object knows the sender's address; the rest is cheaper as bytes.
        first = self._sock.recv(zmq.NOBLOCK, copy=False)
        name = first.bytes
        try:
            frames = receive_rest(self._sock) if first.more else []
        except MemoryError:
            if name in self._sessions:
                session = self._sessions[name]
                whose = session.theirs.peer if session.theirs else 'a stranger'
                log.warning('no memory is left for what %s sends', whose)
                session.shed()
            return
        except ProtocolError as error:
            self._break(name, error)
            return
        is_hello = bool(frames) and frames[0][:1] == _HELLO
        if is_hello:
            self._hear_of_connections()  # this one's beginning stands before its first words
        self._receive(name, frames, lambda: self._around.options.origin(_address_of(first)))
        if is_hello and name in self._sessions:
            self._anteroom.greeted(int(first.get(zmq.SRCFD)))

    def _saw_other_key(self, address: str) -> None:
        if self._around.us[1] == SCHEDULER_ROLE:  # a node has nobody to tell
            self._around.post(OtherKeySeen(address))

    def _hear_of_connections(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self._take_monitor()

    def _take_monitor(self) -> None:
        kind, value = _event.unpack_from(self._monitor.recv_multipart(zmq.NOBLOCK)[0])
        if kind == zmq.EVENT_ACCEPTED:
            self._anteroom.accepted(value)
        elif kind & _FOREIGN:
            self._strangers.failed()
        elif kind == zmq.EVENT_DISCONNECTED:
            self._strangers.disconnected(self._anteroom.left(value))
            self._check_later()
        elif kind == zmq.EVENT_ACCEPT_FAILED and value in (errno.EMFILE, errno.ENFILE):
            self._decline()

    def _decline(self) -> None:
        """Take a connection with the descriptor that is kept for this, and close it.

        Else it stays in the queue, and the library tries to take it again and again.
        """
        if self._full.allows('', self._around.loop.time()):
            log.warning(
                'no file descriptor is left for another connection: it is declined '
                '(see `ulimit -n`)'
            )
        if self._spare_fd < 0:
            return
        os.close(self._spare_fd)
        self._spare_fd = -1
        listening = socket.socket(fileno=self._fd)
        try:
            listening.accept()[0].close()
        except OSError:  # it has gone, or the descriptor has been taken by another thread
            pass
        finally:
            listening.detach()
        with contextlib.suppress(OSError):
            self._spare_fd = os.open(os.devnull, os.O_RDONLY)


def open_listening(address: str, port: int) -> tuple[int, int]:
    """Open the socket to listen with, which forks close; ZeroMQ would not tell which one it is."""
    with _bound(address, port) as sock:
        sock.setblocking(False)
        sock.listen(_BACKLOG)
        bound: int = sock.getsockname()[1]
        fd = sock.detach()
    _not_for_forks.add(fd)
    return fd, bound


def stop_keeping_from_forks(fd: int) -> None:
    """Forget a socket that is about to be closed."""
    _not_for_forks.discard(fd)


def _bound(address: str, port: int) -> socket.socket:
    """Take an address ('': all of IPv4 and, where the system has it, of IPv6)."""
    if not address and socket.has_dualstack_ipv6():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        where = ('::', port)
    else:
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        where = bind_address(address, port) if address else ('', port)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _leave_ports() -> None:
    """In a fork of the program: it does not listen."""
    for fd in _not_for_forks:
        with contextlib.suppress(OSError):  # what runs after a fork may have closed all
            os.close(fd)
    _not_for_forks.clear()


os.register_at_fork(after_in_child=_leave_ports)


class _Strangers:
    """Says in the log, seldom, that somebody with another key tries to connect.

    A failed handshake names neither the address nor the file descriptor; the end of its
    connection, which follows at once, names the descriptor, and its beginning had both.  A
    connection that was closed before we heard of its beginning stays without an address.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, saw: Callable[[str], None]) -> None:
        self._loop = loop
        self._saw = saw
        self._sightings = Throttle(_ONE_LINE_PER, _LINES_PER)
        self._lines = Throttle(_ONE_LINE_PER, _LINES_PER)
        self._said_at = self._nameless_at = -_ONE_LINE_PER
        self._has_failed = False

    def failed(self) -> None:
        """Note that the next connection to end is a stranger's."""
        self._has_failed = True

    def disconnected(self, address: str) -> None:
        """Say so if the connection that ended, of this address if it is known, was a stranger's."""
        if not self._has_failed:
            return
        self._has_failed = False
        now = self._loop.time()
        if address and self._sightings.allows(address, now):
            self._saw(address)
        if self._may_say(address, now):
            place = f' from {address}' if address else ''
            log.warning('a program with another key (or none) tried to connect%s', place)

    def _may_say(self, address: str, now: float) -> bool:
        """Whether a minute has passed; a line without an address stands for every address."""
        before = self._nameless_at if address else self._said_at
        if now - before < _ONE_LINE_PER or not self._lines.allows(address, now):
            return False
        self._said_at = now
        if not address:
            self._nameless_at = now
        return True


def _address_of(frame: zmq.Frame) -> str:
    try:
        return plain(str(frame.get('Peer-Address')))
    except zmq.ZMQError:  # a local socket has none
        return ''
