"""What only a link between processes has to stand: cuts, deaths, and ways to connect."""

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodeserver.core.errors import PortBusy
from nodeserver.core.events import PeerConnected, PeerLost
from nodeserver.core.messages import Farewell, NodePulse, SubmitJobs
from nodeserver.io.dialer import Target
from nodeserver.wire.linkkeys import LinkKeys
from tests.contract.ends import (
    HOST,
    QUICK,
    Made,
    Proxy,
    new_id,
    our_keys,
    pass_time,
    until,
    works,
)

Loop = asyncio.AbstractEventLoop
PATIENT = dataclasses.replace(
    QUICK, gone_after=10.0, local_gone_after=10.0
)  # for cuts in quick succession

# room for more


@pytest.mark.parametrize('is_taken', [True, False])
def test_who_asks_is_told_when_nothing_waits_to_go_out(
    loop: Loop, made: Made, is_taken: bool
) -> None:
    a, b = made(None), made.listening(None, PATIENT)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.connected() and b.connected())
    told: list[str] = []
    for one, other in ((a, b), (b, a)):
        one.send(other, SubmitJobs(1, '', [1], [bytes(100_000_000)]))  # more than there is room for
        one.zmq.when_sent(other.name, lambda one=one: told.append(one.name))  # type: ignore[misc]
    assert told == []
    if is_taken:
        until(loop, lambda: len(told) == 2)
        a.zmq.when_sent(b.name, lambda: told.append('at once'))
        until(loop, lambda: 'at once' in told)
        until(loop, lambda: a.messages and b.messages)
    else:
        b.close()
        until(loop, lambda: a.lost())
        a.zmq.when_sent(b.name, lambda: told.append('never'))
        pass_time(loop, 0.1)
        assert told == []


# cuts


@pytest.mark.parametrize('keys', [None, our_keys()], ids=['plain', 'CURVE'])
def test_cut_connections_lose_and_repeat_nothing(
    loop: Loop, made: Made, keys: LinkKeys | None
) -> None:
    a, b = made(keys), made.listening(keys, PATIENT)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    until(loop, lambda: b.connected())
    there = [Farewell(f'there {number}' * 50) for number in range(3000)]
    back = [Farewell(f'back {number}' * 50) for number in range(3000)]
    for number in range(3000):
        a.send(b, there[number])
        b.send(a, back[number])
        if number % 500 == 250:
            goal = proxy.carried + 1
            until(loop, lambda goal=goal: proxy.carried > goal)  # type: ignore[misc]
            proxy.cut()
    until(loop, lambda: len(a.messages) >= 3000 and len(b.messages) >= 3000)
    assert b.messages == there
    assert a.messages == back
    assert len(a.others) == len(b.others) == 1
    proxy.close()


def test_a_large_message_survives_cuts(loop: Loop, made: Made) -> None:
    a, b = made(our_keys()), made.listening(our_keys(), PATIENT)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    large = SubmitJobs(1, '', [1], [os.urandom(20_000_000)])
    a.send(b, large)
    for megabytes in (3, 9, 15):
        until(loop, lambda goal=megabytes: proxy.carried > goal * 1e6)  # type: ignore[misc]
        proxy.cut()
    until(loop, lambda: b.messages)
    assert b.messages == [large]
    assert len(a.others) == len(b.others) == 1
    proxy.close()


def test_a_connection_that_does_not_come_back_loses_the_peer_on_the_listening_side(
    loop: Loop, made: Made
) -> None:
    a, b = made(), made.listening()
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    until(loop, lambda: a.others and b.others)  # the greeting was answered, and the answer heard
    proxy.close()
    until(loop, b.lost, limit=5)
    assert 'did not come back' in b.lost()[0].reason
    until(loop, a.lost, limit=5)
    assert 'refused' in a.lost()[0].reason


# silence

SHORT = dataclasses.replace(QUICK, heartbeat_interval=0.1, heartbeat_timeout=0.4, gone_after=2.0)

