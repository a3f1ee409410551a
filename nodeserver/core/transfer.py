"""How files are moved: what is sent next, and what may arrive; pure, for both directions.

The receiver grants bytes, the sender uses them up: neither holds more of a file than that in
memory, whatever its size.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from nodeserver.core.errors import ProtocolError

PIECE = (1 << 20) - (64 << 10)  # bytes of a file that go as one part
BLOCK = 4 * PIECE  # bytes of files in one message
MOST_PIECES = 1000  # of small files in one message
WINDOW = 12 << 20  # bytes that a receiver lets come before it has written the first of them

BUDGET = 48 << 20  # the same of all transfers to one receiver


def window(transfers: int) -> int:
    """How much a receiver lets come of one of so many transfers."""
    return min(WINDOW, max(PIECE, BUDGET // transfers))


Piece = tuple[int, int, int]  # file, offset, length


class Outgoing:
    """What a receiver asked for of the files that were offered to it."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._left: deque[int] = deque()
        self._at = 0  # in the first of these
        self._credit = 0

    def grant(self, wanted: Iterable[int], credit: int) -> None:
        """Take in a wish; a file that was not offered is none."""
        self._left.extend(file for file in wanted if 0 <= file < len(self._sizes))
        self._credit += max(0, credit)

    @property
    def is_done(self) -> bool:
        """Whether all that was asked for has been taken."""
        return not self._left

    def take(self) -> list[Piece]:
        """The pieces of the next message; none if nothing may be sent now."""
        pieces: list[Piece] = []
        room = min(BLOCK, self._credit)
        while self._left and len(pieces) < MOST_PIECES:
            file = self._left[0]
            missing = self._sizes[file] - self._at
            length = min(missing, room, PIECE)
            if missing and not length:
                break
            pieces.append((file, self._at, length))
            room -= length
            self._credit -= length
            self._at += length
            if self._at == self._sizes[file]:
                self._left.popleft()
                self._at = 0
        return pieces


class Incoming:
    """What is to arrive of files that were asked for, in this order."""

    def __init__(self, sizes: Sequence[int], wanted: Iterable[int]) -> None:
        self._sizes = sizes
        self._left = deque(wanted)
        self._at = 0

    @property
    def is_done(self) -> bool:
        """Whether all files have arrived."""
        return not self._left

    def take(self, file: int, offset: int, length: int) -> bool:
        """Take in a piece; whether it is the last one of its file.

        Raises
        ------
        ProtocolError
            It is not the piece that was to come.
        """
        if not self._left or file != self._left[0] or offset != self._at:
            raise ProtocolError('a piece of a file came that was not to come now')
        if length > self._sizes[file] - self._at:
            raise ProtocolError('more of a file came than it has')
        self._at += length
        if self._at < self._sizes[file]:
            return False
        self._left.popleft()
        self._at = 0
        return True
