"""The spool: letters that outlive a node, whatever happens to it, its disk and its file."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nodeserver.core.messages import JobsDone
from nodeserver.core.nodeevents import KeptFound, KeptSent
from nodeserver.core.recoveryeffects import (
    ForgetKept,
    ForgetLetters,
    KeepComputation,
    KeepLetters,
    SendKept,
)
from nodeserver.io.sealedfile import sealed
from nodeserver.io.spool import AT_ONCE, DIRECTORY, NAME, Spool
from tests.support.nodebench import TOKEN, opening

NEEDED = KeepComputation(opening())


def letter(number: int, *outcomes: Any, computation: int = 7) -> JobsDone:
    """A letter of as many jobs."""
    ids, count = [number * 10 + job for job in range(len(outcomes))], len(outcomes)
    columns: tuple[Any, ...] = (
        [1] * count,
        [1] * count,
        list(outcomes),
        [''] * count,
        [1.0] * count,
    )
    return JobsDone(computation, 'then', number, ids, *columns)


class Drawer:
    """A spool in a directory, with what it has sent."""

    def __init__(self, prefix: Path, node: str = 'now') -> None:
        self.loop = asyncio.new_event_loop()
        self.sent: list[JobsDone] = []
        self.told: list[KeptSent] = []
        self.clock = 1000.0
        self.spool = Spool(self.loop, prefix, node, self, self._post, lambda: self.clock)
        self.found = self.spool.open()
        self.numbers = {number for found in self.found for number in found.letters}

    def send(self, peer: str, message: Any) -> None:
        """Take a letter, as the link does."""
        assert peer == 'peer'
        self.sent.append(message)

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """There is room at once."""
        assert peer == 'peer'
        call()

    def _post(self, event: Any) -> None:
        self.told.append(event)

    def keep(self, *letters: JobsDone) -> None:
        """Keep letters of the computation."""
        self.spool.keep_computation(NEEDED)
        self.spool.keep_letters(KeepLetters(7, list(letters)))
        self.numbers.update(each.letter for each in letters)

    def forget(self, *numbers: int) -> None:
        """They were acknowledged."""
        self.numbers.difference_update(numbers)
        self.spool.forget_letters(ForgetLetters(7, [*numbers]))

    def sends(self, *numbers: int) -> list[JobsDone]:
        """What is sent when it is asked for; all of it, if no numbers are given."""
        self.sent.clear()
        wanted = list(numbers) or sorted(self.numbers)
        while wanted:
            self.spool.send_kept(SendKept('peer', 7, wanted))
            wanted = wanted[len(self.told[-1].letters) :]
        return self.sent

    def close(self) -> None:
        """As at a node's end."""
        self.spool.close()
        self.loop.close()


@contextlib.contextmanager
def drawer(prefix: Path, node: str = 'now') -> Iterator[Drawer]:
    made = Drawer(prefix, node)
    try:
        yield made
    finally:
        made.close()


def file_of(prefix: Path, name: str = NAME) -> Path:
    return prefix / DIRECTORY / name


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 200 kB: this stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nothing_lies_on_disk_while_nothing_is_kept(tmp_path):
    with drawer(tmp_path) as spool:
        assert spool.found == []
        assert list(tmp_path.iterdir()) == []


def test_letters_are_there_in_the_next_run_under_its_name(tmp_path):
    with drawer(tmp_path, 'one') as spool:
        spool.keep(letter(2, b'a'), letter(3, b'b', b'c'))
    with drawer(tmp_path, 'two') as spool:
        spool.clock = 1060.0
        assert spool.found == [KeptFound(opening(), [2, 3], [1, 2], 0.0, ('one',))]
        assert spool.found[0].opened.token == TOKEN
        sent = spool.sends()
        assert [(each.node, each.letter, each.outcomes) for each in sent] == [
            ('two', 2, [b'a']),
            ('two', 3, [b'b', b'c']),
        ]
        assert [each.letter for each in spool.sends(3)] == [3]
    with drawer(tmp_path, 'three') as spool:
        assert spool.found[0].formerly == ('one', 'two')


def test_the_files_are_their_owners_alone(tmp_path):
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, b'a'))
        assert stat.S_IMODE((tmp_path / DIRECTORY).stat().st_mode) == 0o700
        files = list((tmp_path / DIRECTORY).iterdir())
        assert files
        assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in files)


