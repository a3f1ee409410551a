"""What a cluster does with many calls, and how it waits: the verbs of other libraries."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from dispy_nb.completion import AsCompleted, idle, ready_nodes
from dispy_nb.futures import ClusterExecutor
from dispy_nb.job import DispyJob, check_timeout
from dispy_nb.mapping import (
    LEAST_IN_FLIGHT,
    Columns,
    Target,
    check_calls,
    check_count,
    map_calls,
    map_lazily,
)
from dispy_nb.nodes import DispyNode
from dispy_nb.options import ClusterOptions
from dispy_nb.progress import ProgressLine
from dispy_nb.runtime import Runtime
from dispy_nb.shell import ClusterShell
from nodeserver.core.errors import ClusterClosed, NodesMissing, UsageError
from nodeserver.core.events import CancelAsked
from nodeserver.io.driver import Seat
from nodeserver.worker.anyfunction import AnyFunction

FIRST_NODE_TIMEOUT = 2.0  # seconds that `map` waits to learn how many cpus there are
UNKNOWN_CPUS = 16  # what it plans for if no node has come by then


class Verbs:
    """The part of `JobCluster` that builds upon submitting and cancelling."""

    name: str
    _options: ClusterOptions
    _shell: ClusterShell
    _runtime: Runtime
    _seat: Seat
    _by_value: frozenset[str]

    def map(
        self, *iterables: Iterable[Any], chunksize: int | None = None, errors: str = 'raise'
    ) -> list[Any]:
        """Call the function for each item of the iterables; return the results in order (Z01).

        As with the builtin `map`, several iterables give several arguments, and the shortest
        one is the end.  A chunk of calls is one job: it runs in one process, and a process that
        dies takes the calls of its chunk along.

        Parameters
        ----------
        chunksize : int, optional
            Calls in one job.  By default chunks are large at first and smaller towards the end,
            so that tiny calls cost little and long ones are spread over all cpus.
        errors : {'raise', 'return', 'stop'}
            What becomes of calls that fail.  'raise': all calls are run, then the first failure
            in order is raised.  'return': exceptions stand in the places of results.  'stop':
            the first failure is raised at once, and what is pending is cancelled.

        Raises
        ------
        Exception
            What the function raised, with the traceback of the node as its cause.
        JobFailed
            A process died, a job was cancelled, or the exception cannot be made here.
        UsageError
            An argument has a wrong value.
        PicklingFailed
            An argument cannot travel; no call is left running.
        """
        check_calls(iterables, chunksize, errors)
        target = self._target(known_cpus=chunksize is not None)
        with ProgressLine(self, self._options.progress):
            return map_calls(target, iterables, chunksize, errors)

    def imap(
        self,
        *iterables: Iterable[Any],
        chunksize: int = 1,
        errors: str = 'raise',
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Yield the results of `map` in order, as soon as they are ready (Z01).

        The iterables are read no further ahead than needed and may be endless.  An iterator that
        is closed, or ends with an exception, cancels what it has on its way.

        Parameters
        ----------
        chunksize : int, default 1
            Calls in one job; more for tiny calls.
        errors : {'raise', 'return', 'stop'}
            'raise': a failure is raised in its place.  'return': exceptions are yielded in place
            of results.  'stop': a failure is raised as soon as it is known.
        buffersize : int, optional
            Jobs that run, wait to run, or wait for their results to be yielded, at most; by
            default a few for each cpu.
        """
        check_calls(iterables, chunksize, errors)
        check_count('chunksize', chunksize)
        if buffersize is not None:
            check_count('buffersize', buffersize)
        target = self._target(known_cpus=buffersize is not None)
        ahead = buffersize or max(LEAST_IN_FLIGHT, 4 * target.cpus)
        return map_lazily(target, iterables, chunksize, errors, ahead)

    def as_completed(
        self, jobs: Iterable[DispyJob] | None = None, timeout: float | None = None
    ) -> AsCompleted:
        """Yield jobs as they end, to `for` or `async for`; `len()` counts those to come (Z01).

        Parameters
        ----------
        jobs : iterable of DispyJob, optional
            All pending jobs of this cluster by default.
        timeout : float, optional
            Seconds from now on after which `TimeoutError` is raised instead of the next job.
        """
        return AsCompleted(list(self._shell.jobs.values()) if jobs is None else jobs, timeout)

    def executor(self, max_workers: int | None = None) -> ClusterExecutor:
        """Make an executor that runs any function on this cluster's nodes (Z03).

        It has the options of this cluster but for its callbacks, keeps a process for each cpu
        (``isolation='worker'``), and is to be shut down on its own.
        """
        self.waiting()
        options = replace(
            self._options,
            computation=AnyFunction(),
            callback=None,
            cluster_status=None,
            dest_path=None,
            isolation='worker',
            name=f'{self.name} executor',
        )
        return ClusterExecutor(self._from_options(options), max_workers)

    def wait_for_nodes(self, n: int = 1, timeout: float | None = None) -> list[DispyNode]:
        """Wait until so many nodes are ready for jobs, and return all that are.

        Raises
        ------
        NodesMissing
            There were fewer after `timeout` seconds; the text says what is known of nodes.
        ClusterClosed
            The cluster is closed.
        """
        check_count('n', n)
        self.waiting()
        nodes = ready_nodes(self._shell, n, None if timeout is None else check_timeout(timeout))
        if self._shell.closed.is_set():
            raise ClusterClosed(f'cluster {self.name} is closed: no node will come')
        if len(nodes) < n:
            raise NodesMissing(
                f'{len(nodes)} of {n} nodes are ready after {timeout} s\n{self.explain()}'
            )
        return nodes

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Wait as `wait` does, while the event loop goes on (V22)."""
        self.waiting()
        seconds = None if timeout is None else check_timeout(timeout)
        with ProgressLine(self, self._options.progress):
            return await idle(self._shell, seconds)

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait until all jobs have ended, while the event loop goes on."""
        return self.wait_async().__await__()

    # what a cluster has

    def waiting(self) -> None:
        """Take note that somebody is about to wait."""
        raise NotImplementedError

    def explain(self, job: DispyJob | None = None) -> str:
        """Say why jobs wait."""
        raise NotImplementedError

    @classmethod
    def _from_options(cls, options: ClusterOptions) -> Self:
        raise NotImplementedError

    def _submit_payload(self, node: str, payload: bytes) -> DispyJob:
        raise NotImplementedError

    # for the verbs

    def _cancel_all(self, jobs: Iterable[DispyJob]) -> None:
        """Take back those of the jobs that are pending."""
        numbers = [job._number for job in jobs if job._number in self._shell.jobs]
        if numbers:
            self._runtime.post(self._seat, CancelAsked(numbers))

    def _target(self, known_cpus: bool) -> Target:
        self.waiting()
        cpus = 0 if known_cpus else self._cpus()
        return Target(
            lambda payload: self._submit_payload('', payload),
            self._cancel_all,
            cpus,
            self._by_value,
            self._check_columns,
        )

    def _cpus(self) -> int:
        """Cpus that can be planned with; the first node is waited for, but not for long."""
        nodes = ready_nodes(self._shell, 1, FIRST_NODE_TIMEOUT)
        return sum(node.cpus for node in nodes) or UNKNOWN_CPUS

    def _check_columns(self, columns: Columns) -> None:
        if isinstance(self._options.computation, str):
            check_program_arguments(value for column in columns for value in column)


def check_program_arguments(values: Iterable[Any]) -> None:
    """A program takes strings (C05)."""
    for position, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise UsageError(
                f'argument {position} of a program must be a string, not {value!r} '
                f'({type(value).__name__})'
            )
