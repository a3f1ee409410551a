"""What comes to this process of those whose parents are gone, where it adopts orphans (Linux).

A node does so as process 1 of a container, or by its own wish: a job that kills the process that
it came from, to outlive its computation, leaves what it started to the node.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from nodeserver.io.signals import Signals

_END_SECONDS = 2.0
_PAUSE = 0.01

_log = logging.getLogger(__name__)


class Strays:
    """Kills and reaps children that are not ours.

    Whatever came from the zygote is in another session than this process, and cannot come back
    to it; what this process starts for a moment, in any of its threads, stays in it.
    """

    def __init__(self, signals: Signals, ours: Callable[[], Collection[int]]) -> None:
        self._signals, self._ours = signals, ours

    def sweep(self) -> set[int]:
        """Kill them, and reap those that have ended; which are left."""
        left = set()
        for pid in children().difference(self._ours()):
            if _is_of_our_session(pid) or _has_ended(pid):
                continue
            left.add(pid)
            with suppress(OSError):  # it ends just now
                pidfd = os.pidfd_open(pid)
                self._signals.to_process(pidfd, signal.SIGKILL)
                os.close(pidfd)
        return left

    def end(self) -> None:
        """Have none left when this process ends."""
        until = time.monotonic() + _END_SECONDS
        while left := self.sweep():
            if time.monotonic() > until:
                _log.warning('processes that cannot be ended: %s', sorted(left))
                return
            time.sleep(_PAUSE)


def children() -> set[int]:
    """Find the children of all threads of this process."""
    found: set[int] = set()
    for file in Path('/proc/self/task').glob('*/children'):
        with suppress(OSError):  # that thread has ended
            found.update(map(int, file.read_text().split()))
    return found


def _is_of_our_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == os.getsid(0)
    except ProcessLookupError:  # it was reaped just now
        return True


def _has_ended(pid: int) -> bool:
    try:
        return bool(os.waitpid(pid, os.WNOHANG)[0])
    except ChildProcessError:
        return True
