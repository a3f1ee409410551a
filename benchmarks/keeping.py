"""What it costs to keep records of jobs: `python -m benchmarks.keeping [--quick]`.

Clusters whose programs, or schedulers, write different records are open at the same time, each on a
node of its own, and take turns: what else the machine does meets all alike.  To have something to
compare with, the first one of each kind has its records taken away, for which there is no option.

    turn     20,000 jobs that do nothing, 400 each 20 ms: cpu time of who keeps records, and of all
    burst    40,000 of them as fast as they can be submitted: jobs/s
    spool    what a node writes while the program is gone: the node's cpu time
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from benchmarks import functions
from benchmarks.systems.base import Session
from benchmarks.systems.dispy import Dispy
from benchmarks.systems.shared import Shared
from dispy_nb.recovery.journal import Journal
from dispy_nb.recovery.journalfile import JournalPlan
from nodeserver.core.recoveryeffects import Keeping

RATE, SLICE = 20_000, 0.02  # jobs a second, and seconds between two lots of them
TURNS = 7
WARMING = 5000  # jobs of each cluster before the first turn
ISOLATION = 'worker'
BLOCKED = 3.0  # seconds that jobs take behind which all others are queued
STATELESS = (
    sys.executable,
    '-c',
    """
import sys
from nodeserver.cli import dispyscheduler

options_of = dispyscheduler.options_of
dispyscheduler.options_of = lambda arguments, directory: options_of(arguments, None)
sys.exit(dispyscheduler.main())
""",
)
PROGRAM = """
import sys, time
import dispy_nb

def same(value):
    if value < 0:
        import time
        time.sleep(-value)
    return value

node, scheduler, count, recover = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
cluster = dispy_nb.SharedJobCluster(
    same, nodes=[('127.0.0.1', node)], ip_addr='127.0.0.1', port=0, scheduler_node='127.0.0.1',
    scheduler_port=scheduler, isolation='worker', progress=False, recover_file=recover,
)
for number in range(2000):
    cluster.submit(number)
cluster.wait()
jobs = [cluster.submit(-3.0 if number < 2 else number) for number in range(count)]
while 'waiting' not in cluster.explain():
    time.sleep(0.01)
print('queued', flush=True)
cluster.wait()
print('done', flush=True)
time.sleep(60)
"""


class NoJournal(Journal):
    """A journal that nobody writes."""

    def __init__(self, plan: JournalPlan, *others: Any) -> None:
        super().__init__(replace(plan, keeping=Keeping.NOTHING), *others)

    def record_node(self, effect: Any) -> None:
        """Write nothing."""

    def record_placements(self, node: str, ids: list[int], attempts: list[int]) -> None:
        """Write nothing."""

    def rewrite(self, effect: Any) -> None:
        """Write nothing."""

    def note_id(self, number: int, given: Any) -> None:
        """Write nothing."""


@dataclass
class Way:
    """A system with a cluster on it, and what was measured."""

    title: str
    session: Session
    schedulers: list[psutil.Process]
    nodes: list[psutil.Process]  # and their workers
    rates: list[float] = field(default_factory=list)  # jobs/s
    # microseconds of cpu for a job: of those that keep something, and of all
    own: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def turn(self, count: int) -> None:
        """Submit jobs at a steady rate."""
        before, lot = self._cpu(), int(RATE * SLICE)
        began, jobs = time.perf_counter(), []
        for first in range(0, count, lot):
            jobs += [self.session.submit(number) for number in range(first, first + lot)]
            time.sleep(max(0.0, began + (first + lot) / RATE - time.perf_counter()))
        for job in jobs:
            self.session.result(job)
        own, all_of_them = self._cpu()
        self.own.append((own - before[0]) / len(jobs) * 1e6)
        self.costs.append((all_of_them - before[1]) / len(jobs) * 1e6)

    def burst(self, count: int) -> None:
        """Submit jobs as fast as it can be done."""
        began = time.perf_counter()
        self.session.results((number,) for number in range(count))
        self.rates.append(count / (time.perf_counter() - began))

    def _cpu(self) -> tuple[float, float]:
        own = time.process_time() + sum(map(_cpu_of, self.schedulers))
        return own, own + sum(map(_cpu_of, self.nodes))


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def opened(title: str, system: Dispy, journal: str, directory: Path) -> Iterator[Way]:
    """Open a cluster of which so much is kept: nothing, ids, or all."""
    kind = NoJournal if journal == 'nothing' else Journal
    options = {'recover_file': str(directory / title.replace(' ', '_'))}
    if journal == 'all':
        options['name'] = title
    with system:
        with mock.patch('dispy_nb.cluster.Journal', kind):
            opening = system.open(functions.same, **options)
            session = opening.__enter__()
        schedulers = [psutil.Process(system.server)] if isinstance(system, Shared) else []
        session.results((number,) for number in range(WARMING))
        nodes = [psutil.Process(pid) for pid in system.pids]
        nodes += [each for node in nodes for each in node.children(recursive=True)]
        try:
            yield Way(title, session, schedulers, nodes)
        finally:
            opening.__exit__(None, None, None)


KINDS: dict[str, list[tuple[str, Any, str]]] = {
    'scheduler in the program': [
        ('nothing kept', partial(Dispy, ISOLATION), 'nothing'),
        ('ids kept', partial(Dispy, ISOLATION), 'ids'),
        ('all kept', partial(Dispy, ISOLATION), 'all'),
    ],
    'dispyscheduler': [
        ('nothing kept', partial(Shared, ISOLATION, STATELESS), 'nothing'),
        ('its state', partial(Shared, ISOLATION), 'nothing'),
        ('its state and ids', partial(Shared, ISOLATION), 'ids'),
        ('its state and all', partial(Shared, ISOLATION), 'all'),
    ],
}


def compare(kind: str, turns: int, count: int) -> Iterator[str]:
    """Rows of a table: each way of keeping beside nothing, within each turn."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        ways = [
            stack.enter_context(opened(title, make(), journal, Path(directory)))
            for title, make, journal in KINDS[kind]
        ]
        for turn in range(turns):
            for way in ways if turn % 2 else reversed(ways):
                way.turn(count)
            for way in ways if turn % 2 else reversed(ways):
                way.burst(2 * count)
    for way in ways:
        cpu, rate = _beside(way.costs, ways[0].costs), _beside(way.rates, ways[0].rates)
        own, cost = statistics.median(way.own), statistics.median(way.costs)
        yield f'| {kind}, {way.title} | {own:.1f} | {cost:.1f} | {cpu} | {rate} |'


