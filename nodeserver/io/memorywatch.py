"""Whether jobs have more memory than they asked for: looked at now and then, in a thread (Linux).

A job's memory is that of its process and of all below it.  What a process shares with others
counts as its part of it, and what it has in common with its template, as much as that has, not.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from nodeserver.core.events import Event, MemoryExceeded
from nodeserver.io.controlgroups import PROC

_PAUSES = 10  # times as long as a look has taken, until the next one


class Watched(NamedTuple):
    """A worker that has a job, and what that has asked for."""

    computation: int
    worker: int
    pid: int
    template: int  # its process
    asked: int  # bytes


class MemoryWatch:
    """Posts `MemoryExceeded` for workers with too much; one look at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, post: Callable[[Event], None]) -> None:
        self._loop = loop
        self._post = post
        self._look: asyncio.Future[list[MemoryExceeded]] | None = None
        self._began_at = self._next_at = 0.0

    def look(self, watched: list[Watched]) -> None:
        """Look at these, unless it is too early: the kernel goes through each page of them."""
        now = self._loop.time()
        if watched and self._look is None and now >= self._next_at:
            self._began_at = now
            self._look = self._loop.run_in_executor(None, find_excess, watched)
            self._look.add_done_callback(self._looked)

    def close(self) -> None:
        """Tell of nothing any more."""
        if self._look is not None:
            self._look.cancel()

    def _looked(self, look: asyncio.Future[list[MemoryExceeded]]) -> None:
        self._look = None
        now = self._loop.time()
        self._next_at = now + _PAUSES * (now - self._began_at)
        if not look.cancelled():
            for event in look.result():
                self._post(event)


def find_excess(watched: Iterable[Watched], proc: Path = PROC) -> list[MemoryExceeded]:
    """Measure workers; those that have more than was asked for."""
    found = []
    for one in watched:
        pids = _family(proc, one.pid)
        # quick to read, and never less than what follows
        if sum(_resident(proc, pid) for pid in pids) > one.asked:
            common = _share(proc, one.template)
            used = sum(max(0, _share(proc, pid) - common) for pid in pids)
            if used > one.asked:
                found.append(MemoryExceeded(one.computation, one.worker, used))
    return found


def _family(proc: Path, pid: int) -> list[int]:
    """A process and all below it: what escapes its parent is adopted by the worker above."""
    family = [pid]
    for member in family:
        for file in (proc / str(member) / 'task').glob('*/children'):
            family += map(int, _text(file).split())
    return family


def _resident(proc: Path, pid: int) -> int:
    """Kilobytes are exact here: the counters in `statm` are estimates while threads run."""
    return _kilobytes(_text(proc / str(pid) / 'status'), 'VmRSS:')


def _share(proc: Path, pid: int) -> int:
    """Its memory, with what it shares divided among those that share it."""
    rollup = _text(proc / str(pid) / 'smaps_rollup')
    return _kilobytes(rollup, 'Pss:') if rollup else _resident(proc, pid)


def _kilobytes(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # it has ended, or is not ours to look at
        return ''
