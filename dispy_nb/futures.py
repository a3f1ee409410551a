"""`concurrent.futures` on a cluster: any function, a future for each call.

submit ──▶ JobFuture ──▶ job of the generic computation ──▶ thread of the executor ──▶ result
"""

import logging
import threading
import time
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from dispy_nb.dependencies import SourceFiles
from dispy_nb.failures import failure_of
from dispy_nb.job import DispyJob, check_timeout
from dispy_nb.mapping import begun, calls_of, check_calls, check_count, columns_of, opened, sizes_of
from dispy_nb.travelling import Travels
from nodeserver.core.status import JobStatus
from nodeserver.payload import dump_call, dump_chunk

_log = logging.getLogger('dispy_nb')

T = TypeVar('T')

Call = tuple[bytes, SourceFiles]  # pickled, and what it needs


class JobFuture(Future[Any]):
    """The future of one job."""

    def __init__(self, executor: 'ClusterExecutor') -> None:
        super().__init__()
        self._executor = executor
        self._job: DispyJob | None = None  # while it is with the cluster
        self._withdrawn = False

    def cancel(self) -> bool:
        """Cancel the call, also when it runs: its process is interrupted; False if it is done."""
        if not super().cancel():
            return False
        self._executor._withdraw([self])
        return True

    def __reduce__(self) -> str:
        raise TypeError('a future belongs to this program and cannot travel: send its result()')

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Have `fn(future)` called when it is done; in a thread of the executor, mostly."""
        super().add_done_callback(partial(self._executor._call_back, fn))

    def running(self) -> bool:
        """Whether the call is with a node."""
        job = self._job
        running = (JobStatus.RUNNING, JobStatus.PROVISIONAL)
        return job is not None and not self.done() and job.status in running


class ClusterExecutor(StandardExecutor):
    """Runs any function on the nodes of a cluster, as `concurrent.futures` has it (Z03).

    A call that fails raises its exception from ``future.result()``, with the traceback of the
    node as its cause.  A process that dies costs the future of its own call only (`JobFailed`):
    the executor goes on.

    All calls are run before the program ends, unless it is interrupted; so does whoever closes
    the cluster wait for those that are yet to come.

    A function's pickled form is kept for its later calls, with the globals that it had at the
    first one; what has a state of its own (closures, methods, objects) is pickled each time.

    Parameters
    ----------
    cluster : JobCluster
        A cluster whose computation is `AnyFunction`; it is closed with the executor.
    max_workers : int, optional
        Most calls that are with the cluster at a time; by default it takes what it is given.
    """

    def __init__(self, cluster: Any, max_workers: int | None = None) -> None:
        if max_workers is not None:
            check_count('max_workers', max_workers)
        self.cluster = cluster
        self._most = max_workers
        # garbage collected inside of a locked block can bring a `shutdown`
        self._lock = threading.RLock()
        self._unfinished: set[JobFuture] = set()
        self._waiting: OrderedDict[JobFuture, Call] = OrderedDict()  # for room
        self._with_cluster = 0
        self._is_shut = False
        self._ends: SimpleQueue[JobFuture | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._travels = Travels()
        cluster._shell.feeder = self

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called on any node.

        Raises
        ------
        PicklingFailed
            The function or an argument cannot travel.
        RuntimeError
            The executor was shut down.
        """
        travelling = self._travels.of(fn)
        payload = dump_call(args, kwargs, travelling.by_value, function=travelling.function)
        return self._submit((payload, travelling.files))

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = 1,
    ) -> Iterator[T]:
        """Call a function for each item of the iterables; yield results in order.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now on after which `TimeoutError` is raised instead of a result.
        chunksize : int, optional
            Calls in one job; None: large chunks at first and smaller ones towards the end.
        """
        check_calls(iterables, chunksize, 'raise')
        deadline = None if timeout is None else check_timeout(timeout) + time.monotonic()
        travelling = self._travels.of(fn)
        calls, first = list(calls_of(iterables)), 0
        cpus = self.cluster._cpus() if chunksize is None else 0
        chunks: deque[tuple[JobFuture, int]] = deque()
        try:
            for size in sizes_of(len(calls), chunksize, cpus):
                columns = columns_of(calls[first : first + size], len(iterables))
                payload = dump_chunk(
                    columns,
                    travelling.by_value,
                    function=travelling.function,
                    stop=True,
                    first=first,
                )
                chunks.append((self._submit((payload, travelling.files)), first))
                first += size
        except BaseException:
            _cancel(future for future, _ in chunks)
            raise
        return begun(_results(chunks, deadline))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and release the nodes when those that were given have ended.

        Parameters
        ----------
        wait : bool
            Return when all that has happened.
        cancel_futures : bool
            Cancel the calls that are not yet with a node.
        """
        with self._lock:
            self._is_shut = True
            self._start_thread()
            futures = list(self._unfinished) if cancel_futures else []
        _cancel(future for future in futures if not future.running())
        self._ends.put(None)
        if wait and self._thread is not threading.current_thread() and self._thread is not None:
            self._thread.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Shut down after all calls; after Ctrl-C and its like, cancel those that run as well."""
        if kind is not None and not issubclass(kind, Exception):
            with self._lock:
                self._is_shut = True
                futures = list(self._unfinished)
            _cancel(futures)
        self.shutdown()

    def explain(self) -> str:
        """Say why calls wait, node by node."""
        text: str = self.cluster.explain()
        return text

    def __repr__(self) -> str:
        return f'<{type(self).__name__} on {self.cluster.name}: {len(self._unfinished)} pending>'

    def __reduce__(self) -> str:
        raise TypeError(
            'an executor is a handle of this program and cannot travel: '
            'calls cannot submit calls to it'
        )

    def _submit_batch(self, batch: Callable[[], Any], parts: Iterable[Any]) -> JobFuture:
        """Have a batch of calls run, of these functions and arguments."""
        travelling = self._travels.of_batch(batch, parts)
        payload = dump_call((), {}, travelling.by_value, function=batch)
        return self._submit((payload, travelling.files))

    def _submit(self, call: Call) -> JobFuture:
        future = JobFuture(self)
        with self._lock:
            if self._is_shut:
                raise RuntimeError('cannot schedule new futures after shutdown')
            self._start_thread()
            try:
                self._unfinished.add(future)
                if self._most is not None and self._with_cluster >= self._most:
                    self.cluster._check_open()
                    self._waiting[future] = call
                else:
                    self._give(future, call)
            except BaseException:  # also Ctrl-C: a call that nobody was given is none
                self._waiting.pop(future, None)
                self._unfinished.discard(future)
                raise
        return future

    def _give(self, future: JobFuture, call: Call) -> None:
        """Hand a call to the cluster; its end comes to our thread."""
        payload, files = call
        job: DispyJob = self.cluster._submit_payload('', payload, files=files)
        future._job = job
        ended = partial(self._ends.put, future)
        if not job._add_waiter(ended):
            ended()
        self._with_cluster += 1  # last: after Ctrl-C, one call too many is better than none

    def _withdraw(self, futures: Iterable[JobFuture]) -> None:
        """Take calls back whose futures were cancelled; the first to do so tells who waits."""
        with self._lock:
            fresh = [future for future in futures if not future._withdrawn]
            for future in fresh:
                future._withdrawn = True
                if future._job is None:
                    self._waiting.pop(future, None)
                    self._unfinished.discard(future)
            jobs = [future._job for future in fresh if future._job is not None]
        self.cluster._cancel_all(jobs)
        for future in fresh:
            future.set_running_or_notify_cancel()
        self._ends.put(None)  # the last one may have been among them

    # for the cluster, which waits for what is to come

    def is_busy(self) -> bool:
        """Whether a call has not ended, or is not known to have; our own thread waits for none."""
        return bool(self._unfinished) and threading.current_thread() is not self._thread

    def held_back(self) -> int:
        """How many calls wait for room."""
        return len(self._waiting)

    def take_back(self) -> None:
        """Cancel the calls that wait for room."""
        with self._lock:
            futures = list(self._waiting)
        _cancel(futures)

    # the thread: unpickling results and callbacks of futures are user code

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='dispy-futures', daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            future = self._ends.get()
            if future is not None:
                self._end(future)
            del future  # while this waits, nobody else may have it any more
            if not self._unfinished:
                self.cluster._shell.feeder_is_done()
            with self._lock:
                if self._is_shut and not self._unfinished:
                    break
        self.cluster.close()

    def _end(self, future: JobFuture) -> None:
        job = future._job
        assert job is not None
        with self._lock:
            self._with_cluster -= 1
            refused = self._give_next()
        for other, error in refused:
            self._settle(other, None, error)
        result = None
        try:
            failure = failure_of(job)
            if failure is None:
                result = job.result
        except BaseException as error:  # noqa: BLE001 - raised by what unpickled: the caller's
            failure = error
        self._settle(future, result, failure)

    def _settle(self, future: JobFuture, result: Any, failure: BaseException | None) -> None:
        with suppress(InvalidStateError):  # it was cancelled
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
        future._job = None
        with self._lock:
            self._unfinished.discard(future)

    def _call_back(self, fn: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        """Call a user's function; if it exits, that ends neither our thread nor the next calls."""
        try:
            fn(future)
        except Exception:
            raise  # the library logs it
        except BaseException:
            if threading.current_thread() is not self._thread:
                raise
            _log.exception('%s raised', getattr(fn, '__qualname__', fn))

    def _give_next(self) -> list[tuple[JobFuture, Exception]]:
        """Give the cluster the call that has waited longest; return what it did not take."""
        refused = []
        while self._waiting:
            future, call = self._waiting.popitem(last=False)
            try:
                self._give(future, call)
            except Exception as error:  # noqa: BLE001 - the cluster was closed: its owner is told
                refused.append((future, error))
                continue
            break
        return refused


def _results(chunks: deque[tuple[JobFuture, int]], deadline: float | None) -> Iterator[Any]:
    try:
        yield  # to `begun`
        while chunks:
            future, first = chunks[0]
            left = None if deadline is None else deadline - time.monotonic()
            values, failures = opened(future.result(left), first)
            chunks.popleft()
            for at, value in enumerate(values):
                if at in failures:
                    raise failures[at]
                yield value
    finally:
        _cancel(future for future, _ in chunks)


def _cancel(futures: Iterable[JobFuture]) -> None:
    """Cancel futures of one executor, all with one message."""
    cancelled = [future for future in futures if Future.cancel(future)]
    if cancelled:
        cancelled[0]._executor._withdraw(cancelled)
