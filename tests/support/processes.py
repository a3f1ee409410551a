"""The processes of a node in a world of one thread: templates, workers, and how they fare.

They keep the contract of `io/procs.py`, `io/templateend.py` and `io/workerend.py`: what is posted
when, and in which order, whatever dies.  What a job does is written in its payload.
"""

import random
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.io.workerpage import PageOfNode, PageOfWorker
from tests.support.agenda import Agenda, Program
from tests.support.files import NodeFiles
from tests.support.promises import (
    Fate,
    Promise,
    Witness,
    broken,
    outcome,
    provisional_result,
)

_SIGINT, _SIGTERM, _SIGKILL = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGKILL)
_READ = 0.0002  # until a written piece is read
_DEAF = {_SIGINT: ('stubborn', 'deaf'), _SIGTERM: ('deaf',)}
_RECALL_LOOK, _MOST_RECALL_LOOK = 0.001, 0.064

Entry = tuple[int, int, Fate]  # job, attempt
Word = seen.JobsReported | seen.ProvisionalReported | int  # the number of a job that was skipped


class Troubles:
    """What a machine cannot do for the time being."""

    def __init__(self) -> None:
        self.refuses_forks = False
        self.refuses_templates = False


class Worker:
    """A forked process; a lasting one shares a page with its node."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.batches: deque[list[Entry]] = deque()  # written, not read
        self.jobs: deque[Entry] = deque()  # read, not begun
        self.current: Entry | None = None
        self.number = 0  # of the job in hand, among all that it was given
        self.turn = 0  # what an older continuation is known by
        self.reports: list[Word] = []
        self.given = self.answered = 0
        self.unread = False
        self.leaving = ''
        self.interrupted = False
        self.gpus: list[str] = []
        self.status: int | None = None  # how it ended
        cells = memoryview(bytearray(32)).cast('Q')
        self.node_page, self.page = PageOfNode(cells), PageOfWorker(cells)
        self.look = 0  # what an older look at a recall is known by

    def has_begun(self, lasting: bool) -> bool:
        """Whether it may have begun one of the jobs that it did not report."""
        return self.node_page.begun > self.answered if lasting else not self.unread


class Template:
    """One computation's template process and its workers."""

    def __init__(self, opened: do.OpenTemplate) -> None:
        self.id = opened.computation
        self.lasting = opened.isolation == 'worker'
        self.needs = opened.resources
        self.workers: dict[int, Worker] = {}
        self.reason = ''
        self.is_ready = self.is_closing = self.has_exited = self.is_gone = False


