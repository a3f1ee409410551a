"""Directories of computations on a node: private, below one prefix, and gone afterwards (D7)."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from nodeserver.core.errors import UsageError
from nodeserver.io.below import unlock
from nodeserver.wire.manifest import LONGEST_NAME

_MODE = 0o700


def default_prefix(port: int, is_shared: bool = False, kind: str = 'node') -> Path:
    """Make the directory below which a node (or scheduler) keeps its files if no other is given.

    Where the user that computations have passes through it, it is another one than that of
    sockets and of nodes that need no such user.
    """
    own = Path(tempfile.gettempdir()) / f'dispy-nb-{os.getuid()}{"-shared" if is_shared else ""}'
    prefix = own / f'{kind}-{port}'
    for directory in (own, prefix):
        make_own(directory)
        if stat.S_IMODE(directory.lstat().st_mode) & (0o067 if is_shared else 0o077):
            raise UsageError(f'{directory} is open to other users: chmod 700 it, or remove it')
    return prefix


def make_directory(prefix: Path, computation: int, name: str, dest_path: str) -> Path:
    """Make a computation's directory: its own, or the `dest_path` that it asked for."""
    prefix = prefix.resolve()
    prefix.mkdir(mode=_MODE, parents=True, exist_ok=True)
    directory = prefix
    for part in check_dest_path(dest_path or own_name(computation, name)).parts:
        directory /= part
        make_own(directory)
        refuse_open(directory, directory.lstat().st_mode)
    return directory


def own_name(computation: int, name: str) -> str:
    """Name the directory of a computation that has asked for none."""
    safe_name = re.sub(r'[^A-Za-z0-9_.-]+', '_', name).lstrip('.')[:40] or 'computation'
    return f'{safe_name}_{computation:x}'


def check_dest_path(dest_path: str) -> PurePosixPath:
    """Return a `dest_path` as its parts; one that leads out of the prefix is refused (D7)."""
    wanted = PurePosixPath(dest_path)
    if wanted.is_absolute() or '..' in wanted.parts or not wanted.parts or '\0' in dest_path:
        raise UsageError(
            f"dest_path must be a path below the node's own directory, without '..', "
            f'not {dest_path!r}'
        )
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in wanted.parts):
        raise UsageError(
            f'dest_path: a part of it has more than {LONGEST_NAME} bytes, which no directory may '
            f'have: {dest_path!r}'
        )
    return wanted


def remove_directory(directory: Path, prefix: Path) -> None:
    """Remove a computation's directory, and those above it that are empty then."""
    prefix = prefix.resolve()
    if prefix not in directory.parents:
        raise UsageError(f'{directory} is not below {prefix}')
    if directory.is_symlink():
        directory.unlink()
    elif directory.exists():
        _remove_tree(directory)
    remove_empty(directory.parent, prefix)


def remove_empty(directory: Path, prefix: Path) -> None:
    """Remove a directory and those above it below the prefix, as far as they are empty."""
    for each in (directory, *directory.parents):
        if each in (prefix, prefix.resolve()):
            return
        try:
            each.rmdir()
        except OSError:  # it holds something else
            return


def remove_directories(directories: Iterable[Path], prefix: Path) -> None:
    """Remove each of these, where one may be below another."""
    for directory in directories:
        remove_directory(directory, prefix)


def refuse_open(directory: Path, mode: int) -> None:
    """Raise `UsageError` for a directory in which others could put or replace files."""
    if mode & 0o022:
        raise UsageError(f'{directory} can be written by others: chmod go-w {directory}')


def make_own(directory: Path) -> None:
    """Make a directory, or take one that exists if it is really ours."""
    try:
        directory.mkdir(mode=_MODE)
    except FileExistsError:
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise UsageError(f'{directory} is in the way: it is no directory') from None
        if found.st_uid != os.getuid():
            raise UsageError(f'{directory} belongs to another user') from None


def _remove_tree(directory: Path) -> None:
    """Remove it with what a job has left without permission; links are never followed."""
    try:
        shutil.rmtree(directory)
    except PermissionError:
        unlock(directory, _MODE)
        shutil.rmtree(directory)
