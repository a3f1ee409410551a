"""What a peer may say: a node speaks for itself, and a client of what is its own.

All peers have the key, and one of them may lie or be broken: it must not be able to end, take or
acknowledge what belongs to another one.
"""

from collections.abc import Mapping
from hashlib import sha256
from math import inf
from typing import Any

from nodeserver.core.computation import Computation
from nodeserver.core.messages import DeclareComputation, JobsDone, JobsReturned, NodeDetails
from nodeserver.core.status import SETTLED

MOST_CPUS = 1 << 16
MOST_EPOCHS = 1 << 20
MOST_JOBS = 1 << 40
MOST_KNOWN_NODES = 10_000
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
        return True  # its token is looked at
    return comp is None or comp.client == peer


def may_take_over(message: DeclareComputation, token: bytes) -> bool:
    """Whether who declares a computation of before shows the token of it."""
    shown, right = sha256(message.token).digest(), sha256(token).digest()  # in equal time
    return message.resumes and bool(token) and shown == right


def fault_of(message: DeclareComputation) -> str:
    """What cannot be in a declaration, in words; '' if nothing is."""
    longest = max(len(message.name), len(message.owner))
    if longest > LONGEST_NAME:
        return f'its name, or that of its program, has {longest} characters'
    if not 0 <= message.epoch <= MOST_EPOCHS:
        return f'it was taken over {message.epoch} times'
    if not 0 <= message.resubmits <= MOST_JOBS:
        return f'it has {message.resubmits} jobs of before'
    if len(message.nodes) > MOST_KNOWN_NODES:
        return f'it names {len(message.nodes)} nodes, {MOST_KNOWN_NODES} are allowed'
    return ''
