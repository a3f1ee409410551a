"""Where jobs come from that a cluster has not been given yet."""

from typing import Protocol


class Feeder(Protocol):
    """Gives a cluster its jobs little by little: while it has some left, that is not idle."""

    def is_busy(self) -> bool:
        """Whether a job is to come, or the end of one is not told yet."""

    def held_back(self) -> int:
        """How many jobs are to come."""

    def take_back(self) -> None:
        """Give none of them: the cluster cancels its jobs."""
