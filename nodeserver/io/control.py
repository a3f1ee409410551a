"""The node's end of the control socket to its zygote or to a template."""

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from nodeserver.io.watcher import Watcher
from nodeserver.wire.lane import MAX_MESSAGE

_MESSAGES_A_TURN = 64
_FDS_A_MESSAGE = 4


class Control:
    """Sends orders without blocking, and hands on each answer with its descriptors."""

    def __init__(
        self, fd: int, watcher: Watcher, on_message: Callable[[bytes, list[int]], None]
    ) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._watcher = watcher
        self._on_message = on_message
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()
        self._writing = False
        self._open = True
        watcher.watch(fd, self._ready)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send as soon as the other side has room; the descriptors are closed here afterwards."""
        if not self._open:
            _close(fds)
            return
        self._waiting.append((message, fds))
        if not self._writing:
            self._flush()

    def receive(self, count: int = _MESSAGES_A_TURN) -> None:
        """Hand on what has arrived."""
        for _ in range(count):
            if not self._open:
                return
            try:
                message, fds, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, _FDS_A_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:  # told once, ahead of what it had sent before
                continue
            if not message:
                self.close()
                return
            self._on_message(message, fds)

    def close(self) -> None:
        """Close this end: the other side ends then."""
        if self._open:
            self._open = False
            self._drop_waiting()
            self._watcher.close_fd(self._socket.detach())

    def _ready(self, mask: int) -> None:
        if self._waiting:
            self._flush()
        self.receive()

    def _flush(self) -> None:
        while self._waiting:
            message, fds = self._waiting[0]
            try:
                socket.send_fds(self._socket, [message], fds)
            except BlockingIOError:
                self._want_writing(True)
                return
            except (BrokenPipeError, ConnectionResetError):
                self._drop_waiting()  # its process is dead: the pidfd tells so
                return
            self._waiting.popleft()
            _close(fds)
        self._want_writing(False)

    def _want_writing(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            self._watcher.watch_writing(self._socket.fileno(), wanted)

    def _drop_waiting(self) -> None:
        for _, fds in self._waiting:
            _close(fds)
        self._waiting.clear()


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
