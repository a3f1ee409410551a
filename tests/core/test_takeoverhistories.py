"""Programs that are killed, and what others collect of them, in a world of one thread."""

import pytest

from nodeserver.core.recoveryeffects import Keeping
from nodeserver.core.status import JobStatus
from tests.support.network import PERFECT
from tests.support.promises import Fate
from tests.support.users import Cluster
from tests.support.world import World

GIVEN_UP = 40.0  # seconds after which who collects does not wait for a node any more
HANGS = 60.0


def world_of(is_shared: bool, cpus: tuple[int, ...] = (2,)) -> tuple[World, Cluster]:
    """Make a world with one cluster, whose program may be killed."""
    world = World(1, PERFECT)
    office = world.add_office() if is_shared else None
    for count in cpus:
        world.add_machine(count)
    return world, world.make_cluster(world.add_program(office), Keeping.ALL)


@pytest.mark.row('I05')
@pytest.mark.parametrize('is_shared', [False, True], ids=['own', 'shared'])
def test_what_a_recovery_does_not_reach_is_there_for_a_later_one(is_shared: bool) -> None:
    world, cluster = world_of(is_shared)
    world.submit(cluster, 2, Fate(seconds=5.0))
    world.agenda.run_until(lambda: world.witness.starts == 2, 10.0)
    world.kill_program(cluster.program)
    world.run(20.0)
    node = world.machines[0].node
    assert node is not None
    if is_shared:
        world.kill_scheduler(world.offices[0])
        world.start_scheduler(world.offices[0])
    node.stall(HANGS)
    again = world.take_over(cluster, collects=True)
    world.run(GIVEN_UP)
    assert not world.witness.pending(cluster.id) and not world.witness.settled_count
    again.program.close_cluster(again)
    world.run(HANGS)  # the node is met again
    assert world.abandoned == [again]
    last = world.take_over(again, collects=True)
    world.run_until_settled(last)
    assert world.witness.statuses == {JobStatus.FINISHED: 2}
    world.finish()
    assert not world.machines[0].spool.computations


def test_a_node_that_hangs_while_its_cluster_is_closed_may_keep_outcomes() -> None:
    world, cluster = world_of(is_shared=False, cpus=(2, 2))
    world.submit(cluster, 4, Fate(seconds=1.0))
    world.agenda.run_until(lambda: world.witness.starts == 4, 10.0)
    node = world.machines[0].node
    assert node is not None
    node.stall(HANGS)
    world.run(GIVEN_UP)  # it was lost, and found again: its system has accepted a connection
    cluster.program.close_cluster(cluster)
    world.finish()
    assert world.machines[0].spool.computations.keys() <= {cluster.id}
