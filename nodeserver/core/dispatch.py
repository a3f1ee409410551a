"""Handing out jobs: whose turn it is, which node gets the job, and what is taken back.

Computations with waiting jobs stand in a ring and place a few jobs at each turn (deficit round
robin), so that one with a million jobs does not hold up one with ten.
"""

from collections.abc import Callable, Iterable
from itertools import islice

from nodeserver.core.computation import Computation
from nodeserver.core.effects import Effect, Send
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.fleet import NodeRecord, UseState
from nodeserver.core.messages import DropData, JobsStarted, RecallJobs, RunJobs, ShareData
from nodeserver.core.policy import Placement
from nodeserver.core.recruiting import Recruiting

QUANTUM = 4  # jobs a computation may place before the next one has its turn
MOST_LOOKED_AT = 16  # full nodes that are looked at for jobs to take back, in one turn

Plan = dict[tuple[str, int], list[int]]


class Dispatch:
    """Places waiting jobs on the nodes of a fleet."""

    def __init__(self, fleet: Recruiting, emit: Callable[[Effect], None]) -> None:
        self._fleet = fleet
        self._emit = emit
        self._placement = Placement()
        self._ring: dict[int, None] = {}  # computations with waiting jobs, in turn
        self._asked: set[str] = set()  # nodes that were asked to give jobs back
        self._barren: set[str] = set()  # nodes that had none to give, and have not moved since

    def enlist(self, comp: Computation) -> None:
        """A computation has waiting jobs."""
        self._ring[comp.id] = None

    def withdraw(self, comp: Computation) -> None:
        """A computation has no jobs to place any more."""
        self._ring.pop(comp.id, None)

    def place(self, node: NodeRecord) -> None:
        """Enter a node where its load belongs, or take it out if nothing can run on it."""
        if not node.ending:
            for use in node.uses.values():  # `any` would cost twice as much, for each letter
                if use.state is UseState.READY:
                    self._placement.put(node.id, node.load, node.cpus)
                    return
        self._placement.discard(node.id)

    def forget(self, node: NodeRecord) -> None:
        """A node is gone."""
        self._placement.discard(node.id)
        self._asked.discard(node.id)
        self._barren.discard(node.id)

    def unload(self, node: NodeRecord, comp: Computation, count: int) -> None:
        """Jobs of a computation are no longer with a node."""
        use = node.uses.get(comp.id)
        if use is not None and count:
            use.load -= count
            node.load -= count
            self.place(node)

    def returned(self, node: NodeRecord, of_use: bool) -> None:
        """A node has answered a recall, with jobs that others can run or without."""
        self._asked.discard(node.id)
        if not of_use:  # asked again at once, it would answer the same, turn after turn
            self._barren.add(node.id)

    def moved(self, node: NodeRecord) -> None:
        """Jobs of a node have ended: it may have some to give back now."""
        self._barren.discard(node.id)

    def check(self) -> None:
        """Raise `InvariantBroken` if the loads of nodes are not the jobs that are with them."""
        for node in self._fleet.nodes.values():
            loads = {c.id: len(c.on_node(node.id)) for c in self._fleet.computations.values()}
            if node.load != sum(use.load for use in node.uses.values()):
                raise InvariantBroken(f'node {node.title}: load {node.load} is not its uses sum')
            for computation, use in node.uses.items():
                if use.load != loads.get(computation, 0):
                    raise InvariantBroken(f'node {node.title}: {use.load} jobs, {loads} recorded')

    def run(self) -> None:
        """Place what waits; then take back what a node that is idle even so could run."""
        if self._ring:
            self._allocate()
        self._recall()

    def _allocate(self) -> None:
        plan: Plan = {}
        ring, stuck = self._ring, 0
        while ring and stuck < len(ring):
            computation = next(iter(ring))
            del ring[computation]
            comp = self._fleet.computations[computation]
            placed = self._place_some(comp, plan)
            if comp.waiting:
                ring[computation] = None
                stuck = 0 if placed else stuck + 1
            else:
                comp.forget_cancelled()
        for (node, computation), ids in plan.items():
            self._announce(self._fleet.computations[computation], node, ids)

    def _announce(self, comp: Computation, node: str, ids: list[int]) -> None:
        records = [comp.jobs[job] for job in ids]
        attempts = [record.attempt for record in records]
        payloads = [record.payload for record in records]
        timeouts = [record.options.timeout for record in records] if comp.has_timeouts else []
        if not any(timeouts):
            timeouts.clear()
        shared: list[list[int]] = []
        if any(record.shared for record in records):
            shared = [record.shared for record in records]
            self._send_along(comp, node, {data: None for one in shared for data in one})
        self._emit(Send(node, RunJobs(comp.id, ids, attempts, payloads, timeouts, shared)))
        self._emit(Send(comp.client, JobsStarted(comp.id, node, ids)))

    # shared data

    def _send_along(self, comp: Computation, node: str, ids: Iterable[int]) -> None:
        """Send a node the data that its jobs name and it has not (Z11)."""
        use = self._fleet.nodes[node].uses[comp.id]
        new = [data for data in ids if data not in use.shared]
        use.shared = use.shared.union(new)
        for data, content in comp.stock().take_along(node, new):
            self._emit(Send(node, ShareData(comp.id, data, content)))

    def share(self, comp: Computation, message: ShareData) -> None:
        """Data came from the client: nodes that were given jobs with them get them now."""
        for node in comp.stock().add(message.data, message.content):
            if self._has(node, comp, message.data):
                self._emit(Send(node, message))

    def drop(self, comp: Computation, message: DropData) -> None:
        """No job names these data any more: free them everywhere."""
        comp.stock().drop(message.ids)
        for node in self._fleet.nodes.values():
            use = node.uses.get(comp.id)
            there = [data for data in message.ids if use is not None and data in use.shared]
            if use is not None and there:
                use.shared = use.shared.difference(there)
                self._emit(Send(node.id, DropData(comp.id, there)))

    def _has(self, node: str, comp: Computation, data: int) -> bool:
        record = self._fleet.nodes.get(node)
        use = record.uses.get(comp.id) if record is not None else None
        return use is not None and data in use.shared

    def _place_some(self, comp: Computation, plan: Plan) -> int:
        """Place one turn's worth of jobs of a computation; how many found a place.

        One that is alone in the ring has nobody to be fair to.  Short jobs go out many at a time,
        first to free cpus, then to each node its share of those that are left.
        """
        rounds = comp.pace.jobs_per_cpu()
        placed = 0
        if comp.pinned:
            names = comp.pinned_nodes()
            placed = sum(self._place_pinned(comp, name, rounds, plan) for name in names)
        # where a job for one node may come before the second one, only the first is placed
        is_mixed = comp.has_priorities and bool(comp.pinned)
        most = 1 if rounds == 1 or is_mixed else QUANTUM if self._ring else len(comp.waiting)
        while most > 0:
            node = self._best(comp, rounds) if comp.has_waiting() else None
            if node is None:
                break
            share = self._share(comp, node) if rounds > 1 else 1
            ids = comp.dispatch_some(min(most, share, self._room(comp, node, rounds)), node.id)
            self._barren.discard(node.id)
            self._load(comp, node, ids, plan)
            placed += len(ids)
            most -= len(ids)
        return placed

    def _share(self, comp: Computation, node: NodeRecord) -> int:
        """How many jobs go to a node before the next one has its turn.

        No job stands in a queue behind another one while a cpu is free elsewhere.
        """
        if node.load < node.cpus:
            return node.cpus - node.load
        return 1 + len(comp.waiting) // len(self._placement)

    def _place_pinned(self, comp: Computation, name: str, rounds: int, plan: Plan) -> int:
        job, placed = comp.next_for(name), 0
        node = self._fleet.named(name, comp) if job is not None else None
        while job is not None and node is not None and self._room(comp, node, rounds) > 0:
            if comp.is_outranked(name):  # by a job that finds room, here at least
                break
            comp.dispatch(job, node.id)
            self._load(comp, node, [job], plan)
            placed += 1
            job = comp.next_for(name)
        return placed

    def _best(self, comp: Computation, rounds: int) -> NodeRecord | None:
        nodes = self._fleet.nodes
        for node_id in self._placement.candidates(rounds):
            node = nodes[node_id]
            if self._room(comp, node, rounds) > 0:
                return node
        return None

    def _room(self, comp: Computation, node: NodeRecord, rounds: int) -> int:
        """How many more jobs of a computation a node may hold, with so many for each cpu."""
        use = node.uses.get(comp.id)
        if use is None or node.ending or use.state is not UseState.READY:
            return 0
        return min(use.cpus * rounds - use.load, node.cpus * rounds - node.load)

    def _load(self, comp: Computation, node: NodeRecord, ids: list[int], plan: Plan) -> None:
        node.uses[comp.id].load += len(ids)
        node.load += len(ids)
        self._placement.put(node.id, node.load, node.cpus)
        plan.setdefault((node.id, comp.id), []).extend(ids)

    def _recall(self) -> None:
        """Estimates err: ask a full node for jobs it has not begun if another one idles."""
        idle_id = self._placement.idlest()
        if idle_id is None:
            return
        idle = self._fleet.nodes[idle_id]
        if idle.load >= idle.cpus:
            return
        for full_id in islice(self._placement.fullest_first(), MOST_LOOKED_AT):
            if full_id in self._asked:
                return
            if full_id not in self._barren and self._recall_from(self._fleet.nodes[full_id], idle):
                return

    def _recall_from(self, full: NodeRecord, idle: NodeRecord) -> bool:
        """Ask one node for what the other could run; False when there is nothing of that kind."""
        surplus = full.load - full.cpus
        for computation, use in full.uses.items():
            count = min(surplus, use.load, _idle_room(idle, computation))
            if count > 0:
                self._asked.add(full.id)
                self._emit(Send(full.id, RecallJobs(computation, count)))
                return True
        return False


def _idle_room(node: NodeRecord, computation: int) -> int:
    """How many more jobs of a computation a node could run at once."""
    use = node.uses.get(computation)
    if use is None or use.state is not UseState.READY:
        return 0
    return min(node.cpus - node.load, use.cpus - use.load)
