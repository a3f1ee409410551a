"""Two connected sockets joined: what one end says, the other hears, and nobody reads it.

A direction takes no more while its sink is full, so that at most one portion waits in each: a
slow reader slows its writer down, and costs no memory.
"""

import asyncio
import socket
from collections.abc import Callable

PORTION = 256 * 1024
_ROUNDS = 4  # portions of one direction in a turn of the loop, so that others get their share
_NOT_NOW = (BlockingIOError, InterruptedError)


class Pump:
    """Carries bytes both ways until one end closes; then closes both."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        near: socket.socket,
        far: socket.socket,
        scratch: bytearray,  # for all pumps of a loop: nothing stays in it
        ended: Callable[['Pump'], None],
    ) -> None:
        self._loop, self._scratch, self._ended = loop, memoryview(scratch), ended
        self._ends = (near, far)
        self._is_open = True
        self._left: dict[socket.socket, memoryview] = {}  # what a full sink did not take
        self._listen(near)
        self._listen(far)

    def close(self) -> None:
        """Close both ends; a second time does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        for sock in self._ends:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
        self._left.clear()
        self._ended(self)

    def _listen(self, source: socket.socket) -> None:
        self._loop.add_reader(source, self._readable, source)

    def _other(self, sock: socket.socket) -> socket.socket:
        near, far = self._ends
        return far if sock is near else near

    def _readable(self, source: socket.socket) -> None:
        """Hand on what there is, until there is no more or the sink is full."""
        sink = self._other(source)
        try:
            for _ in range(_ROUNDS):
                size = source.recv_into(self._scratch)
                if not size:
                    self.close()
                    return
                taken = self._send(sink, self._scratch[:size])
                if taken < size:
                    self._left[sink] = memoryview(bytes(self._scratch[taken:size]))
                    self._loop.remove_reader(source)
                    self._loop.add_writer(sink, self._writable, sink)
                    return
                if size < len(self._scratch):
                    return
        except _NOT_NOW:
            return
        except OSError:  # either end is gone
            self.close()

    def _writable(self, sink: socket.socket) -> None:
        """Hand on what was left, and then listen again."""
        try:
            left = self._left[sink]
            left = left[self._send(sink, left) :]
        except OSError:
            self.close()
            return
        if left:
            self._left[sink] = left
            return
        del self._left[sink]
        self._loop.remove_writer(sink)
        self._listen(self._other(sink))

    @staticmethod
    def _send(sink: socket.socket, data: memoryview) -> int:
        try:
            return sink.send(data)
        except _NOT_NOW:
            return 0
