"""The node's end of the zygote, the warm interpreter that templates are forked from (D5)."""

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import nodeserver
from nodeserver.io import limits, memfile
from nodeserver.io.control import Control
from nodeserver.io.keys import SECRET_VARIABLE
from nodeserver.io.watcher import Watcher
from nodeserver.wire import lane
from nodeserver.wire.lane import Ended, TemplateSettings

# nothing of the directory that the node was started in is imported; nor is it in `sys.path`
_COMMAND = ('-P', '-m', 'nodeserver.worker')
_END_SECONDS = 10.0


class Zygote:
    """Started by exec; forks templates and reaps them.  It ends when `close` is called."""

    def __init__(self, directory: Path, watcher: Watcher, on_exit: Callable[[], None]) -> None:
        self._watcher, self._on_exit = watcher, on_exit
        self._waiting: deque[Callable[[int, int], None]] = deque()
        self._reaped: dict[int, Callable[[int], None]] = {}
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        file_limit = str(limits.file_limit_before())
        with far:
            self._process = subprocess.Popen(
                [sys.executable, *_COMMAND, str(far.fileno()), str(os.getpid()), file_limit],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=directory,
                env=_environment(),
                start_new_session=True,
            )
        self.alive = True
        self._pidfd = os.pidfd_open(self._process.pid)
        watcher.watch(self._pidfd, self._process_exited)
        self._control = Control(near.detach(), watcher, self._message)

    def fork(
        self,
        settings: TemplateSettings,
        package: bytes,
        setup_args: bytes,
        forked: Callable[[int, int], None],
    ) -> None:
        """Have a template forked; `forked` gets its pid, or 0, and its control socket."""
        files = [memfile.file_of(package, 'package')]
        if setup_args:
            files.append(memfile.file_of(setup_args, 'setup_args'))
        self._waiting.append(forked)
        self._control.send(lane.encode_open(settings), files)

    def reap(self, pid: int, reaped: Callable[[int], None]) -> None:
        """Take the exit status of a template that has ended, and sweep up what it left."""
        self._reaped[pid] = reaped
        self._control.send(lane.encode_work(0, [pid]))

    def close(self) -> None:
        """End it with everything that came from it, and wait for that."""
        self.alive = False
        self._control.close()
        if self._pidfd >= 0:
            self._watcher.close_fd(self._pidfd)
            self._pidfd = -1
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _message(self, message: bytes, fds: list[int]) -> None:
        kind = message[:1]
        if kind == lane.ENDED:
            for ended in lane.decode_ended(message):
                self._ended(ended)
        elif kind == lane.FORKED and fds:
            self._waiting.popleft()(lane.decode_forked(message), fds[0])
        else:
            self._waiting.popleft()(0, -1)

    def _ended(self, ended: Ended) -> None:
        self._reaped.pop(ended.pid)(ended.status)

    def _process_exited(self, mask: int) -> None:
        self.alive = False
        self._control.receive()
        self._control.close()
        self._watcher.close_fd(self._pidfd)
        self._pidfd = -1
        status = self._process.wait()
        while self._waiting:
            self._waiting.popleft()(0, -1)
        while self._reaped:
            self._reaped.popitem()[1](status)
        self._on_exit()


def _environment() -> dict[str, str]:
    """Have the zygote import what this process would, but for the directory it stands in."""
    here = {'', str(Path.cwd())} - {str(Path(nodeserver.__file__).parent.parent)}
    before = os.environ.get('PYTHONPATH')
    path = os.pathsep.join(entry for entry in sys.path if entry not in here)
    environ = {**os.environ, 'PYTHONPATH': path, **({lane.PYTHONPATH: before} if before else {})}
    # else each fork looks up anew where the functions of C libraries are, and copies ten pages
    environ.setdefault(*lane.BIND_NOW)
    environ.pop(SECRET_VARIABLE, None)  # jobs are not told the secret (D7)
    return environ
