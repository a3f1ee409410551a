"""Sealed memory files: large payloads, used where they lie by several processes (Linux).

A sealed file cannot be changed by anybody any more, so that processes which do not trust each
other can map it.  It is passed on as a descriptor (to jobs), or as its *place*, which a peer of
the same user on this machine can open: `pid:descriptor:inode:size`.
"""

import ctypes
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from nodeserver.wire.bulk import InFile, MemorySink, Sink
from nodeserver.wire.packed import LARGEST

if sys.platform == 'linux':
    import fcntl

AVAILABLE: Final = sys.platform == 'linux'
_SEALS: Final = 0xF  # no sealing, shrinking, growing, writing from now on
_FLAGS = 3  # MFD_CLOEXEC | MFD_ALLOW_SEALING
_MOST_PIECES = 1000  # of one `writev`
_READ_WRITE, _PRIVATE = 3, 2  # of <sys/mman.h>
_FAILED: Final = ctypes.c_void_p(-1).value


class SealedFile(InFile):
    """A payload in a sealed file; it is closed when nobody refers to it any more."""

    __slots__ = ('_view', 'fd', 'size')

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._view: memoryview | None = None

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f'<SealedFile of {self.size} bytes>'

    def __del__(self) -> None:
        os.close(self.fd)

    @property
    def place(self) -> str:
        """Where another process can open it."""
        return f'{os.getpid()}:{self.fd}:{os.fstat(self.fd).st_ino}:{self.size}'

    def mapped(self) -> memoryview:
        """Have it as bytes; what is written there is not seen by others."""
        if self._view is None:
            self._view = map_privately(self.fd, self.size)
        return self._view


class FileSink:
    """Takes a payload in parts, as they arrive, and ends as a sealed file."""

    def __init__(self, size: int) -> None:
        self._file = SealedFile(_new('payload'), size)

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece."""
        write(self._file.fd, [piece])

    def finish(self) -> SealedFile:
        """Seal it."""
        _seal(self._file.fd)
        return self._file


class FileExchange:
    """What a program does with the files of its peers on this machine."""

    def __init__(self, use: Callable[[SealedFile], Any]) -> None:
        self._use = use
        self._probe: SealedFile | None = None
        with suppress(OSError):
            self._probe = sealed([os.urandom(16)], 'probe')

    @property
    def probe(self) -> str:
        """Place of a small file: who can open it, can open all others of ours."""
        return self._probe.place if self._probe is not None else ''

    def can_open(self, place: str) -> bool:
        """Whether the files of a peer with this probe are within reach."""
        try:
            open_place(place)
        except (OSError, ValueError):
            return False
        return True

    def open(self, place: str) -> Any:
        """Take over a file of a peer."""
        return self._use(open_place(place))

    def close(self) -> None:
        """Close the probe."""
        self._probe = None


def for_other_processes(file: SealedFile) -> SealedFile:
    """Use of a node: its jobs map the file."""
    return file


def for_this_process(file: SealedFile) -> memoryview:
    """Use of a client: no descriptor stays open for a result, however many a program keeps."""
    return file.mapped()


def payload_sink(size: int) -> Sink:
    """Gather a payload in a file, or in memory if there are too many files open."""
    try:
        return FileSink(size)
    except OSError:
        return MemorySink(size)


def sealed(pieces: Sequence[bytes | memoryview], name: str) -> SealedFile:
    """Make a sealed file of the pieces; OSError where that is not possible (now)."""
    file = SealedFile(_new(name), sum(map(len, pieces)))
    for start in range(0, len(pieces), _MOST_PIECES):
        write(file.fd, pieces[start : start + _MOST_PIECES])
    _seal(file.fd)
    return file


def taken_over(fd: int) -> SealedFile:
    """Have a file that came from elsewhere, whose owner could else shrink it under our hands."""
    file = SealedFile(fd, os.fstat(fd).st_size)
    if not AVAILABLE or fcntl.fcntl(fd, fcntl.F_GET_SEALS) != _SEALS:
        raise OSError('the file is not sealed')
    return file


def open_place(place: str) -> SealedFile:
    """Open a file of another process by its place; OSError or ValueError if it is not there."""
    pid, fd, inode, size = map(int, place.split(':'))
    file = taken_over(os.open(f'/proc/{pid}/fd/{fd}', os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    # the number may be another process's by now, or in another name space
    if (os.fstat(file.fd).st_ino, file.size) != (inode, size) or size > LARGEST + 4096:
        raise OSError('another file is at that place')
    return file


def map_privately(fd: int, size: int) -> memoryview:
    """Map a file so that it can be written here, unseen by others; `fd` may be closed then.

    Python's own `mmap` would keep a descriptor open for each.
    """
    address = _mmap(None, size, _READ_WRITE, _PRIVATE, fd, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _munmap, address, size).atexit = False
    return memoryview(memory).cast('B')


def write(fd: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Append at most `_MOST_PIECES` pieces to a file."""
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        sent = os.writev(fd, left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


def _new(name: str) -> int:
    if not AVAILABLE:
        raise OSError('this system has no sealed files')
    return os.memfd_create(name, _FLAGS)


def _seal(fd: int) -> None:
    if AVAILABLE:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


if AVAILABLE:
    _libc = ctypes.CDLL(None, use_errno=True)
    _mmap, _munmap = _libc.mmap, _libc.munmap
    _mmap.restype = ctypes.c_void_p
    _mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    _munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def file_with(data: Any) -> SealedFile:
    """Have shared data as a file; what is small comes without one."""
    return data if isinstance(data, SealedFile) else sealed([memoryview(data)], 'shared')


def content_of(data: Any) -> Any:
    """Have shared data as bytes."""
    return data.mapped() if isinstance(data, SealedFile) else data
