"""What a node says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself."""

    id: str
    name: str
    cpus: int
    platform: str
    python: str  # '3.11'
