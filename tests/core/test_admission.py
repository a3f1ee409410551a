"""Clusters that want all nodes for themselves, and those that wait for them."""

from typing import Any

import pytest

from nodeserver.core import messages as m
from nodeserver.core.admission import REUNION_SECONDS
from nodeserver.core.discovery import FIRST_PINGS
from nodeserver.core.events import DeadlinePassed, PlacementsKnown
from tests.support.desk import Desk
from tests.support.network import PERFECT
from tests.support.promises import Fate
from tests.support.shareddesk import SharedDesk
from tests.support.world import World

ANN, BOB, CARL = 'ann', 'bob', 'carl'


def desk_with(*declared: tuple[str, int, bool], **settings: Any) -> SharedDesk:
    """A desk with a node of four cpus, and clusters: client, number, exclusive."""
    desk = SharedDesk(**settings)
    desk.join('n', cpus=4)
    for client, number, exclusive in declared:
        desk.declare(client, number, exclusive=exclusive)
        desk.submit(number, 1, 2)
    return desk


@pytest.mark.row('B07')
def test_clusters_of_several_programs_use_a_node_at_the_same_time() -> None:
    desk = desk_with((ANN, 1, False), (BOB, 2, False))
    assert desk.running() == {1: 2, 2: 2}
    assert desk.open == {'n': {1, 2}}


@pytest.mark.row('B08', 'B16')
def test_an_exclusive_cluster_waits_until_all_others_are_closed_and_is_then_alone() -> None:
    desk = desk_with((ANN, 1, False), (BOB, 2, False), (CARL, 3, True))
    assert desk.opened() == {1, 2}
    desk.done(('n', 1, 1), ('n', 1, 2), ('n', 2, 1), ('n', 2, 2))
    assert desk.running() == {}  # that they have nothing to do does not count: B08
    desk.close(1)
    assert desk.opened() == {2}
    desk.close(2)
    assert desk.opened() == {3}
    assert desk.running() == {3: 2}


@pytest.mark.row('B09')
def test_clusters_made_while_an_exclusive_one_runs_start_when_it_is_closed() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, False), (ANN, 3, False), (CARL, 4, False))
    assert desk.opened() == {1}
    assert desk.running() == {1: 2}
    desk.close(1)
    assert desk.opened() == {2, 3, 4}
    assert set(desk.running()) == {2, 3, 4}


def test_a_node_that_comes_meanwhile_is_for_the_exclusive_cluster_only() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, False))
    desk.join('other', cpus=4, address='10.0.0.2')
    assert desk.open == {'n': {1}, 'other': {1}}
    desk.submit(2, *range(3, 20))
    assert set(desk.running()) == {1}


def test_clusters_start_in_the_order_in_which_they_were_made() -> None:
    desk = desk_with((ANN, 1, False), (BOB, 2, True), (CARL, 3, False), (BOB, 4, True))
    assert desk.opened() == {1}
    for closed, running in ((1, 2), (2, 3), (3, 4)):
        desk.close(closed)
        assert desk.opened() == {running}


def test_a_program_may_add_clusters_to_one_that_others_wait_for() -> None:
    """It may need them before it can close the first one: all would wait for ever."""
    desk = desk_with((ANN, 1, False), (BOB, 2, True), (ANN, 3, False), (CARL, 4, False))
    assert desk.opened() == {1, 3}
    desk.close(1)
    desk.close(3)
    assert desk.opened() == {2}


def test_a_cluster_that_is_closed_while_it_waits_leaves_the_way() -> None:
    desk = desk_with((ANN, 1, False), (BOB, 2, True), (CARL, 3, False))
    desk.close(2)
    assert desk.opened() == {1, 3}
    assert not desk.core._fleet.held_back


def test_a_job_that_is_cancelled_while_its_cluster_waits_ends_at_once() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, False))
    desk.hears(BOB, m.CancelJobs(2, [1]))
    (settled,) = (said for said in desk.said[BOB] if isinstance(said, m.JobsSettled))
    assert settled.ids == [1]
    desk.close(1)
    assert desk.taken()[-1:] == [(2, 2)]


def test_in_the_program_of_one_user_nobody_is_asked_to_wait() -> None:
    desk = Desk(exclusive=True)
    desk.join('n')
    desk.submit(1)
    assert [run.ids for run in desk.sent(m.RunJobs)] == [[1]]


# clients that die


