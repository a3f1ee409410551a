"""SQLite files of the package's own: opened only where they are ours, whole, and of our kind."""

import contextlib
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from nodeserver.core.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseExposed,
    DatabaseForeign,
    DatabaseUnwritable,
    DatabaseVersionUnknown,
)
from nodeserver.io.database import (
    in_words,
    named_by_user,
    open_database,
    remove_database,
    set_aside,
)

KIND = 0x64697370
SCHEMA = 'CREATE TABLE rows (number INTEGER PRIMARY KEY, content BLOB NOT NULL)'


def opened(path: Path, kind: int = KIND, version: int = 1) -> sqlite3.Connection:
    return open_database(path, kind, version, SCHEMA)


def written(path: Path, count: int = 1) -> None:
    """Make a file with some rows, and close it."""
    with contextlib.closing(opened(path)) as connection, connection:
        connection.executemany('INSERT INTO rows VALUES (?, ?)', [(n, b'x') for n in range(count)])


def rows(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute('SELECT number FROM rows ORDER BY number')]


_OPENER = """
import sys
from pathlib import Path
from tests.io.test_database import DatabaseBusy, opened
try:
    opened(Path(sys.argv[1]))
except DatabaseBusy:
    sys.exit(7)
"""


def is_busy_elsewhere(path: Path) -> bool:
    """Whether another process finds the file in use."""
    command = [sys.executable, '-c', _OPENER, str(path)]
    return subprocess.run(command, check=False).returncode == 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'records'


def test_what_was_committed_is_there_again_and_the_file_is_its_owners_alone(path):
    written(path, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with contextlib.closing(opened(path)) as connection:
        assert rows(connection) == [0, 1, 2]
        connection.execute('INSERT INTO rows VALUES (9, ?)', (b'',))
        connection.commit()
        assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in path.parent.iterdir())
    assert [each.name for each in path.parent.iterdir()] == ['records']


def test_a_file_that_another_program_uses_is_busy(path):
    with contextlib.closing(opened(path)):
        with pytest.raises(DatabaseBusy, match='in use by another program'):
            opened(path)
        assert is_busy_elsewhere(path)
    opened(path).close()


def test_a_refused_second_opening_does_not_unlock_the_first(path):
    with contextlib.closing(opened(path)):
        for _ in range(3):
            with pytest.raises(DatabaseBusy):
                opened(path)
        assert is_busy_elsewhere(path)


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_is_open_to_others_is_refused(path, mode):
    written(path)
    path.chmod(mode)
    with pytest.raises(DatabaseExposed, match='chmod 600'):
        opened(path)


def test_looking_at_a_file_that_is_open_to_others_does_not_unlock_it(path):
    with contextlib.closing(opened(path)):
        path.chmod(0o644)
        with pytest.raises(DatabaseExposed), named_by_user(path):
            opened(path)
        path.chmod(0o600)
        assert is_busy_elsewhere(path)


def test_another_users_file_is_refused(path):
    written(path)
    os.chown(path, 12345, -1)
    with pytest.raises(DatabaseExposed, match='belongs to user 12345'):
        opened(path)


@pytest.mark.parametrize('end', ['', '-wal', '-journal', '-shm'])
def test_symbolic_links_are_not_followed(path, end):
    other = path.with_name('other')
    written(other)
    if end:
        written(path)
    path.with_name(f'records{end}').symlink_to(other)
    with pytest.raises(DatabaseExposed, match='symbolic link'):
        opened(path)


def test_a_file_with_two_names_a_pipe_and_a_directory_are_refused(path):
    written(path)
    os.link(path, path.with_name('twin'))
    with pytest.raises(DatabaseExposed, match='hard link'):
        opened(path)
    os.mkfifo(path.with_name('pipe'), 0o600)
    path.with_name('directory').mkdir()
    for name in ('pipe', 'directory'):
        with pytest.raises(DatabaseError, match='not a regular file'):
            opened(path.with_name(name))


