"""Programs that share a scheduler have equal parts of its cpus, whatever their jobs are like.

`tests/support/fairshares.py` looks at each second of every history with shared schedulers; here
are worlds in which there is much to see.
"""

from typing import Any

import pytest

from nodeserver.core.account import Client
from nodeserver.core.recoveryeffects import Keeping
from tests.support.network import PERFECT
from tests.support.promises import Fate, Promise, PromiseBroken
from tests.support.world import World

LONG_ENOUGH = 330.0  # seconds: for jobs of before to end, and then for a comparison


def busy_world(seconds: tuple[float, ...], cpus: tuple[int, ...] = (2, 1)) -> World:
    """A world in which each of some programs has jobs of so many seconds, and never too few."""
    world = World(1, PERFECT, check_every=100)
    office = world.add_office()
    for count in cpus:
        world.add_machine(count)
    for each in seconds:
        cluster = world.make_cluster(world.add_program(office), Keeping.ALL)
        world.submit(cluster, int(400 * sum(cpus) / each), Fate(seconds=each))
    return world


@pytest.mark.parametrize(
    'seconds',
    [(0.5, 20.0), (0.2, 2.0, 10.0), (1.0, 1.0, 1.0, 1.0)],
    ids=['short and long', 'three', 'more than cpus'],
)
def test_each_client_has_an_equal_part(seconds: tuple[float, ...]) -> None:
    world = busy_world(seconds)
    world.run(LONG_ENOUGH)
    assert world.shares_compared == len(seconds) * (len(seconds) - 1) // 2


def test_a_part_stays_equal_over_a_scheduler_that_is_killed() -> None:
    world = busy_world((0.5, 10.0))
    world.run(50.0)
    world.kill_scheduler(world.offices[0])
    world.run(5.0)
    world.start_scheduler(world.offices[0])
    world.run(LONG_ENOUGH)
    assert world.shares_compared == 1


def test_a_part_stays_equal_for_one_that_takes_over() -> None:
    world = busy_world((0.5, 10.0))
    world.run(50.0)
    world.kill_program(world.living()[0])
    world.run(5.0)
    world.take_over(world.abandoned[0], collects=False)
    world.run(LONG_ENOUGH)
    assert world.shares_compared == 1


@pytest.mark.parametrize('weight', [0.0, -1.0], ids=['first come', 'most had'])
def test_a_scheduler_that_is_not_fair_is_noticed(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made on purpose: it serves first who came first, or who has had the most."""

    def rank(self: Any) -> tuple[float, float, int]:
        return 0.0, weight * self.used, self.number

    monkeypatch.setattr(Client, '_rank', rank)
    world = busy_world((0.5, 20.0))
    with pytest.raises(PromiseBroken) as found:
        world.run(2 * LONG_ENOUGH)
    assert found.value.promise is Promise.SHARES
