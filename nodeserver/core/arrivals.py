"""Jobs that come to a node, and the data they name: they wait until both are there.

RunJobs, ShareData ──▶ data.lacking ──▶ queue ──▶ (`Workplace` gives them out)
"""

from itertools import repeat
from typing import Any

from nodeserver.core.hosted import Hosted, HostedState, NodeJob
from nodeserver.core.messages import DropData, RunJobs, ShareData
from nodeserver.core.status import JobStatus

_NO_MEMORY = 'its node had no memory left for its arguments'


class Arrivals:
    """Puts jobs into the queues of their computations."""

    def __init__(self, hosted: dict[int, Hosted]) -> None:
        self._hosted = hosted

    def accept(self, hosted: Hosted, message: RunJobs) -> None:
        """Queue jobs, but for those that were told to stop before they came."""
        columns: list[list[Any]] = [message.ids, message.attempts, message.payloads]
        if message.timeouts:
            columns.append(message.timeouts)
        jobs = map(NodeJob, *columns)
        if not hosted.stopped_ahead and not message.shared and all(message.payloads):
            hosted.queue.extend(jobs)
            return
        for job, shared in zip(jobs, message.shared or repeat([]), strict=False):
            job.shared = shared
            if hosted.stopped_ahead.pop(job.id, None) == job.attempt:
                hosted.record(job, JobStatus.CANCELLED, reason='cancelled before it started')
            elif not shared or hosted.data.is_ready(job):
                self._enqueue(hosted, job)

    def _enqueue(self, hosted: Hosted, job: NodeJob) -> None:
        """Have a job wait for a cpu, unless the link had no memory for what belongs to it."""
        if job.payload and all(job.contents):  # no call is pickled to nothing, and no data are
            hosted.queue.append(job)
        else:
            hosted.record(job, JobStatus.TERMINATED, reason=_NO_MEMORY)

    def share(self, peer: str, message: ShareData, now: float) -> None:
        """Data came: the jobs that lacked them can be given out."""
        hosted = self._hosted.get(message.computation)
        if (
            hosted is not None
            and hosted.scheduler == peer
            and hosted.state is not HostedState.CLOSING
        ):
            for job in hosted.data.add(message.data, message.content):
                self._enqueue(hosted, job)

    def drop(self, peer: str, message: DropData, now: float) -> None:
        """No job names these data any more."""
        hosted = self._hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            hosted.data.drop(message.ids)
