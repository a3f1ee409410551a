"""How often a node connects where pings ask it to: they may be recordings."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nodeserver.io import returncalls
from nodeserver.io.returncalls import ReturnCalls
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.wire.beacon import Asker, Callback, Role
from tests.contract.ends import make_keys, new_id, pass_time, until

Loop = asyncio.AbstractEventLoop


class Place:
    """A port where somebody else listens, and the connections that come there."""

    def __init__(self, loop: Loop) -> None:
        self.sock = socket.create_server(('127.0.0.1', 0))
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]
        self.connections: list[socket.socket] = []
        loop.add_reader(self.sock, self._accept)
        self._loop = loop

    def _accept(self) -> None:
        self.connections.append(self.sock.accept()[0])

    def close(self) -> None:
        self._loop.remove_reader(self.sock)
        for sock in (self.sock, *self.connections):
            sock.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def place(loop: Loop) -> Iterator[Place]:
    made = Place(loop)
    yield made
    made.close()


@pytest.fixture
def calls(loop: Loop) -> Iterator[ReturnCalls]:
    link = ZmqLink(loop, lambda event: None, (new_id(), 'node'), make_keys())
    made = ReturnCalls(loop, link)
    yield made
    made.close()
    link.close()


def test_a_ping_that_is_played_over_and_over_leads_to_one_connection(
    loop: Loop, place: Place, calls: ReturnCalls
) -> None:
    asker = Asker(new_id(), Role.CLIENT)
    for _ in range(50):
        calls.asked(asker, Callback(('127.0.0.1',), place.port))
    pass_time(loop, 0.5)
    assert not place.connections  # the client has time to connect by itself
    until(loop, lambda: place.connections)
    for _ in range(50):
        calls.asked(asker, Callback(('127.0.0.1',), place.port))
    pass_time(loop, 1.5)
    assert len(place.connections) == 1


def test_pings_of_very_many_lead_to_few_connections(
    loop: Loop, place: Place, calls: ReturnCalls
) -> None:
    for _ in range(1000):
        calls.asked(Asker(new_id(), Role.CLIENT), Callback(('127.0.0.1',), place.port))
    until(loop, lambda: place.connections)
    pass_time(loop, 0.5)
    assert len(place.connections) <= 16


def test_a_call_of_nobody_ends_by_itself(
    loop: Loop, place: Place, calls: ReturnCalls, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = 'no-such-host.invalid', 'nor-this-one.invalid'
    calls.asked(Asker(new_id(), Role.CLIENT), Callback(hosts, 9))
    until(loop, lambda: 'nor-this-one.invalid port 9, and does not answer there' in caplog.text)
    assert not calls._calls


def test_a_name_server_that_answers_late_skips_nobody(
    loop: Loop, place: Place, calls: ReturnCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returncalls, '_LIMIT', 1.0)
    asked = {'slow.example': threading.Event(), 'here.example': threading.Event()}
    answers = {'slow.example': threading.Event(), 'here.example': threading.Event()}

    def name_server(host: str, *rest: Any, **more: Any) -> Any:
        asked[host].set()
        assert answers[host].wait(10)
        if host == 'slow.example':
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, '', ('127.0.0.1', 0))]

    monkeypatch.setattr(socket, 'getaddrinfo', name_server)
    calls.asked(Asker(new_id(), Role.CLIENT), Callback(tuple(asked), place.port))
    until(loop, asked['here.example'].is_set)  # the first has had its time
    answers['slow.example'].set()
    pass_time(loop, 0.1)
    answers['here.example'].set()
    until(loop, lambda: place.connections)
