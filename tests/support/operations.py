"""What may happen to a world: small operations, drawn from a seed or by Hypothesis alike.

An operation names its target by a number, taken modulo what there is when its turn comes: each
history can be played, also with some of its operations left out.
"""

import random
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from nodeserver.core import events as seen
from nodeserver.core.fleetmessages import AddNodes, CloseNode, DeallocateNode, SetNodeCpus
from nodeserver.core.messages import ONE_CPU, JobOptions, NodeSpec, Resources
from nodeserver.core.recoveryeffects import Keeping
from tests.support.hosts import NodeProgram
from tests.support.promises import MEMORY, Fate
from tests.support.seats import Office
from tests.support.users import SharedProgram
from tests.support.world import Machine, Needs, World

_TARGETS = tuple(range(12))
_MOST_MACHINES = 12
_MOST_PENDING = 3000
NEEDS = (
    ONE_CPU,
    Resources(cpus=2),
    Resources(memory=MEMORY // 2),
    Resources(memory=MEMORY),
    Resources(gpus=1),
    Resources(cpus=2, gpus=2),
)


def _one_of(*choices: Any) -> Any:
    return field(default=choices[0], metadata={'choices': choices})


def _target() -> Any:
    return _one_of(*_TARGETS)


@dataclass(frozen=True)
class Operation:
    """Something that happens to a world, at once."""

    def apply(self, world: World) -> None:
        """Have it happen; nothing does if there is nothing that it could happen to."""
        raise NotImplementedError


def _machine(world: World, which: int) -> Machine | None:
    return world.machines[which % len(world.machines)] if world.machines else None


def _office(world: World, which: int) -> Office | None:
    return world.offices[which % len(world.offices)] if world.offices else None


def _node(world: World, which: int) -> NodeProgram | None:
    machine = _machine(world, which)
    return machine.node if machine is not None else None


@dataclass(frozen=True)
class Wait(Operation):
    """Time passes."""

    seconds: float = _one_of(0.01, 0.1, 1.0, 3.0, 10.0, 40.0)

    def apply(self, world: World) -> None:
        world.run(self.seconds)


@dataclass(frozen=True)
class MakeCluster(Operation):
    """A user makes a cluster, in a program that runs or in a new one.

    Where schedulers are shared, some programs use one of these, and others bring their own.
    """

    program: int = _one_of(0, 0, 0, 1, 2)
    isolation: str = _one_of('job', 'worker')
    reentrant: bool = _one_of(False, True)
    pulse_interval: float = _one_of(5.0, 1.0)
    cpus: int = _one_of(0, 1)  # of each node at most, 0: all
    asks: bool = _one_of(False, False, True)  # whether the user has a say for each node
    package: int = _one_of(10, 3000)
    needs: int = _one_of(0, 0, 0, 0, *range(1, len(NEEDS)))  # which of NEEDS each job has
    files: bytes = _one_of(*(b'',) * 12, b'300', b'0,10,5000', b'20000,0')  # of its own
    shares: int = _one_of(1, 2, 1, 0)  # which scheduler, 0: one of its own
    keeps: int = _one_of(3, 3, 1, 0)  # of its jobs, in a journal: a `Keeping`

    def apply(self, world: World) -> None:
        living = world.living()
        needs = NEEDS[self.needs]
        cpus = max(self.cpus, needs.cpus) if self.cpus else 0  # else no node would fit
        most = 2
        if world.offices and self.shares:
            office = world.offices[(self.shares - 1) % len(world.offices)]
            living = [p for p in living if isinstance(p, SharedProgram) and p.office is office]
            most = 4
        else:
            office = None
            living = [p for p in living if not isinstance(p, SharedProgram)]
        if len(world.clusters()) < most + 2:
            program = living[self.program] if self.program < min(len(living), most) else None
            if program is None:
                program = living[0] if len(living) >= most else world.add_program(office)
            keeps = Keeping(self.keeps)
            if keeps == Keeping.ENDS and office is not None:
                keeps = Keeping.JOBS
            world.make_cluster(
                program,
                keeps,
                isolation=self.isolation,
                reentrant=self.reentrant,
                pulse_interval=self.pulse_interval,
                specs=[NodeSpec('*', 51348, cpus, self.asks)],
                resources=needs,
                package=bytes(self.package),
                manifest=self.files,
            )


@dataclass(frozen=True)
class Submit(Operation):
    """A user submits jobs; without any cluster one is made."""

    cluster: int = _target()
    count: int = _one_of(1, 2, 5, 30, 100)
    kind: str = _one_of(
        *('returns',) * 12, 'raises', 'crashes', 'exits', 'stubborn', 'deaf', 'spoils'
    )
    seconds: float = _one_of(0.01, 0.0002, 0.002, 0.1, 1.0, 5.0, 20.0, 120.0)
    provisionals: int = _one_of(0, 0, 0, 1, 3)
    size: int = _one_of(0, 0, 0, 100, 2000)
    shared: int = _one_of(0, 0, 0, 0, 50, 3000)  # bytes that these jobs have in common
    pinned: int = _one_of(-1, -1, -1, -1, -1, 0, 1, 2, 3)  # to a machine
    timeout: float = _one_of(0.0, 0.0, 0.0, 0.0, 0.05, 3.0)
    retries: int = _one_of(0, 0, 0, 0, 1, 3)
    priority: int = _one_of(0, 0, 0, 0, -1, 5)
    files: bytes = _one_of(*(b'',) * 15, b'10', b'0', b'300,5000', b'20000')  # of each job
    sends: int = _one_of(*(0,) * 15, 1, 5000, 20000)  # bytes of a file that each job sends

    def apply(self, world: World) -> None:
        if not world.clusters():
            MakeCluster().apply(world)
        clusters = world.clusters()
        if not clusters:
            return
        cluster = clusters[self.cluster % len(clusters)]
        if world.witness.pending(cluster.id) > _MOST_PENDING:
            return
        is_much = self.seconds >= 5.0 or self.files or self.sends
        count = min(self.count, 5) if is_much else self.count
        machine = _machine(world, self.pinned) if self.pinned >= 0 else None
        if machine is not None and machine.cpus < cluster.declared.resources.cpus:
            machine = None  # they would wait for ever
        node = machine.end.name if machine is not None else ''
        fate = Fate(self.kind, self.seconds, self.provisionals, self.size, self.sends)
        needs = Needs(self.shared, self.files)
        options = JobOptions(self.timeout, self.retries, self.priority)
        world.submit(cluster, count, fate, node, options, needs)


@dataclass(frozen=True)
class Cancel(Operation):
    """A user takes some of the latest jobs back."""

    cluster: int = _target()
    count: int = _one_of(1, 3, 50)

    def apply(self, world: World) -> None:
        clusters = world.clusters()
        if clusters:
            cluster = clusters[self.cluster % len(clusters)]
            first = max(1, cluster.submitted + 1 - self.count)
            world.cancel(cluster, list(range(first, cluster.submitted + 1)))


@dataclass(frozen=True)
class SteerNode(Operation):
    """A user wants a node, or does not want it, or wants some of its cpus."""

    cluster: int = _target()
    machine: int = _target()
    wish: str = _one_of('allocate', 'deallocate', 'close', 'terminate', 'resetup', 'cpus')
    cpus: int = _one_of(1, 0, -1, 2)

    def apply(self, world: World) -> None:
        clusters, machine = world.clusters(), _machine(world, self.machine)
        if clusters and machine is not None:
            cluster, name = clusters[self.cluster % len(clusters)], machine.end.name
            match self.wish:
                case 'allocate':
                    cluster.request(AddNodes, [NodeSpec(name, 51348, 0, False)])
                case 'deallocate':
                    cluster.request(DeallocateNode, name)
                case 'cpus':
                    cluster.request(SetNodeCpus, name, self.cpus)
                case _:
                    again = self.wish == 'resetup'
                    cluster.request(CloseNode, name, self.wish == 'terminate', again)


@dataclass(frozen=True)
class SendFile(Operation):
    """A user sends a file to a node."""

    cluster: int = _target()
    machine: int = _target()
    size: int = _one_of(0, 10, 5000, 20000)

    def apply(self, world: World) -> None:
        clusters, node = world.clusters(), _node(world, self.machine)
        if clusters and node is not None:
            clusters[self.cluster % len(clusters)].files.send(node.peer, b'%d' % self.size)


@dataclass(frozen=True)
class CloseCluster(Operation):
    """A user closes a cluster, whatever is pending."""

    cluster: int = _target()

    def apply(self, world: World) -> None:
        clusters = world.clusters()
        if clusters:
            cluster = clusters[self.cluster % len(clusters)]
            cluster.program.close_cluster(cluster)


@dataclass(frozen=True)
class KillProgram(Operation):
    """A user's program is killed, now or in the middle of a turn."""

    program: int = _target()
    effects: int = _one_of(0, 0, 1, 2, 3, 5, 10, 30)  # that it performs yet

    def apply(self, world: World) -> None:
        living = world.living()
        if not living:
            return
        program = living[self.program % len(living)]
        if self.effects:
            program.die_after(self.effects, lambda: world.kill_program(program))
        else:
            world.kill_program(program)


@dataclass(frozen=True)
class TakeOver(Operation):
    """A new program goes on with a cluster of one that was killed, or collects what it left."""

    cluster: int = _target()
    collects: bool = _one_of(False, True)

    def apply(self, world: World) -> None:
        if world.abandoned:
            cluster = world.abandoned[self.cluster % len(world.abandoned)]
            world.take_over(cluster, self.collects)


@dataclass(frozen=True)
class StallProgram(Operation):
    """A user's program hangs for a while."""

    program: int = _target()
    seconds: float = _one_of(0.1, 2.0, 15.0, 60.0)

    def apply(self, world: World) -> None:
        living = world.living()
        if living:
            living[self.program % len(living)].stall(self.seconds)


@dataclass(frozen=True)
class CloseProgramsWay(Operation):
    """Nothing reaches a user's program, nothing leaves it, or both."""

    program: int = _target()
    deaf: bool = _one_of(True, False)
    mute: bool = _one_of(True, False)

    def apply(self, world: World) -> None:
        living = world.living()
        if living:
            end = living[self.program % len(living)].end
            world.network.close(end, self.deaf, self.mute)


@dataclass(frozen=True)
class OpenProgramsWay(Operation):
    """Everything passes to a user's program and from it."""

    program: int = _target()

    def apply(self, world: World) -> None:
        living = world.living()
        if living:
            world.network.open(living[self.program % len(living)].end)


@dataclass(frozen=True)
class KillScheduler(Operation):
    """A shared scheduler is killed, now or in the middle of a turn; it may start again at once."""

    office: int = _target()
    effects: int = _one_of(0, 0, 1, 2, 3, 5, 10, 30)  # that it performs yet
    restarts: bool = _one_of(True, False)

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is None or office.program is None:
            return

        def kill() -> None:
            world.kill_scheduler(office)
            if self.restarts:
                world.agenda.later(0.5, None, world.start_scheduler, office)

        if self.effects:
            office.program.die_after(self.effects, kill)
        else:
            kill()


@dataclass(frozen=True)
class MoveScheduler(Operation):
    """A shared scheduler is killed, and started with its state on another machine."""

    office: int = _target()

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is not None:
            world.move_scheduler(office)


@dataclass(frozen=True)
class LoseState(Operation):
    """A shared scheduler is killed, and all that it has put on record is gone."""

    office: int = _target()

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is not None:
            world.lose_state(office)


@dataclass(frozen=True)
class StartScheduler(Operation):
    """A shared scheduler is started where there is none."""

    office: int = _target()

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is not None:
            world.start_scheduler(office)


@dataclass(frozen=True)
class StallScheduler(Operation):
    """A shared scheduler hangs for a while."""

    office: int = _target()
    seconds: float = _one_of(0.1, 2.0, 15.0, 60.0)

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is not None and office.program is not None:
            office.program.stall(self.seconds)


@dataclass(frozen=True)
class CloseSchedulersWay(Operation):
    """Nothing reaches a shared scheduler, nothing leaves it, or both."""

    office: int = _target()
    deaf: bool = _one_of(True, False)
    mute: bool = _one_of(True, False)

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is not None:
            world.network.close(office.end, self.deaf, self.mute)


@dataclass(frozen=True)
class OpenSchedulersWay(Operation):
    """Everything passes to a shared scheduler and from it."""

    office: int = _target()

    def apply(self, world: World) -> None:
        office = _office(world, self.office)
        if office is not None:
            world.network.open(office.end)


@dataclass(frozen=True)
class AddMachine(Operation):
    """A machine with a node joins."""

    cpus: int = _one_of(1, 2, 4)

    def apply(self, world: World) -> None:
        if len(world.machines) < _MOST_MACHINES:
            world.add_machine(self.cpus)


@dataclass(frozen=True)
class StartNode(Operation):
    """A node is started on a machine that has none."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        without = [machine for machine in world.machines if machine.node is None]
        if without:
            world.start_node(without[self.machine % len(without)])


@dataclass(frozen=True)
class KillNode(Operation):
    """A node's program is killed, now or in the middle of a turn."""

    machine: int = _target()
    effects: int = _one_of(0, 0, 1, 2, 3, 5, 10)  # that it performs yet

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is None or machine.node is None:
            return
        if self.effects:
            machine.node.die_after(self.effects, lambda: world.kill_node(machine))
        else:
            world.kill_node(machine)


@dataclass(frozen=True)
class LosePower(Operation):
    """A machine is gone without a word."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None:
            world.lose_power(machine)


@dataclass(frozen=True)
class LoseDisk(Operation):
    """A node is killed, and its machine's disk is empty from then on."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None:
            world.lose_disk(machine)


@dataclass(frozen=True)
class StopNode(Operation):
    """A node is asked to end, after its running jobs or at once."""

    machine: int = _target()
    at_once: bool = _one_of(False, True)

    def apply(self, world: World) -> None:
        node = _node(world, self.machine)
        if node is not None:
            node.tell(seen.StopAsked(self.at_once, 'it was asked to'))


@dataclass(frozen=True)
class OrphanNode(Operation):
    """The program that started a node for itself is gone."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        node = _node(world, self.machine)
        if node is not None:
            node.tell(seen.OwnerGone())


@dataclass(frozen=True)
class StallNode(Operation):
    """A node hangs for a while."""

    machine: int = _target()
    seconds: float = _one_of(0.1, 2.0, 15.0, 60.0)

    def apply(self, world: World) -> None:
        node = _node(world, self.machine)
        if node is not None:
            node.stall(self.seconds)


@dataclass(frozen=True)
class CloseWay(Operation):
    """Nothing reaches a machine, nothing leaves it, or both: it is clogged."""

    machine: int = _target()
    deaf: bool = _one_of(True, False)
    mute: bool = _one_of(True, False)

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None:
            world.network.close(machine.end, self.deaf, self.mute)


@dataclass(frozen=True)
class OpenWay(Operation):
    """Everything passes to a machine and from it, unless it has no power."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None and machine.end.is_on:
            world.network.open(machine.end)


@dataclass(frozen=True)
class Reset(Operation):
    """The connections of a machine break."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None:
            world.network.reset(machine.end)


@dataclass(frozen=True)
class KillWorker(Operation):
    """A job's process is killed, or one that waits for a job."""

    machine: int = _target()
    worker: int = _target()

    def apply(self, world: World) -> None:
        node = _node(world, self.machine)
        if node is not None:
            node.processes.kill_worker(self.worker)


@dataclass(frozen=True)
class KillTemplate(Operation):
    """The template of a computation is killed."""

    machine: int = _target()
    template: int = _target()

    def apply(self, world: World) -> None:
        node = _node(world, self.machine)
        if node is not None:
            node.processes.kill_template(self.template)


@dataclass(frozen=True)
class Exhaust(Operation):
    """A machine can fork no more, or unpack nothing more; or it can again."""

    machine: int = _target()
    forks: bool = _one_of(False, False, True)
    templates: bool = _one_of(False, False, False, True)

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None:
            machine.troubles.refuses_forks = self.forks
            machine.troubles.refuses_templates = self.templates


# how often each is drawn
WEIGHTS: dict[type[Operation], int] = {
    Wait: 30,
    MakeCluster: 3,
    Submit: 12,
    Cancel: 4,
    SteerNode: 5,
    SendFile: 3,
    CloseCluster: 2,
    KillProgram: 2,
    TakeOver: 3,
    StallProgram: 2,
    CloseProgramsWay: 1,
    OpenProgramsWay: 3,
    KillScheduler: 1,
    MoveScheduler: 1,
    LoseState: 1,
    StartScheduler: 3,
    StallScheduler: 1,
    CloseSchedulersWay: 1,
    OpenSchedulersWay: 3,
    AddMachine: 2,
    StartNode: 6,
    KillNode: 2,
    LosePower: 1,
    LoseDisk: 1,
    StopNode: 1,
    OrphanNode: 1,
    StallNode: 2,
    CloseWay: 5,
    OpenWay: 6,
    Reset: 3,
    KillWorker: 3,
    KillTemplate: 1,
    Exhaust: 3,
}


@cache
def choices_of(kind: type[Operation]) -> dict[str, tuple[Any, ...]]:
    """What each field of an operation may be."""
    return {each.name: each.metadata['choices'] for each in fields(kind)}


def draw(rng: random.Random, weights: dict[type[Operation], int] = WEIGHTS) -> Operation:
    """Draw an operation."""
    (kind,) = rng.choices(list(weights), list(weights.values()))
    return kind(**{name: rng.choice(values) for name, values in choices_of(kind).items()})
