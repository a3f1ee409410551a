"""The worker's end of its lane, on bare descriptors.

Made in the template, before the forks: a worker of which nothing is new copies fewer pages.
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes enums, for 2 µs each time
import _socket
import contextlib
import errno
import os
import signal
import socket
import threading
from array import array
from collections import deque

from nodeserver.io import sealedfile
from nodeserver.wire.lane import BIG_BODY, IN_FILE, MOST_FILES, REPORT_HEAD
from nodeserver.wire.packed import LARGE, Packed
from nodeserver.worker.output import LANE

_READ = 32768
_READ_BIG = 1 << 20
_ROOM = socket.CMSG_SPACE(4 * MOST_FILES)
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EBADF)
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


def _socket_at(number: int) -> _socket.socket:
    """Make the object of a socket that is to come to this number: a fork copies 25 pages less."""
    for end in _socket.socketpair():
        os.dup2(end.fileno(), number, False)
    made = _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number)
    os.close(number)
    return made


class LaneFile:
    """Jobs come out of it, reports go in; whole reports, from any thread of the job."""

    def __init__(self) -> None:
        self.fd = LANE
        self.job = 0  # that this process is in
        self._lock = threading.Lock()
        self._buffer = b''
        self._at = 0
        self._socket = _socket_at(LANE)
        self._files: deque[int] = deque()

    def read(self, size: int) -> bytes:
        """Read exactly so much, or less at the end."""
        end = self._at + size
        if end > len(self._buffer):
            self._fill(size)
            end = size
        data = self._buffer[end - size : end]
        self._at = end
        return data

    def mapped_files(self, count: int) -> list[memoryview]:
        """Map the files that came beside a job; fewer if this process had no room for them."""
        mapped: list[memoryview] = []
        with contextlib.suppress(OSError):
            while self._files and len(mapped) < count:
                mapped.append(sealedfile.taken_over(self._files.popleft()).mapped())
        return mapped

    def drop_files(self, count: int) -> None:
        """Close the files that came beside a job which is not run."""
        for _ in range(min(count, len(self._files))):
            os.close(self._files.popleft())

    def report(self, kind: int, body: bytes | Packed, seconds: float = 0.0) -> None:
        """Write one report; the caller holds interrupts, which would cut it in two."""
        size = len(body)
        if size < BIG_BODY and isinstance(body, bytes):
            data = REPORT_HEAD.pack(kind, self.job, seconds, size) + body
            with self._lock:
                sent = os.write(self.fd, data)
                if sent < len(data):
                    self._write(data[sent:])
            return
        pieces: list[bytes | memoryview] = body.pieces if isinstance(body, Packed) else [body]
        with self._lock:
            if size >= LARGE and self._report_in_file(kind, pieces, seconds):
                return
            head = REPORT_HEAD.pack(kind, self.job, seconds, size)
            if size < BIG_BODY:
                self._write(b''.join((head, *pieces)))
            else:
                for piece in (head, *pieces):
                    self._write(piece)

    def _report_in_file(self, kind: int, pieces: list[bytes | memoryview], seconds: float) -> bool:
        """Pass a large body as a file; False where that is not possible now."""
        try:
            file = sealedfile.sealed(pieces, 'result')
        except OSError:  # too many files, too little memory, or a system without such files
            return False
        head = REPORT_HEAD.pack(kind | IN_FILE, self.job, seconds, 0)
        try:
            passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array('i', [file.fd]))
            self._socket.sendmsg([head], [passed])
        except OSError as error:
            if error.errno in _GONE:
                raise
            return False  # the system passes no more of them now
        return True

    def pass_while_running(self, kind: int, fd: int) -> None:
        """Pass a descriptor from within the user's code."""
        before = _signal.pthread_sigmask(_block, _interrupt)
        try:
            with self._lock:
                passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array('i', [fd]))
                self._socket.sendmsg([REPORT_HEAD.pack(kind, self.job, 0.0, 0)], [passed])
        finally:
            _signal.pthread_sigmask(_set, before)

    def report_while_running(self, kind: int, body: bytes | Packed) -> None:
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
            size = min(max(missing, _READ), _READ_BIG)
            piece, passed, _, _ = self._socket.recvmsg(size, _ROOM)
            if not piece:
                break
            for _, _, files in passed:
                self._files.extend(array('i', files[: len(files) // 4 * 4]))
            pieces.append(piece)
            missing -= len(piece)
        self._buffer, self._at = b''.join(pieces), 0

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
