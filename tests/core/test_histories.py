"""Random histories of whole clusters: whatever happens, the promises of D4 hold.

`tests/support/promises.py` has the promises, `tests/support/operations.py` what may happen, and
`python -m tests.simulate` plays as many histories as one likes.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from nodeserver.core import endings
from nodeserver.core import messages as m
from nodeserver.core.computation import Computation
from nodeserver.core.endings import Endings
from nodeserver.core.fileroutes import FileRoutes
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.fleetmessages import AddNodes
from nodeserver.core.hosted import Hosted, NodeJob
from nodeserver.core.messages import NodeSpec
from nodeserver.core.nodefiles import NodeFiles
from nodeserver.core.passing import Passing
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.core.shareddata import HeldData
from nodeserver.core.status import JobStatus
from nodeserver.core.transfer import Outgoing
from nodeserver.wire.session import Limits
from tests.support import histories, operations
from tests.support.histories import History, shrink, strategy
from tests.support.network import PERFECT
from tests.support.nodebench import opening
from tests.support.promises import Fate, Promise, PromiseBroken, Witness
from tests.support.users import Cluster
from tests.support.world import TIGHT, World

pytestmark = pytest.mark.timeout(300)  # ten seconds on a machine that has nothing else to do

LONG = Fate(seconds=1.0)
FIRST_SEED = 1000
OUTLINE = """
from tests.support.histories import History
world = History.of_seed(%d).world()
try:
    for operation in History.of_seed(%d).operations:
        operation.apply(world)
finally:
    print(world.agenda.clock.now, world.witness.starts, world.agenda.tale())
