"""A node is matched by the address at which it is used, and by the one by which it was asked."""

import pytest

from nodeserver.core import messages as m
from nodeserver.core.effects import Connect
from nodeserver.core.events import NodeFound
from tests.support.desk import Desk

INSIDE, OUTSIDE = '10.77.1.10', '203.0.113.7'


def connects(desk: Desk) -> list[tuple[str, int]]:
    found = [(e.address, e.port) for e in desk.effects if isinstance(e, Connect)]
    desk.effects.clear()
    return found


@pytest.mark.parametrize(
    ('pattern', 'is_wanted'),
    [(INSIDE, True), (OUTSIDE, True), ('10.77.*', True), ('203.*', True), ('10.77.1.1', False)],
)
def test_both_addresses_match_and_the_used_one_is_connected_to(
    pattern: str, is_wanted: bool
) -> None:
    desk = Desk(specs=[m.NodeSpec(pattern, 51348, 0, False)])
    desk.tell(NodeFound('n', OUTSIDE, 51348, '', 51348, asked=INSIDE))
    assert connects(desk) == ([(OUTSIDE, 51348)] if is_wanted else [])


def test_a_node_that_nobody_wanted_at_one_address_is_taken_at_another() -> None:
    desk = Desk(specs=[m.NodeSpec('10.77.1.*', 51348, 0, False)])
    desk.tell(NodeFound('n', 'fe80::1%eth0', 51348, '', 51348))
    assert connects(desk) == []
    desk.tell(NodeFound('n', INSIDE, 51348, '', 51348))
    assert connects(desk) == [(INSIDE, 51348)]
    desk.tell(NodeFound('n', 'fe80::1%eth0', 51348, '', 51348))
    assert connects(desk) == []  # it stays where it is


def test_a_node_that_nobody_wants_is_known_as_long_as_it_answers() -> None:
    desk = Desk(specs=[m.NodeSpec('10.78.*', 51348, 0, False)])

    def is_known() -> bool:
        return any(row.address == INSIDE for row in desk.core.list_nodes(desk.now).rows)

    for _ in range(12):
        desk.tell(NodeFound('n', INSIDE, 51348, '', 51348))
        desk.waits(5.0)
    assert is_known()
    for _ in range(6):
        desk.waits(5.0)
    assert not is_known()
