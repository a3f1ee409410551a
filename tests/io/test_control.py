"""The node's end of a control socket."""

import asyncio
import socket

from nodeserver.io.control import Control
from nodeserver.io.watcher import Watcher


def test_the_last_words_of_a_process_are_heard_though_it_has_not_read_ours() -> None:
    heard: list[bytes] = []

    async def play() -> None:
        watcher = Watcher(asyncio.get_running_loop(), lambda: None)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control = Control(near.detach(), watcher, lambda message, fds: heard.append(message))
        with far:
            control.send(b'an order that is never read')
            far.send(b'last words')
        control.receive()
        control.close()
        watcher.close()

    asyncio.run(play())
    assert heard == [b'last words']
