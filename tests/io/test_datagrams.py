"""UDP sockets stop when they are told to, and answers are limited."""

import asyncio
import socket
from typing import Any

from nodeserver.io.datagrams import DatagramSocket, Throttle


def test_socket_closed_by_what_it_received_reads_no_more() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        got: list[bytes] = []
        done = loop.create_future()

        def received(sock: DatagramSocket, data: bytes, source: tuple[Any, ...]) -> None:
            got.append(data)
            sock.close()
            done.set_result(None)

        sock = DatagramSocket(loop, received, ('127.0.0.1', 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(3):
                sender.sendto(bytes((number,)), ('127.0.0.1', sock.port))
            await asyncio.wait_for(done, 10)
        assert got == [b'\0']

    asyncio.run(story())


def test_throttle_allows_once_an_interval_and_remembers_a_bounded_number() -> None:
    throttle = Throttle(1.0, size=2)
    assert throttle.allows('a', 50.0)
    assert not throttle.allows('a', 50.9)
    assert throttle.allows('b', 50.9)
    assert not throttle.allows('c', 50.9)  # full: a flood of forged senders gets nothing
    assert throttle.allows('c', 51.0)
    assert throttle.allows('a', 52.0)