DIALLING_PROGRAM = """
import asyncio, sys
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.core.events import MessageArrived

def on(event):
    if isinstance(event, MessageArrived):
        link.send(event.peer, event.message)

loop = asyncio.new_event_loop()
link = ZmqLink(loop, on, (sys.argv[1], 'echo'), None, LinkOptions(0.1, 0.4))
link.connect(sys.argv[2], '127.0.0.1', int(sys.argv[3]))
loop.run_forever()
"""


@pytest.mark.slow
def test_a_dialler_that_is_stopped_for_long_goes_on_where_it_was(loop: Loop, made: Made) -> None:
    b, name = made.listening(options=SHORT), new_id()
    words = [sys.executable, '-c', DIALLING_PROGRAM, name, b.name, str(b.port)]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2]) as dialler:
        try:
            until(loop, b.connected)
            sent = [Farewell(str(number)) for number in range(100)]
            for number, message in enumerate(sent):
                b.zmq.send(name, message)
                if number == 50:
                    until(loop, lambda: b.messages)
                    dialler.send_signal(signal.SIGSTOP)
            pass_time(loop, 3.0)  # longer than each time limit here
            assert not b.lost()
            dialler.send_signal(signal.SIGCONT)
            until(loop, lambda: len(b.messages) >= 100)
            assert b.messages == sent
            assert len(b.others) == 1
        finally:
            dialler.kill()
    until(loop, b.lost, limit=5)  # its death is noticed all the same


def test_a_dialler_that_heard_nothing_for_too_long_comes_back_and_goes_on(
    loop: Loop, made: Made
) -> None:
    a, b = made(our_keys(), SHORT), made.listening(our_keys(), SHORT)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    until(loop, lambda: a.connected() and b.connected())
    proxy.hold()
    for number in range(10):
        a.send(b, Farewell(f'there {number}'))
        b.send(a, Farewell(f'back {number}'))
    until(loop, lambda: not a.zmq._dialers[b.name].is_up)  # it gave the connection up
    pass_time(loop, 1.0)
    proxy.let_go()
    until(loop, lambda: len(a.messages) >= 10 and len(b.messages) >= 10)
    assert a.messages == [Farewell(f'back {number}') for number in range(10)]
    assert b.messages == [Farewell(f'there {number}') for number in range(10)]
    assert len(a.others) == len(b.others) == 1
    proxy.close()


# deaths

PEER_PROGRAM = """
import asyncio, sys
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.core.events import MessageArrived
from nodeserver.core.messages import Farewell

def on(event):
    if isinstance(event, MessageArrived):
        link.send(event.peer, event.message)

loop = asyncio.new_event_loop()
link = ZmqLink(loop, on, (sys.argv[1], 'echo'), None)
print(link.listen('127.0.0.1', int(sys.argv[2])), flush=True)
if len(sys.argv) > 3:
    link.listen_local(sys.argv[3])
loop.run_forever()
"""


class EchoProgram:
    """A peer in a process of its own that sends everything back."""

    def __init__(self, name: str, port: int = 0, path: str = '') -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, '-c', PEER_PROGRAM, name, str(port), *([path] if path else [])],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.mark.parametrize('is_local', [False, True], ids=['tcp', 'ipc'])
def test_a_killed_peer_is_lost_within_a_second(
    loop: Loop, made: Made, own_home: Path, is_local: bool
) -> None:
    path = str(own_home / 'echo') if is_local else ''
    peer = EchoProgram(new_id(), path=path)
    a = made()
    a.zmq.connect(peer.name, HOST, peer.port, path)
    a.zmq.send(peer.name, Farewell('echo'))
    until(loop, lambda: a.messages)
    peer.kill()
    until(loop, a.lost, limit=1)
    assert 'refused' in a.lost()[0].reason
    assert a.lost()[0].peer == peer.name


