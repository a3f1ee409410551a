"""Values: how messages, events and effects are declared, and what is within them."""

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

# what a peer says it is when it connects
NODE_ROLE, SCHEDULER_ROLE, RELAY_ROLE, CLIENT_ROLE = 'node', 'scheduler', 'relay', 'client'

T = TypeVar('T')


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Declare a value that nobody changes: the type checker holds this, not each assignment.

    A dataclass that is frozen at run time takes three times as long to make, and a job alone makes
    thirty values on its way.  What compares and shows values is written here once: each program
    would else compile it for a hundred classes when it starts.
    """
    made = dataclass(slots=True, repr=False, eq=False)(cls)
    for name, shared in (('__eq__', _are_equal), ('__hash__', None), ('__repr__', _shown)):
        setattr(made, name, shared)
    return made


def _are_equal(one: Any, other: Any) -> Any:
    if type(one) is not type(other):
        return NotImplemented
    return all(getattr(one, name) == getattr(other, name) for name in one.__slots__)


def _shown(value: Any) -> str:
    """Show all but tokens: who shows one may take over what it belongs to."""
    names = (name for name in value.__slots__ if name != 'token')
    parts = (f'{name}={getattr(value, name)!r}' for name in names)
    return f'{type(value).__qualname__}({", ".join(parts)})'


@dataclass(frozen=True, slots=True)
class Availability:
    """What a node has to spare (E08-E11): per cents for cpu and swap, bytes for the others."""

    cpu: float
    memory: int
    disk: int
    swap: float


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One element of `nodes`: an address, or a pattern with `*`, and how much of it to use."""

    pattern: str
    port: int
    cpus: int
    asks_client: bool  # its `allocate` is overridden: the client is asked for each node


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a batch of jobs is to be run (Z05); one object is shared by all of its jobs."""

    timeout: float = 0.0  # seconds from its start that a job may take; 0: any time
    retries: int = 0  # how often a job that failed is run again
    priority: int = 0  # the higher, the sooner


ORDINARY = JobOptions()


@dataclass(frozen=True, slots=True)
class Resources:
    """What each job of a computation needs of its node while it runs (Z12)."""

    cpus: int = 1
    memory: int = 0  # bytes; 0: no demand
    gpus: int = 0


ONE_CPU = Resources()
