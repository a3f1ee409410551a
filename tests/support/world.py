"""A cluster in one thread: the real cores, on a network and a clock in memory, driven by one seed.

    ClusterCore ── at once ── SchedulerCore ── network ── NodeCore ── SimulatedProcesses

Everything that happens is drawn from the seed, so that a history that breaks a promise can be run
again.  The promises are checked while it runs: no cpu runs two jobs, a job is settled once, and
only a reentrant job starts twice.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.messages import (
    AllocateAnswer,
    DeclareComputation,
    DropData,
    NodeSpec,
    ShareData,
)
from nodeserver.core.node import NodeCore
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus
from tests.support.clock import Clock
from tests.support.network import Faults, Network

SCHEDULER = 'scheduler'
CLIENT = 'client'


def declaration(computation: int = 7, **changes: Any) -> DeclareComputation:
    """A computation that any node may run."""
    values: dict[str, Any] = {
        'computation': computation,
        'name': 'compute',
        'owner': 'somebody',
        'python': '3.11',
        'package': b'package',
        'specs': [NodeSpec('*', 51348, 0, False)],
        'node_port': 51348,
        'isolation': 'job',
        'reentrant': False,
        'dest_path': '',
        'cleanup': True,
        'pulse_interval': 5.0,
        'ping_interval': 0.0,
    }
    return DeclareComputation(**(values | changes))


def content_of(data: int) -> bytes:
    """What shared data with this id are."""
    return b'data %d' % data


class SimulatedProcesses:
    """What a node's template and workers would do: jobs take their time, and can be killed."""

    def __init__(self, world: 'World', host: 'NodeHost') -> None:
        self.world = world
        self.host = host
        self.workers: dict[int, list[tuple[int, int]]] = {}
        self.timers: list[tuple[float, int, seen.Event]] = []
        self.count = 0
        self.gone: set[int] = set()
        self.busy_until: dict[int, float] = {}

    def later(self, seconds: float, event: seen.Event) -> None:
        """Have the core told of something after a while."""
        self.count += 1
        heapq.heappush(self.timers, (self.world.clock.now + seconds, self.count, event))

    def open(self, effect: do.OpenTemplate) -> None:
        """Unpack a computation."""
        self.later(0.01, seen.TemplateReady(effect.computation))

    def close(self, effect: do.CloseTemplate) -> None:
        """End a computation's processes."""
        self.workers.clear()
        self.later(0.01, seen.TemplateClosed(effect.computation))

    def fork(self, effect: do.ForkWorkers) -> None:
        """Fork workers."""
        for _ in range(effect.count):
            self.count += 1
            self.workers[self.count] = []
            self.later(0.001, seen.WorkerForked(effect.computation, self.count))

    def give(self, effect: do.GiveJobs) -> None:
        """Run jobs one after the other in a worker."""
        held = self.workers[effect.worker]
        contents = effect.shared or [[]] * len(effect.ids)
        for job, given in zip(effect.ids, contents, strict=True):
            assert given == [content_of(data) for data in self.world.named.get(job, [])], job
        now = self.world.clock.now
        at = max(0.0, self.busy_until.get(effect.worker, now) - now)
        for job, attempt in zip(effect.ids, effect.attempts, strict=True):
            held.append((job, attempt))
            if len(held) == 1:
                self.world.job_starts(job, self.host)
            at += self.world.duration(job)
            report = seen.JobsReported(
                effect.computation,
                effect.worker,
                [job],
                [False],
                [b'result %d' % job],
                [self.world.duration(job)],
            )
            self.later(at, report)
        self.busy_until[effect.worker] = now + at
        busy = sum(1 for jobs in self.workers.values() if jobs)
        assert busy <= self.host.cpus, f'{busy} cpus of {self.host.cpus} busy'

    def signal(self, effect: do.SignalWorker) -> None:
        """Kill a worker: it ends without an outcome."""
        if effect.worker in self.workers:
            self.gone.add(effect.worker)
            event = seen.WorkerEnded(effect.computation, effect.worker, -effect.signal, b'', 0)
            self.later(0.002, event)

    def due(self) -> list[seen.Event]:
        """What has come true by now."""
        events = []
        while self.timers and self.timers[0][0] <= self.world.clock.now:
            event = heapq.heappop(self.timers)[2]
            if isinstance(event, seen.JobsReported):
                if event.worker in self.gone or event.worker not in self.workers:
                    continue
                held = self.workers[event.worker]
                held.pop(0)
                if held:
                    self.world.job_starts(held[0][0], self.host)
            elif isinstance(event, seen.WorkerEnded):
                self.workers.pop(event.worker, None)
            events.append(event)
        return events


