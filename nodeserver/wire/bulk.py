"""Large messages in parts, so that neither a pulse waits for them nor a frame meets a limit.

frames ─ split ─▶ BULK [sizes], PART [pieces], PART [pieces] ... ─▶ Assembler ─▶ frames
                                                                  └▶ Sink of a large frame
"""

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import INSIDE_LIMIT, MALFORMED, Frame
from nodeserver.wire.envelope import Kind
from nodeserver.wire.packed import LARGE

_SIZES = msgspec.msgpack.Decoder(list[int])
_ENCODER = msgspec.msgpack.Encoder()
_NO_MEMORY = (MemoryError, OSError)  # the system says it by a code where it maps files


class Sink(Protocol):
    """Where a large frame is gathered: memory, or a file that is passed on."""

    def write(self, piece: Frame, /) -> None:
        """Append a piece; their sizes were checked."""

    def finish(self) -> Any:
        """Answer with the whole frame, once the last piece is there."""


class InFile:
    """A frame that lies in a file, which a peer on this machine can open itself."""

    __slots__ = ('__weakref__',)

    @property
    def place(self) -> str:
        """Where the peer finds it."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def mapped(self) -> memoryview:
        """Have it as bytes, for other peers."""
        raise NotImplementedError


class FileAccess(Protocol):
    """The way to files of peers on this machine."""

    @property
    def probe(self) -> str:
        """Place of a file of ours."""

    def can_open(self, place: str) -> bool:
        """Whether a peer's probe is within reach."""

    def open(self, place: str) -> Any:
        """Have a frame that a peer has placed; OSError or ValueError if it is not there."""

    def close(self) -> None:
        """Close the probe; called by the link that ends."""


class MemorySink:
    """Gathers a frame in memory that can be written: arrays are used where they came to lie."""

    def __init__(self, size: int) -> None:
        self._memory = private_memory(size, mmap.mmap)
        self._at = 0

    def write(self, piece: Frame) -> None:
        """Append a piece."""
        end = self._at + len(piece)
        self._memory[self._at : end] = piece
        self._at = end

    def finish(self) -> memoryview:
        """Answer with the memory."""
        return memoryview(self._memory)


Memory = TypeVar('Memory', bound=mmap.mmap)


def private_memory(size: int, kind: type[Memory]) -> Memory:
    """Have zeroed memory, in large pages where the system has them: they take a quarter of time."""
    if not hasattr(mmap, 'MAP_PRIVATE'):  # Windows
        return kind(-1, size)
    memory = kind(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, 'MADV_HUGEPAGE'):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def split(frames: Sequence[Frame], part_size: int) -> Iterator[tuple[Kind, list[Frame]]]:
    """Yield the announcement, then parts of at most `part_size` bytes; nothing is copied."""
    yield Kind.BULK, [_ENCODER.encode([len(frame) for frame in frames])]
    pieces: list[Frame] = []
    room = part_size
    for frame in frames:
        view = memoryview(frame)
        while len(view):
            piece, view = view[:room], view[room:]
            pieces.append(piece)
            room -= len(piece)
            # the next frame begins a part of its own where hardly anything of it would fit
            if not room or (not len(view) and room <= part_size // 16):
                yield Kind.PART, pieces
                pieces, room = [], part_size
    if pieces:
        yield Kind.PART, pieces


class _Assembly:
    """Puts one announced message together; memory is taken only as its parts arrive."""

    def __init__(self, announcement: Frame, largest: int, sink: Callable[[int], Sink]) -> None:
        try:
            self._sizes = _SIZES.decode(announcement)
        except MALFORMED as error:
            raise ProtocolError(f'a malformed announcement: {error}') from error
        total = sum(self._sizes)
        if not self._sizes or min(self._sizes) <= 0:
            raise ProtocolError('a message with empty frames was announced')
        if total > largest:
            raise ProtocolError(f'a message of {total} bytes was announced, {largest} are allowed')
        if len(self._sizes) > 2 + total // INSIDE_LIMIT:
            raise ProtocolError(f'{len(self._sizes)} frames were announced for {total} bytes')
        self._make_sink = sink
        self._frames: list[Any] = []
        self._is_shed = False
        self._begin_frame()

    def _begin_frame(self) -> None:
        size = self._size = self._missing = self._sizes[len(self._frames)]
        self._pieces: list[Frame] = []
        self._sink: Sink | None = None
        # the message itself and the places of its payloads are read here, however large they are
        is_payload = len(self._frames) >= 2
        if is_payload and size >= LARGE and not self._is_shed:
            try:
                self._sink = self._make_sink(size)
            except _NO_MEMORY:
                self.shed()

    def add(self, pieces: Sequence[Frame]) -> list[Any] | None:
        """Take a part's pieces; answers with all frames once the last byte is there."""
        for piece in pieces:
            if not len(piece) or len(piece) > self._missing:
                raise ProtocolError('a part does not fit what was announced')
            if not self._is_shed:
                self._take(piece)
            self._missing -= len(piece)
            if not self._missing:
                self._finish_frame()
        return self._frames if len(self._frames) == len(self._sizes) else None

    def _take(self, piece: Frame) -> None:
        try:
            if self._sink is None:
                # a piece that is the whole frame stays where it came to lie
                self._pieces.append(piece if len(piece) == self._size else bytes(piece))
            else:
                self._sink.write(piece)
        except _NO_MEMORY:
            self.shed()

    def shed(self) -> None:
        """Give up the payloads, for want of memory; the message itself, small, will arrive."""
        self._is_shed = True
        self._sink = None
        self._pieces.clear()
        self._frames[2:] = [b''] * len(self._frames[2:])

    def _joined(self) -> Frame:
        return self._pieces[0] if len(self._pieces) == 1 else b''.join(self._pieces)

    def _finish_frame(self) -> None:
        whole: Any = b''
        if not self._is_shed:
            try:
                whole = self._joined() if self._sink is None else self._sink.finish()
            except _NO_MEMORY:
                self.shed()
        self._frames.append(whole)
        if len(self._frames) < len(self._sizes):
            self._begin_frame()


class Assembler:
    """Takes the bulk lane's envelopes in order and answers with whole messages' frames."""

    def __init__(self, largest: int, sink: Callable[[int], Sink] = MemorySink) -> None:
        self._largest = largest
        self._sink = sink
        self._current: _Assembly | None = None

    def take(self, kind: int, frames: Sequence[Frame]) -> list[Any] | None:
        """Take an announcement or a part, without header; all frames after the last part."""
        if kind == Kind.BULK:
            if self._current is not None:
                raise ProtocolError('a message was announced inside another')
            self._current = _Assembly(frames[0], self._largest, self._sink)
            return None
        if self._current is None:
            raise ProtocolError('a part came in that nobody announced')
        whole = self._current.add(frames[1:])
        if whole is not None:
            self._current = None
        return whole

    def shed(self) -> None:
        """Free what was gathered of the current message: its payloads arrive empty."""
        if self._current is not None:
            self._current.shed()
