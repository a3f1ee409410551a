"""Other keys, other programs and nonsense at a listener's port: told in words, harming nothing."""

import asyncio
import dataclasses
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress

import pytest
import zmq

from nodeserver.core.events import OtherKeySeen
from nodeserver.core.messages import Farewell
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.anteroom import MOST_GUESTS, MOST_OF_A_NETWORK, Anteroom
from nodeserver.io.zmqlisten import ZmqListener
from nodeserver.wire.envelope import Introduction, Kind, head, write_greeting
from nodeserver.wire.linkkeys import LinkKeys
from tests.contract.ends import (
    HOST,
    QUICK,
    Made,
    Proxy,
    ZmqEnd,
    make_keys,
    new_id,
    our_keys,
    pass_time,
    until,
    works,
)
from tests.support.scarcity import descriptors_below

Loop = asyncio.AbstractEventLoop
PATIENT = dataclasses.replace(QUICK, handshake_timeout=1.5)
UNHURRIED = dataclasses.replace(QUICK, handshake_timeout=60.0)


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


def test_an_address_is_told_of_also_after_one_that_was_gone_too_soon(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = made.listening(our_keys(), role=SCHEDULER_ROLE)
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.curve_serverkey = make_keys().server_public
        sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
        with sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL) as failed:
            sock.connect(f'tcp://{HOST}:{scheduler.port}')
            assert failed.poll(5000)  # our loop has not run: of the beginning it hears too late
            sock.disable_monitor()
    until(loop, lambda: 'tried to connect' in caplog.text, limit=2)
    assert scheduler.events == []
    other = made(make_keys())
    other.zmq.connect(scheduler.name, HOST, scheduler.port)
    until(loop, lambda: scheduler.events, limit=5)
    assert scheduler.events == [OtherKeySeen(HOST)]
    assert caplog.text.count('tried to connect') == 1


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
    works(loop, a, right)


def test_nonsense_on_the_port_harms_nothing(loop: Loop, made: Made) -> None:
    a, b = made(our_keys()), made.listening(our_keys())
    a.zmq.connect(b.name, HOST, b.port)
    works(loop, a, b)
    for junk in (b'', b'GET / HTTP/1.0\r\n\r\n' * 10, os.urandom(5000), b'\xff' * 200_000):
        with socket.create_connection((HOST, b.port)) as sock:
            sock.setblocking(False)
            try:
                sock.send(junk)
            except OSError:
                continue
            pass_time(loop, 0.02)
    works(loop, a, b)
    works(loop, b, a)
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
    [head(Kind.MESSAGE, 1, 0), *[b''] * 100_000],
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
    works(loop, a, b)
    works(loop, b, a)
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
    works(loop, a, b)


def test_keys_do_not_show() -> None:
    keys = make_keys()
    assert repr(keys) == 'LinkKeys()'


# those who do not say who they are, too many of them, and those who claim to be somebody else

GREETING = b'\xff' + bytes(7) + b'\x01\x7f\x03\x01' + b'CURVE'.ljust(20, b'\0') + bytes(32)


def knock(port: int, source: str = HOST, words: bytes = b'') -> socket.socket:
    """Connect without a word of who this is."""
    sock = socket.create_connection((HOST, port), 5.0, (source, 0))
    if words:
        sock.sendall(words)
    return sock


def is_shut(sock: socket.socket) -> bool:
    """Whether the other side has closed."""
    sock.setblocking(False)
    try:
        while sock.recv(1000):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize('words', [b'', GREETING], ids=['mute', 'half a handshake'])
def test_who_does_not_greet_is_shut_out_in_time_and_told_of_once(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture, words: bytes
) -> None:
    a, b = made(our_keys()), made.listening(our_keys())
    a.zmq.connect(b.name, HOST, b.port)
    works(loop, a, b)
    with ExitStack() as held:
        mute = [held.enter_context(knock(b.port, words=words)) for _ in range(20)]
        until(loop, lambda: all(map(is_shut, mute)))
    works(loop, a, b)
    lines = [
        line for line in caplog.messages if 'tried to connect' in line or 'no greeting' in line
    ]
    assert len(lines) <= 1


def test_a_key_holder_that_never_greets_is_shut_out_too(loop: Loop, made: Made) -> None:
    b = made.listening(options=PATIENT)
    plain = Plain(b.port)
    plain.say(head(Kind.ACK, 0, 0))
    until(loop, lambda: len(guests(b)) == 1)
    until(loop, lambda: not guests(b), limit=4)
    plain.greet()  # over the connection that is made anew by itself
    until(loop, b.connected)
    plain.close()


