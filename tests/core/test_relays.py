"""What relays tell a program: found, matched, reached through them, and lost again."""

from typing import Any

import pytest

from nodeserver.core import messages as m
from nodeserver.core.effects import Connect, Disconnect, Knock, Ping, StopKnocking, UseRelay
from nodeserver.core.events import (
    DeadlinePassed,
    KnockFailed,
    NodeFound,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
    RelayFound,
)
from nodeserver.core.knocking import KNOCK_AFTER, RELAY_PORT
from nodeserver.core.relaymessages import AskNodes, NodesGone, NodesSeen, RelayDetails
from nodeserver.core.relays import MOST_RELAYS, RENEWAL
from nodeserver.core.scheduler import SchedulerCore
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration

A, B, C = (letter * 32 for letter in 'abc')
SPECS = [m.NodeSpec('10.9.0.1', 51348, 0, False), m.NodeSpec('10.1.0.*', 51348, 0, False)]


def seen(*nodes: tuple[str, str], tls: bool = False) -> NodesSeen:
    """Make the row of each node: id and address."""
    ids, addresses = [n for n, _ in nodes], [a for _, a in nodes]
    count = len(nodes)
    return NodesSeen(ids, addresses, [51348] * count, [51348] * count, [''] * count, [tls] * count)


def with_relay(carries: bool = False, relay: str = C, specs: list[Any] | None = None) -> Desk:
    """A desk at which a relay was found, and has said who it is."""
    desk = Desk(specs=SPECS if specs is None else specs)
    join_relay(desk, relay, carries)
    return desk


def join_relay(desk: Desk, relay: str = C, carries: bool = False) -> None:
    desk.tell(RelayFound(relay, '10.9.0.1', 51346))
    desk.tell(PeerConnected(relay, '10.9.0.1:51346'))
    desk.hears(relay, RelayDetails('gate', '', 51346 if carries else 0))


def taken(desk: Desk, kind: type[Any]) -> list[Any]:
    """Take the effects of a kind."""
    found = [effect for effect in desk.effects if isinstance(effect, kind)]
    desk.effects = [effect for effect in desk.effects if not isinstance(effect, kind)]
    return found


def test_a_named_machine_is_asked_for_a_relay_too_unless_its_port_was_named() -> None:
    desk = Desk(specs=[*SPECS, m.NodeSpec('10.9.0.2', 7000, 0, False)])
    (ping,) = taken(desk, Ping)
    assert ping.targets == [('10.9.0.1', 51348), ('10.9.0.2', 7000), ('10.9.0.1', 51346)]


def test_a_relay_is_asked_and_its_nodes_are_used_where_they_match() -> None:
    desk = with_relay()
    assert taken(desk, Connect) == [Connect(C, '10.9.0.1', 51346, '')]
    assert desk.sent(AskNodes, C) == [AskNodes([51348])]
    desk.hears(C, seen((A, '10.1.0.1'), (B, '10.2.0.1')))
    assert taken(desk, Connect) == [Connect(A, '10.1.0.1', 51348, '')]
    words = desk.core.explain(7, desk.now)
    assert 'relay gate (10.9.0.1): told of 2 nodes' in words
    assert any('10.2.0.1' in line and 'matches no element' in line for line in words)


def test_a_relay_that_connects_by_itself_is_asked_as_well() -> None:
    desk = Desk()
    desk.tell(PeerConnected(C, '10.9.0.1', 'relay'))
    assert desk.sent(AskNodes, C) == [AskNodes([51348])]
    desk.hears(C, RelayDetails('gate', 'gate.example.org', 51346))
    assert taken(desk, UseRelay) == [UseRelay(C, 'gate.example.org', 51346)]
    desk.hears(C, seen((A, '10.1.0.1')))
    assert taken(desk, Connect) == [Connect(A, '10.1.0.1', 51348, '', C)]


@pytest.mark.parametrize('called', [False, True])
def test_connections_are_carried_by_where_the_relay_was_met(called: bool) -> None:
    desk = Desk()
    if called:
        desk.tell(PeerConnected(C, '10.9.0.1', 'relay'))
    else:
        desk.tell(RelayFound(C, '10.9.0.1', 7000))
        desk.tell(PeerConnected(C, '10.9.0.1:7000'))
    desk.hears(C, RelayDetails('gate', '', 51346))
    assert taken(desk, UseRelay) == [UseRelay(C, '10.9.0.1', 51346 if called else 7000)]