def _beside(found: Sequence[float], other: Sequence[float]) -> str:
    ratios = [one / two for one, two in zip(found, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f'{middle:.2f} [{low:.2f}..{high:.2f}]'


def spool(turns: int, count: int) -> Iterator[str]:
    """Rows of a table: a node's cpu time for a job whose program is there, or was killed."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for turn in range(turns):
        for is_killed in (False, True) if turn % 2 else (True, False):
            with Shared(ISOLATION) as system, tempfile.TemporaryDirectory() as directory:
                found[is_killed].append(_without_program(system, count, directory, is_killed))
    for is_killed, rows in found.items():
        cost, rate = (statistics.median(column) for column in zip(*rows, strict=True))
        title = 'was killed' if is_killed else 'is there'
        yield f'| the program {title} | {cost:.1f} | {rate:,.0f} |'


def _without_program(
    system: Shared, count: int, directory: str, is_killed: bool
) -> tuple[float, float]:
    """Microseconds of the node's cpu time for a job, and jobs/s."""
    port = system.nodes[0][1]
    words = [str(port), str(system.port), str(count), f'{directory}/recover']
    program = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, *words], stdout=subprocess.PIPE, text=True, cwd=directory
    )
    assert program.stdout is not None
    try:
        program.stdout.readline()
        node = psutil.Process(system.pids[0])
        if is_killed:
            program.send_signal(signal.SIGKILL)
            program.wait()
        workers = node.children(recursive=True)
        before, began = _cpu_of(node), time.perf_counter()
        last, idle_since = -1.0, 0.0
        while idle_since == 0.0 or time.perf_counter() - idle_since < 0.5:
            time.sleep(0.02)
            used = sum(map(_cpu_of, workers))
            if used != last or time.perf_counter() - began < BLOCKED + 0.5:
                last, idle_since = used, time.perf_counter()
        seconds = idle_since - began - BLOCKED
        return (_cpu_of(node) - before) / count * 1e6, count / seconds
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def main() -> None:
    """Print the tables."""
    words = argparse.ArgumentParser('python -m benchmarks.keeping', description=__doc__)
    words.add_argument('--turns', type=int, default=TURNS)
    words.add_argument('--quick', action='store_true', help='a tenth of the jobs, two turns')
    options = words.parse_args()
    turns, count = (2, RATE // 10) if options.quick else (options.turns, RATE)
    print('At 20,000 jobs a second, and as fast as they can be submitted; medians, middle half:\n')
    print('| | us of cpu a job: who keeps | all | all, beside nothing | jobs/s beside nothing |')
    print('| --- | --- | --- | --- | --- |')
    for kind in KINDS:
        for line in compare(kind, turns, count):
            print(line, flush=True)
    print('\n| node | us of cpu for a job | jobs/s |\n| --- | --- | --- |')
    for line in spool(turns // 2, 3 * count):
        print(line, flush=True)


if __name__ == '__main__':
    main()
