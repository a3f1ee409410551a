"""Random histories of a cluster: whatever happens, every job is settled, and settled once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeserver.core import events as seen
from nodeserver.core.status import JobStatus
from tests.support.network import PERFECT, Faults
from tests.support.world import World


def test_jobs_run_on_the_nodes_that_are_there() -> None:
    world = World(1, PERFECT)
    world.add_node(2)
    world.add_node(4)
    world.submit(100)
    world.network.run_until(lambda: world.all_settled)
    assert world.statuses() == {JobStatus.FINISHED: 100}
    world.tell_cluster(seen.CloseAsked())
    world.network.run_until(lambda: world.closed)


def test_jobs_wait_for_a_node_that_comes_late() -> None:
    world = World(2)
    world.submit(5)
    world.network.run(10)
    assert not world.settled
    assert any('nobody answered' in text for text in world.said)
    world.add_node(1)
    world.network.run_until(lambda: world.all_settled)


def test_jobs_of_a_lost_node_are_cancelled_and_the_others_go_on() -> None:
    world = World(3, PERFECT)
    world.add_node(2)
    world.add_node(2)
    world.submit(20, length=1.0)
    world.network.run_until(lambda: sum(world.starts.values()) >= 4)
    world.kill('node-1')
    world.network.run_until(lambda: world.all_settled)
    assert world.statuses() == {JobStatus.FINISHED: 18, JobStatus.CANCELLED: 2}
    assert all('node-1' in reason for status, reason in world.settled.values() if reason)


def test_reentrant_jobs_of_a_lost_node_run_elsewhere() -> None:
    world = World(4, PERFECT, reentrant=True)
    world.add_node(2)
    world.add_node(2)
    world.submit(20, length=1.0)
    world.network.run_until(lambda: sum(world.starts.values()) >= 4)
    world.kill('node-1')
    world.network.run_until(lambda: world.all_settled)
    assert world.statuses() == {JobStatus.FINISHED: 20}


def test_a_silent_node_is_lost_after_five_pulses_and_not_sooner() -> None:
    world = World(5, PERFECT, pulse_interval=2.0)
    world.add_node(1)
    world.submit(1, length=1000.0)
    world.network.run(1)
    world.network.cut('node-1')
    world.network.run(9)
    assert not world.settled
    world.network.run(6)
    assert world.statuses() == {JobStatus.CANCELLED: 1}


def test_a_node_that_was_cut_off_is_used_again_and_its_late_answers_are_not_believed() -> None:
    world = World(6, PERFECT, pulse_interval=1.0, reentrant=True)
    world.add_node(1)
    world.submit(1, length=8.0)
    world.network.run(1)
    world.network.cut('node-1')
    world.network.run(9)
    world.network.heal()
    world.network.run_until(lambda: world.all_settled)
    assert world.statuses() == {JobStatus.FINISHED: 1}
    assert world.starts[1] == 2


def test_what_was_handed_out_ahead_is_taken_back_when_a_node_idles() -> None:
    world = World(7, PERFECT)
    world.add_node(1)
    world.add_node(1)
    world.submit(200, length=0.001)
    world.network.run_until(lambda: world.all_settled)
    world.submit(8, length=1.0)
    began = world.clock.now
    world.network.run_until(lambda: world.all_settled)
    assert world.clock.now - began < 5.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cpus=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    jobs=st.integers(1, 60),
    isolation=st.sampled_from(['job', 'worker']),
    reentrant=st.booleans(),
    troubles=st.lists(
        st.sampled_from(['kill', 'add', 'cancel', 'cut', 'heal', 'submit', 'wait']), max_size=12
    ),
)
def test_every_job_is_settled_once_whatever_happens(
    seed: int, cpus: list[int], jobs: int, isolation: str, reentrant: bool, troubles: list[str]
) -> None:
    world = World(seed, Faults(), isolation=isolation, reentrant=reentrant, pulse_interval=1.0)
    for count in cpus:
        world.add_node(count)
    world.submit(jobs, length=world.random.choice([0.001, 0.05, 0.5]))
    for trouble in troubles:
        world.network.run(world.random.uniform(0, 1.5))
        _make_trouble(world, trouble)
    world.network.heal()
    world.add_node(2)
    world.network.run_until(lambda: world.all_settled, 100_000)
    world.tell_cluster(seen.CloseAsked())
    world.network.run_until(lambda: world.closed, 100_000)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    reentrant=st.booleans(),
    isolation=st.sampled_from(['job', 'worker']),
    troubles=st.lists(
        st.sampled_from(['kill', 'add', 'cancel', 'cut', 'heal', 'share', 'drop', 'submit']),
        max_size=12,
    ),
)
def test_every_job_gets_its_data_whatever_happens(
    seed: int, reentrant: bool, isolation: str, troubles: list[str]
) -> None:
    world = World(seed, Faults(), isolation=isolation, reentrant=reentrant, pulse_interval=1.0)
    world.add_node(2)
    world.add_node(1)
    world.submit(5, named=[world.share(), world.share()])
    for trouble in troubles:
        world.network.run(world.random.uniform(0, 0.5))
        _make_trouble(world, trouble)
    world.network.heal()
    world.add_node(2)
    world.network.run_until(lambda: world.all_settled, 100_000)
    world.drop_unneeded()
    world.network.run(30)
    assert world.data_held() == []


def _make_trouble(world: World, trouble: str) -> None:
    nodes = sorted(world.nodes)
    match trouble:
        case 'kill' if nodes:
            world.kill(world.random.choice(nodes))
        case 'cut' if nodes:
            world.network.cut(world.random.choice(nodes))
        case 'heal':
            world.network.heal()
        case 'add':
            world.add_node(world.random.randint(1, 4))
        case 'share':
            named = [world.share() for _ in range(world.random.randint(1, 3))]
            world.submit(world.random.randint(1, 20), length=0.3, named=named)
        case 'drop':
            world.drop_unneeded()
        case 'submit':
            world.submit(world.random.randint(1, 30), length=world.random.choice([0.001, 0.3]))
        case 'cancel' if world.submitted:
            world.tell_cluster(seen.CancelAsked([world.random.randint(1, world.submitted)]))
