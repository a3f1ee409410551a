"""Files put into a directory by others' wishes: never outside of it, whole or not at all (D7).

Each directory on the way is opened by its own name, and no link is followed: a job, or whoever
else may write there, cannot lead a file elsewhere.  A file is written under another name first
and gets its own when it is complete.
"""

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from nodeserver.core.errors import FileRefused
from nodeserver.io import below
from nodeserver.wire.digest import digest_of, new_digest
from nodeserver.wire.manifest import MODES, FileEntry

PART_NAME = '.dispy-part-'  # and a random number: of a file that is not complete yet
_READ = 1 << 20
_SMALL = 65536  # bytes of a file that is read at once
_MOST_OPEN = 64  # directories at a time


def _flags(*names: str) -> int:
    """Flags of `open`, those that this system has."""
    return sum(getattr(os, f'O_{name}', 0) for name in names)


_DIRECTORY = _flags('DIRECTORY', 'NOFOLLOW', 'CLOEXEC')
_NEW = _flags('WRONLY', 'CREAT', 'EXCL', 'NOFOLLOW', 'CLOEXEC')
_OLD = _flags('NOFOLLOW', 'NONBLOCK', 'CLOEXEC')
_SHARED = 0o2770  # the mode of a directory in which two users work, by their group
_LINK = (errno.ELOOP, errno.ENOTDIR)


class NewFile:
    """A file that is being written."""

    __slots__ = ('_digest', '_directory', '_entry', '_fd', '_mode', '_name')

    def __init__(
        self, directory: int, name: str, entry: FileEntry, mode: int, fd: int = -1
    ) -> None:
        self._directory, self._name, self._entry = directory, name, entry
        self._mode = mode  # in the end
        self._digest = new_digest() if entry.digest else None
        self._fd = fd if fd >= 0 else os.open(name, _NEW, 0o600, dir_fd=directory)

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece."""
        if self._digest is not None:
            self._digest.update(piece)
        view = memoryview(piece)
        while len(view):
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """Give it its mode, time and name; it replaces a file that has that name."""
        entry = self._entry
        if self._digest is not None and digest_of(self._digest) != entry.digest:
            raise FileRefused(f'{shown(entry.path)} has changed while it was sent')
        name = os.fsdecode(entry.path.rpartition(b'/')[2])
        if stat.S_IMODE(os.fstat(self._fd).st_mode) != self._mode:
            os.fchmod(self._fd, self._mode)
        os.utime(self._fd, ns=(entry.mtime, entry.mtime))
        fd, self._fd = self._fd, -1
        os.close(fd)
        if self._name != name:
            there = self._directory
            os.rename(self._name, name, src_dir_fd=there, dst_dir_fd=there)

    def abandon(self) -> None:
        """Leave nothing of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._directory)


