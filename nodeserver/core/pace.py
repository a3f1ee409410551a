"""How far ahead to hand out jobs: a job's likely length, and the depths that follow from it.

Short jobs are handed out ahead of need, so that no cpu idles during a round trip; long ones
never, so that none waits behind another while a cpu elsewhere is free.
"""

from math import ceil

AHEAD_SECONDS = 0.010  # work that a node holds beyond what runs, to cover the round trip
LONG_SECONDS = 0.200  # from here on a node gets only what it can run at once
MOST_PER_CPU = 1024
RECALL_SECONDS = 0.003
PIPE_SECONDS = 0.004  # work that a lasting worker holds beyond what runs
MOST_PER_WORKER = 512
MOST_USED = 1e12  # seconds: a process may report nonsense, of which no sum is to be infinite
_MOST_ABOVE = 4  # times the typical length that a peak counts as, at most


class Pace:
    """How long a computation's jobs take: their typical length, and their recent peak.

    The typical length alone would put jobs behind long ones: the peak falls only by a tenth with
    each report.  The peak alone would make one job of many, which the system has kept waiting for
    a cpu, empty all queues.
    """

    __slots__ = ('_peak', '_per_cpu', '_typical', 'used_seconds')

    def __init__(self) -> None:
        self._peak = -1.0  # nothing known
        self._typical = -1.0
        self._per_cpu = 1  # 0: to be found out anew
        self.used_seconds = 0.0  # by all jobs

    def learn(self, seconds: list[float]) -> None:
        """Take in the lengths of the jobs of one report."""
        if not seconds:
            return
        peak = middle = used = seconds[0]
        if len(seconds) > 1:
            peak, middle, used = max(seconds), sorted(seconds)[len(seconds) // 2], sum(seconds)
        self.used_seconds = min(MOST_USED, self.used_seconds + used)
        self._peak = peak if peak > self._peak else 0.9 * self._peak + 0.1 * peak
        known = self._typical >= 0
        self._typical = 0.7 * self._typical + 0.3 * middle if known else middle
        self._per_cpu = 0

    def jobs_per_cpu(self) -> int:
        """How many jobs a node may hold for each cpu, the running one included."""
        if not self._per_cpu:  # it is asked for more often than it changes
            self._per_cpu = self._depth()
        return self._per_cpu

    def _depth(self) -> int:
        likely = min(self._peak, _MOST_ABOVE * self._typical)
        if likely > LONG_SECONDS:
            return 1
        return min(MOST_PER_CPU, 1 + ceil(AHEAD_SECONDS / max(likely, 1e-6)))

    def is_short(self, jobs: int) -> bool:
        """Whether so many jobs will hardly take longer than it takes to call them back."""
        return 0 <= self._typical * jobs < RECALL_SECONDS

    def is_between(self, shortest: float, longest: float) -> bool:
        """Whether jobs are known to take at least, and less than, so many seconds."""
        return shortest <= self._typical < longest

    def jobs_per_worker(self) -> int:
        """How many jobs to put into the pipe of one lasting worker.

        What waits there behind a job that turns out long can be taken back.
        """
        if self._typical < 0 or self._typical > LONG_SECONDS:
            return 1
        return min(MOST_PER_WORKER, max(2, ceil(PIPE_SECONDS / max(self._typical, 1e-6))))