class SimulatedProcesses:
    """Performs what a node's core wants of processes, and posts what becomes of it."""

    def __init__(
        self,
        agenda: Agenda,
        program: Program,
        post: Callable[[seen.Event], None],
        witness: Witness,
        machine: tuple[int, Troubles, random.Random],
    ) -> None:
        self._agenda, self._program, self._post = agenda, program, post
        self._witness = witness
        self._cpus, self._troubles, self._random = machine
        self.templates: dict[int, Template] = {}
        self._count = 0
        self.files: NodeFiles  # of the same node

    def performers(self) -> dict[type[Any], Callable[[Any], None]]:
        """What is called for each effect."""
        return {
            do.OpenTemplate: self._open,
            do.CloseTemplate: self._close,
            do.ForkWorkers: self._fork_workers,
            do.GiveJobs: self._give,
            do.SignalWorker: self._signal,
            do.RecallFromWorker: self._recall,
        }

    def _later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self._agenda.later(seconds, self._program, call, *args)

    def _soon(self, longest: float) -> float:
        return self._random.uniform(0.0001, longest)

    # faults

    def kill_worker(self, which: int) -> None:
        """Somebody kills a worker, idle or not."""
        workers = [(t, w) for t in self.templates.values() for w in t.workers.values()]
        if workers:
            template, worker = workers[which % len(workers)]
            self._die(template, worker, -_SIGKILL)

    def kill_template(self, which: int) -> None:
        """Somebody kills a template: its workers die with it."""
        templates = [t for t in self.templates.values() if not t.has_exited]
        if templates:
            self._exit(templates[which % len(templates)], 'its template was killed')

    def close_all(self) -> None:
        """End all computations, as a node does that ends."""
        for computation in list(self.templates):
            self._close(do.CloseTemplate(computation))

    # templates

    def _open(self, effect: do.OpenTemplate) -> None:
        self.files.look_at_template(effect.computation)
        fails = self._troubles.refuses_templates
        if fails and self._random.random() < 0.3:
            self._post(seen.TemplateFailed(effect.computation, 'no directory for it'))
            return
        template = self.templates[effect.computation] = Template(effect)
        call = self._unpack_in_vain if fails else self._unpacked
        self._later(self._soon(0.05), call, template)

    def _unpacked(self, template: Template) -> None:
        if not template.has_exited:
            template.is_ready = True
            if template.is_closing:
                self._go_on_closing(template)
            else:
                self._post(seen.TemplateReady(template.id))

    def _unpack_in_vain(self, template: Template) -> None:
        self._exit(template, 'it cannot be unpacked')

    def _close(self, effect: do.CloseTemplate) -> None:
        template = self.templates.get(effect.computation)
        if template is None:
            self._post(seen.TemplateClosed(effect.computation))
        elif template.is_gone:
            if not template.is_closing:
                template.is_closing = True
                self._later(self._soon(0.01), self._removed, template)
        elif not template.is_closing:
            template.is_closing = True
            for worker in list(template.workers.values()):
                self._die(template, worker, -_SIGKILL)
            if template.is_ready:
                self._go_on_closing(template)
            else:
                self._exit(template, '')

    def _go_on_closing(self, template: Template) -> None:
        """Once the workers are gone, cleanup runs and the template ends."""
        if template.is_closing and template.is_ready and not template.workers:
            slow = self._random.random() < 0.05
            self._later(self._soon(5.0 if slow else 0.01), self._exit, template, '')

    def _exit(self, template: Template, reason: str) -> None:
        if template.has_exited:
            return
        template.has_exited, template.reason = True, reason
        for worker in list(template.workers.values()):
            if worker.status is not None:
                self._gone(template, worker)
            else:
                self._die(template, worker, -_SIGKILL)
        self._report_if_gone(template)

    def _report_if_gone(self, template: Template) -> None:
        if template.has_exited and not template.workers and not template.is_gone:
            template.is_gone = True
            self._later(self._soon(0.005), self._reaped, template)

    def _reaped(self, template: Template) -> None:
        if template.is_closing:
            self._later(self._soon(0.01), self._removed, template)
        else:
            self._post(seen.TemplateFailed(template.id, template.reason))

    def _removed(self, template: Template) -> None:
        if self.templates.get(template.id) is template:
            del self.templates[template.id]
            self._post(seen.TemplateClosed(template.id))

    # workers

    def _fork_workers(self, effect: do.ForkWorkers) -> None:
        template = self.templates.get(effect.computation)
        for _ in range(effect.count if template is not None else 0):
            self._later(self._soon(0.003), self._fork, template)

    def _fork(self, template: Template) -> None:
        if template.has_exited:
            return
        if self._troubles.refuses_forks:
            self._later(1.0, self._fork, template)
            return
        self._count += 1
        worker = template.workers[self._count] = Worker(self._count)
        if template.is_closing:
            self._die(template, worker, -_SIGKILL)
        else:
            self._post(seen.WorkerForked(template.id, worker.id))

    def _find(self, computation: int, number: int) -> tuple[Template, Worker] | None:
        template = self.templates.get(computation)
        worker = template.workers.get(number) if template is not None else None
        return (template, worker) if template is not None and worker is not None else None

    def _give(self, effect: do.GiveJobs) -> None:
        found = self._find(effect.computation, effect.worker)
        if found is None:
            return
        template, worker = found
        worker.given += len(effect.ids)
        if worker.status is not None:
            worker.unread = True
            return
        self._witness.given(effect)
        self.files.look_at_jobs(effect.computation, effect.ids)
        self._take_gpus(template, worker, effect.gpus)
        fates = map(Fate.of, effect.payloads)
        worker.batches.append(list(zip(effect.ids, effect.attempts, fates, strict=True)))
        if worker.current is None and not worker.jobs and len(worker.batches) == 1:
            self._later(_READ, self._read_batch, template, worker, worker.turn)

    def _take_gpus(self, template: Template, worker: Worker, gpus: list[str]) -> None:
        """A worker gets its gpus with its first job, and nobody else has them while it lives."""
        taken = {g for t in self.templates.values() for w in t.workers.values() for g in w.gpus}
        if taken.intersection(gpus) or (gpus and worker.gpus):
            broken(Promise.RESOURCES, f'worker {worker.id} gets gpus {gpus}, {taken} are taken')
        worker.gpus = worker.gpus or gpus
        if len(worker.gpus) != template.needs.gpus:
            broken(Promise.RESOURCES, f'worker {worker.id} has a job and gpus {worker.gpus}')

    def _read_batch(self, template: Template, worker: Worker, turn: int) -> None:
        if worker.turn == turn and worker.status is None and worker.batches:
            worker.jobs.extend(worker.batches.popleft())
            self._begin(template, worker)

    def _begin(self, template: Template, worker: Worker) -> None:
        """Begin the next job that is not to be skipped; an early interrupt ends it at once."""
        while worker.jobs:
            worker.number += 1
            if worker.page.begins(worker.number):
                break
            worker.jobs.popleft()
            self._say(worker, worker.turn, worker.number)
        else:
            self._read_next_batch(template, worker)
            return
        worker.turn += 1
        worker.current = job, attempt, fate = worker.jobs.popleft()
        self._witness.begun(self._program.name, self._cpus, template.id, job, template.needs)
        if worker.interrupted or (template.lasting and worker.page.is_interrupted(worker.number)):
            self._finish(template, worker, worker.turn, 'raised', 0.0)
            return
        for number in range(1, fate.provisionals + 1):
            at = fate.seconds * number / (fate.provisionals + 1)
            result = provisional_result(job, attempt, number)
            event = seen.ProvisionalReported(template.id, worker.id, job, result)
            self._later(at, self._say, worker, worker.turn, event)
        if fate.sends:
            self._later(fate.seconds / 2, self._send_file, template, worker, worker.turn)
        else:
            self._end_as_fated(template, worker, worker.turn, fate.seconds)

    def _send_file(self, template: Template, worker: Worker, turn: int) -> None:
        """The job waits for the answer, then for the rest of its time."""
        if worker.turn == turn and worker.current is not None:
            fate = worker.current[2]

            def go_on() -> None:
                self._end_as_fated(template, worker, turn, fate.seconds / 2)

            self.files.offer(template.id, worker.id, fate.sends, go_on)

    def _end_as_fated(self, template: Template, worker: Worker, turn: int, seconds: float) -> None:
        if worker.turn != turn or worker.current is None:
            return
        fate = worker.current[2]
        if fate.kind in ('crashes', 'exits'):
            status = -int(signal.SIGSEGV) if fate.kind == 'crashes' else 3
            self._later(seconds, self._end_in, template, worker, turn, status)
        else:
            word = 'raised' if fate.kind == 'raises' else 'returned'
            self._later(seconds, self._finish, template, worker, turn, word, fate.seconds)

    def _end_in(self, template: Template, worker: Worker, turn: int, status: int) -> None:
        if worker.turn == turn:
            self._die(template, worker, status)

    def _finish(
        self, template: Template, worker: Worker, turn: int, word: str, seconds: float
    ) -> None:
        """The job in hand ends in the ordinary way."""
        if worker.turn != turn or worker.current is None:
            return
        job, attempt, fate = worker.current
        raised = word == 'raised'
        result = outcome(word, job, attempt, fate.size)
        self._leave_job(template, worker)
        event = seen.JobsReported(template.id, worker.id, [job], [raised], [result], [seconds])
        self._say(worker, worker.turn, event)
        if not template.lasting:
            self._die(template, worker, 0)
        elif fate.kind == 'spoils':
            worker.leaving = 'its surroundings could not be restored'
            self._die(template, worker, 0)
        else:
            self._begin(template, worker)

    def _read_next_batch(self, template: Template, worker: Worker) -> None:
        if worker.batches:
            self._later(_READ, self._read_batch, template, worker, worker.turn)

    def _leave_job(self, template: Template, worker: Worker) -> None:
        worker.current = None
        worker.turn += 1
        self._witness.ended(self._program.name, template.id, template.needs)

    def _say(self, worker: Worker, turn: int, word: Word) -> None:
        """Write a report; the node reads a moment later what has come by then."""
        if worker.turn == turn and worker.status is None:
            worker.reports.append(word)
            if len(worker.reports) == 1:
                self._later(_READ, self._read_reports, worker)

    def _read_reports(self, worker: Worker) -> None:
        """Post reports in their order, words of one kind together."""
        reports, worker.reports = worker.reports, []
        joined: seen.JobsReported | None = None
        for word in reports:
            if isinstance(word, seen.JobsReported):
                worker.answered += 1
                if joined is None:
                    joined = word
                    self._post(word)
                else:
                    for name in ('ids', 'raised', 'outcomes', 'seconds'):
                        getattr(joined, name).extend(getattr(word, name))
                continue
            joined = None
            if isinstance(word, seen.ProvisionalReported):
                self._post(word)
                continue
            worker.answered += 1
            if not worker.node_page.was_taken(word):
                self._post(seen.JobsRecalled(self._computation_of(worker), worker.id, word, word))

    def _computation_of(self, worker: Worker) -> int:
        return next(t.id for t in self.templates.values() if t.workers.get(worker.id) is worker)

    def holds(self, computation: int, job: int) -> bool:
        """Whether a job is in a process that may go on with it."""
        template = self.templates.get(computation)
        return template is not None and any(
            worker.status is None and worker.current is not None and worker.current[0] == job
            for worker in template.workers.values()
        )

    # what is taken back

    def _recall(self, effect: do.RecallFromWorker) -> None:
        found = self._find(effect.computation, effect.worker)
        if found is not None:
            self._recall_after(effect.delay, *found)

    def _recall_after(self, delay: float, template: Template, worker: Worker) -> None:
        if delay:
            self._look_later(delay, worker, self._recall_after, 0.0, template, worker)
        elif worker.node_page.recall(worker.given, worker.answered):
            self._look_later(_RECALL_LOOK, worker, self._look_at, _RECALL_LOOK, template, worker)

    def _look_later(
        self, seconds: float, worker: Worker, call: Callable[..., None], *args: Any
    ) -> None:
        worker.look += 1
        self._later(seconds, self._look, worker, worker.look, call, args)

    def _look(self, worker: Worker, look: int, call: Callable[..., None], args: Any) -> None:
        if worker.look == look and worker.status is None:
            call(*args)

    def _look_at(self, waited: float, template: Template, worker: Worker) -> None:
        back = worker.node_page.take_back(worker.answered)
        if back is None:
            pause = min(2 * waited, _MOST_RECALL_LOOK)
            self._look_later(pause, worker, self._look_at, pause, template, worker)
        elif back[0] <= back[1]:
            self._post(seen.JobsRecalled(template.id, worker.id, *back))

    # death

    def _signal(self, effect: do.SignalWorker) -> None:
        found = self._find(effect.computation, effect.worker)
        if found is None or found[1].status is not None:
            return
        template, worker = found
        current = worker.current
        ignores = current is not None and current[2].kind in _DEAF.get(effect.signal, ())
        if effect.signal != _SIGINT:
            if not ignores:
                self._die(template, worker, -effect.signal)
            return
        if not template.lasting and current is None:
            worker.interrupted = True
            return
        worker.node_page.interrupt(effect.number)
        is_meant = not template.lasting or worker.number == effect.number
        if current is not None and not ignores and is_meant:
            self._later(0.001, self._finish, template, worker, worker.turn, 'raised', 0.0)

    def _die(self, template: Template, worker: Worker, status: int) -> None:
        if worker.status is not None:
            return
        worker.status = status
        if worker.current is not None:
            self._leave_job(template, worker)
        worker.turn += 1
        worker.unread = bool(worker.batches)
        self._later(self._soon(0.001), self._exited, template, worker)

    def _exited(self, template: Template, worker: Worker) -> None:
        """The node notices, reads the last reports, and has the process reaped."""
        self._read_reports(worker)
        if template.has_exited:
            self._gone(template, worker)
        else:
            self._later(self._soon(0.002), self._gone, template, worker)

    def _gone(self, template: Template, worker: Worker) -> None:
        if template.workers.pop(worker.id, None) is None:
            return
        self._read_reports(worker)
        assert worker.status is not None
        begun = worker.has_begun(template.lasting)
        how = (worker.status, b'', 0, begun, worker.leaving)
        event = seen.WorkerEnded(template.id, worker.id, *how)
        self._post(event)
        self._go_on_closing(template)
        self._report_if_gone(template)
