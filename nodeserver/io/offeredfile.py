"""A file that a job sends to its client: opened by the job, read by its node, answered at the end.

    job ── lane: a socket, in which (what, the open file) waits ──▶ node
    job ◀── that socket: why not, or '' ── node

The job waits at its end of the socket, which also tells it that the node is gone.
"""

import array
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from nodeserver.wire.manifest import FileEntry

_MOST = 65536  # bytes of a name and an answer
_ROOM = socket.CMSG_SPACE(4)
_NAME = msgspec.msgpack.Decoder(bytes)


class OfferedFile:
    """The node's end; `entries` is what there is to send, and `open` where to read it."""

    def __init__(self, fd: int, number: int, worker: int) -> None:
        self.number, self.worker = number, worker
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._file = -1
        self.entries: Sequence[FileEntry] = [self._take()]

    def _take(self) -> FileEntry:
        """Read what the job has put into the socket; OSError or ValueError for nonsense."""
        try:
            data, passed, _, _ = self._socket.recvmsg(_MOST, _ROOM)
            for _, _, fds in passed:
                for fd in array.array('i', fds[: len(fds) // 4 * 4]):
                    self._file = fd
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError('it is no file')
            return FileEntry(
                _NAME.decode(data), found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode)
            )
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """What can be read as soon as the job does not wait any more."""
        return self._socket.fileno()

    def kept(self, file: int) -> bytes | None:
        """It has to be read."""
        return None

    def open(self, file: int) -> int:
        """Open the file for a reader."""
        return os.dup(self._file)

    def answer(self, reason: str) -> None:
        """Let the job go on."""
        with suppress(OSError):  # it does not wait any more
            self._socket.send(b'.' + reason.encode(errors='backslashreplace')[: _MOST // 2])
        self.close()

    def close(self) -> None:
        """Give back the descriptors."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._socket.close()


class OfferingEnd:
    """The job's end."""

    def __init__(self, file: int, path: bytes) -> None:
        """Put the open file and its path at the client into a socket; `passed` is to be sent."""
        self._socket, self.passed = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ancillary: list[tuple[int, int, Any]] = [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [file]))
        ]
        self._socket.sendmsg([msgspec.msgpack.encode(path)], ancillary)

    def wait(self, timeout: float | None) -> str:
        """Wait for the answer: why the file was not taken, or ''."""
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(_MOST)
        except TimeoutError:
            return f'no answer within {timeout} s'
        return data[1:].decode(errors='replace') if data else 'the node is gone'

    def close(self) -> None:
        """Give back the descriptors."""
        self._socket.close()
        self.passed.close()
