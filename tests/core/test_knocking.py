"""Nodes that answer no ping, and nodes that move: asked by TCP, and linked to anew."""

import pytest

from nodeserver.core import messages as m
from nodeserver.core.closings import CLOSE_TIMEOUT
from nodeserver.core.effects import Connect, Knock, Ping, StopKnocking
from nodeserver.core.events import (
    KnockFailed,
    LinkBroken,
    LinkMended,
    NodeFound,
    PeerConnected,
    PeerLost,
)
from nodeserver.core.fleetmessages import AddNodes
from nodeserver.core.knocking import KNOCK_AFTER
from nodeserver.core.losses import MISSED_PULSES
from nodeserver.core.values import NODE_ROLE
from tests.support.desk import CLIENT, Desk
from tests.support.takeoverdesk import TakeoverDesk
from tests.support.world import declaration

A, B = ('10.0.0.1', 51348), ('10.0.0.2', 51350)


def spec(place: tuple[str, int]) -> m.NodeSpec:
    return m.NodeSpec(*place, 0, False)


ANY = m.NodeSpec('*', 51348, 0, False)


def taken(desk: Desk, *kinds: type) -> list[tuple[str, int]]:
    """Places of the effects of these kinds since the last look."""
    found = [e for e in desk.effects if isinstance(e, kinds)]
    desk.effects = [e for e in desk.effects if not isinstance(e, kinds)]
    return [(e.address, e.port) for e in found]


@pytest.fixture
def desk() -> Desk:
    """Somebody looks for two nodes by their addresses, and for any other."""
    return Desk(specs=[spec(A), spec(B), ANY])


def test_who_answers_no_ping_within_a_second_is_knocked_for_once(desk: Desk) -> None:
    desk.waits(KNOCK_AFTER - 0.1)
    assert not taken(desk, Knock)
    desk.waits(0.2)
    assert taken(desk, Knock) == [A, B]
    for _ in range(5):
        desk.waits(5.0)
    assert not taken(desk, Knock, StopKnocking)


@pytest.mark.parametrize(
    'found',
    [
        NodeFound('a', *A, ''),
        NodeFound('a', A[0], 40000, '', asked_port=A[1]),
        NodeFound('a', '192.0.2.1', A[1], '', asked=A[0]),
    ],
    ids=['there', 'at another port', 'and wants another address'],
)
def test_who_answers_is_not_knocked_for_and_no_more_if_that_began(
    desk: Desk, found: NodeFound
) -> None:
    desk.tell(found)
    desk.waits(KNOCK_AFTER)
    assert taken(desk, Knock) == [B]
    late = Desk(specs=[spec(A), spec(B), ANY])
    late.waits(KNOCK_AFTER)
    late.tell(found)
    assert taken(late, StopKnocking) == [A]


def test_a_wildcard_is_asked_for_by_pings_alone() -> None:
    desk = Desk()
    desk.waits(KNOCK_AFTER)
    assert not taken(desk, Knock)


def test_a_node_that_is_found_both_ways_is_one_node(desk: Desk) -> None:
    desk.waits(KNOCK_AFTER)
    for _ in range(2):
        desk.tell(NodeFound('a', *A, ''))
    assert taken(desk, Connect) == [A]
    assert len(desk.core.list_nodes(desk.now).rows) == 1


def test_a_node_that_connects_by_itself_is_not_knocked_for(desk: Desk) -> None:
    desk.waits(KNOCK_AFTER)
    desk.tell(PeerConnected('a', A[0], NODE_ROLE))
    assert taken(desk, StopKnocking) == [A]


def test_a_node_that_was_found_and_connects_through_a_tunnel_keeps_its_address(desk: Desk) -> None:
    desk.tell(NodeFound('a', *A, ''))
    desk.tell(PeerConnected('a', '127.0.0.1', NODE_ROLE))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    assert desk.sent(m.OpenComputation, 'a')
    assert 'node a (10.0.0.1), which connected to this program' in desk.explained()


def test_it_ends_with_the_last_computation_that_looks_there(desk: Desk) -> None:
    desk.waits(KNOCK_AFTER)
    desk.hears(CLIENT, declaration(8, specs=[spec(A)]))
    desk.waits(KNOCK_AFTER)
    assert taken(desk, Knock) == [A, B]
    desk.hears(CLIENT, m.CloseComputation(7))
    assert taken(desk, StopKnocking) == [B]
    desk.hears(CLIENT, m.CloseComputation(8))
    assert taken(desk, StopKnocking) == [A]


