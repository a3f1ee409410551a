"""Handing out the jobs of many clients: nodes are given away in equal parts, and not by turns.

What a client's jobs count for (`fills`) is what it is ranked by (`fairness`), so that who has less
than the others is never shut out by what those were given ahead of need.
"""

from math import inf

from nodeserver.core.computation import Computation
from nodeserver.core.dispatch import MOST_LOOKED_AT, Dispatch
from nodeserver.core.fills import NOTHING, SharedPlacement
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.policy import Placement


class FairDispatch(Dispatch):
    """Places the waiting jobs of many clients."""

    _shares: SharedPlacement

    def _make_placement(self) -> Placement:
        self._shares = SharedPlacement()
        self._usable: dict[int, tuple[int, list[NodeRecord]]] = {}
        self._changes = 0  # of what nodes are to computations
        self._tried: dict[int, Computation] = {}  # in this turn, and found no room
        self._impatient: dict[int, Computation] = {}  # those that have less than others for it
        return self._shares

    def place(self, node: NodeRecord) -> None:
        """Enter a node where it belongs, or take it out if nothing can run on it."""
        super().place(node)
        self._changes += 1

    def forget(self, node: NodeRecord) -> None:
        """A node is gone."""
        super().forget(node)
        self._changes += 1

    def withdraw(self, comp: Computation) -> None:
        """A computation is closed."""
        super().withdraw(comp)
        self._usable.pop(comp.id, None)
        self._impatient.pop(comp.id, None)

    def check(self) -> None:
        """Raise `InvariantBroken` if the books do not balance."""
        super().check()
        self._shares.check_fills(self._fleet.computations)

    def _allocate(self) -> None:
        super()._allocate()
        for comp in [*(self._impatient | self._tried).values()]:
            is_tried = comp.id in self._tried
            if self._order.is_behind(comp) and (is_tried or not self._order.is_alone):
                comp.has_no_patience(self._now)  # from now on it waits
                self._impatient[comp.id] = comp
            else:
                comp.crowds_at = inf
                self._impatient.pop(comp.id, None)
        self._tried.clear()

    def _is_full(self) -> bool:
        """Whether no node has room for any computation that waits, certainly."""
        if not self._shares.all_full():
            return False
        waiting = self._order.waiting
        return not any(
            comp.id in waiting and (comp.pinned or comp.crowds_at <= self._now)
            for comp in self._choosy.values()
        )

    def _room(self, comp: Computation, node: NodeRecord, rounds: int) -> int:
        return self._shares.room_for(node, comp)

    def _best(self, comp: Computation, rounds: int) -> tuple[NodeRecord | None, int]:
        """The emptiest node that has room for jobs of a computation, and how much.

        What it has is counted by how long its jobs are expected to be.  Where they are longer, a
        job would wait for them: then a node with a free cpu goes before it, for which it would be
        taken back, and given to the same one again, for ever.
        """
        node, room = self._emptiest(comp, rounds)
        if node is not None and not self._shares.is_full(1) and node.free_for(comp.id) <= 0:
            free = self._find_free(comp)
            if free is not None:
                return free, self._shares.room_for(free, comp)
        return node, room

    def _find_free(self, comp: Computation) -> NodeRecord | None:
        for looked, node in enumerate(self._shares.candidates(1)):
            if node.free_for(comp.id) > 0:
                return node
            if looked >= MOST_LOOKED_AT:
                own = filter(self._shares.is_open, self._find_own(comp))
                return next((node for node in own if node.free_for(comp.id) > 0), None)
        return None

    def _emptiest(self, comp: Computation, rounds: int) -> tuple[NodeRecord | None, int]:
        """One that is alone has its short jobs handed out many at a time."""
        least, most = NOTHING, inf
        if rounds > 1 and self._order.is_alone:
            least, most = 1 - 1 / rounds, MOST_LOOKED_AT
        for looked, node in enumerate(self._shares.open()):
            room = self._shares.room_for(node, comp, min(least, node.cpus * least / 2))
            if room > 0:
                return node, room
            if looked >= MOST_LOOKED_AT:
                if looked >= most:
                    return None, 0
                return self._search_own(comp)
        return self._crowd(comp), 1

    def _find_own(self, comp: Computation) -> list[NodeRecord]:
        """All nodes that one may use."""
        changes, nodes = self._usable.get(comp.id, (-1, []))
        if changes != self._changes:
            nodes = [node for node in self._fleet.nodes.values() if node.can_run(comp.id)]
            self._usable[comp.id] = self._changes, nodes
        return nodes

    def _search_own(self, comp: Computation) -> tuple[NodeRecord | None, int]:
        """The emptiest one again, for one that may use only some nodes."""
        is_open, room_for = self._shares.is_open, self._shares.room_for
        found = [(node.load, node) for node in self._find_own(comp) if is_open(node)]
        for _, node in sorted(found, key=lambda row: row[0]):
            room = room_for(node, comp)
            if room > 0:
                return node, room
        return self._crowd(comp), 1

    def _crowd(self, comp: Computation) -> NodeRecord | None:
        """A node that is given one job without room for it, once its client's patience is over.

        Jobs that need many cpus would else never find them free at once, where others take each
        one as it becomes free: a client has its part whatever its jobs need, and not more.
        """
        if comp.needs_more:
            self._tried[comp.id] = comp
        if comp.crowds_at > self._now or not self._order.is_behind(comp):
            return None
        nodes = self._shares.least_busy_first()
        return next((node for node in nodes if self._crowds(comp, node)), None)

    def _found_room(self, comp: Computation) -> None:
        """Patience is for those who have less than others, however often they find some room."""
