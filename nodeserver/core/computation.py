"""A computation as its scheduler sees it: the jobs that wait and the jobs that are with nodes."""

from collections import deque
from collections.abc import Iterator

from nodeserver.core.messages import DeclareComputation, SubmitJobs
from nodeserver.core.pace import Pace
from nodeserver.core.shareddata import DataStock

NOTICE_DELAY = 2.0  # how long nothing may happen before its user is told why
NOTICE_INTERVAL = 60.0


class JobRecord:
    """A job that was with a node at least once; before that it is an id and its bytes."""

    __slots__ = ('attempt', 'node', 'payload', 'pinned', 'shared', 'stopping')

    def __init__(self, payload: bytes, pinned: str, shared: list[int]) -> None:
        self.payload = payload
        self.pinned = pinned
        self.shared = shared  # ids of its data
        self.node = ''  # '': it waits
        self.attempt = 0
        self.stopping = False


class Computation:
    """The queue of one computation and the records of its jobs."""

    __slots__ = (
        'client',
        'closing',
        'data',
        'declared',
        'jobs',
        'notice_at',
        'noticed_at',
        'pace',
        'ping_at',
        'pings',
        'pinned',
        'queue',
        'waiting',
    )

    def __init__(self, client: str, declared: DeclareComputation, now: float) -> None:
        self.client = client
        self.declared = declared
        self.queue: deque[int] = deque()  # ids for any node; an id not in `waiting` was cancelled
        self.pinned: dict[str, deque[int]] = {}  # ids for one node only, by its id, address or name
        self.waiting: dict[int, bytes | JobRecord] = {}
        self.jobs: dict[int, JobRecord] = {}  # with a node
        self.data: DataStock | None = None  # until the first data come, or a job names some
        self.pace = Pace()
        self.closing = False
        self.notice_at = now + NOTICE_DELAY
        self.noticed_at = float('-inf')  # when its user was told last why jobs wait
        self.ping_at = now
        self.pings = 0

    @property
    def id(self) -> int:
        """The id under which its client made it."""
        return self.declared.computation

    @property
    def left(self) -> int:
        """Jobs that are not settled yet."""
        return len(self.waiting) + len(self.jobs)

    def submit(self, message: SubmitJobs) -> None:
        """Queue new jobs, for any node or for one."""
        ids, node, payloads = message.ids, message.node, message.payloads
        if node:
            self.pinned.setdefault(node, deque()).extend(ids)
        else:
            self.queue.extend(ids)
        if node or message.shared:
            shared = message.shared or [[]] * len(ids)
            rows = zip(ids, payloads, shared, strict=True)
            self.waiting.update((job, JobRecord(p, node, data)) for job, p, data in rows)
        else:
            self.waiting.update(zip(ids, payloads, strict=True))

    def stock(self) -> DataStock:
        """Where its shared data are."""
        if self.data is None:
            self.data = DataStock()
        return self.data

    def next_for_any(self) -> int | None:
        """Id at the head of the queue, past those that were cancelled meanwhile."""
        while self.queue:
            if self.queue[0] in self.waiting:
                return self.queue[0]
            self.queue.popleft()
        return None

    def next_for(self, node: str) -> int | None:
        """Id of the first job that waits for the node named so."""
        queue = self.pinned.get(node)
        while queue:
            if queue[0] in self.waiting:
                return queue[0]
            queue.popleft()
        self.pinned.pop(node, None)
        return None

    def dispatch(self, job: int, node: str) -> JobRecord:
        """Move the waiting job at the head of its queue to a node, as a new attempt."""
        waiting = self.waiting.pop(job)
        record = waiting if isinstance(waiting, JobRecord) else JobRecord(waiting, '', [])
        (self.pinned[record.pinned] if record.pinned else self.queue).popleft()
        record.node = node
        record.attempt += 1
        self.jobs[job] = record
        return record

    def requeue(self, ids: list[int]) -> None:
        """Let jobs wait again, ahead of those that were never tried."""
        for job in reversed(ids):
            record = self.jobs.pop(job)
            record.node = ''
            self.waiting[job] = record
            if record.pinned:
                self.pinned.setdefault(record.pinned, deque()).appendleft(job)
            else:
                self.queue.appendleft(job)

    def give_up_pinned(self, node: str) -> list[int]:
        """Forget the jobs that wait for a node which is gone; their ids."""
        pinned = self.pinned.pop(node, ())
        return [job for job in pinned if self.waiting.pop(job, None) is not None]

    def waiting_for(self, node: str) -> int:
        """How many jobs wait for the node named so."""
        return sum(job in self.waiting for job in self.pinned.get(node, ()))

    def notice_soon(self, now: float) -> None:
        """Have its user told soon why jobs wait, but not over and over."""
        soon = max(now + NOTICE_DELAY, self.noticed_at + NOTICE_INTERVAL)
        self.notice_at = min(self.notice_at, soon)

    def on_node(self, node: str) -> list[int]:
        """Ids of the jobs that are with a node."""
        return [job for job, record in self.jobs.items() if record.node == node]

    def is_current(self, job: int, attempt: int, node: str) -> bool:
        """Whether an answer for this attempt is still the one to believe (D4)."""
        record = self.jobs.get(job)
        return record is not None and record.attempt == attempt and record.node == node

    def are_current(self, ids: list[int], attempts: list[int], node: str) -> list[bool]:
        """Which entries of a message of jobs from this node are to be believed."""
        return [self.is_current(*entry, node) for entry in zip(ids, attempts, strict=True)]

    def pinned_nodes(self) -> Iterator[str]:
        """Names of the nodes for which jobs of this computation wait."""
        return iter(list(self.pinned))