def test_large_outcomes_come_back_whole(tmp_path):
    big = Random(1).randbytes(40_000_000)
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, b'small', sealed([big], 'outcome'), b'x' * 40_000))
        spool.keep(letter(2, memoryview(big)[:17_000_000]))
    with drawer(tmp_path) as spool:
        first, second = spool.sends()
        assert [bytes(each) for each in first.outcomes] == [b'small', big, b'x' * 40_000]
        assert bytes(second.outcomes[0]) == big[:17_000_000]


def test_what_was_acknowledged_is_gone_and_with_the_last_the_file(tmp_path):
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, b'a'), letter(2, b'b'))
        spool.spool.keep_computation(KeepComputation(opening(8)))
        spool.spool.keep_letters(KeepLetters(8, [letter(1, b'z', computation=8)]))
        spool.forget(1)
        assert [each.letter for each in spool.sends()] == [2]
        spool.spool.forget_kept(ForgetKept(7))
        spool.numbers.clear()
        assert file_of(tmp_path).exists()
        spool.spool.forget_kept(ForgetKept(8))
        assert list(tmp_path.iterdir()) == []
        spool.keep(letter(5, b'again'))
        assert [each.letter for each in spool.sends()] == [5]
    with drawer(tmp_path) as spool:
        assert spool.found[0].letters == [5]


def test_nodes_that_share_a_directory_have_a_file_each(tmp_path):
    with drawer(tmp_path, 'one') as one, drawer(tmp_path, 'two') as two:
        one.keep(letter(1, b'a'))
        two.keep(letter(2, b'b'))
        assert [each.letter for each in one.sends()] == [1]
        assert [each.letter for each in two.sends()] == [2]
    with drawer(tmp_path, 'three') as three, drawer(tmp_path, 'four') as four:
        assert [spool.found[0].letters for spool in (three, four)] == [[1], [2]]


def test_a_full_disk_is_said_once_and_outcomes_are_handed_over_all_the_same(
    tmp_path, small_files, caplog
):
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, b'a'))
        for number in (2, 3):
            spool.keep(letter(number, bytes(300_000)))
        said = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(said) == 1
        assert 'stay in memory for now' in said[0]
        assert 'cannot be written' in said[0]
        assert [each.letter for each in spool.sends()] == [1, 2, 3]
        spool.forget(1, 2)
        assert [each.letter for each in spool.sends()] == [3]
        spool.forget(3)


def test_what_could_not_be_written_is_written_when_there_is_room(tmp_path, caplog):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with drawer(tmp_path) as spool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        try:
            spool.keep(letter(1, bytes(300_000)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        caplog.set_level(logging.INFO, 'nodeserver.io.spool')
        spool.keep(letter(2, b'b'))
        assert 'are kept in' in caplog.text
    with drawer(tmp_path) as spool:
        assert spool.found[0].letters == [1, 2]


def test_outcomes_that_could_not_be_written_by_the_end_are_said_to_be_lost(
    tmp_path, small_files, caplog
):
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, bytes(300_000), b'x'))
    assert '2 outcomes are lost' in caplog.text


def written(prefix: Path) -> Path:
    """A file of letters 1 to 20."""
    with drawer(prefix, 'one') as spool:
        spool.keep(*[letter(number, b'x' * 3000) for number in range(1, 21)])
    return file_of(prefix)


