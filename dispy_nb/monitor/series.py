"""The figures of a cluster's nodes over time: a bounded number of points, thinned evenly.

All nodes have their points at the same moments.  The latest point is always there; whether it
stays is seen when the next one comes.  When there are too many, every second one goes, and from
then on only every second one stays.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from math import isnan, nan

from dispy_nb.snapshot import NodeSnapshot, Snapshot

MOST_POINTS = 200  # of a node; at least half of them, once there were so many
RATE_WINDOW = 4.0  # seconds over which jobs per second are counted, at least
GAP = 10.0  # seconds without a look, and the lines are broken
METRICS = ('cpu', 'memory', 'running', 'rate')


class NodeSeries:
    """One node's figures: per cent, per cent, jobs, jobs per second; `nan` where unknown."""

    __slots__ = ('cpu', 'done', 'jobs_done', 'memory', 'name', 'rate', 'running')

    def __init__(self, name: str, missed: int) -> None:
        self.name = name
        self.jobs_done = 0  # now
        empty = [nan] * missed
        self.cpu, self.memory = array('f', empty), array('f', empty)
        self.running, self.rate = array('f', empty), array('f', empty)
        self.done = array('d', [0.0] * missed)  # jobs so far, of which the rate is made

    def columns(self) -> tuple['array[float]', ...]:
        """All columns, to be changed together."""
        return self.cpu, self.memory, self.running, self.rate, self.done

    def thin(self) -> None:
        """Drop every second point."""
        self.cpu, self.memory = self.cpu[1::2], self.memory[1::2]
        self.running, self.rate = self.running[1::2], self.rate[1::2]
        self.done = self.done[1::2]


class Series:
    """Figures of all nodes of one cluster, taken from its snapshots.

    Parameters
    ----------
    cpus_per_job : int
        What each running job has for itself.
    most : int
        How many points there are at most.
    """

    def __init__(self, cpus_per_job: int = 1, most: int = MOST_POINTS) -> None:
        self.times = array('d')  # seconds since the epoch
        self.nodes: dict[str, NodeSeries] = {}
        self.stride = 1  # each so-manieth look stays
        self._cpus_per_job = cpus_per_job
        self._most = most
        self._looks = 0  # since one that stays
        self._since = 0  # the point behind the last gap
        self._seen_at = 0.0

    @property
    def lasting(self) -> int:
        """How many points stay: all, or all but the latest one."""
        return len(self.times) - (1 if self._looks else 0)

    def add(self, snapshot: Snapshot, now: float) -> None:
        """Take in the figures of this moment."""
        if self.times:
            now = max(now, self.times[-1])  # the clock may have been set back
        if self._looks:
            self._drop_latest()
        if self.times and now - self._seen_at > GAP:
            self._break_lines(now - RATE_WINDOW / 4)
        self._seen_at = now
        first = self._first_of_rate(now)
        self.times.append(now)
        for node in snapshot.nodes:
            self._add_node(node, first)
        for series in self.nodes.values():  # those that the snapshot has no more
            if len(series.cpu) < len(self.times):
                _append(series, nan, nan, nan, nan, series.jobs_done)
        self._looks += 1
        if self._looks >= self.stride:
            self._looks = 0
            if len(self.times) >= self._most:
                self._thin()

    def busiest(self) -> list[str]:
        """Return the keys of the nodes, of those that have done most jobs first."""
        return sorted(self.nodes, key=lambda key: -self.nodes[key].jobs_done)

    def column(self, keys: Iterable[str], metric: str, start: int, stop: int) -> Sequence[float]:
        """Return a figure of one node, or the mean of several, which can be drawn beside it."""
        columns = [getattr(self.nodes[key], metric)[start:stop] for key in keys]
        if len(columns) == 1:
            return list(columns[0])
        return [_mean(values) for values in zip(*columns, strict=True)]

    def _first_of_rate(self, now: float) -> int:
        """Find the point since which jobs are counted; -1 if there is none."""
        if not self.times:
            return -1
        return max(bisect_right(self.times, now - RATE_WINDOW) - 1, self._since, 0)

    def _add_node(self, node: NodeSnapshot, first: int) -> None:
        key = node.id or f'{node.name} {node.address}'
        series = self.nodes.get(key)
        if series is None:
            name = node.name or node.address
            series = self.nodes[key] = NodeSeries(name, len(self.times) - 1)
        rate = nan
        if first >= 0:
            passed = self.times[-1] - self.times[first]
            rate = max(0.0, node.jobs_done - series.done[first]) / passed if passed else nan
        series.jobs_done = node.jobs_done
        known = node.memory and node.memory_in_use is not None
        memory = 100 * (node.memory_in_use or 0) / node.memory if known else nan
        cpu = nan if node.cpu_in_use is None else node.cpu_in_use
        _append(series, cpu, memory, node.busy // self._cpus_per_job, rate, node.jobs_done)

    def _drop_latest(self) -> None:
        self.times.pop()
        for series in self.nodes.values():
            for column in series.columns():
                column.pop()

    def _break_lines(self, at: float) -> None:
        """Nobody looked for a while: a point without figures, from which jobs are counted anew."""
        self.times.append(at)
        for series in self.nodes.values():
            _append(series, nan, nan, nan, nan, series.jobs_done)
        self._since = len(self.times) - 1

    def _thin(self) -> None:
        self.times = self.times[1::2]
        for series in self.nodes.values():
            series.thin()
        self.stride *= 2
        self._since //= 2


class Slots:
    """Places for a few of many: who stays among them keeps its place, and so its colour.

    Parameters
    ----------
    most : int
        How many places there are.
    rank : int, optional
        Who has a place keeps it while it is among so many: those that are about equal would
        change places all the time otherwise.
    """

    def __init__(self, most: int, rank: int = 0) -> None:
        self.keys: list[str] = []
        self._most = most
        self._rank = max(most, rank)

    def choose(self, ranked: Sequence[str]) -> bool:
        """Give places to the first of these; whether anything has changed."""
        staying = set(ranked[: self._rank]).intersection(self.keys)
        leaving = [key for key in self.keys if key not in staying]
        free = self._most - len(staying)
        coming = [key for key in ranked if key not in staying][:free]
        for key in coming:
            if leaving:
                self.keys[self.keys.index(leaving.pop(0))] = key
            else:
                self.keys.append(key)
        return bool(coming)


def _append(series: NodeSeries, *values: float) -> None:
    for column, value in zip(series.columns(), values, strict=True):
        column.append(value)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return sum(known) / len(known) if known else nan
