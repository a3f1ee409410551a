"""The scheduler's core alone: microseconds per job, by the number of nodes and of queued jobs.

    python -m benchmarks.scheduling [--quick] [--profile]

No process, socket or clock takes part: the core is told what nodes would say.  Every job goes the
whole way, from its submission over one node to an outcome that is passed on to its client.

Nodes are other machines: what one of them holds is kept here as tuples of numbers, which the
garbage collector leaves alone, so that the core does not pay for the memory of 1,000 nodes.  The
clock is read once for all events of a turn: to read it takes as long as a fifth of a job.  Short
queues are filled again and again: their first jobs meet code and memory that no cache has yet.
"""

import argparse
import cProfile
import io
import pstats
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time

from nodeserver.core.effects import Effect, Send
from nodeserver.core.events import MessageArrived, NodeFound, PeerConnected
from nodeserver.core.messages import (
    ComputationReady,
    DeclareComputation,
    JobsDone,
    Message,
    NodeDetails,
    NodeSpec,
    OpenComputation,
    RunJobs,
    SubmitJobs,
)
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus

CPUS = 8
COMPUTATIONS = 100
SECONDS = 0.05  # what a job takes: a node holds two rounds of such jobs
LETTERS_A_TURN = 100
SUBMITTED_AT_ONCE = 1000
LEAST_JOBS = 20_000  # of one row
TARGET = 10.0  # microseconds per job
Letter = tuple[str, int, tuple[int, ...], tuple[int, ...]]  # node, computation, ids, attempts
SIZES = (
    *((nodes, 100_000) for nodes in (10, 100, 1000)),
    *((1000, jobs) for jobs in (1_000, 10_000, 1_000_000)),
)
QUICK = ((10, 10_000), (100, 10_000), (1000, 1_000))


@dataclass
class Cost:
    """Seconds of cpu time spent in the core, by what it was doing: others may use the machine."""

    nodes: int
    queued: int
    jobs: int
    submit: float = 0.0
    done: float = 0.0
    allocate: float = 0.0

    @property
    def microseconds(self) -> float:
        """All of it, for each job."""
        return (self.submit + self.done + self.allocate) / self.jobs * 1e6

    def row(self) -> str:
        """A row of the table."""
        parts = (self.submit, self.done, self.allocate)
        cells = ' | '.join(f'{part / self.jobs * 1e6:.2f}' for part in parts)
        return f'| {self.nodes:,} | {self.queued:,} | {cells} | {self.microseconds:.2f} |'


