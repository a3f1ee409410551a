"""What happens to a node as a whole: its clock, and the wishes of whoever runs it."""

from nodeserver.core.messages import OpenComputation
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


@value
class KeptFound:
    """The spool holds letters of a computation, which an earlier run of this node has kept.

    Parallel columns: numbers of the letters, and how many jobs each is of.
    """

    opened: OpenComputation  # as it was kept
    letters: list[int]
    jobs: list[int]
    age: float  # seconds since the first of them was kept
    formerly: tuple[str, ...]  # peer ids of this node then


@value
class KeptSent:
    """These letters of the spool are on their way: there is room for more of them."""

    peer: str
    computation: int
    letters: list[int]
