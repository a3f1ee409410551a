"""Removes journals of programs that have ended and left nothing to be recovered.

What has something for its user goes when it was found on so many days.  They are counted in the
file, and not taken from its age: a clock that jumps, and a long absence, count as one day.
"""

import os
import random
import re
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

from dispy_nb.recovery.journalfile import FIND_EPOCH, PUT_FACT
from dispy_nb.recovery.places import remove_journal, state_directory
from dispy_nb.recovery.recorded import opened, read
from nodeserver.core.errors import DispyError

RESULT_DAYS = 7  # on which results of an ended kernel are left where they are
PENDING_DAYS = 30  # on which its jobs can be attached to
MOST_LOOKED_AT = 20
DAY = 86_400.0  # seconds
_FOUND = 'found'
_FIND_FOUND = f"SELECT value FROM facts WHERE name = '{_FOUND}'"
_NAME = re.compile(r'_dispy_\d{14}(_\d+)?')


def tidy(directory: Path, now: float) -> None:
    """Remove what has nothing left, and results that nobody has wanted on many days.

    Files that are in use, or cannot be read, are left alone, and so are names that users gave.
    Jobs that somebody could still attach to are forgotten later, among our own files only.
    """
    with suppress(OSError):
        paths = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
        # drawn, so that none waits for ever behind those that stay
        for path in random.sample(paths, min(len(paths), MOST_LOOKED_AT)):
            with suppress(OSError, sqlite3.Error, DispyError, ValueError):
                if _is_free(path) and _is_done(path, int(now // DAY)):
                    remove_journal(path)


def _is_free(path: Path) -> bool:
    """Whether it is a file of ours that nobody has open; asked without waiting."""
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode) or (hasattr(os, 'getuid') and facts.st_uid != os.getuid()):
        return False
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute('PRAGMA schema_version')  # raises where it is locked
    return True


def _is_done(path: Path, today: int) -> bool:
    recorded = read(path)
    if recorded.resubmissions:
        return path.parent == state_directory() and _days_found(path, today) > PENDING_DAYS
    return not recorded.ended or _days_found(path, today) > RESULT_DAYS


def _days_found(path: Path, today: int) -> int:
    """On how many days the file was found as it is, with this one; those that come later know."""
    times = path.stat()
    with opened(path) as connection:
        (epoch,) = connection.execute(FIND_EPOCH).fetchone()
        row = connection.execute(_FIND_FOUND).fetchone()
        of, latest, days = map(int, row[0].split()) if row is not None else (-1, today, 0)
        if of != int(epoch):  # somebody has had it since
            days = 0
        if not days or latest != today:
            days += 1
            found = f'{int(epoch)} {today} {days}'
            connection.execute(PUT_FACT, (_FOUND, found.encode()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # by which the latest one is known
    return days
