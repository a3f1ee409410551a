"""Whose jobs go out next: each client has an equal part of the cpus, however much it asks for.

The next free cpu goes to the client whose jobs have the fewest cpus at that moment; among equals,
to the one that has used the least time.  Cpus that are shared equally at each moment are shared
equally over time as well, whether jobs take seconds or hours, and no guess at their length is
needed.  Time decides where there are fewer cpus than clients, or some are left over.

A client's computations share its part, in turn.  Its priorities order its own jobs only.

    Ring      in the program of one client: computations place a few jobs each, in turn
    Shares    in a scheduler of many clients
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Mapping
from math import inf
from typing import Protocol

from nodeserver.core.account import LOOK_INTERVAL, Client, Rank
from nodeserver.core.computation import Computation
from nodeserver.core.errors import InvariantBroken

QUANTUM = 4  # short jobs that are placed before the next one has its turn
LONGEST = 1e12  # seconds that a client is believed to have used: a node may report nonsense
FEW = 8  # clients that are moved in the line one by one; with more it is sorted


class Order(Protocol):
    """Computations with waiting jobs, and which of them places some next in this turn."""

    limits_pinned: bool  # to a portion; else all of them go out that find room on their nodes
    is_alone: bool  # whether all that wait for a turn are of one client

    @property
    def waiting(self) -> Mapping[int, Computation]:
        """All of them, by id."""
        ...

    def enlist(self, comp: Computation) -> None:
        """A computation has waiting jobs."""
        ...

    def withdraw(self, comp: Computation) -> None:
        """A computation is closed."""
        ...

    def client_changed(self, comp: Computation) -> None:
        """A computation has another client than before."""
        ...

    def changed(self, comp: Computation) -> None:
        """More or fewer of its jobs are with nodes than it has placed itself."""
        ...

    def begin(self, now: float) -> None:
        """A turn begins: what was tried in vain before may find room now."""
        ...

    def end(self) -> None:
        """A turn ends."""
        ...

    def next(self) -> Computation | None:
        """Who is to place jobs now; None when nobody can place more in this turn."""
        ...

    def portion(self, comp: Computation, rounds: int) -> int:
        """How many jobs the one that was chosen may place, before another one has its turn."""
        ...

    def is_behind(self, comp: Computation) -> bool:
        """Whether a computation's client would have no more than another one with a job more."""
        ...

    def put_back(self, comp: Computation, placed: int) -> bool:
        """It has placed so many; True if it is the first one in a row that could place none."""
        ...

    def put_first(self, comp: Computation) -> None:
        """It was put back, and keeps its place for the next turn."""
        ...

    def check(self) -> None:
        """Raise `InvariantBroken` if clients have other jobs than they are ranked by."""
        ...


class Ring:
    """Computations that have their turns one after the other (deficit round robin)."""

    limits_pinned = False
    is_alone = True

    def __init__(self) -> None:
        # a plain dict would pass the deleted ones again
        self.waiting: OrderedDict[int, Computation] = OrderedDict()
        self._stuck = 0

    def enlist(self, comp: Computation) -> None:
        """A computation has waiting jobs."""
        self.waiting[comp.id] = comp

    def withdraw(self, comp: Computation) -> None:
        """A computation is closed."""
        self.waiting.pop(comp.id, None)

    def client_changed(self, comp: Computation) -> None:
        """Clients do not count here."""

    def changed(self, comp: Computation) -> None:
        """Nobody counts here what the others have."""

    def begin(self, now: float) -> None:
        """A turn begins."""
        self._stuck = 0

    def end(self) -> None:
        """A turn ends: the next one goes on here."""

    def next(self) -> Computation | None:
        """Take out the next one, until all of them have been tried in vain."""
        if self._stuck >= len(self.waiting):
            return None
        return self.waiting.popitem(last=False)[1]

    def portion(self, comp: Computation, rounds: int) -> int:
        """One long job, or a few short ones; who is alone has nobody to be fair to."""
        if rounds == 1:
            return 1
        return QUANTUM if self.waiting else len(comp.waiting)

    def is_behind(self, comp: Computation) -> bool:
        """Nobody counts here what the others have."""
        return True

    def put_back(self, comp: Computation, placed: int) -> bool:
        """It has had its turn, and goes behind the others if it has more to place."""
        if comp.waiting:
            self.waiting[comp.id] = comp
            self._stuck = 0 if placed else self._stuck + 1
        return self._stuck == 1

    def put_first(self, comp: Computation) -> None:
        """The turn ends where it began."""
        self.waiting.move_to_end(comp.id, last=False)

    def check(self) -> None:
        """Nobody is ranked."""