def guests(end: ZmqEnd) -> Anteroom:
    """Those that an end which listens does not know yet."""
    listener = end.zmq._listeners[0]
    assert isinstance(listener, ZmqListener)
    return listener._anteroom


def test_of_too_many_the_oldest_of_the_largest_crowd_is_shut_out(loop: Loop, made: Made) -> None:
    b = made.listening(our_keys(), UNHURRIED)
    with ExitStack() as held:

        def come(count: int, source: str) -> list[socket.socket]:
            return [held.enter_context(knock(b.port, source)) for _ in range(count)]

        ours = come(10, '127.0.0.2')
        until(loop, lambda: len(guests(b)) == 10)
        crowd = come(MOST_OF_A_NETWORK + 20, '127.0.0.3')
        until(loop, lambda: sum(map(is_shut, crowd)) == 20)
        assert all(map(is_shut, crowd[:20]))
        for number in range(4, 8):
            come(MOST_OF_A_NETWORK, f'127.0.0.{number}')
            pass_time(loop, 0.05)
        until(loop, lambda: len(guests(b)) == MOST_GUESTS)
        assert not any(map(is_shut, ours))
    until(loop, lambda: not guests(b))


def test_hundreds_that_come_at_once_from_one_address_all_get_in(loop: Loop, made: Made) -> None:
    b = made.listening(our_keys())
    many = [made(our_keys()) for _ in range(150)]
    for end in many:
        end.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.connected()) == len(many))
    until(loop, lambda: not guests(b))


