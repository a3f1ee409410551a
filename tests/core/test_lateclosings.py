"""Nodes that were away when a computation was closed: what they keep of it goes as well."""

import pytest

from nodeserver.core import messages as m
from nodeserver.core.effects import Connect, Knock, Send, StopKnocking
from nodeserver.core.events import (
    ClosingKnown,
    DeadlinePassed,
    KnockFailed,
    MessageArrived,
    NodeFound,
    PeerConnected,
    PeerLost,
)
from nodeserver.core.lateclosings import (
    ASK_INTERVAL,
    CLOSED_SECONDS,
    MOST_ASKED,
    MOST_CLOSED,
    MOST_UNTOLD,
)
from nodeserver.core.recoveryeffects import ForgetComputation, ForgetUntold, RecordClosed
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus, Unrun
from nodeserver.core.takeovers import BUSY_SECONDS
from tests.support.desk import CLIENT
from tests.support.takeoverdesk import PATIENCE, TOKEN, TakeoverDesk, known


def closed_without_a() -> TakeoverDesk:
    """Two nodes had it; `a` was lost, `b` was there when it was closed."""
    desk = TakeoverDesk({}, is_shared=True, resumes=False, epoch=3)
    desk.join('a', address='10.0.0.1')
    desk.join('b', address='10.0.0.2')
    desk.tell(PeerLost('a', 'its connection closed'))
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.hears('b', m.ComputationClosed(7))
    assert desk.sent(m.ComputationClosed, CLIENT)
    desk.effects.clear()
    return desk


def meets(desk: TakeoverDesk, node: str, address: str) -> list[m.CloseComputation]:
    desk.tell(NodeFound(node, address, 51348, ''))
    desk.tell(PeerConnected(node, address))
    desk.hears(node, m.NodeDetails(node, 2, 'Linux', '3.11', None))
    return desk.sent(m.CloseComputation, node)


def test_a_node_that_was_away_is_told_when_it_is_back_until_it_has_answered() -> None:
    desk = closed_without_a()
    for node in 'a', 'a again':  # the first one dies before it acts
        (told,) = meets(desk, node, '10.0.0.1')
        assert (told.computation, told.token, told.epoch) == (7, TOKEN, 3)
        desk.tell(PeerLost(node, 'its connection closed'))
        desk.effects.clear()
    assert meets(desk, 'a again', '10.0.0.1')
    desk.hears('a again', m.ComputationClosed(7))
    desk.tell(PeerLost('a again', 'its connection closed'))
    desk.effects.clear()
    assert not meets(desk, 'a again', '10.0.0.1')


def test_a_node_that_takes_the_one_that_has_it_for_alive_is_told_until_it_has_acted() -> None:
    desk = closed_without_a()
    meets(desk, 'a', '10.0.0.1')
    desk.hears('a', m.ComputationClosed(7, waits=True))
    desk.tell(PeerLost('a', 'its connection closed'))
    assert meets(desk, 'a again', '10.0.0.1')  # what it was told is not on its disk
    desk.hears('a again', m.ComputationClosed(7))
    assert not desk.core._closings.late


def test_who_closes_does_not_wait_for_that() -> None:
    desk = TakeoverDesk({}, is_shared=True, resumes=False)
    desk.join('a', address='10.0.0.1')
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.hears('a', m.ComputationClosed(7, waits=True))
    assert desk.sent(m.ComputationClosed, CLIENT) == [m.ComputationClosed(7)]
    assert len(desk.core._closings.late) == 1


def test_a_node_that_was_started_again_is_told_where_it_was() -> None:
    desk = closed_without_a()
    assert not meets(desk, 'c', '10.0.0.3')
    assert meets(desk, 'a2', '10.0.0.1')


@pytest.mark.parametrize('collects', [False, True])
def test_a_node_that_takes_another_program_for_its_holder_is_told_of_the_close(
    collects: bool,
) -> None:
    desk = TakeoverDesk({1: 'a'}, collects=collects)
    desk.meets('a')
    desk.hears('a', m.ComputationRefused(7, 'busy', 'it is used by a program that runs'))
    desk.lets_time_pass(BUSY_SECONDS + 1.0)  # who only collects gives it up: for a later try
    desk.hears(CLIENT, m.CloseComputation(7))
    told = desk.sent(m.CloseComputation, 'a')
    assert {each.token for each in told} == {b'' if collects else TOKEN}


def calls(desk: TakeoverDesk, node: str) -> list[m.CloseComputation]:
    desk.tell(PeerConnected(node, '10.0.0.9', 'node'))
    desk.hears(node, m.NodeDetails(node, 2, 'Linux', '3.11', None))
    return desk.sent(m.CloseComputation, node)


