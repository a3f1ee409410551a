"""joblib's calls on the nodes of a cluster: `joblib.parallel_config(backend='dispy')` (Z04)."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from dispy_nb.executor import Executor, check_names
from dispy_nb.futures import ClusterExecutor
from nodeserver.core.errors import UsageError

NODES_TIMEOUT = 10.0  # seconds that nodes are waited for


class DispyBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs batches of joblib's calls as jobs; calls nested in them run in threads of the job.

    The nodes are taken by the first parallel call, and released when the backend is not used
    any more: at the end of the `with` block of `joblib.parallel_config`, or with the
    `joblib.Parallel` that made it.

    Parameters
    ----------
    executor : ClusterExecutor, optional
        Use this one, and leave it open.
    wait_for_nodes_timeout : float
        Seconds to wait for the first node.
    **options
        Parameters of `dispy_nb.Executor`, such as `nodes` and `secret`.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        executor: ClusterExecutor | None = None,
        wait_for_nodes_timeout: float = NODES_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if executor is not None and (options or not isinstance(executor, ClusterExecutor)):
            raise UsageError(
                f'executor must be an executor of dispy_nb, without other options, not {executor!r}'
            )
        check_names(options)  # the executor is made when it is needed, which may be much later
        self._parallel: Callable[[], Any] = lambda: None
        self._executor = executor
        self._options = options
        self._nodes_timeout = wait_for_nodes_timeout
        self._futures: set[Future[Any]] = set()

    @property
    def parallel(self) -> Any:
        """The `joblib.Parallel` that uses this now: held weakly, since that one holds this."""
        return self._parallel()

    @parallel.setter
    def parallel(self, parallel: Any) -> None:
        self._parallel = weakref.ref(parallel)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls can run at a time: -1 means all cpus of the nodes."""
        if n_jobs == 0:
            raise ValueError('n_jobs == 0 in Parallel has no meaning')
        if n_jobs is None or n_jobs == 1:
            return 1
        if n_jobs > 1:
            return n_jobs
        cluster = self._open().cluster
        nodes = cluster.wait_for_nodes(1, self._nodes_timeout)
        # joblib takes 1 to mean that all is to run here
        calls: int = sum(node.cpus // cluster._options.cpus for node in nodes)
        return max(2, calls + 1 + n_jobs)

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None
    ) -> Future[Any]:
        """Run a batch of calls."""
        future = self._open()._submit_batch(func, _parts_of(func))
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return what a batch gave, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all batches, those that run as well."""
        for future in list(self._futures):
            future.cancel()

    def terminate(self) -> None:
        """End a parallel call: the nodes stay for the next one."""
        self.reset_batch_stats()

    def _open(self) -> ClusterExecutor:
        if self._executor is None:
            self._executor = Executor(**self._options)
            end = weakref.finalize(self, self._executor.shutdown, wait=False)
            end.atexit = False  # the program's end closes all clusters
        return self._executor


def _parts_of(batch: Any) -> list[Any]:
    """The functions and arguments of a batch."""
    return [
        part
        for function, args, kwargs in batch.items
        for part in (function, *args, *kwargs.values())
    ]
