"""The connecting end over TLS: a stream to one peer, carried by the link's `TlsThread`.

connect, handshake, proof ─▶ greeting
end of the stream ─▶ session paused, connect again ─ refused ─▶ PeerLost
another certificate, another secret, no SSL there ─▶ PeerRefusedUs once, again after a pause
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from nodeserver.core.errors import PeerRefused
from nodeserver.io.dialer import Target
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.streamdial import StreamDialer
from nodeserver.io.tlshandshake import hear_first
from nodeserver.io.tlsthread import Attempt, WireTimes, connected

_CLOSES = 2  # one connection may be closed by a peer that dies; not each one
_HEARING_SECONDS = 0.5  # in which a program speaks that is the first to speak
_CLOSING = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class TlsDialer(StreamDialer):
    """Connects to one peer, which must prove itself."""

    def __init__(
        self,
        around: Surroundings,
        peer: str,
        target: Target,
        gone: Callable[[str], None],
        met: Callable[[str, str], None] | None = None,
    ) -> None:
        self._attempt: Attempt | None = None
        self._closes = 0
        super().__init__(around, peer, target, gone, met)

    def _open(self) -> None:
        self._retry_timer = None
        around, options = self._around, self._around.options
        assert around.tls is not None
        self._attempt = around.tls.connect(
            self._reach,
            WireTimes(
                options.heartbeat_interval,
                options.heartbeat_timeout,
                options.unacknowledged_timeout,
            ),
            self._up,
            self._failed,
        )

    async def _reach(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Connect to where the peer listens; on the thread of all TLS connections."""
        where, seconds = self.target, self._around.options.connect_timeout
        sock = await connected(loop, (where.address, where.port), seconds)
        if self._closes and not self.is_greeted:  # what it said may be lost: it is heard first now
            await hear_first(loop, sock, _HEARING_SECONDS)
        return sock

    def _up(self, sock: socket.socket) -> None:
        self._attempt, self._closes = None, 0
        self._begin(sock)

    def _failed(self, error: PeerRefused | OSError) -> None:
        self._attempt = None
        if isinstance(error, PeerRefused):
            self._refused(str(error))
        elif self.is_greeted and error.errno == errno.ECONNREFUSED:
            self.give_up(os.strerror(errno.ECONNREFUSED).lower())
        elif self._closes_each_time(error):
            self._refused(
                'it closes each connection at once: it is another program, or takes no more of them'
            )
        else:
            self._open_later()

    def _closes_each_time(self, error: OSError) -> bool:
        if error.errno in _CLOSING or isinstance(error, ConnectionResetError):
            self._closes += 1
        return self._closes >= _CLOSES and not self.is_greeted

    def _refused(self, words: str) -> None:
        self._closes = 0
        super()._refused(words)

    def _shut(self, linger: float) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        super()._shut(linger)
