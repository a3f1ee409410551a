"""The nodes that a scheduler knows, and what each of them is to each computation."""

from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf

from nodeserver.core.demands import capacity, misfit
from nodeserver.core.messages import Availability, KnownNode, NodeDetails, NodeSpec
from nodeserver.core.values import ONE_CPU, Resources, value

_NO_DATA: frozenset[int] = frozenset()
NOWHERE = -1


class UseState(StrEnum):
    """Where a node stands with one computation."""

    ASKING = 'asking'  # the client's `allocate` was asked
    OPENING = 'opening'
    READY = 'ready'
    BUSY = 'busy'  # held by another scheduler; it tells when it is free
    FAILED = 'failed'
    UNWANTED = 'unwanted'  # `allocate` said 0
    DEALLOCATED = 'deallocated'  # open there, and no more jobs go there: its client wants that
    DRAINING = 'draining'  # to be closed there once what runs has ended
    CLOSING = 'closing'
    EMPTY = 'empty'  # nothing is there any more, and nothing new is to run
    DISMISSED = 'dismissed'  # nothing is there, and its client wants that


# the computation is open there, and its client was told so
IN_USE = frozenset((UseState.READY, UseState.DEALLOCATED, UseState.DRAINING))


@value
class NodeUse:
    """How one node stands with one computation; what changes with each job is not in here."""

    state: UseState
    cpus: int  # how many of the node's cpus this computation may use
    reason: str
    open_cpus: int  # the same where jobs can run, else 0


def use_in(state: UseState, cpus: int, reason: str = '') -> NodeUse:
    """A use in this state.

    1,000 nodes have 100,000 uses with as many computations, nearly all of them equal: were each an
    object of its own, the garbage collector would visit them all, over and over.
    """
    return _new_use(state, cpus, reason) if reason else _usual_use(state, cpus)


@lru_cache(maxsize=1024)
def _usual_use(state: UseState, cpus: int) -> NodeUse:
    return _new_use(state, cpus, '')


def _new_use(state: UseState, cpus: int, reason: str) -> NodeUse:
    return NodeUse(state, cpus, reason, cpus if state is UseState.READY else 0)


