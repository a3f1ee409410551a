"""Large arguments of a cluster's jobs: each content travels once, however many jobs have it (Z11).

    submit ── buffer ──▶ the same as before? ── no ──▶ a copy, DataShared ──▶ scheduler
                               └── yes: its id ──▶ the job names it
    the last job that names it has ended, and it is not kept ──▶ DataDropped

An array is recognised by its place in memory *and* its content: the user may have changed it.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from mmap import ACCESS_COPY, mmap
from pickle import PickleBuffer
from typing import Any

from dispy_nb.rawmemory import address_of, copy_of, equal
from nodeserver.beside import BESIDE
from nodeserver.core.errors import ClusterClosed, UsageError
from nodeserver.core.events import DataDropped, DataShared, Event
from nodeserver.io.sealedfile import SealedFile, sealed
from nodeserver.payload import dump_value, load_value
from nodeserver.wire.packed import LARGE, Packed

KEPT = 512 << 20  # bytes of copies that are kept to recognise an argument, beyond those in use


MOST_FILES = 100  # that one cluster has open; more data than that lie in ordinary memory

Content = bytes | memoryview | SealedFile


class _Blob(mmap):
    """The memory of a shared value; it knows whose it is."""

    book: 'DataBook'
    data: int
    file: SealedFile | None  # that it maps, if it is one


class Shared:
    """A value that jobs share, made by `JobCluster.share`: they get the value itself.

    Its memory is freed when nobody refers to it any more and no job needs it.
    """

    __slots__ = ('__weakref__', '_blob', '_kind')

    def __init__(self, blob: _Blob, kind: str) -> None:
        self._blob = blob
        self._kind = kind

    @property
    def size(self) -> int:
        """Bytes that travel to each node."""
        return len(self._blob)

    def __repr__(self) -> str:
        return f'<Shared {self._kind} of {self.size / 1e6:.1f} MB>'

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[PickleBuffer]]:
        return load_value, (PickleBuffer(self._blob),)


def _blob_of(packed: Packed, has_room: bool) -> _Blob:
    """Lay a shared value out, in a file that nodes of this machine map too, or in memory."""
    if has_room and len(packed) >= LARGE:
        with suppress(OSError):
            file = sealed(packed.pieces, 'shared')
            # writable: what is read-only here would be read-only, and so copied, in the jobs
            blob = _Blob(file.fd, file.size, access=ACCESS_COPY)
            blob.file = file
            return blob
    blob = copy_of(packed.pieces, max(len(packed), BESIDE), _Blob)
    blob.file = None
    return blob


def _kept(buffer: memoryview, has_room: bool) -> Content:
    """Have the content of an argument as it is now; `bytes` never change."""
    owner = buffer.obj
    if isinstance(owner, bytes) and len(owner) == len(buffer):
        return owner
    if has_room:
        with suppress(OSError):
            return sealed([buffer], 'argument')
    return memoryview(copy_of([buffer], len(buffer), mmap))


def _in_memory(content: Content) -> bytes | memoryview:
    return content.mapped() if isinstance(content, SealedFile) else content


class _Entry:
    """One content, its id, and who still wants it."""

    __slots__ = ('content', 'id', 'key', 'owner', 'shared', 'users')

    def __init__(self, number: int, content: Content) -> None:
        self.id = number
        self.content = content
        self.users = 0  # jobs that name it
        self.shared = False  # a `Shared` exists
        self.key = (0, 0)  # under which it is recognised, if it is
        self.owner: object = None  # weak reference to the object that has the memory


class DataBook:
    """The shared data of one cluster; called by any thread.

    `_entering` is held as long as an argument is looked at, `_lock` for moments only: the loop's
    thread never waits for a copy to be made.
    """

    def __init__(
        self, title: str, post: Callable[[Event], None], soon: Callable[[Callable[[], None]], None]
    ) -> None:
        self._title = title
        self._post, self._soon = post, soon
        self._entering = threading.Lock()
        self._lock = threading.Lock()
        self._count = 0
        self._entries: dict[int, _Entry] = {}
        self._known: dict[tuple[int, int], _Entry] = {}  # by address and size; oldest use first
        self._kept = 0  # bytes of these
        self._abandoned: deque[int] = deque()  # ids whose owner or `Shared` is gone
        self._closed = False
        self.of_jobs: dict[int, list[int]] = {}  # by job, of those jobs that have data

    def resume(self, contents: Mapping[int, bytes], of_jobs: Mapping[int, list[int]]) -> None:
        """Go on with the data of a program that was killed, each named by one of these jobs."""
        with self._lock:
            for data, content in contents.items():
                self._entries[data] = _Entry(data, content)
                self._count = max(self._count, data)
            for job, named in of_jobs.items():
                self.of_jobs[job] = named
                for data in named:
                    self._entries[data].users += 1

    # arguments

    def divert(self, buffer: memoryview, named: list[int]) -> int:
        """Take a large buffer of a job over; its place among the data that the job names."""
        is_shared = isinstance(buffer.obj, _Blob)
        if len(buffer) < LARGE and not is_shared:
            return 0
        data = self._name_shared(buffer.obj) if is_shared else self._name(buffer)
        if data in named:
            self._let_go([data])
        else:
            named.append(data)
        return named.index(data) + 1

    def assign(self, job: int, named: list[int]) -> None:
        """Note what a job that was submitted names."""
        self.of_jobs[job] = named

    def settle(self, job: int) -> None:
        """A job has ended and needs its data no more."""
        named = self.of_jobs.pop(job, None)
        if named:
            self._let_go(named)

    def give_up(self, job: int, named: list[int]) -> None:
        """A job with these data was not submitted after all."""
        self.of_jobs.pop(job, None)
        self._let_go(named)

    def share(self, value: object, by_value: Iterable[str]) -> Shared:
        """Take a value over for as long as the answer exists, or a job that names it."""
        packed = dump_value(value, by_value)
        blob = _blob_of(packed, self._has_room())
        with self._lock:
            entry = self._enter(blob.file or memoryview(blob))
            entry.shared = True
        blob.book, blob.data = self, entry.id
        shared = Shared(blob, type(value).__name__)
        weakref.finalize(shared, self._abandon, entry.id).atexit = False
        self._tell_shared(entry)
        return shared

    def close(self) -> None:
        """Forget everything: the cluster is closed."""
        with self._lock:
            self._closed = True
            self._entries.clear()
            self._known.clear()
            self.of_jobs.clear()
            self._kept = 0

    # recognising

    def _name_shared(self, blob: Any) -> int:
        if blob.book is not self:
            theirs, ours = f'cluster {blob.book._title}', f'cluster {self._title}'
            if theirs == ours:
                theirs = f'another {ours}'
            raise UsageError(
                f'a value shared by {theirs} was given to {ours}: '
                'use what share() of the cluster that runs the job answers'
            )
        with self._lock:
            entry: _Entry | None = self._entries.get(blob.data)
            if entry is None:
                raise ClusterClosed(f'cluster {self._title} is closed: its values are gone')
            entry.users += 1
            return entry.id

    def _name(self, buffer: memoryview) -> int:
        with self._entering:
            entry = self._recognised(buffer)
            return entry.id if entry is not None else self._take(buffer)

    def _recognised(self, buffer: memoryview) -> _Entry | None:
        """Find what was the same memory before, if it has the same content still."""
        key = (address_of(buffer), len(buffer))
        with self._lock:
            entry = self._known.pop(key, None)
            if entry is None:
                return None
            self._known[key] = entry
            entry.users += 1
        content = entry.content
        if content is buffer.obj or equal(_in_memory(content), buffer):
            return entry
        self._let_go([entry.id])
        return None

    def _take(self, buffer: memoryview) -> int:
        """Make a copy, and send it on its way."""
        owner = buffer.obj
        content = _kept(buffer, self._has_room())
        with self._lock:
            if self._closed:
                raise ClusterClosed(f'cluster {self._title} is closed: no job can be submitted')
            entry = self._enter(content)
            entry.users = 1
            unused = self._remember(entry, (address_of(buffer), len(buffer)), owner)
        self._tell_shared(entry)
        self._tell_dropped(unused)
        return entry.id

    def _has_room(self) -> bool:
        """Whether it may open another file: the program needs its descriptors for itself."""
        return len(self._entries) < MOST_FILES

    def _enter(self, content: Content) -> _Entry:
        self._count += 1
        entry = self._entries[self._count] = _Entry(self._count, content)
        return entry

    def _remember(self, entry: _Entry, key: tuple[int, int], owner: object) -> list[int]:
        """Recognise it from now on, until its owner is gone or others crowd it out."""
        while isinstance(getattr(owner, 'base', None), type(owner)):  # a view of an array
            owner = owner.base  # type: ignore[attr-defined]
        with suppress(TypeError):  # bytes and the like cannot be watched
            entry.owner = weakref.ref(owner, lambda _: self._abandon(entry.id))
        before = self._known.pop(key, None)
        entry.key = key
        self._known[key] = entry
        self._kept += key[1]
        unused = self._forget(before, known=False) if before is not None else []
        for oldest in list(self._known.values()):
            if self._kept <= KEPT:
                break
            if not oldest.users:
                unused += self._forget(oldest)
        return unused

    def _forget(self, entry: _Entry, known: bool = True) -> list[int]:
        """Recognise an entry no more; its id is answered if nobody needs it otherwise."""
        if known:
            self._known.pop(entry.key, None)
        self._kept -= entry.key[1]
        entry.key = (0, 0)
        return self._free_if_unused(entry)

    def _free_if_unused(self, entry: _Entry) -> list[int]:
        if entry.users or entry.shared or entry.key[1]:
            return []
        return [entry.id] if self._entries.pop(entry.id, None) is not None else []

    # the end of it

    def _let_go(self, ids: Iterable[int]) -> None:
        """So many jobs less need these."""
        unused = []
        with self._lock:
            for data in ids:
                entry = self._entries.get(data)
                if entry is not None:
                    entry.users -= 1
                    unused += self._free_if_unused(entry)
        self._tell_dropped(unused)

    def _abandon(self, data: int) -> None:
        """An owner is gone; called at any moment in any thread, also while a lock is held."""
        if not self._closed:
            self._abandoned.append(data)
            with suppress(RuntimeError):  # the loop has ended
                self._soon(self._sweep)

    def _sweep(self) -> None:
        unused: list[int] = []
        with self._lock:
            while self._abandoned:
                entry = self._entries.get(self._abandoned.popleft())
                if entry is None:
                    continue
                entry.shared = False
                unused += self._forget(entry) if entry.key[1] else self._free_if_unused(entry)
        self._tell_dropped(unused)

    def _tell_shared(self, entry: _Entry) -> None:
        self._post(DataShared(entry.id, entry.content))  # type: ignore[arg-type]

    def _tell_dropped(self, ids: list[int]) -> None:
        if ids and not self._closed:
            with suppress(RuntimeError):  # the loop has ended
                self._post(DataDropped(ids))
