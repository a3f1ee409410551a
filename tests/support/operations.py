"""What may happen to a world: small operations, drawn from a seed or by Hypothesis alike.

    random.Random(seed) ─▶ draw ─┐
    Hypothesis ─────▶ strategy ──┴─▶ History ─▶ play ─▶ nothing, or PromiseBroken
                                                └▶ shrink ─▶ the shortest that still breaks it

An operation names its target by a number, taken modulo what there is when its turn comes: each
history can be played, also with some of its operations left out.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import hypothesis
from hypothesis import strategies as st

from nodeserver.core import events as seen
from nodeserver.core.messages import JobOptions, NodeSpec
from nodeserver.wire.session import Limits
from tests.support.hosts import NodeProgram
from tests.support.network import PERFECT, Faults
from tests.support.promises import Fate, PromiseBroken
from tests.support.world import TIGHT, Machine, World

ROUGH = Faults(lose_chance=0.02, repeat_chance=0.02, overtake_chance=0.05)
NETWORKS = (PERFECT, Faults(), ROUGH)
LIMITS = (Limits(), TIGHT)
_TARGETS = tuple(range(12))
_MOST_MACHINES = 12
_MOST_PENDING = 3000


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


def _node(world: World, which: int) -> NodeProgram | None:
    machine = _machine(world, which)
    return machine.node if machine is not None else None


# time


@dataclass(frozen=True)
class Wait(Operation):
    """Time passes."""

    seconds: float = _one_of(0.01, 0.1, 1.0, 3.0, 10.0, 40.0)

    def apply(self, world: World) -> None:
        world.run(self.seconds)


# users


@dataclass(frozen=True)
class MakeCluster(Operation):
    """A user makes a cluster, in a program that runs or in a new one."""

    program: int = _one_of(0, 0, 0, 1, 2)
    isolation: str = _one_of('job', 'worker')
    reentrant: bool = _one_of(False, True)
    pulse_interval: float = _one_of(5.0, 1.0)
    cpus: int = _one_of(0, 1)  # of each node at most, 0: all
    asks: bool = _one_of(False, False, True)  # whether the user has a say for each node
    package: int = _one_of(10, 3000)

    def apply(self, world: World) -> None:
        living = world.living()
        if len(world.clusters()) < 4:
            program = living[self.program] if self.program < min(len(living), 2) else None
            world.make_cluster(
                program if program is not None or len(living) < 2 else living[0],
                isolation=self.isolation,
                reentrant=self.reentrant,
                pulse_interval=self.pulse_interval,
                specs=[NodeSpec('*', 51348, self.cpus, self.asks)],
                package=bytes(self.package),
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
    pinned: int = _one_of(-1, -1, -1, -1, -1, 0, 1, 2, 3)  # to a machine
    timeout: float = _one_of(0.0, 0.0, 0.0, 0.0, 0.05, 3.0)
    retries: int = _one_of(0, 0, 0, 0, 1, 3)
    priority: int = _one_of(0, 0, 0, 0, -1, 5)

    def apply(self, world: World) -> None:
        if not world.clusters():
            MakeCluster().apply(world)
        clusters = world.clusters()
        if not clusters:
            return
        cluster = clusters[self.cluster % len(clusters)]
        if world.witness.pending(cluster.id) > _MOST_PENDING:
            return
        count = min(self.count, 5) if self.seconds >= 5.0 else self.count
        machine = _machine(world, self.pinned) if self.pinned >= 0 else None
        node = machine.end.name if machine is not None else ''
        fate = Fate(self.kind, self.seconds, self.provisionals, self.size)
        options = JobOptions(self.timeout, self.retries, self.priority)
        world.submit(cluster, count, fate, node, options)


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
    """A user's program is killed."""

    program: int = _target()

    def apply(self, world: World) -> None:
        living = world.living()
        if living:
            world.kill_program(living[self.program % len(living)])


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


# nodes


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
    """A node's program is killed."""

    machine: int = _target()

    def apply(self, world: World) -> None:
        machine = _machine(world, self.machine)
        if machine is not None:
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


# processes


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
    CloseCluster: 2,
    KillProgram: 1,
    StallProgram: 2,
    CloseProgramsWay: 1,
    OpenProgramsWay: 3,
    AddMachine: 2,
    StartNode: 6,
    KillNode: 2,
    LosePower: 1,
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
def _choices(kind: type[Operation]) -> dict[str, tuple[Any, ...]]:
    return {each.name: each.metadata['choices'] for each in fields(kind)}


