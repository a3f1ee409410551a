"""Jobs that a node has just sent back unrun: their scheduler may have died before it knew.

Without this the next scheduler would miss them here, and take them for lost.
"""

from collections.abc import Iterable

from nodeserver.core.nodejob import NodeJob

SECONDS = 5.0  # who has said something so long afterwards, twice, knows of them


class GivenBack:
    """The jobs of one computation that its scheduler was sent of late."""

    __slots__ = ('_before', '_next_at', '_recent')

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}  # job -> attempt
        self._before: dict[int, int] = {}
        self._next_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._recent or self._before)

    def add(self, jobs: Iterable[NodeJob]) -> None:
        """These go to the scheduler, and will not run here."""
        jobs = list(jobs)
        self.remember([job.id for job in jobs], [job.attempt for job in jobs])

    def remember(self, ids: Iterable[int], attempts: Iterable[int]) -> None:
        """These go back, and never were here."""
        if not self:
            self._next_at = 0.0
        self._recent.update(zip(ids, attempts, strict=True))

    def came_again(self, ids: Iterable[int]) -> None:
        """The scheduler knows of these: it has sent them here again."""
        for job in ids:
            self._recent.pop(job, None)
            self._before.pop(job, None)

    def heard(self, now: float) -> None:
        """The scheduler has said something at this time: it lived then."""
        if not self._next_at:
            self._next_at = now + SECONDS
        elif now >= self._next_at:
            self._before, self._recent = self._recent, {}
            self._next_at = now + SECONDS

    def take(self) -> dict[int, int]:
        """The scheduler is gone: all that it may not know of."""
        taken = self._before | self._recent
        self._before, self._recent = {}, {}
        return taken
