"""Both ends of a transfer, in one loop: what is begun anew is not confused with what was before."""

import asyncio
import os
from pathlib import Path

from dispy_nb.dependencies import NO_FILES
from dispy_nb.depends import files_of
from dispy_nb.files import ClusterFiles
from nodeserver.core.effects import HearOfFiles
from nodeserver.core.events import FilesToSay
from nodeserver.core.filemessages import (
    OWN_FILES,
    FetchFiles,
    FileBlocks,
    FileMessage,
    FilesFailed,
)
from nodeserver.io.filereceiving import FileReceiver
from nodeserver.io.filesending import FileSender
from nodeserver.wire.manifest import FileEntry

KEY = (7, 'node', 3)
CONTENT = b'0123456789' * 100


class Offer:
    """One file, as it was when it was offered."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / 'offered'
        self._path.write_bytes(CONTENT)
        found = self._path.stat()
        self.entries = [FileEntry(b'data', found.st_size, found.st_mtime_ns, 0o644)]

    def kept(self, file: int) -> bytes | None:
        return None

    def open(self, file: int) -> int:
        return os.open(self._path, os.O_RDONLY)


async def begun_anew(tmp_path: Path, *, fails: bool) -> str:
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[FileMessage] = asyncio.Queue()
    answered: asyncio.Future[str] = loop.create_future()
    offer: Offer | None = Offer(tmp_path)
    sender = FileSender(loop, said.put_nowait, lambda key: offer)
    receiver = FileReceiver(loop, said.put_nowait, lambda key, reason: answered.set_result(reason))
    assert offer is not None
    entries, root = offer.entries, tmp_path / 'there'
    root.mkdir()
    receiver.place(KEY, root, entries, lambda entry: -1)
    first = await said.get()
    assert isinstance(first, FetchFiles)
    receiver.forget(lambda key: True)
    given, offer = offer, None if fails else offer
    sender.fetch(FetchFiles(*KEY, first.wanted, 1, first.fetching))
    late = await said.get()  # on its way when the transfer is begun anew
    assert isinstance(late, FilesFailed if fails else FileBlocks)
    offer = given
    receiver.place(KEY, root, entries, lambda entry: -1)
    second = await said.get()
    assert isinstance(second, FetchFiles)
    receiver.fail(late) if isinstance(late, FilesFailed) else receiver.blocks(late)
    sender.fetch(second)
    pieces = await asyncio.wait_for(said.get(), 10)
    assert isinstance(pieces, FileBlocks)
    receiver.blocks(pieces)
    answer = await asyncio.wait_for(answered, 10)
    receiver.close()
    sender.close()
    assert (root / 'data').read_bytes() == CONTENT
    return answer


async def answer_to(wanted: list[int], tmp_path: Path) -> FileMessage:
    said: asyncio.Queue[FileMessage] = asyncio.Queue()
    sender = FileSender(asyncio.get_running_loop(), said.put_nowait, lambda key: Offer(tmp_path))
    sender.fetch(FetchFiles(*KEY, wanted, 100, 5))
    answer = await asyncio.wait_for(said.get(), 10)
    sender.close()
    return answer


def test_who_fetches_a_file_that_is_not_offered_is_told(tmp_path: Path) -> None:
    answer = asyncio.run(answer_to([0, 1], tmp_path))
    assert isinstance(answer, FilesFailed)
    assert (answer.transfer, answer.fetching) == (KEY[2], 5)


async def fetched_after_a_refusal(path: Path) -> FileMessage:
    said: asyncio.Queue[FilesToSay] = asyncio.Queue()
    files = ClusterFiles('a cluster', NO_FILES, said.put_nowait)
    files.assign_to_node('node', files_of('depends', [str(path)]))
    files.perform(HearOfFiles(FilesFailed(7, 'node', OWN_FILES, 'held by somebody else')))
    files.perform(HearOfFiles(FetchFiles(7, 'node', OWN_FILES, [0], 100)))
    answer = await asyncio.wait_for(said.get(), 10)
    files.close()
    return answer.message


def test_a_node_that_was_busy_gets_the_files_that_are_for_it_alone(tmp_path: Path) -> None:
    path = tmp_path / 'extra.txt'
    path.write_bytes(b'extra')
    answer = asyncio.run(fetched_after_a_refusal(path))
    assert isinstance(answer, FileBlocks)
    assert answer.contents == [b'extra']


def test_a_transfer_that_is_begun_anew_takes_no_pieces_of_the_one_before(tmp_path: Path) -> None:
    assert asyncio.run(begun_anew(tmp_path, fails=False)) == ''


def test_a_transfer_that_is_begun_anew_does_not_fail_with_the_one_before(tmp_path: Path) -> None:
    assert asyncio.run(begun_anew(tmp_path, fails=True)) == ''


async def withdrawn(tmp_path: Path) -> list[str]:
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[FileMessage] = asyncio.Queue()
    answered: asyncio.Future[str] = loop.create_future()
    receiver = FileReceiver(loop, said.put_nowait, lambda key, reason: answered.set_result(reason))
    root = tmp_path / 'there'
    root.mkdir()
    receiver.place(KEY, root, [FileEntry(b'data', 1 << 30, 0, 0o644)], lambda entry: -1)
    first = await asyncio.wait_for(said.get(), 10)
    assert isinstance(first, FetchFiles)
    # a piece, and then no more: too little for more to be asked for
    receiver.blocks(FileBlocks(*KEY, [0], [0], [CONTENT], first.fetching))
    receiver.fail(FilesFailed(*KEY, 'the job has ended'))  # as its node says, which has not fetched
    reason = await asyncio.wait_for(answered, 10)
    receiver.close()
    return [reason, *(path.name for path in root.iterdir())]


def test_of_a_file_that_its_job_waits_for_no_more_nothing_is_left(tmp_path: Path) -> None:
    assert asyncio.run(withdrawn(tmp_path)) == ['the job has ended']