def torn(path: Path) -> None:
    """Half a file."""
    os.truncate(path, path.stat().st_size // 2)


def foreign(path: Path) -> None:
    """No database."""
    path.write_bytes(b'something else' * 1000)


def another_kind(path: Path) -> None:
    """A database of something else."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute('PRAGMA application_id = 5')


def changed(path: Path) -> None:
    """A computation's record that no node has written."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE computations SET opened = x'00ff'")
        database.commit()


@pytest.mark.parametrize('spoil', [torn, foreign, another_kind, changed])
def test_a_file_that_cannot_be_trusted_is_set_aside_and_said(tmp_path, spoil, caplog):
    path = written(tmp_path)
    spoil(path)
    content = path.read_bytes()
    with drawer(tmp_path) as spool:
        assert spool.found == []
        aside = file_of(tmp_path, f'{NAME}.unusable-1')
        assert aside.read_bytes() == content
        assert str(aside) in caplog.text
        spool.keep(letter(1, b'a'))
        assert [each.letter for each in spool.sends()] == [1]
    with drawer(tmp_path) as spool:
        assert spool.found[0].letters == [1]
    assert aside.read_bytes() == content


def newer(path: Path) -> None:
    """A version that is not known yet."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute('PRAGMA user_version = 99')


def readable(path: Path) -> None:
    """Open to others."""
    path.chmod(0o644)


def linked(path: Path) -> None:
    """A link to somewhere else."""
    path.rename(path.with_name('elsewhere'))
    path.symlink_to('elsewhere')


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [(newer, 'newer version'), (readable, 'open to other users'), (linked, 'symbolic link')],
)
def test_a_file_that_is_not_for_this_node_is_left_where_it_is(tmp_path, spoil, words, caplog):
    path = written(tmp_path)
    spoil(path)
    content = path.read_bytes()
    with drawer(tmp_path) as spool:
        assert spool.found == []
        assert words in caplog.text
        spool.keep(letter(1, b'a'))
    assert path.read_bytes() == content
    with drawer(tmp_path) as spool:
        assert spool.found[0].letters == [1]


@pytest.mark.parametrize('way', ['open', 'link', 'other'])
def test_a_directory_that_others_could_have_made_is_not_used(tmp_path, way, caplog):
    directory = tmp_path / DIRECTORY
    if way == 'link':
        (tmp_path / 'elsewhere').mkdir(mode=0o700)
        directory.symlink_to('elsewhere')
    else:
        directory.mkdir(mode=0o700)
        if way == 'open':
            directory.chmod(0o777)
        else:
            os.chown(directory, 12345, -1)
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, b'a'))
        assert [each.letter for each in spool.sends()] == [1]  # from memory
        assert 'cannot be kept on disk' in caplog.text
        assert list(directory.iterdir()) == []
        spool.spool.forget_kept(ForgetKept(7))


def test_no_more_is_read_at_once_than_may_be_in_memory(tmp_path):
    with drawer(tmp_path) as spool:
        spool.keep(*(letter(number, bytes(AT_ONCE // 2)) for number in range(1, 6)))
        spool.keep(letter(6, bytes(AT_ONCE * 2)))
        assert [each.letter for each in spool.sends()] == [1, 2, 3, 4, 5, 6]
        assert [told.letters for told in spool.told] == [[1, 2], [3, 4], [5, 6]]


def test_a_letter_that_cannot_be_read_is_said_and_the_others_are_sent(tmp_path, caplog):
    path = written(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE frames SET content = x'17c1' WHERE letter = 4")
        database.commit()
    with drawer(tmp_path) as spool:
        assert [each.letter for each in spool.sends()] == [n for n in range(1, 21) if n != 4]
        assert 'cannot be read' in caplog.text


def test_no_token_is_shown(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = written(tmp_path)
    torn(path)
    with drawer(tmp_path) as spool:
        spool.keep(letter(1, b'a'))
    assert TOKEN.decode() not in caplog.text
    assert TOKEN.hex() not in caplog.text


_WRITER = """
import sys
from pathlib import Path
from tests.io.test_spool import drawer, letter
with drawer(Path(sys.argv[1])) as spool:
    number = max((each for found in spool.found for each in found.letters), default=0)
    print('open', flush=True)
    while True:
        number += 2
        spool.keep(letter(number - 1, b'a' * 3000, b'b'), letter(number, bytes(50_000)))
        print(number, flush=True)
        if number % 50 == 0:
            spool.forget(*range(number - 49, number - 1))
"""


@pytest.mark.slow
def test_a_node_that_is_killed_in_the_midst_of_writing_leaves_whole_letters_only(tmp_path):
    """Each letter that was said to be kept is there, with all of its outcomes."""
    random, told = Random(3), 0
    for step in range(16):
        command = [sys.executable, '-c', _WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if step % 4:
                child.stdout.readline()
                time.sleep(random.random() * 0.05)  # the moment itself is what is varied
            else:
                time.sleep(0.2 + random.random() * 0.3)  # also while it starts
            child.send_signal(signal.SIGKILL)
            numbers = [int(line) for line in child.stdout if line.strip().isdigit()]
        told = max([told, *numbers])
        with drawer(tmp_path) as spool:
            found = [number for each in spool.found for number in each.letters]
            assert max(found, default=0) >= told
            assert len(found) % 2 == 0
            for each in spool.sends() if found else ():
                sizes = [3000, 1] if each.letter % 2 else [50_000]
                assert [len(outcome) for outcome in each.outcomes] == sizes
            told = max([told, *found])
    assert told > 0
