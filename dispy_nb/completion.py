"""Waiting for many things without a thread for each: jobs as they end, a cluster to be idle."""

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

from dispy_nb.awaiting import wakeable
from dispy_nb.interrupts import waiting_for
from dispy_nb.job import DispyJob, JobView, check_timeout
from dispy_nb.nodes import DispyNode
from dispy_nb.shell import BLOCKED_CALLBACK_SECONDS, ClusterShell
from dispy_nb.slices import slices
from nodeserver.core.errors import UsageError


class AsCompleted:
    """Yields jobs as they end, to `for` and to `async for`; `len()` counts those to come.

    Jobs can be of several clusters; one that is given twice is yielded once; those that have
    ended already come first.  Several threads or tasks may take from it: each job goes to one.

    Parameters
    ----------
    jobs : iterable of DispyJob
        What to wait for.
    timeout : float, optional
        Seconds from now on after which `TimeoutError` is raised instead of the next job.

    Raises
    ------
    UsageError
        `jobs` has something that is no job.
    """

    def __init__(self, jobs: Iterable[DispyJob], timeout: float | None = None) -> None:
        wanted = dict.fromkeys(_checked(jobs))
        seconds = None if timeout is None else check_timeout(timeout)
        self._deadline = None if seconds is None else time.monotonic() + seconds
        # None at last: whoever waits yet has nothing to wait for, and passes it on
        self._ended: queue.SimpleQueue[DispyJob | None] = queue.SimpleQueue()
        self._wakes: set[Callable[[], object]] = set()  # of the event loops that wait
        self._waiters: dict[DispyJob, Callable[[], None]] = {
            job: partial(self._note, job) for job in wanted
        }
        pending = [job for job, wake in self._waiters.items() if not self._watch(job, wake)]
        for job in pending:
            job._cluster.waiting()

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DispyJob:
        if not self._waiters:
            raise StopIteration
        with waiting_for(self._some_cluster()):
            job = self._next_ended()
        if job is None:
            raise StopIteration
        return job

    def _next_ended(self) -> DispyJob | None:
        for part in slices(self._left()):
            with contextlib.suppress(queue.Empty):
                return self._taken(self._ended.get(timeout=part))
        raise self._late()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DispyJob:
        while self._waiters:
            with contextlib.suppress(queue.Empty):
                job = self._taken(self._ended.get_nowait())
                if job is None:
                    break
                return job
            left = self._left()
            if left is not None and left <= 0:
                raise self._late()
            await self._next_end(left)
        raise StopAsyncIteration

    def close(self) -> None:
        """Wait no longer: the jobs forget about this."""
        for job, wake in self._waiters.items():
            job._drop_waiter(wake)
        self._waiters.clear()
        self._finish()

    async def _next_end(self, timeout: float | None) -> None:
        with waiting_for(self._some_cluster()), wakeable() as (ended, wake):
            self._wakes.add(wake)
            try:
                if self._ended.empty():  # else the end came before there was somebody to wake
                    await asyncio.wait({ended}, timeout=timeout)
            finally:
                self._wakes.discard(wake)

    def _some_cluster(self) -> Any:
        """One whose jobs are waited for, if there are any left."""
        for job in tuple(self._waiters):
            return job._cluster
        return None

    def _watch(self, job: DispyJob, wake: Callable[[], None]) -> bool:
        """Have the job's end noted; True if it has ended already."""
        if job._add_waiter(wake):
            return False
        self._ended.put(job)
        return True

    def _note(self, job: DispyJob | None) -> None:
        self._ended.put(job)
        for wake in tuple(self._wakes):
            wake()

    def _taken(self, job: DispyJob | None) -> DispyJob | None:
        """Count what was taken; None where others, or `close`, have left nothing."""
        known = job is not None and self._waiters.pop(job, None) is not None
        if not self._waiters:
            self._finish()
        return job if known else None

    def _finish(self) -> None:
        self._note(None)

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _late(self) -> TimeoutError:
        return TimeoutError(f'{len(self)} jobs have not ended in time')


def as_completed(jobs: Iterable[DispyJob], timeout: float | None = None) -> AsCompleted:
    """Yield jobs, of any clusters, as they end; see `AsCompleted`."""
    return AsCompleted(jobs, timeout)


def _checked(jobs: Iterable[DispyJob]) -> Iterable[DispyJob]:
    if not isinstance(jobs, Iterable):
        raise UsageError(f'jobs must be a list of jobs, not {jobs!r}')
    for job in jobs:
        if not isinstance(job, DispyJob):
            raise UsageError(f'jobs must be what submit() returned, not {job!r}')
        yield job._origin if isinstance(job, JobView) else job


async def idle(shell: ClusterShell, timeout: float | None) -> bool:
    """Wait until every job of a cluster has ended and its callbacks have run."""
    deadline = None if timeout is None else time.monotonic() + timeout
    told = False
    while not shell.is_idle():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        with wakeable() as (ended, wake):
            shell.idle_watchers.add(wake)
            try:
                if not shell.is_idle():
                    await asyncio.wait({ended}, timeout=_slice(left))
            finally:
                shell.idle_watchers.discard(wake)
        if not told and not shell.jobs and not shell.is_idle():
            told = shell.name_blocked_callback()
    return True


def ready_nodes(shell: ClusterShell, count: int, timeout: float | None) -> list[DispyNode]:
    """Wait for so many nodes that can run jobs, or the cluster's end; answer with all there are."""

    def ready() -> list[DispyNode]:
        return [node for node in tuple(shell.nodes.values()) if not node.closed and node.cpus]

    def are_there() -> bool:
        return shell.closed.is_set() or len(ready()) >= count

    with shell.nodes_changed:
        any(shell.nodes_changed.wait_for(are_there, part) for part in slices(timeout))
        return ready()


def _slice(left: float | None) -> float:
    return BLOCKED_CALLBACK_SECONDS if left is None else min(left, BLOCKED_CALLBACK_SECONDS)
