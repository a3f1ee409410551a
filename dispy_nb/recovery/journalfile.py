"""The file of a journal: made with the first row that matters, written in one commit a time.

What cannot be written is said once, waits for a bounded time in memory, and the work goes on.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispy_nb.recovery import places
from dispy_nb.recovery.connection import adopt, let_go
from dispy_nb.recovery.fileformat import APPLICATION_ID, SCHEMA, VERSION
from nodeserver.core.errors import DatabaseError, UsageError
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.io.database import in_words, named_by_user, open_database, remove_database

_log = logging.getLogger('dispy_nb')

RETRY_SECONDS = 5.0  # after a failure
MOST_WAITING = 64 << 20  # bytes of rows that wait for room on the disk
ROW_BYTES = 100  # what a row takes besides what is in it

FIND_EPOCH = "SELECT value FROM facts WHERE name = 'epoch'"
PUT_FACT = 'INSERT OR REPLACE INTO facts VALUES (?, ?)'

Row = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class JournalPlan:
    """Where a journal is to lie, and what it says of its cluster."""

    title: str
    keeping: Keeping
    facts: Mapping[str, bytes]
    path: Path | None = None  # given by the user
    directories: tuple[Path, ...] = ()  # else the first of these that can be written
    epoch: int = 0
    resumes: bool = False  # there is one at `path`, with the epoch before this


class JournalFile:
    """Rows on their way to a file; all on the thread that opens it."""

    def __init__(self, plan: JournalPlan) -> None:
        self.path = plan.path
        self.is_wanted = plan.resumes  # there is something worth a file
        self.is_over = False
        self._plan = plan
        self._connection: sqlite3.Connection | None = None
        self._is_pointed_to = False  # or cannot be
        self._rows: list[Row] = []
        self._waiting = 0  # bytes of them
        self._failed_at = 0.0  # 0: it has not

    # opening

    def open(self) -> None:
        """Open the file that the user named, at once.

        Raises
        ------
        DatabaseError
            It cannot be used.
        UsageError
            It has jobs of another program, or was taken over by one.
        """
        path = self._plan.path
        assert path is not None
        with named_by_user(path):
            connection = open_database(path, APPLICATION_ID, VERSION, SCHEMA)
        try:
            self._begin(connection, path)
        except sqlite3.Error as error:
            connection.close()
            raise in_words(path, error) from error
        except BaseException:
            connection.close()
            raise

    def _begin(self, connection: sqlite3.Connection, path: Path) -> None:
        plan = self._plan
        row = connection.execute(FIND_EPOCH).fetchone()
        if plan.resumes and (row is None or int(row[0]) != plan.epoch - 1):
            raise UsageError(f'{path} was taken over by another program just now')
        if not plan.resumes and row is not None:
            raise UsageError(
                f'{path} is the recovery file of a program that has ended, and its jobs may be '
                f'there still: dispy.recover_jobs({str(path)!r}) fetches their results; or remove '
                'the file, or give another recover_file'
            )
        with connection:
            facts = {**plan.facts, 'epoch': str(plan.epoch).encode()}
            connection.executemany(PUT_FACT, facts.items())
        self._connection, self.path = adopt(connection), path

    def _make(self) -> None:
        """Make a file of a name of its own, in the first place where that can be done."""
        problems = []
        for directory in self._plan.directories:
            try:
                if directory == places.state_directory():
                    places.made_state_directory()
                path = places.reserve(directory)
            except OSError as error:
                problems.append(f'{directory}: {error.strerror or error}')
                continue
            try:
                connection = open_database(path, APPLICATION_ID, VERSION, SCHEMA)
                try:
                    self._begin(connection, path)
                except sqlite3.Error:
                    connection.close()
                    raise
                return
            except (DatabaseError, sqlite3.Error) as error:
                problems.append(str(error))
                with suppress(OSError):
                    remove_database(path)
        raise OSError('; '.join(problems) or 'there is no place for it')

    # writing

    def add(self, statement: str, *values: Any) -> None:
        """Have a row written with the next commit."""
        if not self.is_over:
            self._rows.append((statement, values))
            self._waiting += ROW_BYTES + sum(len(v) for v in values if isinstance(v, bytes))
            if self._waiting > MOST_WAITING and self._failed_at:
                self._give_up()

    def flush(self) -> None:
        """Write and commit what has come; called before anything is sent that relies on it."""
        if self._rows and self.is_wanted and not self.is_over and self._may_try():
            rows, self._rows = self._rows, []
            if self.change(lambda connection: _write(connection, rows)):
                self._waiting = 0
                self._point()
            else:
                self._rows = rows

    def change(self, act: Callable[[sqlite3.Connection], None]) -> bool:
        """Do something to the file in one transaction; whether it could be done."""
        try:
            if self._connection is None:
                self._make()
            assert self._connection is not None
            with self._connection:
                act(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return False
        if self._failed_at:
            self._failed_at = 0.0
            _log.warning('%s: its recovery file is written again', self._plan.title)
        return True

    def _may_try(self) -> bool:
        return not self._failed_at or time.monotonic() > self._failed_at + RETRY_SECONDS

    def _failed(self, error: sqlite3.Error | OSError) -> None:
        is_first = not self._failed_at
        self._failed_at = time.monotonic()
        if is_first:
            words = str(error)
            if self._connection is not None and self.path is not None:
                words = str(in_words(self.path, error))
            _log.error(
                '%s: the recovery file cannot be written (%s): jobs go on, but cannot all be '
                'recovered if this program is killed meanwhile; it is tried again',
                self._plan.title,
                words,
            )

    def _give_up(self) -> None:
        self.is_over = True
        self._rows.clear()
        _log.error('%s: the recovery file is given up', self._plan.title)

    def _point(self) -> None:
        """Have it found by `attach`, wherever it lies."""
        if self._is_pointed_to or self._plan.keeping != Keeping.ALL or self.path is None:
            return
        self._is_pointed_to = True
        try:
            places.point_to(self.path)
        except OSError as error:
            _log.info('%s: attach() finds it by its path only: %s', self._plan.title, error)

    # the end

    def leave(self) -> None:
        """Close the file, and let it lie."""
        self.flush()
        self.is_over = True
        if self._connection is not None:
            let_go(self._connection)
            self._connection = None

    def remove(self) -> None:
        """Remove it: nothing is left to be recovered."""
        self._rows.clear()
        is_there = self._connection is not None
        self.leave()
        if is_there and self.path is not None:
            with suppress(OSError):
                places.remove_journal(self.path)


def _write(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    for statement, values in rows:
        connection.execute(statement, values)
