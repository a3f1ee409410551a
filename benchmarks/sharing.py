"""How fairly a scheduler's core shares cpus among its clients, and what that costs.

    python -m benchmarks.sharing [--quick]

The core is the real one.  Its nodes are simulated, in a time of their own: each runs so many jobs
at once as it has cpus, and chooses the next one as real nodes do (`core/turns.py`).  A client's
cpu time is compared with what is fair: at each moment all cpus, but for those of clients that have
no more jobs to give out, in equal parts.
"""

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import process_time
from typing import Any, cast

from benchmarks.scheduling import declaration
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
