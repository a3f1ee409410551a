"""Simulated hours of a cluster under load and faults: `python -m tests.simulate --hours 24`.

Each seed is a short and wild history. Every fourth one is also an hour of ten machines of two
cpus, with jobs that arrive all the time and a fault every thirty seconds or so; another fourth is
also a day of two to six machines, with longer jobs and a fault every seven minutes. In half of
them several programs share one scheduler or two, which are killed, moved and lose their disks as
nodes do.
A broken promise ends the run: with its name, the seed, and the command that plays it again.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.support.histories import LIMITS, NETWORKS, History, shrink
from tests.support.operations import (
    WEIGHTS,
    AddMachine,
    Cancel,
    CloseCluster,
    KillProgram,
    MakeCluster,
    OpenProgramsWay,
    OpenSchedulersWay,
    OpenWay,
    Operation,
    StartNode,
    StartScheduler,
    Submit,
    TakeOver,
    Wait,
    draw,
)
from tests.support.promises import PromiseBroken

_CPUS = 2
_HOUR = 3600.0
_SHORTEST = 0.002  # job, in seconds
_CHECK_EVERY = 50  # turns between looks through the books of a core
_TROUBLES = {
    **WEIGHTS,
    OpenWay: 12,
    OpenSchedulersWay: 8,
    StartNode: 12,
    StartScheduler: 8,
    MakeCluster: 6,
    Wait: 0,
    Submit: 0,
    AddMachine: 0,
    KillProgram: 0,
}
_ORDINARY = (
    *(Wait, MakeCluster, Submit, Cancel, CloseCluster, TakeOver),
    *(StartNode, OpenWay, StartScheduler, OpenSchedulersWay, OpenProgramsWay),
)


@dataclass(frozen=True)
class Pace:
    """How much happens in a cluster, and for how long."""

    hours: float
    step: float  # seconds between operations, in the mean
    pulse_interval: float
    longest: float  # job, in seconds; as many are ten times as short, and so on down to 2 ms
    machines: tuple[int, ...]  # of which one is drawn


HOUR = Pace(1.0, 5.0, 5.0, 120.0, (10,))
DAY = Pace(24.0, 60.0, 30.0, 3600.0, tuple(range(2, 7)))


def under_load(seed: int, pace: Pace = HOUR, schedulers: int = -1) -> History:
    """Make hours of a cluster that has work all the time.

    Programs share so many schedulers; where none is said, the seed says it.
    """
    rng = random.Random(seed)
    operations: list[Operation] = [MakeCluster(pulse_interval=pace.pulse_interval)]
    now = 0.0
    while now < pace.hours * _HOUR:
        pause = round(rng.expovariate(1 / pace.step), 3)
        now += pause
        operations.append(Wait(pause))
        operations.append(_load(rng, pace) if rng.random() < 0.65 else _trouble(rng, pace))
        if rng.random() < 0.002:
            operations.append(KillProgram(rng.randrange(2)))
    limits, network = rng.randrange(len(LIMITS)), rng.randrange(len(NETWORKS))
    drawn = rng.choice((0, 0, 1, 2))
    shared = drawn if schedulers < 0 else schedulers
    cpus = (_CPUS,) * rng.choice(pace.machines)
    return History(
        *(seed, network, limits, cpus, tuple(operations)),
        schedulers=shared,
        pulse_interval=pace.pulse_interval,
    )


def _trouble(rng: random.Random, pace: Pace) -> Operation:
    drawn = draw(rng, _TROUBLES)
    if isinstance(drawn, MakeCluster):
        return replace(drawn, pulse_interval=pace.pulse_interval)
    return drawn


def _load(rng: random.Random, pace: Pace) -> Operation:
    """Draw a few jobs of some milliseconds or more, or now and then many short ones."""
    drawn = draw(rng, {Submit: 1})
    assert isinstance(drawn, Submit)
    seconds = _SHORTEST * (pace.longest / _SHORTEST) ** rng.random()
    count = rng.randint(1, 5) if seconds > 1.0 or rng.random() < 0.9 else rng.randint(20, 60)
    pinned = drawn.pinned if rng.random() < 0.2 else -1
    return replace(drawn, count=count, seconds=seconds, pinned=pinned)


class Run:
    """What was simulated so far, in a run that tells of it on standard output."""

    def __init__(self) -> None:
        self._began = time.process_time()
        self._hours_of: Counter[str] = Counter()
        self._seconds_of: Counter[str] = Counter()
        self.histories = self.broken = self._faults = self._jobs = 0

    @property
    def hours(self) -> float:
        """Simulated ones, in histories that broke no promise."""
        return sum(self._hours_of.values())

    @property
    def seconds(self) -> float:
        """Cpu time that it took."""
        return time.process_time() - self._began

    def play(self, history: History, kind: str) -> None:
        """Play a history to its end and say what it was."""
        self.histories += 1
        began = time.process_time()
        world = history.play(_CHECK_EVERY)
        hours, seconds = world.hours, time.process_time() - began
        self._hours_of[kind] += hours
        self._seconds_of[kind] += seconds
        faults = sum(not isinstance(each, _ORDINARY) for each in history.operations)
        self._faults += faults
        self._jobs += world.witness.submitted
        ends = ', '.join(f'{n} {s.name.lower()}' for s, n in world.witness.statuses.items())
        print(
            f'seed {history.seed} {kind}: {hours:.2f} h in {seconds:.1f} s, '
            f'{history.schedulers} schedulers, {faults} faults, '
            f'{world.witness.submitted} jobs: {ends}',
            flush=True,
        )

    def broke(self, history: History, kind: str, error: PromiseBroken) -> None:
        """Count a history that broke a promise, and say which."""
        self.broken += 1
        print(f'seed {history.seed} {kind}: {error}', flush=True)

    def summary(self) -> str:
        """Say how much it was, and how fast."""
        text = f'{self.hours:.1f} simulated hours in {self.seconds:.0f} s of cpu time'
        text += f', {self._faults} faults, {self._jobs} jobs'
        text += f', {self.broken} of {self.histories} histories broke a promise'
        kinds = (
            f'{hours:.1f} of them {kind}s at {self._seconds_of[kind] / hours:.1f} s each'
            for kind, hours in self._hours_of.items()
        )
        return '; '.join((text, *kinds))


def main() -> int:
    """Simulate until it is enough, or a promise is broken."""
    options = _options()
    seed = options.seed or int.from_bytes(os.urandom(4), 'big')
    print(f'simulating from seed {seed}', flush=True)
    run = Run()
    count = 0
    while run.hours < options.hours and run.seconds < options.seconds:
        for kind, history in _histories(seed + count, options.schedulers):
            try:
                run.play(history, kind)
            except PromiseBroken as error:
                if not options.go_on:
                    return _tell(history, error, options.shrink)
                run.broke(history, kind, error)
        count += 1
    print(run.summary())
    return 1 if run.broken else 0


def _histories(seed: int, schedulers: int) -> Iterator[tuple[str, History]]:
    storm = History.of_seed(seed)
    yield 'storm', storm if schedulers < 0 else replace(storm, schedulers=schedulers)
    if seed % 4 == 0:
        yield 'hour', under_load(seed, HOUR, schedulers)
    if seed % 4 == 2:
        yield 'day', under_load(seed, DAY, schedulers)


def _tell(history: History, error: PromiseBroken, shrinks: bool) -> int:
    print(*getattr(error, '__notes__', ()), sep='\n')
    print(f'\nseed {history.seed}: {error}')
    options = f'--hours 1 --seed {history.seed} --schedulers {history.schedulers}'
    print(f'to play it again: python -m tests.simulate {options}')
    print('and with --shrink for the shortest history that breaks it')
    if shrinks:
        short = shrink(history, error)
        print(f'\n{len(short.operations)} of {len(history.operations)} operations are enough:')
        print(short)
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.simulate', description=__doc__)
    parser.add_argument('--hours', type=float, default=24.0, help='simulated hours (%(default)s)')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='of cpu time, at most')
    parser.add_argument('--seed', type=int, default=0, help='of the first history; a fresh one')
    parser.add_argument('--schedulers', type=int, default=-1, help='that programs share; as drawn')
    parser.add_argument('--go-on', action='store_true', help='also after a promise was broken')
    parser.add_argument('--shrink', action='store_true', help='shorten a history that fails')
    return parser.parse_args()


if __name__ == '__main__':
    sys.exit(main())
