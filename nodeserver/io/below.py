"""Directories below one that is ours, where others may write: no link on the way is followed."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

DIRECTORY = sum(getattr(os, f'O_{name}', 0) for name in ('DIRECTORY', 'NOFOLLOW', 'CLOEXEC'))


@contextmanager
def opened(base: Path, parts: Sequence[str], mode: int | None = None) -> Iterator[int]:
    """Open a directory below `base`, and with a `mode` make those on the way that are missing."""
    fd = os.open(base, DIRECTORY)
    try:
        for part in parts:
            below = _step(fd, part, mode)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _step(parent: int, name: str, mode: int | None) -> int:
    made = False
    if mode is not None:
        with suppress(FileExistsError):
            os.mkdir(name, mode & 0o777, dir_fd=parent)
            made = True
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    if made and mode is not None:
        with suppress(PermissionError):  # it was replaced at once by whoever may do so
            os.fchmod(fd, mode)
    return fd


def remove_tree(base: Path, parts: Sequence[str]) -> None:
    """Remove a directory below `base` with all that is in it."""
    with suppress(FileNotFoundError), opened(base, parts[:-1]) as parent:
        if stat.S_ISDIR(os.lstat(parts[-1], dir_fd=parent).st_mode):
            shutil.rmtree(parts[-1], dir_fd=parent)
        else:
            os.unlink(parts[-1], dir_fd=parent)


def remove_empty(base: Path, parts: Sequence[str]) -> None:
    """Remove a directory and those above it below `base`, as far as they are empty."""
    for length in range(len(parts), 0, -1):
        try:
            with opened(base, parts[: length - 1]) as parent:
                os.rmdir(parts[length - 1], dir_fd=parent)
        except FileNotFoundError:
            continue
        except OSError:  # it holds something else
            return


def unlock(directory: Path, mode: int) -> None:
    """Take back, as the owner, what a job has left without the right to look or write into it."""
    waiting = [directory]
    while waiting:
        place = waiting.pop()
        with suppress(OSError):  # another user's, or gone
            facts = place.lstat()
            if facts.st_uid == os.getuid() and facts.st_mode & 0o700 != 0o700:
                _chmod(place, mode)
            with os.scandir(place) as entries:
                waiting += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]


def _chmod(directory: Path, mode: int) -> None:
    """Change a directory's mode, and not that of what a link in its place leads to."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(directory, mode, follow_symlinks=False)  # noqa: PTH101 - as that was asked of it
        return
    fd = os.open(directory, DIRECTORY | os.O_PATH)
    try:
        os.chmod(f'/proc/self/fd/{fd}', mode)  # noqa: PTH101 - of what is open
    finally:
        os.close(fd)
