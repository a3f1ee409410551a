"""What happens to a node as a whole: its clock, and the wishes of whoever runs it."""

from nodeserver.core.values import value


@value
class ClockRead:
    """The clock on the wall shows this second of the day; read often enough, as people set it."""

    second: float


@value
class CpusChosen:
    """So many cpus are to be offered from now on."""

    cpus: int


@value
class PauseAsked:
    """The node is to take no jobs until further notice, or (`ends`) to take them again."""

    ends: bool = False


@value
class ReleaseAsked:
    """The client that holds the node is to lose it once its running jobs have ended."""


@value
class OwnerGone:
    """The program that started this node for itself has ended."""
