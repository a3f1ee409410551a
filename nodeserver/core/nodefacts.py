"""What a node says of itself, and whom it says it to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself."""

    id: str
    name: str
    cpus: int
    platform: str
    python: str  # '3.11'
    max_file_size: int = 0  # bytes of a file that is taken or sent; 0: no limit


class Peer:
    """A scheduler that is connected to a node."""

    __slots__ = ('heard_at', 'waits')

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.waits = False  # it was refused as busy and wants to know when that ends
