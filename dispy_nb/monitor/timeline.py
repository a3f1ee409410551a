"""Jobs as bars: by node, one below the other where they ran at the same time."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from dispy_nb.history import Span
from dispy_nb.monitor.series import Series, Slots
from dispy_nb.snapshot import JobSnapshot, Snapshot
from nodeserver.core.status import JobStatus

MOST_BARS = 240  # of jobs that have ended
MOST_RUNNING = 64
MOST_ROWS = 16  # nodes
JOBS_LOOKED_AT = 2 * MOST_RUNNING  # the first pending ones, some of which only wait
_MARGIN = 0.1  # of a row, on either side
_WORDS = {JobStatus.FINISHED: 'finished', JobStatus.CANCELLED: 'cancelled'}


class JobBar(NamedTuple):
    """One job: seconds since the zero of the time axis, and where in its row it is."""

    left: float
    right: float
    bottom: float
    top: float
    status: str
    id: str
    arguments: str
    node: str
    took: str


class _Run(NamedTuple):
    """The same before it has a place."""

    left: float
    right: float
    status: str
    id: str
    arguments: str
    node: str


class Timeline:
    """Bars of the jobs that have ended, an even choice of them, and of those that run.

    Parameters
    ----------
    cpus_per_job : int
        What each running job has for itself.
    """

    def __init__(self, cpus_per_job: int = 1) -> None:
        self.ended: list[JobBar] = []
        self.running: list[JobBar] = []
        self.rows: list[str] = []  # names of nodes, from the top down
        self.every = 1  # one of so many ended jobs has a bar
        self.epoch: Hashable = None  # while it is the same, `ended` only grows
        self._cpus_per_job = cpus_per_job
        self._slots = Slots(MOST_ROWS, 2 * MOST_ROWS)
        self._lanes: dict[str, int] = {}  # how many bars a row has had side by side

    def put(
        self, snapshot: Snapshot, spans: Sequence[Span], stride: int, zero: float, now: float
    ) -> None:
        """Lay out the jobs of this moment; each so-manieth span stands in `spans`."""
        self._slots.choose(_ranked(snapshot))
        self.rows = sorted(self._slots.keys, key=in_words)
        rows = set(self.rows)
        spans = [span for span in spans if span.node in rows]
        each = 1
        while len(spans) > each * MOST_BARS:
            each *= 2
        self.every = stride * each
        places: dict[str, list[float]] = {name: [] for name in self.rows}
        ended = self._with_lanes(_ended(spans[::each], zero), places)
        running = self._with_lanes(self._running(snapshot, now - zero), places)
        for name, lanes in places.items():
            self._lanes[name] = max(self._lanes.get(name, 1), len(lanes))
        lanes_now = tuple(self._lanes[name] for name in self.rows)
        self.epoch = (self.every, zero, tuple(self.rows), lanes_now)
        self.ended = [self._bar(run, lane) for run, lane in ended]
        self.running = [self._bar(run, lane, ' so far') for run, lane in running]

    def _running(self, snapshot: Snapshot, now: float) -> list[_Run]:
        """Those that run: a node has some more with it, which wait."""
        room: dict[str, int] = {}
        for node in snapshot.nodes:
            room[node.name] = room.get(node.name, 0) + node.busy // self._cpus_per_job
        jobs = [job for job in snapshot.jobs if job.status == 'running']
        chosen: list[_Run] = []
        for job in sorted(jobs, key=lambda job: -job.seconds):
            if room.get(job.node, 0) > 0 and len(chosen) < MOST_RUNNING:
                room[job.node] -= 1
                chosen.append(_run_of(job, now))
        return chosen

    def _with_lanes(
        self, runs: Iterable[_Run], places: dict[str, list[float]]
    ) -> list[tuple[_Run, int]]:
        """Find for each a lane of its row that is free, the one that became so last.

        They come in the order of their ends, so that a lane is free for who began after its last.
        """
        placed = []
        for run in runs:
            ends = places.get(run.node)
            if ends is None:
                continue
            free = [lane for lane, end in enumerate(ends) if end <= run.left + 0.001]
            if free:
                lane = max(free, key=ends.__getitem__)
                ends[lane] = run.right
            else:
                lane = len(ends)
                ends.append(run.right)
            placed.append((run, lane))
        return placed

    def _bar(self, run: _Run, lane: int, so_far: str = '') -> JobBar:
        row = len(self.rows) - 1 - self.rows.index(run.node)
        height = (1 - 2 * _MARGIN) / self._lanes[run.node]
        top = row + 1 - _MARGIN - lane * height
        return JobBar(
            round(run.left, 2),
            round(run.right, 2),
            round(top - 0.9 * height, 3),
            round(top, 3),
            run.status,
            run.id,
            run.arguments,
            run.node,
            seconds_text(run.right - run.left) + so_far,
        )


class Band(NamedTuple):
    """A time in which a node had jobs, of which not each has a bar; as in `JobBar`."""

    left: float
    right: float
    bottom: float
    top: float


def busy_bands(series: Series, rows: Sequence[str], zero: float) -> list[Band]:
    """Say when the nodes of these rows had jobs: between the bars of a choice they seem idle."""
    bands: list[Band] = []
    for place, name in enumerate(rows):
        nodes = [node for node in series.nodes.values() if node.name == name]
        busy = [any(node.running[at] > 0 for node in nodes) for at in range(len(series.times))]
        bottom = len(rows) - 1 - place + _MARGIN
        for at in range(1, len(busy)):
            if not (busy[at - 1] and busy[at]):
                continue
            left, right = series.times[at - 1] - zero, round(series.times[at] - zero, 2)
            if bands and (bands[-1].bottom, bands[-1].right) == (bottom, round(left, 2)):
                left = bands.pop().left
            bands.append(Band(round(left, 2), right, bottom, bottom + 1 - 2 * _MARGIN))
    return bands


def in_words(name: str) -> list[tuple[int, str]]:
    """Make a key by which names are sorted as people do: node-2 before node-10."""
    parts = re.split(r'(\d+)', name)
    return [(int(part) if part.isdecimal() else 0, part) for part in parts]


def seconds_text(seconds: float) -> str:
    """Write a length of time with about three digits."""
    if seconds < 1:
        return f'{1000 * seconds:.0f} ms'
    return f'{seconds:.2f} s' if seconds < 10 else f'{seconds:,.1f} s'


def _ranked(snapshot: Snapshot) -> list[str]:
    nodes = sorted(snapshot.nodes, key=lambda node: -(node.jobs_done + node.busy))
    return list(dict.fromkeys(node.name for node in nodes))


def _ended(spans: Iterable[Span], zero: float) -> list[_Run]:
    return [
        _Run(
            span.start - zero,
            span.end - zero,
            _WORDS.get(span.status, 'failed'),
            span.id,
            span.arguments,
            span.node,
        )
        for span in spans
    ]


def _run_of(job: JobSnapshot, now: float) -> _Run:
    return _Run(now - job.seconds, now, 'running', job.id, job.arguments, job.node)