class NodeRecord:
    """A node that was found; without `details` it has not told about itself yet."""

    __slots__ = (
        'address',
        'asked',
        'asked_address',
        'asked_port',
        'availability',
        'broken_at',
        'bucket',
        'connected',
        'cpus',
        'crowder',
        'details',
        'ending',
        'heard_at',
        'id',
        'is_capped',
        'known',
        'load',
        'loads',
        'local_path',
        'manifests',
        'needs',
        'opened_at',
        'owes_pulse',
        'places',
        'port',
        'refusal',
        'setup_args',
        'shared',
        'silent_at',
        'unanswered',
        'uses',
        'via',
        'wishes',
    )

    def __init__(self, node: str, address: str, port: int, local_path: str, now: float) -> None:
        self.id = node
        self.address = address
        self.port = port  # 0: it connected to us, and where it listens is of no use
        self.local_path = local_path
        self.via = ''  # the relay that carries the connection, if one does
        self.asked_port = 0  # where its beacon answers, if that was told
        self.asked_address = ''  # by which it was asked, or goes too, if that is another one (L10)
        self.places: frozenset[tuple[str, int]] = frozenset()  # where it has answered
        self.asked = False  # a connection was asked for
        self.connected = False
        self.ending = ''  # why it takes no more jobs, for now or for good, in words
        self.refusal = ''  # why the link could not be made, in words
        self.details: NodeDetails | None = None
        self.cpus = 1  # that the node offers; until it has told, one
        self.availability: Availability | None = None
        self.uses: dict[int, NodeUse] = {}
        self.load = 0  # cpus that the jobs of all computations with the node need
        self.loads: dict[int, int] = {}  # jobs of each computation that has any there
        self.needs: dict[int, Resources] = {}  # of computations that need more than a cpu for a job
        self.crowder = 0  # the computation one of whose jobs was given it without room
        # data of each computation that the node has, or that are on their way: most have none
        self.shared: dict[int, frozenset[int]] = {}
        self.setup_args: dict[int, bytes] = {}  # of each computation that has some for this node
        self.manifests: dict[int, bytes] = {}  # the same of own files, where it has others here
        self.wishes: dict[int, int] = {}  # cpus that its client asked for here; below 0: to leave
        self.opened_at: dict[int, float] = {}  # when those were sent that are not ready yet
        self.is_capped = False  # some computation may use, or has used, only part of its cpus
        self.owes_pulse = False  # what it says next answers one, and not just a look at figures
        self.known: KnownNode | None = None
        self.bucket = NOWHERE  # `Placement` alone looks at it
        self.heard(now)

    def heard(self, now: float) -> None:
        """It gave a sign of life, or somebody begins to wait for one."""
        self.heard_at = now
        self.unanswered = 0  # pulses since then
        self.silent_at = inf  # when it is lost, if it says nothing until then
        self.broken_at: float | None = None  # when its link broke, if nothing was heard since

    def room(self, computation: int, rounds: int, among: Iterable[int] | None = None) -> int:
        """How many more jobs of a computation it may hold, with so many for each cpu.

        `among` names the computations whose jobs count, by default all of them.
        """
        use = self.uses.get(computation)
        if use is None or not use.open_cpus or self.ending:
            return 0
        if self.needs:
            return self._room_among_needs(computation, use, rounds, among)
        load = self.load if among is None else sum(map(self.loads.__getitem__, among))
        room = self.cpus * rounds - load
        own = use.open_cpus * rounds - self.loads.get(computation, 0)
        return own if own < room else room

    def free_for(self, computation: int) -> int:
        """How many more jobs of a computation would run there at once; below 0: so many wait."""
        use = self.uses.get(computation)
        if use is not None and self.needs:
            return self._room_among_needs(computation, use, 1, None)
        own = use.open_cpus - self.loads.get(computation, 0) if use is not None else 0
        return min(self.cpus - self.load, own)

    # where some computation needs more than a cpu for each job

    def _room_among_needs(
        self, computation: int, use: NodeUse, rounds: int, among: Iterable[int] | None
    ) -> int:
        needs, (memory, gpus) = self.needs_of(computation), self._stores()
        own = capacity(needs, use.open_cpus, memory, gpus) * rounds
        own -= self.loads.get(computation, 0)
        cpus, memory, gpus = self.cpus * rounds, memory * rounds, gpus * rounds
        for other in self.loads if among is None else among:
            count, others = self.loads[other], self.needs_of(other)
            cpus -= count * others.cpus
            memory -= count * others.memory
            gpus -= count * others.gpus
        return min(own, capacity(needs, cpus, memory, gpus))

    def _stores(self) -> tuple[int, int]:
        return (self.details.memory, self.details.gpus) if self.details is not None else (0, 0)

    def needs_of(self, computation: int) -> Resources:
        """What each job of a computation needs."""
        return self.needs.get(computation, ONE_CPU)

    def capacity_for(self, computation: int) -> int:
        """How many jobs of a computation may run there at a time."""
        use = self.uses.get(computation)
        return capacity(self.needs_of(computation), use.cpus, *self._stores()) if use else 0

    def can_run(self, computation: int) -> bool:
        """Whether jobs of a computation may run there, however many there are now."""
        use = self.uses.get(computation)
        return use is not None and use.open_cpus > 0 and self.capacity_for(computation) > 0

    def misfit(self, computation: int) -> str:
        """Why no job of a computation can ever run there, with what it may use; '' if one can."""
        use = self.uses.get(computation)
        cpus = use.cpus if use is not None else 0
        return misfit(self.needs_of(computation), cpus, *self._stores())

    def may_crowd(self, computation: int) -> bool:
        """Whether one job of a computation may come without room, so that it gets some at last.

        Until that one runs, the others there end, and none takes their place.
        """
        if self.ending or computation in self.loads or not self.can_run(computation):
            return False
        return self.crowder not in self.loads or self.free_for(self.crowder) >= 0

    def surplus(self, computation: int, load: int) -> int:
        """How many of these jobs of a computation there, at the most, do not run yet."""
        return min(load, -self.free_for(computation))

    def take(self, computation: int, count: int) -> None:
        """Jobs of a computation are with the node from now on."""
        self.load += count * self.needs[computation].cpus if computation in self.needs else count
        self.loads[computation] = self.loads.get(computation, 0) + count

    def release(self, computation: int, count: int) -> None:
        """Jobs of a computation are no longer with the node."""
        self.load -= count * self.needs[computation].cpus if computation in self.needs else count
        left = self.loads[computation] - count
        if left:
            self.loads[computation] = left
        else:
            del self.loads[computation]

    def has_data(self, computation: int) -> frozenset[int]:
        """Shared data of a computation that it has, or that are on their way."""
        return self.shared.get(computation, _NO_DATA)

    def forget_data(self, computation: int, data: frozenset[int]) -> None:
        """It is told to drop these."""
        left = self.has_data(computation) - data
        if left:
            self.shared[computation] = left
        else:
            self.shared.pop(computation, None)

    def leave(self, computation: int) -> None:
        """Nothing binds it to a computation any more."""
        self.uses.pop(computation, None)
        self.shared.pop(computation, None)
        self.setup_args.pop(computation, None)
        self.manifests.pop(computation, None)
        self.opened_at.pop(computation, None)
        self.needs.pop(computation, None)
        self.wishes.pop(computation, None)

    def share_of(self, computation: int, specs: list[NodeSpec]) -> int:
        """How many of its cpus a computation may use: what was set for it here, or in `nodes`."""
        wish = self.wishes.get(computation)
        if wish is not None:
            return share(wish, self.cpus)
        index = matching_spec(specs, self)
        if index is None or specs[index].asks_client:
            return self.cpus
        return cpus_of(specs[index], self.cpus)

    def as_known(self) -> KnownNode:
        """Where it is, for those who look for it later; the same object as long as it is there."""
        port = self.asked_port or self.port
        known = self.known
        if known is None or (known.address, known.port, known.via) != (
            self.address,
            port,
            self.via,
        ):
            known = self.known = KnownNode(self.id, self.address, port, self.via)
        return known

    @property
    def has_called(self) -> bool:
        """Whether it connected to us, and not we to it (D2)."""
        return not self.port

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
            if matches_address(spec, node.address) or matches_address(spec, node.asked_address):
                return index
        elif spec.pattern in (node.address, node.asked_address, name) and (
            node.has_called or spec.port in (node.port, node.asked_port)
        ):
            return index
    return None


def cpus_of(spec: NodeSpec, offered: int) -> int:
    """How many of the cpus of a node an element of `nodes` wants (E03, E07)."""
    return share(spec.cpus, offered) if spec.cpus else offered


def share(wish: int, offered: int) -> int:
    """How many cpus are used where so many were wished for; below 0: to be left."""
    return min(wish, offered) if wish >= 0 else max(0, offered + wish)


def matches_address(spec: NodeSpec, address: str) -> bool:
    """Whether an element of `nodes` means this address, whatever the port."""
    return fnmatchcase(address, _only_stars(spec.pattern))


def _only_stars(pattern: str) -> str:
    """Keep `*` as the only character with a meaning: `[` and `?` are none in `nodes`."""
    return pattern.replace('[', '[[]').replace('?', '[?]')
