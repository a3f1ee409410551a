"""A process with the rights of the user that computations have, for what the node has none to do.

    node ── order: a signal and whom it is for, or what to remove ──▶ deputy
    node ◀── why it was not removed, or '' ── a process that the deputy forks

Jobs have its user, and may stop or kill it like each other: it is woken with each order, and
another one is started where it is gone.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeserver.core.errors import ConfigurationError
from nodeserver.io.directories import Directories, SharedDirectories
from nodeserver.io.interpreter import environment
from nodeserver.io.privileges import JobUser, adopt_orphans, groups_kept
from nodeserver.io.signals import Signals
from nodeserver.wire import errands

_COMMAND = ('-P', '-m', 'nodeserver.worker.deputy')
_START_SECONDS = 30.0
_REMOVE_SECONDS = 600.0
_END_SECONDS = 5.0
_TRIES = 3  # as often, one that is gone is replaced for the same order
_ORDER_SECONDS = 0.2  # for one that is stopped over and over, and has many orders before it
_LONGEST_ANSWER = 65536

log = logging.getLogger(__name__)


class Deputy(Signals):
    """The node's end; `close` ends the process."""

    def __init__(self, job_user: JobUser, prefix: Path) -> None:
        self.job_user = job_user
        self._prefix = prefix
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int:
        """The number of its process, 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    def to_process(self, pidfd: int, number: int) -> None:
        """Have a signal sent to a process."""
        self._order(errands.encode_signal(number, 0), pidfd)

    def to_group(self, pid: int, pidfd: int, number: int) -> None:
        """Have a signal sent to the group that a process leads."""
        self._order(errands.encode_signal(number, pid), pidfd)

    def remove(self, path: Path) -> None:
        """Have a directory removed, as far as that user can; from any thread but the loop's."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with near:
            with far:
                self._order(errands.encode_removal(os.fsencode(path)), far.fileno())
            near.settimeout(_REMOVE_SECONDS)
            answer = near.recv(_LONGEST_ANSWER)
        if answer:
            log.debug('%s: %s', path, answer.decode(errors='replace'))

    def close(self) -> None:
        """End the process."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._wake()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._process = None

    def _order(self, message: bytes, fd: int) -> None:
        for _ in range(_TRIES):
            try:
                living = self._living()
                living.settimeout(_ORDER_SECONDS)
                socket.send_fds(living, [message], [fd])
            except TimeoutError:
                self._wake()
                continue
            except (BrokenPipeError, ConnectionResetError):  # a job has killed it
                self.close()
                continue
            except ConfigurationError as error:  # it could be started when the node was
                log.error('%s', error)
                return
            self._wake()
            return
        log.warning('what runs as %s cannot be reached', self.job_user.name)

    def _living(self) -> socket.socket:
        if self._socket is None:
            self._start()
        assert self._socket is not None
        return self._socket

    def _wake(self) -> None:
        """Have it go on if a job has stopped it: in one session, that needs no other rights."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._process.pid, signal.SIGCONT)

    def _start(self) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = os.memfd_create('what the deputy says')
        user = self.job_user
        with far:
            self._process = subprocess.Popen(
                [sys.executable, *_COMMAND, str(far.fileno()), f'{user.uid}:{user.gid}'],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                cwd=self._prefix,
                env=environment(user),
                process_group=0,  # Ctrl-C is for the node
            )
        near.settimeout(_START_SECONDS)
        try:
            answer = near.recv(_LONGEST_ANSWER)
            if answer != errands.READY:
                self._refuse(os.pread(words, _LONGEST_ANSWER, 0), near)
        except TimeoutError as error:
            near.close()
            raise ConfigurationError(
                f'{sys.executable}, run as {user.name}, does not start within {_START_SECONDS:g} s'
            ) from error
        finally:
            os.close(words)
        near.settimeout(None)
        self._socket = near

    def _refuse(self, said: bytes, near: socket.socket) -> None:
        near.close()
        if self._process is not None:
            self._process.wait()
            self._process = None
        lines = said.decode(errors='replace').strip().splitlines()
        raise ConfigurationError(
            f'computations cannot run as {self.job_user.name}: {lines[-1] if lines else "it ended"}'
            f'. That user must be able to read this package and its Python ({sys.executable}), and '
            f'to pass through {self._prefix} and each directory above it (choose another by '
            '--dest_path_prefix)'
        )


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the processes of computations are, and whether their orphans come to the node."""

    deputy: Deputy | None = None  # of another user than the node's
    adopts_orphans: bool = False

    @property
    def job_user(self) -> JobUser | None:
        """The user that they have, None where it is the node's own."""
        return None if self.deputy is None else self.deputy.job_user

    @property
    def signals(self) -> Signals:
        """What reaches them."""
        return Signals() if self.deputy is None else self.deputy

    def directories(self, prefix: Path) -> Directories:
        """Return what makes and removes their directories."""
        if self.deputy is None:
            return Directories(prefix)
        return SharedDirectories(prefix, self.deputy.job_user, self.deputy)

    def close(self) -> None:
        """End what was started for them."""
        if self.deputy is not None:
            self.deputy.close()


OWN_USER: Final = Owner()


def owner_of(job_user: JobUser | None, prefix: Path) -> Owner:
    """Prepare this program for computations of another user, or of its own."""
    adopts = adopt_orphans()
    if job_user is None:
        return Owner(None, adopts)
    deputy = Deputy(job_user, prefix)
    log.info('computations run as %s, not as %s', job_user.name, os.getuid())
    kept = groups_kept(job_user)
    if kept:
        log.warning(
            'computations also have your groups %s, which only root can take from them: start the '
            'node with fewer groups where their files should not be reached',
            ', '.join(kept),
        )
    return Owner(deputy, adopts)