def test_a_restarted_peer_is_lost_and_then_connected(loop: Loop, made: Made) -> None:
    name = new_id()
    a, first = made(), made(name=name)
    first.port = first.zmq.listen(HOST, 0)
    proxy = Proxy(loop, first.port)
    a.zmq.connect(name, HOST, proxy.port)
    a.send(first, Farewell('to the first'))
    until(loop, lambda: first.messages)
    second = made(name=name)
    proxy.target = second.zmq.listen(HOST, 0)
    proxy.cut()
    until(loop, lambda: len(a.others) == 3)
    assert [type(event) for event in a.others] == [PeerConnected, PeerLost, PeerConnected]
    assert a.lost()[0].reason == 'its connection was lost and taken up anew'
    a.send(second, Farewell('to the second'))
    until(loop, lambda: second.messages)
    assert second.messages == [Farewell('to the second')]
    proxy.close()


def test_a_restarted_dialler_is_lost_and_then_connected(loop: Loop, made: Made) -> None:
    name = new_id()
    b, first = made.listening(), made(name=name)
    first.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: b.others)
    second = made(name=name)
    seed = first.zmq._around.seed  # which is what makes it the same one
    second.zmq._around = dataclasses.replace(second.zmq._around, seed=seed)
    second.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.others) == 3)
    assert [type(event) for event in b.others] == [PeerConnected, PeerLost, PeerConnected]
    works(loop, second, b)


def test_a_peer_that_is_not_there_yet_is_connected_when_it_comes(loop: Loop, made: Made) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    a, b = made(our_keys()), made(our_keys())
    a.zmq.connect(b.name, HOST, port)
    a.send(b, Farewell('patience'))
    pass_time(loop, 0.2)
    assert a.events == []
    b.zmq.listen(HOST, port)
    until(loop, lambda: b.messages)
    assert b.messages == [Farewell('patience')]


def test_another_program_under_the_peers_address_is_told_as_a_refusal(
    loop: Loop, made: Made
) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(new_id(), HOST, b.port)
    until(loop, a.refused)
    assert 'another program' in a.refused()[0].reason


def test_a_peer_is_lost_when_its_successor_at_the_same_address_is_connected(
    loop: Loop, made: Made
) -> None:
    a, first, second = made(), made.listening(), made()
    proxy = Proxy(loop, first.port)
    a.zmq.connect(first.name, HOST, proxy.port)
    until(loop, a.connected)
    proxy.target = second.port = second.zmq.listen(HOST, 0)
    a.zmq.connect(second.name, HOST, proxy.port)
    assert a.lost() == [PeerLost(first.name, 'another program answers at its address now')]
    works(loop, a, second)
    assert len(second.others) == 1
    proxy.close()


# ways to connect


def test_the_right_peers_are_lost_and_kept_among_many(loop: Loop, made: Made) -> None:
    b = made.listening(our_keys())
    many = [made(our_keys()) for _ in range(10)]
    for end in many:
        end.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.connected()) == 10)
    for end in many[:5]:
        end.close()
    until(loop, lambda: len(b.lost()) == 5)
    assert {event.peer for event in b.lost()} == {end.name for end in many[:5]}
    for end in many[5:]:
        works(loop, end, b)
        works(loop, b, end)