@pytest.mark.row('B08')
def test_an_exclusive_cluster_whose_program_died_holds_the_way_until_its_jobs_have_ended() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, False))
    desk.dies(ANN)
    assert desk.opened() == {1}
    desk.done(('n', 1, 1))
    assert desk.running() == {1: 1}
    desk.done(('n', 1, 2))
    assert desk.running() == {2: 2}


@pytest.mark.row('B09')
def test_a_program_that_is_back_waits_for_those_that_came_in_meanwhile() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, True))
    desk.dies(ANN)
    desk.done(('n', 1, 1), ('n', 1, 2))
    assert desk.running() == {2: 2}
    desk.declare(ANN, 1, exclusive=True, resumes=True, epoch=1)
    desk.submit(1, 3)
    assert desk.running() == {2: 2}
    assert 'it is exclusive' in desk.explained(1)
    desk.done(('n', 2, 1), ('n', 2, 2))
    assert desk.running() == {}
    desk.close(2)
    assert desk.running() == {1: 1}


def test_an_exclusive_cluster_that_waits_lets_others_pass_while_its_program_is_away() -> None:
    desk = desk_with((ANN, 1, False))
    desk.declare(BOB, 2, exclusive=True)
    desk.dies(BOB)
    desk.declare(CARL, 3)
    desk.submit(3, 1)
    assert set(desk.running()) == {1, 3}


def test_an_exclusive_cluster_of_a_dead_program_starts_for_the_jobs_that_it_has() -> None:
    desk = desk_with((ANN, 1, False), (BOB, 2, True))
    desk.dies(BOB)
    desk.close(1)
    assert desk.running() == {2: 2}


def test_who_is_let_in_as_a_job_ends_looks_for_nodes_at_once() -> None:
    desk = desk_with((ANN, 1, True))
    desk.dies(ANN)
    desk.waits(1.0)
    desk.declare(BOB, 2)
    desk.waits(1.0)
    desk.done(('n', 1, 1), ('n', 1, 2))
    assert 2 not in desk.core._fleet.held_back
    assert desk.core.next_deadline() == desk.now + FIRST_PINGS[0]


def test_a_cluster_that_was_let_in_before_its_scheduler_was_restarted_goes_on() -> None:
    desk = desk_with((ANN, 1, False))
    known = m.KnownNode('n', '10.0.0.1', 51348)
    desk.declare(BOB, 2, exclusive=True, resumes=True, epoch=1, nodes=[known])
    assert 2 not in desk.core._fleet.held_back


# after a restart of the scheduler

KNOWN = m.KnownNode('n', '10.0.0.1', 51348)


def restarted(*before: tuple[int, bool]) -> SharedDesk:
    """A desk whose scheduler has found clusters of before: number, exclusive."""
    desk = SharedDesk()
    for number, exclusive in before:
        columns = ['n'], [[1]], [[1]]
        desk.tell(PlacementsKnown(number, b't' * 16, 1, [KNOWN], *columns, exclusive))
    desk.join('n', cpus=4)
    return desk


@pytest.mark.row('B08', 'B09')
def test_a_new_cluster_does_not_slip_in_before_an_exclusive_one_is_back() -> None:
    desk = restarted((1, True))
    desk.declare(BOB, 2)
    desk.submit(2, 1)
    assert 2 in desk.core._fleet.held_back
    assert 'clusters of before have 30 s to come back' in desk.explained(2)
    desk.declare(ANN, 1, exclusive=True, resumes=True, epoch=2, nodes=[KNOWN])
    desk.waits(REUNION_SECONDS + 1)
    assert [*desk.core._fleet.held_back] == [2]
    assert 'all nodes are for another cluster, which is exclusive' in desk.explained(2)
    desk.close(1)
    assert [*desk.core._fleet.held_back] == []


def test_a_new_exclusive_cluster_waits_for_those_of_before() -> None:
    desk = restarted((1, False), (3, False))
    desk.declare(BOB, 2, exclusive=True)
    desk.declare(ANN, 1, resumes=True, epoch=2, nodes=[KNOWN])
    assert [*desk.core._fleet.held_back] == [2]
    desk.declare(CARL, 3, resumes=True, epoch=2, nodes=[KNOWN])
    desk.close(1)
    assert [*desk.core._fleet.held_back] == [2]
    desk.close(3)
    assert [*desk.core._fleet.held_back] == []


