"""Several buffers as one payload: large ones are copied once at most, and used where they lie.

    0 | count | size, place | size, place | ... | buffer | buffer | ...

The first byte begins neither a pickle nor an outcome.  Each buffer starts at a multiple of 64.
One with a `place` is not here: it is the shared data that the job names there, counted from 1.
"""

import struct
from collections.abc import Sequence
from mmap import mmap
from typing import NamedTuple

from nodeserver.core.errors import ProtocolError

ALIGNMENT = 64
LARGE = 1 << 20  # bytes from which a buffer is worth a file or a mapping of its own
LARGEST = 4000 << 20  # bytes of one payload: links carry 4 GiB, with what belongs around it
_MARK = 0
_HEAD = struct.Struct('<B3xI')
_ROW = struct.Struct('<QI4x')
_MOST_BUFFERS = 1 << 20

Buffer = bytes | bytearray | memoryview | mmap


class Elsewhere(NamedTuple):
    """A buffer that travels apart, as shared data."""

    size: int
    place: int  # in the job's list of shared data, counted from 1


class Packed:
    """A payload in pieces that are still to be joined, or written one after the other."""

    __slots__ = ('pieces', 'size')

    def __init__(self, pieces: list[bytes | memoryview]) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))

    def __len__(self) -> int:
        return self.size

    def join(self) -> bytes:
        """Make one object of it."""
        return b''.join(self.pieces)


Part = bytes | memoryview | Packed | Elsewhere


def pack(parts: Sequence[Part]) -> Packed:
    """Lay out a payload; nothing is copied yet."""
    rows = [
        (part.size, part.place) if isinstance(part, Elsewhere) else (len(part), 0) for part in parts
    ]
    pieces: list[bytes | memoryview] = [_HEAD.pack(_MARK, len(parts))]
    pieces += [_ROW.pack(*row) for row in rows]
    at = _HEAD.size + _ROW.size * len(rows)
    for part in parts:
        if isinstance(part, Elsewhere):
            continue
        pieces.append(bytes(-at % ALIGNMENT))
        pieces += part.pieces if isinstance(part, Packed) else [part]
        at += -at % ALIGNMENT + len(part)
    return Packed(pieces)


def is_packed(data: Buffer) -> bool:
    """Whether this is a payload that `pack` laid out."""
    return len(data) > 0 and data[0] == _MARK


def unpack(data: Buffer, elsewhere: Sequence[Buffer] = ()) -> list[memoryview]:
    """Find the buffers of a payload, those of `elsewhere` in their places."""
    view = memoryview(data)
    found = []
    at = _table_end(view)
    for number in range(_count(view)):
        size, place = _ROW.unpack_from(view, _HEAD.size + _ROW.size * number)
        if place:
            found.append(_from_elsewhere(size, place, elsewhere))
            continue
        at += -at % ALIGNMENT
        if at + size > len(view):
            raise ProtocolError(f'a payload of {len(view)} bytes ends within its buffer {number}')
        found.append(view[at : at + size])
        at += size
    return found


def filled_in(data: Buffer, elsewhere: Sequence[Buffer]) -> Packed:
    """Lay the payload out again with its shared data inside."""
    return pack(unpack(data, elsewhere))


def _count(view: memoryview) -> int:
    if len(view) < _HEAD.size:
        raise ProtocolError(f'a payload of {len(view)} bytes came in')
    count: int = _HEAD.unpack_from(view)[1]
    return count


def _table_end(view: memoryview) -> int:
    count = _count(view)
    end = _HEAD.size + _ROW.size * count
    if count > _MOST_BUFFERS or end > len(view):
        raise ProtocolError(f'a payload of {len(view)} bytes claims to have {count} buffers')
    return end


def _from_elsewhere(size: int, place: int, elsewhere: Sequence[Buffer]) -> memoryview:
    view = memoryview(elsewhere[place - 1]) if place <= len(elsewhere) else memoryview(b'')
    if len(view) != size:
        raise ProtocolError(f'shared data {place} has {len(view)} bytes instead of {size}')
    return view
