"""The list of nodes has each that was found, and why it is not used, as the scheduler knows it."""

import pytest

from nodeserver.core import messages as m
from nodeserver.core.events import NodeFound, OtherKeySeen, PeerConnected, PeerLost, PeerRefusedUs
from nodeserver.core.listing import NodeRow
from nodeserver.core.values import Availability
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration


def rows(desk: Desk) -> dict[str, NodeRow]:
    return {row.address: row for row in desk.core.list_nodes(desk.now).rows}


def words(desk: Desk, address: str = '10.0.0.1') -> list[str]:
    return [usage.words for usage in rows(desk)[address].usages]


@pytest.mark.row('V03')
def test_a_node_in_use_is_listed_with_its_free_cpus_and_memory() -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.tell(PeerConnected('a', '10.0.0.1'))
    spare = Availability(90.0, 3_000, 5, 0.0)
    desk.hears('a', m.NodeDetails('alpha', 4, 'Linux', '3.11', spare, memory=8_000))
    desk.hears('a', m.ComputationReady(7))
    desk.submit(1, 2, 3)
    row = rows(desk)['10.0.0.1']
    assert (row.name, row.cpus, row.free, row.memory, row.memory_free) == (
        *('alpha', 4, 1),
        *(8_000, 3_000),
    )
    (usage,) = row.usages
    assert (usage.computation, usage.is_used, usage.words) == (7, True, '3 of 4 cpus in use')


@pytest.mark.row('V03')
@pytest.mark.parametrize(
    ('kind', 'said', 'free'),
    [('busy', 'busy: of somebody; it is used as soon', None), ('failed', 'cannot run this', 2)],
)
def test_a_node_that_is_not_used_has_the_reason(kind: str, said: str, free: int | None) -> None:
    desk = Desk()
    desk.join('a')
    desk.hears('a', m.ComputationRefused(7, kind, 'of somebody'))
    row = rows(desk)['10.0.0.1']
    assert row.free == free  # of one that another program holds nobody here knows
    assert said in words(desk)[0]
    assert not row.usages[0].is_used


@pytest.mark.row('V03')
def test_nodes_that_were_only_found_and_strangers_are_listed_too() -> None:
    desk = Desk(specs=[m.NodeSpec('10.*', 51348, 0, False)])
    desk.tell(NodeFound('x', '11.0.0.1', 51348, ''))
    desk.tell(NodeFound('y', '10.0.0.2', 51348, ''))
    desk.tell(OtherKeySeen('10.0.0.3'))
    desk.tell(OtherKeySeen('12.0.0.3'))  # nobody looks there
    desk.tell(PeerRefusedUs('', '10.0.0.4', 'speaks another protocol'))
    found = rows(desk)
    assert set(found) == {'11.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'}
    assert 'matches no element of `nodes`' in words(desk, '11.0.0.1')[0]
    assert words(desk, '10.0.0.2') == ['connecting']
    assert found['10.0.0.2'].cpus is None
    assert 'uses another key' in found['10.0.0.3'].words
    assert found['10.0.0.4'].words == 'speaks another protocol'


def test_who_was_refused_and_is_connected_now_is_refused_no_more() -> None:
    desk = Desk(specs=[m.NodeSpec('10.*', 51348, 0, False)])
    desk.tell(PeerRefusedUs('', '10.0.0.4', 'its certificate has expired'))
    desk.tell(PeerConnected('a', '10.0.0.4', 'node'))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    assert not desk.core._fleet.discovery.refusals


def test_a_refusal_of_a_node_that_was_given_up_in_the_same_turn_is_not_kept() -> None:
    desk = Desk(specs=[m.NodeSpec('10.*', 51348, 0, False)])
    desk.join('a', address='10.0.0.4')
    desk.tell(PeerLost('a', 'it broke the protocol'))
    desk.tell(PeerRefusedUs('a', '10.0.0.4:51348', 'its connection was refused'))
    desk.join('a', address='10.0.0.4')
    assert 'was refused' not in desk.explained()


def test_each_computation_has_its_own_reason_and_closed_ones_have_none() -> None:
    desk = Desk()
    desk.hears(CLIENT, declaration(8))
    desk.join('a', cpus=2)
    desk.hears('a', m.ComputationRefused(8, 'failed', 'setup() failed'))
    usages = rows(desk)['10.0.0.1'].usages
    assert [usage.is_used for usage in usages] == [True, False]
    desk.hears(CLIENT, m.CloseComputation(8))
    assert [usage.computation for usage in rows(desk)['10.0.0.1'].usages] == [7]


def test_the_places_that_were_looked_at_are_told() -> None:
    desk = Desk(specs=[m.NodeSpec('10.0.0.9', 51348, 0, False), m.NodeSpec('*', 51348, 0, False)])
    (places,) = desk.core.list_nodes(desk.now).places.values()
    assert places.startswith('10.0.0.9 (port 51348), the local network by broadcast to port ')
