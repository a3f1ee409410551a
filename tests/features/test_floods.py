"""Noise at every port, from strangers and from those who have the key: a real cluster goes on."""

import itertools
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

import dispy_nb as dispy
from nodeserver.io.keys import choose_secret
from nodeserver.wire import beacon
from nodeserver.wire.envelope import Introduction, Kind, head, write_greeting
from nodeserver.wire.linkkeys import LinkKeys
from tests.support.programs import Program, eventually, free_port, node_program

LIMIT = 30.0
SOON = 10.0
MB = 1 << 20
DATAGRAMS = 20_000  # to each port
HOST = '127.0.0.1'

ZMTP = b'\xff' + bytes(7) + b'\x01\x7f\x03\x01'  # a correct beginning of a greeting
NULL = ZMTP + b'NULL'.ljust(20, b'\0') + b'\0' + bytes(31)
CURVE = ZMTP + b'CURVE'.ljust(20, b'\0') + b'\0' + bytes(31)
HUGE = struct.pack('!BQ', 6, 1 << 63)  # a command of so many bytes
LONG = struct.pack('!BQ', 2, (1 << 64) - 1)


def quick(number: int) -> int:
    time.sleep(0.002)
    return number


class Besieged:
    """A node under attack, and a cluster whose jobs it has to run meanwhile."""

    def __init__(self, stack: ExitStack) -> None:
        self.port, self.client_port = free_port(), free_port()
        options = ('-i', HOST, '-p', self.port, '-c', 1, '--name', 'besieged')
        self.node: Program = stack.enter_context(node_program(*options))
        self.process = psutil.Process(self.node.pid)
        self.cluster = dispy.JobCluster(
            quick, [HOST], ip_addr=HOST, port=self.client_port, node_port=self.port
        )
        stack.callback(self.cluster.close, timeout=0, terminate=True)
        assert self.cluster.submit(1).wait(LIMIT), self.cluster.explain()
        self._before = self.process.memory_info().rss

    def works(self) -> None:
        """Have 200 jobs run, and ask the node how it fares."""
        jobs = [self.cluster.submit(number) for number in range(200)]
        assert self.cluster.wait(LIMIT), self.cluster.explain()
        assert [job.result for job in jobs] == list(range(200))
        assert self.process.memory_info().rss < self._before + 100 * MB
        log = self.node.log()
        assert 'Traceback' not in log
        assert log.count('\n') < 40, log

    def serves_anew(self) -> None:
        """A fresh client finds the node and uses it, once the first one has left."""
        self.cluster.close()
        with dispy.JobCluster(quick, [HOST], ip_addr=HOST, port=0, node_port=self.port) as cluster:
            job = cluster.submit(7)
            assert job.wait(LIMIT), cluster.explain()
            assert job() == 7


@pytest.fixture
def besieged(own_home: Path) -> Iterator[Besieged]:
    """A node and its cluster."""
    with ExitStack() as stack:
        yield Besieged(stack)


@contextmanager
def flood(attack: Callable[[random.Random], None], threads: int = 2) -> Iterator[None]:
    """Attack again and again from several threads until the block ends."""
    stop, begun = threading.Event(), threading.Barrier(threads + 1)
    failures: list[BaseException] = []

    def repeat(seed: int) -> None:
        choice = random.Random(seed)
        begun.wait(LIMIT)
        while not stop.is_set():
            try:
                attack(choice)
            except OSError:  # refused, reset, a full buffer: the attacker's trouble
                time.sleep(0.001)
            except BaseException as error:  # noqa: BLE001 - told at the end of the test
                failures.append(error)
                return

    pool = [threading.Thread(target=repeat, args=(seed,)) for seed in range(threads)]
    for thread in pool:
        thread.start()
    begun.wait(LIMIT)
    try:
        yield
    finally:
        stop.set()
        for thread in pool:
            thread.join(LIMIT)
    assert failures == []


def say(connect: Callable[[], socket.socket], words: bytes) -> None:
    with connect() as sock:
        sock.settimeout(0.05)
        sock.sendall(words)
        with suppress(TimeoutError):
            sock.recv(100)


WORDS: list[Callable[[random.Random], bytes]] = [
    lambda choice: choice.randbytes(choice.randrange(1, 3000)),
    lambda choice: b'GET / HTTP/1.1\r\n\r\n' * choice.randrange(1, 50),
    lambda choice: ZMTP + choice.randbytes(choice.randrange(200)),
    lambda choice: NULL,
    lambda choice: NULL + choice.randbytes(200),
    lambda choice: NULL + HUGE,
    lambda choice: NULL + b'\x04\x26\x05READY' + choice.randbytes(32),
    lambda choice: CURVE + b'\x04\xc8\x05HELLO' + choice.randbytes(194),
    lambda choice: CURVE + HUGE + choice.randbytes(500),
    lambda choice: CURVE + LONG,
    lambda choice: CURVE[: choice.randrange(len(CURVE))],
    lambda choice: bytes(100_000),
]


