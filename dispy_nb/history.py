"""What has happened in a cluster so far, in words and figures of bounded size, for displays.

Of many things an even choice is kept: when there are too many, one of each two goes, and from then
on only one of two comes in.  No job is kept: nobody may hold an ended one (C25).
"""

import random
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from dispy_nb.cells import name_cells
from dispy_nb.job import DispyJob
from dispy_nb.lastline import failure, failure_text
from dispy_nb.outcomes import ProvisionalOutcome
from dispy_nb.shortened import PLAIN, arguments_text, call_text, id_text
from dispy_nb.throughput import Throughput
from nodeserver.core.status import JobStatus

MOST_SPANS = 400  # at least so many are kept, once there are, and at most twice as many
MOST_POINTS = 1000
MOST_FAILURES = 10  # the first ones; all are counted
LATEST_PROVISIONALS = 8
LARGEST_POINT = 64 * 1024  # bytes of a provisional result that is kept for plots

Item = TypeVar('Item')


class Thinned(Generic[Item]):
    """An even choice of all that was offered; filled by one thread, read by any.

    One of each so many in a row is kept, by chance: of things that take turns, such as the jobs
    of two nodes, a regular choice might never have the one.
    """

    __slots__ = ('_chance', '_chosen', '_least', '_seen', 'items', 'stride')

    def __init__(self, least: int) -> None:
        self.items: list[Item] = []
        self.stride = 1  # one of so many is kept
        self._least = least
        self._chance = random.Random(0)
        self._seen = 0  # of the present row
        self._chosen = 1

    def offer(self, make: Callable[[], Item]) -> None:
        """Keep what `make` makes, if it is chosen."""
        self._seen += 1
        if self._seen == self._chosen:
            self.items.append(make())
        if self._seen == self.stride:
            if len(self.items) >= 2 * self._least:
                self._halve()
            self._seen, self._chosen = 0, self._chance.randint(1, self.stride)

    def _halve(self) -> None:
        pairs = zip(self.items[::2], self.items[1::2], strict=False)
        # a new list: who reads the old one is not disturbed
        self.items = [pair[self._chance.getrandbits(1)] for pair in pairs]
        self.stride *= 2


class Span(NamedTuple):
    """One job's time on a node; moments in seconds since the epoch."""

    id: str
    node: str
    start: float
    end: float
    status: JobStatus
    arguments: str


class Failure(NamedTuple):
    """A job that did not finish, in words."""

    id: str
    status: str
    text: str  # in one line
    detail: str  # traceback of the user's frames, or how its process died
    arguments: str


class Provisional(NamedTuple):
    """The provisional results of one job: how many so far, and the last one."""

    id: str
    number: int
    at: float  # seconds since the epoch
    outcome: ProvisionalOutcome


class History:
    """Filled on the loop's thread, and read by any.

    Parameters
    ----------
    keeps_jobs : bool
        Whether anybody may want to see single jobs, as in a notebook.
    """

    def __init__(self, keeps_jobs: bool) -> None:
        self.keeps_jobs = keeps_jobs
        self.throughput = Throughput()
        self.spans: Thinned[Span] = Thinned(MOST_SPANS)
        self.failures: list[Failure] = []
        self.points: Thinned[Provisional] = Thinned(MOST_POINTS)
        self.provisionals: dict[int, Provisional] = {}  # by job's number, the latest one last

    def shown(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a job keeps of its arguments: plain values as they are, else words."""
        if not self.keeps_jobs:
            return None
        if not kwargs:
            for value in args:
                if type(value) not in PLAIN:
                    break
            else:
                return args
        return call_text(args, kwargs)

    def ended(
        self, job: DispyJob, status: JobStatus, outcome: bytes, reason: str, seconds: float
    ) -> None:
        """Take in the end of a job that took so long, before its arguments are forgotten."""
        if status is not JobStatus.FINISHED and self._has_room(status):
            self.failures.append(
                Failure(
                    id_text(job),
                    status.name.lower(),
                    failure(outcome, reason),
                    name_cells(failure_text(outcome, reason)),
                    arguments_text(job._arguments),
                )
            )
        if self.keeps_jobs and job._start_time is not None:
            self.spans.offer(lambda: _span(job, status, seconds))

    def provisional(self, job: DispyJob, outcome: ProvisionalOutcome, now: float) -> None:
        """Take in a provisional result."""
        if not self.keeps_jobs:
            return
        before = self.provisionals.pop(job._number, None)
        latest = Provisional(id_text(job), before.number + 1 if before else 1, now, outcome)
        self.provisionals[job._number] = latest
        while len(self.provisionals) > LATEST_PROVISIONALS:
            del self.provisionals[next(iter(self.provisionals))]
        if outcome.size <= LARGEST_POINT:
            self.points.offer(lambda: latest)

    def _has_room(self, status: JobStatus) -> bool:
        """Whether a failure is to be kept; cancelled jobs make room for those that failed."""
        if len(self.failures) < MOST_FAILURES:
            return True
        if status is JobStatus.CANCELLED:
            return False
        for at, each in reversed(list(enumerate(self.failures))):
            if each.status == 'cancelled':
                # a new list: who reads the old one is not disturbed
                self.failures = self.failures[:at] + self.failures[at + 1 :]
                return True
        return False


def _span(job: DispyJob, status: JobStatus, seconds: float) -> Span:
    node: Any = job._node
    start, end = job._start_time or 0.0, job._end_time or 0.0
    if seconds:  # as its node has timed it: before that it may have waited there
        start = max(start, end - seconds)
    return Span(
        id_text(job),
        node.name if node is not None else '',
        start,
        end,
        status,
        arguments_text(job._arguments),
    )