class FileTree:
    """One directory that gets files; called from one thread at a time."""

    def __init__(self, root: Path, makes_root: bool = False, base: Path | None = None) -> None:
        """With a `base` at or above the root, another user's jobs may replace what is below it.

        They do what they like with the files too, as a group that both users have.
        """
        self.root = root
        self._makes_root = makes_root  # again, where a job has removed it
        self._base = base
        self._directories: dict[bytes, int] = {}
        self._part_name = PART_NAME + secrets.token_hex(8)

    def begin(self, entry: FileEntry) -> NewFile:
        """Begin a file, one at a time; `FileRefused` or OSError where it cannot be."""
        if len(self._directories) > _MOST_OPEN:
            self.close()
        directory = self._directory(entry.path.rpartition(b'/')[0], make=True)
        return NewFile(directory, self._part_name, entry, self._mode(entry))

    def has(self, entry: FileEntry) -> bool:
        """Whether this very content lies there already; then it gets the time and mode."""
        if len(self._directories) > _MOST_OPEN:
            self.close()
        try:
            parent, _, name = entry.path.rpartition(b'/')
            fd = os.open(name, _OLD, dir_fd=self._directory(parent, make=False))
        except (OSError, FileRefused):
            return False
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size or found.st_nlink > 1:
                return False
            if not entry.digest or _digest_of_file(fd) != entry.digest:
                return False
            if stat.S_IMODE(found.st_mode) != self._mode(entry):
                os.fchmod(fd, self._mode(entry))
            if found.st_mtime_ns != entry.mtime:
                os.utime(fd, ns=(entry.mtime, entry.mtime))
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def put(self, entry: FileEntry, content: bytes | memoryview) -> None:
        """Write a whole file; a new one gets its name at once, as that is quicker."""
        if entry.digest and digest_of(new_digest(content)) != entry.digest:
            raise FileRefused(f'{shown(entry.path)} has changed while it was sent')
        if len(self._directories) > _MOST_OPEN:
            self.close()
        parent, _, name = entry.path.rpartition(b'/')
        directory, mode = self._directory(parent, make=True), self._mode(entry)
        try:
            fd = os.open(name, _NEW, mode, dir_fd=directory)
        except FileExistsError:
            new = NewFile(directory, self._part_name, entry._replace(digest=b''), mode)
        else:
            new = NewFile(directory, os.fsdecode(name), entry._replace(digest=b''), mode, fd)
        try:
            new.write(content)
            new.finish()
        except OSError:
            new.abandon()
            raise

    def copy(self, fd: int, entry: FileEntry) -> bool:
        """Make a file of another one's content, if that is what it is thought to be."""
        if entry.size <= _SMALL:
            try:
                self.put(entry, os.read(fd, entry.size + 1))
            except OSError:  # it has changed, or cannot be read: it has to be sent
                return False
            finally:
                os.close(fd)
            return True
        new = None
        try:
            new = self.begin(entry)
            while piece := os.read(fd, _READ):
                new.write(piece)
            new.finish()
        except (FileRefused, OSError):  # it has changed, or cannot be read: it has to be sent
            if new is not None:
                new.abandon()
            return False
        finally:
            os.close(fd)
        return True

    def open(self, path: bytes) -> int:
        """Open a file for reading."""
        parent, _, name = path.rpartition(b'/')
        return os.open(name, _OLD, dir_fd=self._directory(parent, make=False))

    def remove(self, path: bytes) -> None:
        """Remove a file, and the directories above it that are empty then."""
        parent, _, name = path.rpartition(b'/')
        with suppress(OSError, FileRefused):
            os.unlink(name, dir_fd=self._directory(parent, make=False))
        while parent:
            above, _, name = parent.rpartition(b'/')
            try:
                os.rmdir(name, dir_fd=self._directory(above, make=False))
            except (OSError, FileRefused):  # it holds something else
                return
            fd = self._directories.pop(parent, -1)
            if fd >= 0:
                os.close(fd)
            parent = above

    def close(self) -> None:
        """Give back all descriptors."""
        for fd in self._directories.values():
            os.close(fd)
        self._directories.clear()

    def _mode(self, entry: FileEntry) -> int:
        """Return the mode of a file; a group that shares it has what its owner has."""
        mode = entry.mode & MODES
        return mode if self._base is None else mode & 0o700 | (mode & 0o700) >> 3

    def _directory(self, path: bytes, make: bool) -> int:
        """Open a directory below the root, and make it and those above if they are to be."""
        fd = self._directories.get(path, -1)
        if fd >= 0:
            return fd
        if not path:
            fd = self._open_root(make)
        else:
            above, _, name = path.rpartition(b'/')
            parent = self._directory(above, make)
            made = make and self._make_directory(name, parent)
            fd = _open_directory(name, parent, path)
            if made and self._base is not None:
                with suppress(PermissionError):  # it was replaced by whoever may do so
                    os.fchmod(fd, _SHARED)
        self._directories[path] = fd
        return fd

    def _make_directory(self, name: bytes, parent: int) -> bool:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            return False
        return True

    def _open_root(self, make: bool) -> int:
        if self._base is not None:
            parts = self.root.relative_to(self._base).parts
            with below.opened(self._base, parts, _SHARED if make else None) as fd:
                return os.dup(fd)
        try:
            return os.open(self.root, _DIRECTORY)
        except FileNotFoundError:
            if not (make and self._makes_root):
                raise
            self.root.mkdir(0o700)
            return os.open(self.root, _DIRECTORY)


def _open_directory(name: bytes, parent: int, path: bytes) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in _LINK:
            raise FileRefused(f'{shown(path)} is a link, or no directory') from error
        raise


def _digest_of_file(fd: int) -> bytes:
    digest = new_digest()
    while piece := os.read(fd, _READ):
        digest.update(piece)
    return digest_of(digest)


def digest_file(fd: int, size: int) -> bytes:
    """Read a file and digest it; FileRefused if it has not this size (any more)."""
    digest = new_digest()
    seen = 0
    while piece := os.read(fd, _READ):
        digest.update(piece)
        seen += len(piece)
    if seen != size:
        raise FileRefused('it changes while it is read')
    return digest_of(digest)


def open_origin(entry: FileEntry) -> int:
    """Open the sender's own file where it is within reach; -1 if it is not, or another one."""
    try:
        fd = os.open(entry.origin, os.O_RDONLY | _flags('NONBLOCK', 'CLOEXEC'))
    except (OSError, ValueError):
        return -1
    found = os.fstat(fd)
    seen = (found.st_size, found.st_mtime_ns)
    if stat.S_ISREG(found.st_mode) and seen == (entry.size, entry.mtime):
        return fd
    os.close(fd)
    return -1


def shown(path: bytes) -> str:
    """How people are told of a name, whatever is in it."""
    text = os.fsdecode(path)
    return text if text.isprintable() else repr(text)


def as_reason(error: BaseException, what: str) -> str:
    """What went wrong with files, in words."""
    if isinstance(error, FileRefused):
        return f'{what}: {error}'
    if isinstance(error, OSError):
        return f'{what}: {error.strerror or error}'
    return f'{what}: {type(error).__name__}: {error}'
