"""What becomes of ended, running and waiting jobs where a disk is lost, or a scheduler moves.

Three jobs of five seconds, one after the other, on one cpu: mostly the first has ended when it
happens, the second runs and the third waits.
"""

from collections.abc import Callable

import pytest

from nodeserver.core.recoveryeffects import Keeping
from nodeserver.core.status import JobStatus
from tests.support.network import PERFECT
from tests.support.operations import (
    KillNode,
    KillProgram,
    LoseDisk,
    LoseState,
    MoveScheduler,
    StartNode,
    StartScheduler,
)
from tests.support.promises import Fate
from tests.support.users import Cluster
from tests.support.world import TIGHT, Needs, World

FINISHED, CANCELLED, ABANDONED = JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.ABANDONED
FIVE_PULSES = 25.0


def world_of_three(keeping: Keeping = Keeping.ALL) -> tuple[World, Cluster]:
    """A shared scheduler, a node with one cpu, and a program with three jobs, of which one runs."""
    world = World(1, PERFECT)
    office = world.add_office()
    world.add_machine(1)
    cluster = world.make_cluster(world.add_program(office), keeping)
    world.submit(cluster, 3, Fate(seconds=5.0))
    until_begun(world, 1)
    return world, cluster


def until_begun(world: World, count: int) -> None:
    """Let jobs begin."""
    assert world.agenda.run_until(lambda: world.witness.starts >= count, 60.0)


def second_runs(world: World) -> None:
    """The first has ended, and whoever is there has been told."""
    until_begun(world, 2)
    world.run(1.0)


def ends(world: World, cluster: Cluster, seconds: float = 60.0) -> list[JobStatus]:
    """How the jobs end; nothing is left then."""
    world.run_until_settled(cluster, seconds)
    stories = world.witness._stories.items()
    found = [story.status for (number, _), story in stories if number == cluster.id]
    world.finish()
    return found


def killed(world: World) -> Callable[[], Cluster]:
    """The program is killed: what goes on with its cluster."""
    KillProgram(0).apply(world)
    (cluster,) = world.abandoned
    return lambda: world.take_over(cluster, collects=False)


def test_a_node_that_loses_its_disk_loses_what_runs_there() -> None:
    world, cluster = world_of_three()
    second_runs(world)
    LoseDisk(0).apply(world)
    StartNode(0).apply(world)
    assert ends(world, cluster) == [FINISHED, CANCELLED, FINISHED]
    assert world.witness.starts == 3


def test_a_node_that_loses_its_disk_loses_what_it_keeps_for_a_program_that_is_away() -> None:
    world, _ = world_of_three()
    back = killed(world)
    second_runs(world)
    world.run(7.0)  # two have ended, the third runs, and the node keeps outcomes
    LoseDisk(0).apply(world)
    StartNode(0).apply(world)
    world.run(1.0)  # the node is met, and has nothing
    assert ends(world, back()) == [ABANDONED, ABANDONED, CANCELLED]
    assert world.witness.starts == 3


def test_a_scheduler_that_loses_its_records_hears_all_of_programs_and_nodes() -> None:
    world, cluster = world_of_three()
    second_runs(world)
    LoseState(0).apply(world)
    StartScheduler(0).apply(world)
    world.run(FIVE_PULSES - 5.0)
    assert world.witness.starts == 2  # the third may be with a node that is yet to come
    assert ends(world, cluster) == [FINISHED, FINISHED, FINISHED]
    assert world.witness.starts == 3


@pytest.mark.parametrize('effects', range(1, 13))
def test_one_without_records_that_dies_as_it_takes_over_leaves_none_that_say_too_little(
    effects: int,
) -> None:
    world, _ = world_of_three()
    go_on = killed(world)  # its journal does not know that a job has begun: its scheduler did
    LoseState(0).apply(world)
    world.run(20.0)
    StartScheduler(0).apply(world)
    (office,) = world.offices
    assert office.program is not None
    office.program.die_after(effects, lambda: world.kill_scheduler(office))
    again = go_on()
    assert world.agenda.run_until(lambda: office.program is None, 60.0)
    StartScheduler(0).apply(world)
    assert ends(world, again) == [FINISHED] * 3
    assert world.witness.starts == 3


def test_a_scheduler_that_loses_its_records_and_a_program_hears_all_of_nodes() -> None:
    world, _ = world_of_three()
    second_runs(world)
    back = killed(world)
    world.run(12.0)  # all three have begun
    LoseState(0).apply(world)
    StartScheduler(0).apply(world)
    assert ends(world, back()) == [FINISHED, FINISHED, FINISHED]
    assert world.witness.starts == 3


def test_a_job_begins_again_where_its_scheduler_program_and_node_are_lost() -> None:
    world, _ = world_of_three()
    second_runs(world)
    back = killed(world)
    LoseState(0).apply(world)
    KillNode(0).apply(world)
    StartScheduler(0).apply(world)
    StartNode(0).apply(world)
    assert ends(world, back()) == [FINISHED, FINISHED, FINISHED]
    assert world.witness.starts == 4


def test_a_job_of_a_program_that_knows_of_it_does_not_begin_again() -> None:
    world, cluster = world_of_three()
    second_runs(world)
    LoseState(0).apply(world)
    KillNode(0).apply(world)
    StartScheduler(0).apply(world)
    StartNode(0).apply(world)
    assert ends(world, cluster) == [FINISHED, ABANDONED, FINISHED]
    assert world.witness.starts == 3


@pytest.mark.parametrize('is_killed', [False, True], ids=['program', 'the next program'])
def test_a_scheduler_that_moves_with_its_records_goes_on_at_once(is_killed: bool) -> None:
    world, cluster = world_of_three()
    second_runs(world)
    back = killed(world) if is_killed else lambda: cluster
    MoveScheduler(0).apply(world)
    in_time = FIVE_PULSES - 5.0  # so nothing was waited for
    assert ends(world, back(), in_time) == [FINISHED, FINISHED, FINISHED]
    assert world.witness.starts == 3


def test_jobs_whose_data_were_lost_with_their_program_end() -> None:
    world = World(1, PERFECT, TIGHT)  # the data take longer than the jobs that name them
    office = world.add_office()
    world.add_machine(1)
    cluster = world.make_cluster(world.add_program(office), Keeping.JOBS)
    world.run(1.0)
    world.submit(cluster, 2, Fate(seconds=1.0), needs=Needs(shared=3000))
    assert world.agenda.run_until(lambda: world.witness._stories[cluster.id, 1].node, 5.0)
    assert ends(world, killed(world)()) == [CANCELLED, CANCELLED]
    assert world.witness.starts == 0
