"""The relay's one port: what comes is told apart, and carried only for whom it may be."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nodeserver.core.errors import PeerRefused
from nodeserver.io import forwarding
from nodeserver.io.carriedway import CarriedWay, CarryThread
from nodeserver.io.carryrequest import Requester
from nodeserver.io.forwarding import FrontDoor
from nodeserver.io.tlshandshake import introduce
from nodeserver.wire import carriage
from nodeserver.wire.carriage import Answer
from tests.contract.ends import make_keys
from tests.support.certificates import needs_openssl, our_identity
from tests.support.programs import free_port
from tests.support.scarcity import busy_seconds, descriptors_below

HOST = '127.0.0.1'
KEYS = make_keys()
KEY = carriage.carriage_key(KEYS)
PROGRAM, NODE = secrets.token_hex(16), secrets.token_hex(16)


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.01)


def open_descriptors() -> int:
    return len(list(Path('/proc/self/fd').iterdir()))


class Server:
    """Listens, and keeps what it accepted."""

    def __init__(self) -> None:
        self.ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.port = 0

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends.append((reader, writer))


class Relay:
    """A front door, a node behind it, and the relay's own link."""

    def __init__(self, door: FrontDoor, node: Server, link: Server) -> None:
        self.door, self.node, self.link, self.port = door, node, link, 0
        self.counts: list[int] = []


@asynccontextmanager
async def a_relay(is_tls: bool = False) -> AsyncIterator[Relay]:
    node, link = Server(), Server()
    servers = []
    for server in (node, link):
        servers.append(await asyncio.start_server(server.accepted, HOST, 0))
        server.port = servers[-1].sockets[0].getsockname()[1]
    counts: list[int] = []
    loop = asyncio.get_running_loop()
    door = FrontDoor(loop, KEYS, (HOST, link.port), counts.append, is_tls)
    relay = Relay(door, node, link)
    relay.counts = counts
    relay.port = door.listen(HOST, 0, '--relay_port')
    door.admit(PROGRAM)
    door.open_way(NODE, HOST, node.port)
    try:
        yield relay
    finally:
        await door.aclose()
        for _, writer in (*node.ends, *link.ends):
            writer.close()
        for listening in servers:
            listening.close()
            await listening.wait_closed()


