"""What every link promises, shown on each of them."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nodeserver.core.events import MessageArrived, PeerConnected
from nodeserver.core.messages import Farewell, NodePulse, SubmitJobs
from tests.contract.carried import carried_pair
from tests.contract.ends import QUICK, End, local_pair, our_keys, until, zmq_pair
from tests.support.certificates import our_identity

Ends = tuple[End, End]


@pytest.fixture(params=['local', 'tcp with CURVE', 'TLS', 'ipc', 'carried', 'carried TLS'])
def ends(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Ends]:
    """Connect two ends by each kind of link."""
    if request.param == 'local':
        with local_pair(loop) as pair:
            yield pair
    elif request.param == 'TLS':
        options = replace(QUICK, tls=our_identity())
        with zmq_pair(loop, None, is_local=False, options=options) as pair:
            yield pair
    elif request.param == 'carried':
        with carried_pair(loop, our_keys()) as pair:
            yield pair
    elif request.param == 'carried TLS':
        options = replace(QUICK, tls=our_identity())
        with carried_pair(loop, our_keys(), options) as pair:
            yield pair
    else:
        with zmq_pair(loop, our_keys(), is_local=request.param == 'ipc') as pair:
            yield pair


def test_both_sides_are_told_of_each_other_first_and_once(ends: Ends) -> None:
    a, b = ends
    a.send(b, Farewell('there'))
    b.send(a, Farewell('back'))
    until(a.loop, lambda: a.messages and b.messages)
    for one, other in ((a, b), (b, a)):
        assert isinstance(one.events[0], PeerConnected)
        assert one.events[0].peer == other.name
        assert len(one.others) == 1


def test_messages_name_their_sender(ends: Ends) -> None:
    a, b = ends
    a.send(b, Farewell('it is me'))
    until(a.loop, lambda: b.messages)
    assert b.events[-1] == MessageArrived(a.name, Farewell('it is me'))


def test_ten_thousand_messages_arrive_once_and_in_order_both_ways(ends: Ends) -> None:
    a, b = ends
    there = [Farewell(f'there {number}') for number in range(10_000)]
    back = [Farewell(f'back {number}') for number in range(10_000)]
    for one, other in zip(there, back, strict=True):
        a.send(b, one)
        b.send(a, other)
    until(a.loop, lambda: len(a.messages) >= 10_000 and len(b.messages) >= 10_000)
    assert b.messages == there
    assert a.messages == back


def test_pulses_pass_a_payload_of_100_megabytes(ends: Ends) -> None:
    a, b = ends
    large = SubmitJobs(1, '', [1], [random.Random(1).randbytes(100_000_000)])
    a.send(b, large)
    for number in range(20):
        a.send(b, NodePulse(None))
        until(a.loop, lambda count=number + 1: _pulses(b) >= count, limit=2)  # type: ignore[misc]
    until(a.loop, lambda: len(b.messages) == 21)
    assert large in b.messages


def _pulses(end: End) -> int:
    return sum(isinstance(message, NodePulse) for message in end.messages)


def test_payloads_of_every_size_keep_their_places(ends: Ends) -> None:
    a, b = ends
    sizes = [0, 1, 32 * 1024, 32 * 1024 + 1, 1_000_000, 6_000_000, 3]
    payloads = [bytes([place]) * size for place, size in enumerate(sizes)]
    message = SubmitJobs(1, '', list(range(len(sizes))), payloads)
    a.send(b, message)
    until(a.loop, lambda: b.messages)
    assert b.messages == [message]


def test_a_peer_that_disconnects_is_lost_to_the_other_side_only(ends: Ends) -> None:
    a, b = ends
    a.send(b, Farewell('last words'))
    assert a.link is not None
    a.link.disconnect(b.name)
    until(a.loop, b.lost)
    assert b.messages == [Farewell('last words')]
    assert [event.peer for event in b.lost()] == [a.name]
    assert a.lost() == []


def test_sending_to_a_peer_that_is_not_known_is_harmless(ends: Ends) -> None:
    a, b = ends
    a.send(End(a.loop), Farewell('nobody hears this'))
    a.send(b, Farewell('but this'))
    until(a.loop, lambda: b.messages)
    assert b.messages == [Farewell('but this')]


def test_closing_sends_what_was_handed_over_and_ends_the_peer(ends: Ends) -> None:
    a, b = ends
    said = [Farewell(f'{number}') for number in range(1000)]
    for message in said:
        a.send(b, message)
    a.close()
    until(a.loop, b.lost)
    assert b.messages == said
