"""How far each node's cpus are given away, among clients whose jobs are of very different lengths.

Short jobs are handed out ahead of need, so that a node holds many of them for each cpu.  So that
these neither look like more than they are, nor keep out or let in too many long ones, jobs count
here as the cpus that they keep busy: of jobs of which a node may hold three for each cpu, each is a
third.  A node is *full* when its jobs, counted so, keep all of its cpus busy.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from nodeserver.core.computation import Computation
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.policy import Placement

FINE = 16  # steps from an empty node to a full one
NOTHING = 1e-6  # cpus: what is left over where fractions were added


def weight(comp: Computation) -> float:
    """How many cpus each job of a computation keeps busy."""
    return comp.declared.resources.cpus / comp.pace.jobs_per_cpu()


class _Fill:
    """What is given away of a node."""

    __slots__ = ('parts', 'step', 'total')

    def __init__(self) -> None:
        self.parts: dict[int, float] = {}  # cpus of each computation
        self.total = 0.0
        self.step = 0


class SharedPlacement(Placement):
    """The nodes that can take jobs, ordered by how far they are given away as well."""

    def __init__(self) -> None:
        super().__init__()
        self._fills: dict[NodeRecord, _Fill] = {}
        self._steps = [OrderedDict[NodeRecord, None]() for _ in range(FINE + 1)]

    def put(self, node: NodeRecord) -> None:
        """Enter a node, or note that its cpus have changed."""
        super().put(node)
        fill = self._fills.get(node)
        if fill is None:
            fill = self._fills[node] = _Fill()
            # as if all of them ran, until some of them end
            fill.parts = {c: float(jobs * node.needs_of(c).cpus) for c, jobs in node.loads.items()}
            fill.total = sum(fill.parts.values())
            self._steps[fill.step][node] = None
        self._settle(node, fill)

    def move(self, node: NodeRecord, comp: Computation | None = None) -> None:
        """A node has more or fewer jobs of a computation."""
        super().move(node, comp)
        fill = self._fills.get(node)
        if fill is not None:
            if comp is not None:
                self._weigh(node, fill, comp)
            self._settle(node, fill)

    def _weigh(self, node: NodeRecord, fill: _Fill, comp: Computation) -> None:
        jobs = node.loads.get(comp.id)
        if jobs is None:
            fill.total -= fill.parts.pop(comp.id, 0.0)
            if not fill.parts:
                fill.total = 0.0
        else:
            part = jobs * weight(comp)
            fill.total += part - fill.parts.get(comp.id, 0.0)
            fill.parts[comp.id] = part

    def _settle(self, node: NodeRecord, fill: _Fill) -> None:
        """Have a node stand where it belongs, behind its equals."""
        step = min(FINE, max(0, int(FINE * (fill.total + NOTHING) / node.cpus)))
        if step == fill.step:
            self._steps[step].move_to_end(node)
        else:
            del self._steps[fill.step][node]
            self._steps[step][node] = None
            fill.step = step

    def discard(self, node: NodeRecord) -> None:
        """Take a node out; no harm if it is not in."""
        super().discard(node)
        fill = self._fills.pop(node, None)
        if fill is not None:
            del self._steps[fill.step][node]

    def open(self) -> Iterator[NodeRecord]:
        """Nodes that are not full, the emptiest first; the caller must not go on after a `put`."""
        return chain.from_iterable(self._steps[:FINE])

    def all_full(self) -> bool:
        """Whether no node has anything left to give away."""
        return len(self._steps[FINE]) == len(self)

    def is_open(self, node: NodeRecord) -> bool:
        """Whether a node has something left."""
        fill = self._fills.get(node)
        return fill is not None and fill.step < FINE

    def room_for(self, node: NodeRecord, comp: Computation, least: float = NOTHING) -> int:
        """How many jobs of a computation a node may be given now, if there is so much room.

        A whole job may be given for the least part of a cpu: else short ones, which need less,
        would keep it out for ever.
        """
        use, fill = node.uses.get(comp.id), self._fills.get(node)
        if use is None or fill is None or not use.open_cpus or node.ending:
            return 0
        rounds = comp.pace.jobs_per_cpu()
        own = use.open_cpus - fill.parts.get(comp.id, 0.0)
        room = min(node.cpus - fill.total, own)
        if room < least:
            return 0
        if comp.needs_more or node.needs:
            return node.room(comp.id, 1)
        return max(1, int(room * rounds + NOTHING))

    def check_fills(self, computations: dict[int, Computation]) -> None:
        """Raise `InvariantBroken` if nodes are not where they belong."""
        for node, fill in self._fills.items():
            if fill.parts.keys() != node.loads.keys() or node not in self._steps[fill.step]:
                raise InvariantBroken(f'node {node.title}: {fill.parts}, but {node.loads}')
            if abs(sum(fill.parts.values()) - fill.total) > 1e-3:
                raise InvariantBroken(f'node {node.title}: {fill.total} is not the sum')
        if sum(map(len, self._steps)) != len(self._fills) or len(self) != len(self._fills):
            raise InvariantBroken(f'{len(self)} nodes, but {len(self._fills)} with fills')
