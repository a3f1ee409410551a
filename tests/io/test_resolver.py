"""Names are looked up beside the loop, a few at a time."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from nodeserver.io.resolver import Resolver


class NameServer:
    """Stands in for a name server that answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        monkeypatch.setattr(socket, 'getaddrinfo', self._answer)

    def _answer(self, host: str, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(host)
        assert self.may_answer.wait(10)
        if host.startswith('unknown'):
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, '', ('192.0.2.7', 0))]


def test_names_are_looked_up_without_waiting_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        server, resolver = NameServer(monkeypatch), Resolver(loop)
        answers: dict[str, list[str]] = {}
        done = loop.create_future()

        def told(host: str, found: list[str]) -> None:
            answers[host] = found
            if len(answers) == len(hosts) + 1:
                done.set_result(None)

        hosts = ['known', 'unknown', *(f'more{n}' for n in range(8))]
        resolver.resolve('198.51.100.1', lambda found: told('address', found))
        assert answers == {'address': ['198.51.100.1']}
        for host in hosts * 2:
            resolver.resolve(host, lambda found, host=host: told(host, found))  # type: ignore[misc]
        assert len(server.asked) <= 4
        server.may_answer.set()
        await asyncio.wait_for(done, 10)
        assert (answers['known'], answers['unknown']) == (['192.0.2.7'], [])
        assert sorted(server.asked) == sorted(hosts)
        resolver.resolve('known', lambda found: told('again', found))  # remembered
        assert answers['again'] == ['192.0.2.7']
        resolver.close()
        resolver.resolve('later', lambda found: told('later', found))
        assert answers['later'] == []

    asyncio.run(story())


def test_who_is_closed_is_told_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        server, resolver = NameServer(monkeypatch), Resolver(asyncio.get_running_loop())
        resolver.resolve('slow', lambda found: pytest.fail('told'))
        resolver.close()
        server.may_answer.set()
        for thread in threading.enumerate():
            if thread.name.startswith('look-up'):
                await asyncio.to_thread(thread.join, 10)

    asyncio.run(story())
