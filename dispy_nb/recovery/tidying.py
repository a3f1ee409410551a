"""Removes journals of programs that have ended and left nothing to be recovered."""

import os
import re
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

from dispy_nb.recovery.places import state_directory
from dispy_nb.recovery.recorded import read
from nodeserver.core.errors import DispyError
from nodeserver.io.database import remove_database

KEPT_SECONDS = 7 * 86_400.0  # that results of an ended kernel stay
PENDING_SECONDS = 30 * 86_400.0  # that its jobs can be attached to
MOST_LOOKED_AT = 20
_NAME = re.compile(r'_dispy_\d{14}(_\d+)?')


def tidy(directory: Path) -> None:
    """Remove what has nothing left, and results that nobody has wanted for a week.

    Files that are in use, or cannot be read, are left alone, and so are names that users gave.
    Jobs that somebody could still attach to are forgotten after a month, among our own files only.
    """
    with suppress(OSError):
        paths = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
        for path in sorted(paths)[:MOST_LOOKED_AT]:
            with suppress(OSError, sqlite3.Error, DispyError):
                if _is_free(path) and _is_done(path):
                    remove_database(path)


def _is_free(path: Path) -> bool:
    """Whether it is a file of ours that nobody has open; asked without waiting."""
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode) or (hasattr(os, 'getuid') and facts.st_uid != os.getuid()):
        return False
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute('PRAGMA schema_version')  # raises where it is locked
    return True


def _is_done(path: Path) -> bool:
    age = time.time() - path.stat().st_mtime
    recorded = read(path)
    if recorded.resubmissions:
        return path.parent == state_directory() and age > PENDING_SECONDS
    return not recorded.ended or age > KEPT_SECONDS