"""


def ready_world(
    cpus: tuple[int, ...] = (2, 2), limits: Limits | None = None, **changes: object
) -> tuple[World, Cluster]:
    world = World(1, PERFECT, limits)
    for count in cpus:
        world.add_machine(count)
    return world, world.make_cluster(**changes)


def statuses(world: World) -> Counter[JobStatus]:
    return world.witness.statuses


# what a world does


def test_a_seed_plays_the_same_history_in_each_process() -> None:
    source = OUTLINE % ((1221314134,) * 2)  # some programs at schedulers that are killed and moved
    tales = {
        subprocess.run(
            (sys.executable, '-c', source),
            env={**os.environ, 'PYTHONHASHSEED': str(number)},  # in which order sets are
            capture_output=True,
            text=True,
            check=False,  # whether a promise is broken is not asked here
        ).stdout
        for number in range(1, 5)
    }
    assert len(tales) == 1 and tales != {''}


def test_jobs_run_on_the_nodes_that_are_there() -> None:
    world, cluster = ready_world((2, 4))
    world.submit(cluster, 100)
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 100}
    world.finish()


def test_jobs_wait_for_a_node_that_comes_late() -> None:
    world, cluster = ready_world(())
    world.submit(cluster, 5)
    world.run(10)
    assert not world.witness.settled_count
    assert any('nobody answered' in text for text in cluster.said)
    world.add_machine(1)
    world.run_until_settled(cluster)


def test_jobs_of_a_lost_node_are_cancelled_and_the_others_go_on() -> None:
    world, cluster = ready_world()
    world.submit(cluster, 20, LONG)
    world.agenda.run_until(lambda: world.witness.starts >= 4, 10.0)
    world.kill_node(world.machines[0])
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 18, JobStatus.CANCELLED: 2}


def test_reentrant_jobs_of_a_lost_node_run_elsewhere() -> None:
    world, cluster = ready_world(reentrant=True)
    world.submit(cluster, 20, LONG)
    world.agenda.run_until(lambda: world.witness.starts >= 4, 10.0)
    world.kill_node(world.machines[0])
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 20}


def test_a_silent_node_is_lost_after_five_pulses_and_not_sooner() -> None:
    world, cluster = ready_world((1,), pulse_interval=2.0)
    world.submit(cluster, 1, Fate(seconds=1000.0))
    world.run(1)
    world.network.close(world.machines[0].end)
    world.run(9)
    assert not world.witness.settled_count
    world.run(6)
    assert statuses(world) == {JobStatus.CANCELLED: 1}


def test_a_node_that_was_cut_off_is_used_again_and_its_late_answers_are_not_believed() -> None:
    world, cluster = ready_world((1,), pulse_interval=1.0, reentrant=True)
    (job,) = world.submit(cluster, 1, Fate(seconds=8.0))
    world.run(1)
    world.network.close(world.machines[0].end)
    world.run(9)
    world.network.open(world.machines[0].end)
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 1}
    assert world.witness.starts_of(cluster.id, job) == 2


def test_a_node_that_calls_serves_one_program_after_the_other() -> None:
    world = World(1)
    world.add_machine(2, calls=True)
    for _ in range(2):
        cluster = world.make_cluster()
        world.submit(cluster, 10)
        world.run_until_settled(cluster)
        cluster.program.close_cluster(cluster)
        world.run(5)
    assert statuses(world) == {JobStatus.FINISHED: 20}
    world.finish()


def test_a_node_that_calls_an_address_is_used_by_whoever_has_that_next() -> None:
    world = World(1)
    machine = world.add_machine(1, calls=True)
    first, second = world.make_cluster(), world.make_cluster()
    world.submit(first, 1, Fate(seconds=5.0))
    second.request(AddNodes, [NodeSpec(machine.end.name, 51348, 0, False)])
    world.run(3)
    first.program.close_cluster(first)  # the node calls the second one, which is connected already
    world.run(30)
    second.program.close_cluster(second)
    world.run(30)
    third = world.make_cluster()
    world.submit(third, 1)
    world.run_until_settled(third)
    world.finish()


@pytest.mark.parametrize('seconds', [9, 100, 3 * 3600], ids=['short', 'long', 'zombie'])
def test_a_node_that_calls_and_was_cut_off_is_used_again(seconds: float) -> None:
    world = World(1)
    machine = world.add_machine(1, calls=True)
    cluster = world.make_cluster(pulse_interval=1.0, reentrant=True)
    world.submit(cluster, 1, Fate(seconds=8.0))
    world.run(5)
    assert world.witness.starts == 1
    world.network.close(machine.end)
    world.run(seconds)
    world.network.open(machine.end)
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 1}
    assert world.witness.starts == 2
    world.finish()


def test_what_was_handed_out_ahead_is_taken_back_when_a_node_idles() -> None:
    world, cluster = ready_world((1, 1))
    world.submit(cluster, 200, Fate(seconds=0.001))
    world.run_until_settled(cluster)
    world.submit(cluster, 8, LONG)
    began = world.agenda.now
    world.run_until_settled(cluster)
    assert world.agenda.now - began < 5.0


def test_two_programs_take_turns_at_the_nodes_one_after_the_other() -> None:
    world, first = ready_world((2,))
    world.run(1.0)
    second = world.make_cluster()
    world.submit(second, 5)
    world.run(30.0)
    assert world.witness.pending(second.id) == 5
    first.program.close_cluster(first)
    world.run_until_settled(second)
    world.finish()


def test_large_payloads_travel_in_parts_and_with_little_credit() -> None:
    world, cluster = ready_world((2,), limits=TIGHT, package=bytes(20_000))
    world.submit(cluster, 30, Fate(size=5000, provisionals=3))
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 30}


def test_a_cluster_may_use_only_some_cpus_of_a_node() -> None:
    world, cluster = ready_world((4,), specs=[NodeSpec('*', 51348, 1, False)])
    world.submit(cluster, 4, LONG)
    began = world.agenda.now
    world.run_until_settled(cluster)
    assert world.agenda.now - began > 4.0


# schedulers that are shared, and programs that die


def shared_world(cpus: tuple[int, ...] = (2, 2), **changes: object) -> tuple[World, Cluster]:
    world = World(1, PERFECT)
    office = world.add_office()
    for count in cpus:
        world.add_machine(count)
    program = world.add_program(office)
    return world, world.make_cluster(program, Keeping.ALL, **changes)


def begun(world: World, count: int) -> None:
    assert world.agenda.run_until(lambda: world.witness.starts >= count, 20.0)


def test_programs_share_nodes_by_a_scheduler() -> None:
    world, first = shared_world()
    second = world.make_cluster(world.add_program(world.offices[0]))
    for cluster in (first, second):
        world.submit(cluster, 20)
    for cluster in (first, second):
        world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 40}
    world.finish()


def test_running_jobs_go_on_while_their_scheduler_is_dead_and_start_only_once() -> None:
    world, cluster = shared_world()
    world.submit(cluster, 10, Fate(seconds=5.0))
    begun(world, 4)
    world.kill_scheduler(world.offices[0])
    world.run(4.0)
    world.start_scheduler(world.offices[0])
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 10}
    assert world.witness.starts == 10
    world.finish()


@pytest.mark.parametrize('effects', range(1, 40))
def test_a_scheduler_that_dies_in_the_middle_of_a_turn_starts_no_job_twice(effects: int) -> None:
    world, cluster = shared_world()
    world.submit(cluster, 10, Fate(seconds=1.0))
    office = world.offices[0]
    assert office.program is not None
    office.program.die_after(effects, lambda: world.kill_scheduler(office))
    world.agenda.run_until(lambda: office.program is None, 20.0)
    world.start_scheduler(office)
    world.run_until_settled(cluster)
    world.finish()  # the witness has seen each start


@pytest.mark.parametrize('is_shared', [False, True], ids=['own', 'shared'])
def test_outcomes_of_a_killed_program_are_handed_out_to_the_next_one(is_shared: bool) -> None:
    world, cluster = shared_world()
    if not is_shared:
        cluster = world.make_cluster(None, Keeping.ALL)
        world.close_office(world.offices[0])
    world.submit(cluster, 10, Fate(seconds=5.0))
    begun(world, 4)
    world.run(1.0)
    world.kill_program(cluster.program)
    world.run(6.0)  # four jobs end while there is no program that could be told
    again = world.take_over(cluster, collects=False)
    world.run_until_settled(again)
    assert statuses(world) == {JobStatus.FINISHED: 10}
    assert world.witness.starts == 10
    world.finish()


def test_outcomes_survive_the_node_that_kept_them() -> None:
    world, cluster = shared_world((1,))
    world.submit(cluster, 1, Fate(seconds=5.0))
    begun(world, 1)
    world.kill_program(cluster.program)
    world.run(20.0)
    world.kill_node(world.machines[0])
    world.start_node(world.machines[0])
    world.run(1.0)
    again = world.take_over(cluster, collects=False)
    world.run_until_settled(again)
    assert statuses(world) == {JobStatus.FINISHED: 1}
    assert world.witness.starts == 1
    world.finish()
    assert not world.machines[0].spool.computations


def test_reentrant_jobs_survive_the_death_of_all_nodes_but_one() -> None:
    world, cluster = shared_world((1, 1, 1, 1), reentrant=True)
    world.submit(cluster, 12, Fate(seconds=5.0))
    begun(world, 4)
    for machine in world.machines[:3]:
        world.kill_node(machine)
        world.run(3.0)
    world.run_until_settled(cluster)
    assert statuses(world) == {JobStatus.FINISHED: 12}
    world.finish()


@pytest.mark.parametrize('seed', range(FIRST_SEED, FIRST_SEED + 40))
def test_every_promise_holds_over_deaths_and_takeovers(seed: int) -> None:
    History.of_seed(seed).play()


# what comes to random worlds


@settings(max_examples=30, deadline=None, derandomize=True)
@given(strategy())
def test_every_promise_holds_whatever_happens(history: History) -> None:
    history.play()


@pytest.mark.parametrize('number', range(10))
def test_every_promise_holds_in_histories_never_played_before(number: int) -> None:
    History.of_seed(int.from_bytes(os.urandom(4), 'big')).play()


def test_a_history_is_repeated_by_its_seed() -> None:
    one, other = (History.of_seed(5).play() for _ in range(2))
    assert (one.agenda.now, one.agenda.steps) == (other.agenda.now, other.agenda.steps)
    assert statuses(one) == statuses(other)


# bugs that are made on purpose are found


def test_a_late_attempt_that_is_believed_is_noticed() -> None:
    witness = Witness()
    witness.accept((7, False), [1], (True, True), Fate())
    witness.ordered('a', m.RunJobs(7, [1], [1], [b'']))
    witness.ordered('b', m.RunJobs(7, [1], [2], [b'']))
    with pytest.raises(PromiseBroken, match='late attempt'):
        witness.believed(finished('a', 1))


def test_a_scheduler_that_lost_its_records_may_believe_what_the_user_knows_and_no_other() -> None:
    witness = Witness()
    witness.accept((7, False), [1], (True, True), Fate())
    for attempt, node in enumerate('abc', 1):
        witness.ordered(node, m.RunJobs(7, [1], [attempt], [b'']))
        if node != 'c':
            witness.started(7, node, [1], again=True)
    witness.lost_record({7})
    with pytest.raises(PromiseBroken, match='late attempt'):
        witness.believed(finished('a', 1))
    witness.believed(finished('b', 2))
    with pytest.raises(PromiseBroken, match='late attempt'):
        witness.believed(finished('c', 3))  # now another one counts


@pytest.mark.parametrize('is_given_up', [False, True])
def test_where_nobody_knows_of_it_what_a_scheduler_gave_up_may_begin_again(
    is_given_up: bool,
) -> None:
    witness = Witness()
    witness.accept((7, False), [1], (False, False), Fate())
    witness.ordered('a', m.RunJobs(7, [1], [1], [b'']))
    witness.begun('a', 1, 7, 1)
    witness.ended('a', 7)
    if is_given_up:
        witness.opened('a', opening(7))
    witness.lost_record({7})
    witness.asked_all(7, {'a'})
    if is_given_up:
        witness.begun('a', 1, 7, 1)
    else:
        with pytest.raises(PromiseBroken, match='began again'):
            witness.begun('a', 1, 7, 1)


def finished(node: str, attempt: int) -> m.JobsDone:
    return m.JobsDone(7, node, 1, [1], [attempt], [JobStatus.FINISHED], [b''], [''], [0.1])


def _try_again(self: Endings, node: NodeRecord, comp: Computation, reason: str) -> None:
    ids = comp.on_node(node.id)
    self.unload_all(node, comp)
    self.requeue(comp, ids, reason)


def _lose_all(
    comp: Computation, ids: list[int], reason: str
) -> tuple[list[int], dict[str, list[int]]]:
    comp.settle(ids)
    return [], {reason: ids}


def _open_at_once(self: NodeFiles, hosted: Hosted) -> None:
    order = hosted.order()
    OPEN(self, hosted)
    if hosted.awaits_files:
        self._emit(order)


def _grant_twice(self: Outgoing, wanted: Iterable[int], credit: int) -> None:
    GRANT(self, [*wanted, *wanted], credit)


def _let_go_of_all(self: Hosted, jobs: list[NodeJob]) -> None:
    self.released += [job.id for job in jobs]


OPEN, GRANT = NodeFiles.open, Outgoing.grant
BUGS: dict[Promise, tuple[object, str, object]] = {
    Promise.STARTS: (Endings, 'give_up', _try_again),
    Promise.OUTLIVES: (endings, 'sort_lost', _lose_all),
    Promise.CPUS: (Hosted, 'busy', 0),
    Promise.DATA: (HeldData, 'is_ready', lambda *_: True),
    Promise.FILES: (NodeFiles, 'open', _open_at_once),
    Promise.PIECES: (Outgoing, 'grant', _grant_twice),
    Promise.RELEASED: (Hosted, 'let_go', _let_go_of_all),
    Promise.ANSWERED: (FileRoutes, 'node_gone', lambda *_: None),
    Promise.NOTHING_KEPT: (Passing, 'to_node', lambda *_: None),
}
MOST_SEEDS = 100
LENGTH = 30
SHORT = 10
# shown by so many seeds only where each program has a scheduler of its own: else it takes 206
RARE = {Promise.ANSWERED}


def first_broken(promise: Promise) -> tuple[History, PromiseBroken]:
    """Search seed by seed, as `tests/simulate.py` does."""
    for seed in range(MOST_SEEDS):
        history = History.of_seed(seed, LENGTH)
        if promise in RARE:
            history = replace(history, schedulers=0)
        error = history.broken_promise()
        if error is not None and error.promise is promise:
            return history, error
    raise AssertionError(f'not found within {MOST_SEEDS} seeds')


@pytest.mark.parametrize('promise', BUGS, ids=lambda promise: promise.name.lower())
def test_a_bug_is_found_within_a_few_seeds(
    promise: Promise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*BUGS[promise])
    first_broken(promise)


@pytest.mark.slow
def test_a_history_that_breaks_a_promise_is_replayed_by_its_seed_and_shrunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*BUGS[Promise.STARTS])
    history, error = first_broken(Promise.STARTS)
    again = History.of_seed(history.seed, LENGTH).broken_promise()
    assert str(again) == str(error)
    short = shrink(history, error)
    assert len(short.operations) <= SHORT
    replayed = eval(
        repr(short), vars(operations) | vars(histories)
    )  # what is printed is the program
    assert replayed.broken_promise().promise is Promise.STARTS
