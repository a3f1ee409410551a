"""What clients ask of single nodes, as the scheduler's core decides it."""

import itertools
from typing import Any

import pytest

from nodeserver.core import fleetmessages as f
from nodeserver.core import messages as m
from nodeserver.core.effects import Ping
from nodeserver.core.events import NodeFound, PeerLost
from nodeserver.core.knocking import RELAY_PORT
from nodeserver.core.status import JobStatus, NodeStatus
from tests.support.desk import CLIENT, Desk

_numbers = itertools.count(1)


def ask(desk: Desk, kind: type[Any], *values: Any) -> f.RequestAnswered:
    """Ask something, and take the answer."""
    number = next(_numbers)
    desk.hears(CLIENT, kind(7, number, *values))
    (answer,) = desk.sent(f.RequestAnswered, CLIENT)
    assert (answer.computation, answer.request) == (7, number)
    return answer


def statuses(desk: Desk) -> list[int]:
    return [change.status for change in desk.sent(m.NodeChanged)]


def ran(desk: Desk) -> list[list[int]]:
    return [message.ids for message in desk.sent(m.RunJobs)]


def returned(desk: Desk, node: str, *ids: int) -> None:
    desk.hears(node, m.JobsReturned(7, list(ids), [1] * len(ids), 'not begun'))


def node_alone(cpus: int = 2, **changes: Any) -> Desk:
    desk = Desk(**changes)
    desk.join('a', cpus)
    assert statuses(desk) == [NodeStatus.INITIALIZED]
    return desk


def with_jobs_ahead() -> Desk:
    """A node with one cpu that holds jobs 2, 3 and 4; one of them runs."""
    desk = node_alone(cpus=1)
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, 3, 4)
    desk.effects.clear()
    return desk


@pytest.mark.parametrize(
    ('kind', 'values'),
    [
        (f.DeallocateNode, ('nowhere',)),
        (f.CloseNode, ('nowhere\n10.9.9.9', False, False)),
        (f.SetNodeCpus, ('nowhere', 1)),
    ],
)
def test_a_node_that_is_not_known_is_said_to_be_so(kind: type[Any], values: Any) -> None:
    answer = ask(node_alone(), kind, *values)
    assert answer.value == -1
    assert answer.reason.startswith('no node nowhere')


def test_requests_for_a_closed_cluster_are_answered() -> None:
    desk = node_alone()
    desk.hears(CLIENT, m.CloseComputation(7))
    assert ask(desk, f.SetNodeCpus, 'a', 1).value == -1
    desk.hears('a', m.ComputationClosed(7))
    assert ask(desk, f.AddNodes, []) == f.RequestAnswered(7, _last(), -1, 'the cluster is closed')


def _last() -> int:
    return next(_numbers) - 1


# more nodes


def test_an_added_element_is_asked_for_at_once_and_comes_first() -> None:
    desk = Desk(specs=[m.NodeSpec('10.0.0.1', 51348, 0, True)])
    desk.tell(NodeFound('b', '10.0.0.2', 51348, ''))
    desk.effects.clear()
    assert ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.2', 51348, 1, True)]).value == 0
    (ping,) = (effect for effect in desk.effects if isinstance(effect, Ping))
    nodes = [('10.0.0.2', 51348), ('10.0.0.1', 51348)]
    assert ping.targets == [*nodes, ('10.0.0.2', RELAY_PORT), ('10.0.0.1', RELAY_PORT)]
    desk.join('b', address='10.0.0.2')
    desk.join('a', address='10.0.0.1')
    asked = {ask.node: ask.spec for ask in desk.sent(m.AllocateAsk)}
    assert asked == {'b': -2, 'a': -1}  # of a list in which the added one is ahead


def test_nodes_are_asked_for_again_on_request() -> None:
    desk = node_alone()
    desk.effects.clear()
    assert ask(desk, f.FindNodes, [('10.0.0.3', 9)], 51348).value == 0
    assert [e for e in desk.effects if isinstance(e, Ping)] == [Ping([('10.0.0.3', 9)], 51348)]


