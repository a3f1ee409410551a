"""The process that computations come from: what a job says in its place."""

import asyncio
import os
from pathlib import Path

import pytest

from nodeserver.io.watcher import Watcher
from nodeserver.io.zygote import Zygote
from nodeserver.wire import lane


def _descriptors() -> int:
    return len(os.listdir('/proc/self/fd'))  # noqa: PTH208


@pytest.mark.parametrize(
    'message',
    [b'?', lane.FORKED, lane.FORKED + b'1234', lane.ENDED + b'half', lane.ENDED + bytes(64)],
)
def test_one_that_says_what_was_not_asked_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, message: bytes
) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        watcher, gone = Watcher(loop, lambda: None), loop.create_future()
        zygote = Zygote(tmp_path, watcher, lambda: gone.set_result(None))
        before = _descriptors()
        zygote._message(message, [os.dup(0) for _ in range(2)])
        assert _descriptors() <= before  # what came beside it is closed
        async with asyncio.timeout(20):
            await gone
        zygote.close()
        watcher.close()

    asyncio.run(body())
    assert 'the process that computations come from is replaced' in caplog.text
