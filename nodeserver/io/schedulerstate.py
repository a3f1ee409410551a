"""What a dispyscheduler keeps on disk, so that the next one at its place can go on.

    RecordComputation, RecordNode ──▶ one commit each          ForgetComputation ──▶ nothing is left
    RecordPlacements ──▶ one commit for all jobs of a turn
    RecordClosed ──▶ nodes that are yet to be told ── ForgetUntold, for all of a turn ──▶ nothing

Written are names of computations, nodes and jobs, where programs are, and the tokens by which
computations are taken over: neither functions nor arguments nor results.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from nodeserver.core.errors import (
    DatabaseDamaged,
    DatabaseForeign,
    DatabaseUnwritable,
    DatabaseVersionUnknown,
    UsageError,
)
from nodeserver.core.recoveryeffects import (
    ForgetComputation,
    ForgetUntold,
    RecordClosed,
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
)
from nodeserver.core.recoveryevents import ClosingKnown
from nodeserver.core.recoverymessages import KnownNode
from nodeserver.core.takeover import ALL_JOBS, ANYWHERE
from nodeserver.io import closedrecords
from nodeserver.io.closedrecords import ADD_NODE, Change, node_row, read_nodes
from nodeserver.io.database import in_words, open_database, remove_database, set_aside
from nodeserver.io.workdir import default_prefix, refuse_open

FILE: Final = 'state.sqlite'
APPLICATION: Final = 0x444E5363  # 'DNSc'
VERSION: Final = 3
MOST_PENDING: Final = 10_000  # changes that wait for room on the disk
_SCHEMA: Final = f"""
CREATE TABLE computation (
    id INTEGER PRIMARY KEY, token BLOB NOT NULL, epoch INTEGER NOT NULL, name TEXT NOT NULL,
    hosts TEXT NOT NULL, port INTEGER NOT NULL, exclusive INTEGER NOT NULL
);
CREATE TABLE node (
    computation INTEGER NOT NULL, node TEXT NOT NULL, address TEXT NOT NULL,
    port INTEGER NOT NULL, via TEXT NOT NULL, PRIMARY KEY (computation, node)
) WITHOUT ROWID;
CREATE TABLE placement (
    number INTEGER PRIMARY KEY, computation INTEGER NOT NULL, node TEXT NOT NULL,
    jobs BLOB NOT NULL, attempts BLOB NOT NULL
);
CREATE INDEX placement_of ON placement (computation);
{closedrecords.TABLE}
"""
_UPGRADES: Final = {2: closedrecords.TABLE}

T = TypeVar('T')

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program waits for its scheduler; with port 0 it does not."""

    hosts: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class KnownComputation:
    """A computation of a scheduler that is gone, as its state tells of it."""

    computation: int
    token: bytes = field(repr=False)  # who has it could take the computation over
    epoch: int
    name: str
    place: Place
    nodes: list[KnownNode]
    places: list[str]  # nodes, by peer id; '': none any more
    ids: list[list[int]]  # jobs that were given to each of these, the latest last
    attempts: list[list[int]]  # and as which attempts
    exclusive: bool


