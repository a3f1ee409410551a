"""A node's spool: outcomes that nobody may be there to take, in a file that outlives the node (D8).

    KeepLetters ──▶ changes ──▶ one commit ──▶ <prefix>/.dispynode-kept/outcomes
    SendKept ◀── file, and what could not be written yet       start of a node ──▶ KeptFound

Where the disk is full, or the file cannot be used, outcomes stay in memory, from where they are
handed over as well, and writing is tried again.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from nodeserver.core.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseExposed,
    DatabaseForeign,
    DatabaseUnwritable,
    DatabaseVersionUnknown,
    KeyFileError,
    ProtocolError,
)
from nodeserver.core.events import Event
from nodeserver.core.messages import JobsDone, Message, OpenComputation
from nodeserver.core.nodeevents import KeptFound, KeptSent
from nodeserver.core.recoveryeffects import (
    ForgetKept,
    ForgetLetters,
    KeepComputation,
    KeepLetters,
    SendKept,
)
from nodeserver.io.database import in_words, open_database, remove_database, set_aside
from nodeserver.io.privatefiles import check_directory
from nodeserver.io.sealedfile import content_of
from nodeserver.wire.codec import decode, encode

DIRECTORY = '.dispynode-kept'
NAME = 'outcomes'
APPLICATION_ID = 0x64704B31
VERSION = 1
RETRY_SECONDS = 10.0
LARGEST_PART = 16 * 1024 * 1024  # bytes of a row: SQLite takes no more than a thousand million
AT_ONCE = 16 * 1024 * 1024  # bytes of outcomes that are sent before there is room for more
MOST_NODES = 100  # former peer ids that are told
_MOST_FILES = 100  # of nodes that share a directory, or that could not be used
_SCHEMA = """
CREATE TABLE computations (
    id TEXT PRIMARY KEY, opened BLOB NOT NULL, since REAL NOT NULL, nodes TEXT NOT NULL);
CREATE TABLE letters (
    computation TEXT NOT NULL, letter INTEGER NOT NULL, jobs INTEGER NOT NULL,
    PRIMARY KEY (computation, letter));
CREATE TABLE frames (
    computation TEXT NOT NULL, letter INTEGER NOT NULL, frame INTEGER NOT NULL,
    part INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (computation, letter, frame, part))
"""
_UNUSABLE = (DatabaseDamaged, DatabaseForeign)  # moved away; others' files are left where they are
_NOT_OURS = (DatabaseBusy, DatabaseVersionUnknown, DatabaseExposed)

_log = logging.getLogger(__name__)


class Sending(Protocol):
    """What is used of the link."""

    def send(self, peer: str, message: Message) -> None:
        """Hand a letter over."""

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have this called when there is room for more."""


@dataclass(slots=True)
class _Computation:
    """What is written of a computation beside its letters."""

    opened: OpenComputation
    since: float
    nodes: list[str]
    is_written: bool = False

    def row(self) -> tuple[str, bytes, float, str]:
        """Columns of its row."""
        (frame,) = encode(self.opened)
        return str(self.opened.computation), frame, self.since, ' '.join(self.nodes)