def test_those_that_do_not_come_back_are_waited_for_no_longer_than_is_said() -> None:
    desk = restarted((1, True))
    desk.declare(BOB, 2)
    desk.submit(2, 1)
    desk.now += REUNION_SECONDS - 0.1
    desk.tell(DeadlinePassed())
    assert desk.running() == {}
    assert desk.core.next_deadline() == pytest.approx(50.0 + REUNION_SECONDS)
    desk.waits(0.1)
    assert desk.running() == {2: 1}
    later = desk.core.next_deadline()
    assert later is not None
    assert later > desk.now


def test_where_none_is_exclusive_nobody_waits_for_those_of_before() -> None:
    desk = restarted((1, False))
    desk.declare(BOB, 2)
    desk.submit(2, 1)
    assert desk.running() == {2: 1}


@pytest.mark.row('B08', 'B16')
@pytest.mark.parametrize('restarts', [False, True])
def test_jobs_of_an_exclusive_cluster_are_alone_until_they_end_though_its_program_is_dead(
    restarts: bool,
) -> None:
    """After a restart it is the nodes that hold the others back: they alone know what runs."""
    world = World(1, PERFECT)
    office = world.add_office()
    world.add_machine(4)
    alone = world.make_cluster(world.add_program(office), exclusive=True)
    world.submit(alone, 1, Fate(seconds=2 * REUNION_SECONDS))
    world.submit(alone, 1, Fate(seconds=REUNION_SECONDS))
    assert world.agenda.run_until(lambda: world.witness.starts == 2, 10.0)
    world.kill_program(alone.program)
    if restarts:
        world.kill_scheduler(office)
        world.start_scheduler(office)
    other = world.make_cluster(world.add_program(office))
    world.submit(other, 1)
    world.run(2 * REUNION_SECONDS - 1.0)
    assert world.witness.starts == 2
    world.run_until_settled(other, 20.0)
    world.finish()


# what is said


def test_who_waits_is_told_for_whom() -> None:
    desk = desk_with((ANN, 1, False), (BOB, 2, True), (CARL, 3, False))
    desk.done(('n', 1, 1), seconds=90.0)
    text = desk.explained(2)
    assert 'f2: 2 jobs waiting, 0 on nodes' in text
    assert 'f2 waits for its turn: it is exclusive, and starts when these are closed' in text
    assert 'f1 of ann: 1 job on nodes, 0 waiting, 90 s of cpu time in ended jobs' in text
    text = desk.explained(3)
    assert 'it starts after others, which are exclusive and were made before it' in text
    assert 'f2 of bob: 0 jobs on nodes, 2 waiting' in text
    desk.close(1)
    assert 'all nodes are for another cluster, which is exclusive' in desk.explained(3)
    assert 'no node can be used' not in desk.explained(3)


def test_who_waits_for_the_jobs_of_a_dead_program_is_told_so() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, False))
    gone = '; its program is gone: it is over once these jobs have ended'
    assert gone not in desk.explained(2)
    desk.dies(ANN)
    assert f'f1 of ann: 2 jobs on nodes, 0 waiting, 0 s of cpu time in ended jobs{gone}' in (
        desk.explained(2)
    )


def test_a_program_that_waits_for_itself_is_told_so() -> None:
    desk = desk_with((ANN, 1, True), (ANN, 2, False))
    text = desk.explained(2)
    assert 'f1 of this program' in text
    assert 'nobody else is in the way' in text


def test_who_waits_is_told_without_asking() -> None:
    desk = desk_with((ANN, 1, True), (BOB, 2, False))
    desk.waits(3.0)
    (notice,) = (said for said in desk.said[BOB] if isinstance(said, m.Notice))
    assert 'f2 waits for its turn' in notice.text
    assert 'f1 of ann' in notice.text


def test_of_very_many_that_are_in_the_way_only_some_are_named() -> None:
    desk = SharedDesk()
    desk.join('n', cpus=4)
    for number in range(1, 31):
        desk.declare(ANN, number)
    desk.declare(BOB, 99, exclusive=True)
    lines = desk.explained(99).splitlines()
    assert len(lines) < 15
    assert 'and 20 more clusters' in lines


def test_what_others_call_themselves_does_no_harm() -> None:
    desk = SharedDesk()
    desk.declare(ANN, 1, owner='\x1b[31m' + 'x' * 5000, name='a\nb')
    desk.declare(BOB, 2, exclusive=True)
    text = desk.explained(2)
    assert '\x1b' not in text
    assert max(map(len, text.splitlines())) < 400
