"""Histories: a world and the operations that happen to it, from a seed or from Hypothesis.

History.of_seed, strategy ──▶ History ── play ──▶ nothing, or PromiseBroken
                                            └▶ shrink ─▶ a short one that still breaks it
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import hypothesis
from hypothesis import strategies as st

from nodeserver.wire.session import Limits
from tests.support.network import PERFECT, Faults
from tests.support.operations import WEIGHTS, Operation, choices_of, draw
from tests.support.promises import PromiseBroken
from tests.support.world import TIGHT, World

ROUGH = Faults(lose_chance=0.02, repeat_chance=0.02, overtake_chance=0.05)
NETWORKS = (PERFECT, Faults(), ROUGH)
LIMITS = (Limits(), TIGHT)


@dataclass(frozen=True)
class History:
    """A world and what happens to it; its `repr` is the program that plays it again."""

    seed: int
    network: int = 0  # which of NETWORKS
    limits: int = 0  # which of LIMITS
    cpus: tuple[int, ...] = (2, 2)
    operations: tuple[Operation, ...] = ()
    callers: int = 0  # of the machines, the last ones, whose nodes connect by themselves
    deaf: int = 0  # of the machines, the first ones, which no ping reaches
    schedulers: int = 0  # that programs share
    pulse_interval: float = 5.0  # the longest of a cluster

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
            rng.choice((0, 0, 1, 2)),
            rng.choice((0, 0, 1, 2)),
            rng.choice((0, 0, 1, 1, 1, 2)),
        )

    def with_only(self, operations: Iterable[Operation]) -> 'History':
        """Make the same history with fewer operations."""
        return replace(self, operations=tuple(operations))

    def world(self, check_every: int = 1) -> World:
        """Make the world as it is at the beginning."""
        network, limits = NETWORKS[self.network], LIMITS[self.limits]
        world = World(self.seed, network, limits, check_every, self.pulse_interval)
        for _ in range(self.schedulers):
            world.add_office()
        for number, cpus in enumerate(self.cpus, 1):
            calls = len(self.cpus) - number < self.callers
            world.add_machine(cpus, calls, is_deaf=not calls and number <= self.deaf)
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
        callers=st.integers(0, 2),
        deaf=st.integers(0, 2),
        schedulers=st.integers(0, 2),
    )


def _strategy_of(kind: type[Operation]) -> st.SearchStrategy[Operation]:
    values = {name: st.sampled_from(choices) for name, choices in choices_of(kind).items()}
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