class Simulation:
    """A scheduler core with clients and nodes that answer at once."""

    def __init__(
        self, nodes: int, jobs: int, computations: int = COMPUTATIONS, is_shared: bool = False
    ) -> None:
        self.cost = Cost(nodes, jobs, max(jobs, LEAST_JOBS))
        self._count = computations
        self._core = SchedulerCore(is_shared=is_shared)
        self._now = 1.0
        self._at_work: deque[Letter] = deque()
        self._letter = 0
        self._done: list[int] = [0] * (self._count + 1)
        for computation in range(1, self._count + 1):
            self._hear(f'client {computation}', declaration(computation))
        for number in range(nodes):
            self._join(f'node {number}', f'10.{number >> 8}.{number & 255}.1')
        self._take_in(self._core.end_turn(self._now))

    def _hear(self, peer: str, message: Message) -> None:
        self._take_in(self._core.handle(MessageArrived(peer, message), self._now))

    def _join(self, node: str, address: str) -> None:
        for event in (NodeFound(node, address, 51348, ''), PeerConnected(node, address)):
            self._take_in(self._core.handle(event, self._now))
        self._hear(node, NodeDetails(node, CPUS, 'Linux', '3.11', None))

    def _take_in(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                message = effect.message
                if isinstance(message, RunJobs):
                    columns = tuple(message.ids), tuple(message.attempts)
                    self._at_work.append((effect.peer, message.computation, *columns))
                elif isinstance(message, JobsDone):
                    self._done[message.computation] += len(message.ids)
                elif isinstance(message, OpenComputation):
                    self._hear(effect.peer, ComputationReady(message.computation))

    def run(self) -> Cost:
        """Queue jobs, and answer as nodes do until the last one is done."""
        order = random.Random(1)
        share = self.cost.queued // self._count
        for first in range(0, self.cost.jobs // self._count, share):
            self._submit(first, first + share)
            self._allocate()
            while self._at_work:
                self._now += 0.001
                self._end_some(order)
                self._allocate()
        share = self.cost.jobs // self._count
        if self._done[1:] != [share] * self._count:
            raise AssertionError(f'not every job ended once: {self._done[1:]}, not {share} each')
        self._core.check()
        return self.cost

    def _submit(self, first: int, end: int) -> None:
        """Queue jobs with these ids, of each computation."""
        for at in range(first, end, SUBMITTED_AT_ONCE):
            for computation in range(1, self._count + 1):
                ids = list(range(at, min(at + SUBMITTED_AT_ONCE, end)))
                submitted = SubmitJobs(computation, '', ids, [b'x' * 20] * len(ids))
                event = MessageArrived(f'client {computation}', submitted)
                began = process_time()
                effects = self._core.handle(event, self._now)
                self.cost.submit += process_time() - began
                self._take_in(effects)

    def _allocate(self) -> None:
        began = process_time()
        effects = self._core.end_turn(self._now)
        self.cost.allocate += process_time() - began
        self._take_in(effects)

    def _end_some(self, order: random.Random) -> None:
        events = [self._next_letter(order) for _ in range(min(LETTERS_A_TURN, len(self._at_work)))]
        handle, now = self._core.handle, self._now
        began = process_time()
        answers = [handle(event, now) for event in events]
        self.cost.done += process_time() - began
        for effects in answers:
            self._take_in(effects)

    def _next_letter(self, order: random.Random) -> MessageArrived:
        if order.random() < 0.5:
            self._at_work.rotate(-1)
        node, computation, ids, attempts = self._at_work.popleft()
        self._letter += 1
        count = len(ids)
        letter = JobsDone(
            computation,
            node,
            self._letter,
            list(ids),
            list(attempts),
            [JobStatus.FINISHED] * count,
            [b'y' * 20] * count,
            [''] * count,
            [SECONDS] * count,
        )
        return MessageArrived(node, letter)


def declaration(computation: int, isolation: str = 'job') -> DeclareComputation:
    """A computation that any node may run."""
    return DeclareComputation(
        computation=computation,
        name='compute',
        owner='somebody',
        python='3.11',
        package=b'package',
        specs=[NodeSpec('*', 51348, 0, False)],
        node_port=51348,
        isolation=isolation,
        reentrant=False,
        dest_path='',
        cleanup=True,
        pulse_interval=5.0,
        ping_interval=0.0,
    )


def table(sizes: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Measure each size, and answer the lines of a Markdown table."""
    yield f'### scheduler: the core alone, {COMPUTATIONS} computations, nodes of {CPUS} cpus'
    yield ''
    yield f'Microseconds per job; at most {TARGET:g} are asked for.'
    yield ''
    yield '| nodes | queued jobs | submit | done | allocate | sum |'
    yield '| --- | --- | --- | --- | --- | --- |'
    for nodes, jobs in sizes:
        yield Simulation(nodes, jobs).run().row()
    yield ''


def profile(nodes: int, jobs: int) -> str:
    """Say in which functions of the core the time goes."""
    simulation = Simulation(nodes, jobs)
    profiler = cProfile.Profile()
    profiler.runcall(simulation.run)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats('tottime').print_stats('core|built-in', 24)
    return text.getvalue()


def main() -> None:
    """Print the table, or a profile of the largest size that does not take long."""
    words = argparse.ArgumentParser(description='The scheduler core alone.')
    words.add_argument('--quick', action='store_true', help='small sizes')
    words.add_argument('--profile', action='store_true', help='where the time goes')
    options = words.parse_args()
    if options.profile:
        print(profile(1000, 100_000))
        return
    for line in table(QUICK if options.quick else SIZES):
        print(line, flush=True)


if __name__ == '__main__':
    main()