@pytest.mark.slow
def test_a_flood_of_connections_from_one_address_keeps_nobody_out(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = made(our_keys()), made.listening(our_keys())
    a.zmq.connect(b.name, HOST, b.port)
    works(loop, a, b)
    held = len(os.listdir('/proc/self/fd'))  # noqa: PTH208
    with subprocess.Popen([sys.executable, '-c', FLOOD, str(b.port)], stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        try:
            assert it.stdout.readline()  # it has begun
            for number in range(10):
                works(loop, a, b)
                works(loop, b, a)
                newcomer = made(our_keys())
                newcomer.zmq.connect(b.name, HOST, b.port)
                until(loop, lambda goal=number + 2: len(b.connected()) == goal)  # type: ignore[misc]
                pass_time(loop, 0.2)
                assert len(guests(b)) <= MOST_OF_A_NETWORK + 1
        finally:
            it.terminate()
        rate = float(it.stdout.read().split()[-1])
    assert rate > 500  # connections a second
    until(loop, lambda: not guests(b), limit=5)
    # six for each newcomer: its link, and the connection at both ends
    assert len(os.listdir('/proc/self/fd')) < held + 10 * 25  # noqa: PTH208
    assert len(caplog.messages) < 10


FLOOD = """
import signal, socket, sys, time
from collections import deque

made, begun, held = 0, time.monotonic(), deque()

def end(*_):
    print(made / (time.monotonic() - begun), flush=True)
    sys.exit()

signal.signal(signal.SIGTERM, end)
while True:
    sock = socket.socket()
    sock.bind(('127.0.0.9', 0))
    sock.setblocking(False)
    sock.connect_ex(('127.0.0.1', int(sys.argv[1])))
    held.append(sock)
    if len(held) > 500:
        held.popleft().close()
    made += 1
    if made == 500:
        print('begun', flush=True)
    wait = begun + made / 2000 - time.monotonic()
    if wait > 0:
        time.sleep(wait)
"""


def test_claiming_to_be_somebody_else_is_refused_and_disturbs_nobody(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = made(), made.listening()
    a.zmq.connect(b.name, HOST, b.port)
    works(loop, a, b)
    thief = Plain(b.port, a.name)  # the id is no secret: it stands in every ping
    thief.greet()
    answers: list[list[bytes]] = []
    until(loop, lambda: _heard(thief, answers))
    assert b'connected already' in answers[0][0]
    thief.say(head(Kind.MESSAGE, 2, 0) + b'\x12\x81\xa6reason\xa1x')
    b.send(a, Farewell('not for the thief'))
    until(loop, lambda: a.messages)
    works(loop, a, b)
    assert a.messages == [Farewell('not for the thief')]
    assert not _heard(thief, answers)
    assert len(a.others) == len(b.others) == 1
    assert 'another program claims to be it' in caplog.text
    thief.close()


def _heard(plain: Plain, answers: list[list[bytes]]) -> bool:
    answer = plain.hear()
    if answer is not None:
        answers.append(answer)
    return answer is not None


def test_claiming_to_be_a_local_program_is_refused_too(loop: Loop, made: Made) -> None:
    with tempfile.TemporaryDirectory(dir='/tmp') as directory:
        a, b = made(), made()
        b.zmq.listen_local(f'{directory}/s')
        a.zmq.connect(b.name, '', 0, f'{directory}/s')
        works(loop, a, b)
        thief = made(name=a.name)
        thief.zmq.connect(b.name, '', 0, f'{directory}/s')
        until(loop, thief.refused)
        assert thief.refused()[0].reason == 'a program with this id is connected already'
        b.send(a, Farewell('not for the thief'))
        until(loop, lambda: a.messages)
        works(loop, a, b)
        assert not thief.messages
        assert len(a.others) == len(b.others) == 1


def test_no_message_rides_in_a_pulse(loop: Loop, made: Made) -> None:
    b = made.listening()
    plain = Plain(b.port)
    plain.greet()
    until(loop, lambda: b.others)
    plain.say(head(Kind.PULSE, 0, 0) + b'\x12\x81\xa6reason\xa1x')
    until(loop, b.lost)
    assert b.messages == []
    assert 'Farewell came in place of a pulse' in b.lost()[0].reason
    plain.close()


def test_a_peer_that_reads_nothing_is_lost_before_it_fills_the_memory(
    loop: Loop, made: Made
) -> None:
    limits = dataclasses.replace(QUICK.limits, credit=100_000)
    greedy = dataclasses.replace(QUICK, limits=limits, most_unread=1 << 20, unread_patience=0.3)
    a, b, text = made(options=greedy), made.listening(options=greedy), 'x' * 10_000
    plain = Plain(b.port)
    plain.greet()
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.others) == 2)
    for _ in range(200):
        b.zmq.send(a.name, Farewell(text))  # who reads may be sent as much
    until(loop, lambda: len(a.messages) == 200)
    sent = 0
    while not b.lost():
        b.zmq.send(plain.name, Farewell(text))
        sent += 1
        pass_time(loop, 0.001)
        assert sent < 5000
    assert sent > 100
    assert b.lost()[0].peer == plain.name
    assert re.fullmatch(
        'it has taken nothing for 0.3 s, and [1-9][0-9]? MB wait for it', b.lost()[0].reason
    )
    works(loop, a, b)
    works(loop, b, a)
    plain.close()


def test_a_captured_session_that_is_replayed_says_nothing(loop: Loop, made: Made) -> None:
    a, b = made(our_keys()), made.listening(our_keys())
    recorder = Recorder(loop, b.port)
    a.zmq.connect(b.name, HOST, recorder.port)
    works(loop, a, b)
    events = len(b.events)
    assert sum(map(len, recorder.said)) > 500
    for words in (recorder.said, [b''.join(recorder.said)]):
        with knock(b.port) as sock, suppress(ConnectionError):  # it hangs up
            for piece in words:
                sock.sendall(piece)
                pass_time(loop, 0.05)
    pass_time(loop, 0.3)
    assert len(b.events) == events
    works(loop, a, b)
    recorder.close()


class Recorder(Proxy):
    """A relay that keeps what the connecting side has said."""

    def __init__(self, loop: Loop, port: int) -> None:
        super().__init__(loop, port)
        self.said: list[bytes] = []

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        is_said = sink.get_extra_info('peername')[1] == self.target
        while data := await source.read(65536):
            if is_said:
                self.said.append(data)
            sink.write(data)
        sink.close()


def test_a_local_connection_waits_while_no_descriptor_is_left_and_is_taken_afterwards(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as waiting:
        a, b, path = made(), made(), f'{directory}/s'
        b.zmq.listen_local(path)
        a.zmq.connect(b.name, HOST, 1, path)
        works(loop, a, b)
        with descriptors_below(1):
            waiting.connect(path)
            until(loop, lambda: 'have to wait' in caplog.text, limit=5)
            before = time.thread_time()
            pass_time(loop, 1.2)  # it looks again twice
            assert time.thread_time() - before < 0.3
            works(loop, a, b)
        assert len(caplog.records) == 1
        us = Introduction(new_id(), 'test', '3.11', 'mine', '', 1)
        (greeting,) = write_greeting(Kind.HELLO, us, 0)
        waiting.sendall(struct.pack('<2I', 1, len(greeting)) + greeting)
        until(loop, lambda: len(b.connected()) == 2, limit=5)
