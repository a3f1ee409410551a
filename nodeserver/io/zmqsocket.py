"""A ZeroMQ socket on an asyncio loop: drained without waiting, and looked at after every send.

The FD of a socket is edge-triggered and sends consume its edge, so a send that is not followed
by a look at the socket's events can leave a message lying for ever.  `WatchedSocket` is the only
owner of its socket, so that no send escapes.
"""

import asyncio
from collections.abc import Callable, Sequence

import zmq

from nodeserver.core.errors import ProtocolError
from nodeserver.io.linkoptions import Surroundings
from nodeserver.wire.codec import Frame
from nodeserver.wire.limits import MOST_FRAMES

DRAIN_LIMIT = 64
_MAX_FRAME = 5 * 1024 * 1024  # messages that are not cut into parts have up to 4 MiB
ZAP_DOMAIN = b'dispy-nb'


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


def receive_rest(sock: zmq.Socket[bytes]) -> list[bytes]:
    """Receive the other frames of a message; an error leaves none of them behind."""
    frames: list[bytes] = []
    try:
        while True:
            frames.append(sock.recv(zmq.NOBLOCK))
            if not sock.getsockopt(zmq.RCVMORE):
                return frames
            if len(frames) >= MOST_FRAMES:
                raise ProtocolError(f'a message of more than {MOST_FRAMES} frames came in')
    except (MemoryError, ProtocolError):
        frames.clear()
        while sock.getsockopt(zmq.RCVMORE):
            sock.recv(zmq.NOBLOCK, copy=False)
        raise


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


def tcp_endpoint(address: str, port: int | str) -> str:
    """Write an endpoint; an IPv6 address gets its brackets."""
    return f'tcp://[{address}]:{port}' if ':' in address else f'tcp://{address}:{port}'
