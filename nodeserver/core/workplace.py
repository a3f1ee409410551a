"""The cpus of a node: which worker gets which job, and how a job is ended that must end.

queue ──▶ idle worker (GiveJobs) ──▶ JobsReported ──▶ letter; the cpu is free
                                 └─▶ WorkerEnded without an outcome: it died in the first job,
                                     or before it began that one: all go back to the queue
"""

import signal
from collections.abc import Callable
from math import ceil

from nodeserver.core import levels
from nodeserver.core.deaths import describe_death
from nodeserver.core.effects import (
    Effect,
    ForkWorkers,
    GiveJobs,
    Report,
    Send,
    SignalWorker,
)
from nodeserver.core.events import JobsReported, ProvisionalReported, WorkerEnded, WorkerForked
from nodeserver.core.hosted import Hosted, HostedState, NodeJob, Worker
from nodeserver.core.messages import DropData, JobsReturned, RunJobs, ShareData
from nodeserver.core.status import JobStatus

# seconds to wait, then the signal to send: interrupt, terminate, kill
KILL_LADDER = ((0.0, signal.SIGINT), (3.0, signal.SIGTERM), (2.0, signal.SIGKILL))


class Workplace:
    """Gives each free cpu a job; no cpu ever has two (A04)."""

    def __init__(
        self, cpus: int, hosted: dict[int, Hosted], emit: Callable[[Effect], None]
    ) -> None:
        self._cpus = cpus
        self._hosted = hosted
        self._emit = emit
        self._first = 0  # whose turn it is to be served first
        self._kills: dict[tuple[int, int], NodeJob] = {}  # (computation, worker) -> doomed job

    @property
    def busy(self) -> int:
        """Cpus that have a job."""
        return sum(hosted.busy for hosted in self._hosted.values())

    def next_kill(self) -> float:
        """When the next step of a kill ladder is due."""
        return min((job.kill_at for job in self._kills.values()), default=float('inf'))

    # what waits

    def accept(self, hosted: Hosted, message: RunJobs) -> None:
        """Queue jobs, but for those that were told to stop before they came."""
        jobs = [*map(NodeJob, message.ids, message.attempts, message.payloads)]
        for job, shared in zip(jobs, message.shared, strict=False):
            job.shared = shared
        for job in jobs:
            if hosted.stopped_ahead.pop(job.id, None) == job.attempt:
                hosted.record(job, JobStatus.CANCELLED, reason='cancelled before it started')
            elif not job.shared or hosted.data.is_ready(job):
                hosted.queue.append(job)

    def share(self, peer: str, message: ShareData, now: float) -> None:
        """Data came: the jobs that lacked them can be given out."""
        hosted = self._hosted.get(message.computation)
        if (
            hosted is not None
            and hosted.scheduler == peer
            and hosted.state is not HostedState.CLOSING
        ):
            hosted.queue.extend(hosted.data.add(message.data, message.content))

    def drop(self, peer: str, message: DropData, now: float) -> None:
        """No job names these data any more."""
        hosted = self._hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            hosted.data.drop(message.ids)

    def give_back(self, hosted: Hosted, count: int, reason: str) -> None:
        """Return up to `count` jobs from the end of the queue to the scheduler, also none."""
        jobs = [hosted.take_last() for _ in range(min(count, hosted.waiting))]
        jobs.reverse()
        ids, attempts = [job.id for job in jobs], [job.attempt for job in jobs]
        if not hosted.orphaned:
            self._emit(Send(hosted.scheduler, JobsReturned(hosted.id, ids, attempts, reason)))

    # giving out

    def run(self) -> None:
        """Give out what can be given out now, a cpu at a time, each computation in turn."""
        ready = [h for h in self._hosted.values() if h.state is HostedState.READY]
        free = self._cpus - self.busy
        hungry = [h for h in ready if self._can_give(h)]
        if len(hungry) > 1:
            self._first = (self._first + 1) % len(hungry)
            hungry = hungry[self._first :] + hungry[: self._first]
        while free > 0 and hungry:
            for hosted in hungry[:free]:
                self._give(hosted, hosted.workers[next(iter(hosted.idle))])
                free -= 1
            hungry = [h for h in hungry if self._can_give(h)]
        for hosted in ready:
            if hosted.lasting and hosted.queue:
                self._refill(hosted)
            self._fork_ahead(hosted)

    def _can_give(self, hosted: Hosted) -> bool:
        return bool(hosted.queue and hosted.idle) and hosted.busy < self._limit(hosted)

    def _limit(self, hosted: Hosted) -> int:
        """How many cpus the computation may use here."""
        return min(self._cpus, hosted.opened.cpus)

    def _give(self, hosted: Hosted, worker: Worker) -> None:
        depth = hosted.pace.jobs_per_worker() if hosted.lasting else 1
        share = ceil(len(hosted.queue) / self._limit(hosted))
        count = min(depth - len(worker.held), share)
        jobs = [hosted.queue.popleft() for _ in range(count)]
        hosted.idle.pop(worker.id, None)
        worker.held.extend(jobs)
        self._emit(_order(hosted, worker, jobs))

    def _refill(self, hosted: Hosted) -> None:
        """Put jobs behind the running one, so that a lasting worker never waits for the node."""
        depth = hosted.pace.jobs_per_worker()
        for worker in hosted.workers.values():
            if hosted.queue and 0 < len(worker.held) <= depth // 2:
                self._give(hosted, worker)

    def _fork_ahead(self, hosted: Hosted) -> None:
        """Keep a process ready for each cpu; a lasting one serves job after job."""
        have = len(hosted.workers) if hosted.lasting else len(hosted.idle)
        missing = self._limit(hosted) - have - hosted.forking
        if missing > 0:
            hosted.forking += missing
            self._emit(ForkWorkers(hosted.id, missing))

    # what workers tell

    def forked(self, event: WorkerForked, now: float) -> None:
        """A fresh process waits for work."""
        hosted = self._hosted.get(event.computation)
        if hosted is not None:
            hosted.forking -= 1
            hosted.workers[event.worker] = Worker(event.worker)
            hosted.idle[event.worker] = None

    def reported(self, event: JobsReported, now: float) -> None:
        """Jobs ended in the ordinary way: their cpu is free before their process is gone."""
        hosted = self._hosted.get(event.computation)
        worker = hosted.workers.get(event.worker) if hosted else None
        if hosted is None or worker is None:
            return
        hosted.proved_well()
        hosted.pace.learn(event.seconds)
        columns = zip(event.ids, event.raised, event.outcomes, event.seconds, strict=True)
        for job_id, raised, outcome, seconds in columns:
            job = worker.held.popleft()
            if job.id != job_id:
                raise AssertionError(f'worker {worker.id} reported job {job_id}, not {job.id}')
            if job.stopping:
                hosted.record(job, JobStatus.CANCELLED, outcome, 'cancelled', seconds)
            else:
                status = JobStatus.TERMINATED if raised else JobStatus.FINISHED
                hosted.record(job, status, outcome, '', seconds)
        self._rest(hosted, worker, now)

    def _rest(self, hosted: Hosted, worker: Worker, now: float) -> None:
        """A worker has ended some jobs: it idles, leaves, or is in the next one now."""
        if not worker.held:
            if hosted.lasting:
                hosted.idle[worker.id] = None
            else:
                del hosted.workers[worker.id]
        elif worker.held[0].stopping:
            self._kill(hosted, worker, now)

    def provisional(self, event: ProvisionalReported, now: float) -> None:
        """The job that a worker is in sent a provisional result."""
        hosted = self._hosted.get(event.computation)
        worker = hosted.workers.get(event.worker) if hosted else None
        if (
            hosted is not None
            and worker is not None
            and worker.held
            and not worker.held[0].stopping
        ):
            hosted.record_provisional(worker.held[0], event.result)

    def ended(self, event: WorkerEnded, now: float) -> None:
        """A process is gone; if it had begun a job, that job ends with it, and only that one."""
        hosted = self._hosted.get(event.computation)
        worker = hosted.workers.pop(event.worker, None) if hosted else None
        if hosted is None or worker is None:
            return
        hosted.idle.pop(worker.id, None)
        self._kills.pop((hosted.id, worker.id), None)
        if event.reason:
            text = (
                f'{hosted.opened.name}: a process for its jobs left, another comes: {event.reason}'
            )
            self._emit(Report(levels.WARNING, text))
        if worker.held:
            self._end_first(hosted, worker, event)
        if not hosted.orphaned:
            hosted.queue.extendleft(reversed(worker.held))

    def _end_first(self, hosted: Hosted, worker: Worker, event: WorkerEnded) -> None:
        """End the job that the worker was in, unless it had not begun it."""
        job = worker.held[0]
        if job.stopping:
            hosted.record(job, JobStatus.CANCELLED, event.outcome, 'cancelled')
        elif event.begun or not hosted.may_begin_again():
            reason = describe_death(event.exit_status)
            hosted.record(job, JobStatus.TERMINATED, event.outcome, reason)
        else:
            return
        worker.held.popleft()

    # ending jobs

    def stop(self, hosted: Hosted, job_id: int, attempt: int, now: float) -> None:
        """End one attempt: forget it where it waits, climb the ladder where it runs (C11, C12)."""
        place = hosted.find(job_id, attempt)
        if place is None:
            hosted.remember_stop(job_id, attempt)
            return
        worker, job = place
        job.stopping = True
        if worker is None:
            hosted.take_out(job)
            hosted.record(job, JobStatus.CANCELLED, reason='cancelled before it started')
        elif worker.held[0] is job:
            self._kill(hosted, worker, now)

    def _kill(self, hosted: Hosted, worker: Worker, now: float) -> None:
        """Climb one step of the ladder."""
        job = worker.held[0]
        number = int(KILL_LADDER[job.kill_step][1])
        self._emit(SignalWorker(hosted.id, worker.id, number, job.id, job.attempt))
        job.kill_step += 1
        if job.kill_step < len(KILL_LADDER):
            job.kill_at = now + KILL_LADDER[job.kill_step][0]
            self._kills[hosted.id, worker.id] = job
        else:
            self._kills.pop((hosted.id, worker.id), None)

    def kill_due(self, now: float) -> None:
        """Climb on where a job has not ended in time."""
        for (computation, worker_id), job in list(self._kills.items()):
            hosted = self._hosted.get(computation)
            worker = hosted.workers.get(worker_id) if hosted else None
            if hosted is None or worker is None or not worker.held or worker.held[0] is not job:
                del self._kills[computation, worker_id]
            elif job.kill_at <= now:
                self._kill(hosted, worker, now)


def _order(hosted: Hosted, worker: Worker, jobs: list[NodeJob]) -> GiveJobs:
    return GiveJobs(
        hosted.id,
        worker.id,
        [job.id for job in jobs],
        [job.attempt for job in jobs],
        [job.payload for job in jobs],
        [job.contents for job in jobs] if any(job.contents for job in jobs) else [],
    )