def test_a_relay_is_told_now_and_then_that_the_program_is_still_there() -> None:
    desk = with_relay()
    desk.sent(AskNodes)
    desk.now += RENEWAL
    desk.tell(DeadlinePassed())
    assert desk.sent(AskNodes, C) == [AskNodes([51348])]
    assert (desk.core.next_deadline() or 0) > desk.now


def test_a_computation_with_another_port_of_nodes_has_them_asked_there() -> None:
    desk = with_relay()
    desk.sent(AskNodes)
    changes = {'computation': 8, 'node_port': 60000, 'specs': SPECS}
    desk.hears(CLIENT, declaration(**changes))
    assert desk.sent(AskNodes, C) == [AskNodes([51348, 60000])]


def test_two_relays_tell_of_one_node_and_it_is_one() -> None:
    desk = with_relay()
    desk.hears(C, seen((A, '10.1.0.1')))
    other = 'd' * 32
    desk.tell(PeerConnected(other, '10.9.0.2', 'relay'))
    taken(desk, Connect)
    desk.hears(other, seen((A, '10.1.0.1')))
    assert not taken(desk, Connect)
    assert len(desk.core.list_nodes(desk.now).rows) == 1


def test_a_node_that_was_found_directly_stays_so() -> None:
    desk = with_relay(carries=True)
    desk.tell(NodeFound(A, '10.1.0.1', 51348, '/local'))
    taken(desk, Connect)
    desk.hears(C, seen((A, '10.1.0.1')))
    assert not taken(desk, Connect)


def test_a_node_that_answers_by_itself_needs_no_relay() -> None:
    desk = with_relay(carries=True)
    desk.hears(C, seen((A, '10.1.0.1')))
    taken(desk, Connect)
    desk.tell(NodeFound(A, '10.1.0.1', 51348, ''))
    assert taken(desk, Connect) == [Connect(A, '10.1.0.1', 51348, '')]


def test_a_lost_relay_is_said_looked_for_and_its_nodes_go_through_its_successor() -> None:
    desk = with_relay(carries=True)
    desk.hears(C, seen((A, '10.1.0.1')))
    desk.tell(PeerConnected(A, '10.1.0.1'))
    desk.effects.clear()
    desk.tell(PeerLost(C, 'connection refused'))
    (notice,) = desk.sent(m.Notice, CLIENT)
    assert 'relay gate (10.9.0.1) was lost: connection refused' in notice.text
    assert taken(desk, UseRelay) == [UseRelay(C, '', 0)]
    desk.tell(DeadlinePassed())
    assert Ping([('10.9.0.1', 51346)], 0) in taken(desk, Ping)
    assert not taken(desk, Disconnect)
    successor = 'd' * 32
    join_relay(desk, successor, carries=True)
    taken(desk, Connect)
    desk.hears(successor, seen((A, '10.1.0.1')))
    assert taken(desk, Connect) == [Connect(A, '10.1.0.1', 51348, '', successor)]
    desk.now += RENEWAL
    desk.tell(DeadlinePassed())
    assert not [ping for ping in taken(desk, Ping) if ping.targets == [('10.9.0.1', 51346)]]


def test_what_a_lost_relay_carried_another_that_told_of_it_carries() -> None:
    desk = with_relay(carries=True)
    desk.hears(C, seen((A, '10.1.0.1'), (B, '10.1.0.2')))
    other = 'd' * 32
    desk.tell(PeerConnected(other, '10.9.0.2', 'relay'))
    desk.hears(other, RelayDetails('second', '', 51346))
    desk.hears(other, seen((A, '10.1.0.1')))
    taken(desk, Connect)
    desk.tell(PeerLost(C, 'connection refused'))
    assert taken(desk, Connect) == [Connect(A, '10.1.0.1', 51348, '', other)]


