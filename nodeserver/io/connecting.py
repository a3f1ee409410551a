"""Is anybody listening at that address and port?  One plain connection, which costs little."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from nodeserver.io.datagrams import bind_address, family_of

_UNDER_WAY = (0, errno.EINPROGRESS, errno.EAGAIN, errno.EWOULDBLOCK)  # the last on Windows


class Connecting:
    """Connects, tells the error number (0: somebody accepts), and closes the connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        place: tuple[str, int],
        limit: float,  # seconds
        done: Callable[[int], None],
    ) -> None:
        self._loop, self._done = loop, done
        self._sock: socket.socket | None = None
        self._timer = loop.call_later(limit, self._end, errno.ETIMEDOUT)
        try:
            sock = self._sock = socket.socket(family_of(place[0]), socket.SOCK_STREAM)
            sock.setblocking(False)
            code = sock.connect_ex(bind_address(*place))
        except OSError as error:  # no descriptor is left, or no such interface
            code = error.errno or errno.EIO
        if code in _UNDER_WAY and self._sock is not None:
            loop.add_writer(self._sock, self._writable)
        else:
            self._timer.cancel()
            self._timer = loop.call_later(0, self._end, code)

    def close(self) -> None:
        """Stop, and tell nothing."""
        self._timer.cancel()
        if self._sock is not None:
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None

    def _writable(self) -> None:
        if self._sock is not None:
            self._end(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _end(self, code: int) -> None:
        self.close()
        self._done(code)


def words_of(code: int) -> str:
    """Say why nobody was reached."""
    return 'no answer' if code == errno.ETIMEDOUT else os.strerror(code).lower()
