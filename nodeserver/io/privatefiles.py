"""Files that are for one user alone: read only where that is so, and written so that it is (D7)."""

import os
import stat
from pathlib import Path

from nodeserver.core.errors import KeyFileError

_LARGEST_FILE = 4096


def write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, 'w', encoding='ascii') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_private(path: Path) -> str:
    """Read a file of one line, if nobody but its owner, which is us, can read or change it."""
    try:
        # not to wait for whoever writes into a named pipe
        descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0))
        with os.fdopen(descriptor, 'rb') as file:
            check_private(path, os.fstat(file.fileno()))
            text = file.read(_LARGEST_FILE + 1).decode()
    except KeyFileError:
        raise
    except UnicodeDecodeError as exc:
        raise KeyFileError(f'{path} is not a text file of one line') from exc
    except OSError as exc:
        raise KeyFileError(f'{path} cannot be read: {exc.strerror}') from exc
    lines = text.splitlines()
    if len(lines) != 1 or len(text) > _LARGEST_FILE:
        raise KeyFileError(f'{path} must hold one line and nothing else')
    return lines[0]


def check_private(path: Path, facts: os.stat_result) -> None:
    """Raise `KeyFileError` for a file that is not ours, or that others could read."""
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f'{path} is not a regular file')
    _check_owner(path, facts)
    if hasattr(os, 'getuid') and facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyFileError(f'{path} is open to other users (mode {mode:04o}): chmod 600 {path}')


def check_directory(path: Path) -> None:
    """Refuse a directory in which others could put a file of theirs in place of ours."""
    facts = path.stat()
    _check_owner(path, facts)
    if hasattr(os, 'getuid') and facts.st_mode & 0o022:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyFileError(
            f'{path} can be written by other users (mode {mode:04o}): chmod 700 {path}'
        )


def _check_owner(path: Path, facts: os.stat_result) -> None:
    if hasattr(os, 'geteuid') and facts.st_uid != os.geteuid():
        raise KeyFileError(
            f'{path} belongs to user {facts.st_uid}, and this program runs as user '
            f'{os.geteuid()}: run it as the other one, or: chown {os.geteuid()} {path}'
        )
