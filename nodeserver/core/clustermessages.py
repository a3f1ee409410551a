"""What a scheduler tells a cluster of its jobs and nodes; `messages` has the rest of both."""

from nodeserver.core.values import Availability, value


@value
class AllocateAsk:
    """A node was found: what does this cluster's `NodeAllocate` say?"""

    computation: int
    node: str
    spec: int  # its place in `nodes`, counted from the end: others may come ahead of it
    address: str
    name: str
    cpus: int
    availability: Availability | None
    platform: str


@value
class JobsStarted:
    """These jobs were handed to a node."""

    computation: int
    node: str
    ids: list[int]


@value
class JobsRequeued:
    """These jobs came back unrun: they wait again."""

    computation: int
    ids: list[int]
    reason: str


@value
class JobsRetried:
    """These jobs failed or lost their node, and wait to be run again.

    `outcomes` and `reasons` are those of the `JobsDone` that would have ended them.
    """

    computation: int
    ids: list[int]
    outcomes: list[bytes]
    reasons: list[str]


@value
class JobsSettled:
    """The scheduler itself ended these jobs: cancelled in the queue, or their node was lost.

    It is a letter of the scheduler's own: acknowledged by its number, without a node.
    """

    computation: int
    ids: list[int]
    status: int
    reason: str
    letter: int = 0  # 0: not kept
    kind: int = 0  # an `Unrun`


@value
class ComputationClosed:
    """Nothing of this computation is left; nodes tell their schedulers, and these their clients."""

    computation: int
    waits: bool = False  # it is, and will go with a scheduler that is taken for alive


@value
class NodeChanged:
    """A node joined, left, or told how it is; `status` is a `NodeStatus`."""

    computation: int
    status: int
    node: str
    address: str
    name: str
    cpus: int
    platform: str
    availability: Availability | None
    reason: str
    port: int = 0  # where it is asked
    avail_cpus: int = 0  # that the node offers; `cpus` are those to use
    memory: int = 0  # bytes that jobs can have there in all; 0: not known


@value
class Notice:
    """Something the user should know; `level` is a number of the logging module."""

    computation: int
    level: int
    text: str
