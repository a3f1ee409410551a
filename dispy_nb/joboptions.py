"""`cluster.options(...)`: jobs with a time limit, with further tries, or ahead of others."""

import math
from contextlib import AbstractContextManager
from types import EllipsisType
from typing import Any, Self

from dispy_nb.job import DispyJob
from dispy_nb.mapping import Target
from dispy_nb.mapverbs import MapVerbs
from dispy_nb.nodes import DispyNode
from nodeserver.core.errors import UsageError
from nodeserver.core.messages import JobOptions

MOST_RETRIES = 1000
HIGHEST_PRIORITY = 1000


def checked(timeout: float | None, retries: int, priority: int) -> JobOptions:
    """Gather the options of jobs, or say which of them has a wrong value."""
    if timeout is not None:
        _check_timeout(timeout)
    _check_number('retries', retries, 0, MOST_RETRIES)
    _check_number('priority', priority, -HIGHEST_PRIORITY, HIGHEST_PRIORITY)
    return JobOptions(float(timeout or 0), retries, priority)


def _check_timeout(value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise UsageError(
            f'timeout must be a number of seconds above 0, or None for no limit, not {value!r}'
        )


def _check_number(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f'{name} must be a whole number from {least} to {most}, not {value!r}')


class ClusterView(MapVerbs):
    """A cluster whose jobs carry options: what `JobCluster.options` returns.

    It has no jobs and no life of its own: whatever is not here is the cluster's.  With `map` and
    `imap` a job is a chunk of calls, and a timeout is a chunk's: unless `chunksize` is given, each
    call is a job of its own where there is a timeout.

    Attributes
    ----------
    cluster : JobCluster
        The cluster that its jobs belong to.
    timeout : float or None
        Seconds that a job may take.
    retries : int
        How often a job that failed is run again.
    priority : int
        Jobs of a higher one go first.
    """

    def __init__(self, cluster: Any, options: JobOptions) -> None:
        self.cluster = cluster
        self._options = options

    @property
    def timeout(self) -> float | None:
        """Seconds that a job may take; None: as many as it likes."""
        return self._options.timeout or None

    @property
    def retries(self) -> int:
        """How often a job that failed is run again."""
        return self._options.retries

    @property
    def priority(self) -> int:
        """Jobs of a higher one go first."""
        return self._options.priority

    def submit(self, /, *args: Any, **kwargs: Any) -> DispyJob:
        """Submit a job with these options; otherwise as `JobCluster.submit`."""
        return self._submit('', args, kwargs)

    def submit_node(self, /, node: DispyNode | str, *args: Any, **kwargs: Any) -> DispyJob:
        """Submit a job with these options for one node; otherwise as `JobCluster.submit_node`."""
        return self._submit(self.cluster._pin(node), args, kwargs)

    def options(
        self,
        timeout: float | EllipsisType | None = ...,
        retries: int | EllipsisType = ...,
        priority: int | EllipsisType = ...,
    ) -> Self:
        """Return a view with some options changed; those that are not given stay as they are.

        Parameters and errors are those of `JobCluster.options`.
        """
        options = checked(
            self.timeout if isinstance(timeout, EllipsisType) else timeout,
            self.retries if isinstance(retries, EllipsisType) else retries,
            self.priority if isinstance(priority, EllipsisType) else priority,
        )
        return type(self)(self.cluster, options)

    def _submit(self, node: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DispyJob:
        job: DispyJob = self.cluster._submit(node, args, kwargs, self._options)
        return job

    def _chunksize(self, given: int | None) -> int | None:
        return 1 if given is None and self.timeout is not None else given

    def _target(self, known_cpus: bool) -> Target:
        target: Target = self.cluster._target(known_cpus, self._options)
        return target

    def _progress_line(self) -> AbstractContextManager[object]:
        line: AbstractContextManager[object] = self.cluster._progress_line()
        return line

    def __repr__(self) -> str:
        values = f'timeout={self.timeout}, retries={self.retries}, priority={self.priority}'
        return f'<{type(self).__name__} of {self.cluster.name}: {values}>'
