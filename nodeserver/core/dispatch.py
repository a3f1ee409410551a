"""Handing out jobs: which node gets the next one, and what is taken back.

Whose job is the next one `fairness` says, so that one with a million jobs does not hold up one
with ten.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from math import inf

from nodeserver.core.computation import PATIENCE, Computation, Portion
from nodeserver.core.effects import Effect, Send
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.fairness import Order
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import DropData, JobsStarted, RunJobs, ShareData
from nodeserver.core.nodenames import NodeNames
from nodeserver.core.policy import Placement
from nodeserver.core.recalls import Recalls
from nodeserver.core.recruiting import Recruiting

MOST_LOOKED_AT = 16  # nodes that are looked at for one that suits a computation better

Plan = dict[tuple[str, int], Portion]  # by node and computation
_NO_TIMEOUTS: list[float] = []
_NO_DATA: list[list[int]] = []
_NO_MANIFESTS: list[bytes] = []


class Dispatch:
    """Places waiting jobs on the nodes of a fleet."""

    def __init__(self, fleet: Recruiting, emit: Callable[[Effect], None], order: Order) -> None:
        self._fleet = fleet
        self._emit = emit
        self._placement = self._make_placement()
        self._order = order
        self.is_due = True  # something has changed since all that waits was tried
        # those of whose jobs some need more than a cpu, or a node of their own
        self._choosy: dict[int, Computation] = {}
        # of this turn
        self._now = 0.0
        self._left = -1  # jobs that wait to be placed, of all computations; below 0: to be found
        self._deepest = 0  # most rounds of jobs that one with jobs there may hold; 0: to be found
        self._looks = 0  # nodes that may yet be looked at for a place behind shorter jobs
        self._names: dict[int, deque[str]] = {}  # of nodes that may have room for pinned jobs
        self._nodes = NodeNames(fleet.nodes)
        self.recalls = Recalls(self._placement, emit, self._count_pinned)

    def _make_placement(self) -> Placement:
        return Placement()

    def _count_pinned(self, computation: int, node: str) -> int:
        return self._fleet.computations[computation].count_pinned_on(node)

    def enlist(self, comp: Computation) -> None:
        """A computation has waiting jobs."""
        self.is_due = True
        if comp.needs_more or comp.has_pinned:
            self._choosy[comp.id] = comp
        if comp.id not in self._fleet.held_back:
            self._order.enlist(comp)

    def withdraw(self, comp: Computation) -> None:
        """A computation has no jobs to place any more."""
        self.is_due = True
        self._choosy.pop(comp.id, None)
        self._order.withdraw(comp)

    def client_changed(self, comp: Computation) -> None:
        """A computation was taken over: whoever was its client has no part in it any more."""
        self.is_due = True
        self._order.client_changed(comp)

    def place(self, node: NodeRecord) -> None:
        """Enter a node where its load belongs, or take it out if nothing can run on it."""
        self.is_due = True
        if not node.ending and any(use.open_cpus for use in node.uses.values()):
            self._placement.put(node)
            self.recalls.watch(node)
        else:
            self._placement.discard(node)
            self.recalls.unwatch(node)

    def forget(self, node: NodeRecord) -> None:
        """A node is gone."""
        self.is_due = True
        self._placement.discard(node)
        self.recalls.forget(node)

    def unload(self, node: NodeRecord, comp: Computation, count: int) -> None:
        """Jobs of a computation are no longer with a node."""
        if count:
            self.is_due = True
            node.release(comp.id, count)
            self._placement.move(node, comp)
            self._order.changed(comp)

    def found(self, node: NodeRecord, comp: Computation, count: int) -> None:
        """Jobs of a computation turn out to be with a node."""
        if count:
            self.is_due = True
            node.take(comp.id, count)
            self._placement.move(node, comp)
            self._order.changed(comp)

    def ended(self, node: NodeRecord, comp: Computation, count: int) -> None:
        """Jobs have ended on a node: it may have some to give back now."""
        self.is_due = True
        self.recalls.moved(node, comp.id)
        node.release(comp.id, count)
        self._placement.move(node, comp)
        self._order.changed(comp)

    def check(self) -> None:
        """Raise `InvariantBroken` if the loads of nodes are not the jobs that are with them."""
        self._order.check()
        for node in self._fleet.nodes.values():
            loads = {c.id: len(c.on_node(node.id)) for c in self._fleet.computations.values()}
            cpus = (jobs * node.needs_of(c).cpus for c, jobs in node.loads.items())
            if node.load != sum(cpus):
                raise InvariantBroken(f'node {node.title}: load {node.load} is not the sum')
            if node.loads != {computation: load for computation, load in loads.items() if load}:
                raise InvariantBroken(f'node {node.title}: {node.loads}, but {loads} recorded')
            can_run = not node.ending and any(use.open_cpus for use in node.uses.values())
            if (node in self._placement) != can_run:
                raise InvariantBroken(f'node {node.title}: can run jobs, or not: {can_run}')

    def run(self, now: float) -> None:
        """Place what waits; then take back what a node that is idle even so could run."""
        if self.is_due and self._order.waiting:
            self._now = now
            self._allocate()
            self.is_due = not self._looks or self._is_patience_running()
        self.recalls.run(now)

    def _is_patience_running(self) -> bool:
        """Whether jobs wait that go out without room once they have waited for long."""
        waiting = self._order.waiting
        return any(comp.needs_more and comp.id in waiting for comp in self._choosy.values())

    def _allocate(self) -> None:
        plan: Plan = {}
        order = self._order
        self._left, self._deepest, self._looks = -1, 0, MOST_LOOKED_AT
        order.begin(self._now)
        while (comp := order.next()) is not None:
            placed = self._place_some(comp, plan)
            is_first_in_vain = order.put_back(comp, placed)
            if not comp.waiting:
                comp.forget_cancelled()
            elif (is_first_in_vain or not self._looks) and self._is_full():
                if self._looks:  # a round would end where it began
                    order.put_first(comp)
                break  # else the next ones may look in the next turn
        order.end()
        self._names.clear()
        self._nodes = NodeNames(self._fleet.nodes)
        self._fleet.records.placed(plan)  # before anything of it is sent
        for (node, computation), portion in plan.items():
            self._announce(self._fleet.computations[computation], node, portion)

    def _is_full(self) -> bool:
        """Whether no node has room for any computation that waits, certainly."""
        for comp in self._order.waiting.values():
            rounds = comp.pace.jobs_per_cpu()
            if comp.has_no_patience(self._now):
                return False
            if comp.pinned or not comp.waiting or not self._placement.is_full(rounds):
                return False
            if self._looks and rounds < self._find_deepest():
                return False
        return True

    def _announce(self, comp: Computation, node: str, portion: Portion) -> None:
        ids, attempts, payloads = portion
        timeouts, shared = _NO_TIMEOUTS, _NO_DATA
        if comp.has_timeouts or comp.has_shared:
            timeouts, shared = comp.wishes(ids)
            if shared:
                self._send_along(comp, node, {data: None for one in shared for data in one})
        manifests = comp.manifests_of(ids) if comp.has_manifests else _NO_MANIFESTS
        order = RunJobs(comp.id, ids, attempts, payloads, timeouts, shared, manifests)
        self._emit(Send(node, order))
        self._emit(Send(comp.client, JobsStarted(comp.id, node, ids)))

    # shared data

    def _send_along(self, comp: Computation, node: str, ids: Iterable[int]) -> None:
        """Send a node the data that its jobs name and it has not (Z11)."""
        record = self._fleet.nodes[node]
        there = record.has_data(comp.id)
        new = [data for data in ids if data not in there]
        record.shared[comp.id] = there.union(new)
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
            there = node.has_data(comp.id).intersection(message.ids)
            if there:
                node.forget_data(comp.id, there)
                there_ids = [data for data in message.ids if data in there]
                self._emit(Send(node.id, DropData(comp.id, there_ids)))

    def _has(self, node: str, comp: Computation, data: int) -> bool:
        record = self._fleet.nodes.get(node)
        return record is not None and data in record.has_data(comp.id)

    def _place_some(self, comp: Computation, plan: Plan) -> int:
        """Place one turn's worth of jobs of a computation; how many found a place.

        Short jobs go out many at a time, first to free cpus, then to each node its share of those
        that are left.
        """
        rounds = comp.pace.jobs_per_cpu()
        most = self._order.portion(comp, rounds)
        placed = 0
        if comp.pinned:
            limit = most if self._order.limits_pinned else len(comp.waiting)
            placed = self._place_pinned(comp, rounds, plan, limit)
            if self._order.limits_pinned:
                most -= placed
            if comp.has_priorities:
                most = min(most, 1)  # one for a single node may come before the second one
        while most > 0 and comp.waiting:
            node, room = self._best(comp, rounds)
            if node is None:
                break
            share = self._share(comp, node, min(most, room)) if rounds > 1 else 1
            portion = comp.dispatch_some(share, node.id)
            if not portion[0]:
                break  # what waits is for other nodes, or was cancelled
            self.recalls.moved(node, comp.id)
            count = self._give(comp, node, portion, plan)
            placed += count
            most -= count
        if placed:
            self._found_room(comp)
        return placed

    def _found_room(self, comp: Computation) -> None:
        comp.crowds_at = inf

    def _share(self, comp: Computation, node: NodeRecord, most: int) -> int:
        """How many jobs go to a node before the next one has its turn: first to its free cpus."""
        free = node.free_for(comp.id)
        if free > 0:
            return min(most, free)
        nodes = len(self._placement)
        enough = (most - 1) * nodes
        if len(comp.waiting) >= enough:
            return most
        return min(most, 1 + self._count_left(comp) // nodes)

    def _count_left(self, comp: Computation) -> int:
        """How many jobs wait to be placed, of this computation and all others."""
        if self._left < 0:
            others = (each for each in self._order.waiting.values() if each is not comp)
            self._left = len(comp.waiting) + sum(len(each.waiting) for each in others)
        return self._left

    def _place_pinned(self, comp: Computation, rounds: int, plan: Plan, most: int) -> int:
        """Place jobs that are for one node each; how many found room there."""
        if comp.has_priorities:  # one that has to wait for a more urgent one may come after that
            names = deque(comp.pinned_nodes())
        else:
            if comp.id not in self._names:
                self._names[comp.id] = deque(comp.pinned_nodes())
            names = self._names[comp.id]
        placed = 0
        while names and placed < most:
            placed += self._place_on(comp, names[0], rounds, plan, most - placed)
            if placed < most:
                names.popleft()  # nodes only become fuller in a turn
        return placed

    def _place_on(self, comp: Computation, name: str, rounds: int, plan: Plan, most: int) -> int:
        job, placed = comp.next_for(name), 0
        node = self._nodes.find(name, comp.id) if job is not None else None
        while job is not None and node is not None and placed < most:
            if self._room(comp, node, rounds) <= 0 and not self._crowds(comp, node):
                break
            if comp.is_outranked(name):  # by a job that finds room, here at least
                break
            placed += self._give(comp, node, comp.dispatch(job, node.id), plan)
            job = comp.next_for(name)
        return placed

    def _room(self, comp: Computation, node: NodeRecord, rounds: int) -> int:
        """How many jobs of a computation a node may be given."""
        return node.room(comp.id, rounds)

    def _best(self, comp: Computation, rounds: int) -> tuple[NodeRecord | None, int]:
        """The least busy node that has room for jobs of a computation, and how much."""
        node = self._placement.first(rounds)
        if node is not None and not node.is_capped:
            room = node.room(comp.id, rounds)
            if room > 0:
                return node, room
        return self._search(comp, rounds)

    def _search(self, comp: Computation, rounds: int) -> tuple[NodeRecord | None, int]:
        """The same where the first one may not do: a free cpu goes before a place behind others."""
        for node in islice(self._placement.candidates(1), MOST_LOOKED_AT):
            free = node.free_for(comp.id)
            if free > 0:
                return node, free
        for node in self._placement.candidates(rounds):
            room = node.room(comp.id, rounds)
            if room > 0:
                return node, room
        if self._looks and rounds < self._find_deepest():
            behind, room = self._behind_shorter(comp, rounds)
            if behind is not None:
                return behind, room
        if comp.has_no_patience(self._now):
            nodes = self._placement.least_busy_first()
            crowded = next((node for node in nodes if self._crowds(comp, node)), None)
            if crowded is not None:
                return crowded, 1
            comp.crowds_at = self._now + PATIENCE  # all were looked at
        return None, 0

    def _crowds(self, comp: Computation, node: NodeRecord) -> bool:
        """Whether one job goes to a node without room: else small ones would take it for ever.

        As it counts as if it ran, others get nothing of what it needs until it does.
        """
        if not (comp.has_no_patience(self._now) and node.may_crowd(comp.id)):
            return False
        node.crowder = comp.id
        return True

    def _find_deepest(self) -> int:
        if not self._deepest:
            comps = self._fleet.computations.values()
            self._deepest = max(
                (comp.pace.jobs_per_cpu() for comp in comps if comp.jobs), default=1
            )
        return self._deepest

    def _behind_shorter(self, comp: Computation, rounds: int) -> tuple[NodeRecord | None, int]:
        """A node that is full only of shorter jobs, given out ahead: they are done in no time.

        The node sees to it that computations get their shares of its cpus.
        """
        computations = self._fleet.computations
        for node in islice(self._placement.least_busy_first(), self._looks):
            self._looks -= 1
            as_long = [c for c in node.loads if computations[c].pace.jobs_per_cpu() <= rounds]
            room = node.room(comp.id, rounds, as_long)
            if room > 0:
                return node, room
        return None, 0

    def _give(self, comp: Computation, node: NodeRecord, portion: Portion, plan: Plan) -> int:
        count = len(portion[0])
        self._left -= count
        node.take(comp.id, count)
        self.recalls.given(node, comp.id, count)
        self._placement.move(node, comp)
        others = plan.setdefault((node.id, comp.id), portion)
        if others is not portion:
            others[0].extend(portion[0])
            others[1].extend(portion[1])
            others[2].extend(portion[2])
        return count
