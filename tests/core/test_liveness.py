"""Which silent nodes are lost, and which are not (D17)."""

from dataclasses import replace

import pytest

from nodeserver.core import messages as m
from nodeserver.core.effects import Ping
from nodeserver.core.events import DeadlinePassed, PeerLost
from nodeserver.core.fleetmessages import WatchFigures
from nodeserver.core.status import NodeStatus
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration


def run_for(desk: Desk, seconds: float, answers: bool) -> None:
    """Wake the core whenever it wants; its nodes answer each pulse, or are silent."""
    end = desk.now + seconds
    while (due := desk.core.next_deadline()) is not None and due < end:
        desk.now = max(desk.now, due)
        desk.tell(DeadlinePassed())
        for _ in desk.sent(m.SchedulerPulse):
            if answers:
                desk.hears('a', m.NodePulse(None))
    desk.now = end


@pytest.mark.parametrize(('first', 'second'), [(60.0, 5.0), (600.0, 1.0)])
def test_a_more_impatient_cluster_loses_no_node_that_answers(first: float, second: float) -> None:
    desk = Desk(pulse_interval=first)
    desk.join('a')
    run_for(desk, 10, answers=True)
    desk.hears(CLIENT, replace(declaration(), computation=8, pulse_interval=second))
    desk.hears('a', m.ComputationReady(8))
    run_for(desk, 3 * first, answers=True)
    assert 'a' in desk.core._fleet.nodes
    run_for(desk, 7 * second, answers=False)
    assert 'a' not in desk.core._fleet.nodes


@pytest.mark.row('I15')
@pytest.mark.parametrize('interval', [0.2, 1.0, 5.0, 600.0])
@pytest.mark.parametrize('slowness', [0.0, 0.1, 0.9])
def test_a_node_is_lost_five_pulses_after_it_was_heard_and_no_more_than_a_second_later(
    interval: float, slowness: float
) -> None:
    """It dies just after its answer, which it has given late, by a part of the interval."""
    desk = Desk(pulse_interval=interval)
    desk.join('a')
    run_for(desk, 20.5 * interval, answers=True)
    late = slowness * interval
    run_for(desk, interval + late, answers=False)
    desk.hears('a', m.NodePulse(None))
    heard_at = desk.now
    while 'a' in desk.core._fleet.nodes:
        due = desk.core.next_deadline()
        assert due is not None
        desk.now = max(desk.now, due)
        desk.tell(DeadlinePassed())
    assert 5 * interval <= desk.now - heard_at + 1e-6 <= 5 * interval + 1.0 + 1e-5


def test_a_program_that_was_suspended_waits_for_answers_as_long_as_ever() -> None:
    desk = Desk()
    desk.join('a')
    run_for(desk, 20, answers=True)
    desk.now += 3600
    desk.hears('a', m.NodePulse(None))  # it lay in the socket
    run_for(desk, 20, answers=True)
    assert 'a' in desk.core._fleet.nodes
    run_for(desk, 40, answers=False)
    assert 'a' not in desk.core._fleet.nodes


def test_a_node_that_comes_after_a_long_time_without_any_is_lost_in_time() -> None:
    desk = Desk()
    desk.join('a')
    desk.tell(PeerLost('a', 'it ended'))
    desk.waits(3600)
    desk.join('b')
    run_for(desk, 40, answers=False)
    assert 'b' not in desk.core._fleet.nodes


def test_others_are_looked_for_when_the_only_node_fails() -> None:
    desk = Desk()
    desk.join('a')
    desk.waits(20)
    desk.hears('a', m.ComputationRefused(7, 'failed', 'its template died'))
    desk.effects.clear()
    desk.waits(2)
    assert any(isinstance(effect, Ping) for effect in desk.effects)


def test_each_cluster_is_told_of_figures_in_its_own_time() -> None:
    desk = Desk(pulse_interval=60.0)
    desk.hears('other', replace(declaration(), computation=8, pulse_interval=7.0))
    desk.join('a')
    desk.hears('a', m.ComputationReady(8))
    desk.sent(m.NodeChanged)
    run_for(desk, 600, answers=True)
    for client, times in ((CLIENT, 600 / 60), ('other', 600 / 7)):
        told = [change.status for change in desk.sent(m.NodeChanged, client)]
        assert set(told) == {NodeStatus.AVAIL_INFO}
        assert times - 2 <= len(told) <= times * 1.1 + 1


def watched(desk: Desk, seconds: float) -> list[int]:
    """Look at the nodes for some seconds; answer what the client was told of figures meanwhile."""
    desk.sent(m.NodeChanged)
    for _ in range(int(seconds / 5)):
        desk.hears(CLIENT, WatchFigures(7))
        run_for(desk, 5.0, answers=True)
    return [change.status for change in desk.sent(m.NodeChanged)]


@pytest.mark.row('V09', 'E12')
def test_who_looks_at_nodes_has_figures_each_second_and_callbacks_theirs_in_time() -> None:
    desk = Desk(pulse_interval=20.0)
    desk.join('a')
    run_for(desk, 30, answers=True)
    told = watched(desk, 100)
    assert 90 <= told.count(NodeStatus.FIGURES) <= 110
    assert 4 <= told.count(NodeStatus.AVAIL_INFO) <= 6
    run_for(desk, 20, answers=True)  # nobody looks any more
    desk.sent(m.NodeChanged)
    run_for(desk, 100, answers=True)
    assert NodeStatus.FIGURES not in [change.status for change in desk.sent(m.NodeChanged)]


def test_who_looks_at_nodes_loses_none_that_is_slow_to_answer() -> None:
    desk = Desk(pulse_interval=20.0)
    desk.join('a')
    for _ in range(10):
        desk.hears(CLIENT, WatchFigures(7))
        run_for(desk, 5.0, answers=False)
    assert 'a' in desk.core._fleet.nodes  # 50 s are less than five pulses
    run_for(desk, 120, answers=False)
    assert 'a' not in desk.core._fleet.nodes


def test_a_look_at_nodes_of_nobody_is_none() -> None:
    desk = Desk()
    desk.join('a')
    desk.sent(m.NodeChanged)
    desk.hears(CLIENT, WatchFigures(99))
    run_for(desk, 3, answers=True)
    assert NodeStatus.FIGURES not in [change.status for change in desk.sent(m.NodeChanged)]