@pytest.mark.parametrize('mode', [0o600, 0o644])
@pytest.mark.parametrize('count', [1, 100])
def test_what_is_no_database_is_foreign_whoever_may_read_it_and_left_as_it_is(path, mode, count):
    content = b'not a database, but somebody needs it\n' * count
    path.write_bytes(content)
    path.chmod(mode)
    refused = pytest.raises(DatabaseForeign, match='not one of the files of this package')
    with refused, named_by_user(path):
        opened(path)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_database_of_another_program_is_foreign(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TABLE bookmarks (url TEXT)')
    path.chmod(0o600)
    with pytest.raises(DatabaseForeign):
        opened(path)
    with pytest.raises(DatabaseForeign):
        opened(path, kind=KIND + 1)


@pytest.mark.parametrize(('version', 'age'), [(2, 'a newer'), (0, 'an older')])
def test_another_version_is_refused_in_words(path, version, age):
    opened(path, version=version).close()
    with pytest.raises(DatabaseVersionUnknown, match=f'{age} version.*move the file away'):
        opened(path)


def test_a_file_with_more_than_our_tables_is_not_trusted(path):
    written(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END')
    with pytest.raises(DatabaseDamaged, match='tables'):
        opened(path)


def test_a_torn_file_never_opens_as_if_it_were_whole(path):
    """Each cut and each overwritten page is either refused in words, or changes no row."""
    written(path, 2000)
    whole, random = path.read_bytes(), Random(7)
    refused = 0
    for step in range(60):
        torn = bytearray(whole)
        if step % 2:
            del torn[random.randrange(1, len(torn)) :]
        else:
            start = random.randrange(0, len(torn) - 200)
            torn[start : start + 200] = random.randbytes(200)
        remove_database(path)
        path.write_bytes(torn)
        path.chmod(0o600)
        try:
            with contextlib.closing(opened(path)) as connection:
                found = rows(connection)
        except DatabaseError:
            refused += 1
        except sqlite3.Error as error:
            assert str(path) in str(in_words(path, error))
            refused += 1
        else:
            assert len(found) == len(set(found))
    assert refused > 30


def test_what_cannot_be_used_is_set_aside_with_all_that_belongs_to_it(path):
    for number in (1, 2):
        path.write_bytes(b'torn')
        path.with_name('records-wal').write_bytes(b'log')
        aside = set_aside(path)
        assert aside.name == f'records.unusable-{number}'
        assert aside.read_bytes() == b'torn'
        assert aside.with_name(aside.name + '-wal').read_bytes() == b'log'
        assert not path.exists()
    written(path)
    with contextlib.closing(opened(path)) as connection:
        assert rows(connection) == [0]


def test_a_full_disk_is_said_in_words_and_nothing_half_is_left(path):
    """The limit on a file's size stands for the end of the disk."""
    written(path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(opened(path)) as connection:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(sqlite3.Error) as caught, connection:
                connection.execute('INSERT INTO rows VALUES (5, ?)', (bytes(1_000_000),))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert isinstance(in_words(path, caught.value), DatabaseUnwritable)
        assert rows(connection) == [0]
        with connection:
            connection.execute('INSERT INTO rows VALUES (5, ?)', (bytes(1_000_000),))
        assert rows(connection) == [0, 5]


def test_a_place_that_is_not_there_is_said_in_words(tmp_path):
    with pytest.raises(DatabaseUnwritable, match='No such file or directory'):
        opened(tmp_path / 'nowhere' / 'records')


_WRITER = """
import sys
from pathlib import Path
from tests.io.test_database import opened
connection = opened(Path(sys.argv[1]))
(last,) = connection.execute('SELECT coalesce(max(number), -1) FROM rows').fetchone()
print('open', flush=True)
while True:
    last += 10
    with connection:
        for number in range(last - 9, last + 1):
            connection.execute('INSERT INTO rows VALUES (?, ?)', (number, bytes(3000)))
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_at_any_moment_leaves_whole_transactions(path):
    random, most = Random(11), 0
    for step in range(25):
        command = [sys.executable, '-c', _WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            if step % 4:
                child.stdout.readline()
                time.sleep(random.random() * 0.05)  # the moment itself is what is varied
            else:
                time.sleep(random.random() * 0.25)  # also while it is being made or opened
            child.send_signal(signal.SIGKILL)
        with contextlib.closing(opened(path)) as connection:
            found = rows(connection)
        assert found == list(range(len(found)))
        assert len(found) % 10 == 0
        assert len(found) >= most
        most = len(found)
    assert most > 0
