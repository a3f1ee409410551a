"""What a node says of itself, and whom it says it to."""

from dataclasses import dataclass

from nodeserver.core.demands import misfit
from nodeserver.core.messages import Availability, NodeDetails, OpenComputation


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself."""

    id: str
    name: str
    cpus: int
    platform: str
    python: str  # '3.11'
    memory: int = 0  # bytes that jobs can have in all; 0: not known
    gpus: tuple[str, ...] = ()  # as jobs are told of them: numbers or UUIDs

    def details(self, availability: Availability | None) -> NodeDetails:
        """What schedulers are told of it."""
        who = (self.name, self.cpus, self.platform, self.python)
        return NodeDetails(*who, availability, self.memory, len(self.gpus))

    def misfit(self, opened: OpenComputation) -> str:
        """Why no job of a computation could ever run here; '' if it can."""
        cpus = min(self.cpus, opened.cpus)
        return misfit(opened.resources, cpus, self.memory, len(self.gpus))


class Peer:
    """A scheduler that is connected to a node."""

    __slots__ = ('heard_at', 'waits')

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.waits = False  # it was refused as busy and wants to know when that ends
