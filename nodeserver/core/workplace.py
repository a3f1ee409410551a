"""The cpus of a node: which worker gets which job, and how a job is ended that must end.

queue ──▶ idle worker (GiveJobs) ──▶ JobsReported ──▶ letter; the cpu is free
                                 └─▶ WorkerEnded without an outcome: it died in the first job,
                                     or before it began that one: all go back to the queue
"""

import signal
from collections.abc import Callable
from itertools import islice
from math import ceil, inf

from nodeserver.core import levels
from nodeserver.core.deaths import describe_end, describe_excess, describe_overrun
from nodeserver.core.effects import (
    Effect,
    ForkWorkers,
    RecallFromWorker,
    Report,
    Send,
    SignalWorker,
)
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.events import (
    JobsRecalled,
    JobsReported,
    MemoryExceeded,
    ProvisionalReported,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.hosted import Hosted, HostedState, NodeJob, Worker
from nodeserver.core.messages import JobsReturned
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.status import JobStatus
from nodeserver.core.supply import Supply
from nodeserver.core.turns import Turns

FORKS_FOR_A_TURN = 4
RECALL_PATIENCE = 0.002  # how long a worker may take for what others could do meanwhile
_IDLE_ELSEWHERE = 'another node is idle'
_NO_CPUS = 'no cpu of this node may be used any more'
# seconds to wait, then the signal to send: interrupt, terminate, kill
KILL_LADDER = ((0.0, signal.SIGINT), (3.0, signal.SIGTERM), (2.0, signal.SIGKILL))


class Workplace:
    """Gives each free cpu a job; no cpu ever has two (A04)."""

    def __init__(
        self, facts: NodeFacts, hosted: dict[int, Hosted], emit: Callable[[Effect], None]
    ) -> None:
        self._hosted = hosted
        self._supply = Supply(facts, hosted)
        self._emit = emit
        self._turns = Turns(hosted)
        # (computation, worker) -> job that is to end: at once, or when it has used up its time
        self._kills: dict[tuple[int, int], NodeJob] = {}

    def check(self) -> None:
        """Raise `InvariantBroken` if something was given to two jobs."""
        self._supply.check()
        for hosted in self._hosted.values():
            for worker in hosted.workers.values():
                if (worker.id in hosted.idle) != (not worker.held):
                    raise InvariantBroken(f'worker {worker.id}: idle, with {len(worker.held)} jobs')
                if not hosted.lasting and len(worker.held) > 1:
                    raise InvariantBroken(f'worker {worker.id} has {len(worker.held)} jobs')

    @property
    def busy(self) -> int:
        """Cpus that have a job."""
        return self._supply.busy_cpus

    def resize(self, cpus: int) -> None:
        """Use so many cpus from now on, as they become free."""
        self._supply.resize(cpus)

    def next_kill(self) -> float:
        """When a job's time is up, or the next step of a kill ladder is due."""
        if not self._kills:
            return inf
        return min(job.kill_at for job in self._kills.values())

    # what goes back

    def give_back(self, hosted: Hosted, count: int, reason: str) -> None:
        """Return up to `count` jobs from the end of the queue to the scheduler, also none."""
        jobs = [hosted.take_last() for _ in range(min(count, hosted.waiting))]
        jobs.reverse()
        if hosted.orphaned:
            hosted.will_not_run(jobs)
            return
        hosted.send_back(jobs)
        ids, attempts = [job.id for job in jobs], [job.attempt for job in jobs]
        self._emit(Send(hosted.scheduler, JobsReturned(hosted.id, ids, attempts, reason)))

    def recall(self, hosted: Hosted, count: int) -> None:
        """Return jobs that have not begun, also from the pipes of lasting workers."""
        workers = hosted.workers.values() if len(hosted.queue) < count else ()
        asked = [self._recall_from(hosted, worker) for worker in workers]
        if any(asked):
            hosted.owed = count
        else:
            self.give_back(hosted, count, _IDLE_ELSEWHERE)

    def _recall_from(self, hosted: Hosted, worker: Worker) -> bool:
        """Ask a lasting worker to skip what it has not begun; whether there is such a thing."""
        if len(worker.held) < 2:
            return False
        if not worker.is_recalling:
            worker.recalled_to = worker.given
            soon = hosted.pace.is_short(len(worker.held)) and not worker.held[0].is_ending
            delay = RECALL_PATIENCE if soon else 0.0
            self._emit(RecallFromWorker(hosted.id, worker.id, delay))
        return True

    def recalled(self, event: JobsRecalled, now: float) -> None:
        """Jobs came back from a worker: ahead of those that were never given to one."""
        hosted = self._hosted.get(event.computation)
        worker = hosted.workers.get(event.worker) if hosted else None
        if hosted is None or worker is None:
            return
        for job in reversed(worker.give_up(event.first, event.last)):
            if job.stopping:
                hosted.record(job, JobStatus.CANCELLED, reason='cancelled before it started')
            else:
                hosted.queue.appendleft(job)
        if worker.held:
            worker.stuck_in = worker.held[0].number
        else:
            hosted.idle[worker.id] = None

    def _pay_back(self, hosted: Hosted) -> None:
        """Answer the scheduler's recall once all workers have answered ours."""
        if not any(worker.is_recalling for worker in hosted.workers.values()):
            count, hosted.owed = hosted.owed, 0
            self.give_back(hosted, count, _IDLE_ELSEWHERE)

    # giving out

    def run(self, now: float) -> None:
        """Give out what can be given out now, a cpu at a time."""
        ready = [h for h in self._hosted.values() if h.state is HostedState.READY]
        for hosted in ready:
            if hosted.owed:
                self._pay_back(hosted)
            elif hosted.waiting and not self._limit(hosted):  # some may be back from a dead worker
                self.give_back(hosted, hosted.waiting, _NO_CPUS)
        free = self._supply.free_cpus
        kept: list[Hosted] = []  # those for whom something is kept free
        some_need_more = any(hosted.needs_more for hosted in ready)
        while free > 0 and (hungry := [h for h in ready if self._can_give(h)]):
            if some_need_more:
                hungry, kept = self._supply.sort_out(hungry, self._turns, now)
                if not hungry:
                    break
            hosted = self._turns.next_of(hungry)
            worker = hosted.workers[self._supply.choose(hosted)]
            self._give(hosted, worker)
            self._begin(hosted, worker, now)
            free -= hosted.opened.resources.cpus
        if kept:
            self._end_spare_workers(kept)
        lacking = [h for h in ready if h.queue and h.occupied < self._limit(h)] if not free else []
        for hosted in ready:
            if hosted.lasting:
                is_over = hosted.occupied > self._limit(hosted)  # it was given fewer cpus meanwhile
                rivals = lacking or (kept and self._supply.rivals(hosted, kept))
                if not (is_over or (rivals and self._turns.must_yield(hosted, rivals))):
                    self._level(hosted, free > 0)
            self._fork_ahead(hosted, self._spare_forks(hosted, ready))

    def _can_give(self, hosted: Hosted) -> bool:
        return bool(hosted.queue and hosted.idle) and hosted.occupied < self._limit(hosted)

    def _limit(self, hosted: Hosted) -> int:
        """How many jobs of the computation may run here at a time."""
        return self._supply.most_jobs(hosted)

    def _end_spare_workers(self, kept: list[Hosted]) -> None:
        """End idle workers that have the gpus for which others wait."""
        for hosted, worker in self._supply.spare_workers(kept):
            del hosted.workers[worker.id], hosted.idle[worker.id]
            self._emit(SignalWorker(hosted.id, worker.id, signal.SIGKILL))

    def _give(self, hosted: Hosted, worker: Worker) -> None:
        count = self._share(hosted, worker) if hosted.lasting else 1
        if count > 0:
            jobs = [hosted.queue.popleft() for _ in range(count)]
            hosted.idle.pop(worker.id, None)
            hosted.denied_at = inf
            worker.take(jobs)
            self._emit(hosted.give(worker, jobs, self._supply.assign(hosted, worker)))

    def _share(self, hosted: Hosted, worker: Worker) -> int:
        """How many jobs to put into a lasting worker's pipe: its part of all that there are."""
        part = ceil((len(hosted.queue) + hosted.running) / self._limit(hosted))
        count = min(part, hosted.pace.jobs_per_worker()) - len(worker.held)
        return min(len(hosted.queue), count if worker.held else max(1, count))

    def _level(self, hosted: Hosted, cpu_free: bool) -> None:
        """Put jobs behind the running ones, so that a lasting worker never waits for the node.

        When there are none left and a cpu is free, those that wait behind another's come back.
        """
        if hosted.queue:
            depth = hosted.pace.jobs_per_worker()
            for worker in hosted.workers.values():
                if hosted.queue and 0 < len(worker.held) <= depth // 2 and worker.is_open:
                    self._give(hosted, worker)
        elif cpu_free and hosted.idle and len(hosted.workers) > len(hosted.idle):
            for worker in hosted.workers.values():
                self._recall_from(hosted, worker)

    def _spare_forks(self, hosted: Hosted, ready: list[Hosted]) -> int:
        """Processes to have beyond those for the cpus.

        Beside others, short jobs need some for a turn: it would end with the first one.
        """
        is_short = not hosted.lasting and hosted.queue and hosted.pace.jobs_per_cpu() > 2
        others = is_short and any(other.queue for other in ready if other is not hosted)
        return FORKS_FOR_A_TURN if others else 0

    def _fork_ahead(self, hosted: Hosted, spare: int) -> None:
        """Keep a process ready for each cpu; a lasting one serves job after job."""
        if hosted.forks_in_vain and not hosted.queue:  # they would die and be replaced for ever
            return
        have = len(hosted.workers) if hosted.lasting else len(hosted.idle)
        missing = self._limit(hosted) + spare - have - hosted.forking
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
        jobs = list(islice(worker.held, len(event.ids)))
        if [job.id for job in jobs] != event.ids:
            self._distrust(hosted, worker)
            return
        hosted.proved_well()
        hosted.pace.learn(event.seconds)
        self._turns.charge(hosted, sum(event.seconds) * hosted.opened.resources.cpus)
        for _ in jobs:
            worker.held.popleft()
        if not any(job.stopping or job.kill_step for job in jobs):
            hosted.record_all(jobs, event.raised, event.outcomes, event.seconds)
        else:
            columns = zip(jobs, event.raised, event.outcomes, event.seconds, strict=True)
            for job, raised, outcome, seconds in columns:
                status, reason = job.end(raised, seconds)
                hosted.record(job, status, outcome, reason, seconds)
        self._rest(hosted, worker, now)

    def _distrust(self, hosted: Hosted, worker: Worker) -> None:
        """End a process whose job has meddled with what it tells the node."""
        text = f'{hosted.opened.name}: a process told of jobs that it does not have, and is killed'
        self._emit(Report(levels.ERROR, text))
        self._emit(SignalWorker(hosted.id, worker.id, signal.SIGKILL))

    def _rest(self, hosted: Hosted, worker: Worker, now: float) -> None:
        """A worker has ended some jobs: it idles, leaves, or is in the next one now."""
        if self._kills:
            self._kills.pop((hosted.id, worker.id), None)
        if not worker.held:
            if hosted.lasting:
                hosted.idle[worker.id] = None
            else:
                del hosted.workers[worker.id]
        else:
            self._begin(hosted, worker, now)

    def _begin(self, hosted: Hosted, worker: Worker, now: float) -> None:
        """A worker is in its first job from now on: end it if it is to end, or in its time."""
        job = worker.held[0]
        if job.stopping:
            self._kill(hosted, worker, now)
        elif job.timeout:
            job.kill_step, job.kill_at = 0, now + job.timeout
            self._kills[hosted.id, worker.id] = job

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
        self._supply.ended(event.computation, event.worker)
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
        else:
            hosted.vain_workers += 1
        hosted.queue.extendleft(reversed(worker.held))

    def _end_first(self, hosted: Hosted, worker: Worker, event: WorkerEnded) -> None:
        """End the job that the worker was in, unless it had not begun it."""
        job = worker.held[0]
        if job.stopping:
            hosted.record(job, JobStatus.CANCELLED, event.outcome, 'cancelled')
        elif job.is_overdue:
            overrun = describe_overrun(job.timeout)
            hosted.record(job, JobStatus.TERMINATED, event.outcome, overrun)
        elif worker.memory_used:
            excess = describe_excess(
                worker.memory_used, hosted.opened.resources.memory, hosted.lasting
            )
            hosted.record(job, JobStatus.TERMINATED, event.outcome, excess)
        elif event.begun or not hosted.may_begin_again():
            reason = describe_end(
                event.exit_status, event.memory_kill, event.peak_memory, hosted.lasting
            )
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
        is_ending = job.is_ending
        job.stopping = True
        if worker is None:
            hosted.take_out(job)
            hosted.record(job, JobStatus.CANCELLED, reason='cancelled before it started')
        else:
            # else the worker might begin the next job in the moment of a signal, or this one yet
            self._recall_from(hosted, worker)
            if worker.held[0] is job and not is_ending:
                self._kill(hosted, worker, now)

    def _kill(self, hosted: Hosted, worker: Worker, now: float) -> None:
        """Climb one step of the ladder."""
        job = worker.held[0]
        number = int(KILL_LADDER[job.kill_step][1])
        self._emit(SignalWorker(hosted.id, worker.id, number, job.number))
        job.kill_step += 1
        self._recall_from(hosted, worker)  # what waits behind it, before a signal that kills
        if job.kill_step < len(KILL_LADDER):
            job.kill_at = now + KILL_LADDER[job.kill_step][0]
            self._kills[hosted.id, worker.id] = job
        else:
            self._kills.pop((hosted.id, worker.id), None)

    def exceeded(self, event: MemoryExceeded, now: float) -> None:
        """A job has more memory than it asked for: others were promised what it takes."""
        hosted = self._hosted.get(event.computation)
        worker = hosted.workers.get(event.worker) if hosted else None
        if hosted is not None and worker is not None and worker.held:
            worker.memory_used = event.used
            self._recall_from(hosted, worker)
            self._emit(SignalWorker(hosted.id, worker.id, signal.SIGKILL))

    def kill_due(self, now: float) -> None:
        """Begin or go on to end the jobs that have not ended in time."""
        for (computation, worker_id), job in list(self._kills.items()):
            hosted = self._hosted.get(computation)
            worker = hosted.workers.get(worker_id) if hosted else None
            if hosted is None or worker is None or not worker.held or worker.held[0] is not job:
                del self._kills[computation, worker_id]
            elif job.kill_at <= now:
                self._kill(hosted, worker, now)
