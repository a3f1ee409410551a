"""The worker's end of its lane, on bare descriptors.

Made in the template, before the forks: a worker of which nothing is new copies fewer pages.
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes enums, for 2 µs each time
import os
import signal
import threading

from nodeserver.wire.lane import BIG_BODY, REPORT_HEAD

_READ = 32768
_READ_BIG = 1 << 20
_interrupt = (signal.SIGINT.value,)
_block, _unblock, _set = (
    value.value for value in (signal.SIG_BLOCK, signal.SIG_UNBLOCK, signal.SIG_SETMASK)
)


def hold_interrupts() -> None:
    """Have interrupts wait."""
    _signal.pthread_sigmask(_block, _interrupt)


def allow_interrupts() -> None:
    """Let interrupts through, also one that waits."""
    _signal.pthread_sigmask(_unblock, _interrupt)


class LaneFile:
    """Jobs come out of it, reports go in; whole reports, from any thread of the job."""

    def __init__(self) -> None:
        self.fd = -1
        self.job = 0  # that this process is in
        self._lock = threading.Lock()
        self._buffer = b''
        self._at = 0

    def read(self, size: int) -> bytes:
        """Read exactly so much, or less at the end."""
        end = self._at + size
        if end > len(self._buffer):
            self._fill(size)
            end = size
        data = self._buffer[end - size : end]
        self._at = end
        return data

    def report(self, kind: int, body: bytes, seconds: float = 0.0) -> None:
        """Write one report; the caller holds interrupts, which would cut it in two."""
        data = REPORT_HEAD.pack(kind, self.job, seconds, len(body))
        is_big = len(body) >= BIG_BODY
        if not is_big:
            data += body
        with self._lock:
            sent = os.write(self.fd, data)
            if sent < len(data):
                self._write(data[sent:])
            if is_big:
                self._write(body)

    def report_while_running(self, kind: int, body: bytes) -> None:
        """Write one report from within the user's code."""
        before = _signal.pthread_sigmask(_block, _interrupt)
        try:
            self.report(kind, body)
        finally:
            _signal.pthread_sigmask(_set, before)

    def _fill(self, size: int) -> None:
        pieces = [self._buffer[self._at :]]
        missing = size - len(pieces[0])
        while missing > 0:
            piece = os.read(self.fd, min(max(missing, _READ), _READ_BIG))
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        self._buffer, self._at = b''.join(pieces), 0

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
