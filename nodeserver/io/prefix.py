"""The directory below which one node keeps its files: chosen, claimed, and cleaned (L14, L22).

A file in it marks it as a node's, and a lock on that file says that the node runs: `--clean`
removes nothing in a directory that a node has not made, or that another node is using.
"""

import fcntl
import os
import stat
from pathlib import Path

from nodeserver.core.errors import UsageError
from nodeserver.io.directories import Directories, share_prefix
from nodeserver.io.privileges import JobUser
from nodeserver.io.workdir import default_prefix, refuse_open

MARK = '.dispynode'
MOST_NODES_PER_PORT = 100


def choose_prefix(
    given: Path | None, port: int, job_user: JobUser | None = None
) -> tuple[Path, int]:
    """Return the directory to use, and a descriptor that claims it as long as it is open.

    Raises
    ------
    UsageError
        The directory cannot be made, or is no directory.
    """
    if given is not None:
        prefix = own(given)
        if job_user is not None:
            share_prefix(prefix, job_user)
        return prefix, claim(given)
    for number in range(MOST_NODES_PER_PORT):
        default = default_prefix(port, job_user is not None)
        prefix = own(default.with_name(f'{default.name}.{number}') if number else default)
        lock = claim(prefix)
        if lock >= 0:
            if job_user is not None:
                share_prefix(prefix.parent, job_user)
                share_prefix(prefix, job_user)
            return prefix, lock
    raise UsageError(f'{MOST_NODES_PER_PORT} nodes run on port {port}: give --dest_path_prefix')


def own(prefix: Path) -> Path:
    """Make the directory, and mark it if it is new or empty."""
    try:
        prefix.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(prefix.iterdir()):
            (prefix / MARK).touch(mode=0o600)
    except OSError as exc:
        raise UsageError(f'--dest_path_prefix {prefix}: {exc.strerror or exc}') from exc
    mode = prefix.stat().st_mode
    if not mode & stat.S_ISVTX:  # as in /tmp, others can neither replace nor remove what is ours
        refuse_open(prefix, mode)
    return prefix


def claim(prefix: Path) -> int:
    """Lock the directory for this process; -1 if another node has it, or it is not marked."""
    try:
        mark = os.open(prefix / MARK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(mark)
        return -1
    if not os.fstat(mark).st_nlink:  # its node has just left, and taken it along
        os.close(mark)
        return claim(own(prefix))
    return mark


def leave(prefix: Path, lock: int) -> None:
    """Give the directory up at the node's end; an empty one needs no mark."""
    if lock >= 0:
        if [entry.name for entry in prefix.iterdir()] == [MARK]:
            (prefix / MARK).unlink()
        os.close(lock)


def clean(prefix: Path, lock: int, directories: Directories) -> None:
    """Remove what earlier runs have left (L22).

    Raises
    ------
    UsageError
        The directory was not made by a node, or another node is using it.
    """
    if lock < 0:
        raise UsageError(
            f'--clean: {prefix} was not made by dispynode, or another dispynode is using it; '
            'nothing was removed'
        )
    for entry in prefix.iterdir():
        if entry.name == MARK:
            continue
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        else:
            directories.remove([directories.prefix.resolve() / entry.name])
