"""`DispyJob`: what `submit` returns; a handle to one job, its status and its outcome."""

import os
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, ClassVar

from dispy_nb.awaiting import wakeable
from dispy_nb.interrupts import waiting_for
from dispy_nb.lastline import last_line
from dispy_nb.liveoutput import LiveOutput
from dispy_nb.outcomes import NOTHING, OpenedOutcome, ProvisionalOutcome, open_outcome
from dispy_nb.slices import slices
from nodeserver.core.errors import InvariantBroken, UsageError
from nodeserver.core.retries import after_failures
from nodeserver.core.status import ALLOWED_MOVES, SETTLED, JobStatus

_WAITERS = threading.Lock()  # guards every job's list of waiters, for a few instructions


def _forget_parent() -> None:
    """In a fork of the program the lock may be held by a thread that is not here."""
    global _WAITERS
    _WAITERS = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)


def check_timeout(timeout: Any, name: str = 'timeout') -> float:
    """Return a timeout as a number of seconds that locks understand (D13)."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise UsageError(f'{name} must be a number of seconds or None, not {timeout!r}')
    return float(min(max(0, timeout), threading.TIMEOUT_MAX))  # compared first: 10**400 is no float


class DispyJob:
    """A job: call it to wait for its result, `await` it, or read its attributes.

    Attributes
    ----------
    id : object
        Yours to set; counts from 1 unless set.
    status : int
        One of `Created`, `Running`, `ProvisionalResult`, `Finished`, `Terminated`, `Cancelled`,
        `Abandoned` (D9).
    result : object
        What the function returned, or the latest provisional result; None after a failure.
    stdout, stderr : str or None
        What the job wrote; while it runs, what it has written so far. None before it runs.
    exception : str or None
        Traceback of the user's frames, or how the process died and what it wrote last, or
        'Cancelled'.
    reason : str
        Why the job was cancelled, ended, lost its process, or came back to the queue, in words.
    attempts : int
        How often it was begun; more than once only if it was run again (Z05).
    ip_addr : str or None
        Address of the node on which it runs or ran.
    submit_time, start_time, end_time : float or None
        Seconds since the epoch: submitted; handed to a node; results here.
    """

    Created: ClassVar[int] = JobStatus.CREATED
    Running: ClassVar[int] = JobStatus.RUNNING
    ProvisionalResult: ClassVar[int] = JobStatus.PROVISIONAL
    Cancelled: ClassVar[int] = JobStatus.CANCELLED
    Terminated: ClassVar[int] = JobStatus.TERMINATED
    Abandoned: ClassVar[int] = JobStatus.ABANDONED
    Finished: ClassVar[int] = JobStatus.FINISHED

    __slots__ = (
        '__dict__',
        '__weakref__',
        '_arguments',
        '_attempts',
        '_cluster',
        '_end_time',
        '_id',
        '_live',
        '_node',
        '_number',
        '_outcome',
        '_reason',
        '_size',
        '_start_time',
        '_status',
        '_submit_time',
        '_waiters',
    )

    def __init__(self, cluster: Any, number: int, size: int = 0) -> None:
        self._cluster = cluster
        self._number = number
        self._size = size  # bytes of its arguments
        self._id: Any = number
        self._arguments: Any = None  # as `shortened.arguments_text` takes them, until it has ended
        self._status = JobStatus.CREATED
        self._node: Any = None
        self._outcome: OpenedOutcome | ProvisionalOutcome | bytes | None = None
        self._live: LiveOutput | None = None  # while it runs, once it has printed something
        self._reason = ''
        self._attempts = 0
        self._submit_time = time.time()
        self._start_time: float | None = None
        self._end_time: float | None = None
        self._waiters: tuple[Callable[[], object], ...] = ()

    # what users read

    @property
    def id(self) -> Any:
        """Yours to set (D01)."""
        return self._id

    @id.setter
    def id(self, value: Any) -> None:
        self._id = value
        if self._cluster is not None:
            self._cluster._id_given(self)

    @property
    def status(self) -> JobStatus:
        """Where the job stands (D03)."""
        return self._status

    @property
    def result(self) -> Any:
        """The return value, or the latest provisional result, or None."""
        return self._decoded().result

    @property
    def stdout(self) -> Any:
        """What it wrote to standard output, also while it runs (V18); None before, or if lost."""
        live = self._live  # read before the status: it is dropped after that has changed
        if self._status in SETTLED:
            return self._decoded().stdout
        if live is None:
            return None if self._status == JobStatus.CREATED else ''
        return live.stdout.text

    @property
    def stderr(self) -> Any:
        """What it wrote to standard error, also while it runs (V18); None before, or if lost."""
        live = self._live
        if self._status in SETTLED:
            return self._decoded().stderr
        if live is None:
            return None if self._status == JobStatus.CREATED else ''
        return live.stderr.text

    @property
    def exception(self) -> str | None:
        """What went wrong, or None (D10)."""
        return self._decoded().exception

    @property
    def reason(self) -> str:
        """Why it was cancelled, queued again or lost its process, in words; '' otherwise."""
        if self._attempts > 1 and self._status == JobStatus.TERMINATED:
            return after_failures(self._attempts, self._reason or last_line(self.exception or ''))
        return self._reason

    @property
    def attempts(self) -> int:
        """How often it was begun, the present try included (Z05)."""
        return self._attempts

    @property
    def node(self) -> Any:
        """The `DispyNode` it is or was on, or None."""
        return self._node

    @property
    def ip_addr(self) -> str | None:
        """Address of its node (D06)."""
        return self._node.ip_addr if self._node is not None else None

    @property
    def submit_time(self) -> float:
        """When it was submitted."""
        return self._submit_time

    @property
    def start_time(self) -> float | None:
        """When it was handed to a node (D11)."""
        return self._start_time

    @property
    def end_time(self) -> float | None:
        """When its results were here (D11)."""
        return self._end_time

    def __call__(self, clear: bool = False) -> Any:
        """Wait until the job has ended and return its result (D07).

        `clear` is accepted for programs written for dispy and has no effect.
        """
        self.wait()
        return self.result

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended, at most `timeout` seconds; whether it has."""
        seconds = None if timeout is None else check_timeout(timeout)
        if self._status in SETTLED:
            return True
        with waiting_for(self._cluster):
            return self._wait(seconds)

    def _wait(self, seconds: float | None = None) -> bool:
        lock = threading.Lock()
        lock.acquire()
        if not self._add_waiter(lock.release):
            return True
        try:
            self._cluster.waiting()
            return any(lock.acquire(timeout=part) for part in slices(seconds))
        finally:
            self._drop_waiter(lock.release)

    @property
    def finish(self) -> 'Finish':
        """The end of the job as the `threading.Event` that it is in dispy."""
        return Finish(self)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._status not in SETTLED:
            with waiting_for(self._cluster), wakeable() as (ended, wake):
                if self._add_waiter(wake):
                    try:
                        self._cluster.waiting()
                        yield from ended
                    finally:
                        self._drop_waiter(wake)
        return self.result

    def explain(self) -> str:
        """Say why the job waits, or what became of it (Z06)."""
        return str(self._cluster.explain(self))

    def __hash__(self) -> int:
        return hash((self._cluster, self._number))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DispyJob):
            return NotImplemented
        return self._cluster is other._cluster and self._number == other._number

    def __repr__(self) -> str:
        return f'<DispyJob {self.id}: {self._status.name.capitalize()}>'

    def __reduce__(self) -> str:
        raise TypeError(
            f'job {self.id} is a handle of this program and cannot travel: send job.result'
        )

    # what the shell of its cluster does to it, on the loop's thread

    def _move(self, to: JobStatus) -> None:
        """Change the status; an impossible move is a bug of ours that must not pass unseen."""
        if to not in ALLOWED_MOVES[self._status]:
            raise InvariantBroken(f'{self!r} cannot become {to.name.lower()}')
        self._status = to

    def _started(self, node: Any, now: float) -> None:
        self._node, self._start_time = node, now
        self._attempts += 1
        self._move(JobStatus.RUNNING)

    def _requeued(self, reason: str) -> None:
        """It was not begun: what was said of earlier attempts stays said."""
        if self._status is not JobStatus.CREATED:
            self._attempts -= 1
        self._retried(self._reason if self._attempts else reason)

    def _retried(self, reason: str) -> None:
        self._node, self._reason, self._live = None, reason, None
        if self._status is not JobStatus.CREATED:  # else a program of before has seen it start
            self._move(JobStatus.CREATED)

    def _took(self, node: Any, seconds: float, now: float) -> None:
        """Correct the start: the node timed the job, and word of its start takes a while.

        Who takes over from another program may hear of the end alone.
        """
        if self._start_time is not None:
            self._start_time = min(self._start_time, now - seconds)
        else:
            self._node, self._start_time = node, now - seconds
            self._attempts += 1

    def _show_provisional(self, outcome: ProvisionalOutcome) -> None:
        self._outcome = outcome
        self._move(JobStatus.PROVISIONAL)

    def _printed(self, stream: int, start: int, text: bytes) -> None:
        """It runs, and has written something."""
        if self._live is None:
            self._live = LiveOutput()
        self._live.add(stream, start, text)

    def _settle(self, status: JobStatus, outcome: bytes, reason: str, now: float) -> None:
        self._outcome = outcome
        self._reason = reason
        self._end_time = now
        self._move(status)  # last: who sees it may read the rest
        self._live = None
        if self._waiters:
            with _WAITERS:
                waiters, self._waiters = self._waiters, ()
            for wake in waiters:
                wake()

    def _add_waiter(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called at the end; False if the job has ended already."""
        with _WAITERS:
            if self._status in SETTLED:
                return False
            self._waiters = (*self._waiters, wake)
        if self._status in SETTLED:
            # it ended between the look and the note: `_settle` may have missed the note
            with _WAITERS:
                missed = wake in self._waiters
                self._waiters = tuple(waiter for waiter in self._waiters if waiter != wake)
            return not missed
        return True

    def _drop_waiter(self, wake: Callable[[], object]) -> None:
        """Forget a waiter that waits no longer; most were called and forgotten by the end."""
        if self._waiters:
            with _WAITERS:
                self._waiters = tuple(waiter for waiter in self._waiters if waiter != wake)

    def _decoded(self) -> OpenedOutcome:
        outcome = self._outcome
        if isinstance(outcome, OpenedOutcome):
            return outcome
        if isinstance(outcome, ProvisionalOutcome):
            return outcome.open()
        if self._status not in SETTLED:
            return NOTHING
        self._outcome = decoded = open_outcome(self._status, outcome or b'', self._reason)
        return decoded


class Finish:
    """What `job.finish` is: set once the job has ended, for good."""

    def __init__(self, job: DispyJob) -> None:
        self._job = job

    def is_set(self) -> bool:
        """Whether the job has ended."""
        return self._job.status in SETTLED

    isSet = is_set  # noqa: N815 - as it was called before

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended, at most `timeout` seconds; whether it has."""
        return self._job.wait(timeout)

    def clear(self) -> None:
        """Do nothing: an ended job does not begin again, and nobody shall wait for that."""

    def __repr__(self) -> str:
        return f'<end of {self._job!r}: {"set" if self.is_set() else "not set"}>'


class JobView(DispyJob):
    """A job frozen at one moment, for its callback: equal to the job and hash-equal."""

    __slots__ = ('_origin',)

    def __init__(self, origin: DispyJob, status: JobStatus, outcome: Any) -> None:
        times = ('_submit_time', '_start_time', '_end_time')
        for name in ('_cluster', '_number', '_node', '_reason', '_attempts', *times):
            setattr(self, name, getattr(origin, name))
        self._origin = origin
        self._status = status
        self._outcome = outcome
        self._live = origin._live and origin._live.frozen()
        self._waiters = ()

    @property
    def id(self) -> Any:
        """The job's id as it is now."""
        return self._origin.id

    @id.setter
    def id(self, value: Any) -> None:
        self._origin.id = value

    def __getattr__(self, name: str) -> Any:
        """Find what the user hung on the job itself."""
        return getattr(object.__getattribute__(self, '_origin'), name)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job itself."""
        return self._origin.wait(timeout)
