"""Is anybody listening there?  Asked when a connection closed, to tell death from silence."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

_PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0)
Where = str | tuple[str | int | bytes, ...]

_GONE = (errno.ECONNREFUSED, errno.ENOENT)
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EAGAIN)


class Probe:
    """Connects to an address again and again until it refuses, or until it is closed.

    One look is not enough: a dying process closes its sockets one after the other, and its port
    may still accept when its connections are gone already.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: tuple[str, int] | str,  # of a listener, or the path of a local one
        refused: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._family, self._target = _resolve(address)
        self._refused = refused
        self._looks = 0
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def close(self) -> None:
        """Stop asking."""
        self._drop_socket()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._drop_socket()
        pause = _PAUSES[min(self._looks, len(_PAUSES) - 1)]
        self._looks += 1
        self._timer = self._loop.call_later(pause, self._look)
        if self._target is None:
            return
        sock = self._sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(self._target)
        if code in _UNDER_WAY:
            self._loop.add_writer(sock, self._answered)
        else:
            self._judge(code)

    def _answered(self) -> None:
        if self._sock is not None:
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._drop_socket()
            self._judge(code)

    def _judge(self, code: int) -> None:
        if code in _GONE:
            self.close()
            self._refused(os.strerror(code).lower())

    def _drop_socket(self) -> None:
        if self._sock is not None:
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None


def _resolve(address: tuple[str, int] | str) -> tuple[socket.AddressFamily, Where | None]:
    """Find family and target; a host name is not looked up, as that could block the loop."""
    if isinstance(address, str):
        return socket.AF_UNIX, address
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return socket.AF_INET, None
    target: Where = found[0][4]
    return found[0][0], target