class NodeHost:
    """One machine with a node."""

    def __init__(self, world: 'World', name: str, cpus: int) -> None:
        self.world = world
        self.name = name
        self.cpus = cpus
        self.processes = SimulatedProcesses(world, self)
        self.core = NodeCore(NodeFacts(name, name, cpus, 'Linux', '3.11'))
        p = self.processes
        self.performers: dict[type[Any], Callable[[Any], Any]] = {
            do.Send: lambda e: world.transmit(self.name, e.peer, e.message),
            do.Report: lambda e: None,
            do.Disconnect: lambda e: None,
            do.Stop: lambda e: world.kill(self.name),
            do.OpenTemplate: p.open,
            do.CloseTemplate: p.close,
            do.ForkWorkers: p.fork,
            do.GiveJobs: p.give,
            do.SignalWorker: p.signal,
        }

    def deadline(self) -> float | None:
        """When something is due here."""
        times = [
            self.core.next_deadline(),
            self.processes.timers[0][0] if self.processes.timers else None,
        ]
        return min((t for t in times if t is not None), default=None)

    def wake(self) -> None:
        """Let what is due happen."""
        events = self.processes.due() or [seen.DeadlinePassed()]
        self.handle(*events)

    def handle(self, *events: seen.Event) -> None:
        """One turn of the node."""
        now = self.world.clock.now
        for event in events:
            self.perform(self.core.handle(event, now))
        self.perform(self.core.end_turn(now))
        self.core.check()

    def perform(self, effects: list[do.Effect]) -> None:
        """Do what the core answered."""
        for effect in effects:
            self.performers[type(effect)](effect)


