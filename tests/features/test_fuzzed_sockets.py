"""Thousands of damaged inputs at each real socket, before the handshake and after it.

`make fuzz` gives each socket 20,000 (FUZZ_INPUTS); here it is some hundreds.
"""

import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

from nodeserver.core.messages import Message
from nodeserver.wire import codec
from nodeserver.wire.envelope import Introduction, Kind, head, open_header, write_greeting
from tests.features.test_floods import CURVE, HELLO, HOST, NULL, ZMTP, Besieged, framed, keys_of
from tests.fuzz.engine import mutated
from tests.wire.test_codec import _example

pytestmark = pytest.mark.slow
INPUTS = int(os.environ.get('FUZZ_INPUTS', '400'))
OPEN_AT_ONCE = 40
A_ROUND = 50
LIMIT = 20_000  # milliseconds

BEFORE = [
    ZMTP,
    NULL + b'\x04\x26\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0',
    CURVE + b'\x04\xc8\x05HELLO\x01\0' + bytes(72) + bytes(range(120)),
    b'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + bytes(range(100)),
    HELLO,
    framed(b'a', b'b'),
]


def messages() -> list[bytes]:
    """Make a correct envelope of each message."""
    kinds = Message.__args__  # type: ignore[attr-defined]
    whole = [head(Kind.MESSAGE, 1, 0) + codec.encode(_example(kind))[0] for kind in kinds]
    announced = head(Kind.BULK, 1, 0) + b'\x93\xce\0\1\0\0\1\5'
    places = head(Kind.PLACED, 1, 0) + b'\x92\xa0\xa8/etc/foo'
    return [*whole, announced, places, head(Kind.PART, 1, 0), head(Kind.RESEND, 0, 0)]


def strangers(connect: Callable[[], socket.socket], count: int) -> None:
    """Say so many damaged beginnings, each over a connection of its own."""
    choice, held = random.Random(1), deque[socket.socket]()
    for _ in range(count):
        with suppress(OSError):  # it may be turned away at once
            sock = connect()
            held.append(sock)
            sock.sendall(mutated(choice, BEFORE))
        if len(held) > OPEN_AT_ONCE:
            held.popleft().close()
    for sock in held:
        sock.close()


class Insider:
    """A peer with the key that says damaged messages after correct greetings."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._name = os.urandom(16).hex()
        self._greetings = 0

    def say(self, frames: list[bytes]) -> None:
        """Send a message."""
        raise NotImplementedError

    def hear(self) -> bytes:
        """Wait for a message's first frame."""
        raise NotImplementedError

    def greet(self) -> None:
        """Begin a session anew."""
        self._greetings += 1
        number = self._greetings
        us = Introduction(self._name, self._role, '3.11', f'i{number}', '', number)
        self.say(write_greeting(Kind.HELLO, us, 0))

    def attack(self, count: int) -> None:
        """Say so many damaged messages, and see now and then that all were taken."""
        choice, pool = random.Random(2), messages()
        for number in range(count):
            self.greet()
            cut = mutated(choice, pool)
            parts = choice.choice((1, 1, 2, 3))
            self.say(
                [cut[at * len(cut) // parts :][: 1 + len(cut) // parts] for at in range(parts)]
            )
            if number % A_ROUND == A_ROUND - 1:
                self.greet()
                self._wait_for_welcome()

    def _wait_for_welcome(self) -> None:
        wanted = Kind.WELCOME, f'i{self._greetings}'.encode()
        while True:
            first = self.hear()
            if open_header(first)[0] == wanted[0] and wanted[1] in first:
                return


class RemoteInsider(Insider):
    """One that comes by TCP."""

    def __init__(self, context: Any, port: int, role: str) -> None:
        super().__init__(role)
        keys = keys_of('')
        self._sock = context.socket(zmq.DEALER)
        self._sock.linger = 0
        self._sock.sndhwm = self._sock.rcvhwm = 0
        self._sock.curve_serverkey = keys.server_public
        self._sock.curve_publickey = keys.client_public
        self._sock.curve_secretkey = keys.client_secret
        self._sock.connect(f'tcp://{HOST}:{port}')

    def say(self, frames: list[bytes]) -> None:
        self._sock.send_multipart(frames)

    def hear(self) -> bytes:
        assert self._sock.poll(LIMIT), 'no answer came'
        first: bytes = self._sock.recv_multipart()[0]
        return first

    def close(self) -> None:
        """End it."""
        self._sock.close()


@pytest.fixture
def besieged(own_home: Path) -> Iterator[Besieged]:
    """A node and its cluster."""
    with ExitStack() as stack:
        yield Besieged(stack)


def local_socket(home: Path) -> socket.socket:
    """Connect to the node as programs of its user do."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(1.0)
    try:
        sock.connect(str(next((home / 'run').rglob('node-*'))))
    except BaseException:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize('door', ['node', 'client', 'local'])
def test_damaged_beginnings_stop_nothing(
    besieged: Besieged, own_home: Path, door: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = besieged.port if door == 'node' else besieged.client_port
    connect = partial(socket.create_connection, (HOST, port), 5.0)
    strangers(partial(local_socket, own_home) if door == 'local' else connect, INPUTS)
    besieged.works()
    assert not [record for record in caplog.records if record.exc_info]
    assert len(caplog.records) < 40


@pytest.mark.parametrize('door', ['node', 'client'])
def test_damaged_messages_of_a_key_holder_stop_nothing(
    besieged: Besieged, door: str, caplog: pytest.LogCaptureFixture
) -> None:
    context: zmq.Context[Any] = zmq.Context()
    port, role = (besieged.port, 'scheduler') if door == 'node' else (besieged.client_port, 'node')
    insider = RemoteInsider(context, port, role)
    try:
        insider.attack(INPUTS)
    finally:
        insider.close()
        context.term()
    besieged.works()
    assert not [record for record in caplog.records if record.exc_info]
    assert len(caplog.records) < 40


class LocalInsider(Insider):
    """One that comes by the local socket, over a new connection where it was hung up on."""

    def __init__(self, home: Path) -> None:
        super().__init__('scheduler')
        self._home = home
        self._sock = local_socket(home)

    def say(self, frames: list[bytes]) -> None:
        try:
            self._sock.sendall(framed(*frames))
        except OSError:
            self._sock.close()
            self._sock = local_socket(self._home)

    def hear(self) -> bytes:
        try:
            return self._heard()
        except (OSError, EOFError):
            self._sock.close()
            self._sock = local_socket(self._home)
            self.greet()
            return self._heard()

    def _heard(self) -> bytes:
        count, *_ = struct.unpack('<I', self._exactly(4))
        sizes = struct.unpack(f'<{count}I', self._exactly(4 * count))
        first, *_ = [self._exactly(size) for size in sizes]
        return first

    def _exactly(self, size: int) -> bytes:
        data = b''
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def close(self) -> None:
        """End it."""
        self._sock.close()


def test_damaged_messages_of_a_local_program_stop_nothing(
    besieged: Besieged, own_home: Path
) -> None:
    insider = LocalInsider(own_home)
    try:
        insider.attack(INPUTS)
    finally:
        insider.close()
    besieged.works()
