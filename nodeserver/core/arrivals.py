"""Jobs that come to a node, and what they need: they wait until their data and files are there.

RunJobs, ShareData, FilesPlaced ──▶ data.lacking ──▶ queue ──▶ (`Workplace` gives them out)
"""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from nodeserver.core.hosted import Hosted, HostedState, NodeJob
from nodeserver.core.messages import DropData, RunJobs, ShareData
from nodeserver.core.status import JobStatus

_NO_MEMORY = 'its node had no memory left for its arguments'


class Arrivals:
    """Puts jobs into the queues of their computations."""

    def __init__(
        self,
        hosted: dict[int, Hosted],
        place_files: Callable[[Hosted, NodeJob, bytes], None],
    ) -> None:
        self._hosted = hosted
        self._place_files = place_files

    def accept(self, hosted: Hosted, message: RunJobs) -> None:
        """Queue jobs, but for those that were told to stop before they came."""
        if hosted.given_back:
            hosted.given_back.came_again(message.ids)
        columns: list[list[Any]] = [message.ids, message.attempts, message.payloads]
        if message.timeouts:
            columns.append(message.timeouts)
        jobs = map(NodeJob, *columns)
        has_needs = message.shared or message.manifests
        if not hosted.stopped_ahead and not has_needs and all(message.payloads):
            hosted.queue.extend(jobs)
            return
        data: Iterable[list[int]] = message.shared or repeat([])
        manifests: Iterable[bytes] = message.manifests or repeat(b'')
        rows = zip(jobs, data, manifests, strict=False)  # the last two may have no end
        for job, shared, manifest in rows:
            job.shared = shared
            if hosted.stopped_ahead.pop(job.id, None) == job.attempt:
                hosted.record(job, JobStatus.CANCELLED, reason='cancelled before it started')
                continue
            if manifest:
                self._place_files(hosted, job, manifest)
            if hosted.data.is_ready(job):
                enqueue(hosted, job)

    def share(self, peer: str, message: ShareData, now: float) -> None:
        """Data came: the jobs that lacked them can be given out."""
        hosted = self._hosted.get(message.computation)
        if (
            hosted is not None
            and hosted.scheduler == peer
            and hosted.state is not HostedState.CLOSING
        ):
            for job in hosted.data.add(message.data, message.content):
                enqueue(hosted, job)

    def drop(self, peer: str, message: DropData, now: float) -> None:
        """No job names these data any more."""
        hosted = self._hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            hosted.data.drop(message.ids)


def enqueue(hosted: Hosted, job: NodeJob) -> None:
    """Have a job wait for a cpu, unless the link had no memory for what belongs to it."""
    if job.payload and all(job.contents):  # no call is pickled to nothing, and no data are
        hosted.queue.append(job)
    else:
        hosted.record(job, JobStatus.TERMINATED, reason=_NO_MEMORY)
