"""The shell of one cluster's core: its jobs and nodes as users see them.

    ClusterCore ── MarkStarted, SettleJobs ... ──▶ ClusterShell ──▶ DispyJob, callbacks, waiters

All methods with a leading `_perform` run on the loop's thread; `wait_idle` is called by users.
"""

import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from dispy_nb.allocating import Allocating
from dispy_nb.callbacks import CallbackThread
from dispy_nb.cells import name_cells
from dispy_nb.feeder import Feeder
from dispy_nb.files import ClusterFiles
from dispy_nb.gilshare import GilShare
from dispy_nb.history import History
from dispy_nb.job import DispyJob, JobView
from dispy_nb.lastline import failure
from dispy_nb.nodes import DispyNode
from dispy_nb.options import ClusterOptions
from dispy_nb.outcomes import ProvisionalOutcome
from dispy_nb.requests import Requests
from dispy_nb.shareddata import DataBook
from dispy_nb.surroundings import in_kernel
from nodeserver.core.effects import (
    AskAllocation,
    DeliverOutput,
    DeliverProvisional,
    HearOfFiles,
    MarkRequeued,
    MarkRetried,
    MarkStarted,
    Report,
    SayClosed,
    SettleJobs,
    SettleRequest,
    SettleUnrun,
    TakeBackNotice,
    TellNode,
)
from nodeserver.core.status import STATUSES, JobStatus, NodeStatus
from nodeserver.io.driver import Performers

_log = logging.getLogger('dispy_nb')

BLOCKED_CALLBACK_SECONDS = 5.0
_GIL = GilShare()
_WITH_A_NODE = (JobStatus.RUNNING, JobStatus.PROVISIONAL)


def _title(node: DispyNode | None) -> str:
    return f'{node.name} ({node.ip_addr})' if node is not None else 'a node'


