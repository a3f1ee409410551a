"""The connecting end over a stream, however that is connected: locally, or by TLS."""

import socket
from collections.abc import Callable, Sequence

from nodeserver.io.dialer import Dialer, Target
from nodeserver.io.framedsocket import FramedSocket
from nodeserver.io.linkoptions import Surroundings
from nodeserver.wire.codec import Frame

_PAUSES = (0.1, 0.3, 1.0)  # between tries to connect, in seconds


class StreamDialer(Dialer):
    """Holds the stream to one peer, once a kind of connection has one."""

    def __init__(
        self,
        around: Surroundings,
        peer: str,
        target: Target,
        gone: Callable[[str], None],
        met: Callable[[str, str], None] | None = None,
    ) -> None:
        self._stream: FramedSocket | None = None
        self._tries = 0
        super().__init__(around, peer, target, gone, met)

    def _begin(self, sock: socket.socket) -> None:
        """Greet the peer at the other end of a socket that is connected."""
        loop = self._around.loop
        self._stream = FramedSocket(loop, sock, self._receive, self._closed, self._received)
        self._on_connected()

    def _open_later(self) -> None:
        """Try again soon: a dying process still accepts when its connections are gone already."""
        self._open_after(_PAUSES[min(self._tries, len(_PAUSES) - 1)])
        self._tries += 1

    def _shut(self, linger: float) -> None:
        if self._stream is not None:
            self._stream.close(linger)
            self._stream = None

    def _transmit(self, frames: Sequence[Frame]) -> None:
        if self._stream is not None:
            self._stream.send(frames)

    def _on_welcome(self, frames: Sequence[Frame]) -> None:
        self._tries = 0
        super()._on_welcome(frames)

    def _closed(self, reason: str) -> None:
        self._stream = None
        self._on_disconnected()
        self._open_later()
