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
from nodeserver.worker.ancestry import fflush

# above those that a job closes which means "all of them"; for lane, standard output and error
LANE, _STDOUT, _STDERR = 200, 201, 202


class Capture:
    """Standard output and error of this process, as files that are read job by job."""

    def __init__(self) -> None:
        self._streams = (sys.stdout, sys.stderr)

    def begin(self, stdout: int, stderr: int) -> None:
        """Turn 1 and 2 over to these files, which are taken and moved out of the way."""
        os.dup2(stdout, _STDOUT, False)
        os.dup2(stderr, _STDERR, False)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)

    def flush(self) -> None:
        """Hand everything printed to the files."""
        stdout, stderr = self._streams
        try:
            stdout.flush()
            stderr.flush()
        except (OSError, ValueError):  # the job closed one of them
            for stream in (stderr, stdout):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
        fflush(None)

    def take(self) -> tuple[str, str]:
        """Read what was printed since the last time, and start again with empty files."""
        self.flush()
        out, err = os.lseek(_STDOUT, 0, os.SEEK_END), os.lseek(_STDERR, 0, os.SEEK_END)
        return (_take(_STDOUT, out) if out else '', _take(_STDERR, err) if err else '')

    def restore(self) -> None:
        """Undo what a job did to descriptors 1 and 2 and to the streams of `sys`."""
        os.dup2(_STDOUT, 1)
        os.dup2(_STDERR, 2)
        stdout, stderr = self._streams
        if stdout.closed or stderr.closed:
            stdout, stderr = self._streams = (_open_stream(1), _open_stream(2))
        sys.stdout, sys.stderr = stdout, stderr


def new_files() -> list[int]:
    """Make the files that a process prints to."""
    files: list[int] = []
    try:
        for name in ('stdout', 'stderr'):
            files.append(os.memfd_create(name))
            # a child of the job may open /dev/stdout anew: it would write over its start otherwise
            fcntl.fcntl(files[-1], fcntl.F_SETFL, os.O_APPEND)
    except OSError:
        for file in files:
            os.close(file)
        raise
    return files


def _open_stream(fd: int) -> io.TextIOWrapper:
    file = io.BufferedWriter(io.FileIO(fd, 'w', closefd=False))
    return io.TextIOWrapper(file, 'utf-8', 'backslashreplace', line_buffering=True)


def _take(file: int, size: int) -> str:
    text = read_text(file, size)
    os.ftruncate(file, 0)
    return text
