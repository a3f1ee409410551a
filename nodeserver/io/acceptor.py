"""Taking the connections that come to a socket, also when no descriptor is left for them.

readable ─▶ accept ─▶ take, many in a turn of the loop
              └ no descriptor left ─▶ a line in the log, and again after a pause
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from nodeserver.io.datagrams import Throttle

log = logging.getLogger('nodeserver.link')

_MOST_A_TURN = 64
_PAUSE = 0.5  # seconds
_ONE_LINE_PER = 60.0
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Hands over each connection, and where it comes from, until it is closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        take: Callable[[socket.socket, Any], None],
    ) -> None:
        self._loop, self._listening, self._take = loop, listening, take
        self._complaints = Throttle(_ONE_LINE_PER)
        listening.setblocking(False)
        self._watch()

    def close(self) -> None:
        """Take no more connections, and close the socket."""
        if self._is_open():
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _is_open(self) -> bool:
        return self._listening.fileno() >= 0

    def _watch(self) -> None:
        if self._is_open():
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_MOST_A_TURN):
            try:
                sock, where = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._pause(error)
                    return
                continue  # it has gone again
            self._take(sock, where)
            if not self._is_open():
                return

    def _pause(self, error: OSError) -> None:
        """Look again later: the loop would be woken without end until a descriptor is free."""
        if self._complaints.allows('', self._loop.time()):
            log.warning('%s: connections have to wait (see `ulimit -n`)', error.strerror)
        self._loop.remove_reader(self._listening)
        self._loop.call_later(_PAUSE, self._watch)
