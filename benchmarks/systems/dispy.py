"""dispy-nb, in both isolations: one node with two cpus on this machine."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import dispy_nb
from benchmarks.systems.base import WORKERS, Session, System, UnsupportedError


class DispySession(Session):
    """A cluster."""

    def __init__(self, cluster: dispy_nb.JobCluster | dispy_nb.SharedJobCluster) -> None:
        self._cluster = cluster

    def submit(self, *args: Any) -> Any:
        """Submit a job."""
        return self._cluster.submit(*args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a job."""
        if not handle.wait(timeout):
            raise TimeoutError(handle.explain())
        if handle.status != dispy_nb.DispyJob.Finished:
            raise RuntimeError(handle.exception or handle.reason)
        return handle.result

    def results(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Submit jobs, wait for the cluster, and look at each."""
        jobs = [self._cluster.submit(*row) for row in rows]
        self._cluster.wait()
        return [self.result(job) for job in jobs]

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Use `JobCluster.map`."""
        bulk = getattr(self._cluster, 'map', None)
        if bulk is None:
            raise UnsupportedError('this version has no JobCluster.map')
        return list(bulk(values))

    def share(self, value: Any) -> Any:
        """Use `JobCluster.share`."""
        place = getattr(self._cluster, 'share', None)
        if place is None:
            raise UnsupportedError('this version has no JobCluster.share')
        return place(value)


class Dispy(System):
    """A node, and clusters on it."""

    def __init__(self, isolation: str) -> None:
        self._isolation = isolation

    def start(self) -> None:
        """Start a node."""
        self._local = dispy_nb.LocalNodes(1, cpus=WORKERS)

    def stop(self) -> None:
        """End it."""
        self._local.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of nodes."""
        return self._local.pids

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Where the node listens."""
        return self._local.nodes

    @contextmanager
    def open(self, function: Callable[..., Any], **options: Any) -> Iterator[Session]:
        """Make a cluster."""
        with dispy_nb.JobCluster(
            function,
            nodes=self.nodes,
            ip_addr='127.0.0.1',
            isolation=self._isolation,
            progress=False,
            **options,
        ) as cluster:
            yield DispySession(cluster)


SYSTEMS = {'dispy-worker': partial(Dispy, 'worker'), 'dispy-job': partial(Dispy, 'job')}
