"""What a cluster does with many calls, and how it waits: the verbs of other libraries."""

from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Any, Self

from dispy_nb.completion import AsCompleted, idle, ready_nodes
from dispy_nb.fileverbs import FileVerbs
from dispy_nb.futures import ClusterExecutor
from dispy_nb.interrupts import waiting_for
from dispy_nb.job import DispyJob, check_timeout
from dispy_nb.joboptions import ClusterView, checked
from dispy_nb.mapping import Columns, Target, check_count
from dispy_nb.mapverbs import MapVerbs
from dispy_nb.nodes import DispyNode
from dispy_nb.nodeverbs import NodeVerbs
from dispy_nb.options import ClusterOptions
from dispy_nb.packaging import check_program_arguments
from dispy_nb.progress import ProgressLine
from dispy_nb.project import ByValue
from dispy_nb.runtime import Runtime
from dispy_nb.shareddata import DataBook, Shared
from dispy_nb.shell import ClusterShell
from dispy_nb.snapshot import Snapshot
from dispy_nb.table import status_table
from nodeserver.core.errors import ClusterClosed, NodesMissing
from nodeserver.core.events import CancelAsked
from nodeserver.core.messages import ORDINARY, JobOptions
from nodeserver.core.retries import after_failures
from nodeserver.core.status import SETTLED
from nodeserver.io.driver import Seat
from nodeserver.worker.anyfunction import AnyFunction

FIRST_NODE_TIMEOUT = 2.0  # seconds that `map` waits to learn how many cpus there are
UNKNOWN_CPUS = 16  # what it plans for if no node has come by then


class Verbs(NodeVerbs, FileVerbs, MapVerbs):
    """The part of `JobCluster` that builds upon submitting and cancelling."""

    name: str
    _options: ClusterOptions
    _shell: ClusterShell
    _runtime: Runtime
    _seat: Seat
    _travels: ByValue
    _data: DataBook
    _computation: int
    _is_closed: bool

    def options(
        self, timeout: float | None = None, retries: int = 0, priority: int = 0
    ) -> ClusterView:
        """Return a view of the cluster; jobs submitted to it carry these options (Z05).

        Parameters
        ----------
        timeout : float, optional
            Seconds from its start that a job may take; then it is interrupted, terminated, killed,
            and ends `Terminated`: its `reason` and `exception` say so.
        retries : int
            How often, up to 1000, a job is run again that raised, died, was over its time or lost
            its node: it may run more than once.  With `reentrant`, lost nodes use up none.
        priority : int
            From -1000 to 1000; jobs of a higher one are handed out first, whatever came first.

        Raises
        ------
        UsageError
            One of them has a wrong value.
        """
        return ClusterView(self, checked(timeout, retries, priority))

    def share(self, value: Any) -> Shared:
        """Send a large value to each node once, to be an argument of many jobs (Z11).

        Large arrays that come again are recognised anyway, at the price of a comparison each time.
        Later changes of the value do not reach the jobs.

        Returns
        -------
        Shared
            To be given as an argument, or within one, to jobs of this cluster.  The value is
            forgotten when the last reference to this is gone and no job needs it.

        Raises
        ------
        PicklingFailed, ClusterClosed
            The value cannot travel; the cluster was closed.
        """
        self._check_open()
        return self._data.share(value, self._travels)

    def explain(self, job: DispyJob | None = None) -> str:
        """Say why jobs wait, node by node, in the scheduler's own words (Z06, D12)."""
        if job is not None:
            self._check_own(job)
        if job is not None and job.status in SETTLED:
            text = job.reason or job.exception
            return f'job {job.id}: {job.status.name.lower()}' + (f': {text}' if text else '')
        if self._is_closed:
            return f'{self.name}: the cluster is closed'
        lines = self._runtime.explain(self._computation)
        if job is not None:
            where = f'with node {job.ip_addr}' if job.node is not None else 'waiting for a cpu'
            if job.node is None and job.attempts:
                where += f' to be run again: {after_failures(job.attempts, job.reason)}'
            lines.insert(0, f'job {job.id}: {where}')
        return '\n'.join(lines)

    def print_status(self, wall_time: float | None = None) -> None:
        """Print what each node has done (C23)."""
        if wall_time is not None:
            check_timeout(wall_time, 'wall_time')
        print(status_table(self.snapshot(), wall_time))  # noqa: T201 - what it is for

    def stats(self) -> None:
        """Print what each node has done: the older name of `print_status` (C24)."""
        self.print_status()

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
            recover_file=None,
            dest_path=None,
            isolation='worker',
            name=f'{self.name} executor',
            allocations=list(self._shell.allocations),
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
        with ProgressLine(self, self._options.progress), waiting_for(self):
            return await idle(self._shell, seconds)

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait until all jobs have ended, while the event loop goes on."""
        return self.wait_async().__await__()

    def __reduce__(self) -> str:
        raise TypeError(
            f'cluster {self.name} is a handle of this program and cannot travel: '
            'jobs cannot submit jobs to it'
        )

    # what a cluster has

    def waiting(self) -> None:
        """Take note that somebody is about to wait."""
        raise NotImplementedError

    def _check_open(self) -> None:
        """Raise `ClusterClosed` if no job can be submitted."""
        raise NotImplementedError

    def _check_own(self, job: object) -> None:
        """Raise `UsageError` for what is no job of this cluster."""
        raise NotImplementedError

    def snapshot(self, jobs: int = 0) -> Snapshot:
        """Take a picture of the cluster's figures."""
        raise NotImplementedError

    @classmethod
    def _from_options(cls, options: ClusterOptions) -> Self:
        raise NotImplementedError

    def _submit_payload(
        self, node: str, payload: bytes, options: JobOptions = ORDINARY
    ) -> DispyJob:
        raise NotImplementedError

    # for the verbs

    def _cancel_all(self, jobs: Iterable[DispyJob]) -> None:
        """Take back those of the jobs that are pending."""
        numbers = [job._number for job in jobs if job._number in self._shell.jobs]
        if numbers:
            self._runtime.post(self._seat, CancelAsked(numbers))

    def _progress_line(self) -> ProgressLine:
        return ProgressLine(self, self._options.progress)

    def _target(self, known_cpus: bool, options: JobOptions = ORDINARY) -> Target:
        self.waiting()
        cpus = 0 if known_cpus else self._cpus()
        return Target(
            lambda payload: self._submit_payload('', payload, options),
            self._cancel_all,
            cpus,
            self._travels,
            self._check_columns,
        )

    def _cpus(self) -> int:
        """Jobs at a time to plan with; the first node is waited for, but not for long."""
        nodes = ready_nodes(self._shell, 1, FIRST_NODE_TIMEOUT)
        return sum(node.cpus // self._options.cpus for node in nodes) or UNKNOWN_CPUS

    def _check_columns(self, columns: Columns) -> None:
        if isinstance(self._options.computation, str):
            for column in columns:
                check_program_arguments(tuple(column), {})
