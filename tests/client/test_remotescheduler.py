"""The way of a program to a scheduler elsewhere, over a real link to a stand-in for that one."""

import asyncio
import secrets
import time

from nodeserver.core.events import Event, MessageArrived, PeerConnected
from nodeserver.core.messages import SchedulerPulse
from nodeserver.core.values import CLIENT_ROLE, SCHEDULER_ROLE
from nodeserver.io.driver import Driver
from nodeserver.io.keys import choose_secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.schedulercall import SchedulerPlace
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services.remotescheduler import RemoteOptions, RemoteScheduler

LIMIT = 20.0


def test_a_program_answers_each_pulse_so_that_a_loss_is_noticed_on_both_ends() -> None:
    loop = asyncio.new_event_loop()
    events: list[Event] = []
    secret = choose_secret('')
    options = LinkOptions(takes=(CLIENT_ROLE,))
    who = secrets.token_hex(16), SCHEDULER_ROLE
    scheduler = ZmqLink(loop, events.append, who, secret.link_keys(), options)
    place = SchedulerPlace('127.0.0.1', scheduler.listen('127.0.0.1', 0))
    remote = RemoteOptions(secrets.token_hex(16), secret, place, ['127.0.0.1'], 0, False)
    program = RemoteScheduler(Driver(loop), remote, lambda: None)

    def first(kind: type[Event]) -> Event:
        end = time.monotonic() + LIMIT
        while not (found := [event for event in events if isinstance(event, kind)]):
            assert time.monotonic() < end, events
            loop.run_until_complete(asyncio.sleep(0.005))
        return found[0]

    try:
        client = first(PeerConnected)
        assert isinstance(client, PeerConnected)
        scheduler.send(client.peer, SchedulerPulse())
        assert first(MessageArrived) == MessageArrived(client.peer, SchedulerPulse())
    finally:
        program.close('the test is over')
        scheduler.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
