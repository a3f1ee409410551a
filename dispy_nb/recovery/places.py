"""Where journals lie: by default in the current directory, or among this user's own files.

Those that a kernel can attach to are found in a directory of this user's: they lie there, or a
small file there says where.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from nodeserver.io.database import remove_database
from nodeserver.io.privatefiles import check_directory

PREFIX = '_dispy_'
OLDER_PREFIX = '_dispy_fault_recover_'
POINTER = '.at'  # ends the name of a file that names another one
_MOST_NAMES = 1000
_MOST_LISTED = 1000
_LONGEST_POINTER = 4096


def state_directory() -> Path:
    """Return this user's own directory of journals, whether it exists or not."""
    return Path(platformdirs.user_state_dir('dispy-nb')) / 'clusters'


def made_state_directory() -> Path:
    """Make it, where there is none; raises `OSError` where it cannot be, or is not ours alone."""
    directory = state_directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_directory(directory)
    return directory


def reserve(directory: Path, prefix: str = PREFIX) -> Path:
    """Make an empty file that is ours alone, named by the present second, and answer its path."""
    name = prefix + time.strftime('%Y%m%d%H%M%S')
    for number in range(1, _MOST_NAMES):
        path = directory / (name if number == 1 else f'{name}_{number}')
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_CLOEXEC', 0)
            os.close(os.open(path, flags, 0o600))
            return path
    raise FileExistsError(f'{_MOST_NAMES} files are called {name} in {directory}')


def free_name(directory: Path, prefix: str) -> str:
    """Return the path of a file that `reserve` would make now, and does not."""
    path = reserve(directory, prefix)
    path.unlink()
    return str(path)


def point_to(path: Path) -> None:
    """Have a journal found, also one that lies elsewhere."""
    directory, place = made_state_directory(), _resolved(path)
    if place.parent != directory.resolve():
        made = reserve(directory, 'at_')
        made.write_bytes(os.fsencode(place))
        made.rename(_pointer_to(place))


def remove_journal(path: Path) -> None:
    """Remove a journal, with what points to it."""
    remove_database(path)
    _pointer_to(_resolved(path)).unlink(missing_ok=True)


def _resolved(path: Path) -> Path:
    """Return the one name of a file that may be called by many; that itself may be no link."""
    return path.parent.resolve() / path.name


def _pointer_to(place: Path) -> Path:
    """Return what points to a journal: one, however often it is attached to."""
    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
    return state_directory() / f'at_{name}{POINTER}'


def known_journals() -> Iterator[Path]:
    """Yield the paths of all journals that can be attached to, the latest first.

    What points to a journal that is gone is removed, or to one that is pointed to already.
    """
    directory, pointed_to = state_directory(), set[Path]()
    try:
        check_directory(directory)
    except OSError:  # there is none, or it is not ours
        return
    for entry in sorted(directory.iterdir(), key=_age)[:_MOST_LISTED]:
        if entry.name.startswith(PREFIX) and not entry.name.endswith(('-wal', '-shm', '-journal')):
            yield entry
        elif entry.name.endswith(POINTER) and entry.stat().st_size <= _LONGEST_POINTER:
            path = Path(os.fsdecode(entry.read_bytes()))
            if path.is_file() and path not in pointed_to:
                pointed_to.add(path)
                yield path
            else:
                entry.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return -path.lstat().st_mtime
    except OSError:
        return 0.0
