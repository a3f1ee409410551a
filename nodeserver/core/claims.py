"""What a peer may say: a node speaks for itself, and a client of what is its own.

All peers have the key, and one of them may lie or be broken: it must not be able to end, take or
acknowledge what belongs to another one.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

from nodeserver.core.computation import Computation
from nodeserver.core.messages import DeclareComputation, JobsDone, JobsReturned, NodeDetails
from nodeserver.core.status import SETTLED

MOST_CPUS = 1 << 16
LONGEST_NAME = 1000  # characters


def lie_of(node: str, message: Any) -> str:
    """What is wrong with a node's message, whatever it is about, in words; '' if nothing is."""
    if getattr(message, 'node', node) != node:
        # its client would acknowledge what the other one has sent
        return f'it sent {type(message).__name__} in the name of another node'
    if isinstance(message, JobsDone | JobsReturned) and len(set(message.ids)) < len(message.ids):
        return f'it sent {type(message).__name__} with a job in it twice'
    if isinstance(message, JobsDone) and not _is_sound(message):
        return 'it sent JobsDone with jobs that have not ended, or in no time that there is'
    if isinstance(message, NodeDetails) and not _is_likely(message):
        return f'it claims to have {message.cpus} cpus and a name of {len(message.name)} characters'
    return ''


def _is_sound(done: JobsDone) -> bool:
    """Whether jobs ended in ways and after times that jobs can: a NaN would spoil all reckoning."""
    return SETTLED.issuperset(done.statuses) and all(0 <= each < inf for each in done.seconds)


def _is_likely(details: NodeDetails) -> bool:
    """Whether there can be such a node: its name stands in every line that tells of it."""
    texts = (details.name, details.platform, details.python)
    return 0 <= details.cpus <= MOST_CPUS and max(map(len, texts)) <= LONGEST_NAME


def is_own(computations: Mapping[int, Computation], peer: str, message: Any) -> bool:
    """Whether a client speaks of a computation that is its own, or of none that there is."""
    comp = computations.get(message.computation)
    if isinstance(message, DeclareComputation):
        return comp is None
    return comp is None or comp.client == peer
