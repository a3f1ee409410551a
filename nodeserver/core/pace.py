"""How far ahead to hand out jobs: a job's likely length, and the depths that follow from it.

Short jobs are handed out ahead of need, so that no cpu idles during a round trip; long ones
never, so that none waits behind another while a cpu elsewhere is free.
"""

from math import ceil

AHEAD_SECONDS = 0.010  # work that a node holds beyond what runs, to cover the round trip
LONG_SECONDS = 0.200  # from here on a node gets only what it can run at once
MOST_PER_CPU = 512
RECALL_SECONDS = 0.003
PIPE_SECONDS = 0.004  # work that a lasting worker holds beyond what runs
MOST_PER_WORKER = 256


class Pace:
    """The likely length of a computation's next job, held at its recent peak, and its mean.

    A mean alone would put jobs behind long ones: the peak falls only by a tenth with each report.
    """

    __slots__ = ('_mean', '_seconds')

    def __init__(self) -> None:
        self._seconds = -1.0  # nothing known
        self._mean = -1.0

    def learn(self, seconds: list[float]) -> None:
        """Take in the lengths of the jobs of one report."""
        if not seconds:
            return
        peak = max(seconds)
        if peak > self._seconds:
            self._seconds = peak
        else:
            self._seconds = 0.9 * self._seconds + 0.1 * peak
        mean = sum(seconds) / len(seconds)
        self._mean = mean if self._mean < 0 else 0.7 * self._mean + 0.3 * mean

    def jobs_per_cpu(self) -> int:
        """How many jobs a node may hold for each cpu, the running one included."""
        if self._seconds < 0 or self._seconds > LONG_SECONDS:
            return 1
        return min(MOST_PER_CPU, 1 + ceil(AHEAD_SECONDS / max(self._seconds, 1e-6)))

    def is_short(self, jobs: int) -> bool:
        """Whether so many jobs will hardly take longer than it takes to call them back."""
        return 0 <= self._mean * jobs < RECALL_SECONDS

    def jobs_per_worker(self) -> int:
        """How many jobs to put into the pipe of one lasting worker.

        By the mean: what waits there behind a job that turns out long can be taken back.
        """
        if self._mean < 0 or self._mean > LONG_SECONDS:
            return 1
        return min(MOST_PER_WORKER, max(2, ceil(PIPE_SECONDS / max(self._mean, 1e-6))))
