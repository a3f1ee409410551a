"""Waiting in an event loop for what happens in another thread.

A notebook's Interrupt is a signal, whose handler cancels the cell's task.  A loop that sleeps acts
on that at its next turn only, which may be far away: so loops in which somebody waits turn twice a
second.
"""

import asyncio
import contextlib
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dispy_nb.slices import SLICE


class _Turns:
    """Has a loop turn now and then while somebody waits in it."""

    __slots__ = ('_loop', '_timer', '_waiting')

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """One more waits."""
        self._waiting += 1
        if self._timer is None:
            self._turn()

    def end(self) -> None:
        """One less does."""
        self._waiting -= 1
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        loop = self._loop()
        if loop is not None:
            self._timer = loop.call_later(SLICE, self._turn)


_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = weakref.WeakKeyDictionary()


@contextmanager
def wakeable() -> Iterator[tuple[asyncio.Future[None], Callable[[], None]]]:
    """Give a future of the running loop, and what ends it from any thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not ended.done():
            ended.set_result(None)

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(finish)

    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = _Turns(loop)
    turns.begin()
    try:
        yield ended, wake
    finally:
        ended.cancel()
        turns.end()


def cell_interrupt() -> object:
    """Return what stands for the interrupt of the running cell, None if it was not interrupted.

    The kernel's handler holds a future of it for as long as the cell runs.  A task that is
    cancelled tells nothing: that may be a timeout of the user's.
    """
    handler = signal.getsignal(signal.SIGINT)
    for variable in getattr(handler, '__closure__', None) or ():
        with contextlib.suppress(ValueError):  # it is not set yet
            held = variable.cell_contents
            if isinstance(held, asyncio.Future) and held.done() and not held.cancelled():
                return held
    return None
