"""`python -m nodeserver.worker.deputy FD UID:GID`: does what needs the rights of jobs' user.

It obeys the node, at the other end of a socket, until that is closed.  It can do nothing that a
job could not do.
"""

import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from nodeserver.io.below import unlock
from nodeserver.io.privileges import JobUser, become_job_user
from nodeserver.io.signals import Signals
from nodeserver.wire import errands

_ROOM = 2  # descriptors


def main() -> None:
    """Say that all is well, and obey."""
    control = socket.socket(fileno=int(sys.argv[1]))
    become_job_user(JobUser(*map(int, sys.argv[2].split(':'))))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _check()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a removal ended
    control.send(errands.READY)
    signals = Signals()
    while True:
        message, fds, _, _ = socket.recv_fds(control, errands.LONGEST, _ROOM)
        if not message:
            return
        try:
            if message[:1] == errands.SIGNAL:
                _send(signals, fds[0], *errands.decode_signal(message))
            else:
                _remove_apart(fds[0], os.fsdecode(errands.decode_removal(message)))
        finally:
            for fd in fds:
                os.close(fd)


def _check() -> None:
    """Import what jobs come from, in a process that then ends; its words are on standard error."""
    Path.cwd().joinpath('-').exists()  # raises where a directory on the way cannot be passed
    pid = os.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, '-P', '-c', 'import nodeserver.worker.main'])
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(1)


def _send(signals: Signals, pidfd: int, number: int, group: int) -> None:
    with suppress(PermissionError):
        if group:
            signals.to_group(group, pidfd, number)
        else:
            signals.to_process(pidfd, number)


def _remove_apart(answer: int, directory: str) -> None:
    """Remove in a process of its own: it may take long, and signals do not wait."""
    if os.fork():
        return
    reason = 'it could not be removed'
    try:
        reason = remove(Path(directory))
    finally:
        with suppress(OSError):
            os.write(answer, reason.encode(errors='replace'))
        os._exit(0)


def remove(directory: Path) -> str:
    """Remove what is in a directory, also where a job took its own rights to it; why not all."""
    unlock(directory, 0o2770)
    reasons: dict[str, str] = {}
    shutil.rmtree(directory, onerror=lambda _, path, error: reasons.update({path: str(error[1])}))
    reasons.pop(str(directory), None)  # the directory that it is in is the node's
    return next(iter(reasons.values()), '')


if __name__ == '__main__':
    main()
