"""A bare loop that forks a process for each job: the least that a process per job can cost."""

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.systems.base import WORKERS, Session, System, UnsupportedError


class ForkSession(Session):
    """Runs calls in forks of this process, two at a time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def submit(self, *args: Any) -> Any:
        """There is nobody who would run it meanwhile."""
        raise UnsupportedError('it has no thread that would take single jobs')

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """See `submit`."""
        raise UnsupportedError('it has no thread that would take single jobs')

    def results(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Fork for each call as soon as one of the processes has ended."""
        left = deque(enumerate(rows))
        results: list[Any] = [None] * len(left)
        running: dict[int, tuple[int, int]] = {}
        while left or running:
            while left and len(running) < WORKERS:
                number, row = left.popleft()
                pid, file = self._fork(row)
                running[pid] = number, file
            pid, status = os.wait()
            number, file = running.pop(pid)
            with os.fdopen(file, 'rb') as stream:
                results[number] = pickle.load(stream)
            if status:
                raise RuntimeError(f'call {number} ended with status {status}')
        return results

    def _fork(self, row: Sequence[Any]) -> tuple[int, int]:
        near, far = os.pipe()
        pid = os.fork()
        if pid:
            os.close(far)
            return pid, near
        try:
            os.write(far, pickle.dumps(self._function(*row)))
            os._exit(0)
        finally:
            os._exit(1)


class Forks(System):
    """Nothing runs between jobs."""

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to end."""

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Any function will do."""
        yield ForkSession(function)


SYSTEMS = {'fork': Forks}
