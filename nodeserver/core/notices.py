"""What a node has to tell the user of a computation besides the ends of its jobs."""

from nodeserver.core.values import value


@value
class NodeNotice:
    """Something that happened to a computation on the node; `level` as of the logging module."""

    computation: int
    level: int
    text: str
