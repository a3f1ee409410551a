"""A node that offers more or fewer cpus than before, and what clients had asked of it meanwhile."""

import pytest

from nodeserver.core import effects as do
from nodeserver.core import fleetmessages as f
from nodeserver.core import messages as m
from nodeserver.core.messages import Resources
from nodeserver.core.nodeevents import (
    CpusChosen,
)
from nodeserver.core.status import NodeStatus
from tests.core.test_steering import ask, node_alone, ran, statuses
from tests.support.desk import CLIENT, Desk
from tests.support.nodebench import Bench


def resize(desk: Desk, *sizes: int) -> None:
    """Node a tells that it offers so many cpus now."""
    for cpus in sizes:
        desk.hears('a', m.NodeDetails('a', cpus, 'Linux', '3.11', None))


def used(desk: Desk) -> int:
    """How many jobs of one cpu the node is given at a time."""
    desk.submit(*range(100, 110))
    return sum(map(len, ran(desk)))


@pytest.mark.parametrize(
    ('cpus', 'sizes', 'expected'),
    [
        (2, (2, 4), 2),
        (-1, (2, 4), 3),
        (-1, (2,), 1),
        (2, (1, 8), 2),
        (4, (2, 4), 4),
        (0, (1, 4), 0),
    ],
)
def test_what_was_set_holds_when_the_node_changes(
    cpus: int, sizes: tuple[int, ...], expected: int
) -> None:
    desk = node_alone(cpus=4)
    ask(desk, f.SetNodeCpus, 'a', cpus)
    resize(desk, *sizes)
    assert used(desk) == expected


@pytest.mark.parametrize(('answer', 'expected'), [(1, 1), (2, 4)])
def test_what_allocate_has_answered_holds_unless_it_was_all(answer: int, expected: int) -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.join('a')
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', answer))
    desk.hears('a', m.ComputationReady(7))
    resize(desk, 1, 4)
    assert used(desk) == expected


def test_an_element_of_nodes_holds_too() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, -1, False)])
    desk.join('a', cpus=4)
    resize(desk, 2)
    assert used(desk) == 1


def test_the_node_and_the_client_are_told() -> None:
    desk = node_alone(cpus=2)
    resize(desk, 4)
    assert desk.sent(f.LimitCpus, 'a') == [f.LimitCpus(7, 4)]
    (change,) = desk.sent(m.NodeChanged)
    assert (change.status, change.cpus, change.avail_cpus) == (NodeStatus.AVAIL_INFO, 4, 4)
    resize(desk, 4)
    assert not statuses(desk)


def test_a_computation_that_was_limited_does_not_take_what_comes_back() -> None:
    bench = Bench(cpus=3)
    bench.open(workers=3)
    bench.hears(f.LimitCpus(7, 1))
    bench.tell(CpusChosen(2))
    bench.run(1, 2, 3)
    assert sum(len(give.ids) for give in bench.take(do.GiveJobs)) == 1


@pytest.mark.parametrize('asks', [False, True])
def test_a_node_that_was_too_small_is_used_once_it_is_larger(asks: bool) -> None:
    spec = m.NodeSpec('*', 51348, 0, asks)
    desk = Desk(specs=[spec], resources=Resources(cpus=2))
    desk.join('a', cpus=1)
    if asks:
        desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 1))
        desk.sent(m.AllocateAsk)
    assert 'not used: needs 2 cpus per job' in desk.explained()
    resize(desk, 2)
    if asks:
        assert [question.cpus for question in desk.sent(m.AllocateAsk)] == [2]
        desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 2))
    desk.hears('a', m.ComputationReady(7))
    assert used(desk) == 1


def test_a_node_whose_cpus_were_all_to_be_left_is_used_once_it_has_more() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, -1, False)])
    desk.join('a', cpus=1)
    resize(desk, 2)
    desk.hears('a', m.ComputationReady(7))
    assert used(desk) == 1


def test_a_node_that_allocate_did_not_want_is_not_asked_about_again() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.join('a')
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 0))
    desk.sent(m.AllocateAsk)
    resize(desk, 4)
    assert not desk.sent(m.AllocateAsk)


@pytest.mark.parametrize('by_node', [False, True])
def test_jobs_that_need_more_than_is_left_are_said_to_do_so(by_node: bool) -> None:
    desk = node_alone(cpus=4, resources=Resources(cpus=2))
    desk.join('b', address='10.0.0.2') if by_node else None
    desk.submit(1, node='a')
    desk.done('a', 1)
    if by_node:
        resize(desk, 1)
    else:
        assert ask(desk, f.SetNodeCpus, 'a', 1).value == 1
    desk.submit(2, node='a')
    words = 'needs 2 cpus per job, the node gives it 1'
    assert words in desk.explained()
    assert ('`set_node_cpus()` gives it more' in desk.explained()) != by_node
    desk.waits(60.0)
    assert any(words in notice.text for notice in desk.sent(m.Notice, CLIENT))


def test_a_job_is_not_given_to_a_node_that_can_no_longer_run_it() -> None:
    desk = node_alone(cpus=4, resources=Resources(cpus=2))
    ask(desk, f.SetNodeCpus, 'a', 1)
    desk.submit(1)
    desk.submit(2, node='a')
    for _ in range(15):
        desk.waits(1.0)
    assert not ran(desk)
    resize(desk, 1, 4)
    assert not ran(desk)
    ask(desk, f.SetNodeCpus, 'a', 4)
    assert sorted(job for ids in ran(desk) for job in ids) == [1, 2]


def test_jobs_for_a_paused_node_alone_are_told_of() -> None:
    desk = node_alone()
    desk.join('b', address='10.0.0.2')
    desk.hears('a', m.NodePaused('it rests'))
    desk.submit(1, node='a')
    desk.waits(60.0)
    assert any('it rests' in notice.text for notice in desk.sent(m.Notice, CLIENT))


def test_a_node_that_is_deallocated_while_it_is_set_up_anew_gets_no_jobs() -> None:
    desk = node_alone()
    ask(desk, f.CloseNode, 'a', False, True)
    assert ask(desk, f.DeallocateNode, 'a').value == 0
    desk.hears('a', m.ComputationClosed(7))
    desk.hears('a', m.ComputationReady(7))
    assert used(desk) == 0
    assert 'deallocated with deallocate_node()' in desk.explained()
    ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.1', 51348, 0, False)])
    desk.hears('a', m.ComputationReady(7))
    assert ran(desk)