class Shares:
    """Clients that share the cpus equally.

    Those that have jobs waiting stand in the order of their ranks, from turn to turn: a turn costs
    the same however many there are.
    """

    limits_pinned = True

    def __init__(self, most_cpus: int = 0) -> None:
        self.most_cpus = most_cpus  # of one client at a time; 0: as many as there are
        self.waiting: dict[int, Computation] = {}
        self.clients: dict[str, Client] = {}
        self._numbered: dict[int, Client] = {}  # the same
        self._owners: dict[int, Client] = {}  # by computation
        self._numbers = 0
        self._used = 0.0  # of the client that was served last
        self._now = 0.0  # when the last turn began
        self._looked_at = 0.0  # when all of them were weighed
        self._changed: dict[Client, None] = {}  # those that are to be weighed anew
        self._standing: dict[Client, Rank] = {}  # those with waiting jobs
        self._line: list[Rank] = []  # the same, but for those that were passed
        # of this turn
        self.is_alone = False
        self._most_held = 0.0  # cpus of one client of those that were given some
        self._is_most_known = False  # of those as well that only wait
        self._passed: list[Rank] = []  # they can have no more
        self._stuck: set[int] = set()  # computations that found no room

    def enlist(self, comp: Computation) -> None:
        """A computation has waiting jobs."""
        client = self._owner(comp)
        is_new = not client.waiting
        client.waiting[comp.id] = self.waiting[comp.id] = comp
        if is_new:
            client.begin_at(self._used)
            self._stand(client)
        self._changed[client] = None

    def _stand(self, client: Client) -> None:
        """Have a client stand where it belongs, if it has jobs waiting."""
        before = self._standing.pop(client, None)
        if before is not None:
            del self._line[bisect_left(self._line, before)]
        if client.waiting:
            self._standing[client] = client.rank
            insort(self._line, client.rank)

    def changed(self, comp: Computation) -> None:
        """More or fewer of its jobs are with nodes than it has placed itself."""
        owner = self._owners.get(comp.id)
        if owner is not None:
            self._changed[owner] = None

    def client_changed(self, comp: Computation) -> None:
        """A computation was taken over: it uses the part of its new client."""
        if comp.id in self._owners:
            is_waiting = comp.id in self.waiting
            self._owner(comp)
            if is_waiting:
                self.enlist(comp)

    def _owner(self, comp: Computation) -> Client:
        """The client whose part it uses."""
        owner = self._owners.get(comp.id)
        if owner is not None and owner.peer == comp.client:
            return owner
        if owner is not None:
            self.withdraw(comp)
        owner = self.clients.get(comp.client)
        if owner is None:
            self._numbers += 1
            owner = self.clients[comp.client] = Client(comp.client, self._numbers)
            self._numbered[owner.number] = owner
        owner.add(comp, self._now)
        self._changed[owner] = None
        self._owners[comp.id] = owner
        return owner

    def withdraw(self, comp: Computation) -> None:
        """A computation is closed; a client without any is forgotten."""
        self.waiting.pop(comp.id, None)
        owner = self._owners.pop(comp.id, None)
        if owner is not None:
            owner.remove(comp)
            self._stand(owner)
            self._changed[owner] = None
            if not owner.computations:
                del self.clients[owner.peer], self._numbered[owner.number], self._changed[owner]

    def begin(self, now: float) -> None:
        """A turn begins."""
        self._now = now
        if now >= self._looked_at + LOOK_INTERVAL:
            self._looked_at = now
            self._changed.update(dict.fromkeys(self._standing))
        changed = [client for client in self._changed if client.waiting]
        self._changed.clear()
        for client in changed:
            client.weigh(now)
            if len(changed) <= FEW:
                self._stand(client)
        if len(changed) > FEW:
            self._standing = {client: client.rank for client in self._standing}
            self._line = sorted(self._standing.values())
        self.is_alone = len(self._line) == 1
        self._most_held, self._is_most_known = 0.0, False

    def end(self) -> None:
        """A turn ends."""
        if self._passed:
            self._line += self._passed
            self._line.sort()
            self._passed.clear()
        self._stuck.clear()

    def next(self) -> Computation | None:
        """Choose from the client that has the fewest cpus, of those that can have more."""
        line, stuck = self._line, self._stuck
        while line:
            client = self._numbered[line[0][-1]]
            for comp in client.waiting.values():
                if comp.id not in stuck and self.may_have(client, comp):
                    return comp
            self._passed.append(line.pop(0))
        return None

    def may_have(self, client: Client, comp: Computation) -> bool:
        """Whether one more of its jobs is within the most cpus of a client."""
        most = self.most_cpus
        return not most or client.cpus + comp.declared.resources.cpus <= most

    def portion(self, comp: Computation, rounds: int) -> int:
        """So many that the client has as much as the next one, and a cpu more."""
        line, clients, needed = self._line, self._numbered, comp.declared.resources.cpus
        client = clients[line[0][-1]]
        behind = min((clients[rank[-1]].held for rank in line[1:3]), default=inf)
        jobs: float = len(comp.waiting)
        if behind < inf:
            cpus = max(1.0, behind - client.held)
            jobs = max(1 if rounds == 1 else QUANTUM, cpus * rounds // needed)
        if self.most_cpus:
            jobs = min(jobs, (self.most_cpus - client.cpus) // needed)
        return int(jobs)

    def is_behind(self, comp: Computation) -> bool:
        """Whether its client, with one more job, would have no more than another that waits."""
        owner = self._owners.get(comp.id)
        if self.is_alone or owner is None:
            return owner is not None
        return owner.held + comp.declared.resources.cpus <= self._find_most_held()

    def _find_most_held(self) -> float:
        if not self._is_most_known:  # it is asked for seldom
            held = max((client.held for client in self._standing), default=0.0)
            self._most_held, self._is_most_known = max(self._most_held, held), True
        return self._most_held

    def put_back(self, comp: Computation, placed: int) -> bool:
        """It has had its turn; the next one of its client's goes before it."""
        client = self._numbered[self._line[0][-1]]
        if comp.waiting:
            client.waiting.move_to_end(comp.id)
        else:
            del client.waiting[comp.id], self.waiting[comp.id]
        if placed:
            client.got(comp, placed, self._now)
            self._most_held = max(self._most_held, client.held)
            self._used = max(self._used, min(client.used, LONGEST))
        if placed or not client.waiting:
            self._stand(client)
        if placed:
            return False
        self._stuck.add(comp.id)
        return len(self._stuck) == 1

    def put_first(self, comp: Computation) -> None:
        """Who has the fewest cpus goes first in the next turn as well."""

    def check(self) -> None:
        """Raise `InvariantBroken` if clients have other jobs than they are ranked by."""
        for client in self.clients.values():
            if client.waiting and client not in self._changed and not client.is_weighed():
                raise InvariantBroken(f'{client.peer}: {client.cpus} cpus, {client.held} kept busy')
            if (client in self._standing) != bool(client.waiting):
                raise InvariantBroken(f'{client.peer}: stands there, or has jobs waiting')
        if self._line != sorted(self._standing.values()):
            raise InvariantBroken('clients do not stand in the order of their ranks')