def test_nodes_that_call_are_told_whatever_their_ids_are_now() -> None:
    desk = TakeoverDesk({1: 'a'}, nodes=[known('a', '10.0.0.1', 0)], specs=[])
    desk.lets_time_pass(PATIENCE + 0.1)  # it did not come
    assert not calls(desk, 'a again')
    desk.hears(CLIENT, m.CloseComputation(7))
    (told,) = desk.sent(m.CloseComputation, 'a again')
    assert told.token == TOKEN
    assert calls(desk, 'another')  # it may be that one as well


def test_a_node_that_came_too_late_for_a_takeover_is_told_at_the_close() -> None:
    desk = TakeoverDesk({1: 'a'}, specs=[])
    desk.lets_time_pass(PATIENCE + 0.1)  # it did not come
    assert not meets(desk, 'a2', '10.0.0.1')
    desk.hears(CLIENT, m.CloseComputation(7))
    (told,) = desk.sent(m.CloseComputation, 'a2')
    assert told.token == TOKEN


def test_nodes_that_a_scheduler_without_records_does_not_know_are_told_at_the_close() -> None:
    desk = TakeoverDesk({1: ''}, is_shared=True, nodes=[], specs=[])
    desk.lets_time_pass(PATIENCE + 0.1)  # as long as nodes are asked for what they have
    assert not meets(desk, 'late', '10.0.0.7')
    desk.hears(CLIENT, m.CloseComputation(7))
    (told,) = desk.sent(m.CloseComputation, 'late')
    assert told.token == TOKEN


@pytest.mark.row('I05')
def test_nodes_that_a_recovery_did_not_reach_keep_what_they_have_for_a_later_one() -> None:
    nodes = [known('a', '10.0.0.1', 0), known('b', '10.0.0.2')]
    desk = TakeoverDesk({1: 'a', 2: 'b'}, nodes=nodes, collects=True, is_shared=True)
    desk.lets_time_pass(PATIENCE + 0.1)  # they did not come
    ends = [(each.status, each.kind) for each in desk.sent(m.JobsSettled)]
    assert ends == 2 * [(JobStatus.ABANDONED, Unrun.UNREACHED)]
    assert not calls(desk, 'a again')
    desk.hears(CLIENT, m.CloseComputation(7))
    assert desk.sent(m.ComputationClosed, CLIENT)
    assert not desk.sent(m.CloseComputation, 'a again')
    assert not calls(desk, 'another')
    assert not meets(desk, 'b', '10.0.0.2')
    desk.comes_back(epoch=2, collects=True, resubmits=2)
    desk.resubmit({1: '', 2: ''})  # it does not know where they are
    assert desk.sent(m.OpenComputation, 'b')
    assert desk.sent(m.OpenComputation, 'another')


def test_who_was_there_is_not_told_again() -> None:
    desk = closed_without_a()
    desk.tell(PeerLost('b', 'its connection closed'))
    assert not meets(desk, 'b', '10.0.0.2')


def test_a_computation_that_is_used_again_is_closed_by_nobody() -> None:
    desk = closed_without_a()
    desk.comes_back(epoch=4)
    assert not meets(desk, 'a', '10.0.0.1')


# on record


def test_who_is_yet_to_be_told_is_on_record_until_all_have_confirmed() -> None:
    desk = TakeoverDesk({}, is_shared=True, resumes=False, epoch=3)
    for number, node in enumerate(('a', 'b', 'c'), 1):
        desk.join(node, address=f'10.0.0.{number}')
    for node in 'a', 'b':
        desk.tell(PeerLost(node, 'its connection closed'))
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.hears('c', m.ComputationClosed(7))
    recorded = desk.records.pop()
    assert recorded == RecordClosed(
        m.CloseComputation(7, token=TOKEN, epoch=3),
        [known('a', '10.0.0.1'), known('b', '10.0.0.2')],
    )
    meets(desk, 'a', '10.0.0.1')
    desk.hears('a', m.ComputationClosed(7))
    assert desk.records.pop() == ForgetUntold([7], [['a']])
    meets(desk, 'b', '10.0.0.2')
    desk.hears('b', m.ComputationClosed(7))
    assert desk.records.pop() == ForgetUntold([7], [['b']])
    before = [*desk.records]
    desk.hears('b', m.ComputationClosed(7))
    assert desk.records == before


def test_nothing_is_left_on_record_where_all_nodes_are_told_at_the_close() -> None:
    desk = TakeoverDesk({}, is_shared=True, resumes=False)
    desk.join('a')
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.hears('a', m.ComputationClosed(7))
    assert desk.records[-1] == ForgetComputation(7)


def test_all_that_nodes_have_confirmed_in_a_turn_is_one_record() -> None:
    core = restarted(*(closing(number, known('a', '10.0.0.1')) for number in (1, 2)))
    core.handle(NodeFound('a', '10.0.0.1', 51348, ''), 51.0)
    for number in 1, 2:
        core.handle(MessageArrived('a', m.ComputationClosed(number)), 51.0)
    effects = core.end_turn(51.0)
    assert ForgetUntold([1, 2], [['a'], ['a']]) in effects