def test_nodes_that_speak_tls_are_told_of_and_not_used_without_a_certificate() -> None:
    desk = with_relay(carries=True)
    taken(desk, Connect)
    desk.hears(C, seen((A, '10.1.0.1'), tls=True))
    assert taken(desk, Connect) == []
    assert 'this side was given no certificate' in '\n'.join(desk.core.explain(7, desk.now))


def test_nodes_that_speak_tls_are_connected_to_through_the_relay_with_a_certificate() -> None:
    desk = Desk()
    desk.core = SchedulerCore(is_tls=True)
    desk.hears(CLIENT, declaration(specs=SPECS))
    desk.tell(RelayFound(C, '10.9.0.1', 51346, is_tls=True))
    desk.tell(PeerConnected(C, '10.9.0.1:51346'))
    desk.hears(C, RelayDetails('gate', '', 51346))
    taken(desk, Connect)
    desk.hears(C, seen((A, '10.1.0.1'), tls=True))
    desk.hears(C, seen((B, '10.1.0.2')))
    assert taken(desk, Connect) == [Connect(A, '10.1.0.1', 51348, '', C)]
    assert 'it does not use SSL' in '\n'.join(desk.core.explain(7, desk.now))


@pytest.mark.parametrize('ours', [False, True])
def test_a_relay_with_or_without_a_certificate_unlike_us_is_explained_and_told(ours: bool) -> None:
    """It is connected to, so that it says so too; what its answer says is more than a refusal."""
    desk = Desk()
    desk.core = SchedulerCore(is_tls=ours)
    desk.hears(CLIENT, declaration(specs=SPECS))
    desk.tell(RelayFound(C, '10.9.0.1', 51346, is_tls=not ours))
    desk.tell(PeerRefusedUs(C, '10.9.0.1:51346', 'it has another key, or none, or uses SSL'))
    assert [e.node for e in taken(desk, Connect)] == [C]
    words = 'it does not use SSL, and this' if ours else 'it uses SSL, and this side was given no'
    (line,) = [line for line in desk.core.explain(7, desk.now) if line.startswith('relay')]
    assert line.startswith(f'relay 10.9.0.1: {words}')
    # it is started anew, as it should be
    desk.tell(RelayFound(B, '10.9.0.1', 51346, is_tls=ours))
    assert taken(desk, Disconnect) == [Disconnect(C)]
    desk.tell(PeerConnected(B, '10.9.0.1:51346'))
    (line,) = [line for line in desk.core.explain(7, desk.now) if line.startswith('relay')]
    assert line == 'relay 10.9.0.1: has found no node on its network yet'


def test_a_node_that_is_gone_is_forgotten_unless_a_connection_stands() -> None:
    desk = with_relay()
    desk.hears(C, seen((A, '10.1.0.1'), (B, '10.1.0.2')))
    desk.tell(PeerConnected(B, '10.1.0.2'))
    desk.hears(C, NodesGone([A, B, 'e' * 32]))
    assert taken(desk, Disconnect) == [Disconnect(A)]
    assert [row.address for row in desk.core.list_nodes(desk.now).rows] == ['10.1.0.2']


def test_a_relay_that_refuses_us_is_told_with_its_reason() -> None:
    desk = Desk(specs=SPECS)
    desk.tell(RelayFound(C, '10.9.0.1', 51346))
    desk.tell(PeerRefusedUs(C, '10.9.0.1:51346', 'it has another key, or none'))
    assert 'relay 10.9.0.1: it has another key, or none' in desk.core.explain(7, desk.now)


@pytest.mark.parametrize(
    ('node', 'address', 'port'),
    [
        ('a', '10.1.0.1', 51348),
        ('g' * 32, '10.1.0.1', 51348),
        (C, '10.1.0.1', 51348),  # itself
        (A, 'name.example.org', 51348),
        (A, '', 51348),
        (A, '10.1.0.1', 0),
        (A, '10.1.0.1', 65536),
    ],
)
def test_rows_that_cannot_be_nodes_are_left_out(node: str, address: str, port: int) -> None:
    desk = with_relay()
    taken(desk, Connect)
    desk.hears(C, NodesSeen([node], [address], [port], [51348], [''], [False]))
    assert not taken(desk, Connect)
    assert not desk.core.list_nodes(desk.now).rows


