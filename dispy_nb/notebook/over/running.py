"""A run of a cell's body over values: its jobs, its results in order, and what failed."""

import logging
import sys
import threading
from collections.abc import Generator, Sequence
from typing import Any

from dispy_nb.cluster import Cluster
from dispy_nb.failures import failure_of
from dispy_nb.job import DispyJob
from dispy_nb.notebook.magics.errors import show_as
from dispy_nb.shortened import call_text
from nodeserver.core.errors import DispyError, JobFailed
from nodeserver.core.status import SETTLED, JobStatus

MOST_PRINTED = 64 * 1024  # characters of what the runs have printed
_log = logging.getLogger('dispy_nb')

Values = dict[str, Any]  # of one run, by name


class RunsFailed(DispyError, RuntimeError):  # noqa: N818 - reads as a sentence
    """Some runs of a cell failed, and all others have finished.

    Attributes
    ----------
    results : list
        The values of the runs, in order, with exceptions in the places of those that failed.
    failures : list of (dict, BaseException)
        The values over which runs failed, and what they raised.
    """

    def __init__(self, text: str, results: list[Any], failures: list[tuple[Values, Any]]) -> None:
        super().__init__(text)
        self.results, self.failures = results, failures


class OverRun:
    """What `%%dispy --over ... --noblock` gives: the runs of a cell's body, a job for each.

    Its cluster closes itself once all of them have ended.

    Attributes
    ----------
    jobs : list of DispyJob
        In the order of the values.
    values : list of dict
        The values of each run, by name.
    cluster : JobCluster
        Where they run.
    """

    def __init__(self, cluster: Cluster, values: Sequence[Values]) -> None:
        self.cluster = cluster
        self.values = list(values)
        self.jobs: list[DispyJob] = []

    def submit(self) -> None:
        """Submit a job for each run."""
        for values in self.values[len(self.jobs) :]:
            self.jobs.append(self.cluster.submit(**values))

    def results(self, timeout: float | None = None) -> list[Any]:
        """Wait for the values of the last expression, and return them in order.

        Raises
        ------
        RunsFailed
            Some have failed; its `results` has the values of the others.
        TimeoutError
            Some run still, after `timeout` seconds.
        """
        if not self.cluster.wait(timeout):
            raise TimeoutError(f'{self.pending} of {len(self)} runs have not ended')
        return self._checked()

    def __await__(self) -> Generator[Any, None, list[Any]]:
        yield from self.cluster.wait_async().__await__()
        return self._checked()

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self.cluster._cancel_all(self.jobs)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        states = [job.status for job in self.jobs]
        finished = states.count(JobStatus.FINISHED)
        cancelled = states.count(JobStatus.CANCELLED)
        failed = len(states) - self.pending - finished - cancelled
        return (
            f'<OverRun {self.cluster.name}: {len(self)} runs, {self.pending} pending, '
            f'{finished} finished, {failed} failed, {cancelled} cancelled>'
        )

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return sum(job.status not in SETTLED for job in self.jobs)

    # for the magic

    def close_at_the_end(self) -> None:
        """Have the cluster close itself; nobody waits for that."""
        threading.Thread(target=self._close, name='dispy-over', daemon=True).start()

    def _close(self) -> None:
        try:
            self.cluster.close()
        except Exception:  # noqa: BLE001 - the edge of a thread
            _log.exception('%s could not be closed', self.cluster.name)

    def outcomes(self) -> list[Any]:
        """Return results, and exceptions in the places of those that have none."""
        return [self._outcome(job) for job in self.jobs] + [
            JobFailed('cancelled', 'cancelled: it was not submitted', place)
            for place in range(len(self.jobs), len(self))
        ]

    def _outcome(self, job: DispyJob) -> Any:
        if job.status not in SETTLED:
            return JobFailed('abandoned', 'it has not ended')
        error = failure_of(job)
        return job.result if error is None else error

    def _checked(self) -> list[Any]:
        """Return all results, or raise what says which failed."""
        outcomes = self.outcomes()
        places = [place for place, job in enumerate(self.jobs) if failure_of(job) is not None]
        if not places:
            return outcomes
        failures = [(self.values[place], outcomes[place]) for place in places]
        first = self.jobs[places[0]]
        text = (
            f'{len(places)} of {_runs(len(self))} failed, the first with '
            f'{call_text((), self.values[places[0]])}:\n'
            f'{first.exception or first.reason}'
        )
        error = RunsFailed(text, outcomes, failures)
        show_as(error, f'RunsFailed: {text}')
        raise error

    def print_outputs(self) -> None:
        """Print what the runs have printed, in their order and up to a limit."""
        left = MOST_PRINTED
        for stream, name in ((sys.stdout, 'stdout'), (sys.stderr, 'stderr')):
            for job in self.jobs:
                text = getattr(job, name) if job.status in SETTLED else ''
                if text and left > 0:
                    stream.write(text[:left])
                    left -= len(text)
        if left < 0:
            print('\nmore was printed: `job.stdout` of each job has it')


def _runs(count: int) -> str:
    return '1 run' if count == 1 else f'{count} runs'
