"""The names that every job finds without importing them, in `builtins` (D6).

A name of the user's own goes first: what is in `builtins` is looked for last.
"""

import builtins
import os
import stat
import sys
import time

from nodeserver.io.offeredfile import OfferingEnd
from nodeserver.io.sealedfile import AVAILABLE, write
from nodeserver.payload import dump_result
from nodeserver.wire.lane import FILE, PROVISIONAL, TemplateSettings
from nodeserver.worker.joblog import new_logger
from nodeserver.worker.lanefile import LaneFile

NAMES = (
    *('dispy_provisional_result', 'dispy_send_file'),
    *('dispy_node_name', 'dispy_node_ip_addr', 'dispy_job_path', 'dispynode_logger'),
    *('os', 'sys', 'time'),
)
KEPT = 1 << 20  # bytes of a file that is sent as it was when that was asked for


def install(settings: TemplateSettings, lane: LaneFile) -> None:
    """Make the names known, in the template: workers inherit them."""

    def dispy_provisional_result(result: object, relay: bool = False, timeout: float = 10) -> int:
        """Send an intermediate result to the client; it is on its way when this returns 0.

        `relay` and `timeout` are accepted for programs written for dispy and have no effect: the
        result goes to the node, which delivers it however long that takes.
        """
        lane.report_while_running(PROVISIONAL, dump_result(result))
        return 0

    def dispy_send_file(path: object, relay: bool = False, timeout: float | None = None) -> int:
        """Put a file at the client, below its working directory; 0 once it is there (H01-H03).

        It lands at the same path as here, or under its name alone if it is not below the job's
        directory.  Otherwise -1 is answered, and the reason written to standard error.
        """
        why = _send_file(lane, settings.directory, path, timeout)
        if why:
            print(f'dispy_send_file({path!r}): {why}', file=sys.stderr)  # noqa: T201 - for people
        return -1 if why else 0

    vars(builtins).update(
        dispy_provisional_result=dispy_provisional_result,
        dispy_send_file=dispy_send_file,
        dispy_node_name=settings.node_name,
        dispy_node_ip_addr=settings.node_address,
        dispy_job_path=settings.directory,
        dispynode_logger=new_logger(),
        # modules that programs written for dispy use without importing them
        os=os,
        sys=sys,
        time=time,
    )


def _send_file(lane: LaneFile, directory: str, path: object, timeout: float | None) -> str:
    """Send a file and wait until it is there; else why it is not."""
    if not isinstance(path, str | bytes | os.PathLike):
        return f'a path was expected, not {type(path).__name__}'
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.strerror or str(error)
    end = None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return 'it is no file'
        file = _as_it_is(file)
        end = OfferingEnd(file, _path_at_client(os.fsencode(path), os.fsencode(directory)))
        lane.pass_while_running(FILE, end.passed.fileno())
        end.passed.close()  # else the end of the node would not be seen
        return end.wait(timeout)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(file)
        if end is not None:
            end.close()


def _as_it_is(file: int) -> int:
    """Keep a small file as it is now: jobs of one node may write to one place (H06)."""
    found = os.fstat(file)
    if found.st_size > KEPT or not AVAILABLE:
        return file
    kept = os.memfd_create('a file that a job sends')
    try:
        write(kept, [os.pread(file, found.st_size, 0)])
        os.fchmod(kept, stat.S_IMODE(found.st_mode))
        os.utime(kept, ns=(found.st_atime_ns, found.st_mtime_ns))
    except BaseException:  # a lasting worker goes on after an interrupt
        os.close(kept)
        raise
    os.close(file)
    return kept


def _path_at_client(path: bytes, directory: bytes) -> bytes:
    """Where a file goes: its path below the job's directory, or its name alone (H02)."""
    relative = os.path.relpath(os.path.abspath(path), directory)  # noqa: PTH100 - bytes
    return os.path.basename(path) if relative.startswith(b'..') else relative  # noqa: PTH119
