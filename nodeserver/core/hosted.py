"""A computation as a node sees it: jobs that wait for a cpu, workers, and letters to be sent.

queue ──▶ worker.held ──▶ outcomes of this turn ──▶ letter ──▶ (acknowledged) forgotten
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from math import inf

from nodeserver.core.effects import Effect, GiveJobs, OpenTemplate, Report, Send
from nodeserver.core.events import TemplateNoted
from nodeserver.core.fleetmessages import LimitCpus
from nodeserver.core.givenback import GivenBack
from nodeserver.core.messages import JobsDone, JobsProvisional, NodeNotice, OpenComputation
from nodeserver.core.nodejob import NodeJob as NodeJob
from nodeserver.core.nodejob import Worker as Worker
from nodeserver.core.pace import Pace
from nodeserver.core.provisional import Provisional
from nodeserver.core.shareddata import HeldData
from nodeserver.core.status import JobStatus
from nodeserver.core.values import ONE_CPU

_MOST_REOPENINGS = 3  # in a row, without a job that ended meanwhile
_MOST_VAIN_WORKERS = 100  # in a row, that ended before they began a job
_REMEMBERED_STOPS = 10_000
_FINISHED, _TERMINATED = int(JobStatus.FINISHED), int(JobStatus.TERMINATED)


class HostedState(StrEnum):
    """How far a computation is on this node."""

    OPENING = 'opening'
    READY = 'ready'
    REOPENING = 'reopening'  # its template died; another follows once nothing of it is left
    CLOSING = 'closing'


class Hosted:
    """One computation on this node."""

    __slots__ = (
        '_done',
        '_letter',
        'alone_at',
        'awaits_files',
        'data',
        'denied_at',
        'forking',
        'formerly',
        'given_back',
        'has_files',
        'id',
        'idle',
        'idle_at',
        'keeps',
        'letters',
        'needs_more',
        'offers_wait',
        'opened',
        'orphaned',
        'owed',
        'pace',
        'provisional',
        'queue',
        'released',
        'reopenings',
        'returned',
        'returns',
        'scheduler',
        'state',
        'stopped_ahead',
        'takes_all',
        'unwanted_by',
        'used_seconds',
        'vain_workers',
        'workers',
    )

    def __init__(self, scheduler: str, opened: OpenComputation, last_letter: int = 0) -> None:
        self.id = opened.computation
        self.scheduler = scheduler
        self.opened = opened
        self.needs_more = opened.resources != ONE_CPU  # than a cpu for each job
        self.denied_at = inf  # since when its next job waits for more than there is free
        self.state = HostedState.OPENING
        self.orphaned = False  # its scheduler is gone
        self.unwanted_by = ''  # through which its client has closed it: it goes with `scheduler`
        self.keeps = False  # its letters go to the spool: nobody may be there to take them
        self.idle_at = inf  # since when nothing of it runs or waits, as it is orphaned
        self.alone_at = inf  # since when it is
        self.offers_wait = True  # of files, while it is
        self.given_back = GivenBack()
        self.returned: dict[int, int] = {}  # job -> attempt: they will not run here
        self.formerly: tuple[str, ...] = ()  # peer ids of this node that had it before
        self.returns = False  # it is closed to be opened again
        self.takes_all = False  # it may use all cpus, however many they are
        self.queue: deque[NodeJob] = deque()
        self.data: HeldData[NodeJob] = HeldData()
        self.has_files = False  # it or a job has, or had, some
        self.awaits_files = False  # before its template can be made
        self.released: list[int] = []  # jobs of this turn whose files can go
        self.workers: dict[int, Worker] = {}
        self.idle: dict[int, None] = {}  # workers without a job, oldest first
        self.forking = 0
        self.owed = 0  # jobs that the scheduler wants back, while workers are asked for them
        self.reopenings = 0  # of its template, since a job ended
        self.vain_workers = 0  # that ended before they began a job, since a job ended
        self.pace = Pace()
        self.used_seconds = 0.0  # that its jobs took; `Turns` says from where on
        self.stopped_ahead: dict[int, int] = {}  # job -> attempt told to stop before it came
        self.letters: dict[int, JobsDone] = {}  # sent, not acknowledged
        self._letter = last_letter
        self._done = JobsDone(self.id, '', 0, [], [], [], [], [], [])
        self.provisional = Provisional(self.id)

    @property
    def lasting(self) -> bool:
        """Whether workers run job after job."""
        return self.opened.isolation == 'worker'

    @property
    def occupied(self) -> int:
        """Workers that hold a job (one that has ended its only job is forgotten)."""
        return len(self.workers) - len(self.idle)

    @property
    def busy(self) -> int:
        """Cpus in use."""
        return (len(self.workers) - len(self.idle)) * self.opened.resources.cpus

    @property
    def running(self) -> int:
        """Jobs that were given to workers."""
        return sum(len(worker.held) for worker in self.workers.values())

    @property
    def waiting(self) -> int:
        """Jobs that wait: for a cpu, or for their data or files."""
        return len(self.queue) + len(self.data.lacking)

    def take_last(self) -> NodeJob:
        """Take out the job that would wait longest; those that lack data are at hand first here."""
        return self.queue.pop() if self.queue else self.data.lacking.popitem()[1]

    def take_out(self, job: NodeJob) -> None:
        """Take a job out that waits."""
        if self.data.lacking.pop(job.id, None) is None:
            self.queue.remove(job)

    def forget_waiting(self) -> None:
        """Drop the jobs that wait, and the data that only they could use."""
        self.queue.clear()
        self.data.clear()

    @property
    def last_letter(self) -> int:
        """Number of the latest letter."""
        return self._letter

    def lose_holder(self) -> None:
        """What is all here can go on without a scheduler; jobs that lack something cannot."""
        self.orphaned = self.keeps = self.offers_wait = True
        self.idle_at = self.alone_at = inf
        self.returned.update(self.given_back.take())
        self.will_not_run(self.data.lacking.values())
        self.data.clear()
        self.stopped_ahead.clear()  # the next scheduler may count attempts anew
        self.owed = 0
        if self.awaits_files:  # of which no template will be made
            self.will_not_run(self.queue)
            self.queue.clear()
            self.released.clear()  # all of that is ended with the computation's own

    def will_not_run(self, jobs: Iterable[NodeJob]) -> None:
        """Remember jobs for the next scheduler that have not begun, and will not here."""
        jobs = list(jobs)
        self.let_go(jobs)
        self.returned.update((job.id, job.attempt) for job in jobs)

    def send_back(self, jobs: list[NodeJob]) -> None:
        """Jobs that have not begun go to the scheduler."""
        self.let_go(jobs)
        self.given_back.add(jobs)

    def held_jobs(self) -> list[NodeJob]:
        """All jobs that run, or wait for a cpu."""
        return [job for worker in self.workers.values() for job in worker.held] + list(self.queue)

    @property
    def is_served(self) -> bool:
        """Whether its scheduler is there, and wants it."""
        return not self.orphaned and self.state is not HostedState.CLOSING

    @property
    def is_usable(self) -> bool:
        """Whether jobs can be run, now or after a template that died is replaced."""
        is_replaced = self.reopenings > 0 and self.state is not HostedState.CLOSING
        return self.state is HostedState.READY or is_replaced

    def order(self) -> OpenTemplate:
        """What has a template made for it."""
        opened = self.opened
        return OpenTemplate(
            self.id,
            opened.name,
            opened.package,
            opened.isolation,
            opened.dest_path,
            opened.cleanup,
            opened.resources,
            opened.setup_args,
        )

    def give(self, worker: Worker, jobs: list[NodeJob], gpus: list[str]) -> GiveJobs:
        """What hands jobs to a worker."""
        shared = [job.contents for job in jobs]
        return GiveJobs(
            self.id,
            worker.id,
            [job.id for job in jobs],
            [job.attempt for job in jobs],
            [job.payload for job in jobs],
            shared if any(shared) else [],
            gpus,
        )

    def begin_reopening(self) -> bool:
        """Whether a template that died may have a successor; it was in use, and not too often."""
        was_ready = self.state is HostedState.READY or self.reopenings
        if not was_ready or self.reopenings >= _MOST_REOPENINGS:
            return False
        self.reopenings += 1
        self.forking = 0
        self.state = HostedState.REOPENING
        return True

    def proved_well(self) -> None:
        """A job ended in the ordinary way: what failed before is forgiven."""
        self.reopenings = self.vain_workers = 0

    def may_begin_again(self) -> bool:
        """Whether jobs that a worker never began go to another one, which may end as it did."""
        self.vain_workers += 1
        return not self.forks_in_vain

    @property
    def forks_in_vain(self) -> bool:
        """Whether so many workers in a row have ended before they did anything."""
        return self.vain_workers > _MOST_VAIN_WORKERS

    def remember_stop(self, job: int, attempt: int) -> None:
        """Keep in mind to stop an attempt that comes after its order to stop, if it ever comes."""
        self.stopped_ahead[job] = attempt
        if len(self.stopped_ahead) > _REMEMBERED_STOPS:
            del self.stopped_ahead[next(iter(self.stopped_ahead))]

    def begun_ids(self) -> list[int]:
        """Ids of jobs that workers hold, and of those whose outcomes may not have arrived yet."""
        held = [job.id for worker in self.workers.values() for job in worker.held]
        return held + [job for letter in self.letters.values() for job in letter.ids]

    def find(self, job: int, attempt: int) -> tuple[Worker | None, NodeJob] | None:
        """Where an attempt is: with a worker, or (None) in the queue."""
        for worker in self.workers.values():
            for held in worker.held:
                if held.id == job and held.attempt == attempt:
                    return worker, held
        for waiting in (*self.queue, *self.data.lacking.values()):
            if waiting.id == job and waiting.attempt == attempt:
                return None, waiting
        return None

    def let_go(self, jobs: list[NodeJob]) -> None:
        """Note that jobs have ended or left: their files can go."""
        if self.has_files:
            self.released += [job.id for job in jobs if job.has_files]

    def has_files_of(self, job: int) -> bool:
        """Whether files of an attempt at a job are here, or their going is not told yet."""
        held = (each for worker in self.workers.values() for each in worker.held)
        return job in self.released or any(e.id == job and e.has_files for e in held)

    def record(
        self,
        job: NodeJob,
        status: int,
        outcome: bytes = b'',
        reason: str = '',
        seconds: float = 0.0,
    ) -> None:
        """Put a job's end into this turn's letter."""
        self.let_go([job])
        done = self._done
        done.ids.append(job.id)
        done.attempts.append(job.attempt)
        done.statuses.append(status)
        done.outcomes.append(outcome)
        done.reasons.append(reason)
        done.seconds.append(seconds)

    def record_all(
        self,
        jobs: list[NodeJob],
        raised: list[bool],
        outcomes: list[bytes],
        seconds: list[float],
    ) -> None:
        """Put the ordinary ends of many jobs into this turn's letter."""
        self.let_go(jobs)
        done = self._done
        done.ids.extend([job.id for job in jobs])
        done.attempts.extend([job.attempt for job in jobs])
        done.statuses.extend([_TERMINATED if bad else _FINISHED for bad in raised])
        done.outcomes.extend(outcomes)
        done.reasons.extend([''] * len(jobs))
        done.seconds.extend(seconds)

    def record_provisional(self, job: NodeJob, result: bytes) -> None:
        """Put a provisional result into this turn's message, or keep it for who comes next."""
        self.provisional.add(job.id, job.attempt, result)
        if self.keeps:
            self.provisional.bound()

    def take_news(self, node: str) -> list[JobsProvisional | JobsDone]:
        """What this turn has brought of its jobs, but what is kept for who comes next."""
        provisional = None if self.keeps else self.provisional.take(node)
        news = provisional, self.take_letter(node)
        return [message for message in news if message is not None]

    def take_letter(self, node: str) -> JobsDone | None:
        """This turn's outcomes as a letter, kept until it is acknowledged."""
        done = self._done
        if not done.ids:
            return None
        self._letter += 1
        letter = JobsDone(
            self.id,
            node,
            self._letter,
            done.ids,
            done.attempts,
            done.statuses,
            done.outcomes,
            done.reasons,
            done.seconds,
        )
        self.letters[self._letter] = letter
        self._done = JobsDone(self.id, '', 0, [], [], [], [], [], [])
        return letter


def limit_cpus(hosted: Mapping[int, Hosted], peer: str, message: LimitCpus, now: float) -> None:
    """A scheduler has its computation use more or fewer cpus here; what runs may end."""
    found = hosted.get(message.computation)
    if found is not None and found.scheduler == peer:
        found.opened = replace(found.opened, cpus=max(0, message.cpus))
        found.takes_all = False  # the scheduler says so itself, whatever is offered


def noted(hosted: Mapping[int, Hosted], event: TemplateNoted) -> Iterator[Effect]:
    """Tell what happened in a template: on the node's log, and the user."""
    found = hosted.get(event.computation)
    if found is not None:
        yield Report(event.level, f'{found.opened.name}: {event.text}')
        if not found.orphaned:
            yield Send(found.scheduler, NodeNotice(found.id, event.level, event.text))