def test_two_that_dial_each_other_end_with_one_connection(loop: Loop, made: Made) -> None:
    a, b = made.listening(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    b.zmq.connect(a.name, HOST, a.port)
    until(loop, lambda: a.connected() and b.connected())
    works(loop, a, b)
    works(loop, b, a)
    pass_time(loop, 0.5)
    works(loop, a, b)
    works(loop, b, a)
    assert len(a.connected()) == len(b.connected()) == 1


@pytest.mark.parametrize('keys', [None, our_keys()], ids=['plain', 'CURVE'])
def test_who_is_dialled_by_address_is_met_when_it_answers(
    loop: Loop, made: Made, keys: LinkKeys | None
) -> None:
    node, scheduler = made(keys, role='node'), made.listening(keys, role='scheduler')
    place = Target(HOST, scheduler.port)
    assert node.zmq.has_answered(place) is None
    node.zmq.dial(place)
    assert node.zmq.has_answered(place) is False
    until(loop, lambda: node.connected() and scheduler.connected())
    assert node.zmq.has_answered(place)
    assert node.events == [PeerConnected(scheduler.name, f'{HOST}:{scheduler.port}')]
    assert scheduler.events == [PeerConnected(node.name, HOST, 'node')]
    works(loop, node, scheduler)
    works(loop, scheduler, node)
    node.zmq.disconnect(scheduler.name)
    assert node.zmq.has_answered(place) is None
    until(loop, scheduler.lost)
    node.zmq.dial(place)
    until(loop, lambda: len(scheduler.connected()) == 2)
    works(loop, scheduler, node)


def test_who_is_dialled_may_be_another_one_later(loop: Loop, made: Made) -> None:
    node, first = made(role='node'), made.listening(role='scheduler')
    place = Target(HOST, first.port)
    node.zmq.dial(place)
    until(loop, node.connected)
    first.close()
    until(loop, lambda: node.zmq.has_answered(place) is None)
    assert [event.peer for event in node.lost()] == [first.name]
    second = made(role='scheduler')
    node.zmq.dial(place)
    pass_time(loop, 0.2)
    assert node.zmq.has_answered(place) is False
    second.zmq.listen(HOST, first.port)
    until(loop, lambda: len(node.connected()) == 2)
    works(loop, node, second)


# both orders of their ids: with one the first connection gives way, with the other the second
@pytest.mark.parametrize('ids', [('a' * 32, 'b' * 32), ('b' * 32, 'a' * 32)], ids=['low', 'high'])
def test_a_node_that_dials_who_connects_to_it_ends_with_one_connection(
    loop: Loop, made: Made, ids: tuple[str, str]
) -> None:
    node = made.listening(role='node', name=ids[0])
    scheduler = made.listening(role='scheduler', name=ids[1])
    place = Target(HOST, scheduler.port)
    node.zmq.dial(place)
    scheduler.zmq.connect(node.name, HOST, node.port)
    until(loop, lambda: node.connected() and scheduler.connected())
    pass_time(loop, 0.5)
    works(loop, node, scheduler)
    works(loop, scheduler, node)
    for end in (node, scheduler):  # each is left with the latest one that it was told of
        assert len(end.connected()) == len(end.lost()) + 1
        assert not end.refused()


def test_a_dialled_peer_that_is_connected_the_other_way_round_is_kept(
    loop: Loop, made: Made
) -> None:
    node, scheduler = made.listening(role='node'), made.listening(role='scheduler')
    scheduler.zmq.connect(node.name, HOST, node.port)
    until(loop, lambda: node.connected() and scheduler.connected())
    node.zmq.dial(Target(HOST, scheduler.port))
    pass_time(loop, 0.6)  # it is refused, and tries again
    works(loop, node, scheduler)
    works(loop, scheduler, node)
    assert len(node.others) == len(scheduler.others) == 1
    scheduler.zmq.disconnect(node.name)  # then the other way is taken
    until(loop, lambda: len(scheduler.connected()) == 2)
    works(loop, scheduler, node)


def test_a_node_lets_go_of_its_broken_call_for_a_scheduler_that_connects(
    loop: Loop, made: Made
) -> None:
    node, scheduler = made.listening(role='node'), made.listening(role='scheduler')
    proxy = Proxy(loop, scheduler.port)
    node.zmq.dial(Target(HOST, proxy.port))
    until(loop, lambda: node.connected() and scheduler.connected())
    proxy.hold()
    proxy.cut()
    until(loop, scheduler.lost)  # it is the scheduler that gives the other one up
    scheduler.zmq.connect(node.name, HOST, node.port)
    until(loop, lambda: len(scheduler.connected()) == 2)
    works(loop, node, scheduler)
    works(loop, scheduler, node)
    assert [event.peer for event in node.lost()] == [scheduler.name]
    proxy.let_go()
    proxy.close()


def test_a_scheduler_goes_on_with_its_broken_connection_although_the_node_calls(
    loop: Loop, made: Made
) -> None:
    node = made.listening(role='node', options=PATIENT)
    scheduler = made.listening(role='scheduler')
    proxy = Proxy(loop, node.port)
    scheduler.zmq.connect(node.name, HOST, proxy.port)
    until(loop, lambda: node.connected() and scheduler.connected())
    proxy.hold()
    proxy.cut()
    node.zmq.dial(Target(HOST, scheduler.port))
    scheduler.send(node, Farewell('of before'))
    pass_time(loop, 0.6)  # the call is refused, and made again
    proxy.let_go()
    until(loop, lambda: node.messages)
    works(loop, node, scheduler)
    assert len(node.connected()) == len(scheduler.connected()) == 1
    assert not node.lost()
    assert not scheduler.lost()
    proxy.close()


@pytest.mark.parametrize(
    ('role', 'words'),
    [
        ('node', 'it is a node, and takes connections of a scheduler only'),
        ('scheduler', 'it is a scheduler, and takes connections of a node or relay only'),
    ],
)
def test_who_connects_to_one_of_its_own_kind_is_told_what_that_is(
    loop: Loop, made: Made, role: str, words: str
) -> None:
    one, other = made(role=role), made.listening(role=role)
    one.zmq.dial(Target(HOST, other.port))
    until(loop, one.refused)
    assert one.refused()[0].reason == words
    assert not other.others


def test_connecting_again_to_a_connected_peer_changes_nothing(loop: Loop, made: Made) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.others)
    a.zmq.connect(b.name, HOST, b.port)
    works(loop, a, b)
    b.zmq.connect(a.name, HOST, 1)
    works(loop, b, a)
    assert len(a.others) == len(b.others) == 1