def framed(*frames: bytes) -> bytes:
    """Write a message as programs on one machine do."""
    sizes = [len(frame) for frame in frames]
    return struct.pack(f'<{1 + len(sizes)}I', len(sizes), *sizes) + b''.join(frames)


HELLO = framed(*write_greeting(Kind.HELLO, Introduction('a' * 32, 'client', '3.11', 'b', '', 1), 0))
LOCAL_WORDS: list[Callable[[random.Random], bytes]] = [
    lambda choice: framed(choice.randbytes(40)),
    lambda choice: framed(*[b''] * choice.choice((1, 2, 4096))),
    lambda choice: framed(head(Kind.HELLO, 1, 0) + choice.randbytes(50)),
    lambda choice: framed(head(Kind.HELLO, 1, 0), b'', b''),
    lambda choice: framed(head(Kind.MESSAGE, 1, 0) + choice.randbytes(50)),
    lambda choice: framed(head(99, 1, 0)),
    lambda choice: framed(choice.randbytes(300_000)),
    lambda choice: HELLO[: choice.randrange(len(HELLO))],
    lambda choice: struct.pack('<2I', 1, 15 * MB) + bytes(200_000),  # the rest never comes
    lambda choice: struct.pack('<2I', 1, 17 * MB),
    lambda choice: struct.pack('<3I', 2, 0xFFFFFFFF, 0xFFFFFFFF),
    lambda choice: struct.pack('<I', 4096),
    lambda choice: struct.pack('<I', 0),
]


def knock(besieged: Besieged, door: str, home: Path) -> socket.socket:
    """Connect to the node, by its port or by its local socket."""
    if door == 'tcp':
        return socket.create_connection((HOST, besieged.port), 5.0)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(1.0)
    try:
        sock.connect(str(next((home / 'run').rglob('node-*'))))
    except BaseException:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize('door', ['tcp', 'ipc'])
def test_noise_on_a_stream_stops_no_job(besieged: Besieged, own_home: Path, door: str) -> None:
    connect = partial(knock, besieged, door, own_home)
    words = WORDS if door == 'tcp' else WORDS + LOCAL_WORDS
    with flood(lambda choice: say(connect, choice.choice(words)(choice))):
        besieged.works()
    besieged.serves_anew()


@pytest.mark.parametrize('door', ['tcp', pytest.param('ipc', marks=pytest.mark.slow)])
def test_half_a_handshake_kept_open_by_hundreds_keeps_nobody_out(
    besieged: Besieged, own_home: Path, door: str
) -> None:
    words = (CURVE, ZMTP, NULL, b'') if door == 'tcp' else (HELLO[:30], HELLO[:3], framed(b''), b'')
    before = besieged.process.num_fds()
    with ExitStack() as stack:
        for number in range(400):
            with suppress(OSError):  # it may be turned away
                sock = stack.enter_context(knock(besieged, door, own_home))
                sock.sendall(words[number % 4])
        besieged.works()
        besieged.serves_anew()
    eventually(lambda: besieged.process.num_fds() < before + 10, SOON)


@pytest.mark.slow
def test_datagrams_of_noise_stop_nothing(
    besieged: Besieged, caplog: pytest.LogCaptureFixture
) -> None:
    key = choose_secret().beacon_key()
    asker = beacon.Asker('0123456789abcdef' * 2, beacon.Role.CLIENT)
    contact = beacon.NodeContact('fedcba9876543210' * 2, 1, b'f' * 16, 'node')
    sent = itertools.count(1)
    enough = threading.Event()
    before = psutil.Process().memory_info().rss
    nonce = bytes(range(16))
    correct = [
        beacon.encode_ping(nonce, asker, key),
        beacon.encode_pong(nonce, contact, key),
        beacon.encode_here(nonce, contact, key),
        beacon.encode_ping(nonce, asker, bytes(32)),
        beacon.encode_here(nonce, contact, bytes(32)),
        beacon.OTHER_KEY_PACKET,
    ]

    def attack(choice: random.Random) -> None:
        packet = choice.choice(correct)
        packet = choice.choice(
            (
                packet,  # replayed
                packet[: choice.randrange(len(packet))],
                packet + bytes(choice.randrange(60_000)),
                choice.randbytes(choice.randrange(2000)),
                b'',
                b'dnb\x01' + choice.randbytes(200),
            )
        )
        for port in (besieged.port, besieged.client_port):
            sock.sendto(packet, (HOST, port))
        if next(sent) == DATAGRAMS:
            enough.set()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, flood(attack, threads=1):
        besieged.works()
        assert enough.wait(LIMIT)
        besieged.works()
        # the contact of the replayed packets is nobody; it has not become a node
        assert [node.name for node in besieged.cluster.snapshot().nodes] == ['besieged']
        besieged.serves_anew()
    besieged.serves_anew()
    assert psutil.Process().memory_info().rss < before + 100 * MB
    assert len(caplog.messages) < 40, caplog.messages


