"""How fast jobs end, and how long those that are left may take: a range, from what was seen."""

from math import sqrt

BUCKETS = 32  # at least half of them are in use, once there was enough time
FIRST_WIDTH = 0.25  # seconds
LEAST_ENDED = 10  # jobs; of fewer nothing can be said
LEAST_BUCKETS = 4
_DEVIATIONS = 2.0  # about 95 of 100 cases, were it all by chance


class Throughput:
    """Counts of ended jobs in equal lengths of time, which double whenever there are too many."""

    __slots__ = ('_began', '_counts', '_ended', '_width')

    def __init__(self) -> None:
        self._began = 0.0
        self._width = FIRST_WIDTH
        self._counts: list[int] = []
        self._ended = 0

    def add(self, count: int, now: float) -> None:
        """So many jobs have ended."""
        if not self._counts:
            self._began = now - FIRST_WIDTH / 2
        self._ended += count
        self._fill(now)
        self._counts[-1] += count

    def restart(self) -> None:
        """Begin anew: what was before says nothing of what comes, as after a pause."""
        self._counts, self._width, self._ended = [], FIRST_WIDTH, 0

    def remaining(self, pending: int, now: float) -> tuple[float, float] | None:
        """Return the least and the most seconds that so many jobs may take; None if unknown.

        The rate is that of the latter half of the time so far, and its uncertainty what the
        counts there show, chance included.  `inf` as the most: it may be any time.
        """
        if self._ended < LEAST_ENDED or not pending:
            return None
        whole = max(0, int((now - self._began) / self._width))
        counts = (self._counts + [0] * max(0, whole - len(self._counts)))[:whole]
        counts = counts[len(counts) // 2 :]
        if len(counts) < LEAST_BUCKETS:
            return None
        mean = sum(counts) / len(counts)
        variance = sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)
        spread = _DEVIATIONS * sqrt(max(variance, mean) / len(counts))
        slow, fast = (mean - spread) / self._width, (mean + spread) / self._width
        if not fast:
            return None
        return pending / fast, pending / slow if slow > 0 else float('inf')

    def _fill(self, now: float) -> None:
        """Have a count for this moment."""
        while (now - self._began) / self._width >= BUCKETS:
            pairs = [*self._counts, 0] if len(self._counts) % 2 else self._counts
            self._counts = [sum(pairs[at : at + 2]) for at in range(0, len(pairs), 2)]
            self._width *= 2
        wanted = max(0, int((now - self._began) / self._width)) + 1
        self._counts += [0] * (wanted - len(self._counts))
