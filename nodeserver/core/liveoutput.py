"""A node's part in showing what running jobs print: which jobs it is of, and when more may come.

JobsPrinted ──▶ JobsOutput ──▶ scheduler ... OutputTaken ──▶ ReadOutput ──▶ JobsPrinted
"""

from collections.abc import Callable

from nodeserver.core.effects import Effect, ReadOutput, Send
from nodeserver.core.events import JobsPrinted
from nodeserver.core.hosted import Hosted, NodeJob
from nodeserver.core.outputmessages import JobsOutput, OutputTaken


class LiveOutput:
    """Sends on what running jobs print; the processes are read again once that was taken."""

    def __init__(
        self, node: str, hosted: dict[int, Hosted], emit: Callable[[Effect], None]
    ) -> None:
        self._node = node
        self._hosted = hosted
        self._emit = emit

    def printed(self, event: JobsPrinted, now: float) -> None:
        """Send what jobs have printed that still run."""
        hosted = self._hosted.get(event.computation)
        if hosted is None or hosted.orphaned:
            return
        output = JobsOutput(hosted.id, self._node, [], [], [], [], [])
        rows = zip(
            event.workers, event.numbers, event.streams, event.starts, event.texts, strict=True
        )
        for worker, number, stream, start, text in rows:
            job = _running(hosted, worker, number)
            if job is not None:
                output.ids.append(job.id)
                output.attempts.append(job.attempt)
                output.streams.append(stream)
                output.starts.append(start)
                output.texts.append(text)
        if output.ids:
            self._emit(Send(hosted.scheduler, output))
        else:
            self._emit(ReadOutput(hosted.id))

    def taken(self, peer: str, message: OutputTaken, now: float) -> None:
        """The client has room for more."""
        hosted = self._hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            self._emit(ReadOutput(hosted.id))


def _running(hosted: Hosted, worker_id: int, number: int) -> NodeJob | None:
    """The job that a worker is in, if that is the one of this number."""
    worker = hosted.workers.get(worker_id)
    job = worker.held[0] if worker is not None and worker.held else None
    return job if job is not None and job.number == number else None
