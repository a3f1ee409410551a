"""What a turn costs: counted in calls, as times depend on the machine."""

import sys
from types import FrameType
from typing import Any

import pytest

from nodeserver.core import messages as m
from nodeserver.core.computation import PATIENCE
from nodeserver.core.events import MessageArrived
from nodeserver.core.values import Resources
from tests.support.shareddesk import SharedDesk

CPUS = 8


def full_desk(clients: int) -> SharedDesk:
    """Nodes with a job on each cpu, and clients that all have more, which are long."""
    desk = SharedDesk()
    for number in range(4):
        desk.join(f'n{number}', cpus=CPUS, address=f'10.0.0.{number}')
    for number in range(1, clients + 1):
        desk.declare(f'client {number}', number)
    jobs = range(4 * CPUS * 5)
    desk.submit_at_once(
        *(m.SubmitJobs(n, '', [*jobs], [b''] * len(jobs)) for n in range(1, clients + 1))
    )
    return desk


def calls_in_turn(desk: SharedDesk, *events: Any) -> int:
    """How many functions the core calls in a turn that begins with these events."""
    count = 0

    def seen(frame: FrameType, what: str, _: object) -> None:
        nonlocal count
        count += what == 'call'

    sys.setprofile(seen)
    try:
        for event in events:
            desk.core.handle(event, desk.now)
        desk.core.end_turn(desk.now)
        desk.core.next_deadline()
    finally:
        sys.setprofile(None)
    return count


def ended(desk: SharedDesk, seconds: float = 10.0) -> MessageArrived:
    """A letter of a node: the first job of all has ended."""
    node, computation, ids = desk.given.pop(0)
    letter = m.JobsDone(computation, node, 1, ids[:1], [1], [11], [b''], [''], [seconds])
    return MessageArrived(node, letter)


def calls_for_a_job(clients: int) -> int:
    """What it costs to take in the end of one job, and to give out the next one."""
    desk = full_desk(clients)
    desk.tell()  # in the first turn after some time all clients are looked at
    calls = calls_in_turn(desk, ended(desk))
    desk.core.check()
    return calls


@pytest.mark.row('B07')
def test_a_turn_costs_the_same_however_many_clients_wait() -> None:
    few, many = calls_for_a_job(2), calls_for_a_job(100)
    assert many <= 1.1 * few


def test_a_turn_in_which_nothing_changes_tries_nothing_again() -> None:
    desk = full_desk(30)
    pulse = MessageArrived('n0', m.NodePulse(None))
    desk.core.next_deadline()
    assert calls_in_turn(desk, pulse) < 25
    assert calls_in_turn(desk, ended(desk)) > 50
    desk.core.check()


def test_patience_ends_in_turns_in_which_nothing_changes_as_well() -> None:
    desk = SharedDesk()
    desk.join('n', cpus=2)
    desk.declare('ann', 1)
    desk.submit(1, 1, 2, 3, 4)
    desk.declare('bob', 2, resources=Resources(cpus=2))
    desk.submit(2, 1)
    desk.done(('n', 1, 1))  # one cpu after the other becomes free: bob never finds two
    assert desk.running() == {1: 2}
    desk.now += PATIENCE
    desk.hears('n', m.NodePulse(None))
    assert desk.running() == {1: 2, 2: 1}