def test_a_node_that_did_not_match_is_used_once_it_is_added() -> None:
    desk = Desk(specs=[m.NodeSpec('11.*', 51348, 0, False)])
    desk.join('a')
    assert not desk.sent(m.OpenComputation)
    ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.1', 51348, -1, False)])
    (opened,) = desk.sent(m.OpenComputation)
    assert opened.cpus == 1


def test_a_node_that_was_turned_down_is_asked_about_again() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.join('a')
    desk.sent(m.AllocateAsk)
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 0))
    assert 'allocate() returned 0 for it; `allocate_node()` asks again' in desk.explained()
    ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.1', 51348, 0, True)])
    assert [ask.spec for ask in desk.sent(m.AllocateAsk)] == [-2]
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 1, '', b'args'))
    (opened,) = desk.sent(m.OpenComputation)
    assert (opened.cpus, opened.setup_args) == (1, b'args')


def test_setup_args_are_sent_again_when_a_busy_node_is_free() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.join('a')
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 1, '', b'args'))
    desk.hears('a', m.ComputationRefused(7, 'busy', 'held'))
    desk.effects.clear()
    desk.hears('a', m.NodeFree())
    assert [opened.setup_args for opened in desk.sent(m.OpenComputation)] == [b'args']


@pytest.mark.parametrize(('cpus', 'used'), [(-1, 3), (-3, 1), (2, 2), (0, 4), (9, 4)])
def test_an_element_says_how_many_cpus_are_used_or_left(cpus: int, used: int) -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, cpus, False)])
    desk.join('a', cpus=4)
    assert [opened.cpus for opened in desk.sent(m.OpenComputation)] == [used]


def test_an_element_may_leave_all_cpus_of_a_node() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, -4, False)])
    desk.join('a', cpus=4)
    assert not desk.sent(m.OpenComputation)
    assert 'not used: all of its 4 cpus are to be left free' in desk.explained()


# deallocating


def test_a_deallocated_node_gets_no_new_jobs_until_it_is_allocated() -> None:
    desk = node_alone(cpus=1)
    desk.submit(1)
    assert ran(desk) == [[1]]
    assert ask(desk, f.DeallocateNode, 'a').value == 0
    desk.submit(2)
    desk.done('a', 1)
    assert not ran(desk)
    assert 'no node can be used' in desk.explained()
    assert 'takes no new jobs: deallocated; `allocate_node()` uses it again' in desk.explained()
    assert not desk.sent(m.CloseComputation)
    ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.1', 51348, 0, False)])
    assert ran(desk) == [[2]]


def test_jobs_that_had_not_begun_on_a_deallocated_node_go_to_others() -> None:
    desk = with_jobs_ahead()
    ask(desk, f.DeallocateNode, 'a')
    assert [(recall.computation, recall.count) for recall in desk.sent(m.RecallJobs)] == [(7, 3)]
    returned(desk, 'a', 3, 4)
    desk.join('b', address='10.0.0.2')
    assert [job for ids in ran(desk) for job in ids] == [3, 4]


def test_a_node_that_is_deallocated_while_it_sets_up_ends_as_such() -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 1, 'Linux', '3.11', None))
    assert ask(desk, f.DeallocateNode, 'a').value == 0
    desk.hears('a', m.ComputationReady(7))
    desk.submit(1)
    assert not ran(desk)


@pytest.mark.parametrize('close', [False, True])
def test_a_node_that_is_not_wanted_stays_so_when_its_connection_was_lost(close: bool) -> None:
    desk = node_alone()
    if close:
        ask(desk, f.CloseNode, 'a', False, False)
        desk.hears('a', m.ComputationClosed(7))
    else:
        ask(desk, f.DeallocateNode, 'a')
    desk.tell(PeerLost('a', 'cable'))
    desk.effects.clear()
    desk.join('a')
    desk.submit(1)
    assert not desk.sent(m.OpenComputation)
    assert 'not used: it was' in desk.explained()


# closing


