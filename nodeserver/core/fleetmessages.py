"""What clients ask of the nodes that a computation uses, and how that is answered.

    cluster ── AddNodes, FindNodes, DeallocateNode, CloseNode, SetNodeCpus ──▶ scheduler
    cluster ◀── RequestAnswered ── scheduler ── LimitCpus ──▶ node

Each of the first is a *request*: it has a number of its cluster's own, which the answer repeats.
A node is named by its id, or by lines of its names and addresses, as in `SubmitJobs`.
"""

from nodeserver.core.values import NodeSpec, value

# cluster -> scheduler


@value
class AddNodes:
    """These elements of `nodes` come ahead of the others; what they match is used again."""

    computation: int
    request: int
    specs: list[NodeSpec]


@value
class FindNodes:
    """Ask for nodes at these addresses and ports, and by broadcast to `broadcast_port` (0: no)."""

    computation: int
    request: int
    targets: list[tuple[str, int]]
    broadcast_port: int


@value
class DeallocateNode:
    """Give a node no more jobs; the computation stays there."""

    computation: int
    request: int
    node: str


@value
class CloseNode:
    """Close the computation on a node once its jobs there have ended."""

    computation: int
    request: int
    node: str
    terminate: bool  # do not wait for these jobs: end them
    again: bool  # and open it there anew


@value
class SetNodeCpus:
    """Use so many cpus of a node; below 0: leave so many unused."""

    computation: int
    request: int
    node: str
    cpus: int


@value
class WatchFigures:
    """Somebody looks at what the nodes have to spare: for some seconds they are asked often."""

    computation: int


# scheduler -> cluster


@value
class RequestAnswered:
    """What a request has come to; -1 where it failed, with the reason in words."""

    computation: int
    request: int
    value: int
    reason: str


# scheduler -> node


@value
class LimitCpus:
    """How many of the node's cpus a computation may use from now on."""

    computation: int
    cpus: int


FleetMessage = (
    AddNodes
    | FindNodes
    | DeallocateNode
    | CloseNode
    | SetNodeCpus
    | WatchFigures
    | RequestAnswered
    | LimitCpus
)
