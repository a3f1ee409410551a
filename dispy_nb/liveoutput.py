"""What a running job has printed so far, as its node tells of it piece by piece."""

import codecs
from typing import NamedTuple

from nodeserver.core.outputmessages import STDERR

HEAD = 256 * 1024  # bytes kept of the beginning, where there is more than can be kept
TAIL = 256 * 1024  # and of the end, at least
_CONTINUED = bytes(range(0x80, 0xC0))  # within a character
_DECODER = codecs.getincrementaldecoder('utf-8')


class Pieces(NamedTuple):
    """What is kept of a stream; the lists are only ever appended to, behind what counts here."""

    head: list[bytes]
    tail: list[bytes] | None  # once something is left out
    counts: tuple[int, int]  # pieces of both
    sizes: tuple[int, int]  # bytes of both
    position: int  # in the stream, of what comes next


class LiveText:
    """One stream: all of it, or its beginning and its end; filled by one thread, read by any."""

    __slots__ = ('_kept',)

    def __init__(self, kept: Pieces | None = None) -> None:
        self._kept = kept or Pieces([], None, (0, 0), (0, 0), 0)

    def add(self, start: int, data: bytes) -> None:
        """Take in a piece; what lies between it and the one before is left out for now."""
        head, tail, counts, sizes, position = self._kept
        if start < position:
            return
        if start == position and tail is None and sizes[0] < HEAD:
            head.append(data)
            counts, sizes = (counts[0] + 1, 0), (sizes[0] + len(data), 0)
        elif start > position or tail is None:
            tail, counts, sizes = [data], (counts[0], 1), (sizes[0], len(data))
        else:
            tail.append(data)
            counts, sizes = (counts[0], counts[1] + 1), (sizes[0], sizes[1] + len(data))
            if sizes[1] > 2 * TAIL:
                tail = [b''.join(tail)[-TAIL:]]
                counts, sizes = (counts[0], 1), (sizes[0], TAIL)
        self._kept = Pieces(head, tail, counts, sizes, start + len(data))

    @property
    def text(self) -> str:
        """What is here; the first bytes of a character wait for the others."""
        head, tail, counts, sizes, position = self._kept
        start = b''.join(head[: counts[0]])
        end = b''.join(tail[: counts[1]]) if tail is not None else b''
        left_out = position - sum(sizes)
        if not left_out:
            return _decoded(start + end)
        end = end[:3].lstrip(_CONTINUED) + end[3:]
        notice = f'\n[... {left_out:,} bytes are left out here while the job runs ...]\n'
        return f'{_decoded(start)}{notice}{_decoded(end)}'

    def frozen(self) -> 'LiveText':
        """As it is now."""
        return LiveText(self._kept)


class LiveOutput:
    """Standard output and error of a running job."""

    __slots__ = ('stderr', 'stdout')

    def __init__(self, stdout: LiveText | None = None, stderr: LiveText | None = None) -> None:
        self.stdout = stdout or LiveText()
        self.stderr = stderr or LiveText()

    def add(self, stream: int, start: int, data: bytes) -> None:
        """Take in a piece of one of the two."""
        (self.stderr if stream == STDERR else self.stdout).add(start, data)

    def frozen(self) -> 'LiveOutput':
        """As it is now."""
        return LiveOutput(self.stdout.frozen(), self.stderr.frozen())


def _decoded(data: bytes) -> str:
    return _DECODER('replace').decode(data)
