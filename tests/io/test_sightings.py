"""What is told of nodes that answer at several addresses, or ask to be called elsewhere."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from nodeserver.core.events import NodeFound
from nodeserver.io.sightings import IPV4_GRACE, Sightings

V4, V6, OUTSIDE = '10.77.1.10', 'fe80::1%eth0', '203.0.113.7'
NODE = 'a' * 32


class Loop:
    """Time of a loop that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 50.0
        self._timers: list[tuple[float, int, Loop.Timer]] = []
        self._count = itertools.count()

    class Timer:
        """What can be cancelled."""

        def __init__(self, call: Callable[[], Any]) -> None:
            self.call: Callable[[], Any] | None = call

        def cancel(self) -> None:
            self.call = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[..., Any], *args: Any) -> 'Loop.Timer':
        timer = Loop.Timer(lambda: function(*args))
        heapq.heappush(self._timers, (self.now + delay, next(self._count), timer))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                timer.call()
        self.now = end


class Story:
    """A client that has interfaces with IPv4 on eth0, what it hears, and what it is told."""

    def __init__(self) -> None:
        self.loop, self.told, self.pinged = Loop(), list[Any](), list[tuple[str, int]]()
        self.sightings = Sightings(
            self.loop,  # type: ignore[arg-type]
            self.told.append,
            lambda *where: self.pinged.append(where),
        )
        self.sightings.ipv4_names = frozenset(['eth0'])

    def answer(self, address: str, ext_host: str = '', *, named: bool = False) -> None:
        found = NodeFound(NODE, address, 51348, '', 51348)
        self.sightings.seen(found, ext_host, named)

    def places(self) -> list[tuple[str, str]]:
        told, self.told[:] = [(e.address, e.asked) for e in self.told], []
        return told


def test_a_node_that_answers_both_ways_is_told_at_its_ipv4_address_only() -> None:
    for order in ((V6, V4), (V4, V6)):
        story = Story()
        for address in order:
            story.answer(address)
        story.loop.advance(5)
        assert story.places() == [(V4, '')]


def test_a_node_without_ipv4_is_told_after_a_moment_and_at_once_where_only_ipv6_asks() -> None:
    story = Story()
    story.answer(V6)
    assert story.places() == []
    story.loop.advance(IPV4_GRACE)
    assert story.places() == [(V6, '')]
    for address, named in (('fe80::1%eth1', False), (V6, True), ('fd77::10', False)):
        story = Story()
        story.answer(address, named=named)
        assert story.places() == [(address, '')]


def test_a_node_that_is_connected_is_not_told_again_but_for_a_new_address() -> None:
    story = Story()
    story.answer(V4)
    story.sightings.is_connected = lambda node: node == NODE
    story.answer(V4)
    story.answer('10.77.1.20')
    assert story.places() == [(V4, ''), ('10.77.1.20', '')]
    story.sightings.is_connected = lambda node: False  # it was lost
    story.answer(V4)
    assert story.places() == [(V4, '')]


def test_announcements_are_news_of_wanted_nodes_without_link_and_else_now_and_then() -> None:
    story = Story()
    connected: set[str] = set()
    story.sightings.is_connected = connected.__contains__
    assert not story.sightings.is_settled(NODE, V4, 51348)
    story.answer(V4)
    assert story.sightings.is_settled(NODE, V4, 51348)  # nobody has asked for a connection
    assert not story.sightings.is_settled(NODE, V4, 51350)
    story.sightings.wanted(NODE)
    assert not story.sightings.is_settled(NODE, V4, 51348)
    connected.add(NODE)
    assert story.sightings.is_settled(NODE, V4, 51348)
    story = Story()
    story.answer(V4)
    story.loop.advance(15)
    assert not story.sightings.is_settled(NODE, V4, 51348)


def test_a_node_is_used_at_its_other_address_once_it_has_answered_there() -> None:
    story = Story()
    story.answer(V4, OUTSIDE)
    assert (story.places(), story.pinged) == ([], [(OUTSIDE, 51348)])
    story.answer(V4, OUTSIDE)  # to another ping meanwhile: nothing is asked twice
    assert story.pinged == [(OUTSIDE, 51348)]
    story.answer(OUTSIDE, OUTSIDE, named=True)
    story.loop.advance(5)
    assert story.places() == [(OUTSIDE, V4)]


def test_a_node_that_was_asked_there_is_used_there_at_once() -> None:
    story = Story()
    story.answer(OUTSIDE, OUTSIDE, named=True)
    assert (story.places(), story.pinged) == ([(OUTSIDE, '')], [])


def test_where_it_does_not_answer_there_the_first_address_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    story = Story()
    with caplog.at_level('INFO', 'nodeserver'):
        story.answer(V4, OUTSIDE)
        story.loop.advance(0.99)
        assert story.places() == []
        story.loop.advance(0.02)
    assert story.places() == [(V4, OUTSIDE)]
    assert story.pinged == [(OUTSIDE, 51348)] * 4
    assert f'a node at {V4} wants to be called at {OUTSIDE}, where it does not' in caplog.text
    story.answer(V4, OUTSIDE)  # not tried again at once
    assert (story.places(), len(story.pinged)) == ([(V4, OUTSIDE)], 4)


def test_what_is_remembered_of_nodes_is_bounded() -> None:
    story = Story()
    for number in range(20_000):
        found = NodeFound(f'{number:032x}', V4, 51348, '', number % 60_000 + 1)
        story.sightings.seen(found, '', False)
    for port in range(1, 100):
        story.sightings.seen(NodeFound(NODE, V4, 51348, '', port), '', False)
    assert len(story.sightings._known) == 16384
    assert len(story.sightings._known[NODE].addresses) <= 8


def test_an_answer_that_is_sent_again_from_many_places_is_one_that_waits_for_a_name() -> None:
    async def body() -> list[Any]:
        loop, told = asyncio.get_running_loop(), list[Any]()
        sightings = Sightings(loop, told.append, lambda *where: None)
        for port in range(1, 2000):
            sightings.seen(NodeFound(NODE, '127.0.0.1', 51348, '', port), 'localhost', False)
        async with asyncio.timeout(10):
            while not told:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        sightings.close()
        return told

    assert len(asyncio.run(body())) == 1
