"""Receiving files: ask for what is not there yet, write it in a thread, ask for more.

manifest ──▶ thread: what is there? ──▶ FetchFiles
FileBlocks ──▶ thread: write ──▶ FetchFiles (so many bytes more) ... ──▶ `placed`
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TypeVar

from nodeserver.core.filemessages import FetchFiles, FileBlocks, FileMessage, FilesFailed
from nodeserver.core.transfer import Incoming, window
from nodeserver.io.filesending import Key
from nodeserver.io.filetree import FileTree, NewFile, as_reason, shown
from nodeserver.wire.manifest import FileEntry

T = TypeVar('T')

Placed = Callable[[Key, str], None]
"""Told at the end of a transfer: why it failed, '' if all files lie in their places."""

Elsewhere = Callable[[FileEntry], int]
"""Opens a copy of a file that is on this machine already; -1 if there is none.  In a thread."""


class _Arrival:
    """One transfer on its way."""

    def __init__(
        self, fetching: int, tree: FileTree, entries: Sequence[FileEntry], elsewhere: Elsewhere
    ) -> None:
        self.fetching = fetching
        self._tree, self._entries, self._elsewhere = tree, entries, elsewhere
        self._sizes = [entry.size for entry in entries]
        self._file: NewFile | None = None
        self.incoming = Incoming(self._sizes, ())
        self.is_over = False  # nobody wants it any more
        self.window = 0  # bytes that may be on their way
        self.ungranted = 0  # bytes that are to come and were not asked for
        self.owed = 0  # bytes that were written since more were asked for

    def look(self) -> list[int]:
        """Find what is to be fetched; in a thread."""
        wanted = [
            place
            for place, entry in enumerate(self._entries)
            if not self.is_over and not self._tree.has(entry) and not self._copy(entry)
        ]
        self.incoming = Incoming(self._sizes, wanted)
        self.ungranted = sum(self._sizes[file] for file in wanted)
        return wanted

    def _copy(self, entry: FileEntry) -> bool:
        fd = self._elsewhere(entry)
        return fd >= 0 and self._tree.copy(fd, entry)

    def write(self, message: FileBlocks) -> tuple[int, bool]:
        """Write pieces to their places; in a thread.  How many bytes, and whether it was all."""
        for file, offset, content in zip(
            message.ids, message.offsets, message.contents, strict=True
        ):
            if self.is_over:
                break
            is_last = self.incoming.take(file, offset, len(content))
            if is_last and not offset:
                self._tree.put(self._entries[file], content)
                continue
            if not offset:
                self._file = self._tree.begin(self._entries[file])
            assert self._file is not None
            self._file.write(content)
            if is_last:
                self._file.finish()
                self._file = None
        return sum(map(len, message.contents)), self.incoming.is_done

    def close(self) -> None:
        """Leave no half of a file, and no descriptor; in the thread."""
        if self._file is not None:
            self._file.abandon()
        self._tree.close()


class FileReceiver:
    """Fetches files and puts them into directories."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        say: Callable[[FileMessage], None],
        placed: Placed,
        makes_roots: bool = False,
    ) -> None:
        self._loop, self._say, self._placed = loop, say, placed
        self._makes_roots = makes_roots
        self._thread: ThreadPoolExecutor | None = None
        self._arrivals: dict[Key, _Arrival] = {}
        self._fetchings = count(1)

    def place(
        self,
        key: Key,
        root: Path,
        entries: Sequence[FileEntry],
        elsewhere: Elsewhere,
        base: Path | None = None,
    ) -> None:
        """Have these files in a directory; `placed` is told.  `FileTree` says what `base` is."""
        tree = FileTree(root, self._makes_roots, base)
        arrival = _Arrival(next(self._fetchings), tree, entries, elsewhere)
        self._arrivals[key] = arrival
        self._run(arrival.look, lambda wanted: self._looked(key, arrival, wanted), key, arrival)

    def blocks(self, message: FileBlocks) -> None:
        """Take pieces; those of a transfer that has ended are dropped."""
        key, arrival = self._meant(message)
        if arrival is not None:
            self._run(
                lambda: arrival.write(message),
                lambda written: self._written(key, arrival, *written),
                key,
                arrival,
            )

    def fail(self, message: FilesFailed) -> None:
        """End a transfer, because of the other side."""
        key, arrival = self._meant(message)
        if arrival is not None:
            self._end(key, arrival, message.reason)

    def _meant(self, message: FileBlocks | FilesFailed) -> tuple[Key, _Arrival | None]:
        """The transfer that this belongs to; None if it has ended, or was begun anew since."""
        key = (message.computation, message.node, message.transfer)
        arrival = self._arrivals.get(key)
        is_any = isinstance(message, FilesFailed) and not message.fetching
        if arrival is None or not (is_any or arrival.fetching == message.fetching):
            return key, None
        return key, arrival

    def forget(self, wanted: Callable[[Key], bool]) -> None:
        """End the transfers that are meant; nobody is told."""
        for key in [key for key in self._arrivals if wanted(key)]:
            arrival = self._arrivals.pop(key)
            arrival.is_over = True
            self._in_thread(arrival.close)

    def close(self) -> None:
        """End everything."""
        self.forget(lambda key: True)
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def then(self, function: Callable[[], None]) -> 'asyncio.Future[None]':
        """Do something in the thread, after all that was given to it."""
        return self._in_thread(function)

    def _run(
        self,
        function: Callable[[], T],
        then: Callable[[T], None],
        key: Key,
        arrival: _Arrival,
    ) -> None:
        """Do a part of a transfer in the thread; what it raises ends the transfer."""

        def done(future: 'asyncio.Future[T]') -> None:
            error = future.exception()
            if self._arrivals.get(key) is not arrival:
                return
            if error is None:
                then(future.result())
            else:
                self._end(key, arrival, as_reason(error, 'a file could not be stored'))

        self._in_thread(function).add_done_callback(done)

    def _in_thread(self, function: Callable[[], T]) -> 'asyncio.Future[T]':
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, 'dispy-write')
        return self._loop.run_in_executor(self._thread, function)

    def _looked(self, key: Key, arrival: _Arrival, wanted: list[int]) -> None:
        if wanted:
            arrival.window = window(len(self._arrivals))
            self._grant(key, arrival, wanted, arrival.window)
        else:
            self._end(key, arrival, '')

    def _written(self, key: Key, arrival: _Arrival, count: int, is_all: bool) -> None:
        if is_all:
            self._end(key, arrival, '')
            return
        arrival.owed += count
        if arrival.ungranted and arrival.owed >= arrival.window // 4:
            self._grant(key, arrival, [], arrival.owed)

    def _grant(self, key: Key, arrival: _Arrival, wanted: list[int], credit: int) -> None:
        arrival.owed = 0
        arrival.ungranted = max(0, arrival.ungranted - credit)
        self._say(FetchFiles(*key, wanted, credit, arrival.fetching))

    def _end(self, key: Key, arrival: _Arrival, reason: str) -> None:
        del self._arrivals[key]
        closed = self._in_thread(arrival.close)
        closed.add_done_callback(lambda _: self._placed(key, reason))


def refusal(entries: Sequence[FileEntry], limit: int, who: str) -> str:
    """Say which file is above a limit, if one is (K11)."""
    for entry in entries:
        if 0 < limit < entry.size:
            return (
                f'{shown(entry.path)} has {entry.size:,} bytes and {who} takes files of at most '
                f'{limit:,}: start dispynode with a larger --max_file_size'
            )
    return ''
