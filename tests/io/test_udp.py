"""Nodes are found by those with their key, and nobody else is believed; on loopback only."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nodeserver.core.errors import PortBusy
from nodeserver.core.events import Event, NodeFound, OtherKeySeen
from nodeserver.io import keys, netif
from nodeserver.io.clientbeacon import ClientBeacon, ClientPlace
from nodeserver.io.nodebeacon import BeaconPlace, NodeBeacon
from nodeserver.wire import beacon

PATIENCE = 10.0
SECRET = keys.from_passphrase('the secret of the tests')
OTHER = keys.from_passphrase('the secret of others')
ASKER = beacon.Asker('c' * 32, beacon.Role.CLIENT)


def contact(digit: str, name: str = '') -> beacon.NodeContact:
    return beacon.NodeContact(digit * 32, 51348, netif.host_fingerprint(), name)


class Heard:
    """Collects what a client beacon posts, and waits for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        async with asyncio.timeout(PATIENCE):
            while not enough(self.events):
                self._changed.clear()
                await self._changed.wait()
        return self.events

    def found(self) -> set[tuple[str, str]]:
        return {(e.node[0], e.address) for e in self.events if isinstance(e, NodeFound)}


class Raw:
    """A UDP socket of somebody who speaks the packets by hand."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(('127.0.0.1', 0))
        self.port: int = self._socket.getsockname()[1]

    def send(self, data: bytes, port: int) -> None:
        self._socket.sendto(data, ('127.0.0.1', port))

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        async with asyncio.timeout(PATIENCE):
            loop = asyncio.get_running_loop()
            return await loop.sock_recvfrom(self._socket, 2048)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def node(
    digit: str, address: str, port: int = 0, secret: keys.Secret = SECRET, client_port: int = 9
) -> Iterator[NodeBeacon]:
    place = BeaconPlace(address, port, client_port)
    made = NodeBeacon(asyncio.get_running_loop(), secret, contact(digit), place)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def client(
    heard: Heard, secret: keys.Secret = SECRET, ip_addr: str | None = '127.0.0.1', port: int = 0
) -> Iterator[ClientBeacon]:
    place = ClientPlace(ip_addr, port)
    made = ClientBeacon(asyncio.get_running_loop(), heard, secret, ASKER, place)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def raw() -> Iterator[Raw]:
    made = Raw()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def warning() -> Iterator[asyncio.Event]:
    warned = asyncio.Event()
    log, handler = logging.getLogger('nodeserver.io.nodebeacon'), logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.set()  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield warned
    finally:
        log.removeHandler(handler)


def ping(secret: keys.Secret, nonce: bytes | None = None) -> bytes:
    return beacon.encode_ping(nonce or secrets.token_bytes(16), ASKER, secret.beacon_key())


def test_nodes_that_share_a_port_are_found_by_one_broadcast() -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2') as a, node('b', '127.0.0.3', a.port), client(heard) as asking:
            asking.ping([], a.port)
            await heard.until(lambda events: len(events) >= 2)
        assert heard.found() == {('a', '127.0.0.2'), ('b', '127.0.0.3')}

    asyncio.run(story())


@pytest.mark.parametrize(('address', 'digit'), [('127.0.0.2', 'a'), ('127.0.0.3', 'b')])
def test_nodes_that_share_a_port_are_each_found_at_their_address(address: str, digit: str) -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2') as a, node('b', '127.0.0.3', a.port), client(heard) as asking:
            asking.ping([(address, a.port)], 0)
            events = await heard.until(bool)
            assert events == [NodeFound(digit * 32, address, 51348, '', a.port)]

    asyncio.run(story())


def test_node_at_an_ipv6_address_is_found() -> None:
    if not netif.is_local_address('::1'):
        pytest.skip('no IPv6 on this machine')

    async def story() -> None:
        heard = Heard()
        with node('a', '::1') as a, client(heard, ip_addr='::1') as asking:
            asking.ping([('::1', a.port)], 0)
            await heard.until(bool)
        assert heard.found() == {('a', '::1')}

    asyncio.run(story())


def test_client_of_all_interfaces_finds_a_node_by_its_address() -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2') as a, client(heard, ip_addr=None) as asking:
            asking.ping([('127.0.0.2', a.port)], 0)
            await heard.until(bool)
        assert heard.found() == {('a', '127.0.0.2')}

    asyncio.run(story())


def test_nodes_without_secrets_find_each_other_too() -> None:
    async def story() -> None:
        heard = Heard()
        with (
            node('a', '127.0.0.2', secret=keys.NO_SECRET) as a,
            client(heard, keys.NO_SECRET) as asking,
        ):
            asking.ping([], a.port)
            await heard.until(bool)
        assert heard.found() == {('a', '127.0.0.2')}

    asyncio.run(story())


@pytest.mark.parametrize('broadcast', [True, False])
def test_other_key_is_told_on_both_sides(broadcast: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2', secret=OTHER) as a, client(heard) as asking:
            asking.ping([] if broadcast else [('127.0.0.2', a.port)], a.port if broadcast else 0)
            events = await heard.until(bool)
        assert events == [OtherKeySeen('127.0.0.2')]

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    (line,) = caplog.messages
    assert '127.0.0.1' in line
    assert 'dispy key import' in line


def test_announcement_under_another_key_is_told_on_both_sides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        heard = Heard()
        with (
            client(heard) as asking,
            node('a', '127.0.0.2', secret=OTHER, client_port=asking.port) as a,
            warning() as warned,
        ):
            a.announce()
            events = await heard.until(bool)
            await asyncio.wait_for(warned.wait(), PATIENCE)
        assert events[0] == OtherKeySeen('127.0.0.2')

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert 'another key' in caplog.messages[0]


def test_other_key_is_answered_once_a_second_and_warned_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with raw() as asking, node('a', '') as a:
            for _ in range(20):
                asking.send(ping(OTHER), a.port)
            asking.send(ping(SECRET), a.port)
            answers = [(await asking.receive())[0]]
            while answers[-1] == beacon.OTHER_KEY_PACKET:
                answers.append((await asking.receive())[0])
        assert 2 <= len(answers) <= 2 + (loop.time() - begun)

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert len(caplog.messages) == 1


def test_answer_is_never_larger_than_the_ping() -> None:
    async def story() -> None:
        with raw() as asking, node('a', '') as a:
            for secret in (SECRET, OTHER):
                asking.send(ping(secret), a.port)
                answer, _ = await asking.receive()
                assert len(answer) <= len(ping(secret))

    asyncio.run(story())


def test_replayed_answer_is_not_believed() -> None:
    async def story() -> None:
        heard = Heard()
        with raw() as forger, client(heard) as asking:
            asking.ping([('127.0.0.1', forger.port)], 0)
            data, (_, port) = await forger.receive()
            asked = beacon.decode(data, SECRET.beacon_key())
            assert isinstance(asked, beacon.Ping)
            stale = secrets.token_bytes(16)
            for nonce, digit in ((stale, 'e'), (asked.nonce, 'a')):
                pong = beacon.encode_pong(nonce, contact(digit), SECRET.beacon_key())
                forger.send(pong, port)
            await heard.until(bool)
        assert heard.found() == {('a', '127.0.0.1')}  # the later answer came, the stale did not

    asyncio.run(story())


def test_other_key_is_not_believed_unasked() -> None:
    async def story() -> None:
        heard = Heard()
        with (
            raw() as forger,
            client(heard) as asking,
            node('a', '127.0.0.2') as a,
            node('b', '127.0.0.3') as b,
        ):
            asking.ping([('127.0.0.2', a.port)], 0)
            forger.send(beacon.OTHER_KEY_PACKET, asking.port)
            await heard.until(bool)
            asking.ping([('127.0.0.3', b.port)], 0)
            await heard.until(lambda events: len(events) == 2)
        assert not [event for event in heard.events if isinstance(event, OtherKeySeen)]

    asyncio.run(story())


def test_node_that_starts_later_is_found_by_its_announcement() -> None:
    async def story() -> None:
        heard = Heard()
        with (
            client(heard) as asking,
            node('a', '127.0.0.2', client_port=asking.port) as a,
            node('b', '127.0.0.3', a.port, client_port=asking.port) as b,
        ):
            a.announce()
            b.announce()
            await heard.until(lambda _: len(heard.found()) == 2)
        assert heard.found() == {('a', '127.0.0.2'), ('b', '127.0.0.3')}

    asyncio.run(story())


def test_clients_that_share_a_port_all_hear_an_announcement() -> None:
    async def story() -> None:
        first, second = Heard(), Heard()
        with (
            client(first) as asking,
            client(second, port=asking.port),
            node('a', '127.0.0.2', client_port=asking.port) as a,
        ):
            a.announce()
            await first.until(bool)
            await second.until(bool)

    asyncio.run(story())


def test_announcement_alone_is_not_believed() -> None:
    async def story() -> None:
        heard = Heard()
        with raw() as forger, client(heard) as asking:
            here = beacon.encode_here(bytes(16), contact('a'), SECRET.beacon_key())
            forger.send(here, asking.port)
            data, _ = await forger.receive()
        assert isinstance(beacon.decode(data, SECRET.beacon_key()), beacon.Ping)
        assert heard.events == []

    asyncio.run(story())


def test_local_socket_is_named_only_to_the_same_user_with_its_own_key() -> None:
    own = keys.own_key()
    path = netif.runtime_directory() / 'n.sock'

    async def local_path(contact: beacon.NodeContact, secret: keys.Secret) -> str:
        heard = Heard()
        place = BeaconPlace('127.0.0.2', 0, 9)
        answering = NodeBeacon(asyncio.get_running_loop(), secret, contact, place)
        try:
            with client(heard, secret) as asking:
                asking.ping([('127.0.0.2', answering.port)], 0)
                (event,) = await heard.until(bool)
        finally:
            answering.close()
        assert isinstance(event, NodeFound)
        return event.local_path

    here, away = contact('a', 'n.sock'), beacon.NodeContact('a' * 32, 1, b'x' * 16, 'n.sock')
    assert asyncio.run(local_path(here, own)) == ''  # there is no such file
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert asyncio.run(local_path(here, own)) == str(path)
        assert asyncio.run(local_path(here, SECRET)) == ''
        assert asyncio.run(local_path(away, own)) == ''
    path.unlink()


def test_garbage_harms_nobody() -> None:
    async def story() -> None:
        heard = Heard()
        with raw() as noisy, node('a', '127.0.0.1') as a, client(heard) as asking:
            for size in (0, 1, 5, 21, 72, 255, 256, 257, 3000):
                for head in (b'', b'dnb\x01\x01', b'dnb\x01\x02', b'dnb\x01\x03'):
                    for port in (a.port, asking.port):
                        noisy.send(head + os.urandom(size), port)
            asking.ping([('no address', 1), ('127.0.0.1', a.port)], 0)
            await heard.until(lambda _: bool(heard.found()))
        assert heard.found() == {('a', '127.0.0.1')}

    asyncio.run(story())


def test_packet_that_cannot_be_sent_raises_nothing() -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2') as a, client(heard) as asking:
            asking.ping([('203.0.113.1', 9), ('2001:db8::1', 9), ('127.0.0.2', a.port)], 0)
            await heard.until(bool)

    asyncio.run(story())


def test_port_of_a_program_that_does_not_share_it_is_busy() -> None:
    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(('', 0))
            port = sock.getsockname()[1]
            with pytest.raises(PortBusy, match=str(port)), node('a', '127.0.0.2', port):
                pass
            with pytest.raises(PortBusy, match=str(port)), client(Heard(), port=port):
                pass

    asyncio.run(story())


def test_closed_beacons_are_silent_and_can_be_closed_again() -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2') as a, client(heard) as asking:
            a.announce()
            a.close()
            asking.close()
            asking.ping([('127.0.0.2', 9)], 9)
        assert heard.events == []

    asyncio.run(story())
