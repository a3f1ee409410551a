"""The page of memory that a lasting worker shares with its node: which job it is in, what to skip.

Jobs are numbered from 1 in the order in which a worker is given them.  The worker says in the page
which one it begins, and then looks whether it is to skip that one; the node says what to skip, and
looks a little later where the worker is.  So what waits behind a long job comes back at once,
without the worker's help, and a signal meant for one job never hits the next.
"""

import mmap
import os
from collections import deque

PAGE_SIZE = 4096

# cells of 8 bytes
_AT = 0  # the worker: the job that it is in, or was last
_LOW = 1  # the node: the first job to skip
_HIGH = 2  # the node: the one behind the last to skip
_INTERRUPTED = 3  # the node: the job that an interrupt is meant for


def new_page() -> int:
    """Make a page, and answer the descriptor of its memory file."""
    fd = os.memfd_create('page')
    try:
        os.ftruncate(fd, PAGE_SIZE)
    except OSError:
        os.close(fd)
        raise
    return fd


def cells_of(fd: int) -> memoryview:
    """Map the page of this descriptor, which may be closed then."""
    return memoryview(mmap.mmap(fd, PAGE_SIZE)).cast('Q')


class PageOfWorker:
    """The worker's view."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def begins(self, number: int) -> bool:
        """Say that this job begins now; False if it is to be skipped.

        The position goes back when it is: it says which job was begun last.
        """
        cells = self._cells
        before, cells[_AT] = cells[_AT], number
        # the end before the beginning, as the node writes them the other way round: an old
        # beginning beside a new end would skip a job that the node counts as begun
        if number < cells[_HIGH] and cells[_LOW] <= number:
            cells[_AT] = before
            return False
        return True

    def is_interrupted(self, number: int) -> bool:
        """Whether an interrupt was sent that is meant for this job."""
        return self._cells[_INTERRUPTED] == number


class PageOfNode:
    """The node's view, and what it has taken back."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._low, self._high = 0, 0  # jobs [low, high) are to be skipped
        self._seen_at = 0
        self._taken: deque[tuple[int, int]] = deque()  # first and last of what came back so

    @property
    def begun(self) -> int:
        """The job that the worker has begun last."""
        return self._cells[_AT]

    def interrupt(self, number: int) -> None:
        """Say whom the interrupt that follows is meant for."""
        self._cells[_INTERRUPTED] = number

    def recall(self, last_given: int, answered: int) -> bool:
        """Have the worker skip what it has not begun; False if there is nothing to skip.

        Until it has answered for all that it was to skip before, the beginning of that stays: its
        position may be one that it is just looking at, and will skip.
        """
        cells = self._cells
        if answered >= self._high - 1:
            self._low = cells[_AT] + 1
            cells[_LOW] = self._low  # first this: the old end is not above it
        if self._low > last_given:
            return False
        self._high = cells[_HIGH] = last_given + 1
        self._seen_at = cells[_AT]
        return True

    def take_back(self, answered: int) -> tuple[int, int] | None:
        """Look, a little after `recall`: the jobs (first, last) that are ours again.

        A worker that is where it was, in the first job that it has not answered for, will skip
        all that it was told to.  One that has moved tells by itself; None means: look again.
        """
        if answered >= self._high - 1:
            return (0, -1)
        before, self._seen_at = self._seen_at, self._cells[_AT]
        if self._seen_at != before or before != answered + 1:
            return None
        taken_to = self._taken[-1][1] if self._taken else 0
        back = (max(before + 1, self._low, taken_to + 1), self._high - 1)
        self._taken.append(back)
        return back

    def was_taken(self, number: int) -> bool:
        """Whether a job that the worker reports as skipped was taken back before.

        It reports them in their order.  One in front of those that were taken back was not: the
        worker was just looking at it, and seemed to be in it.
        """
        while self._taken and self._taken[0][1] < number:
            self._taken.popleft()
        return bool(self._taken) and self._taken[0][0] <= number

    def close(self) -> None:
        """Give the memory back."""
        mapped = self._cells.obj
        self._cells.release()
        if isinstance(mapped, mmap.mmap):
            mapped.close()
