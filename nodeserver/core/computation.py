"""A computation as its scheduler sees it: the jobs that wait and the jobs that are with nodes."""

from collections.abc import Container, Iterable, Mapping, Sequence
from math import inf

from nodeserver.core.fleet import NodeRecord
from nodeserver.core.jobqueue import JobQueue
from nodeserver.core.jobrecord import NO_DATA, Entry, JobRecord, payload_of
from nodeserver.core.letters import part_of
from nodeserver.core.messages import (
    ORDINARY,
    DeclareComputation,
    JobOptions,
    KnownNode,
    ResubmitJobs,
    SubmitJobs,
)
from nodeserver.core.pace import Pace
from nodeserver.core.shareddata import DataStock
from nodeserver.core.takeover import Takeover
from nodeserver.core.undelivered import Undelivered
from nodeserver.core.values import ONE_CPU

NOTICE_DELAY = 2.0  # how long nothing may happen before its user is told why
NOTICE_INTERVAL = 60.0
PATIENCE = 1.0  # seconds without room after which a job with needs is placed without
ATTEMPTS_OF_AN_EPOCH = 1 << 10  # numbers; so that no attempt of before is taken for one of ours


Portion = tuple[list[int], list[int], list[bytes]]  # jobs: their ids, attempts and payloads


