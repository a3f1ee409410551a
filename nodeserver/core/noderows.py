"""The nodes that a scheduler knows of, as rows for people (V03)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """How a node stands with one computation."""

    computation: int
    name: str  # of the computation
    is_met: bool  # whether it is one that the computation wants, and that has told about itself
    is_used: bool  # whether its jobs can run there
    words: str  # why not, or how far its cpus are in use


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as people are told of it; None where it has not told, or nobody here can know."""

    name: str
    address: str
    cpus: int | None  # that it offers
    free: int | None  # of these, how many no job of this scheduler has
    memory: int | None  # bytes that jobs can have there in all
    memory_free: int | None
    usages: tuple[NodeUsage, ...]
    words: str = ''  # why it can be of no use to anybody here


@dataclass(frozen=True, slots=True)
class NodeList:
    """The nodes that were found, and where they were looked for, by computation."""

    rows: tuple[NodeRow, ...]
    places: dict[int, str]
    words: str = ''  # why there is no list
