"""The order in which the jobs of a computation are handed out."""

from collections import deque
from collections.abc import Container, Iterable, Iterator
from itertools import chain


class JobQueue:
    """Ids of jobs: a line for each priority, the highest first; in a line, as they came.

    Ordinary jobs, all of one priority, pay for nothing but a deque.
    """

    __slots__ = ('_lines', 'line', 'priority')

    def __init__(self) -> None:
        self.priority = 0  # of the line that is served
        self.line: deque[int] = deque()  # that one; after `head`, it begins with what that answered
        self._lines = {self.priority: self.line}

    def clear(self) -> None:
        """Forget all ids."""
        self.line.clear()
        if len(self._lines) > 1:
            self._lines = {self.priority: self.line}

    def extend(self, ids: Iterable[int], priority: int) -> None:
        """Add jobs behind the others of their priority."""
        self._line_of(priority).extend(ids)

    def put_first(self, job: int, priority: int) -> None:
        """Add a job ahead of the others of its priority."""
        self._line_of(priority).appendleft(job)

    def head(self, waiting: Container[int]) -> int | None:
        """The first id that is among the waiting ones; those before it are forgotten."""
        while True:
            line = self.line
            while line:
                if line[0] in waiting:
                    return line[0]
                line.popleft()
            if len(self._lines) == 1:
                return None
            del self._lines[self.priority]
            self._serve(max(self._lines))

    def count_by_priority(self, waiting: Container[int]) -> dict[int, int]:
        """How many ids of each priority are among the waiting ones."""
        counts = {
            priority: sum(job in waiting for job in line) for priority, line in self._lines.items()
        }
        return {priority: count for priority, count in counts.items() if count}

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._lines.values())

    def _line_of(self, priority: int) -> deque[int]:
        if priority == self.priority:
            return self.line
        line = self._lines.setdefault(priority, deque())
        if priority > self.priority:
            self._serve(priority)
        return line

    def _serve(self, priority: int) -> None:
        self.priority, self.line = priority, self._lines[priority]
