"""Recordings, floods, wrong clocks and wrong keys at the beacons; on loopback only."""

import asyncio
import logging
import secrets
import socket
import time
from contextlib import ExitStack, closing

import pytest

from nodeserver.core.events import NodeFound, OtherKeySeen
from nodeserver.io import nodebeacon
from nodeserver.io.datagrams import Budget, DatagramSocket, SocketAddress
from nodeserver.wire import beacon
from tests.io.test_udp import OTHER, PATIENCE, SECRET, Heard, Raw, client, contact, node, ping, raw

HOUR = 3600.0


def pong(data: bytes) -> beacon.Pong:
    packet = beacon.decode(data, SECRET.beacon_key())
    assert isinstance(packet, beacon.Pong)
    return packet


async def asked_by(client_raw: Raw) -> tuple[beacon.Ping, int]:
    data, (_, port) = await client_raw.receive()
    packet = beacon.decode(data, SECRET.beacon_key())
    assert isinstance(packet, beacon.Ping)
    return packet, port


def test_a_recorded_ping_is_not_answered_again() -> None:
    async def story() -> None:
        first, last = secrets.token_bytes(16), secrets.token_bytes(16)
        with raw() as asking, raw() as thief, node('a', '') as a:
            asking.send(ping(SECRET, first), a.port)
            assert pong((await asking.receive())[0]).nonce == first
            for other in (thief, asking):
                for _ in range(50):
                    other.send(ping(SECRET, first), a.port)
            thief.send(ping(SECRET, last), a.port)
            assert pong((await thief.receive())[0]).nonce == last  # and nothing before it

    asyncio.run(story())


def test_recorded_and_reordered_answers_change_nothing() -> None:
    async def story() -> None:
        heard = Heard()
        with raw() as forger, client(heard) as asking:
            nonces = []
            for _ in range(2):
                asking.ping([('127.0.0.1', forger.port)], 0)
                question, port = await asked_by(forger)
                nonces.append(question.nonce)
            for nonce in (*reversed(nonces), *nonces, *nonces):
                answer = beacon.encode_pong(nonce, contact('a'), SECRET.beacon_key())
                forger.send(answer, port)
            last = beacon.encode_pong(nonces[0], contact('e'), SECRET.beacon_key())
            forger.send(last, port)
            await heard.until(lambda _: len(heard.found()) == 2)
        assert heard.found() == {('a', '127.0.0.1'), ('e', '127.0.0.1')}
        assert len(heard.events) < 6

    asyncio.run(story())


def test_a_recorded_announcement_costs_a_ping_now_and_then() -> None:
    async def story() -> None:
        here = beacon.encode_here(bytes(16), contact('a'), SECRET.beacon_key())
        with raw() as forger, client(Heard()) as asking:
            begun = time.monotonic()
            for _ in range(200):
                forger.send(here, asking.port)
            await asked_by(forger)
            forger.send(b'end', forger.port)
            pings = 1
            while (await forger.receive())[0] != b'end':
                pings += 1
            assert pings <= 1 + (time.monotonic() - begun) / 0.1

    asyncio.run(story())


def test_who_announces_itself_and_is_connected_is_not_asked() -> None:
    async def story() -> None:
        heard = Heard()
        key = SECRET.beacon_key()
        with raw() as forger, client(heard) as asking:
            asking.ping([('127.0.0.1', forger.port)], 0)
            question, port = await asked_by(forger)
            forger.send(beacon.encode_pong(question.nonce, contact('a'), key), port)
            await heard.until(bool)
            asking.sightings.wanted('a' * 32)
            asking.sightings.is_connected = lambda node: node == 'a' * 32
            for digit in 'aaab':
                forger.send(beacon.encode_here(bytes(16), contact(digit), key), asking.port)
            await asked_by(forger)  # for b; had a been asked, it would have used up the interval
            asking.sightings.is_connected = lambda node: False
            forger.send(b'end', forger.port)
            assert (await forger.receive())[0] == b'end'

    asyncio.run(story())


def test_answers_are_never_more_nor_larger_than_questions() -> None:
    last = b'e' * 16

    def is_last(data: bytes) -> bool:
        packet = beacon.decode(data, SECRET.beacon_key())
        return isinstance(packet, beacon.Pong) and packet.nonce == last

    async def story() -> None:
        begun = time.monotonic()
        here = beacon.encode_here(bytes(16), contact('b'), SECRET.beacon_key())
        noise = [here, beacon.OTHER_KEY_PACKET, b'dnb\x02', b'']
        with raw() as asking, node('a', '') as a:
            for question in [ping(SECRET), ping(OTHER), ping(SECRET), *noise] * 20:
                asking.send(question, a.port)
            asking.send(ping(SECRET, last), a.port)
            answers = [(await asking.receive())[0]]
            while not is_last(answers[-1]):
                answers.append((await asking.receive())[0])
        # two pings, the last one, and the word of another key once a second
        assert len(answers) <= 2 + 1 + 1 + (time.monotonic() - begun)
        assert max(map(len, answers)) <= beacon.PADDED_SIZE

    asyncio.run(story())


