"""What a program asks its scheduler for people who look, where that is in another program.

    program ── AskExplanation, AskNodeList ──▶ scheduler
    program ◀── Explanation, NodeListing ── scheduler

The number of a question is its program's own; the answer repeats it.
"""

from nodeserver.core.noderows import NodeRow
from nodeserver.core.values import value


@value
class AskExplanation:
    """How does this computation stand, node by node?"""

    computation: int
    request: int


@value
class Explanation:
    """How a computation stands, in words."""

    computation: int
    request: int
    lines: list[str]


@value
class AskNodeList:
    """Which nodes have been found, and how do they stand with the asking program's computations?

    The program names one of these.
    """

    computation: int
    request: int


@value
class NodeListing:
    """The nodes that were found, and where they were looked for, by computation."""

    computation: int
    request: int
    rows: list[NodeRow]
    places: dict[int, str]


AskMessage = AskExplanation | Explanation | AskNodeList | NodeListing
