"""Opens SQLite files of the package's own records, or says in words why one cannot be used.

    open_database ──▶ is it ours alone? ──▶ locked ──▶ is it whole, of our kind and version? ──▶ use
                                                  └──▶ (empty) its tables are made, at once or not

A file is locked by its connection for as long as that is open, so that two programs never write
one, and so that nothing beside the file has to be shared: that works on network file systems too.
What is committed survives the death of the program, not a power cut (`synchronous=NORMAL`).
"""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from nodeserver.core.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseExposed,
    DatabaseForeign,
    DatabaseUnwritable,
    DatabaseVersionUnknown,
    KeyFileError,
)
from nodeserver.io.privatefiles import check_private

BESIDE = ('-wal', '-shm', '-journal')  # what SQLite may put beside a file, by the end of its name
_PATIENCE = 0.5  # seconds for a program that is just closing the file
_LARGEST_CHECKED = 256 * 1024 * 1024  # bytes that are looked through whole when a file is opened
_LARGEST_LOG = 16 * 1024 * 1024  # bytes that are left of a file of what was written lately
_MOST_SET_ASIDE = 1000
_KINDS = {
    sqlite3.SQLITE_BUSY: DatabaseBusy,
    sqlite3.SQLITE_LOCKED: DatabaseBusy,
    sqlite3.SQLITE_CORRUPT: DatabaseDamaged,
    sqlite3.SQLITE_NOTADB: DatabaseDamaged,
    sqlite3.SQLITE_FORMAT: DatabaseDamaged,
}


def open_database(
    path: Path,
    application_id: int,
    version: int,
    schema: str,
    upgrades: Mapping[int, str] | None = None,
) -> sqlite3.Connection:
    """Open the file, which is made with these tables where there is none; nobody else can then.

    `upgrades` says, by version, what makes a file of it one of the next version.
    A transaction begins with the first change, and ends with `commit()` or `with connection:`.
    What fails later raises `sqlite3.Error`: `in_words` says what it means.

    Raises
    ------
    DatabaseExposed
        It is not ours alone: another user's, open to others, or a link to somewhere else.
    DatabaseBusy
        Another program has it open.
    DatabaseForeign
        It is something else, or a database of another program.
    DatabaseVersionUnknown
        Another version of this package has written it.
    DatabaseDamaged
        It is not whole.
    DatabaseUnwritable
        It cannot be made or written: there is no room, or no permission.
    """
    with _errors_in_words(path):
        _make_private(path)
        seen = _check(path)
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level='IMMEDIATE')
    try:
        with _errors_in_words(path):
            _prepare(connection, path, (application_id, version, schema), upgrades or {})
            if _check(path) != seen:
                raise DatabaseExposed(f'{path} was replaced while it was opened')
    except BaseException:
        connection.close()
        raise
    return connection


def in_words(path: Path, error: sqlite3.Error | OSError) -> DatabaseError:
    """Say what an error means that came of using an open file."""
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, OSError):
        return DatabaseUnwritable(f'{path} cannot be used: {error.strerror or error}')
    code = getattr(error, 'sqlite_errorcode', sqlite3.SQLITE_ERROR) & 0xFF
    kind = _KINDS.get(code)
    if kind is DatabaseBusy:
        return DatabaseBusy(f'{path} is in use by another program')
    if kind is DatabaseDamaged:
        return DatabaseDamaged(f'{path} is damaged: {error}')
    if code == sqlite3.SQLITE_FULL:
        return DatabaseUnwritable(f'{path} cannot be written: the disk is full')
    if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
        return DatabaseUnwritable(f'{path} cannot be written: {error}')
    return DatabaseDamaged(f'{path} does not hold what it should: {error}')


@contextlib.contextmanager
def named_by_user(path: Path) -> Iterator[None]:
    """Tell who has named any file at all that it is no database, and not who should read it."""
    try:
        yield
    except DatabaseExposed as error:
        if _is_something_else(path):
            raise _foreign(path) from error
        raise


def set_aside(path: Path) -> Path:
    """Move a file that cannot be used out of the way, with what lies beside it; where it is now.

    Raises
    ------
    DatabaseUnwritable
        It cannot be moved.
    """
    for number in range(1, _MOST_SET_ASIDE):
        aside = path.with_name(f'{path.name}.unusable-{number}')
        if not os.path.lexists(aside):
            with _errors_in_words(path):
                for end in BESIDE:  # first these: with a new file they would be taken for its own
                    with contextlib.suppress(FileNotFoundError):
                        _beside(path, end).rename(_beside(aside, end))
                path.rename(aside)
            return aside
    raise DatabaseUnwritable(f'{_MOST_SET_ASIDE} unusable files lie beside {path}: remove some')


def remove_database(path: Path) -> None:
    """Remove a file, and what may lie beside it after a program was killed.

    One that is still open here is unlocked by closing it afterwards: who waited for that finds
    that it has no name any more.
    """
    for end in ('', *BESIDE):  # what is beside a file that is new, SQLite itself removes
        _beside(path, end).unlink(missing_ok=True)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


