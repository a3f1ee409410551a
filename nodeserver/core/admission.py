"""Which computations may start: one that wants all nodes for itself waits for those that run.

    declared ──▶ held back ──▶ running ──▶ closed
                     │
                     └── until it is its turn, in the order in which they were declared

*Running* is a computation that was let in and has not been closed.  While one of them is
`exclusive`, all others are held back.  While an exclusive one waits, so are those that are
declared after it: else it might wait for ever.  But a client that has a computation running may
add more: it may be unable to close that one without them.

What is held back is open on no node and takes jobs as any other: they wait.  A client that is away
holds the way only as long as some of its jobs have not ended.

After a restart the programs of before come back one after the other.  Until they had time to do so,
nobody is let in who could not run beside one that is yet to come.
"""

from collections.abc import Callable, Sequence
from math import inf

from nodeserver.core.computation import NOTICE_DELAY, Computation
from nodeserver.core.recoveryevents import PlacementsKnown
from nodeserver.core.recruiting import Recruiting

REUNION_SECONDS = 30.0  # that programs of a scheduler of before have to come back


class Admission:
    """Lets computations start, at once or in turn."""

    def __init__(
        self,
        fleet: Recruiting,
        is_shared: bool,
        enlist: Callable[[Computation], None],
        is_away: Callable[[str], bool],
    ) -> None:
        self._fleet = fleet
        self._is_shared = is_shared
        self._enlist = enlist
        self._is_away = is_away  # whether a client is
        self._expected: dict[int, bool] = {}  # by computation: whether it is exclusive

    def expect(self, event: PlacementsKnown, now: float) -> float:
        """A computation of a scheduler of before may come back; until when others wait for it."""
        self._expected[event.computation] = event.exclusive
        return now + REUNION_SECONDS

    def expect_no_more(self) -> None:
        """Those that have not come back by now are not waited for."""
        self._expected.clear()

    def declare(self, comp: Computation, now: float) -> None:
        """A computation is declared: it starts now or when it may."""
        self._expected.pop(comp.id, None)
        if not self._is_shared:
            self._fleet.declare(comp, now)
            return
        self._hold_back(comp)
        declared = comp.declared
        if declared.resumes and declared.nodes:  # it was let in before
            self._start(comp, now)
        else:
            self.run(now)

    def run(self, now: float) -> bool:
        """Let in those whose turn has come; whether there were any."""
        held_back = self._fleet.held_back
        if not held_back:
            return False
        has_started, running, ahead = False, self._running(), list[Computation]()
        for comp in list(held_back.values()):
            if comp.closing or comp.id not in self._fleet.computations:
                del held_back[comp.id]
            elif self._is_over(comp):
                continue
            elif not (self._awaits_others(comp) or _blockers(comp, running, ahead)):
                self._start(comp, now)
                has_started, running = True, self._running()
            elif comp.declared.exclusive:
                ahead.append(comp)
        return has_started

    def blockers(self, comp: Computation) -> Sequence[Computation]:
        """Those for which a computation that is held back has to wait."""
        ahead = list[Computation]()
        for other in self._fleet.held_back.values():
            if other is comp:
                break
            if other.declared.exclusive and not self._is_over(other):
                ahead.append(other)
        return _blockers(comp, self._running(), ahead)

    def is_held_back(self, comp: Computation) -> bool:
        """Whether a computation waits for its turn."""
        return comp.id in self._fleet.held_back

    def _awaits_others(self, comp: Computation) -> bool:
        """Whether one may come back soon that could not run beside this one."""
        is_alone = comp.declared.exclusive
        return any(is_alone or is_exclusive for is_exclusive in self._expected.values())

    def _running(self) -> list[Computation]:
        held_back, computations = self._fleet.held_back, self._fleet.computations
        return [
            comp
            for comp in computations.values()
            if comp.id not in held_back and not self._is_over(comp)
        ]

    def _is_over(self, comp: Computation) -> bool:
        """Whether nothing is left to do, and nobody is there to add something or to close it."""
        return not (comp.waiting or comp.jobs or comp.takeover) and self._is_away(comp.client)

    def _hold_back(self, comp: Computation) -> None:
        self._fleet.computations[comp.id] = self._fleet.held_back[comp.id] = comp
        comp.ping_at = inf  # no nodes are looked for

    def _start(self, comp: Computation, now: float) -> None:
        """Let one in; those that are over would have to wait for it if their clients came back."""
        for other in list(self._fleet.computations.values()):
            is_alone = comp.declared.exclusive or other.declared.exclusive
            if is_alone and not self.is_held_back(other) and self._is_over(other):
                self._hold_back(other)
        del self._fleet.held_back[comp.id]
        comp.notice_at = now + NOTICE_DELAY
        self._fleet.declare(comp, now)
        if comp.waiting:
            self._enlist(comp)


def _blockers(
    comp: Computation, running: Sequence[Computation], ahead: Sequence[Computation]
) -> Sequence[Computation]:
    """Whom a computation waits for; `ahead` are exclusive ones that wait too, and came before."""
    if comp.declared.exclusive:
        return running or ahead
    exclusive = [other for other in running if other.declared.exclusive]
    if exclusive or not ahead:
        return exclusive
    return [] if any(other.client == comp.client for other in running) else ahead
