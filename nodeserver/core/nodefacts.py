"""What a node says of itself, how it was told to behave, and whom it speaks to."""

from dataclasses import dataclass
from typing import Final

from nodeserver.core.demands import misfit
from nodeserver.core.hours import ServiceHours
from nodeserver.core.messages import Availability, NodeDetails, OpenComputation

ZOMBIE_SECONDS = 3600.0  # silence after which a scheduler is taken for dead (D17)


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
    max_file_size: int = 0  # bytes of a file that is transferred; 0: any

    def details(self, availability: Availability | None) -> NodeDetails:
        """What schedulers are told of it."""
        who = (self.name, self.cpus, self.platform, self.python)
        return NodeDetails(*who, availability, self.memory, len(self.gpus))

    def unfit(self, opened: OpenComputation) -> str:
        """Why no job of a computation could ever run here; '' if it can."""
        if opened.python != self.python:
            return (
                f'it runs Python {self.python} and the program Python {opened.python}: '
                f'start dispynode with Python {opened.python}'
            )
        words = self._misfit(opened)
        if not words and not opened.package:  # no function is pickled to nothing
            return 'it has no memory left for the function'
        return words

    def _misfit(self, opened: OpenComputation) -> str:
        cpus = min(self.cpus, opened.cpus)
        return misfit(opened.resources, cpus, self.memory, len(self.gpus))


@dataclass(frozen=True, slots=True)
class NodeRules:
    """Whom a node serves, and when."""

    zombie_seconds: float = ZOMBIE_SECONDS
    clients: int = -1  # how many are served before the node ends; -1: any number
    hours: ServiceHours | None = None  # None: at all times


AT_ALL_TIMES: Final = NodeRules()


class Peer:
    """A scheduler that is connected to a node."""

    __slots__ = ('address', 'heard_at', 'waits')

    def __init__(self, now: float, address: str = '') -> None:
        self.address = address  # as this side sees it
        self.heard_at = now
        self.waits = False  # it was refused as busy and wants to know when that ends