def test_a_peer_can_be_connected_again_after_it_was_disconnected(loop: Loop, made: Made) -> None:
    a, b = made(), made.listening()
    for count in (1, 2):
        a.zmq.connect(b.name, HOST, b.port)
        works(loop, a, b)
        a.zmq.disconnect(b.name)
        until(loop, lambda goal=count: len(b.lost()) == goal)  # type: ignore[misc]


def test_ipv6_works_where_the_machine_has_it(loop: Loop, made: Made) -> None:
    try:
        socket.create_server(('::1', 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip('this machine has no IPv6 loopback')
    a, b = made(our_keys()), made(our_keys())
    a.zmq.connect(b.name, '::1', b.zmq.listen('::1', 0))
    works(loop, a, b)


@pytest.mark.parametrize('address', [HOST, '::1'])
def test_a_listener_at_every_address_is_reached(loop: Loop, made: Made, address: str) -> None:
    if ':' in address and not socket.has_dualstack_ipv6():
        pytest.skip('this machine has no IPv6')
    a, b = made(), made()
    a.zmq.connect(b.name, address, b.zmq.listen('', 0))
    works(loop, a, b)
    assert [event.address for event in b.connected()] == [address]  # as it is usually written


def test_a_busy_port_is_named_with_its_option(made: Made) -> None:
    a, b = made(), made.listening()
    with pytest.raises(PortBusy, match=f'port {b.port} .*--node_port'):
        a.zmq.listen(HOST, b.port, '--node_port')


def test_closing_with_an_unreachable_peer_ends_in_time(loop: Loop, made: Made) -> None:
    a = made(our_keys())
    a.zmq.connect(new_id(), HOST, 1)
    pass_time(loop, 0.1)
    begun = time.monotonic()
    a.close()
    assert time.monotonic() - begun < 0.5


def test_pulses_alone_keep_nothing_in_memory(loop: Loop, made: Made) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.others and b.others)
    for _ in range(100):
        a.send(b, NodePulse(None))
    until(loop, lambda: len(b.messages) == 100)
    session = a.zmq._dialers[b.name]._session
    assert session._outbound.in_flight == 0
