"""Other keys, other programs and nonsense at a listener's port: told in words, harming nothing."""

import asyncio
import logging
import os
import socket

import pytest
import zmq

from nodeserver.core.messages import Farewell
from nodeserver.wire.envelope import Introduction, Kind, head, write_greeting
from nodeserver.wire.linkkeys import LinkKeys
from tests.contract.ends import HOST, Made, make_keys, new_id, our_keys, pass_time, until, works

Loop = asyncio.AbstractEventLoop


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
