"""What killed programs have left on this machine: found by its owner being gone, and removed."""

import contextlib
import errno
import os
import shutil
import socket
import stat
from pathlib import Path

from nodeserver.io.prefix import MARK, claim


def sweep_sockets(directory: Path) -> None:
    """Remove local sockets that nobody listens on any more."""
    for path in (*directory.glob('node-*'), *directory.glob('scheduler-*')):
        if stat.S_ISSOCK(path.lstat().st_mode) and _refuses(path):
            path.unlink(missing_ok=True)


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        return sock.connect_ex(str(path)) == errno.ECONNREFUSED


def sweep_directories(parent: Path, start: str) -> None:
    """Remove directories `<start><pid>-*` of programs that are gone, with no node left in them."""
    for path in parent.glob(f'{start}*'):
        with contextlib.suppress(OSError, ValueError):  # it is somebody else's, or just going
            pid = int(path.name.removeprefix(start).partition('-')[0])
            facts = path.lstat()
            ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
            if ours and not _exists(pid) and not _is_used(path):
                shutil.rmtree(path)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_used(directory: Path) -> bool:
    """Whether a node still holds a directory below this one."""
    for mark in directory.glob(f'*/{MARK}'):
        lock = claim(mark.parent)
        if lock < 0:
            return True
        os.close(lock)
    return False
