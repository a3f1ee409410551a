"""What is to be kept on disk, and forgotten again, so that the death of a program loses nothing.

A performer of these has written and committed when it returns: what follows an effect may rely on
it.  One that cannot write says so on the log, and the work goes on.

    scheduler  RecordNode, RecordPlacements ... ──▶ journal of the cluster, state of dispyscheduler
    cluster    StoreJobs, StoreOutcomes ...     ──▶ journal
    node       KeepComputation, KeepLetters ... ──▶ spool
    node       OfferAgain, RefuseOffers         ──▶ jobs that send files, for whoever takes them
"""

from enum import IntEnum

from nodeserver.core.events import JobsSubmitted
from nodeserver.core.messages import (
    CloseComputation,
    DeclareComputation,
    JobsDone,
    OpenComputation,
)
from nodeserver.core.recoverymessages import KnownNode
from nodeserver.core.values import value

# scheduler


@value
class RecordComputation:
    """A client has declared a computation, for the first time or once more."""

    client: str
    declared: DeclareComputation
    is_unknown: bool = False  # where its jobs are: that is on record with it, or it is not at all


@value
class RecordNode:
    """A computation is about to be opened at a node."""

    computation: int
    node: KnownNode


@value
class RecordPlacements:
    """Jobs are about to go to nodes: a job without a record was never started.

    Parallel columns, an entry for each node and computation.
    """

    computations: list[int]
    nodes: list[str]  # '': none any more
    ids: list[list[int]]
    attempts: list[list[int]]  # of these jobs; [] where they are with no node


@value
class RewritePlacements:
    """These are all placements of a computation that still matter: older records can go."""

    computation: int
    nodes: list[str]
    ids: list[list[int]]
    attempts: list[list[int]]


@value
class ForgetComputation:
    """Nothing of a computation is left: its records can go."""

    computation: int


@value
class RecordClosed:
    """A computation is closed, and all that is to be known of it is who is yet to be told."""

    message: CloseComputation
    nodes: list[KnownNode]


@value
class ForgetUntold:
    """Nodes have been told that computations are closed: of one without others nothing is left.

    Parallel columns, an entry for each computation.
    """

    computations: list[int]
    nodes: list[list[str]]


# a cluster in the user's program


class Keeping(IntEnum):
    """What a cluster stores of its jobs."""

    NOTHING = 0
    ENDS = 1  # so that it is known which of those that were placed have not ended
    JOBS = 2  # which there are, too: who schedules them is elsewhere
    ALL = 3  # arguments and outcomes too, so that a program can go on where this one ended


@value
class StoreJobs:
    """Jobs are about to be submitted."""

    submitted: JobsSubmitted


@value
class StoreOutcomes:
    """Jobs have ended, and their outcomes are about to be acknowledged."""

    done: JobsDone


@value
class StoreUnrun:
    """Jobs have ended of which no node reports."""

    ids: list[int]
    status: int
    reason: str
    kind: int = 0  # an `Unrun`


@value
class StoreData:
    """Jobs are about to name these data."""

    data: int
    content: bytes


@value
class DropStored:
    """No job names these data any more."""

    ids: list[int]


@value
class StoreEpoch:
    """The computation is about to be taken over, for the time of this number."""

    epoch: int


# node


@value
class KeepComputation:
    """Whoever takes this computation over finds here what its outcomes are told by.

    Its letters follow; the numbers of later ones go on where these end.
    """

    opened: OpenComputation  # without what only a template needs


@value
class KeepLetters:
    """These letters may have nobody to take them: they must outlive this process."""

    computation: int
    letters: list[JobsDone]


@value
class ForgetLetters:
    """These were acknowledged."""

    computation: int
    letters: list[int]


@value
class ForgetKept:
    """Nothing is kept of a computation any more."""

    computation: int


@value
class SendKept:
    """Send a peer kept letters of a computation again, in the name of this node.

    As many of them, from the first on, as may be in memory at once; `KeptSent` follows when they
    have gone out, and says which these are.
    """

    peer: str
    computation: int
    letters: list[int]


@value
class OfferAgain:
    """Somebody is there to take files that jobs of a computation send, and knows of none."""

    computation: int


@value
class RefuseOffers:
    """Nobody has come to take files of jobs that wait for it: these go on."""

    computation: int
    reason: str


RecoveryEffect = (
    RecordComputation
    | RecordNode
    | RecordPlacements
    | RewritePlacements
    | ForgetComputation
    | RecordClosed
    | ForgetUntold
    | StoreJobs
    | StoreOutcomes
    | StoreUnrun
    | StoreData
    | DropStored
    | StoreEpoch
    | KeepComputation
    | KeepLetters
    | ForgetLetters
    | ForgetKept
    | SendKept
    | OfferAgain
    | RefuseOffers
)