def draw(rng: random.Random, weights: dict[type[Operation], int] = WEIGHTS) -> Operation:
    """Draw an operation."""
    (kind,) = rng.choices(list(weights), list(weights.values()))
    return kind(**{name: rng.choice(values) for name, values in _choices(kind).items()})


@dataclass(frozen=True)
class History:
    """A world and what happens to it; its `repr` is the program that plays it again."""

    seed: int
    network: int = 0  # which of NETWORKS
    limits: int = 0  # which of LIMITS
    cpus: tuple[int, ...] = (2, 2)
    operations: tuple[Operation, ...] = ()

    @classmethod
    def of_seed(cls, seed: int, length: int = 60) -> 'History':
        """Make the history that a seed stands for."""
        rng = random.Random(seed)
        return cls(
            seed,
            rng.randrange(len(NETWORKS)),
            rng.randrange(len(LIMITS)),
            tuple(rng.choices((1, 2, 4), k=rng.randint(1, 5))),
            tuple(draw(rng) for _ in range(length)),
        )

    def with_only(self, operations: Iterable[Operation]) -> 'History':
        """Make the same history with fewer operations."""
        return History(self.seed, self.network, self.limits, self.cpus, tuple(operations))

    def world(self, check_every: int = 1) -> World:
        """Make the world as it is at the beginning."""
        world = World(self.seed, NETWORKS[self.network], LIMITS[self.limits], check_every)
        for cpus in self.cpus:
            world.add_machine(cpus)
        return world

    def play(self, check_every: int = 1) -> World:
        """Have it all happen and come to its end; PromiseBroken tells of what must not be."""
        world = self.world(check_every)
        played = 0
        try:
            for number, operation in enumerate(self.operations, 1):
                played = number
                world.agenda.tell('---', operation)
                operation.apply(world)
            world.finish()
        except PromiseBroken as error:
            error.played = played
            error.add_note(f'seed {self.seed}, the last moves:\n{world.agenda.tale()}')
            raise
        return world

    def broken_promise(self) -> PromiseBroken | None:
        """Play it; the promise that it breaks, if it breaks one."""
        try:
            self.play()
        except PromiseBroken as error:
            return error
        return None


def strategy(longest: int = 30) -> st.SearchStrategy[History]:
    """Histories as Hypothesis draws and shrinks them."""
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
    operations = {kind: _strategy_of(kind) for kind in WEIGHTS}
    one = st.sampled_from(kinds).flatmap(operations.__getitem__)
    return st.builds(
        History,
        seed=st.integers(0, 2**32),
        network=st.integers(0, len(NETWORKS) - 1),
        limits=st.integers(0, len(LIMITS) - 1),
        cpus=st.lists(st.sampled_from((1, 2, 4)), min_size=1, max_size=4).map(tuple),
        operations=st.lists(one, max_size=longest).map(tuple),
    )


def _strategy_of(kind: type[Operation]) -> st.SearchStrategy[Operation]:
    values = {name: st.sampled_from(choices) for name, choices in _choices(kind).items()}
    return st.builds(kind, **values)


def shrink(history: History, error: PromiseBroken, examples: int = 200) -> History:
    """Find a short part of a history that breaks the same promise."""
    history = history.with_only(history.operations[: error.played])  # what came later is not why
    size = len(history.operations)
    # The first choice is the one that Hypothesis shrinks to; most operations are kept at first.
    kept = st.tuples(*[st.sampled_from((False,) + 7 * (True,)) for _ in range(size)])

    def part(chosen: Sequence[bool]) -> History:
        chosen_ones = zip(history.operations, chosen, strict=True)
        return history.with_only(each for each, is_kept in chosen_ones if is_kept)

    def breaks(chosen: Sequence[bool]) -> bool:
        found = part(chosen).broken_promise()
        return found is not None and found.promise is error.promise

    try:
        return part(
            hypothesis.find(
                kept,
                breaks,
                settings=hypothesis.settings(
                    max_examples=examples,
                    database=None,
                    derandomize=True,
                    deadline=None,
                    suppress_health_check=list(hypothesis.HealthCheck),
                    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
                ),
            )
        )
    except hypothesis.errors.NoSuchExample:
        return history
