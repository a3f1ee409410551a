"""What the clients of one scheduler have, and have had, of the cpus."""

from collections import OrderedDict

from nodeserver.core.computation import Computation

SHORTEST, LONGEST_METERED = 0.02, 1.0  # seconds: jobs whose use of their cpus is metered
LOOK_INTERVAL = 0.25  # seconds between two looks at that
MEMORY = 5.0  # seconds for which it counts

Rank = tuple[float, float, int]  # cpus kept busy, cpu seconds used, and its number


class Meter:
    """How much of its cpus a short job of a computation does use while it is with a node.

    Those that are given out ahead of need run at once where the others on their node are few, and
    others wait behind them: with many clients on each node that is a sixth more, or less, than
    was to be expected.
    """

    __slots__ = ('_at', '_cpus', '_should', '_used', '_was_used', 'busy')

    def __init__(self, now: float, used: float) -> None:
        self.busy = 0.0  # of a cpu, from 0 to 1; 0: not known yet
        self._at = now
        self._cpus = 0  # that its jobs would use at that time if all of them ran
        self._should = self._used = 0.0  # cpu seconds lately
        self._was_used = used

    def look(self, now: float, cpus: int, used: float, expected: float) -> None:
        """Compare, once in a while."""
        passed = now - self._at
        if passed < LOOK_INTERVAL:
            return
        if not used:  # as long as none has ended nothing is known
            self._at, self._cpus = now, cpus
            return
        kept = max(0.0, 1.0 - passed / MEMORY)
        self._should = kept * self._should + self._cpus * passed
        self._used = kept * self._used + used - self._was_used
        self._at, self._cpus, self._was_used = now, cpus, used
        # as if it had gone on for a second as it was found before, or else as expected
        found = (self._used + cpus * (self.busy or expected)) / (self._should + cpus)
        self.busy = min(1.0, max(expected / 2, found))

    def got(self, now: float, cpus: int) -> None:
        """Its jobs would use so many cpus for the time after this turn."""
        if self._at == now:
            self._cpus = cpus


class Client:
    """What one client has, and has had, of the cpus."""

    __slots__ = (
        '_base',
        '_meters',
        'computations',
        'cpus',
        'held',
        'number',
        'peer',
        'rank',
        'used',
        'waiting',
    )

    def __init__(self, peer: str, number: int) -> None:
        self.peer = peer
        self.number = number
        self.computations: dict[int, Computation] = {}
        self.waiting: OrderedDict[int, Computation] = OrderedDict()  # with waiting jobs, in turn
        self._base = 0.0
        self._meters: dict[int, Meter] = {}  # of computations
        # as it was weighed last
        self.held = 0.0  # cpus that its jobs keep busy
        self.cpus = 0  # that they would use if all of them ran
        self.used = 0.0  # cpu seconds, counted from a moment that is the same for all
        self.rank = self._rank()  # who has the lowest one goes first

    def weigh(self, now: float = 0.0) -> None:
        """Find out what it has; with a moment, compare that with what it has used."""
        held, cpus, used = 0.0, 0, self._base
        for comp in self.computations.values():
            needed, pace = comp.declared.resources.cpus, comp.pace
            used += needed * pace.used_seconds
            if comp.jobs:
                count = needed * len(comp.jobs)
                cpus += count
                if now:
                    used_here = needed * pace.used_seconds
                    meter = self._meters[comp.id]
                    meter.look(now, count, used_here, 1 / pace.jobs_per_cpu())
                held += count * self.busy_of(comp)
        self.held, self.cpus, self.used = held, cpus, used
        self.rank = self._rank()

    def busy_of(self, comp: Computation) -> float:
        """How much of a cpu each of its jobs keeps busy that is with a node."""
        pace = comp.pace
        known = self._meters[comp.id].busy if pace.is_between(SHORTEST, LONGEST_METERED) else 0.0
        return known or 1 / pace.jobs_per_cpu()

    def got(self, comp: Computation, placed: int, now: float) -> None:
        """So many more of its jobs are with nodes: what has ended in this turn was replaced."""
        count = placed * comp.declared.resources.cpus
        self.cpus += count
        self.held += count * self.busy_of(comp)
        self.rank = self._rank()
        self._meters[comp.id].got(now, comp.declared.resources.cpus * len(comp.jobs))

    def is_weighed(self) -> bool:
        """Whether it has what it had when it was weighed last."""
        counts = [(c, c.declared.resources.cpus * len(c.jobs)) for c in self.computations.values()]
        held = sum(count * self.busy_of(comp) for comp, count in counts)
        return self.cpus == sum(count for _, count in counts) and abs(self.held - held) < 1e-6

    def begin_at(self, used: float) -> None:
        """It had nothing to do: it begins where the others are, and does not catch up."""
        self.weigh()
        self._base += max(0.0, used - self.used)

    def add(self, comp: Computation, now: float) -> None:
        """A computation is its own."""
        self.computations[comp.id] = comp
        used = comp.declared.resources.cpus * comp.pace.used_seconds
        self._meters[comp.id] = Meter(now, used)
        self._base -= used

    def remove(self, comp: Computation) -> None:
        """A computation is no longer its own; what that has used it has used all the same."""
        if self.computations.pop(comp.id, None) is not None:
            self.waiting.pop(comp.id, None)
            del self._meters[comp.id]
            self._base += comp.declared.resources.cpus * comp.pace.used_seconds

    @property
    def seconds(self) -> float:
        """Cpu time that the jobs of its computations have used."""
        computations = self.computations.values()
        return sum(c.pace.used_seconds * c.declared.resources.cpus for c in computations)

    def _rank(self) -> Rank:
        return self.held // 1, self.used, self.number
