"""The node's end of the zygote, the warm interpreter that templates are forked from (D5)."""

import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from nodeserver.core.errors import ProtocolError
from nodeserver.io import limits, memfile
from nodeserver.io.control import Control
from nodeserver.io.deputy import OWN_USER, Owner
from nodeserver.io.interpreter import environment
from nodeserver.io.watcher import Watcher
from nodeserver.wire import lane
from nodeserver.wire.lane import TemplateSettings

# nothing of the directory that the node was started in is imported; nor is it in `sys.path`
_COMMAND = ('-P', '-m', 'nodeserver.worker')
_END_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Zygote:
    """Started by exec; forks templates and reaps them.  It ends when `close` is called."""

    def __init__(
        self,
        directory: Path,
        watcher: Watcher,
        on_exit: Callable[[], None],
        owner: Owner = OWN_USER,
    ) -> None:
        self._watcher, self._on_exit = watcher, on_exit
        self._signals = owner.signals
        self._waiting: deque[Callable[[int, int], None]] = deque()
        self._reaped: dict[int, Callable[[int], None]] = {}
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        user = owner.job_user
        numbers = far.fileno(), os.getpid(), limits.file_limit_before()
        rights = [] if user is None else [f'{user.uid}:{user.gid}']
        with far:
            self._process = subprocess.Popen(
                [sys.executable, *_COMMAND, *map(str, numbers), *rights],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=directory,
                env=environment(user),
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
        self._signal(signal.SIGCONT)  # a job may have stopped it

    def reap(self, pid: int, reaped: Callable[[int], None]) -> None:
        """Take the exit status of a template that has ended, and sweep up what it left."""
        self._reaped[pid] = reaped
        self._control.send(lane.encode_work(0, [pid]))
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it with everything that came from it, and wait for that."""
        self.alive = False
        self._control.close()
        self._signal(signal.SIGCONT)
        if not self._has_ended(_END_SECONDS):
            self._signal(signal.SIGKILL)
            if not self._has_ended(_END_SECONDS):
                _log.warning('process %d of computations cannot be ended', self.pid)
        if self._pidfd >= 0:
            self._watcher.close_fd(self._pidfd)
            self._pidfd = -1

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def _has_ended(self, patience: float) -> bool:
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            self._signals.to_process(self._pidfd, number)

    def _message(self, message: bytes, fds: list[int]) -> None:
        try:
            self._hear(message, fds)
        except (ProtocolError, struct.error) as error:
            # a job that has its user may have got hold of its socket
            _log.warning('the process that computations come from is replaced: %s', error)
            self._control.close()
            self._signal(signal.SIGKILL)
        finally:
            for fd in fds:
                os.close(fd)

    def _hear(self, message: bytes, fds: list[int]) -> None:
        kind = message[:1]
        if kind == lane.ENDED:
            for ended in lane.decode_ended(message):
                if ended.pid not in self._reaped:
                    raise ProtocolError('it tells of the end of a process that is not awaited')
                self._reaped.pop(ended.pid)(ended.status)
            return
        if not self._waiting:
            raise ProtocolError('it answers what was not asked')
        if kind == lane.FORKED and fds:
            pid = lane.decode_forked(message)
            self._waiting.popleft()(pid, fds.pop())
        else:
            self._waiting.popleft()(0, -1)

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
