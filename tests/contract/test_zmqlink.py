"""What only a link between processes has to stand: cuts, deaths, strangers and nonsense."""

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from nodeserver.core.errors import PortBusy
from nodeserver.core.events import PeerConnected, PeerLost
from nodeserver.core.messages import Farewell, NodePulse, SubmitJobs
from nodeserver.io.zmqsocket import LinkOptions
from nodeserver.wire.envelope import Introduction, Kind, head, write_greeting
from nodeserver.wire.linkkeys import LinkKeys
from tests.contract.ends import (
    End,
    QUICK,
    Proxy,
    ZmqEnd,
    make_keys,
    new_id,
    our_keys,
    pass_time,
    until,
)

Loop = asyncio.AbstractEventLoop
HOST = '127.0.0.1'
PATIENT = dataclasses.replace(QUICK, gone_after=10.0)  # for cuts in quick succession


class Made:
    """Makes ends that are closed when the test is over."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ends: list[End] = []

    def __call__(
        self, keys: LinkKeys | None = None, options: LinkOptions = QUICK, name: str = ''
    ) -> ZmqEnd:
        end = ZmqEnd(self._loop, keys, options, name)
        self._ends.append(end)
        return end

    def listening(self, keys: LinkKeys | None = None, options: LinkOptions = QUICK) -> ZmqEnd:
        """Make an end that listens."""
        end = self(keys, options)
        end.port = end.zmq.listen(HOST, 0)
        return end

    def close(self) -> None:
        """Close them all."""
        for end in self._ends:
            end.close()
            pass_time(self._loop, 0.01)  # else the next ones linger for those that are gone


@pytest.fixture
def made(loop: Loop) -> Iterator[Made]:
    """Make ends."""
    made = Made(loop)
    yield made
    made.close()


def _works(loop: Loop, a: ZmqEnd, b: ZmqEnd) -> None:
    """Show that two connected ends talk."""
    before = len(b.messages)
    a.send(b, Farewell('still here'))
    until(loop, lambda: len(b.messages) > before)
    assert b.messages[-1] == Farewell('still here')


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
    until(loop, lambda: b.others)
    proxy.close()
    until(loop, b.lost, limit=5)
    assert 'did not come back' in b.lost()[0].reason
    until(loop, a.lost, limit=5)
    assert 'refused' in a.lost()[0].reason


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
link = ZmqLink(loop, on, sys.argv[1], 'echo', None)
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
    proxy._target = second.zmq.listen(HOST, 0)
    proxy.cut()
    until(loop, lambda: len(a.others) == 3)
    assert [type(event) for event in a.others] == [PeerConnected, PeerLost, PeerConnected]
    assert a.lost()[0].reason == 'it was started anew'
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
    second.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.others) == 3)
    assert [type(event) for event in b.others] == [PeerConnected, PeerLost, PeerConnected]
    _works(loop, second, b)


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


# strangers


@pytest.mark.parametrize(
    ('ours', 'theirs', 'words'),
    [
        (make_keys(), make_keys(), 'another key'),
        (our_keys(), None, 'key'),
        (None, our_keys(), 'asks for a key'),
    ],
    ids=['other key', 'they have none', 'we have none'],
)
def test_a_peer_with_another_key_refuses_in_words(
    loop: Loop,
    made: Made,
    caplog: pytest.LogCaptureFixture,
    ours: LinkKeys | None,
    theirs: LinkKeys | None,
    words: str,
) -> None:
    a, b = made(ours), made.listening(theirs)
    a.zmq.connect(b.name, HOST, b.port)
    a.send(b, Farewell('secret'))
    until(loop, a.refused, limit=5)
    assert words in a.refused()[0].reason
    assert a.refused()[0].address == f'{HOST}:{b.port}'
    until(loop, lambda: 'tried to connect' in caplog.text, limit=2)
    pass_time(loop, 1)
    assert len(a.events) == 1
    assert b.events == []
    lines = [record for record in caplog.records if 'tried to connect' in record.message]
    assert len(lines) == 1
    assert lines[0].levelno == logging.WARNING


def test_knowing_the_public_key_of_the_server_is_not_enough(loop: Loop, made: Made) -> None:
    b, strange = made.listening(our_keys()), make_keys()
    half = LinkKeys(our_keys().server_public, b'', strange.client_public, strange.client_secret)
    a = made(half)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, a.refused, limit=5)
    assert a.refused()[0].reason == 'it has another key'
    assert b.events == []


def test_a_peer_is_connected_once_it_has_the_right_key(loop: Loop, made: Made) -> None:
    a, wrong = made(our_keys()), made.listening(make_keys())
    right = made(our_keys(), name=wrong.name)
    a.zmq.connect(wrong.name, HOST, wrong.port)
    until(loop, a.refused, limit=5)
    wrong.close()
    right.zmq.listen(HOST, wrong.port)
    until(loop, a.connected)
    _works(loop, a, right)


def test_nonsense_on_the_port_harms_nothing(loop: Loop, made: Made) -> None:
    a, b = made(our_keys()), made.listening(our_keys())
    a.zmq.connect(b.name, HOST, b.port)
    _works(loop, a, b)
    for junk in (b'', b'GET / HTTP/1.0\r\n\r\n' * 10, os.urandom(5000), b'\xff' * 200_000):
        with socket.create_connection((HOST, b.port)) as sock:
            sock.setblocking(False)
            try:
                sock.send(junk)
            except OSError:
                continue
            pass_time(loop, 0.02)
    _works(loop, a, b)
    _works(loop, b, a)
    assert len(b.others) == 1


class Plain:
    """A bare DEALER that says what it likes to a listener without keys."""

    def __init__(self, port: int, name: str = '') -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sock = self._context.socket(zmq.DEALER)
        self.name = name or new_id()
        self._sock.setsockopt(zmq.ROUTING_ID, self.name.encode())
        self._sock.connect(f'tcp://{HOST}:{port}')

    def greet(self) -> None:
        """Say a correct HELLO."""
        us = Introduction(self.name, 'test', '3.11', 'mine', '', 1)
        self._sock.send_multipart(write_greeting(Kind.HELLO, us, 0))

    def say(self, *frames: bytes) -> None:
        """Send these frames as they are."""
        self._sock.send_multipart(frames)

    def hear(self) -> list[bytes] | None:
        """Take what the listener answered, if it did."""
        try:
            return self._sock.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def close(self) -> None:
        """End it."""
        self._sock.close(0)
        self._context.term()


NONSENSE = [
    [b''],
    [b'x'],
    [os.urandom(100)],
    [b''] * 100,
    [head(Kind.MESSAGE, 1, 0)],
    [head(Kind.MESSAGE, 1, 0) + b'\x02junk'],
    [head(Kind.BULK, 1, 0) + b'\x91\xcf' + b'\x7f' + b'\xff' * 7],
    [head(Kind.HELLO, 1, 0) + b'junk'],
    [head(Kind.PULSE, 0, 0)],
]


@pytest.mark.parametrize('frames', NONSENSE, ids=range(len(NONSENSE)))
@pytest.mark.parametrize('is_greeted', [True, False], ids=['greeted', 'not greeted'])
def test_a_malformed_message_ends_its_own_peer_only(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture, frames: list[bytes], is_greeted: bool
) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: b.others)
    plain = Plain(b.port)
    if is_greeted:
        plain.greet()
        until(loop, lambda: len(b.others) == 2)
    plain.say(*frames)
    if is_greeted:
        until(loop, b.lost, limit=5)
        assert b.lost()[0].peer == plain.name
        assert 'protocol' in b.lost()[0].reason
        assert len([line for line in caplog.records if line.levelno == logging.WARNING]) == 1
    _works(loop, a, b)
    _works(loop, b, a)
    assert a.lost() == []
    plain.close()


def test_a_message_without_a_greeting_is_not_believed(loop: Loop, made: Made) -> None:
    b = made.listening()
    plain = Plain(b.port)
    plain.say(head(Kind.MESSAGE, 1, 0) + b'\x12\x81\xa6reason\xa1x')
    plain.greet()
    until(loop, lambda: b.others)
    plain.say(head(Kind.MESSAGE, 1, 0) + b'\x12\x81\xa6reason\xa1y')
    until(loop, lambda: b.messages)
    assert b.messages == [Farewell('y')]
    plain.close()


def test_another_protocol_version_is_refused_in_words(loop: Loop, made: Made) -> None:
    b = made.listening()
    plain = Plain(b.port)
    plain.say(head(Kind.HELLO, 99, 0) + b'in the words of a later release')
    answers: list[list[bytes]] = []

    def answered() -> bool:
        answer = plain.hear()
        if answer is not None:
            answers.append(answer)
        return bool(answers)

    until(loop, answered, limit=5)
    assert answers[0][0][0] == Kind.REFUSE
    assert b'version 99' in answers[0][0]
    assert b.events == []
    plain.close()


def test_a_frame_over_the_limit_ends_the_connection_that_brought_it(loop: Loop, made: Made) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    plain = Plain(b.port)
    plain.greet()
    until(loop, lambda: len(b.others) == 2)
    plain.say(bytes(9_000_000))
    plain.close()
    until(loop, b.lost, limit=5)
    assert b.lost()[0].peer == plain.name
    _works(loop, a, b)


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
        _works(loop, end, b)
        _works(loop, b, end)


def test_two_that_dial_each_other_end_with_one_connection(loop: Loop, made: Made) -> None:
    a, b = made.listening(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    b.zmq.connect(a.name, HOST, a.port)
    until(loop, lambda: a.connected() and b.connected())
    _works(loop, a, b)
    _works(loop, b, a)
    pass_time(loop, 0.5)
    _works(loop, a, b)
    _works(loop, b, a)
    assert len(a.connected()) == len(b.connected()) == 1


def test_connecting_again_to_a_connected_peer_changes_nothing(loop: Loop, made: Made) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.others)
    a.zmq.connect(b.name, HOST, b.port)
    _works(loop, a, b)
    b.zmq.connect(a.name, HOST, 1)
    _works(loop, b, a)
    assert len(a.others) == len(b.others) == 1


def test_a_peer_can_be_connected_again_after_it_was_disconnected(loop: Loop, made: Made) -> None:
    a, b = made(), made.listening()
    for count in (1, 2):
        a.zmq.connect(b.name, HOST, b.port)
        _works(loop, a, b)
        a.zmq.disconnect(b.name)
        until(loop, lambda goal=count: len(b.lost()) == goal)  # type: ignore[misc]


def test_ipv6_works_where_the_machine_has_it(loop: Loop, made: Made) -> None:
    try:
        socket.create_server(('::1', 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip('this machine has no IPv6 loopback')
    a, b = made(our_keys()), made(our_keys())
    a.zmq.connect(b.name, '::1', b.zmq.listen('::1', 0))
    _works(loop, a, b)


def test_a_listener_at_every_address_is_reached(loop: Loop, made: Made) -> None:
    a, b = made(), made()
    a.zmq.connect(b.name, HOST, b.zmq.listen('', 0))
    _works(loop, a, b)


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


def test_keys_do_not_show() -> None:
    keys = make_keys()
    assert repr(keys) == 'LinkKeys()'
