"""Files in memory: what a job prints, and packages on their way to a template (Linux)."""

import ctypes
import os

from nodeserver.io.sealedfile import SealedFile, write
from nodeserver.wire.packed import Buffer

HEAD = 1 << 20  # bytes kept of the beginning of a job's output
TAIL = 1 << 20  # and of its end
_SLACK = 1 << 20
_BLOCK = 4096
# FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE: the writer notices nothing
_PUNCH = 3

libc = ctypes.CDLL(None, use_errno=True)


def file_of(data: Buffer | SealedFile, name: str) -> int:
    """Make a memory file that holds this, and answer its descriptor."""
    if isinstance(data, SealedFile):
        return os.dup(data.fd)
    fd = os.memfd_create(name)
    write(fd, [memoryview(data)])
    return fd


def read_text(fd: int, size: int) -> str:
    """Read what was printed: all of it, or the beginning and the end of very much."""
    if size <= HEAD + TAIL + _SLACK:
        return read(fd, 0, size).decode('utf-8', 'replace')
    head = read(fd, 0, HEAD).decode('utf-8', 'replace')
    tail = read(fd, size - TAIL, TAIL).decode('utf-8', 'replace')
    return f'{head}\n[... {size - HEAD - TAIL:,} bytes are left out here ...]\n{tail}'


def give_back_middle(fd: int, size: int) -> None:
    """Free the memory of what `read_text` will leave out; the file keeps its size."""
    end = (size - TAIL - _SLACK) // _BLOCK * _BLOCK
    if end > HEAD:
        libc.fallocate(fd, _PUNCH, ctypes.c_int64(HEAD), ctypes.c_int64(end - HEAD))


def read(fd: int, start: int, count: int) -> bytes:
    """Read so many bytes from there on, or what there is."""
    pieces = []
    while count and (piece := os.pread(fd, count, start)):
        pieces.append(piece)
        start += len(piece)
        count -= len(piece)
    return b''.join(pieces)