class ClusterShell:
    """Jobs, nodes and figures of one cluster."""

    def __init__(
        self,
        cluster: Any,
        data: DataBook,
        files: ClusterFiles,
        options: ClusterOptions,
        callbacks: CallbackThread,
    ) -> None:
        self.cluster = cluster
        self.data = data
        self.files = files
        self.jobs: dict[int, DispyJob] = {}  # pending ones only (C25)
        self.left: dict[int, int] = {}  # of those that have ended: what a later try may have of it
        self.nodes: dict[str, DispyNode] = {}
        self.counts: Counter[JobStatus] = Counter()  # ended jobs, by status
        self.cpus_per_job = options.cpus
        self.started = 0  # with a node now
        self.submitted = 0
        self.provisional = 0
        self.latest_provisional: ProvisionalOutcome | None = None
        self.history = History(keeps_jobs=in_kernel())
        self.context = contextvars.copy_context()  # of callbacks: the cell that made the cluster
        self.notice = ''
        self.first_submit: float | None = None
        self.last_settle: float | None = None
        self.closed = threading.Event()
        self.feeder: Feeder | None = None
        self._holds = False
        self.allocations = list(options.allocations)  # elements of `nodes`; added ones come first
        self._options = options
        self._callbacks = callbacks
        self._allocating = Allocating(cluster, self.allocations, files, callbacks)
        self._calls_left = 0
        self._idle = threading.Condition()
        self.idle_watchers: set[Callable[[], object]] = set()  # called when it may be idle
        self.nodes_changed = threading.Condition()
        self.requests = Requests(self.closed.is_set)

    def performers(self) -> Performers:
        """What the driver calls for each effect of the cluster's core."""
        return {
            MarkStarted: self._perform_started,
            MarkRequeued: self._perform_requeued,
            MarkRetried: self._perform_retried,
            SettleJobs: self._perform_settle,
            SettleUnrun: self._perform_settle_unrun,
            DeliverProvisional: self._perform_provisional,
            DeliverOutput: self._perform_output,
            TellNode: self._perform_tell_node,
            AskAllocation: self._allocating.perform,
            Report: self._perform_report,
            TakeBackNotice: self._perform_take_back,
            SayClosed: self._perform_closed,
            HearOfFiles: self.files.perform,
            SettleRequest: lambda effect: self.requests.settle(effect.answer),
        }

    # the user's side

    def add(self, job: DispyJob, number: int) -> None:
        """Enter a job that is about to be submitted."""
        self.jobs[number] = job
        self.submitted += 1
        if self.first_submit is None:
            self.first_submit = job.submit_time
        if self._options.cluster_status is not None:
            self._tell_created(job)

    def discard(self, number: int) -> None:
        """Forget a job whose submission was interrupted."""
        if self.jobs.pop(number, None) is not None:
            self.submitted -= 1

    def wait_idle(self, timeout: float | None) -> bool:
        """Wait until every job has ended and its callbacks have run (D10)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        in_callback = self._callbacks.is_current()
        warn_at = time.monotonic() + BLOCKED_CALLBACK_SECONDS
        with self._idle:
            while self._is_busy() or (self._calls_left and not in_callback):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._idle.wait(1.0 if left is None else min(left, 1.0))
                if self._is_busy():
                    warn_at = time.monotonic() + BLOCKED_CALLBACK_SECONDS
                elif time.monotonic() > warn_at and self.name_blocked_callback():
                    warn_at = float('inf')
        return True

    def name_blocked_callback(self) -> bool:
        """Say which callback runs, if one does, since somebody waits for it."""
        current = self._callbacks.current
        if current is not None:
            name = getattr(current, '__qualname__', 'a callback')
            _log.warning('all jobs have ended; waiting for callback %s to return', name)
        return current is not None

    def is_idle(self) -> bool:
        """Whether every job has ended and its callbacks have run."""
        return not self._is_busy() and (not self._calls_left or self._callbacks.is_current())

    def _is_busy(self) -> bool:
        feeder = self.feeder
        return bool(self.jobs) or (feeder is not None and feeder.is_busy())

    def feeder_is_done(self) -> None:
        """Nothing is to come any more: tell those who wait."""
        with self._idle:
            self._notify_idle()

    # the core's side

    def _perform_started(self, effect: MarkStarted) -> None:
        node, now = self.nodes.get(effect.node), time.time()
        jobs, count, size, watched = self.jobs, 0, 0, self._is_watched
        for number in effect.ids:
            job = jobs.get(number)
            if job is not None:
                job._started(node, now)
                count += 1
                size += job._size
                if watched:
                    self._tell_of_start(job, node)
        self.started += count
        if node is not None:
            node.busy += count
            node.tx += size

    def _tell_of_start(self, job: DispyJob, node: DispyNode | None) -> None:
        _log.debug('%s: job %s runs at %s', self.cluster.name, job.id, _title(node))
        if self._options.cluster_status is not None:
            self._tell(DispyJob.Running, node, JobView(job, JobStatus.RUNNING, None))

    @property
    def _is_watched(self) -> bool:
        """Whether somebody wants to be told of each job."""
        options = self._options
        return (
            options.callback is not None
            or options.cluster_status is not None
            or _log.isEnabledFor(logging.DEBUG)
        )

    def _perform_requeued(self, effect: MarkRequeued) -> None:
        for number in effect.ids:
            job = self.jobs.get(number)
            if job is not None:
                self._leave_node(job)
                job._requeued(effect.reason)
                _log.debug('%s: job %s waits again: %s', self.cluster.name, job.id, effect.reason)
                self._tell_created(job)

    def _perform_retried(self, effect: MarkRetried) -> None:
        retried = effect.retried
        self.cluster._journal.store_retries(retried.ids)
        columns = zip(retried.ids, retried.reasons, retried.outcomes, strict=True)
        for number, reason, outcome in columns:
            job = self.jobs.get(number)
            if job is not None:
                self._leave_node(job)
                text = failure(outcome, reason)
                job._retried(text)
                words = '%s: job %s is run again, attempt %d failed: %s'
                _log.info(words, self.cluster.name, job.id, job.attempts, text)
                self._tell_created(job)

    def _tell_created(self, job: DispyJob) -> None:
        if self._options.cluster_status is not None:
            self._tell(DispyJob.Created, None, JobView(job, JobStatus.CREATED, None))

    def _leave_node(self, job: DispyJob) -> None:
        """A job that was with a node is not any more."""
        if job._status in _WITH_A_NODE:
            self.started -= 1
            if job._node is not None:
                job._node.busy -= 1

    def _perform_settle(self, effect: SettleJobs) -> None:
        done, now = effect.done, time.time()
        node = self.nodes.get(done.node)
        columns = zip(
            done.ids, done.statuses, done.outcomes, done.reasons, done.seconds, strict=True
        )
        jobs, watched = self.jobs, self._is_watched
        for number, status, outcome, reason, seconds in columns:
            job = jobs.get(number)
            if job is not None:
                job._took(node, seconds, now)
                self._end(job, STATUSES[status], outcome, reason, now, seconds)
                if watched:
                    self._tell_of_end(job)
                del jobs[number]  # last: who waits for the cluster sees it settled, its calls due
        if node is not None:
            node.jobs_done += len(done.ids)
            node.cpu_time += sum(done.seconds)
            node.rx += sum(map(len, done.outcomes))
        self._settled(len(done.ids), now)

    def _perform_settle_unrun(self, effect: SettleUnrun) -> None:
        now = time.time()
        if effect.kind:
            self.left.update(dict.fromkeys(effect.ids, effect.kind))
        for number in effect.ids:
            job = self.jobs.get(number)
            if job is not None:
                self._end(job, STATUSES[effect.status], b'', effect.reason, now)
                self._tell_of_end(job)
                del self.jobs[number]
        self._settled(len(effect.ids), now)

    def _end(
        self,
        job: DispyJob,
        status: JobStatus,
        outcome: bytes,
        reason: str,
        now: float,
        seconds: float = 0.0,
    ) -> None:
        self._leave_node(job)
        if self.data.of_jobs:
            self.data.settle(job._number)
        if self.files.of_jobs:
            self.files.settle(job._number)
        self.counts[status] += 1
        job._settle(status, outcome, reason, now)
        if self.history.keeps_jobs or status is not JobStatus.FINISHED:
            self.history.ended(job, status, outcome, reason, seconds)
            job._arguments = None

    def _tell_of_end(self, job: DispyJob) -> None:
        _log.debug('%s: job %s %s', self.cluster.name, job.id, job.status.name.lower())
        if self._options.callback is not None:
            self._call(self._options.callback, job)
        if self._options.cluster_status is not None:
            self._tell(job.status, job.node, job)

    def hold_interpreter(self) -> None:
        """Jobs are on their way to the nodes: the loop's thread needs its share."""
        if not self._holds:
            self._holds = True
            _GIL.hold()

    def _settled(self, count: int, now: float) -> None:
        self.last_settle = now
        self.history.throughput.add(count, now)
        if not self.jobs:  # with calls left, it is the one who waits inside a callback
            self.history.throughput.restart()  # a pause says nothing of the jobs after it
            if self._holds:
                self._holds = False
                _GIL.release()
            with self._idle:
                self._notify_idle()

    def _notify_idle(self) -> None:
        self._idle.notify_all()
        for wake in tuple(self.idle_watchers):
            wake()

    def _perform_provisional(self, effect: DeliverProvisional) -> None:
        results, now = effect.results, time.time()
        for number, result in zip(results.ids, results.results, strict=True):
            job = self.jobs.get(number)
            if job is None:
                continue
            outcome = ProvisionalOutcome(result)
            job._show_provisional(outcome)
            if job._node is not None:
                job._node.rx += len(result)
            self.provisional += 1
            self.latest_provisional = outcome
            self.history.provisional(job, outcome, now)
            if self._options.callback is not None:
                view = JobView(job, JobStatus.PROVISIONAL, outcome)
                self._call(self._options.callback, view)
            if self._options.cluster_status is not None:
                view = JobView(job, JobStatus.PROVISIONAL, outcome)
                self._tell(DispyJob.ProvisionalResult, job.node, view)

    def _perform_output(self, effect: DeliverOutput) -> None:
        output = effect.output
        rows = zip(output.ids, output.streams, output.starts, output.texts, strict=True)
        for number, stream, start, text in rows:
            job = self.jobs.get(number)
            if job is not None and job._status in _WITH_A_NODE:
                job._printed(stream, start, text)

    def _perform_tell_node(self, effect: TellNode) -> None:
        change = effect.change
        node = self.nodes.get(change.node)
        if node is None:
            node = self.nodes[change.node] = DispyNode(change)
        else:
            node.update(change)
        if change.status == NodeStatus.INITIALIZED:
            self.notice = ''
        with self.nodes_changed:
            self.nodes_changed.notify_all()
        if self._options.cluster_status is not None and change.status != NodeStatus.FIGURES:
            self._tell(change.status, node, None)

    def _perform_closed(self, effect: SayClosed) -> None:
        self.closed.set()
        self.requests.give_up()
        with self.nodes_changed:
            self.nodes_changed.notify_all()

    def _perform_report(self, effect: Report) -> None:
        text = name_cells(effect.text)
        if effect.level >= logging.WARNING:
            self.notice = text
        _log.log(effect.level, '%s', text)

    def _perform_take_back(self, effect: TakeBackNotice) -> None:
        self.notice = ''

    # callbacks

    def _call(self, function: Any, *args: Any) -> None:
        with self._idle:
            self._calls_left += 1
        self._callbacks.put(function, args, self._called, self.context)

    def _tell(self, status: int, node: DispyNode | None, job: DispyJob | None) -> None:
        self._call(self._options.cluster_status, status, node, job)

    def _called(self, value: Any) -> None:
        with self._idle:
            self._calls_left -= 1
            if not self._calls_left:
                self._notify_idle()
