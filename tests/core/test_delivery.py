"""What is numbered arrives once and in order, whatever the wire does to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeserver.core.delivery import Inbound, Outbound, Verdict
from nodeserver.core.errors import ProtocolError


class Wire:
    """Two counters and the envelopes between them, in the hands of a hostile history."""

    def __init__(self) -> None:
        self.outbound: Outbound[str] = Outbound()
        self.inbound = Inbound()
        self.flying: list[tuple[int, str]] = []
        self.arrived: list[str] = []
        self.sent: list[str] = []

    def send(self) -> None:
        item = f'item {len(self.sent)}'
        self.sent.append(item)
        self.flying.append((self.outbound.number(item, len(item)), item))

    def deliver(self, place: int) -> None:
        number, item = self.flying.pop(place % len(self.flying))
        verdict = self.inbound.believe(number)
        if verdict is Verdict.NEW:
            self.arrived.append(item)
        if verdict is Verdict.GAP and self.inbound.asks_again():
            self.resume()

    def acknowledge(self) -> None:
        self.outbound.acknowledge(self.inbound.received)

    def resume(self) -> None:
        self.acknowledge()
        self.flying += self.outbound.kept()


MOVES = st.tuples(
    st.sampled_from(('send', 'deliver', 'drop', 'double', 'cut', 'resume', 'acknowledge')),
    st.integers(min_value=0, max_value=50),
)


def _move(wire: Wire, move: str, place: int) -> None:
    if move in ('send', 'resume', 'acknowledge'):
        getattr(wire, move)()
    elif move == 'cut':
        wire.flying.clear()
    elif wire.flying and move == 'deliver':
        wire.deliver(place)
    elif wire.flying and move == 'drop':
        del wire.flying[place % len(wire.flying)]
    elif wire.flying:
        wire.flying.append(wire.flying[place % len(wire.flying)])


@settings(deadline=None, max_examples=200)
@given(st.lists(MOVES, max_size=80))
def test_everything_arrives_once_and_in_order(moves: list[tuple[str, int]]) -> None:
    wire = Wire()
    for move, place in moves:
        _move(wire, move, place)
        assert wire.arrived == wire.sent[: len(wire.arrived)]
    # the wire heals: a reconnect, and nothing is lost any more
    wire.flying.clear()
    wire.resume()
    while wire.flying:
        wire.deliver(0)
    assert wire.arrived == wire.sent
    wire.acknowledge()
    assert wire.outbound.in_flight == 0
    assert wire.outbound.kept() == []


def test_bytes_in_flight_are_those_unacknowledged() -> None:
    outbound: Outbound[str] = Outbound()
    for size in (10, 20, 30):
        outbound.number('x', size)
    assert outbound.acknowledge(2) == ['x', 'x']
    assert outbound.in_flight == 30


def test_acknowledging_what_was_never_sent_is_refused() -> None:
    outbound: Outbound[str] = Outbound()
    outbound.number('x', 1)
    with pytest.raises(ProtocolError, match='number 2'):
        outbound.acknowledge(2)


def test_a_gap_is_told_once() -> None:
    inbound = Inbound()
    assert inbound.believe(3) is Verdict.GAP
    assert inbound.asks_again()
    assert inbound.believe(4) is Verdict.GAP
    assert not inbound.asks_again()
    assert inbound.believe(1) is Verdict.NEW
    assert inbound.believe(3) is Verdict.GAP
    assert inbound.asks_again()


def test_a_missing_tail_is_noticed() -> None:
    inbound = Inbound()
    inbound.believe(1)
    assert inbound.misses(2)
    assert not inbound.misses(1)
