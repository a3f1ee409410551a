"""The nodes that a scheduler knows, and what each of them is to each computation."""

from enum import StrEnum
from fnmatch import fnmatchcase

from nodeserver.core.messages import Availability, NodeDetails, NodeSpec

_NONE: frozenset[int] = frozenset()


class UseState(StrEnum):
    """Where a node stands with one computation."""

    ASKING = 'asking'  # the client's `allocate` was asked
    OPENING = 'opening'
    READY = 'ready'
    BUSY = 'busy'  # held by another scheduler; it tells when it is free
    FAILED = 'failed'
    UNWANTED = 'unwanted'  # `allocate` said 0
    CLOSING = 'closing'


class NodeUse:
    """One node's part in one computation."""

    __slots__ = ('cpus', 'load', 'reason', 'shared', 'state')

    def __init__(self, state: UseState, cpus: int) -> None:
        self.state = state
        self.cpus = cpus  # how many of the node's cpus this computation may use
        self.load = 0  # jobs of this computation that are with the node
        # data that the node has, or that are on their way: most uses have none, and there are many
        self.shared: frozenset[int] = _NONE
        self.reason = ''


class NodeRecord:
    """A node that was found; without `details` it has not told about itself yet."""

    __slots__ = (
        'address',
        'asked',
        'asked_port',
        'availability',
        'connected',
        'cpus',
        'details',
        'ending',
        'heard_at',
        'id',
        'load',
        'local_path',
        'port',
        'refusal',
        'uses',
    )

    def __init__(self, node: str, address: str, port: int, local_path: str, now: float) -> None:
        self.id = node
        self.address = address
        self.port = port
        self.local_path = local_path
        self.asked_port = 0  # where its beacon answers, if that was told
        self.asked = False  # a connection was asked for
        self.connected = False
        self.ending = ''  # why it takes no more jobs, in words
        self.refusal = ''  # why the link could not be made, in words
        self.details: NodeDetails | None = None
        self.cpus = 1  # that the node offers; until it has told, one
        self.availability: Availability | None = None
        self.uses: dict[int, NodeUse] = {}
        self.load = 0  # jobs of all computations that are with the node
        self.heard_at = now

    @property
    def title(self) -> str:
        """How people are told of it: name and address."""
        name = self.details.name if self.details else ''
        return f'{name} ({self.address})' if name and name != self.address else self.address


def matching_spec(specs: list[NodeSpec], node: NodeRecord) -> int | None:
    """Index of the first element of `nodes` that a node falls under (A08, A10-A12)."""
    name = node.details.name if node.details else ''
    for index, spec in enumerate(specs):
        if '*' in spec.pattern:
            if matches_address(spec, node.address):
                return index
        elif spec.pattern in (node.address, name) and spec.port in (node.port, node.asked_port):
            return index
    return None


def matches_address(spec: NodeSpec, address: str) -> bool:
    """Whether an element of `nodes` means this address, whatever the port."""
    return fnmatchcase(address, _only_stars(spec.pattern))


def _only_stars(pattern: str) -> str:
    """Keep `*` as the only character with a meaning: `[` and `?` are none in `nodes`."""
    return pattern.replace('[', '[[]').replace('?', '[?]')