class World:
    """A client with its scheduler, and nodes that come and go."""

    def __init__(self, seed: int, faults: Faults | None = None, **changes: Any) -> None:
        self.random = random.Random(seed)
        self.clock = Clock(100.0)
        self.network = Network(seed, self.clock, faults)
        self.nodes: dict[str, NodeHost] = {}
        self.epochs: Counter[str] = Counter()  # connections made to a node so far
        self.connected: dict[str, int] = {}  # node -> epoch of its living connection
        self.declared = declaration(**changes)
        self.settled: dict[int, tuple[int, str]] = {}
        self.starts: Counter[int] = Counter()
        self.lengths: dict[int, float] = {}
        self.submitted = 0
        self.data = 0
        self.dropped: set[int] = set()
        self.named: dict[int, list[int]] = {}  # job -> its data
        self.said: list[str] = []
        self.closed = False
        self.scheduler = SchedulerCore()
        self.cluster = ClusterCore(SCHEDULER, self.declared)
        self.network.attach(SCHEDULER, self._arrived, self.scheduler.next_deadline, self._wake)
        self._client(self.cluster.end_turn(self.clock.now))
        self.turn()

    # the client and its scheduler

    def share(self) -> int:
        """Make shared data."""
        self.data += 1
        self.tell_cluster(seen.DataShared(self.data, content_of(self.data)))
        return self.data

    def drop_unneeded(self) -> None:
        """Drop the data that only settled jobs have named, as a client does."""
        needed = {d for job, named in self.named.items() if job not in self.settled for d in named}
        gone = [data for data in range(1, self.data + 1) if data not in needed | self.dropped]
        if gone:
            self.dropped.update(gone)
            self.tell_cluster(seen.DataDropped(gone))

    def submit(
        self, count: int, length: float = 0.01, node: str = '', named: list[int] | None = None
    ) -> list[int]:
        """Submit jobs of a length, which name these shared data."""
        ids = list(range(self.submitted + 1, self.submitted + count + 1))
        self.submitted += count
        self.lengths.update((job, length) for job in ids)
        shared = [named] * count if named else []
        self.named.update(zip(ids, shared, strict=False))
        self.tell_cluster(seen.JobsSubmitted(node, ids, [b'x'] * count, shared))
        return ids

    def tell_cluster(self, event: seen.Event) -> None:
        """Have the client's half told of something."""
        self._client(self.cluster.handle(event, self.clock.now))
        self.turn()

    def turn(self, *events: seen.Event) -> None:
        """One turn of the scheduler."""
        now = self.clock.now
        for event in events:
            self._scheduler(self.scheduler.handle(event, now))
        self._scheduler(self.scheduler.end_turn(now))
        self.scheduler.check()

    def _arrived(self, source: str, message: Any) -> None:
        epoch, content = message
        if self.connected.get(source) != epoch:
            return
        event = content if isinstance(content, seen.PeerConnected) else None
        self.turn(event or seen.MessageArrived(source, content))

    def _wake(self) -> None:
        self.turn(seen.DeadlinePassed())

    def _scheduler(self, effects: list[do.Effect]) -> None:
        for effect in effects:
            match effect:
                case do.Send() if effect.peer == CLIENT:
                    event = seen.MessageArrived(SCHEDULER, effect.message)
                    self._client(self.cluster.handle(event, self.clock.now))
                case do.Send():
                    self.transmit(SCHEDULER, effect.peer, effect.message)
                case do.Ping():
                    for node in self.nodes.values():
                        self._found(node)
                case do.Connect():
                    self._connect(effect.node)
                case do.Disconnect():
                    self.connected.pop(effect.peer, None)

    def _client(self, effects: list[do.Effect]) -> None:
        for effect in effects:
            match effect:
                case do.Send():
                    event = seen.MessageArrived(CLIENT, effect.message)
                    self._scheduler(self.scheduler.handle(event, self.clock.now))
                case do.SettleJobs():
                    done = effect.done
                    for job, status, reason in zip(
                        done.ids, done.statuses, done.reasons, strict=True
                    ):
                        self._settle(job, status, reason)
                case do.SettleUnrun():
                    for job in effect.ids:
                        self._settle(job, effect.status, effect.reason)
                case do.AskAllocation():
                    answer = AllocateAnswer(
                        effect.ask.computation, effect.ask.node, effect.ask.cpus
                    )
                    event = seen.MessageArrived(CLIENT, answer)
                    self._scheduler(self.scheduler.handle(event, self.clock.now))
                case do.Report():
                    self.said.append(effect.text)
                case do.SayClosed():
                    self.closed = True

    def _settle(self, job: int, status: int, reason: str) -> None:
        assert job not in self.settled, f'job {job} settled twice'
        self.settled[job] = (status, reason)

    # nodes

    def add_node(self, cpus: int = 2) -> NodeHost:
        """Start a node; it announces itself."""
        host = NodeHost(self, f'node-{len(self.epochs) + 1}', cpus)
        self.epochs[host.name] = 0
        self.nodes[host.name] = host
        self.network.attach(
            host.name, lambda source, m: self._node_gets(host, m), host.deadline, host.wake
        )
        self._found(host)
        return host

    def _found(self, host: NodeHost) -> None:
        self.turn(seen.NodeFound(host.name, '10.0.0.1', 51348, ''))

    def _connect(self, name: str) -> None:
        host = self.nodes.get(name)
        if host is None:
            return
        self.epochs[name] += 1
        self.connected[name] = epoch = self.epochs[name]
        greeting = (epoch, seen.PeerConnected(SCHEDULER, ''))
        self.network.send(SCHEDULER, name, greeting)
        self.network.send(name, SCHEDULER, (epoch, seen.PeerConnected(name, '')))

    def _node_gets(self, host: NodeHost, message: Any) -> None:
        epoch, content = message
        if isinstance(content, seen.PeerConnected):
            host.epoch = epoch  # type: ignore[attr-defined]
            host.handle(seen.PeerLost(SCHEDULER, 'it came back anew'), content)
        elif getattr(host, 'epoch', 0) == epoch:
            host.handle(seen.MessageArrived(SCHEDULER, content))

    def transmit(self, source: str, target: str, message: Any) -> None:
        """Carry a message over the connection that its sender knows."""
        node = target if source == SCHEDULER else source
        host = self.nodes.get(node)
        if host is not None:
            epoch = self.connected.get(node) if source == SCHEDULER else getattr(host, 'epoch', 0)
            is_large = isinstance(message, ShareData | DropData)
            self.network.send(source, target, (epoch, message), 'bulk' if is_large else '')

    def kill(self, name: str) -> None:
        """A node's machine is gone; its port refuses."""
        if self.nodes.pop(name, None) is not None:
            self.network.detach(name)
            if self.connected.pop(name, None) is not None:
                self.turn(seen.PeerLost(name, 'its port refuses connections'))

    def data_held(self) -> list[str]:
        """Nodes that have shared data, or that the scheduler takes for having some."""
        holders = [host.name for host in self.nodes.values() if host.core.data_held]
        uses = [
            u
            for node in self.scheduler._fleet.nodes.values()
            for u in node.uses.values()
            if u.shared
        ]
        return holders + ['scheduler'] * len(uses)

    # promises

    def duration(self, job: int) -> float:
        """How long a job takes."""
        return self.lengths[job]

    def job_starts(self, job: int, host: NodeHost) -> None:
        """A job was given to a process: only a reentrant one may be that twice."""
        self.starts[job] += 1
        if not self.declared.reentrant:
            assert self.starts[job] == 1, f'job {job} started {self.starts[job]} times'

    @property
    def all_settled(self) -> bool:
        """Whether every job has ended."""
        return len(self.settled) == self.submitted

    def statuses(self) -> Counter[JobStatus]:
        """How many jobs ended how."""
        return Counter(JobStatus(status) for status, _ in self.settled.values())