async def ask(
    port: int, program: str = PROGRAM, node: str = NODE, key: bytes = KEY
) -> tuple[int | None, asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask to be carried; the answer (None: none) and the connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    hello = carriage.Hello(program, secrets.token_bytes(16))
    writer.write(carriage.write_hello(program, hello.nonce))
    challenge = await reader.readexactly(carriage.NONCE_SIZE)
    writer.write(carriage.write_request(hello, challenge, node, key))
    answer = await reader.read(1)
    return (answer[0] if answer else None), reader, writer


def run(test: Callable[[Relay], Awaitable[None]], is_tls: bool = False) -> None:
    """Run a test at a relay."""

    async def body() -> None:
        async with a_relay(is_tls) as relay:
            await test(relay)

    asyncio.run(body())


def test_a_proven_request_is_carried_to_the_node_and_counted() -> None:
    async def body(relay: Relay) -> None:
        answer, reader, writer = await ask(relay.port)
        assert answer == Answer.CARRIED
        writer.write(b'there')
        await until(lambda: relay.node.ends)
        far_reader, far_writer = relay.node.ends[0]
        assert await far_reader.readexactly(5) == b'there'
        far_writer.write(b'and back')
        assert await reader.readexactly(8) == b'and back'
        assert relay.counts == [1]
        writer.close()
        assert await far_reader.read() == b''
        await until(lambda: relay.counts == [1, 0])

    run(body)


@pytest.mark.parametrize(('first', 'is_tls'), [(b'\xff', False), (b'\xff', True), (b'\x16', True)])
def test_the_bytes_of_zeromq_and_tls_go_to_the_relays_own_link_with_whose_they_are(
    first: bytes, is_tls: bool
) -> None:
    """What a link over TLS has to say of ZeroMQ, it says itself."""

    async def body(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(first + b'\0\0')
        await until(lambda: relay.link.ends)
        far_reader, far_writer = relay.link.ends[0]
        assert await far_reader.readexactly(3) == first + b'\0\0'
        far_writer.write(b'\xff')
        assert await reader.readexactly(1) == b'\xff'
        assert relay.door.origin(far_writer.get_extra_info('peername')[0]) == HOST
        assert relay.counts == []
        writer.close()

    run(body, is_tls)


@needs_openssl
def test_a_program_that_uses_ssl_is_told_that_a_relay_without_a_certificate_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(relay: Relay) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (HOST, relay.port))
        with pytest.raises(PeerRefused, match='it does not use SSL, and this side was given'):
            await introduce(loop, sock, our_identity())
        assert relay.link.ends == []

    run(body)
    assert 'that uses SSL tried to connect, and this relay was given no certificate' in caplog.text


@pytest.mark.parametrize(
    ('changes', 'wanted'),
    [
        ({'key': carriage.carriage_key(make_keys())}, Answer.NOT_ADMITTED),
        ({'program': 'e' * 32}, Answer.NOT_ADMITTED),
        ({'node': 'e' * 32}, Answer.UNKNOWN_NODE),
    ],
)
def test_others_are_told_no_and_reach_nobody(changes: dict[str, Any], wanted: Answer) -> None:
    async def body(relay: Relay) -> None:
        answer, reader, writer = await ask(relay.port, **changes)
        assert answer == wanted
        assert await reader.read() == b''
        assert not relay.node.ends
        writer.close()

    run(body)


def test_who_is_dismissed_is_carried_no_more_and_what_stands_goes_on() -> None:
    async def body(relay: Relay) -> None:
        _, _, writer = await ask(relay.port)
        relay.door.dismiss(PROGRAM)
        answer, _, other = await ask(relay.port)
        assert answer == Answer.NOT_ADMITTED
        other.close()
        relay.door.admit(PROGRAM)
        relay.door.close_way(NODE)
        answer, _, other = await ask(relay.port)
        assert answer == Answer.UNKNOWN_NODE
        other.close()
        writer.write(b'x')
        await until(lambda: relay.node.ends)
        assert await relay.node.ends[0][0].readexactly(1) == b'x'
        writer.close()

    run(body)


def test_a_node_that_refuses_is_told_apart() -> None:
    async def body(relay: Relay) -> None:
        relay.door.open_way(NODE, HOST, free_port())
        answer, _, writer = await ask(relay.port)
        assert answer == Answer.NODE_REFUSES
        writer.close()

    run(body)


def test_a_recorded_request_is_worth_nothing() -> None:
    async def body(relay: Relay) -> None:
        hello = carriage.Hello(PROGRAM, secrets.token_bytes(16))
        first = carriage.write_hello(PROGRAM, hello.nonce)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(first)
        challenge = await reader.readexactly(carriage.NONCE_SIZE)
        request = carriage.write_request(hello, challenge, NODE, KEY)
        writer.write(request)
        assert await reader.readexactly(1) == bytes((Answer.CARRIED,))
        writer.close()
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(first + request)
        await reader.readexactly(carriage.NONCE_SIZE)
        assert await reader.read() == bytes((Answer.NOT_ADMITTED,))
        writer.close()

    run(body)


GARBAGE = [
    b'GET / HTTP/1.1\r\n\r\n',
    b'\x05\x01\0',  # SOCKS
    b'SSH-2.0-x\r\n',
    b'dnb',  # begun, and no more
    carriage.MAGIC + bytes(31),
    b'\xff',
    b'',
]


async def _annoy(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(data)
    if data[:1] != b'\xff':
        assert len(await reader.read()) in (0, carriage.NONCE_SIZE)
    writer.close()


def test_strangers_are_closed_with_a_line_a_minute_and_nothing_is_left_of_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forwarding, 'GREETING_SECONDS', 0.3)

    async def body(relay: Relay) -> None:
        before = open_descriptors()
        await asyncio.gather(*(_annoy(relay.port, data) for data in GARBAGE * 10))
        for _, writer in relay.link.ends:
            writer.close()
        await until(lambda: open_descriptors() <= before)
        assert not relay.node.ends
        answer, _, writer = await ask(relay.port)
        assert answer == Answer.CARRIED
        writer.close()

    run(body)
    assert len(caplog.records) == 1
    assert HOST in caplog.text


def test_connections_that_say_nothing_are_limited_and_others_get_in_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, 'GREETING_SECONDS', 1.0)
    monkeypatch.setattr(forwarding, 'MOST_WAITING_OF_ONE', 5)

    async def body(relay: Relay) -> None:
        silent = [await asyncio.open_connection(HOST, relay.port) for _ in range(8)]
        ended = [asyncio.create_task(reader.read()) for reader, _ in silent]
        await until(lambda: sum(task.done() for task in ended) == 3, 0.8)
        assert [task.done() for task in ended[:3]] == [True] * 3  # the oldest: others come first
        answer, _, writer = await ask(relay.port)
        assert answer == Answer.CARRIED
        writer.close()
        await asyncio.gather(*ended)
        answer, _, writer = await ask(relay.port)
        assert answer == Answer.CARRIED
        for _, other in (*silent, (None, writer)):
            other.close()

    run(body)


