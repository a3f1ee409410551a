"""The shell of one cluster's core: its jobs and nodes as users see them.

    ClusterCore ── MarkStarted, SettleJobs ... ──▶ ClusterShell ──▶ DispyJob, callbacks, waiters

All methods with a leading `_perform` run on the loop's thread; `wait_idle` is called by users.
"""

import functools
import logging
import textwrap
import threading
import time
from collections import Counter, deque
from typing import Any

from dispy_nb.callbacks import CallbackThread
from dispy_nb.job import DispyJob, JobView, ProvisionalOutcome
from dispy_nb.nodes import DispyNode, allocated, avail_info
from dispy_nb.options import ClusterOptions
from dispy_nb.shareddata import DataBook
from nodeserver.core.effects import (
    AskAllocation,
    DeliverProvisional,
    MarkRequeued,
    MarkStarted,
    Report,
    SayClosed,
    SettleJobs,
    SettleUnrun,
    TellNode,
)
from nodeserver.core.messages import AllocateAnswer, AllocateAsk
from nodeserver.core.status import JobStatus, NodeStatus
from nodeserver.io.driver import Performers

_log = logging.getLogger('dispy_nb')

FAILURES_KEPT = 20
BLOCKED_CALLBACK_SECONDS = 5.0


def _title(node: DispyNode | None) -> str:
    return f'{node.name} ({node.ip_addr})' if node is not None else 'a node'