def closing(number: int, *nodes: m.KnownNode, age: float = 0.0) -> ClosingKnown:
    return ClosingKnown(m.CloseComputation(number, token=TOKEN, epoch=3), [*nodes], age)


def restarted(*closings: ClosingKnown) -> SchedulerCore:
    """A scheduler that finds on disk what one before it has closed."""
    core = SchedulerCore(is_shared=True)
    for each in closings:
        core.handle(each, 50.0)
    return core


@pytest.mark.row('I05')
def test_the_next_scheduler_looks_for_nodes_that_were_not_told_and_tells_them() -> None:
    core = restarted(closing(7, known('a', '10.0.0.1'), known('b', '10.0.0.2', 0)))
    assert core.next_deadline() == 50.0
    assert core.handle(DeadlinePassed(), 50.0) == [Knock('10.0.0.1', 51348)]
    failed = KnockFailed('10.0.0.1', 51348, 'no answer')
    assert core.handle(failed, 50.1) == [StopKnocking('10.0.0.1', 51348)]
    assert core.next_deadline() == 50.0 + ASK_INTERVAL
    assert not core.handle(NodeFound('c', '10.0.0.3', 51348, ''), 51.0)
    found = core.handle(NodeFound('a again', '10.0.0.1', 51348, ''), 51.0)
    assert [effect.node for effect in found if isinstance(effect, Connect)] == ['a again']
    core.handle(PeerConnected('a again', '10.0.0.1'), 51.0)
    details = m.NodeDetails('a', 2, 'Linux', '3.11', None)
    told = core.handle(MessageArrived('a again', details), 51.0)
    assert Send('a again', m.CloseComputation(7, token=TOKEN, epoch=3)) in told
    core.handle(MessageArrived('a again', m.ComputationClosed(7)), 51.0)
    assert core.end_turn(51.0) == [ForgetUntold([7], [['a']])]
    core.check()


def asked(core: SchedulerCore, now: float) -> list[str]:
    """Where it is knocked at this time, by address; nobody is there."""
    knocks = [e for e in core.handle(DeadlinePassed(), now) if isinstance(e, Knock)]
    for knock in knocks:
        core.handle(KnockFailed(knock.address, knock.port, 'no answer'), now)
    return [knock.address for knock in knocks]


def test_of_many_places_some_are_asked_at_a_time_and_all_in_turn() -> None:
    many = MOST_ASKED * 2 + 1
    core = restarted(closing(7, *(known(f'n{each}', f'host {each}') for each in range(many))))
    found = [asked(core, 50.0 + turn * ASK_INTERVAL) for turn in range(3)]
    assert list(map(len, found)) == 3 * [MOST_ASKED]
    assert len({address for addresses in found for address in addresses}) == many


def test_a_cluster_that_is_closed_does_not_end_the_search_for_nodes_of_another() -> None:
    desk = TakeoverDesk(
        {}, is_shared=True, resumes=False, before=[closing(9, known('b', '10.0.0.2'))]
    )
    desk.tell(DeadlinePassed())
    assert Knock('10.0.0.2', 51348) in desk.effects
    desk.hears(CLIENT, m.CloseComputation(7))
    assert StopKnocking('10.0.0.2', 51348) not in desk.effects


def test_what_a_scheduler_of_before_has_closed_may_be_used_once_more() -> None:
    before = [closing(7, known('a', '10.0.0.1'))]
    desk = TakeoverDesk({1: 'a'}, is_shared=True, before=before)
    desk.meets('a')
    assert not desk.sent(m.CloseComputation)
    assert not desk.core._closings.late


def test_what_is_remembered_is_bounded_and_ends() -> None:
    away = known('a', '10.0.0.1')
    core = restarted(*(closing(number, away, age=9.0) for number in range(MOST_CLOSED)))
    late = core._closings.late
    forgotten = core.handle(closing(MOST_CLOSED, away), 50.0)
    assert forgotten == [ForgetComputation(0)]
    assert len(late) == MOST_CLOSED
    forgotten = core.handle(DeadlinePassed(), 41.0 + CLOSED_SECONDS)
    assert forgotten.pop() == Knock('10.0.0.1', 51348)
    assert forgotten == [ForgetComputation(number) for number in range(1, MOST_CLOSED)]
    assert len(late) == 1
    forgotten = core.handle(DeadlinePassed(), 50.0 + CLOSED_SECONDS + ASK_INTERVAL)
    assert forgotten == [ForgetComputation(MOST_CLOSED)]
    assert len(late) == 0
    assert core.next_deadline() is None


def test_programs_that_name_very_many_nodes_fill_nothing() -> None:
    half = [known(f'n{each}', f'host {each}') for each in range(MOST_UNTOLD // 2)]
    core = restarted(closing(7, *half), closing(8, *half))
    assert core.handle(closing(9, known('a', '10.0.0.1')), 50.0) == [ForgetComputation(7)]
    assert len(core._closings.late) == 2
    assert not core.handle(closing(10, *half[1:]), 50.0)