def keys_of(secret: str) -> LinkKeys:
    keys = choose_secret(secret).link_keys()
    assert keys is not None
    return keys


class Insider:
    """A peer with a key, right or wrong, that says what it likes."""

    def __init__(self, context: Any, endpoint: str, keys: LinkKeys | None) -> None:
        self.name = os.urandom(16).hex()
        self._sock = context.socket(zmq.DEALER)
        self._sock.setsockopt(zmq.ROUTING_ID, self.name.encode())
        self._sock.setsockopt(zmq.LINGER, 0)
        # libzmq gives a peer up that refuses the mechanism, and waits for another one
        self._sock.setsockopt(zmq.SNDTIMEO, 1000)
        if keys is not None:
            self._sock.curve_serverkey = keys.server_public
            self._sock.curve_publickey = keys.client_public
            self._sock.curve_secretkey = keys.client_secret
        self._sock.connect(endpoint)

    def misbehave(self, frames: list[bytes]) -> None:
        """Greet correctly, then speak nonsense."""
        us = Introduction(self.name, 'scheduler', '3.11', 'mine', '', 1)
        with suppress(zmq.Again):
            self._sock.send_multipart(write_greeting(Kind.HELLO, us, 0))
            self._sock.send_multipart(frames)
            self._sock.poll(20)

    def close(self) -> None:
        """End it."""
        self._sock.close(0)


class LocalInsider:
    """A program of this user on this machine, which says what it likes."""

    def __init__(self, path: Path) -> None:
        self.name = os.urandom(16).hex()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(LIMIT)
        self._sock.connect(str(path))

    def misbehave(self, frames: list[bytes]) -> None:
        """Greet correctly, then speak nonsense."""
        us = Introduction(self.name, 'scheduler', '3.11', 'mine', '', 1)
        for message in (write_greeting(Kind.HELLO, us, 0), frames):
            sizes = [len(frame) for frame in message]
            self._sock.sendall(struct.pack(f'<{1 + len(sizes)}I', len(sizes), *sizes))
            self._sock.sendall(b''.join(message))
        self._sock.recv(65536)

    def close(self) -> None:
        """End it."""
        self._sock.close()


NONSENSE: list[Callable[[random.Random], list[bytes]]] = [
    lambda choice: [choice.randbytes(40)],
    lambda choice: [b''] * 50,
    lambda choice: [head(Kind.MESSAGE, 1, 0) + choice.randbytes(60)],
    lambda choice: [head(Kind.MESSAGE, 1, 0) + b'\x12\x81\xa6reason\xa2\xff\xfe'],
    lambda choice: [head(Kind.MESSAGE, 1, 0) + b'\x12\x81\xa1x' + b'\x91' * 20_000],
    lambda choice: [head(Kind.MESSAGE, 1, 1 << 60) + b'\x12\x81\xa6reason\xa1x'],
    lambda choice: [head(Kind.BULK, 1, 0) + b'\x91\xcf' + b'\xff' * 8],
    lambda choice: [head(Kind.PART, 1, 0), choice.randbytes(100)],
    lambda choice: [head(Kind.PULSE, 0, 0) + choice.randbytes(9)],
    lambda choice: [head(Kind.HELLO, 1, 0) + choice.randbytes(50)],
    lambda choice: [head(Kind.HELLO, 77, 0)],
    lambda choice: [head(99, 1, 0)],
]


@pytest.mark.slow
@pytest.mark.parametrize('who', ['insider', 'local insider', 'other key', 'no key'])
def test_peers_that_speak_nonsense_lose_their_own_link_only(
    besieged: Besieged, own_home: Path, who: str
) -> None:
    endpoint = f'tcp://{HOST}:{besieged.port}'
    keys = {'insider': keys_of(''), 'other key': keys_of('another passphrase')}.get(who)
    local = next((own_home / 'run').rglob('node-*'))
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)

    def attack(choice: random.Random) -> None:
        insider = (
            LocalInsider(local) if who == 'local insider' else Insider(context, endpoint, keys)
        )
        try:
            with suppress(ConnectionError):
                insider.misbehave(choice.choice(NONSENSE)(choice))
        finally:
            insider.close()

    try:
        with flood(attack):
            besieged.works()
            log = besieged.node.log()
    finally:
        context.term()
    told = 'closing the link to' if 'insider' in who else 'another key (or none) tried to connect'
    assert told in log
    besieged.serves_anew()
