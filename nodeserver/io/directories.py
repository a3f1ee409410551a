"""Where a node's computations have their files: one user's directories, or those of two (K10).

    prefix ─▶ dest_path                     computations run as the node's user
    prefix ─▶ gate ─▶ files ─▶ dest_path    computations run as a user of their own

All computations have that one user, whoever their client is.  What keeps them apart are the
gates: directories of the node's user, which only he can pass but while a computation is open.
"""

import fcntl
import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Protocol

from nodeserver.core.errors import UsageError
from nodeserver.io import below, workdir
from nodeserver.io.privileges import JobUser

_FILES = 'files'
_CLOSED, _OPEN, _SHARED = 0o700, 0o710, 0o2770


class Remover(Protocol):
    """Removes what belongs to the user that computations have."""

    def remove(self, path: Path) -> None:
        """Remove a directory, as far as that user can."""


class Directories:
    """Directories of one user: private, and nothing in the way of removing them."""

    is_shared = False  # by two users, so that files are for their group

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix

    def make(self, computation: int, name: str, dest_path: str) -> Path:
        """Make a computation's directory."""
        return workdir.make_directory(self.prefix, computation, name, dest_path)

    def base(self, directory: Path) -> Path:
        """Return the nearest one above it, or itself, that only the node could have replaced."""
        return directory

    def leave(self, computation: int) -> None:
        """Keep what a computation has left from those that follow."""

    def remove(self, directories: Iterable[Path]) -> None:
        """Remove these, where one may be below another."""
        workdir.remove_directories(directories, self.prefix)

    def remove_empty(self, directory: Path) -> None:
        """Remove a directory and those above it, as far as they are empty."""
        workdir.remove_empty(directory, self.prefix)


class SharedDirectories(Directories):
    """Directories of the node's user that another one works in, each behind its gate."""

    is_shared = True

    def __init__(self, prefix: Path, job_user: JobUser, remover: Remover) -> None:
        super().__init__(prefix.resolve())
        self._job_user, self._remover = job_user, remover
        self._removals = count(-1, -1)  # each stands for a computation, whose numbers are positive
        self._changing = threading.Lock()  # removals are in threads of their own
        self._gates: dict[Path, tuple[int, set[int]]] = {}  # open ones: their lock, their users
        for entry in self.prefix.iterdir():  # a node that was killed could not close them
            if self._is_open_gate(entry):
                self._close(entry)

    def make(self, computation: int, name: str, dest_path: str) -> Path:
        """Make a computation's directory, and open its gate."""
        wanted = dest_path or workdir.own_name(computation, name)
        first, *parts = workdir.check_dest_path(wanted).parts
        gate = self.prefix / first
        try:
            self._open(gate, computation)
            with below.opened(gate, [_FILES], _CLOSED) as files:
                self._share(files, _SHARED)
            with below.opened(gate / _FILES, parts, _SHARED):
                return gate.joinpath(_FILES, *parts)
        except (OSError, UsageError):
            self.leave(computation)
            raise

    def base(self, directory: Path) -> Path:
        """Return the directory behind the gate: jobs can replace each of those below it."""
        return self.prefix / directory.relative_to(self.prefix).parts[0] / _FILES

    def leave(self, computation: int) -> None:
        """Close the gates that nobody uses any more."""
        with self._changing:
            for gate, (lock, users) in list(self._gates.items()):
                users.discard(computation)
                if not users:
                    del self._gates[gate]
                    os.close(lock)
                    self._close(gate)

    def remove(self, directories: Iterable[Path]) -> None:
        """Remove these: each user what the other one cannot; OSError if one is still there."""
        failed: OSError | None = None
        for directory in directories:
            try:
                self._remove(directory)
            except OSError as error:  # a job may have put something in its way: the others go
                failed = error
        if failed is not None:
            raise failed

    def _remove(self, directory: Path) -> None:
        parts = self._parts(directory)
        try:
            below.remove_tree(self.prefix, parts)
        except PermissionError:
            self._have_removed(parts)
            below.remove_tree(self.prefix, parts)
        below.remove_empty(self.prefix, parts[:-1])

    def remove_empty(self, directory: Path) -> None:
        """Remove a directory and those above it, as far as they are empty."""
        below.remove_empty(self.prefix, directory.relative_to(self.prefix).parts)

    def _have_removed(self, parts: tuple[str, ...]) -> None:
        """Have the other user remove what is in a directory, behind a gate that is open for it."""
        gate, inside = self.prefix / parts[0], parts[1:] or (_FILES,)
        removal = next(self._removals)
        self._open(gate, removal)
        try:
            self._remover.remove(gate.joinpath(*inside))
        finally:
            self.leave(removal)

    def _parts(self, directory: Path) -> tuple[str, ...]:
        parts = directory.relative_to(self.prefix).parts
        if not parts or '..' in parts:
            raise UsageError(f'{directory} is not below {self.prefix}')
        return parts

    def _open(self, gate: Path, computation: int) -> None:
        """Let the other user pass; a lock says so to other nodes that use this prefix."""
        with self._changing:
            if gate not in self._gates:
                workdir.make_own(gate)
                lock = os.open(gate, below.DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_SH)
                self._gates[gate] = lock, set()
                self._share(lock, _OPEN)
            self._gates[gate][1].add(computation)

    def _is_open_gate(self, entry: Path) -> bool:
        """Tell a gate from what else the user may keep in a prefix that he has chosen."""
        with suppress(FileNotFoundError):  # another node has just removed it
            facts = entry.lstat()
            mode, group = stat.S_IMODE(facts.st_mode), facts.st_gid
            return stat.S_ISDIR(facts.st_mode) and (mode, group) == (_OPEN, self._job_user.gid)
        return False

    def _close(self, gate: Path) -> None:
        """Let nobody pass, unless another node says that its computations do."""
        with suppress(OSError):  # it was removed, or is no directory
            fd = os.open(gate, below.DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_uid == os.getuid():
                    os.fchmod(fd, _CLOSED)
            finally:
                os.close(fd)

    def _share(self, fd: int, mode: int) -> None:
        facts = os.fstat(fd)
        if facts.st_uid != os.getuid():
            raise UsageError('a directory of computations belongs to another user')
        if facts.st_gid != self._job_user.gid:
            os.fchown(fd, -1, self._job_user.gid)
        if stat.S_IMODE(facts.st_mode) != mode:
            os.fchmod(fd, mode)


def share_prefix(prefix: Path, job_user: JobUser) -> None:
    """Let the other user pass through the prefix, to what is open to him; only him."""
    facts = prefix.stat()
    if facts.st_uid == os.getuid() and not facts.st_mode & stat.S_IXOTH:
        os.chown(prefix, -1, job_user.gid)
        prefix.chmod(stat.S_IMODE(facts.st_mode) | stat.S_IXGRP)
