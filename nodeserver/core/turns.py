"""Whose turn it is on a node: computations share its cpus fairly, however long their jobs are."""

from collections.abc import Iterable, Sequence

from nodeserver.core.hosted import Hosted


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

    def must_yield(self, hosted: Hosted, waiting: Iterable[Hosted]) -> bool:
        """Whether a computation should let a worker run dry for one of those that want a cpu."""
        busy, used = self._rank(hosted)
        return any(self._rank(other) < (busy - 1, used) for other in waiting if other is not hosted)

    def _rank(self, hosted: Hosted) -> tuple[int, float]:
        return hosted.busy, max(hosted.used_seconds, self._now)
