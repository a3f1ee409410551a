"""Kills by the kernel for want of memory: counted by it, in a file that is looked at (Linux)."""

import re
from collections.abc import Iterator
from pathlib import Path

from nodeserver.core.deaths import MemoryKill
from nodeserver.io.controlgroups import PROC, group_directories

FRESH_SECONDS = 5.0  # a process with much memory takes a while from being killed to its end

_COUNT = re.compile(rb'^oom_kill (\d+)$', re.MULTILINE)


class MemoryKills:
    """Tells whether a process that was killed was killed for want of memory.

    The kernel counts such kills by control group, or else for the whole machine.  A count that
    has risen within the last seconds explains as many deaths.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._file, self._kind = _find(proc)
        self._seen = self._count()
        self._fresh = 0
        self._fresh_until = 0.0

    def look(self, now: float) -> None:
        """See whether the count has risen."""
        if self._file is None:
            return
        count = self._count()
        if count > self._seen:
            self._fresh += count - self._seen
            self._fresh_until = now + FRESH_SECONDS
        elif now > self._fresh_until:
            self._fresh = 0
        self._seen = count

    def take(self, now: float) -> MemoryKill:
        """Say what is known about a process that SIGKILL has just ended."""
        self.look(now)
        if self._fresh:
            self._fresh -= 1
            return self._kind
        return MemoryKill.UNKNOWN if self._file is None else MemoryKill.NONE

    def _count(self) -> int:
        return (_read_count(self._file) or 0) if self._file is not None else 0


def _find(proc: Path) -> tuple[Path | None, MemoryKill]:
    """The closest count there is: of our control group, else of the machine."""
    for file in _group_files(proc):
        if _read_count(file) is not None:
            return file, MemoryKill.OURS
    if _read_count(proc / 'vmstat') is not None:
        return proc / 'vmstat', MemoryKill.SOME
    return None, MemoryKill.UNKNOWN


def _read_count(file: Path) -> int | None:
    try:
        found = _COUNT.search(file.read_bytes())
    except OSError:
        return None
    return int(found[1]) if found else None


def _group_files(proc: Path) -> Iterator[Path]:
    """Where this process's control group may keep its count, under version 2 and then 1."""
    for controller, name in (('', 'memory.events'), ('memory', 'memory.oom_control')):
        for _, own in group_directories(proc, controller):
            yield own / name
