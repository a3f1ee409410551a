"""Files in memory: what a job prints, packages, and large payloads to and from jobs (Linux).

A *sealed* file cannot be changed by anybody any more: it can be mapped by many processes that
do not trust each other.
"""

import ctypes
import fcntl
import os
from collections.abc import Sequence
from mmap import MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap
from typing import Final

from nodeserver.wire.bulk import MemorySink, Sink
from nodeserver.wire.packed import Buffer

HEAD = 1 << 20  # bytes kept of the beginning of a job's output
TAIL = 1 << 20  # and of its end
_SLACK = 1 << 20
_BLOCK = 4096
# FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE: the writer notices nothing
_PUNCH = 3

_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034  # of <linux/fcntl.h>: `fcntl` has them on Linux only
_SEALS: Final = 0xF  # no sealing, shrinking, growing, writing from now on
_FLAGS = 3  # MFD_CLOEXEC | MFD_ALLOW_SEALING
_MOST_PIECES = 1000  # of one `writev`

libc = ctypes.CDLL(None, use_errno=True)


class SealedFile:
    """A large payload in a sealed file; it is closed when nobody refers to it any more."""

    __slots__ = ('fd', 'size')

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f'<SealedFile of {self.size} bytes>'

    def __del__(self) -> None:
        os.close(self.fd)

    def mapped(self) -> mmap:
        """Have it as bytes."""
        return mmap(self.fd, self.size, MAP_SHARED, PROT_READ)


class FileSink:
    """Takes a payload in parts, as they arrive, and ends as a sealed file."""

    def __init__(self, size: int) -> None:
        self._file = SealedFile(os.memfd_create('payload', _FLAGS), size)

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece."""
        _write(self._file.fd, [piece])

    def finish(self) -> SealedFile:
        """Seal it."""
        seal(self._file.fd)
        return self._file


def payload_sink(size: int) -> Sink:
    """Gather a payload in a file, or in memory if there are too many files open."""
    try:
        return FileSink(size)
    except (OSError, AttributeError):
        return MemorySink(size)


def file_of(data: Buffer | SealedFile, name: str) -> int:
    """Make a memory file that holds this, and answer its descriptor."""
    if isinstance(data, SealedFile):
        return os.dup(data.fd)
    fd = os.memfd_create(name)
    _write(fd, [memoryview(data)])
    return fd


def sealed(pieces: Sequence[bytes | memoryview], name: str) -> int:
    """Make a sealed memory file of the pieces, and answer its descriptor."""
    fd = os.memfd_create(name, _FLAGS)
    try:
        for start in range(0, len(pieces), _MOST_PIECES):
            _write(fd, pieces[start : start + _MOST_PIECES])
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """Keep the file as it is, for ever."""
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)


def map_privately(fd: int) -> mmap:
    """Map a file that was passed to this process; what is written there stays here."""
    try:
        return mmap(fd, 0, MAP_PRIVATE, PROT_READ | PROT_WRITE)
    finally:
        os.close(fd)


def map_sealed(fd: int) -> mmap:
    """Map a file that came from a job, which could else shrink it under our hands."""
    try:
        if fcntl.fcntl(fd, _F_GET_SEALS) != _SEALS:
            raise OSError('the file is not sealed')
        return mmap(fd, 0, MAP_SHARED, PROT_READ)
    finally:
        os.close(fd)


def _write(fd: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Write all of at most `_MOST_PIECES` pieces, none of them empty at the end."""
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        sent = os.writev(fd, left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


def read_text(fd: int, size: int) -> str:
    """Read what was printed: all of it, or the beginning and the end of very much."""
    if size <= HEAD + TAIL + _SLACK:
        return _read(fd, 0, size).decode('utf-8', 'replace')
    head = _read(fd, 0, HEAD).decode('utf-8', 'replace')
    tail = _read(fd, size - TAIL, TAIL).decode('utf-8', 'replace')
    return f'{head}\n[... {size - HEAD - TAIL:,} bytes are left out here ...]\n{tail}'


def give_back_middle(fd: int, size: int) -> None:
    """Free the memory of what `read_text` will leave out; the file keeps its size."""
    end = (size - TAIL - _SLACK) // _BLOCK * _BLOCK
    if end > HEAD:
        libc.fallocate(fd, _PUNCH, ctypes.c_int64(HEAD), ctypes.c_int64(end - HEAD))


def _read(fd: int, start: int, count: int) -> bytes:
    pieces = []
    while count and (piece := os.pread(fd, count, start)):
        pieces.append(piece)
        start += len(piece)
        count -= len(piece)
    return b''.join(pieces)