def test_a_closed_node_ends_its_jobs_first_and_is_left() -> None:
    desk = node_alone(cpus=1)
    desk.submit(1)
    desk.effects.clear()
    assert ask(desk, f.CloseNode, 'a', False, False).value == 0
    assert not desk.sent(m.CloseComputation) and not desk.sent(m.StopJobs)
    assert 'is being closed; 1 job there may end' in desk.explained()
    desk.done('a', 1)
    assert [job.ids for job in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    assert not desk.sent(m.CloseComputation)  # the node would forget that outcome
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert len(desk.sent(m.CloseComputation, 'a')) == 1
    assert not statuses(desk)
    desk.hears('a', m.ComputationClosed(7))
    assert statuses(desk) == [NodeStatus.CLOSED]
    desk.submit(2)
    assert not ran(desk) and not desk.sent(m.OpenComputation)
    assert 'not used: it was closed with close_node()' in desk.explained()
    ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.1', 51348, 0, False)])
    desk.hears('a', m.ComputationReady(7))
    assert ran(desk) == [[2]]
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.hears('a', m.ComputationClosed(7))
    assert len(desk.sent(m.ComputationClosed, CLIENT)) == 1


def test_jobs_for_a_closed_node_only_are_cancelled_with_the_reason() -> None:
    desk = node_alone(cpus=1)
    desk.submit(1, 2, node='10.0.0.1')
    desk.submit(3, node='a')
    ask(desk, f.CloseNode, 'a', False, False)
    settled = desk.sent(m.JobsSettled)
    assert sorted(job for each in settled for job in each.ids) == [2, 3]
    assert {each.status for each in settled} == {JobStatus.CANCELLED}
    text = 'cancelled: it was for node a (10.0.0.1) only, and it was closed with close_node()'
    assert {each.reason for each in settled} == {text}
    desk.submit(4, node='a')  # while its running job ends
    desk.done('a', 1)
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert [each.ids for each in desk.sent(m.JobsSettled)] == [[4]]


def test_running_jobs_are_ended_once_those_that_had_not_begun_are_back() -> None:
    desk = with_jobs_ahead()
    ask(desk, f.CloseNode, 'a', True, False)
    assert len(desk.sent(m.RecallJobs)) == 1
    assert not desk.sent(m.StopJobs)
    returned(desk, 'a', 3, 4)
    assert [stop.ids for stop in desk.sent(m.StopJobs)] == [[2]]
    assert not desk.sent(m.JobsSettled)  # 3 and 4 wait for another node
    assert '2 jobs waiting' in desk.explained()


def test_a_node_that_sets_up_is_closed_at_once() -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 1, 'Linux', '3.11', None))
    ask(desk, f.CloseNode, 'a', False, False)
    assert len(desk.sent(m.CloseComputation)) == 1
    desk.hears('a', m.ComputationReady(7))  # it was on its way
    desk.hears('a', m.ComputationClosed(7))
    desk.submit(1)
    assert not ran(desk)


def test_a_closing_node_that_is_lost_leaves_nothing_behind() -> None:
    desk = node_alone(cpus=1)
    desk.submit(1)
    ask(desk, f.CloseNode, 'a', False, False)
    desk.tell(PeerLost('a', 'power'))
    assert statuses(desk) == [NodeStatus.CLOSED]
    assert [each.ids for each in desk.sent(m.JobsSettled)] == [[1]]
    desk.hears(CLIENT, m.CloseComputation(7))
    assert len(desk.sent(m.ComputationClosed, CLIENT)) == 1


def test_a_cluster_can_be_closed_while_a_node_is_being_closed() -> None:
    desk = node_alone(cpus=1)
    desk.submit(1)
    ask(desk, f.CloseNode, 'a', False, False)
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.hears('a', m.ComputationClosed(7))
    assert len(desk.sent(m.ComputationClosed, CLIENT)) == 1
    assert not desk.core.explain(7, desk.now)[0].startswith('compute')


# anew


