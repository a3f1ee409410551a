"""A ZeroMQ socket on an asyncio loop: drained without waiting, and looked at after every send.

The FD of a socket is edge-triggered and sends consume its edge, so a send that is not followed
by a look at the socket's events can leave a message lying for ever.  `WatchedSocket` is the only
owner of its socket, so that no send escapes.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import zmq

from nodeserver.core.events import Event
from nodeserver.wire.bulk import FileAccess, MemorySink, Sink
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import Kind
from nodeserver.wire.linkkeys import LinkKeys
from nodeserver.wire.session import Limits, Session

DRAIN_LIMIT = 64
_PART = bytes((Kind.PART,))
_MAX_FRAME = 8 * 1024 * 1024
ZAP_DOMAIN = b'dispy-nb'


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Times (seconds) and sizes of a link; the defaults are for use, tests shorten them.

    `sink` says what large payloads are gathered in: memory, or files for other processes;
    `files` opens those of peers on this machine, so that nothing has to be gathered.
    """

    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 15.0
    handshake_timeout: float = 5.0
    hello_interval: float = 1.0  # an unanswered greeting is repeated so often
    gone_after: float = 2.0  # a closed connection may come back for so long
    refused_retry: float = 5.0
    limits: Limits = field(default_factory=Limits)
    sink: Callable[[int], Sink] = MemorySink
    files: FileAccess | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sockets of one link share."""

    loop: asyncio.AbstractEventLoop
    context: zmq.Context[zmq.Socket[bytes]]
    post: Callable[[Event], None]
    us: tuple[str, str]  # peer id and role
    keys: LinkKeys | None
    options: LinkOptions


def new_session(around: Surroundings, is_local: bool) -> Session:
    """Make a session; large payloads go as files over a local socket (D7)."""
    options = around.options
    files = options.files if is_local else None
    return Session(around.us, secrets.token_hex(8), options.limits, sink=options.sink, files=files)


class WatchedSocket:
    """Owns a socket, calls `take` while there is something to receive, then `after_turn`.

    `take` receives one multipart message with NOBLOCK and raises `zmq.Again` when there is none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: zmq.Socket[bytes],
        take: Callable[[], None],
        after_turn: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._take = take
        self._after_turn = after_turn
        self._fd = int(sock.getsockopt(zmq.FD))
        self._scheduled = False
        loop.add_reader(self._fd, self._turn)
        self._look_soon()

    def send(self, frames: Sequence[Frame]) -> None:
        """Send now, without waiting, and look at the events later in this turn of the loop."""
        self._sock.send_multipart(frames, zmq.NOBLOCK)
        if not self._scheduled:
            self._look_soon()

    def close(self, linger: float) -> None:
        """Stop watching and close; ZeroMQ goes on sending for up to `linger` seconds."""
        if not self._is_closed():
            self._loop.remove_reader(self._fd)
            self._sock.close(int(linger * 1000))

    def _is_closed(self) -> bool:
        return self._sock.closed

    def _look_soon(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._scheduled = False
        if not self._is_closed() and int(self._sock.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._turn()

    def _turn(self) -> None:
        """Take a bounded number of messages, so that other sockets get their share."""
        if self._is_closed():
            return
        try:
            for _ in range(DRAIN_LIMIT):
                self._take()
                if self._is_closed():
                    return
        except zmq.Again:
            pass
        if self._after_turn is not None:
            self._after_turn()
        if not self._scheduled:
            self._look_soon()


def make_socket(around: Surroundings, kind: int) -> zmq.Socket[bytes]:
    """Make a socket with what every ROUTER and DEALER of a link has in common."""
    options = around.options
    sock = around.context.socket(kind)
    sock.setsockopt(zmq.HANDSHAKE_IVL, int(options.handshake_timeout * 1000))
    # Without a limit a header claiming 8 GiB makes the library allocate 8 GiB.
    sock.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME)
    # High-water marks count messages, not bytes; the sessions' credit bounds bytes.
    sock.setsockopt(zmq.SNDHWM, 0)
    sock.setsockopt(zmq.RCVHWM, 0)
    sock.setsockopt(zmq.LINGER, 0)
    return sock


def receive(sock: zmq.Socket[bytes], flags: int = 0) -> list[Frame]:
    """Receive one multipart message; of parts of large ones the memory is the library's."""
    first = sock.recv(flags)
    frames: list[Frame] = [first]
    copies = first[:1] != _PART
    while sock.getsockopt(zmq.RCVMORE):
        if copies:
            frames.append(sock.recv())
        else:
            frames.append(sock.recv(copy=False).buffer)
    return frames


def tcp_endpoint(address: str, port: int | str) -> str:
    """Write an endpoint; an IPv6 address gets its brackets."""
    return f'tcp://[{address}]:{port}' if ':' in address else f'tcp://{address}:{port}'
