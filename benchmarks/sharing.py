"""How fairly a scheduler's core shares cpus among its clients, and what that costs.

    python -m benchmarks.sharing [--quick]

The core is the real one, with `is_shared`.  Its nodes are simulated, in a time of their own: each
runs so many jobs at once as it has cpus, and chooses the next one as real nodes do
(`core/turns.py`).  A client's cpu time is compared with what is fair: at each moment all cpus, but
for those of clients that have no more jobs to give out, in equal parts.
"""

import argparse
import heapq
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import process_time
from typing import Any, cast

from benchmarks.scheduling import Simulation, declaration
from nodeserver.core.effects import Effect, Send
from nodeserver.core.events import DeadlinePassed, MessageArrived, NodeFound, PeerConnected
from nodeserver.core.messages import (
    ComputationReady,
    DeclareComputation,
    JobsDone,
    JobsReturned,
    Message,
    NodeDetails,
    OpenComputation,
    RecallJobs,
    RunJobs,
    SubmitJobs,
)
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus
from nodeserver.core.turns import Turns

STEP = 0.002  # seconds between two turns of the core
FINISHED = int(JobStatus.FINISHED)


@dataclass
class Load:
    """What a client wants: jobs of a length, in some computations, each on some cpus."""

    jobs: int
    seconds: float
    computations: int = 1
    cpus: int = 1  # for each job
    spread: float = 0.0  # lengths differ by so much from the usual one, as a part of it
    begins: float = 0.0
    nodes: tuple[str, ...] = ('*',)  # patterns of addresses


@dataclass
class Bench:
    """A simulated client and its account."""

    peer: str
    load: Load
    left: int = 0  # jobs that wait at the scheduler
    running: int = 0  # cpus
    used: float = 0.0  # cpu seconds
    fair: float = 0.0  # that it should have used while it had jobs waiting
    used_then: float = 0.0  # that it did use in that time
    first_at: float = -1.0  # when its first job began to run
    done: int = 0

    @property
    def share(self) -> float:
        """What it had of its fair part."""
        return self.used_then / self.fair if self.fair else 1.0


@dataclass
class Line:
    """Jobs of one computation on a node, as `Turns` sees them."""

    opened: OpenComputation
    queue: deque[tuple[int, int]] = field(default_factory=deque)  # ids and attempts
    jobs: int = 0  # that run
    used_seconds: float = 0.0
    scheduler: str = ''

    @property
    def busy(self) -> int:
        """Cpus in use."""
        return self.jobs * self.opened.resources.cpus


class Node:
    """A simulated node."""

    def __init__(self, name: str, cpus: int) -> None:
        self.name = name
        self.free = cpus
        self.lines: dict[int, Line] = {}
        self.turns = Turns(cast(Any, self.lines))
        self.letters: dict[int, JobsDone] = {}
        self.number = 0

    def next(self) -> Line | None:
        """Who is to run a job now; nobody, if what is free is kept for one that needs more."""
        hungry: Any = [line for line in self.lines.values() if line.queue]
        fitting: Any = [line for line in hungry if line.opened.resources.cpus <= self.free]
        kept = [line for line in hungry if line.opened.resources.cpus > self.free]
        for line in kept:
            fitting = [o for o in fitting if o.used_seconds < line.used_seconds]
        found: Any = self.turns.next_of(fitting) if fitting else None
        chosen: Line | None = found
        return chosen

    def give_back(self, message: RecallJobs) -> JobsReturned:
        """Return what has not begun."""
        queue = self.lines[message.computation].queue
        jobs = [queue.pop() for _ in range(min(message.count, len(queue)))]
        return JobsReturned(message.computation, [j for j, _ in jobs], [a for _, a in jobs], 'idle')

    def record(self, computation: int, job: int, attempt: int, seconds: float) -> None:
        """Put a job's end into the next letter."""
        letter = self.letters.get(computation)
        if letter is None:
            self.number += 1
            columns: list[list[Any]] = [[] for _ in range(6)]
            letter = JobsDone(computation, self.name, self.number, *columns)
            self.letters[computation] = letter
        letter.ids.append(job)
        letter.attempts.append(attempt)
        letter.statuses.append(FINISHED)
        letter.outcomes.append(b'')
        letter.reasons.append('')
        letter.seconds.append(seconds)