def test_a_node_that_is_set_up_anew_is_asked_about_and_opened_again() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 1, 'Linux', '3.11', None))
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 1, '', b'old'))
    desk.hears('a', m.ComputationReady(7))
    desk.submit(1, 2, node='a')
    desk.effects.clear()
    assert ask(desk, f.CloseNode, 'a', False, True).value == 0
    desk.done('a', 1)
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    desk.hears('a', m.ComputationClosed(7))
    assert not desk.sent(m.JobsSettled)
    assert len(desk.sent(m.AllocateAsk)) == 1
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 1, '', b'new'))
    assert [opened.setup_args for opened in desk.sent(m.OpenComputation)] == [b'new']
    assert statuses(desk) == [NodeStatus.CLOSED]
    desk.hears('a', m.ComputationReady(7))
    assert statuses(desk) == [NodeStatus.INITIALIZED]
    assert ran(desk) == [[2]]


def test_a_node_whose_setup_failed_is_tried_again() -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 1, 'Linux', '3.11', None))
    desk.hears('a', m.ComputationRefused(7, 'failed', 'no disk'))
    assert 'no disk; `resetup_node()` tries again' in desk.explained()
    desk.effects.clear()
    ask(desk, f.CloseNode, 'a', False, True)
    assert len(desk.sent(m.OpenComputation)) == 1


def test_a_node_that_fails_while_it_is_being_closed_is_set_up_anew() -> None:
    desk = node_alone(cpus=1)
    desk.submit(1)
    ask(desk, f.CloseNode, 'a', False, True)
    desk.effects.clear()
    desk.hears('a', m.ComputationRefused(7, 'failed', 'template died'))
    assert statuses(desk) == [NodeStatus.CLOSED]
    assert len(desk.sent(m.OpenComputation)) == 1


# cpus


@pytest.mark.parametrize(
    ('cpus', 'used'), [(1, 1), (4, 4), (9, 4), (-1, 3), (-4, 0), (-9, 0), (0, 0)]
)
def test_so_many_cpus_are_used_or_left(cpus: int, used: int) -> None:
    desk = node_alone(cpus=4)
    assert ask(desk, f.SetNodeCpus, '10.0.0.1', cpus).value == used
    assert desk.sent(f.LimitCpus, 'a') == [f.LimitCpus(7, used)]
    (change,) = desk.sent(m.NodeChanged)
    assert (change.status, change.cpus, change.avail_cpus) == (NodeStatus.AVAIL_INFO, used, 4)
    desk.submit(*range(9))
    assert sum(map(len, ran(desk))) == used


def test_cpus_come_back_and_waiting_jobs_get_them_at_once() -> None:
    desk = node_alone(cpus=2)
    ask(desk, f.SetNodeCpus, 'a', 0)
    desk.submit(1, 2, 3)
    assert not ran(desk)
    text = 'none of its cpus are to be used; `set_node_cpus()` gives it some'
    assert text in desk.explained()
    assert 'no node can be used' in desk.explained()
    ask(desk, f.SetNodeCpus, 'a', 2)
    assert ran(desk) == [[1, 2]]


def test_a_node_that_tells_of_itself_again_keeps_what_was_set() -> None:
    desk = node_alone(cpus=2)
    ask(desk, f.SetNodeCpus, 'a', 0)
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    desk.submit(1)
    assert not ran(desk)


def test_jobs_that_had_not_begun_are_asked_back_from_fewer_cpus() -> None:
    desk = with_jobs_ahead()
    ask(desk, f.SetNodeCpus, 'a', 0)
    assert [recall.count for recall in desk.sent(m.RecallJobs)] == [3]
    returned(desk, 'a', 3, 4)
    assert not ran(desk)
    assert '; 1 job there may end' in desk.explained()


def test_cpus_of_a_node_that_is_not_used_are_not_set() -> None:
    desk = node_alone()
    ask(desk, f.CloseNode, 'a', False, False)
    answer = ask(desk, f.SetNodeCpus, 'a', 1)
    assert answer.value == -1
    assert answer.reason.startswith('node a (10.0.0.1) is not used: ')
