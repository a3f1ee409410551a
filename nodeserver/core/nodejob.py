"""One attempt of a job on a node, and the process that it is given to."""

from collections import deque

from nodeserver.core.deaths import describe_overrun
from nodeserver.core.status import JobStatus

_NONE: list[int] = []
_NOTHING: list[bytes] = []


class NodeJob:
    """One attempt of a job on this node."""

    __slots__ = (
        'attempt',
        'awaits_files',
        'contents',
        'has_files',
        'id',
        'kill_at',
        'kill_step',
        'manifest',
        'number',
        'payload',
        'shared',
        'stopping',
        'timeout',
    )

    def __init__(self, job: int, attempt: int, payload: bytes, timeout: float = 0.0) -> None:
        self.id = job
        self.attempt = attempt
        self.payload = payload
        self.timeout = timeout  # 0: none
        self.number = 0  # among the jobs that its worker was given, from 1
        self.shared: list[int] = _NONE  # ids of its data
        self.contents: list[bytes] = _NOTHING  # of these, once all are here
        self.has_files = False  # of its own, which go with it
        self.awaits_files = False
        self.manifest = b''  # of its files, while those of an earlier attempt lie in their place
        self.stopping = False  # its user took it back
        self.kill_step = 0
        self.kill_at = 0.0

    @property
    def is_ending(self) -> bool:
        """Whether it is being ended, or is to be."""
        return self.stopping or self.kill_step > 0

    @property
    def is_overdue(self) -> bool:
        """Whether it is being ended because it ran for too long."""
        return self.kill_step > 0 and not self.stopping

    def end(self, raised: bool, seconds: float) -> tuple[JobStatus, str]:
        """How the job has ended that its process reports, and what there is to say of it."""
        if self.stopping:
            return JobStatus.CANCELLED, 'cancelled'
        if self.is_overdue and (raised or seconds > self.timeout):
            return JobStatus.TERMINATED, describe_overrun(self.timeout)
        return (JobStatus.TERMINATED if raised else JobStatus.FINISHED), ''


class Worker:
    """A forked process and the jobs it was given, the first of which it is in."""

    __slots__ = ('given', 'held', 'id', 'memory_used', 'recalled_to', 'stuck_in')

    def __init__(self, worker: int) -> None:
        self.id = worker
        self.held: deque[NodeJob] = deque()
        self.given = 0  # jobs, over its whole life
        self.recalled_to = 0  # the last job that it was told to skip if it had not begun it
        self.stuck_in = 0  # the job behind which others had to be taken back
        self.memory_used = 0  # more than was asked for: it is killed for that

    def take(self, jobs: list[NodeJob]) -> None:
        """Note jobs that it is given."""
        for number, job in enumerate(jobs, self.given + 1):
            job.number = number
        self.given += len(jobs)
        self.held.extend(jobs)

    @property
    def is_recalling(self) -> bool:
        """Whether it may still skip jobs that it holds."""
        return len(self.held) > 1 and self.held[1].number <= self.recalled_to

    @property
    def is_open(self) -> bool:
        """Whether more jobs may be put behind the one that it is in."""
        head = self.held[0]
        return not (head.is_ending or head.number == self.stuck_in or self.is_recalling)

    def give_up(self, first: int, last: int) -> list[NodeJob]:
        """Take out the jobs of these numbers, which it has not begun."""
        back = [job for job in self.held if first <= job.number <= last]
        if back:
            self.held = deque(job for job in self.held if not first <= job.number <= last)
        return back