def test_other_key_is_told_to_a_bounded_number_of_addresses_and_logged_a_few_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> int:
        with node('a', '') as a, ExitStack() as stack, raw() as honest:
            forgers = []
            for number in range(600):
                sock = stack.enter_context(
                    closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                )
                sock.bind((f'127.1.{number // 250}.{number % 250 + 1}', 0))
                sock.setblocking(False)
                forgers.append(sock)
                sock.sendto(ping(OTHER), ('127.0.0.1', a.port))
            honest.send(ping(SECRET), a.port)
            await honest.receive()
            return sum(_has_word(sock) for sock in forgers)

    with caplog.at_level(logging.WARNING):
        told = asyncio.run(story())
    assert 0 < told <= 2 * 256
    assert 0 < len(caplog.messages) <= 20


def _has_word(sock: socket.socket) -> bool:
    try:
        return sock.recv(100) == beacon.OTHER_KEY_PACKET
    except BlockingIOError:
        return False


@pytest.mark.parametrize('skew', [HOUR, -HOUR])
def test_clocks_may_differ_and_the_node_tells_its_own(
    skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patched `time.time` stands in for a machine with another clock."""
    own = time.time
    monkeypatch.setattr(nodebeacon.time, 'time', lambda: own() + skew)

    async def story() -> None:
        heard = Heard()
        with (
            client(heard) as asking,
            node('a', '127.0.0.2', client_port=asking.port) as a,
            raw() as looking,
        ):
            a.announce()
            await heard.until(bool)
            looking.send(ping(SECRET), a.port)  # by its broadcast socket
            shown = pong((await looking.receive())[0]).contact.clock
        assert heard.found() == {('a', '127.0.0.2')}
        assert abs(shown - (own() + skew)) < 60

    asyncio.run(story())


def test_other_key_unasked_from_many_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> list[object]:
        heard = Heard()
        with raw() as forger, client(heard) as asking, node('a', '127.0.0.2') as a:
            for _ in range(2000):
                forger.send(beacon.OTHER_KEY_PACKET, asking.port)
            asking.ping([('127.0.0.2', a.port)], 0)
            await heard.until(lambda _: bool(heard.found()))
        return [event for event in heard.events if isinstance(event, OtherKeySeen)]

    assert asyncio.run(story()) == []
    assert caplog.messages == []


def test_a_budget_allows_a_burst_and_then_so_many_a_second() -> None:
    budget = Budget(per_second=100, burst=1000)
    budget.fill(50.0)
    assert sum(budget.spend() for _ in range(5000)) == 1000
    budget.fill(50.5)
    assert sum(budget.spend() for _ in range(5000)) == 50
    budget.fill(90.0)
    assert sum(budget.spend() for _ in range(5000)) == 1000


def test_a_socket_that_has_spent_its_budget_goes_on_later() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        got: list[bytes] = []
        done = loop.create_future()

        def received(sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
            got.append(data)
            if data == b'last':
                done.set_result(None)

        budget = Budget(per_second=50, burst=10)
        begun = loop.time()
        with closing(DatagramSocket(loop, received, ('127.0.0.1', 0), budget=budget)) as sock:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(19):
                    sender.sendto(b'x', ('127.0.0.1', sock.port))
                sender.sendto(b'last', ('127.0.0.1', sock.port))
            await asyncio.wait_for(done, PATIENCE)
        assert len(got) == 20
        assert loop.time() - begun >= 10 / 50 - 0.05

    asyncio.run(story())


def test_a_burst_of_thousands_of_answers_passes() -> None:
    async def story() -> None:
        heard = Heard()
        key = SECRET.beacon_key()
        with raw() as many, client(heard) as asking:
            asking.ping([('127.0.0.1', many.port)], 0)
            question, port = await asked_by(many)
            for number in range(4000):
                told = beacon.NodeContact(f'{number:032x}', 51348, b'f' * 16, '')
                many.send(beacon.encode_pong(question.nonce, told, key), port)
                if number % 100 == 99:  # as much as the buffer of any system takes
                    await heard.until(lambda events, n=number: len(events) > n)  # type: ignore[misc]
            assert len({e.node for e in heard.events if isinstance(e, NodeFound)}) == 4000

    asyncio.run(story())


def test_who_answers_for_another_address_does_not_go_by_it() -> None:
    async def story() -> None:
        heard = Heard()
        with node('a', '127.0.0.2') as a, client(heard) as asking:
            asking.ping([('127.0.0.3', a.port)], 0)  # which its socket for broadcasts hears
            (event,) = await heard.until(bool)
            assert event == NodeFound('a' * 32, '127.0.0.2', 51348, '', a.port)

    asyncio.run(story())
