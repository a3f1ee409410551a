"""What a scheduler wants of jobs that are on a node: fewer at once, some back, some ended."""

from collections.abc import Callable
from functools import partial
from typing import Any

from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleetmessages import LimitCpus
from nodeserver.core.hosted import Hosted, limit_cpus
from nodeserver.core.messages import JobsReturned, RecallJobs, StopJobs
from nodeserver.core.workplace import Workplace


class JobOrders:
    """Follows the scheduler that holds a computation, and nobody else."""

    def __init__(
        self, hosted: dict[int, Hosted], workplace: Workplace, emit: Callable[[Effect], None]
    ) -> None:
        self._hosted = hosted
        self._workplace = workplace
        self._emit = emit
        self.messages: dict[type[Any], Callable[[str, Any, float], None]] = {
            StopJobs: self._stop,
            RecallJobs: self._recall,
            LimitCpus: partial(limit_cpus, hosted),
        }

    def _recall(self, peer: str, message: RecallJobs, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer:
            self._emit(Send(peer, JobsReturned(message.computation, [], [], '')))
        else:
            self._workplace.recall(hosted, message.count)

    def _stop(self, peer: str, message: StopJobs, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer:
            return
        for job, attempt in zip(message.ids, message.attempts, strict=True):
            self._workplace.stop(hosted, job, attempt, now)