@contextlib.contextmanager
def _errors_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except DatabaseError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise in_words(path, error) from error


def _make_private(path: Path) -> None:
    """Make an empty file that is ours alone, if there is none.

    One that is there must not be opened by anything but SQLite: to close it would give up the
    locks that another connection of this program has on it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_CLOEXEC', 0)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))


def _check(path: Path) -> tuple[int, int]:
    """Refuse what others could have put there, or can read; which file it is."""
    facts = os.lstat(path)
    for name in (path, *(_beside(path, end) for end in BESIDE)):
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(name)
            if stat.S_ISLNK(found.st_mode):
                raise DatabaseExposed(f'{name} is a symbolic link, which is not followed')
            try:
                check_private(name, found)
            except KeyFileError as error:
                raise DatabaseExposed(str(error)) from error
    if facts.st_nlink > 1:
        raise DatabaseExposed(f'{path} has another name (a hard link), by which it can be changed')
    return facts.st_dev, facts.st_ino


def _is_something_else(path: Path) -> bool:
    """Whether a file is no database; SQLite looks, as it knows its locks, and locks nothing."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    uri = f'{path.absolute().as_uri()}?mode=ro&immutable=1'
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute('PRAGMA schema_version')
    except sqlite3.Error as error:
        return getattr(error, 'sqlite_errorcode', 0) == sqlite3.SQLITE_NOTADB
    return False


def _foreign(path: Path) -> DatabaseForeign:
    return DatabaseForeign(f'{path} is not one of the files of this package')


def _prepare(
    connection: sqlite3.Connection,
    path: Path,
    kind: tuple[int, int, str],
    upgrades: Mapping[int, str],
) -> None:
    """Lock the file, see what it is, and make its tables if it is empty."""
    application_id, version, schema = kind
    connection.execute('PRAGMA trusted_schema = OFF')  # its text is not ours until it is checked
    connection.execute('PRAGMA locking_mode = EXCLUSIVE')
    try:
        has_tables = _number(connection, 'SELECT count(*) FROM sqlite_schema')
    except sqlite3.DatabaseError as error:
        if getattr(error, 'sqlite_errorcode', 0) == sqlite3.SQLITE_NOTADB:
            raise _foreign(path) from error
        raise
    found = _number(connection, 'PRAGMA application_id')
    found_version = _number(connection, 'PRAGMA user_version')
    is_new = not (has_tables or found or found_version)  # or its making was broken off
    if not is_new:
        oldest = min((version, *upgrades))
        _compare(path, (found, found_version), (application_id, version), oldest)
    connection.execute('PRAGMA journal_mode = WAL')
    connection.execute('PRAGMA synchronous = NORMAL')
    connection.execute(f'PRAGMA journal_size_limit = {_LARGEST_LOG}')
    if is_new:
        _fill(connection, kind)
    else:
        for before in range(found_version, version):
            _execute(connection, f'{upgrades[before]}; PRAGMA user_version = {before + 1:d}')
        _look_through(connection, path, schema)


def _compare(path: Path, found: tuple[int, int], wanted: tuple[int, int], oldest: int) -> None:
    if found[0] != wanted[0]:
        raise DatabaseForeign(f'{path} is a database of another program, or of another kind')
    if not oldest <= found[1] <= wanted[1]:
        age = 'a newer' if found[1] > wanted[1] else 'an older'
        raise DatabaseVersionUnknown(
            f'{path} was written by {age} version of this package (its format is {found[1]}, and '
            f'this version reads {wanted[1]}): use that version, or move the file away'
        )


def _fill(connection: sqlite3.Connection, kind: tuple[int, int, str]) -> None:
    application_id, version, schema = kind
    marks = f'PRAGMA application_id = {application_id:d}; PRAGMA user_version = {version:d}'
    _execute(connection, f'{schema}; {marks}')


def _execute(connection: sqlite3.Connection, script: str) -> None:
    """Do all of this, or nothing."""
    connection.executescript(f'BEGIN IMMEDIATE; {script}; COMMIT')


def _look_through(connection: sqlite3.Connection, path: Path, schema: str) -> None:
    """See that a file is whole (as far as its size allows), and has the tables it must have."""
    with contextlib.closing(sqlite3.connect(':memory:')) as model:
        model.executescript(schema)
        if _tables(connection) != _tables(model):
            raise DatabaseDamaged(f'{path} does not hold the tables that it should')
    if path.stat().st_size <= _LARGEST_CHECKED:
        (words,) = connection.execute('PRAGMA quick_check(1)').fetchone()
        if words != 'ok':
            raise DatabaseDamaged(f'{path} is damaged: {words}')


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    """Everything that a file declares, in the words in which it was declared."""
    rows = connection.execute('SELECT type, name, sql FROM sqlite_schema ORDER BY type, name')
    return rows.fetchall()


def _number(connection: sqlite3.Connection, query: str) -> int:
    (number,) = connection.execute(query).fetchone()
    return int(number)
