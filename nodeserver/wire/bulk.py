"""Large messages in parts, so that neither a pulse waits for them nor a frame meets a limit.

frames ─ split ─▶ BULK [sizes], PART [pieces], PART [pieces] ... ─▶ Assembler ─▶ frames
"""

from collections.abc import Iterator, Sequence

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import INSIDE_LIMIT, MALFORMED, Frame
from nodeserver.wire.envelope import Kind

_SIZES = msgspec.msgpack.Decoder(list[int])
_ENCODER = msgspec.msgpack.Encoder()


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
            if not room:
                yield Kind.PART, pieces
                pieces, room = [], part_size
    if pieces:
        yield Kind.PART, pieces


class _Assembly:
    """Puts one announced message together; memory is taken only as its parts arrive."""

    def __init__(self, announcement: Frame, largest: int) -> None:
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
        self._frames: list[bytes] = []
        self._pieces: list[Frame] = []
        self._missing = self._sizes[0]
        self._is_shed = False

    def add(self, pieces: Sequence[Frame]) -> list[bytes] | None:
        """Take a part's pieces; answers with all frames once the last byte is there."""
        for piece in pieces:
            if not len(piece) or len(piece) > self._missing:
                raise ProtocolError('a part does not fit what was announced')
            if not self._is_shed:
                self._pieces.append(piece)
            self._missing -= len(piece)
            if not self._missing:
                self._finish_frame()
        return self._frames if len(self._frames) == len(self._sizes) else None

    def shed(self) -> None:
        """Give up the payloads, for want of memory; the message itself, small, will arrive."""
        self._is_shed = True
        self._pieces.clear()
        self._frames[2:] = [b''] * len(self._frames[2:])

    def _finish_frame(self) -> None:
        try:
            self._frames.append(b''.join(self._pieces))
        except MemoryError:
            self.shed()
            self._frames.append(b'')
        self._pieces = []
        if len(self._frames) < len(self._sizes):
            self._missing = self._sizes[len(self._frames)]


class Assembler:
    """Takes the bulk lane's envelopes in order and answers with whole messages' frames."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._current: _Assembly | None = None

    def take(self, kind: int, frames: Sequence[Frame]) -> list[bytes] | None:
        """Take an announcement or a part, without header; all frames after the last part."""
        if kind == Kind.BULK:
            if self._current is not None:
                raise ProtocolError('a message was announced inside another')
            self._current = _Assembly(frames[0], self._largest)
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
