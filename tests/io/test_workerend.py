"""The node's end of a worker: what it believes of one that has just died."""

import asyncio
import os
import socket
from itertools import count

import pytest

from nodeserver.io.memorykills import MemoryKills
from nodeserver.io.nodeprocesses import Shared
from nodeserver.io.watcher import Watcher
from nodeserver.io.workerend import WorkerEnd

LIMIT = 10.0


@pytest.mark.parametrize('reads', [False, True])
def test_a_fork_whose_template_still_holds_its_lane_is_asked_again_after_it_was_reaped(
    reads: bool,
) -> None:
    async def play() -> bool:
        loop = asyncio.get_running_loop()
        watcher = Watcher(loop, lambda: None)
        shared = Shared(loop, watcher, lambda event: None, count(1), MemoryKills())
        near, far = socket.socketpair()
        files = [os.memfd_create(name) for name in ('stdout', 'stderr')]
        told, tells = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(told, 1)  # the job was given
            if reads:
                far.recv(65536)
            os._exit(1)
        exited = loop.create_future()
        worker = WorkerEnd(1, pid, [near.detach(), *files], shared, exited.set_result)
        worker.give([1], [1], [b'payload'])
        os.write(tells, b'.')
        async with asyncio.timeout(LIMIT):
            await exited
        far.close()  # this process is the template, and comes to it only now
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended
        worker.read_rest()
        begun = worker.has_begun
        worker.close()
        watcher.close()
        for descriptor in (told, tells):
            os.close(descriptor)
        return begun

    assert asyncio.run(play()) is reads