def test_a_relay_is_listened_to_as_a_relay_only() -> None:
    desk = with_relay()
    desk.hears(C, m.CancelJobs(7, [1]))
    desk.hears(C, m.CloseComputation(7))
    desk.hears(C, m.NodeDetails('n', 2, 'Linux', '3.11', None))
    assert not desk.core.list_nodes(desk.now).rows
    assert desk.core.explain(7, desk.now) != ['the cluster is closed']


def test_there_are_not_more_relays_than_anybody_has() -> None:
    desk = Desk()
    for number in range(MOST_RELAYS + 1):
        desk.tell(PeerConnected(f'{number:032x}', '10.9.0.1', 'relay'))
    assert taken(desk, Disconnect) == [Disconnect(f'{MOST_RELAYS:032x}')]


def test_a_named_machine_that_answers_nothing_is_asked_by_tcp_for_node_and_relay() -> None:
    desk = Desk(specs=SPECS)
    desk.waits(KNOCK_AFTER)
    node, relay = ('10.9.0.1', 51348), ('10.9.0.1', RELAY_PORT)
    assert taken(desk, Knock) == [Knock(*node)]
    desk.tell(KnockFailed(*node, 'connection refused'))
    assert taken(desk, Knock) == [Knock(*relay)]
    desk.tell(RelayFound(C, *relay))
    assert {(e.address, e.port) for e in taken(desk, StopKnocking)} == {node, relay}
    desk.waits(60)
    assert not taken(desk, Knock)


def test_who_answers_by_tcp_at_a_relays_port_and_is_of_no_use_is_explained() -> None:
    desk = Desk(specs=SPECS)
    desk.waits(KNOCK_AFTER)
    desk.tell(KnockFailed('10.9.0.1', 51348, 'connection refused'))
    relay = ('10.9.0.1', RELAY_PORT)
    line = '10.9.0.1 port 51346 (that of relays): it has another certificate'
    for reason, has_answered in (
        ('connection refused', False),
        ('it has another certificate', True),
        ('no answer', False),
    ):
        desk.tell(KnockFailed(*relay, reason, has_answered))
        assert (line in desk.core.explain(7, desk.now)) is has_answered


def test_where_a_node_answers_no_relay_is_looked_for_by_tcp() -> None:
    desk = Desk(specs=SPECS)
    desk.tell(NodeFound(A, '10.9.0.1', 51348, ''))
    desk.waits(60)
    assert not taken(desk, Knock)


def test_a_lost_relay_is_looked_for_by_tcp_too() -> None:
    desk = with_relay()
    taken(desk, Knock)
    desk.tell(PeerLost(C, 'connection refused'))
    assert taken(desk, Knock) == [Knock('10.9.0.1', RELAY_PORT)]
    join_relay(desk, 'd' * 32)
    assert StopKnocking('10.9.0.1', RELAY_PORT) in taken(desk, StopKnocking)


@pytest.mark.parametrize('host', ['a' * 64 + '.b', 'a b', 'x\0y', 'ex\u00e4mple', '-' * 300, '::'])
def test_a_relay_that_gives_no_host_name_carries_nothing(host: str) -> None:
    desk = with_relay()
    desk.hears(C, RelayDetails('gate', host, 51346))
    assert not taken(desk, UseRelay)
    desk.hears(C, seen((A, '10.1.0.1')))
    assert taken(desk, Connect)[-1].via == ''


@pytest.mark.parametrize(('asked', 'port'), [('x' * 300, 1), ('a\nb', 1), ('', -1), ('', 70000)])
def test_rows_with_absurd_places_are_left_out(asked: str, port: int) -> None:
    desk = with_relay()
    taken(desk, Connect)
    desk.hears(C, NodesSeen([A], ['10.1.0.1'], [51348], [port], [asked], [False]))
    assert not taken(desk, Connect)


def test_relays_that_never_connect_make_room_for_those_that_follow_at_their_place() -> None:
    desk = Desk()
    for number in range(2 * MOST_RELAYS):
        desk.tell(RelayFound(f'{number:032x}', '10.9.0.1', 51346))
    assert len(taken(desk, Connect)) == 2 * MOST_RELAYS
