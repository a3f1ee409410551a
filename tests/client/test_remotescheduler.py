"""The way of a program to a scheduler elsewhere, over a real link to a stand-in for that one."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nodeserver.core import levels
from nodeserver.core.askmessages import AskExplanation
from nodeserver.core.effects import Report, TakeBackNotice
from nodeserver.core.events import Event, MessageArrived, PeerConnected
from nodeserver.core.messages import SchedulerPulse
from nodeserver.core.values import CLIENT_ROLE, SCHEDULER_ROLE
from nodeserver.io import schedulercall
from nodeserver.io.driver import Driver
from nodeserver.io.keys import choose_secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.schedulercall import SchedulerPlace
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services import remotescheduler
from nodeserver.services.remotescheduler import RemoteOptions, RemoteScheduler
from tests.support.world import declaration

LIMIT = 20.0


class Meeting:
    """A program and a stand-in for its scheduler, on one loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.events: list[Event] = []  # of the scheduler's link
        secret = choose_secret('')
        options = LinkOptions(takes=(CLIENT_ROLE,))
        who = secrets.token_hex(16), SCHEDULER_ROLE
        keys = secret.link_keys()
        self.scheduler = ZmqLink(self.loop, self.events.append, who, keys, options)
        place = SchedulerPlace('127.0.0.1', self.scheduler.listen('127.0.0.1', 0))
        remote = RemoteOptions(secrets.token_hex(16), secret, place, ['127.0.0.1'], 0, False)
        self.program = RemoteScheduler(Driver(self.loop), remote, lambda: None)

    def first(self, kind: type[Any]) -> Any:
        """Wait for an event of a kind."""
        self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))

    def until(self, condition: Callable[[], object]) -> None:
        """Let the loop run until a condition holds."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, self.events
            self.loop.run_until_complete(asyncio.sleep(0.005))

    def close(self) -> None:
        """End both."""
        self.program.close('the test is over')
        self.scheduler.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    made = Meeting()
    yield made
    made.close()


def test_a_program_answers_each_pulse_so_that_a_loss_is_noticed_on_both_ends(
    meeting: Meeting,
) -> None:
    client = meeting.first(PeerConnected)
    meeting.scheduler.send(client.peer, SchedulerPulse())
    assert meeting.first(MessageArrived) == MessageArrived(client.peer, SchedulerPulse())


def test_a_scheduler_that_is_connected_and_hangs_is_told_of_until_it_says_something(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remotescheduler.QUIET_SECONDS + remotescheduler.ANSWER_LIMIT <= 10.0
    monkeypatch.setattr(schedulercall, 'LOOK_INTERVAL', 0.02)
    monkeypatch.setattr(remotescheduler, 'QUIET_SECONDS', 0.05)
    monkeypatch.setattr(remotescheduler, 'ANSWER_LIMIT', 0.05)
    said: list[Any] = []
    meeting.program.attach(declaration(), {Report: said.append, TakeBackNotice: said.append})
    meeting.until(lambda: any(getattr(each, 'level', 0) == levels.WARNING for each in said))
    assert 'it is connected, and does not answer' in said[-1].text
    asked = [e.message for e in meeting.events if isinstance(e, MessageArrived)]
    assert any(isinstance(message, AskExplanation) for message in asked)
    meeting.scheduler.send(meeting.first(PeerConnected).peer, SchedulerPulse())
    meeting.until(lambda: isinstance(said[-1], TakeBackNotice))
