"""Whose turn it is on a node: computations share its cpus fairly, however long their jobs are."""

from collections.abc import Iterable, Sequence

from nodeserver.core.hosted import Hosted

PATIENCE = 30.0  # seconds after which a job with needs goes before all others
GPU_SECONDS = 10.0  # that a process is to have its gpus: the next one begins from nothing


class Turns:
    """Gives the next cpu to the computation with the fewest, among equals to the least served.

    Time is counted as in start-time fair queueing: one that had nothing to do for long begins
    where the others are, and does not catch up.
    """

    def __init__(self) -> None:
        self._now = 0.0  # `used_seconds` of the one that was served last

    def next_of(self, hungry: Sequence[Hosted]) -> Hosted:
        """Choose among computations that have a job to give out."""
        hosted = hungry[0] if len(hungry) == 1 else min(hungry, key=self._rank)
        self._now = hosted.used_seconds = max(hosted.used_seconds, self._now)
        return hosted

    def goes_before(self, waiting: Hosted, other: Hosted, now: float) -> bool:
        """Whether one whose next job needs more than is free should have what becomes free.

        It should if it was served less: each job of the other's that runs meanwhile brings that
        nearer.  Many new computations, each with a few jobs, would stay ahead of it for ever.
        """
        if now >= waiting.denied_at + PATIENCE:
            return True
        ahead = GPU_SECONDS if other.lasting and other.opened.resources.gpus else 0.0
        return self._used(waiting) + ahead <= self._used(other)

    def must_yield(self, hosted: Hosted, waiting: Iterable[Hosted]) -> bool:
        """Whether a computation should let a worker run dry for one of those that want a cpu."""
        busy, used = self._rank(hosted)
        return any(self._rank(other) < (busy - 1, used) for other in waiting if other is not hosted)

    def _rank(self, hosted: Hosted) -> tuple[int, float]:
        return hosted.busy, self._used(hosted)

    def _used(self, hosted: Hosted) -> float:
        return max(hosted.used_seconds, self._now)
