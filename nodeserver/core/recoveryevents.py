"""What was found on disk of schedulers of before."""

from nodeserver.core.messages import CloseComputation
from nodeserver.core.recoverymessages import KnownNode
from nodeserver.core.values import value


@value
class PlacementsKnown:
    """A scheduler of before has left this of a computation, which its client will declare again.

    `places`, `ids` and `attempts` are parallel columns; of two entries of a job the last one
    counts.  A job that is not named was not started, or was acknowledged.
    """

    computation: int
    token: bytes
    epoch: int
    nodes: list[KnownNode]
    places: list[str]  # nodes, by peer id; '': with none again
    ids: list[list[int]]
    attempts: list[list[int]]  # of these jobs; 0, or no list: not known
    exclusive: bool = False  # it had all nodes for itself, or waited for that


@value
class ClosingKnown:
    """A scheduler of before has closed a computation, and these nodes are yet to be told."""

    message: CloseComputation
    nodes: list[KnownNode]
    age: float  # seconds since, as far as clocks on the wall can be trusted