def test_it_ends_with_a_computation_that_is_closed_while_it_is_taken_over() -> None:
    desk = TakeoverDesk({1: 'a'}, specs=[])
    desk.waits(KNOCK_AFTER)
    assert taken(desk, Knock) == [A]
    desk.hears(CLIENT, m.CloseComputation(7))
    assert not taken(desk, StopKnocking)  # what it has is dropped if it comes
    desk.waits(CLOSE_TIMEOUT)
    assert desk.sent(m.ComputationClosed, CLIENT)
    assert taken(desk, StopKnocking) == [A]


def test_an_added_node_is_knocked_for_and_a_lost_one_again() -> None:
    desk = Desk()
    desk.join('x', address='10.0.0.9')
    desk.hears(CLIENT, AddNodes(7, 1, [spec(A)]))
    desk.waits(KNOCK_AFTER)
    assert taken(desk, Knock) == [A]
    desk.join('a')
    assert taken(desk, StopKnocking) == [A]
    desk.tell(PeerLost('a', 'it ended'))
    desk.waits(1.0)
    desk.waits(KNOCK_AFTER)
    assert taken(desk, Knock) == [A]


def test_a_node_that_ended_before_it_could_be_linked_to_is_looked_for_again(desk: Desk) -> None:
    def passes(seconds: int) -> None:
        for _ in range(seconds):
            desk.waits(1.0)
            desk.hears('x', m.NodePulse(None))

    desk.join('x', address='10.0.0.9')  # with which the others of `nodes` would do
    passes(10)
    taken(desk, Knock)
    desk.tell(NodeFound('a', *A, ''))
    assert taken(desk, StopKnocking) == [A]
    passes(MISSED_PULSES * 5 + 10)  # no connection comes to be
    assert taken(desk, Knock) == [A]


def test_what_was_tried_is_told(desk: Desk) -> None:
    desk.waits(KNOCK_AFTER)
    assert '10.0.0.1 port 51348: asked by UDP 2 times without an answer' in desk.explained()
    desk.tell(KnockFailed(*A, 'connection refused'))
    desk.tell(KnockFailed('10.0.0.3', 1, 'of one that nobody has asked for'))
    text = desk.explained()
    assert 'and connected to by TCP: connection refused' in text
    assert '10.0.0.2 port 51350: asked by UDP 2 times without an answer, and connected' in text
    assert '10.0.0.3' not in text
    desk.join('a')
    assert 'refused' not in desk.explained()


# nodes that move


def test_a_node_whose_link_broke_is_asked_for_until_it_is_back() -> None:
    desk = Desk()
    desk.join('a')
    desk.waits(100.0)
    desk.effects.clear()
    desk.tell(LinkBroken('a'))
    desk.tell(LinkBroken('nobody'))
    assert 'its connection broke 0 s ago, and is being made anew' in desk.explained()
    for _ in range(3):
        desk.waits(3.0)
    assert sum(isinstance(effect, Ping) for effect in desk.effects) == 3
    desk.tell(LinkMended('a'))
    assert 'broke' not in desk.explained()
    desk.waits(3.0)  # the last one was due already
    desk.effects.clear()
    desk.waits(30.0)
    assert not any(isinstance(effect, Ping) for effect in desk.effects)


def test_a_node_whose_link_broke_and_that_answers_elsewhere_is_linked_to_there() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    desk.effects.clear()
    desk.tell(NodeFound('a', '10.0.0.8', 51348, ''))  # another of its addresses
    assert not taken(desk, Connect)
    desk.tell(LinkBroken('a'))
    desk.tell(NodeFound('a', *A, ''))  # where it was: the link makes itself anew
    assert not taken(desk, Connect)
    desk.tell(NodeFound('a', '10.0.0.8', 51348, ''))
    assert taken(desk, Connect) == [('10.0.0.8', 51348)]
    desk.done('a', 1)
    assert desk.sent(m.JobsDone, CLIENT)
    assert 'node a (10.0.0.8)' in desk.explained()