def test_no_more_connections_are_carried_than_the_relay_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, 'MOST_CARRIED', 2)

    async def body(relay: Relay) -> None:
        asked = [await ask(relay.port) for _ in range(3)]
        assert [answer for answer, _, _ in asked] == [Answer.CARRIED] * 2 + [Answer.FULL]
        for _, _, writer in asked:
            writer.close()

    run(body)


def test_who_does_not_read_slows_the_other_end_down_and_costs_no_memory() -> None:
    async def body(relay: Relay) -> None:
        _, _, writer = await ask(relay.port)
        await until(lambda: relay.node.ends)
        reader, _ = relay.node.ends[0]
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        sock = writer.get_extra_info('socket')
        block, total = b'x' * (1 << 20), 64
        task = asyncio.create_task(_write_all(writer, block, total))
        done, _ = await asyncio.wait([task], timeout=1.0)
        assert not done, 'all of 64 MiB went somewhere'
        assert sock.fileno() >= 0
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        received = 0
        while received < len(block) * total:
            data = await reader.read(1 << 20)
            assert data.strip(b'x') == b''
            received += len(data)
        await task
        writer.close()

    run(body)


async def _write_all(writer: asyncio.StreamWriter, block: bytes, count: int) -> None:
    for _ in range(count):
        writer.write(block)
        await writer.drain()


def test_a_way_carries_what_is_said_last_and_leaves_nothing() -> None:
    """The near end closes at once after its last words: they are handed on first."""

    async def body(relay: Relay) -> None:
        failures: list[tuple[str, bool]] = []
        thread = CarryThread(Requester(PROGRAM, KEY))
        place = (HOST, relay.port)
        way = CarriedWay(thread, NODE, lambda: place, lambda *words: failures.append(words))
        near = socket.socket(socket.AF_UNIX)
        near.connect('\0' + way.endpoint.removeprefix('ipc://@'))
        near.sendall(b'hello')
        await until(lambda: relay.node.ends)
        reader, _ = relay.node.ends[0]
        assert await reader.readexactly(5) == b'hello'
        near.sendall(b'last words')
        near.close()
        way.close()
        await asyncio.to_thread(thread.close, 5.0)
        assert await reader.read() == b'last words'
        assert not failures

    run(body)


def test_a_way_asks_until_the_relay_carries_and_says_why_it_does_not() -> None:
    async def body(relay: Relay) -> None:
        failures: list[str] = []
        places: list[tuple[str, int] | None] = [None]
        thread = CarryThread(Requester(PROGRAM, KEY))

        def failed(words: str, is_certain: bool) -> None:
            if words not in failures:
                failures.append(words)

        way = CarriedWay(thread, NODE, lambda: places[-1], failed)
        near = socket.socket(socket.AF_UNIX)
        near.connect('\0' + way.endpoint.removeprefix('ipc://@'))
        await until(lambda: 'its relay is not connected' in failures)
        closed = free_port()
        places.append((HOST, closed))
        await until(lambda: f'the relay at {HOST} port {closed} cannot be reached' in failures[-1])
        relay.door.dismiss(PROGRAM)
        places.append((HOST, relay.port))
        await until(lambda: 'does not know this program' in failures[-1])
        relay.door.admit(PROGRAM)
        relay.door.open_way(NODE, HOST, closed)
        await until(lambda: 'finds nobody listening there' in failures[-1])
        relay.door.open_way(NODE, HOST, relay.node.port)
        await until(lambda: relay.node.ends)
        near.close()
        way.close()
        await asyncio.to_thread(thread.close, 1.0)

    run(body)


def test_a_way_for_which_no_descriptor_is_left_waits_and_is_carried_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(relay: Relay) -> None:
        failures: list[tuple[str, bool]] = []
        thread = CarryThread(Requester(PROGRAM, KEY))
        place = (HOST, relay.port)
        way = CarriedWay(thread, NODE, lambda: place, lambda *words: failures.append(words))
        near = socket.socket(socket.AF_UNIX)
        with descriptors_below(1):
            near.connect('\0' + way.endpoint.removeprefix('ipc://@'))
            near.sendall(b'hello')
            before = busy_seconds('dispy-carried')
            await asyncio.sleep(1.2)  # it looks again twice
            assert busy_seconds('dispy-carried') - before < 0.1
            assert not relay.node.ends
        await until(lambda: relay.node.ends)
        reader, _ = relay.node.ends[0]
        assert await reader.readexactly(5) == b'hello'
        assert not failures
        near.close()
        way.close()
        await asyncio.to_thread(thread.close, 1.0)

    run(body)
    words = 'Too many open files: connections have to wait (see `ulimit -n`)'
    assert [record.message for record in caplog.records] == [words]