class Hall:
    """A scheduler core, its clients and its nodes, and the time that passes for them."""

    def __init__(self, nodes: Sequence[int], loads: Sequence[Load], most_cpus: int = 0) -> None:
        self.core = SchedulerCore(is_shared=True, most_cpus_per_client=most_cpus)
        self.now = 1.0
        self.cpus = sum(nodes)
        self.seconds = 0.0  # of real cpu time in the core
        self.jobs = 0
        self.most_running: dict[str, int] = {}
        self._random = random.Random(7)
        self._owners: dict[int, Bench] = {}
        self._ends: list[tuple[float, int, int, int, int, float]] = []
        self._nodes = [Node(f'node {number}', cpus) for number, cpus in enumerate(nodes)]
        self._by_name = {node.name: node for node in self._nodes}
        self._number_of = {node.name: number for number, node in enumerate(self._nodes)}
        self._inbox: list[MessageArrived] = []
        for number, node in enumerate(self._nodes):
            address = f'10.{number >> 8}.{number & 255}.1'
            self._tell(NodeFound(node.name, address, 51348, ''))
            self._tell(PeerConnected(node.name, address))
            details = NodeDetails(node.name, nodes[number], 'Linux', '3.11', None)
            self._tell(MessageArrived(node.name, details))
        self.clients = [Bench(f'client {n}', load) for n, load in enumerate(loads, 1)]
        self._coming = sorted(self.clients, key=lambda client: client.load.begins)

    def _tell(self, event: Any) -> None:
        began = process_time()
        effects = self.core.handle(event, self.now)
        self.seconds += process_time() - began
        self._take_in(effects)

    def _take_in(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._deliver(effect.peer, effect.message)

    def _deliver(self, peer: str, message: Message) -> None:
        node = self._by_name.get(peer)
        if node is None:
            return
        if isinstance(message, RunJobs):
            queue = node.lines[message.computation].queue
            queue.extend(zip(message.ids, message.attempts, strict=True))
            self._owners[message.computation].left -= len(message.ids)
            self._start(node, self.now)
        elif isinstance(message, OpenComputation):
            node.lines[message.computation] = Line(message)
            self._inbox.append(MessageArrived(peer, ComputationReady(message.computation)))
        elif isinstance(message, RecallJobs):
            back = node.give_back(message)
            self._owners[message.computation].left += len(back.ids)
            self._inbox.append(MessageArrived(peer, back))

    def _start(self, node: Node, at: float) -> None:
        """Run what there is a cpu for."""
        while node.free and (line := node.next()) is not None:
            job, attempt = line.queue.popleft()
            computation, cpus = line.opened.computation, line.opened.resources.cpus
            client = self._owners[computation]
            load = client.load
            seconds = load.seconds * (1 + load.spread * self._random.uniform(-1, 1))
            node.free -= cpus
            line.jobs += 1
            client.running += cpus
            if client.first_at < 0:
                client.first_at = at
            most = max(client.running, self.most_running.get(client.peer, 0))
            self.most_running[client.peer] = most
            row = (at + seconds, self._number_of[node.name], computation, job, attempt, seconds)
            heapq.heappush(self._ends, row)

    def _end_until(self, moment: float) -> None:
        """Let jobs end, and others begin where they ran."""
        touched = {}
        while self._ends and self._ends[0][0] <= moment:
            at, number, computation, job, attempt, seconds = heapq.heappop(self._ends)
            node = self._nodes[number]
            line, client = node.lines[computation], self._owners[computation]
            cpus = line.opened.resources.cpus
            line.jobs -= 1
            node.turns.charge(cast(Any, line), seconds * cpus)
            node.free += cpus
            client.running -= cpus
            client.done += 1
            self.jobs += 1
            node.record(computation, job, attempt, seconds)
            touched[node.name] = node
            self._start(node, at)
        for node in touched.values():
            self._inbox += [MessageArrived(node.name, each) for each in node.letters.values()]
            node.letters.clear()

    def _account(self, seconds: float) -> None:
        """Note what each client has and should have."""
        present = [client for client in self.clients if client.left or client.running]
        hungry = [client for client in present if client.left]
        rest = self.cpus - sum(client.running for client in present if not client.left)
        for client in present:
            client.used += client.running * seconds
        for client in hungry:
            client.used_then += client.running * seconds
            client.fair += rest / len(hungry) * seconds

    def _arrive(self) -> None:
        while self._coming and self._coming[0].load.begins <= self.now - 1.0:
            client = self._coming.pop(0)
            load = client.load
            for number in range(load.computations):
                computation = len(self._owners) + 1
                self._owners[computation] = client
                declared = _declared(computation, load)
                self._tell(MessageArrived(client.peer, declared))
                ids = list(range(number, load.jobs, load.computations))
                client.left += len(ids)
                jobs = SubmitJobs(computation, '', ids, [b''] * len(ids))
                self._tell(MessageArrived(client.peer, jobs))

    def step(self, until: float = STEP) -> None:
        """Let some time pass, and have the core take its turn."""
        self._arrive()
        self._account(until)
        self.now += until
        self._end_until(self.now)
        for _ in range(2):  # what is answered at once is in the same turn
            inbox, self._inbox = self._inbox, []
            began = process_time()
            effects = [e for event in inbox for e in self.core.handle(event, self.now)]
            effects += self.core.end_turn(self.now)
            self.seconds += process_time() - began
            self._take_in(effects)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.step()
        self._tell(DeadlinePassed())

    def run_until_scarce(self, most: float = 3600.0) -> None:
        """Run until some client that was there from the beginning has no job left to give out."""
        self.step()
        end = self.now + most
        while self.now < end and all(c.left for c in self.clients if not c.load.begins):
            self.step()


def _declared(computation: int, load: Load) -> DeclareComputation:
    one = declaration(computation)
    needs = replace(one.resources, cpus=load.cpus)
    specs = [replace(one.specs[0], pattern=pattern) for pattern in load.nodes]
    return replace(one, resources=needs, specs=specs)


# what is measured


def _many(clients: int, jobs: int, shortest: float, longest: float) -> list[Load]:
    """Clients whose jobs are of lengths between these, as evenly as their logarithms."""
    steps = [(longest / shortest) ** (n / max(1, clients - 1)) for n in range(clients)]
    return [Load(jobs, shortest * step, spread=0.5) for step in steps]


MIXES: Mapping[str, tuple[list[int], list[Load], float]] = {
    '1,000 nodes, 100 clients with 1,000 jobs each of 1 to 20 s': (
        [8] * 1000,
        _many(100, 1000, 1.0, 20.0),
        12.0,
    ),
    '100 nodes, 100 clients, jobs of 0.05 to 20 s': ([8] * 100, _many(100, 8000, 0.05, 20), 30.0),
    'the same for longer': ([8] * 100, _many(100, 14_000, 0.05, 20), 60.0),
    '10 nodes, 2 clients, jobs of 5 ms and 5 s': (
        [8] * 10,
        [Load(300_000, 0.005, spread=0.5), Load(1000, 5.0, spread=0.5)],
        15.0,
    ),
    '10 nodes, 3 clusters of one client beside 1 of another, 50 ms': (
        [8] * 10,
        [Load(60_000, 0.05, computations=3), Load(60_000, 0.05)],
        15.0,
    ),
    '10 nodes, jobs on 4 cpus beside jobs on 1, 1 s': (
        [8] * 10,
        [Load(6000, 1.0, cpus=4, spread=0.5), Load(6000, 1.0, spread=0.5)],
        30.0,
    ),
    '1 cpu, 3 clients, jobs of 0.3, 1 and 10 s': (
        [1],
        [Load(9000, 0.3), Load(9000, 1.0), Load(900, 10.0)],
        300.0,
    ),
}
QUICK_MIXES = ('10 nodes, 2 clients, jobs of 5 ms and 5 s',)


def shares(names: Sequence[str]) -> Iterator[str]:
    """How near to its fair part each client comes, as lines of a Markdown table."""
    yield '### sharing: cpu time of clients, as parts of what is fair'
    yield ''
    yield 'While they have jobs waiting; at least 0.95 and at most 1.05 are asked for.'
    yield ''
    yield '| | simulated s | jobs ended | least | most | cpus in use |'
    yield '| --- | --- | --- | --- | --- | --- |'
    for name in names:
        nodes, loads, seconds = MIXES[name]
        hall = Hall(nodes, loads)
        hall.run(seconds)
        hall.core.check()
        parts = [client.share for client in hall.clients]
        used = sum(client.used for client in hall.clients) / (hall.cpus * seconds)
        yield (
            f'| {name} | {seconds:g} | {hall.jobs:,} | {min(parts):.3f} | {max(parts):.3f} '
            f'| {used:.3f} |'
        )
    yield ''


def newcomer(jobs: int) -> Iterator[str]:
    """How soon ten jobs begin beside a million."""
    hall = Hall([8] * 10, [Load(jobs, 0.05, spread=0.5), Load(10, 0.05, begins=2.0)])
    hall.run(4.0)
    ten = hall.clients[1]
    waited = (ten.first_at - 3.0) * 1000
    yield f'Ten jobs beside {jobs:,} of 50 ms: the first one begins after {waited:.0f} ms,'
    yield f'and {ten.done} of 10 have ended 2 s after they were submitted.'
    yield ''


def costs(sizes: Sequence[tuple[int, int]], jobs: int) -> Iterator[str]:
    """What a job costs the core, by nodes and clients, as lines of a Markdown table."""
    yield f'### sharing: the core alone, {jobs:,} queued jobs of 50 ms, nodes of 8 cpus'
    yield ''
    yield 'Microseconds per job, with one program and its clusters, and with as many clients.'
    yield ''
    yield '| nodes | clusters | of one program | of as many clients |'
    yield '| --- | --- | --- | --- |'
    for nodes, clients in sizes:
        alone, shared = (
            Simulation(nodes, jobs, clients, is_shared).run() for is_shared in (False, True)
        )
        yield (
            f'| {nodes:,} | {clients:,} | {alone.microseconds:.2f} | {shared.microseconds:.2f} |'
        )
    yield ''


def main() -> None:
    """Print the tables."""
    words = argparse.ArgumentParser(description='Fair shares, and their cost.')
    words.add_argument('--quick', action='store_true', help='small sizes')
    quick = words.parse_args().quick
    sizes = [(n, c) for n in (10, 100, 1000) for c in (2, 10, 100)]
    parts = (
        shares(QUICK_MIXES if quick else tuple(MIXES)),
        newcomer(10_000 if quick else 1_000_000),
        costs([(10, 2), (10, 10)] if quick else sizes, 10_000 if quick else 100_000),
    )
    for part in parts:
        for line in part:
            print(line, flush=True)


if __name__ == '__main__':
    main()