class ClusterShell:
    """Jobs, nodes and figures of one cluster."""

    def __init__(
        self, cluster: Any, data: DataBook, options: ClusterOptions, callbacks: CallbackThread
    ) -> None:
        self.cluster = cluster
        self.data = data
        self.jobs: dict[int, DispyJob] = {}  # pending ones only (C25)
        self.nodes: dict[str, DispyNode] = {}
        self.counts: Counter[JobStatus] = Counter()  # ended jobs, by status
        self.started = 0  # with a node now
        self.submitted = 0
        self.provisional = 0
        self.latest_provisional: ProvisionalOutcome | None = None
        self.failures: deque[DispyJob] = deque(maxlen=FAILURES_KEPT)
        self.notice = ''
        self.first_submit: float | None = None
        self.last_settle: float | None = None
        self.closed = threading.Event()
        self._options = options
        self._callbacks = callbacks
        self._calls_left = 0
        self._idle = threading.Condition()

    def performers(self) -> Performers:
        """What the driver calls for each effect of the cluster's core."""
        return {
            MarkStarted: self._perform_started,
            MarkRequeued: self._perform_requeued,
            SettleJobs: self._perform_settle,
            SettleUnrun: self._perform_settle_unrun,
            DeliverProvisional: self._perform_provisional,
            TellNode: self._perform_tell_node,
            AskAllocation: self._perform_ask,
            Report: self._perform_report,
            SayClosed: lambda effect: self.closed.set(),
        }

    # the user's side

    def add(self, job: DispyJob, number: int) -> None:
        """Enter a job that is about to be submitted."""
        self.jobs[number] = job
        self.submitted += 1
        if self.first_submit is None:
            self.first_submit = job.submit_time
        if self._options.cluster_status is not None:
            self._tell(DispyJob.Created, None, JobView(job, JobStatus.CREATED, None))

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
            while self.jobs or (self._calls_left and not in_callback):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._idle.wait(1.0 if left is None else min(left, 1.0))
                if self.jobs:
                    warn_at = time.monotonic() + BLOCKED_CALLBACK_SECONDS
                elif time.monotonic() > warn_at and self._callbacks.current is not None:
                    warn_at = float('inf')
                    name = getattr(self._callbacks.current, '__qualname__', 'a callback')
                    _log.warning('all jobs have ended; waiting for callback %s to return', name)
        return True

    # the core's side

    def _perform_started(self, effect: MarkStarted) -> None:
        node, now = self.nodes.get(effect.node), time.time()
        jobs, count, debug = self.jobs, 0, _log.isEnabledFor(logging.DEBUG)
        for number in effect.ids:
            job = jobs.get(number)
            if job is not None:
                job._started(node, now)
                count += 1
                if debug:
                    _log.debug('%s: job %s runs at %s', self.cluster.name, job.id, _title(node))
                if self._options.cluster_status is not None:
                    view = JobView(job, JobStatus.RUNNING, None)
                    self._tell(DispyJob.Running, node, view)
        self.started += count
        if node is not None:
            node.busy += count

    def _perform_requeued(self, effect: MarkRequeued) -> None:
        for number in effect.ids:
            job = self.jobs.get(number)
            if job is not None:
                self._leave_node(job)
                job._requeued(effect.reason)
                _log.debug('%s: job %s waits again: %s', self.cluster.name, job.id, effect.reason)
                if self._options.cluster_status is not None:
                    self._tell(DispyJob.Created, None, JobView(job, JobStatus.CREATED, None))

    def _leave_node(self, job: DispyJob) -> None:
        """A job that was with a node is not any more."""
        if job.start_time is not None and job.status in (
            JobStatus.RUNNING,
            JobStatus.PROVISIONAL,
        ):
            self.started -= 1
            if job.node is not None:
                job.node.busy -= 1

    def _perform_settle(self, effect: SettleJobs) -> None:
        done, now = effect.done, time.time()
        node = self.nodes.get(done.node)
        columns = zip(
            done.ids, done.statuses, done.outcomes, done.reasons, done.seconds, strict=True
        )
        for number, status, outcome, reason, seconds in columns:
            job = self.jobs.get(number)
            if job is None:
                continue
            if node is not None:
                node.jobs_done += 1
                node.cpu_time += seconds
            job._took(seconds, now)
            self._end(job, number, JobStatus(status), outcome, reason, now)
        self._settled(now)

    def _perform_settle_unrun(self, effect: SettleUnrun) -> None:
        now = time.time()
        for number in effect.ids:
            job = self.jobs.get(number)
            if job is not None:
                self._end(job, number, JobStatus(effect.status), b'', effect.reason, now)
        self._settled(now)

    def _end(
        self, job: DispyJob, number: int, status: JobStatus, outcome: bytes, reason: str, now: float
    ) -> None:
        self._leave_node(job)
        del self.jobs[number]
        if self.data.of_jobs:
            self.data.settle(number)
        self.counts[status] += 1
        options = self._options
        job._settle(status, outcome, reason, now)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug('%s: job %s %s', self.cluster.name, job.id, status.name.lower())
        if status != JobStatus.FINISHED:
            self.failures.append(job)
        if options.callback is not None:
            self._call(options.callback, job)
        if options.cluster_status is not None:
            self._tell(status, job.node, job)

    def _settled(self, now: float) -> None:
        self.last_settle = now
        if not self.jobs:  # with calls left, it is the one who waits inside a callback
            with self._idle:
                self._idle.notify_all()

    def _perform_provisional(self, effect: DeliverProvisional) -> None:
        results = effect.results
        for number, result in zip(results.ids, results.results, strict=True):
            job = self.jobs.get(number)
            if job is None:
                continue
            outcome = ProvisionalOutcome(result)
            job._show_provisional(outcome)
            self.provisional += 1
            self.latest_provisional = outcome
            if self._options.callback is not None:
                view = JobView(job, JobStatus.PROVISIONAL, outcome)
                self._call(self._options.callback, view)
            if self._options.cluster_status is not None:
                view = JobView(job, JobStatus.PROVISIONAL, outcome)
                self._tell(DispyJob.ProvisionalResult, job.node, view)

    def _perform_tell_node(self, effect: TellNode) -> None:
        change = effect.change
        node = self.nodes.get(change.node)
        if node is None:
            node = self.nodes[change.node] = DispyNode(change)
        else:
            node.update(change)
        if change.status == NodeStatus.INITIALIZED:
            self.notice = ''
        if self._options.cluster_status is not None:
            self._tell(change.status, node, None)

    def _perform_ask(self, effect: AskAllocation) -> None:
        """Call the user's `allocate` on the callback thread; its answer goes to the scheduler."""
        ask = effect.ask
        allocate = self._options.allocations[ask.spec].allocate
        raised: list[str] = []

        @functools.wraps(allocate)
        def asking(*args: Any) -> Any:
            try:
                return allocate(*args)
            except BaseException as exc:
                text = textwrap.shorten(str(exc), 200)
                raised.append(f'allocate() raised {type(exc).__name__}: {text}')
                raise

        info = avail_info(ask.availability)
        args = (self.cluster, ask.address, ask.name, ask.cpus, info, ask.platform)
        self._callbacks.put(asking, args, lambda value: self._answer_ask(ask, value, raised))

    def _answer_ask(self, ask: AllocateAsk, value: Any, raised: list[str]) -> None:
        cpus, reason = (0, raised[0]) if raised else allocated(value, ask.cpus)
        if reason and not raised:  # what it raised was shown already
            _log.warning('%s: node %s (%s) is not used', reason, ask.name, ask.address)
        self.cluster.say(lambda computation: AllocateAnswer(computation, ask.node, cpus, reason))

    def _perform_report(self, effect: Report) -> None:
        if effect.level >= logging.WARNING:
            self.notice = effect.text
        _log.log(effect.level, '%s', effect.text)

    # callbacks

    def _call(self, function: Any, *args: Any) -> None:
        with self._idle:
            self._calls_left += 1
        self._callbacks.put(function, args, self._called)

    def _tell(self, status: int, node: DispyNode | None, job: DispyJob | None) -> None:
        self._call(self._options.cluster_status, status, node, job)

    def _called(self, value: Any) -> None:
        with self._idle:
            self._calls_left -= 1
            if not self._calls_left:
                self._idle.notify_all()
