"""One epoll set inside asyncio's: watching a descriptor costs 1 µs instead of 8 (Linux).

A job's process brings two descriptors that live for a millisecond each.
"""

import asyncio
import os
import select
from collections.abc import Callable

_BATCH = 128

# of <sys/epoll.h>: the `select` module has them on Linux only
READABLE = 0x1
WRITABLE = 0x4
FAILED = 0x8 | 0x10


class Watcher:
    """Calls back, in the loop's thread, when watched descriptors are ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after_look: Callable[[], None]) -> None:
        self._loop = loop
        self._after_look = after_look
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._closing: list[int] = []
        self._looking = False
        self._rest_timer: asyncio.TimerHandle | None = None
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call back with the epoll mask whenever the descriptor can be read."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, READABLE)

    def watch_writing(self, fd: int, wanted: bool) -> None:
        """Call back also when the descriptor can be written, or no more."""
        self._epoll.modify(fd, READABLE | (WRITABLE if wanted else 0))

    def close_fd(self, fd: int) -> None:
        """Watch this descriptor no more, and close it."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        # only after this batch of events: a new descriptor of the same number would get the old's
        self._closing.append(fd)
        if not self._looking:
            self._close_fds()

    def rest(self, seconds: float) -> None:
        """Look again only after so long: what comes meanwhile is taken at once, together."""
        if self._rest_timer is None:
            self._loop.remove_reader(self._epoll.fileno())
            self._rest_timer = self._loop.call_later(seconds, self.wake)

    def wake(self) -> None:
        """Rest no more: look whenever there is something."""
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
            self._loop.add_reader(self._epoll.fileno(), self._look)

    def close(self) -> None:
        """Watch nothing any more; the descriptors belong to others."""
        self.wake()
        self._loop.remove_reader(self._epoll.fileno())
        self._close_fds()
        self._epoll.close()

    def _look(self) -> None:
        self._looking = True
        try:
            for fd, mask in self._epoll.poll(0, _BATCH):
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(mask)
        finally:
            self._looking = False
            self._close_fds()
        self._after_look()

    def _close_fds(self) -> None:
        for fd in self._closing:
            os.close(fd)
        self._closing.clear()