class Spool:
    """The letters that one node keeps."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        prefix: Path,
        node_id: str,
        link: Sending,
        post: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loop, self._node_id, self._clock = loop, node_id, clock
        self._link, self._post = link, post
        self._directory = prefix / DIRECTORY
        self._path = self._directory / NAME
        self._database: sqlite3.Connection | None = None
        self._computations: dict[int, _Computation] = {}
        self._unwritten: dict[tuple[int, int], JobsDone] = {}
        self._unforgotten: dict[tuple[int, int | None], None] = {}  # no letter: all of it
        self._has_failed = False
        self._timer: asyncio.TimerHandle | None = None

    # what an earlier run has left

    def open(self) -> list[KeptFound]:
        """Look for what earlier runs have kept."""
        if not any(self._directory.glob(f'{NAME}*')):
            return []
        try:
            self._open_file()
            found = [self._found(row) for row in self._rows('SELECT * FROM computations')]
            self._write_changes()
        except (DatabaseError, ProtocolError, ValueError, TypeError) as error:
            self._computations.clear()
            self._failed(error)
            return []
        return found

    def _found(self, row: Sequence[Any]) -> KeptFound:
        name, frame, since, nodes = row
        opened = decode([frame])
        if not isinstance(opened, OpenComputation) or str(opened.computation) != name:
            raise DatabaseDamaged(f'{self._path} does not hold what it should')
        former = nodes.split()
        rows = list(
            self._rows('SELECT letter, jobs FROM letters WHERE computation = ? ORDER BY 1', name)
        )
        known = [node for node in former if node != self._node_id] + [self._node_id]
        kept = _Computation(opened, float(since), known[-MOST_NODES:])
        self._computations[opened.computation] = kept
        letters, jobs = [int(letter) for letter, _ in rows], [int(count) for _, count in rows]
        age = max(0.0, self._clock() - kept.since)
        return KeptFound(opened, letters, jobs, age, tuple(former))

    # effects

    def keep_computation(self, effect: KeepComputation) -> None:
        """Know of a computation; it is written with the first of its letters."""
        kept = _Computation(effect.opened, self._clock(), [self._node_id])
        self._computations.setdefault(effect.opened.computation, kept)

    def keep_letters(self, effect: KeepLetters) -> None:
        """Write letters, all or none."""
        for letter in effect.letters:
            self._unwritten[effect.computation, letter.letter] = letter
        self._write()

    def forget_letters(self, effect: ForgetLetters) -> None:
        """Remove letters that were acknowledged."""
        for letter in effect.letters:
            if self._unwritten.pop((effect.computation, letter), None) is None:
                self._unforgotten[effect.computation, letter] = None
        self._write()

    def forget_kept(self, effect: ForgetKept) -> None:
        """Remove all of a computation; a file of which nothing is left goes with it."""
        self._computations.pop(effect.computation, None)
        for key in [key for key in self._unwritten if key[0] == effect.computation]:
            del self._unwritten[key]
        self._unforgotten[effect.computation, None] = None
        self._write()
        if not self._computations:
            self._remove()

    def send_kept(self, effect: SendKept) -> None:
        """Send letters once more, in the name of this node, as many as may be in memory."""
        sent: list[int] = []
        size = 0
        for number in effect.letters:
            letter = self._letter(effect.computation, number)
            sent.append(number)
            if letter is not None:
                self._link.send(effect.peer, replace(letter, node=self._node_id))
                size += sum(map(len, letter.outcomes))
            if size >= AT_ONCE:
                break
        told = KeptSent(effect.peer, effect.computation, sent)
        self._link.when_sent(effect.peer, lambda: self._post(told))

    def close(self) -> None:
        """Let go of the file."""
        if self._timer is not None:
            self._timer.cancel()
        if self._unwritten or self._unforgotten:
            self._write()
        if self._unwritten:
            count = sum(len(letter.ids) for letter in self._unwritten.values())
            _log.error('%d outcomes are lost: they could not be written', count)
        if self._database is not None:
            self._database.close()
            self._database = None

    # reading

    def _letter(self, computation: int, number: int) -> JobsDone | None:
        letter = self._unwritten.get((computation, number))
        if letter is not None:
            return letter
        try:
            message = decode(self._frames(computation, number))
            if isinstance(message, JobsDone) and message.computation == computation:
                return message
            raise DatabaseDamaged(f'{self._path} does not hold what it should')
        except (DatabaseError, ProtocolError) as error:
            _log.error('outcomes that were kept cannot be read: %s', error)
            return None

    def _frames(self, computation: int, number: int) -> list[bytes]:
        query = (
            'SELECT frame, content FROM frames WHERE computation = ? AND letter = ? '
            'ORDER BY frame, part'
        )
        frames: dict[int, list[bytes]] = {}
        for frame, content in self._rows(query, str(computation), number):
            frames.setdefault(frame, []).append(content)
        return [parts[0] if len(parts) == 1 else b''.join(parts) for parts in frames.values()]

    def _rows(self, query: str, *values: object) -> Iterator[Sequence[Any]]:
        if self._database is not None:
            try:
                yield from self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise in_words(self._path, error) from error

    # writing

    def _write(self) -> None:
        """Bring the file up to date, in one transaction; what fails is tried again later."""
        try:
            self._open_file()
            self._write_changes()
        except DatabaseError as error:
            self._failed(error)
        else:
            self._unwritten.clear()
            self._unforgotten.clear()
            if self._has_failed:
                self._has_failed = False
                _log.info('outcomes are kept in %s again', self._path)

    def _write_changes(self) -> None:
        database = self._database
        assert database is not None
        try:
            with database:
                self._forget_rows()
                unwritten = [kept for kept in self._computations.values() if not kept.is_written]
                rows = [kept.row() for kept in unwritten]
                self._change('INSERT OR REPLACE INTO computations VALUES (?, ?, ?, ?)', rows)
                for (computation, number), letter in self._unwritten.items():
                    self._insert(str(computation), number, letter)
        except sqlite3.Error as error:
            raise in_words(self._path, error) from error
        for kept in unwritten:
            kept.is_written = True

    def _forget_rows(self) -> None:
        letters = [(str(c), number) for c, number in self._unforgotten if number is not None]
        whole = [(str(c),) for c, number in self._unforgotten if number is None]
        for table in ('letters', 'frames'):
            self._change(f'DELETE FROM {table} WHERE computation = ? AND letter = ?', letters)
            self._change(f'DELETE FROM {table} WHERE computation = ?', whole)
        self._change('DELETE FROM computations WHERE id = ?', whole)

    def _insert(self, computation: str, number: int, letter: JobsDone) -> None:
        frames = [memoryview(content_of(frame)) for frame in encode(letter)]
        parts = [
            (computation, number, place, part, frame[start : start + LARGEST_PART])
            for place, frame in enumerate(frames)
            for part, start in enumerate(range(0, len(frame), LARGEST_PART))
        ]
        row = (computation, number, len(letter.ids))
        self._change('INSERT OR REPLACE INTO letters VALUES (?, ?, ?)', [row])
        self._change('INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?, ?)', parts)

    def _change(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        if self._database is not None:
            self._database.executemany(statement, rows)

    # the file

    def _open_file(self) -> None:
        """Open the first file that this node can have; others' stay as they are.

        Nodes that were given the same directory have a file each.
        """
        if self._database is not None:
            return
        self._make_directory()
        for number in range(_MOST_FILES):
            self._path = self._directory / (f'{NAME}.{number}' if number else NAME)
            try:
                self._database = self._open_this()
            except DatabaseBusy:
                continue
            except _NOT_OURS as error:
                _log.error('outcomes of an earlier run are left where they are: %s', error)
                continue
            return
        raise DatabaseUnwritable(f'none of the {_MOST_FILES} files in {self._directory} can be had')

    def _open_this(self) -> sqlite3.Connection:
        try:
            return open_database(self._path, APPLICATION_ID, VERSION, _SCHEMA)
        except _UNUSABLE as error:
            self._set_aside(error)
            return open_database(self._path, APPLICATION_ID, VERSION, _SCHEMA)

    def _set_aside(self, error: DatabaseError) -> None:
        aside = set_aside(self._path)
        _log.error('outcomes that were kept cannot be used, and are now in %s: %s', aside, error)

    def _make_directory(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            if self._directory.is_symlink():
                raise DatabaseExposed(f'{self._directory} is a symbolic link')
            check_directory(self._directory)
            self._directory.chmod(0o700)
        except KeyFileError as error:
            raise DatabaseExposed(str(error)) from error
        except DatabaseError:
            raise
        except OSError as error:
            raise in_words(self._directory, error) from error

    def _failed(self, error: Exception) -> None:
        """Say once that the file cannot be used; what is not written stays in memory."""
        if not self._has_failed:
            text = 'outcomes cannot be kept on disk, and stay in memory for now: %s'
            _log.error(text, error)
        self._has_failed = True
        if isinstance(error, DatabaseDamaged | ProtocolError | ValueError | TypeError):
            self._give_up_file(error)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(RETRY_SECONDS, self._retry)

    def _give_up_file(self, error: Exception) -> None:
        """Move a file away in which there is something wrong; another one is begun."""
        if self._database is not None:
            self._database.close()
            self._database = None
            for kept in self._computations.values():
                kept.is_written = False
            with contextlib.suppress(DatabaseError):  # it is said when another is begun
                self._set_aside(DatabaseDamaged(str(error)))

    def _retry(self) -> None:
        self._timer = None
        if self._unwritten or self._unforgotten:
            self._write()

    def _remove(self) -> None:
        """Nothing is kept: no file either."""
        if self._database is not None and not self._unforgotten:
            with contextlib.suppress(OSError):
                # first its names: who opens it now finds out that it has none any more
                remove_database(self._path)
                self._database.close()
                self._database = None
                self._directory.rmdir()
