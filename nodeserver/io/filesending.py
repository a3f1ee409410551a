"""Sending files: read in a thread as much as the receiver asked for, and no more.

FetchFiles ──▶ Outgoing ── pieces ──▶ thread: read ──▶ FileBlocks
                                        └─ changed, gone ──▶ FilesFailed
"""

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from nodeserver.core.errors import FileRefused
from nodeserver.core.filemessages import FetchFiles, FileBlocks, FileMessage, FilesFailed
from nodeserver.core.transfer import Outgoing, Piece
from nodeserver.io.filetree import as_reason, shown
from nodeserver.wire.manifest import FileEntry

THREADS = 2  # that read: more receivers than that take turns

Key = tuple[int, str, int]  # computation, node, transfer


class Source(Protocol):
    """The files of an offer."""

    @property
    def entries(self) -> Sequence[FileEntry]:
        """What there is to send."""

    def kept(self, file: int) -> bytes | None:
        """The whole content of one of them, if it is at hand."""

    def open(self, file: int) -> int:
        """Open one of them for reading; whoever asks closes it."""


class _Reader:
    """Reads an offer for one receiver, from the first byte asked for to the last."""

    def __init__(self, source: Source, fetching: int) -> None:
        self._source = source
        self.fetching = fetching
        self._file = -1
        self._fd = -1
        self.outgoing = Outgoing([entry.size for entry in source.entries])
        self.is_reading = False

    def read(self, pieces: Sequence[Piece]) -> list[bytes]:
        """Read these pieces; in a thread."""
        return [self._read(*piece) for piece in pieces]

    def _read(self, file: int, offset: int, length: int) -> bytes:
        kept = self._source.kept(file)
        if kept is not None:
            return kept[offset : offset + length]
        entry = self._source.entries[file]
        if file != self._file:
            self.close()
            self._fd = self._source.open(file)
            self._file = file
            self._check(entry)
        content = os.pread(self._fd, length, offset) if length else b''
        while len(content) < length:
            more = os.pread(self._fd, length - len(content), offset + len(content))
            if not more:
                raise FileRefused(f'{shown(entry.path)} has become shorter while it was sent')
            content += more
        if offset + length == entry.size:
            self._check(entry)
            self.close()
        return content

    def _check(self, entry: FileEntry) -> None:
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileRefused(f'{shown(entry.path)} is no file')
        if (found.st_size, found.st_mtime_ns) != (entry.size, entry.mtime):
            raise FileRefused(f'{shown(entry.path)} was changed before it was sent')

    def close(self) -> None:
        """Give back the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._file = -1


class FileSender:
    """Answers what is fetched of the files that are offered."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        say: Callable[[FileMessage], None],
        find: Callable[[Key], Source | None],
    ) -> None:
        self._loop, self._say, self._find = loop, say, find
        self._threads: ThreadPoolExecutor | None = None
        self._readers: dict[Key, _Reader] = {}

    def fetch(self, message: FetchFiles) -> None:
        """Send what is asked for, as far as the credit goes."""
        key = (message.computation, message.node, message.transfer)
        reader = self._readers.get(key)
        if reader is not None and reader.fetching != message.fetching:
            self._drop(key)  # the receiver has given up what it fetched before, and begins anew
            reader = None
        if reader is None:
            source = self._find(key)
            if source is None or max(message.wanted, default=-1) >= len(source.entries):
                reason = 'these files are not offered any more'
                self._say(FilesFailed(*key, reason, message.fetching))
                return
            reader = self._readers[key] = _Reader(source, message.fetching)
        reader.outgoing.grant(message.wanted, message.credit)
        self._go_on(key, reader)

    def forget(self, wanted: Callable[[Key], bool]) -> None:
        """End the transfers that are meant."""
        for key in [key for key in self._readers if wanted(key)]:
            self._drop(key)

    def close(self) -> None:
        """End everything."""
        self.forget(lambda key: True)
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    def _go_on(self, key: Key, reader: _Reader) -> None:
        if reader.is_reading:
            return
        pieces = reader.outgoing.take()
        if not pieces:
            if reader.outgoing.is_done:
                self._drop(key)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, 'dispy-read')
        reader.is_reading = True
        reading = self._loop.run_in_executor(self._threads, reader.read, pieces)
        reading.add_done_callback(lambda done: self._read(key, reader, pieces, done))

    def _read(
        self,
        key: Key,
        reader: _Reader,
        pieces: Sequence[Piece],
        done: 'asyncio.Future[list[bytes]]',
    ) -> None:
        reader.is_reading = False
        error = done.exception()
        if self._readers.get(key) is not reader:
            reader.close()
        elif error is not None:
            self._drop(key)
            reason = as_reason(error, 'a file could not be read')
            self._say(FilesFailed(*key, reason, reader.fetching))
        else:
            files, offsets, _ = zip(*pieces, strict=True)
            columns = list(files), list(offsets), done.result()
            self._say(FileBlocks(*key, *columns, reader.fetching))
            self._go_on(key, reader)

    def _drop(self, key: Key) -> None:
        reader = self._readers.pop(key)
        if not reader.is_reading:  # else it is closed when the thread is done with it
            reader.close()