class Computation:
    """The queue of one computation and the records of its jobs."""

    __slots__ = (
        'attempts_from',
        'client',
        'closing',
        'crowds_at',
        'data',
        'declared',
        'dismissed',
        'figures_at',
        'has_manifests',
        'has_pinned',
        'has_priorities',
        'has_retries',
        'has_shared',
        'has_timeouts',
        'id',
        'is_told_figures',
        'jobs',
        'keeps',
        'knock_at',
        'latest',
        'needs_more',
        'nodes',
        'notice_at',
        'noticed_at',
        'pace',
        'ping_at',
        'pings',
        'pinned',
        'places',
        'queue',
        'remarks',
        'specs',
        'takeover',
        'talks_of_files',
        'told_of_end',
        'undelivered',
        'unreached',
        'waiting',
        'watched_until',
    )

    def __init__(self, client: str, declared: DeclareComputation, now: float) -> None:
        self.client = client
        self.declared = declared
        self.id = declared.computation
        self.latest = 0  # the highest number of a job so far; not all lower ones came before it
        self.queue = JobQueue()  # for any node; an id not in `waiting` was cancelled
        self.pinned: dict[str, JobQueue] = {}  # for one node only, by its id, address or name
        self.has_timeouts = False  # of its jobs so far: what no job asks for costs nothing
        self.has_retries = False
        self.has_pinned = False
        self.has_priorities = False
        self.has_shared = False
        self.has_manifests = False
        self.talks_of_files = False  # with some node
        self.told_of_end: list[NodeRecord] = []  # nodes that have nothing of it any more
        self.waiting: dict[int, Entry] = {}
        self.jobs: dict[int, Entry] = {}  # with a node
        self.places: dict[int, str] = {}  # the node of each of these
        self.data: DataStock | None = None  # until the first data come, or a job names some
        self.pace = Pace()
        self.needs_more = declared.resources != ONE_CPU  # than a cpu for each job
        self.crowds_at = inf  # when it has waited so long for room that it goes without
        self.closing = False
        self.notice_at = now + NOTICE_DELAY
        self.noticed_at = float('-inf')  # when its user was told last why jobs wait
        self.ping_at = now
        self.pings = 0
        self.knock_at = inf  # when those that have not answered them are asked by TCP
        self.remarks: set[str] = set()  # of nodes on their packages, that its user was told
        self.specs = list(declared.specs)  # the latest that were added come first
        self.dismissed: dict[str, str] = {}  # nodes that are not to be used, and why, in words
        self.figures_at = now  # from when on its user is told again what nodes have to spare
        self.is_told_figures = False  # as the pulses bring them that were asked for last
        self.watched_until = 0.0  # somebody looks at its nodes until then
        # who takes it over gives attempts numbers that nobody before has given
        self.attempts_from = declared.epoch * ATTEMPTS_OF_AN_EPOCH
        self.takeover: Takeover | None = None  # as long as it is not over
        self.undelivered = Undelivered()
        self.nodes: dict[str, KnownNode] = {}  # at which it was opened, as was recorded
        # by node: jobs, and their attempts, that who only collects may ask for another time
        self.unreached: dict[str, tuple[list[int], list[int]]] = {}
        self.keeps = False  # some of these were not reached: nodes keep what they have

    def leave_at(self, node: str, ids: Iterable[int], attempts: Iterable[int]) -> None:
        """These jobs may be with a node, for whoever comes later."""
        columns = self.unreached.setdefault(node, ([], []))
        columns[0].extend(ids)
        columns[1].extend(attempts)

    def told_of(self, jobs: Container[int]) -> None:
        """Whoever came later has asked for these jobs: they are not left for another one."""
        rows = {node: zip(*columns, strict=True) for node, columns in self.unreached.items()}
        self.unreached = {}
        for node, pairs in rows.items():
            if left := [pair for pair in pairs if pair[0] not in jobs]:
                self.leave_at(node, *zip(*left, strict=True))

    def submit(self, message: SubmitJobs) -> None:
        """Queue new jobs, for any node or for one; their numbers are new ones of its client's."""
        if message.ids and min(message.ids) <= self.latest:
            message = part_of(message, self._are_new(message.ids))
        node, ids = message.node, message.ids
        self.latest = max(self.latest, max(ids, default=0))
        queue = self.pinned.setdefault(node, JobQueue()) if node else self.queue
        queue.extend(ids, message.options.priority)
        self.waiting.update(zip(ids, self.entries(message), strict=True))

    def _are_new(self, ids: list[int]) -> list[bool]:
        """Which of these jobs are neither here nor have ended, as far as their client knows."""
        ended = {*self.undelivered.ended()}
        ended.update(job for _, ids_of_one, _ in self.undelivered.places() for job in ids_of_one)
        waiting, jobs, takeover = self.waiting, self.jobs, self.takeover
        doubts = {*takeover.where, *takeover.settled} if takeover is not None else ended
        return [not (job in waiting or job in jobs or job in ended or job in doubts) for job in ids]

    def queue_entries(self, node: str, entries: Mapping[int, Entry], priority: int) -> None:
        """Queue jobs of before, as if they had just been submitted."""
        queue = self.pinned.setdefault(node, JobQueue()) if node else self.queue
        queue.extend(entries, priority)
        self.waiting.update(entries)

    @property
    def is_looking(self) -> bool:
        """Whether nodes are looked for."""
        return not self.closing or self.takeover is not None

    def seeks(self, node: NodeRecord) -> bool:
        """Whether a node may have something of before, whatever `nodes` says."""
        return self.takeover is not None and self.takeover.is_known(node)

    @property
    def takes_all_again(self) -> bool:
        """Whether each job can be run again: it was not taken over from somebody before."""
        return not self.declared.resumes

    def payload_of(self, job: int) -> bytes:
        """The arguments of a job that is with a node; b'' if they are not at hand any more."""
        return payload_of(self.jobs[job])

    def entries(self, message: SubmitJobs | ResubmitJobs) -> Sequence[Entry]:
        """What is kept of each of these jobs; what they ask for is noted."""
        node, ids, options = message.node, message.ids, message.options
        has_needs = message.shared or message.manifests
        if not (node or has_needs or (options is not ORDINARY and options != ORDINARY)):
            return message.payloads
        self.has_pinned |= bool(node)
        self.has_shared |= bool(message.shared)
        self.has_manifests |= bool(message.manifests)
        self.has_timeouts |= options.timeout > 0
        self.has_retries |= options.retries > 0
        self.has_priorities |= options.priority != 0
        shared = message.shared or [NO_DATA] * len(ids)
        manifests = message.manifests or [b''] * len(ids)
        rows = zip(message.payloads, shared, manifests, strict=True)
        return [self.new_record(p, node, options, d, m) for p, d, m in rows]

    def new_record(
        self,
        payload: bytes,
        pinned: str = '',
        options: JobOptions = ORDINARY,
        shared: list[int] = NO_DATA,
        manifest: bytes = b'',
    ) -> JobRecord:
        """The record of a job that has not been tried here."""
        record = JobRecord(payload, pinned, options, shared, manifest)
        record.attempt = self.attempts_from
        return record

    def stock(self) -> DataStock:
        """Where its shared data are."""
        if self.data is None:
            self.data = DataStock()
        return self.data

    def take_back(self, ids: list[int]) -> dict[str, list[int]]:
        """Forget those of the jobs that wait, as the user wishes; their ids by what is said."""
        taken: dict[str, list[int]] = {}
        for job in ids:
            record = self.waiting.pop(job, None)
            if record is not None:
                failed = isinstance(record, JobRecord) and record.failures
                when = 'while it waited to be run again' if failed else 'before it started'
                taken.setdefault(f'cancelled {when}', []).append(job)
        return taken

    def has_waiting(self) -> bool:
        """Whether a job waits for any node; those that were cancelled meanwhile are passed."""
        return self.queue.head(self.waiting) is not None

    def dispatch_some(self, count: int, node: str) -> Portion:
        """Move up to so many jobs from the head of the queue to a node, as new attempts.

        They are of one priority.
        """
        waiting, jobs, places = self.waiting, self.jobs, self.places
        self.queue.head(waiting)
        line, first = self.queue.line, self.attempts_from + 1
        ids: list[int] = []
        attempts: list[int] = []
        payloads: list[bytes] = []
        while line and len(ids) < count:
            job = line.popleft()
            entry = waiting.pop(job, None)
            if entry is None:
                continue  # it was cancelled
            jobs[job] = entry
            places[job] = node
            ids.append(job)
            if isinstance(entry, JobRecord):
                entry.attempt += 1
                attempts.append(entry.attempt)
                payloads.append(entry.payload)
            else:
                attempts.append(first)
                payloads.append(entry)
        return ids, attempts, payloads

    def next_for(self, node: str) -> int | None:
        """Id of the first job that waits for the node named so."""
        queue = self.pinned.get(node)
        job = queue.head(self.waiting) if queue is not None else None
        if job is None:
            self.pinned.pop(node, None)
        return job

    def is_outranked(self, node: str) -> bool:
        """Whether the first job for a node comes after the first one for any node."""
        return self.has_waiting() and self.queue.priority > self.pinned[node].priority

    def dispatch(self, job: int, node: str) -> Portion:
        """Move the job at the head of a pinned queue to its node, as a new attempt."""
        record = self.waiting.pop(job)
        assert isinstance(record, JobRecord)
        self.pinned[record.pinned].line.popleft()
        record.attempt += 1
        self.jobs[job] = record
        self.places[job] = node
        return [job], [record.attempt], [record.payload]

    def record(self, job: int) -> JobRecord:
        """The record of a job that is with a node, and is not like the others any more."""
        entry = self.jobs[job]
        if not isinstance(entry, JobRecord):
            entry = self.jobs[job] = self.new_record(entry)
            entry.attempt += 1
        return entry

    def attempt(self, job: int) -> int:
        """The number of the attempt of a job that is with a node."""
        entry = self.jobs[job]
        return entry.attempt if isinstance(entry, JobRecord) else self.attempts_from + 1

    def wishes(self, ids: list[int]) -> tuple[list[float], list[list[int]]]:
        """Timeouts and data of jobs that are with a node; no list where none of them has any."""
        plain = JobRecord(b'', '')
        records = [e if isinstance(e, JobRecord) else plain for e in map(self.jobs.get, ids)]
        timeouts = [record.options.timeout for record in records]
        shared = [record.shared for record in records]
        return timeouts if any(timeouts) else [], shared if any(shared) else []

    def manifests_of(self, ids: list[int]) -> list[bytes]:
        """Manifests of jobs that are with a node; no list where none of them has any."""
        entries = map(self.jobs.get, ids)
        found = [e.manifest if isinstance(e, JobRecord) else b'' for e in entries]
        return found if any(found) else []

    def is_stopping(self, job: int) -> bool:
        """Whether a job that is with a node has been taken back."""
        entry = self.jobs[job]
        return isinstance(entry, JobRecord) and entry.stopping

    def is_pinned(self, job: int) -> bool:
        """Whether a job may run on the node it is with and on no other."""
        entry = self.jobs[job]
        return isinstance(entry, JobRecord) and bool(entry.pinned)

    def settle(self, ids: Iterable[int]) -> None:
        """Forget jobs that were with a node."""
        for job in ids:
            del self.jobs[job]
            del self.places[job]

    def requeue(self, ids: list[int]) -> None:
        """Let jobs wait again, ahead of those that were never tried."""
        for job in reversed(ids):
            self.waiting[job] = record = self.record(job)
            record.attempt = max(record.attempt, self.attempts_from)
            pinned = record.pinned
            queue = self.pinned.setdefault(pinned, JobQueue()) if pinned else self.queue
            queue.put_first(job, record.options.priority)
        self.settle(ids)

    def give_up_pinned(self, node: str) -> list[int]:
        """Forget the jobs that wait for a node which is gone; their ids."""
        pinned = self.pinned.pop(node, ())
        return [job for job in pinned if self.waiting.pop(job, None) is not None]

    def forget_cancelled(self) -> None:
        """Drop the ids of cancelled jobs from the queues, now that no other job waits."""
        self.queue.clear()
        self.pinned.clear()

    def repin(self, before: str, node: str) -> None:
        """A node is known by another id now: the jobs that wait for it wait for that one."""
        for job in self.pinned.pop(before, ()):
            record = self.waiting.get(job)
            if isinstance(record, JobRecord):
                record.pinned = node
                queue = self.pinned.setdefault(node, JobQueue())
                queue.extend((job,), record.options.priority)

    def waiting_for(self, node: str) -> int:
        """How many jobs wait for the node named so."""
        return sum(job in self.waiting for job in self.pinned.get(node, ()))

    def notice_soon(self, now: float) -> None:
        """Have its user told soon why jobs wait, but not over and over."""
        soon = max(now + NOTICE_DELAY, self.noticed_at + NOTICE_INTERVAL)
        self.notice_at = min(self.notice_at, soon)

    def has_no_patience(self, now: float) -> bool:
        """Whether a job has waited so long for room that it goes without, from now on if at all.

        Only where jobs need more than a cpu: others find room as soon as any job ends.
        """
        if self.crowds_at == inf and self.needs_more:
            self.crowds_at = now + PATIENCE
        return self.crowds_at <= now

    def count_pinned_on(self, node: str) -> int:
        """How many of the jobs that are with a node may run on no other."""
        return sum(map(self.is_pinned, self.on_node(node))) if self.has_pinned else 0

    def on_node(self, node: str) -> list[int]:
        """Ids of the jobs that are with a node."""
        return [job for job, place in self.places.items() if place == node]

    def are_current(self, ids: list[int], attempts: list[int], node: str) -> list[bool]:
        """Which attempts in a message from this node are those to believe still (D4)."""
        jobs, places, first = self.jobs, self.places, self.attempts_from + 1
        return [
            places.get(job) == node
            and attempt == (entry.attempt if isinstance(entry := jobs[job], JobRecord) else first)
            for job, attempt in zip(ids, attempts, strict=True)
        ]

    def pinned_nodes(self) -> list[str]:
        """Names of the nodes for which jobs of this computation wait, the urgent ones first."""
        return sorted(self.pinned, key=lambda node: -self.pinned[node].priority)
