"""Both ends of a transfer of files, with what is on its way between them."""

import asyncio
import os
from collections import deque
from pathlib import Path
from typing import Any

from dispy_nb.dependencies import digest, gather
from nodeserver.core.filemessages import FetchFiles
from nodeserver.core.transfer import WINDOW
from nodeserver.io.filereceiving import FileReceiver
from nodeserver.io.filesending import FileSender
from nodeserver.wire.manifest import FileEntry

KEY = (7, 'n', 1)


def nowhere(entry: FileEntry) -> int:
    return -1


def descriptors_of(path: Path) -> int:
    """Count how often this process has a file open."""
    count = 0
    for fd in Path('/proc/self/fd').iterdir():
        try:
            count += fd.readlink() == path
        except OSError:  # the one that lists them
            continue
    return count


def test_a_transfer_begun_anew_is_not_disturbed_by_what_was_fetched_before(tmp_path: Path) -> None:
    content = os.urandom(3 * WINDOW)
    source, target = tmp_path / 'source', tmp_path / 'target'
    source.write_bytes(content)
    target.mkdir()

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        files = digest('depends', gather('depends', [source]))
        way: deque[Any] = deque()
        ends: list[str] = []
        sender = FileSender(loop, way.append, lambda key: files)
        receiver = FileReceiver(loop, way.append, lambda key, reason: ends.append(reason))

        async def until(limit: int) -> None:
            for _ in range(limit):
                await asyncio.sleep(0.001)
                if ends:
                    return
                while way:
                    message = way.popleft()
                    is_wish = isinstance(message, FetchFiles)
                    (sender.fetch if is_wish else receiver.blocks)(message)

        receiver.place(KEY, target, files.entries, nowhere)
        while not any(not isinstance(message, FetchFiles) for message in way):
            await asyncio.sleep(0.001)
            if way and isinstance(way[0], FetchFiles):
                sender.fetch(way.popleft())
        receiver.forget(lambda key: True)  # its job was taken back ...
        receiver.place(KEY, target, files.entries, nowhere)  # ... and came again
        await until(20_000)
        sender.close()
        receiver.close()
        return ends

    assert asyncio.run(run()) == ['']
    assert (target / 'source').read_bytes() == content
    assert descriptors_of(source) == 0
