"""How far ahead to hand out jobs: a job's likely length, and the depths that follow from it.

Short jobs are handed out ahead of need, so that no cpu idles during a round trip; long ones
never, so that none waits behind another while a cpu elsewhere is free.
"""

from math import ceil

AHEAD_SECONDS = 0.010  # work that a node holds beyond what runs, to cover the round trip
LONG_SECONDS = 0.200  # from here on a node gets only what it can run at once
MOST_PER_CPU = 512


class Pace:
    """The likely length of a computation's next job, held at its recent peak.

    A mean would put jobs behind long ones: the peak falls only by a tenth with each report.
    """

    __slots__ = ('_seconds',)

    def __init__(self) -> None:
        self._seconds = -1.0  # nothing known

    def learn(self, seconds: list[float]) -> None:
        """Take in the lengths of the jobs of one report."""
        if not seconds:
            return
        peak = max(seconds)
        if peak > self._seconds:
            self._seconds = peak
        else:
            self._seconds = 0.9 * self._seconds + 0.1 * peak

    def jobs_per_cpu(self) -> int:
        """How many jobs a node may hold for each cpu, the running one included."""
        if self._seconds < 0 or self._seconds > LONG_SECONDS:
            return 1
        return min(MOST_PER_CPU, 1 + ceil(AHEAD_SECONDS / max(self._seconds, 1e-6)))

    def jobs_per_worker(self) -> int:
        """How many jobs to put into the pipe of one lasting worker."""
        if self._seconds < 0 or self._seconds > 0.003:
            return 1
        return min(64, max(2, ceil(0.002 / max(self._seconds, 1e-6))))
