"""What a job prints, caught at descriptors 1 and 2: Python, C and subprocesses alike.

The two are memory files that the node holds too: nothing needs draining while the job runs, and
what a dead process printed is still there.
"""

import contextlib
import fcntl
import io
import os
import sys

from nodeserver.io.memfile import read_text
from nodeserver.worker.ancestry import libc

_SAFE_FD = 200  # a job that closes "all" of its low descriptors does not reach ours


class Capture:
    """Standard output and error of this process, as files that are read job by job."""

    def __init__(self, stdout: int, stderr: int) -> None:
        """Turn 1 and 2 over to these files, which are taken and moved out of the way."""
        self._files = (_connect(1, stdout), _connect(2, stderr))
        self._streams = (sys.stdout, sys.stderr)

    def take(self) -> tuple[str, str]:
        """Read what was printed since the last time, and start again with empty files."""
        for stream in self._streams:
            with contextlib.suppress(OSError, ValueError):  # the job closed it
                stream.flush()
        libc.fflush(None)
        return _take(self._files[0]), _take(self._files[1])

    def restore(self) -> None:
        """Undo what a job did to descriptors 1 and 2 and to the streams of `sys`."""
        os.dup2(self._files[0], 1)
        os.dup2(self._files[1], 2)
        if self._streams[0].closed or self._streams[1].closed:
            self._streams = (_open_stream(1), _open_stream(2))
        sys.stdout, sys.stderr = self._streams


def out_of_the_way(fd: int) -> int:
    """Move a descriptor above those that programs close without asking."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD)
    os.close(fd)
    return moved


def _connect(fd: int, file: int) -> int:
    # a child of the job may open /dev/stdout anew: without O_APPEND it would write from the start
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
    os.dup2(file, fd)
    return out_of_the_way(file)


def _open_stream(fd: int) -> io.TextIOWrapper:
    file = io.BufferedWriter(io.FileIO(fd, 'w', closefd=False))
    return io.TextIOWrapper(file, 'utf-8', 'backslashreplace', line_buffering=True)


def _take(file: int) -> str:
    size = os.lseek(file, 0, os.SEEK_END)
    if not size:
        return ''
    text = read_text(file, size)
    os.ftruncate(file, 0)
    return text