class SchedulerState:
    """The file in this directory, which is opened at once.

    What cannot be written is kept until it can be, and told once: work goes on.  A scheduler that
    dies meanwhile leaves a file that says too little; then programs' own words are believed.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = directory / FILE
        self._clock = clock
        self._pending: list[Change] = []
        self._gone: set[int] = set()  # computations that are to be dropped once there is room
        self._has_complained = False
        self._connection: sqlite3.Connection | None = self._open()

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    @property
    def is_written(self) -> bool:
        """Whether everything has been written so far."""
        return self._connection is not None and not self._pending

    def take_over(self) -> list[KnownComputation]:
        """Read what an earlier scheduler has left; from now on its computations are ours.

        The epoch that is told is committed before: of two schedulers with one file's contents,
        nodes follow the later one.
        """
        self._write(('UPDATE computation SET epoch = epoch + 1', [()]))
        return self._read_or_begin(self._read)

    def closings(self) -> list[ClosingKnown]:
        """Read which computations of an earlier scheduler are closed, and who is yet to be told."""
        return self._read_or_begin(self._read_closings)

    def computation(self, effect: RecordComputation, place: Place) -> None:
        """Note a computation and where its program is."""
        declared = effect.declared
        self._gone.discard(declared.computation)
        row = (declared.computation, declared.token, declared.epoch, declared.name)
        words = (
            'INSERT INTO computation VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET '
            'token = excluded.token, epoch = max(epoch, excluded.epoch), hosts = excluded.hosts, '
            'port = excluded.port, exclusive = excluded.exclusive'
        )
        self._write(
            ('DELETE FROM closed WHERE id = ?', [(declared.computation,)]),
            (words, [(*row, '\n'.join(place.hosts), place.port, int(declared.exclusive))]),
            _placed([(row[0], ANYWHERE[0], [ALL_JOBS], [])] if effect.is_unknown else []),
        )

    def node(self, effect: RecordNode) -> None:
        """Note a node that gets a computation."""
        self._write((ADD_NODE, [node_row(effect.computation, effect.node)]))

    def placements(self, effect: RecordPlacements) -> None:
        """Note which nodes get which jobs."""
        columns = effect.computations, effect.nodes, effect.ids, effect.attempts
        self._write(_placed(zip(*columns, strict=True)))

    def rewritten(self, effect: RewritePlacements) -> None:
        """Note the same in place of all that was noted of a computation."""
        columns = repeat(effect.computation), effect.nodes, effect.ids, effect.attempts
        self._write(
            ('DELETE FROM placement WHERE computation = ?', [(effect.computation,)]),
            _placed(zip(*columns, strict=False)),
        )

    def forgotten(self, effect: ForgetComputation) -> None:
        """Drop all that was noted of a computation."""
        self._gone.add(effect.computation)
        self._write(*closedrecords.forgotten(effect.computation))

    def closed(self, effect: RecordClosed) -> None:
        """Note which nodes are yet to be told that a computation is closed, and nothing else."""
        self._gone.add(effect.message.computation)
        self._write(*closedrecords.closed(effect, self._clock()))

    def told(self, effect: ForgetUntold) -> None:
        """Drop nodes that know of that."""
        self._write(*closedrecords.told(effect))

    def try_again(self) -> None:
        """Write what waits for room, if anything does."""
        if self._pending:
            self._write()

    def close(self) -> None:
        """Close the file; an empty one is removed."""
        connection = self._connection
        if connection is None:
            return
        is_empty = not (self._count('computation') or self._count('closed'))
        connection.close()
        self._connection = None
        if is_empty:
            remove_database(self._path)

    def has_computations(self) -> bool:
        """Whether nodes have anything that is for the next scheduler."""
        return self._count('computation') > 0

    def _count(self, table: str) -> int:
        if self._connection is None:
            return 0
        try:
            rows = self._connection.execute(f'SELECT id FROM {table}').fetchall()
            found = {computation for (computation,) in rows}
            return len(found - self._gone if table == 'computation' else found)
        except sqlite3.Error as error:
            _log.warning('%s', in_words(self._path, error))
            return 1

    def _open(self) -> sqlite3.Connection | None:
        try:
            return _opened(self._path)
        except (DatabaseDamaged, DatabaseForeign) as error:
            return self._anew(error)
        except DatabaseUnwritable as error:
            self._complain(error)
            return None

    def _start_anew(self, error: DatabaseDamaged) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._anew(error)

    def _anew(self, error: DatabaseDamaged | DatabaseForeign) -> sqlite3.Connection:
        aside = set_aside(self._path)
        _log.error(
            '%s: it was moved to %s, and a new one is begun; what programs know themselves of '
            'their jobs is not lost',
            error,
            aside.name,
        )
        return _opened(self._path)

    def _read_or_begin(self, read: Callable[[], list[T]]) -> list[T]:
        """Read something, unless that shows that the file is damaged: then a new one is begun."""
        try:
            return read()
        except DatabaseDamaged as error:
            self._start_anew(error)
            return []

    def _read_closings(self) -> list[ClosingKnown]:
        return self._checked(lambda c: closedrecords.read_closed(c, self._clock()))

    def _read(self) -> list[KnownComputation]:
        return self._checked(self._all)

    def _checked(self, read: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
        if self._connection is None:
            return []
        try:
            return read(self._connection)
        except sqlite3.Error as error:
            raise DatabaseDamaged(str(in_words(self._path, error))) from error
        except (msgspec.DecodeError, TypeError, ValueError) as error:
            raise DatabaseDamaged(f'{self._path} does not hold what it should: {error}') from error

    def _all(self, connection: sqlite3.Connection) -> list[KnownComputation]:
        rows = connection.execute('SELECT * FROM computation').fetchall()
        return [self._one(connection, row) for row in rows]

    def _one(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> KnownComputation:
        computation, token, epoch, name, hosts, port, exclusive = msgspec.convert(
            row, _ROW, builtin_types=(bytes,)
        )
        nodes = read_nodes(connection, computation)
        words = 'SELECT node, jobs, attempts FROM placement WHERE computation = ? ORDER BY number'
        rows = connection.execute(words, (computation,)).fetchall()
        places = _typed([node for node, _, _ in rows], list[str])
        ids = [_decode(jobs) for _, jobs, _ in rows]
        attempts = [
            _spread(_decode(told), len(of)) for (_, _, told), of in zip(rows, ids, strict=True)
        ]
        place = Place(tuple(hosts.split('\n')) if hosts else (), port)
        return KnownComputation(
            computation, token, epoch, name, place, nodes, places, ids, attempts, bool(exclusive)
        )

    def _write(self, *changes: Change) -> None:
        """Commit changes, behind those that could not be written before."""
        connection = self._connection
        if connection is None:
            return
        if self._pending:
            self._pending += changes
            changes, self._pending = tuple(self._pending), []
        try:
            with connection:
                for words, rows in changes:
                    connection.executemany(words, rows)
        except sqlite3.Error as error:
            self._failed(error, changes)
        else:
            self._gone.clear()
            if self._has_complained:
                self._has_complained = False
                _log.info('%s can be written again', self._path)

    def _failed(self, error: sqlite3.Error, changes: Iterable[Change]) -> None:
        self._pending = [*changes]
        self._complain(in_words(self._path, error))
        if len(self._pending) > MOST_PENDING:
            self._give_up()

    def _give_up(self) -> None:
        """Do without a state rather than with one that says what was true long ago."""
        self._pending.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        remove_database(self._path)
        _log.error('%s is given up, and removed: it misses too much', self._path)

    def _complain(self, error: Exception) -> None:
        if not self._has_complained:
            self._has_complained = True
            _log.error('%s; work goes on, but a scheduler after this one knows less', error)


_ROW = tuple[int, bytes, int, str, str, int, int]


def _opened(path: Path) -> sqlite3.Connection:
    return open_database(path, APPLICATION, VERSION, _SCHEMA, _UPGRADES)


def _typed(found: Any, kind: Any) -> Any:
    """Check what a file holds: columns of SQLite take values of any type."""
    return msgspec.convert(found, kind, builtin_types=(bytes,))


def _placed(rows: Iterable[tuple[int, str, list[int], list[int]]]) -> Change:
    words = 'INSERT INTO placement (computation, node, jobs, attempts) VALUES (?, ?, ?, ?)'
    return words, [
        (comp, node, _encode(ids), _encode(_shortened(told))) for comp, node, ids, told in rows
    ]


def _shortened(attempts: list[int]) -> list[int]:
    """Numbers that are all the same, as they nearly always are, are written once."""
    is_same = len(attempts) > 1 and attempts.count(attempts[0]) == len(attempts)
    return attempts[:1] if is_same else attempts


def _spread(attempts: list[int], count: int) -> list[int]:
    if len(attempts) == 1:
        return attempts * count
    if attempts and len(attempts) != count:
        raise ValueError(f'{len(attempts)} attempts of {count} jobs')
    return attempts


def state_directory(given: Path | None, port: int) -> Path:
    """Make the directory in which the state is kept, by default one for each port for programs.

    Raises
    ------
    UsageError
        It cannot be made, or others could replace what is in it.
    """
    if given is None:
        return default_prefix(port, kind='scheduler')
    try:
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_open(given, given.stat().st_mode)
    except OSError as error:
        raise UsageError(f'--dest_path_prefix {given}: {error.strerror or error}') from error
    return given


def clean_state(directory: Path) -> None:
    """Remove what earlier schedulers have left in this directory, also what nobody can read.

    Raises
    ------
    DatabaseBusy
        A scheduler uses it.
    DatabaseForeign
        It was made by another program, and is left where it is.
    DatabaseUnwritable
        It cannot be removed.
    """
    path = directory / FILE
    try:
        _opened(path).close()
    except (DatabaseDamaged, DatabaseVersionUnknown, DatabaseUnwritable) as error:
        _log.info('%s; it is to be removed', error)
    try:
        remove_database(path)
        for aside in directory.glob(f'{FILE}.unusable-*'):
            aside.unlink()
    except OSError as error:
        raise DatabaseUnwritable(f'{error.filename} cannot be removed: {error.strerror}') from error
