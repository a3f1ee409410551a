"""What goes from a shared scheduler to a client at once, and what waits for company."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from nodeserver.core.messages import JobsDone, JobsStarted, Message, Notice
from nodeserver.core.status import JobStatus
from nodeserver.services.clientway import MOST_HELD, ClientWay

PEER = 'ab' * 16
STARTED = JobsStarted(1, 'n1', [7])


class Loop:
    """A loop whose time passes when it is told so."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, function: Callable[[], None]) -> 'Loop':
        """Have something called."""
        self.later.append((delay, function))
        return self

    def cancel(self) -> None:
        """Call nothing."""
        self.later.clear()

    def pass_time(self) -> None:
        """Call what is due."""
        due, self.later = self.later, []
        for _, function in due:
            function()


class Wire:
    """A link that shows what went out."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, peer: str, message: Message) -> None:
        """Note a message."""
        assert peer == PEER
        self.sent.append(message)

    def disconnect(self, peer: str) -> None:
        """Forget the peer."""

    def close(self) -> None:
        """End."""


def done(job: int) -> JobsDone:
    return JobsDone(1, 'n1', 1, [job], [1], [int(JobStatus.FINISHED)], [b''], [''], [0.0])


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def ended() -> list[int]:
    return []


@pytest.fixture
def way(loop: Loop, wire: Wire, ended: list[int]) -> ClientWay:
    return ClientWay(cast(asyncio.AbstractEventLoop, cast(Any, loop)), wire, PEER, ended.append)


def test_that_jobs_begin_goes_out_with_their_outcomes_and_before_them(
    way: ClientWay, wire: Wire, ended: list[int]
) -> None:
    way.send('client', STARTED)
    assert wire.sent == []
    way.send('client', done(7))
    assert wire.sent == [STARTED, done(7)]
    assert ended == [1]


def test_that_jobs_begin_waits_for_a_moment_only(way: ClientWay, wire: Wire, loop: Loop) -> None:
    way.send('client', STARTED)
    way.send('client', STARTED)
    assert [delay for delay, _ in loop.later] == [MOST_HELD]
    loop.pass_time()
    assert wire.sent == [STARTED, STARTED]
    way.send('client', STARTED)
    loop.pass_time()
    assert len(wire.sent) == 3


def test_everything_else_goes_out_at_once(way: ClientWay, wire: Wire, loop: Loop) -> None:
    notice = Notice(1, 20, 'words')
    way.send('client', notice)
    assert wire.sent == [notice] and not loop.later


def test_what_was_held_for_a_client_that_is_gone_is_never_sent(
    way: ClientWay, wire: Wire, loop: Loop
) -> None:
    way.send('client', STARTED)
    way.close()
    loop.pass_time()
    way.flush()
    assert wire.sent == []
