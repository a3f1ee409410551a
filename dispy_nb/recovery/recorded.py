"""Reads a journal: what is known of the jobs of a program that was killed.

Nothing of it is unpickled here.
"""

import ast
import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dispy_nb.recovery.fileformat import (
    APPLICATION_ID,
    ARGUMENTS,
    DATA,
    OUTCOME,
    SCHEMA,
    VERSION,
    Batch,
    KeptFile,
    Letter,
    Setting,
    decode,
    unpacked,
    unpacked_alike,
)
from nodeserver.core.errors import DatabaseBusy, DatabaseDamaged, UsageError
from nodeserver.core.messages import (
    DeclareComputation,
    JobOptions,
    KnownNode,
    ResubmitJobs,
    ShareData,
)
from nodeserver.io.database import BESIDE, in_words, named_by_user, open_database


class Ended(NamedTuple):
    """How a job ended."""

    number: int
    node: str
    at: float
    status: int
    outcome: bytes
    reason: str
    seconds: float


class Submitted(NamedTuple):
    """A job as it was submitted."""

    number: int
    at: float
    shown: Any
    size: int
    shared: list[int]
    files: list[KeptFile] | None
    manifest: bytes


@dataclass(slots=True)
class Recorded:
    """What a journal says."""

    path: Path
    declared: DeclareComputation
    setting: Setting
    epoch: int
    allocations: bytes = b''  # those of the user that decide themselves, pickled
    nodes: list[KnownNode] = field(default_factory=list)
    placed: dict[int, str] = field(default_factory=dict)  # by job that has not ended
    attempts: dict[int, int] = field(default_factory=dict)  # there; 0: not known
    jobs: dict[int, Submitted] = field(default_factory=dict)  # where all is kept
    batches: list[tuple[int, list[int]]] = field(default_factory=list)  # jobs that have not ended
    resubmissions: list[ResubmitJobs] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    data: list[ShareData] = field(default_factory=list)
    ids: dict[int, Any] = field(default_factory=dict)  # that the user has given
    latest_batch: int = 0

    @property
    def name(self) -> str:
        """What the cluster is called."""
        return self.declared.name

    @property
    def unstarted(self) -> list[int]:
        """Jobs that were with no node, and could be run by whoever attaches."""
        if self.setting.scheduler is not None:
            return []  # the scheduler has them, and runs them
        return [
            job
            for each in self.resubmissions
            for job, place in zip(each.ids, each.places, strict=True)
            if not place and job in self.jobs
        ]


def read(path: Path) -> Recorded:
    """Read the journal of a program that has ended.

    Raises
    ------
    DatabaseBusy
        The program has not ended, or somebody else recovers its jobs.
    DatabaseError
        The file cannot be used; the text says why.
    UsageError
        There is none.
    """
    if not path.exists():
        raise UsageError(f'there is no recovery file {path}')
    for end in BESIDE:  # as who lists the files that begin with `_dispy_` finds them, too
        whole = path.with_name(path.name.removesuffix(end))
        if whole != path and whole.exists():
            raise UsageError(f'{path} belongs to {whole}: give that one')
    try:
        with named_by_user(path):
            connection = open_database(path, APPLICATION_ID, VERSION, SCHEMA)
    except DatabaseBusy as error:
        raise DatabaseBusy(
            f'{path} is in use: its program runs still, or another one recovers its jobs'
        ) from error
    try:
        return _read(connection, path)
    except sqlite3.Error as error:
        raise in_words(path, error) from error
    except UsageError:
        raise
    except (msgspec.DecodeError, KeyError, ValueError, SyntaxError) as error:
        raise DatabaseDamaged(f'{path} does not hold what it should: {error}') from error
    finally:
        connection.close()


def _read(connection: sqlite3.Connection, path: Path) -> Recorded:
    facts = dict(connection.execute('SELECT name, value FROM facts').fetchall())
    if 'declared' not in facts:
        raise UsageError(
            f'{path} is empty: its program ended before anything was written, or {path.name}-wal '
            'was not moved with it'
        )
    recorded = Recorded(
        path,
        decode(DeclareComputation, facts['declared']),
        decode(Setting, facts['setting']),
        int(facts['epoch']),
        facts.get('allocations', b''),
    )
    for node, address, port, via, _ in connection.execute('SELECT * FROM nodes').fetchall():
        recorded.nodes.append(KnownNode(node, address, port, via))
    recorded.ended = list(_ended(connection))
    over = {each.number for each in recorded.ended}
    for (content,) in connection.execute('SELECT ids FROM ended'):
        over.update(unpacked(content))
    query = 'SELECT node, ids, attempts FROM placements ORDER BY row'
    for node, content, numbers in connection.execute(query):
        ids = unpacked(content)
        for job, attempt in zip(ids, unpacked_alike(numbers, len(ids)), strict=True):
            if job not in over:
                recorded.placed[job], recorded.attempts[job] = node, attempt
    for (content,) in connection.execute('SELECT content FROM users_ids ORDER BY row'):
        texts = decode(dict[int, str], content)
        recorded.ids.update((job, ast.literal_eval(text)) for job, text in texts.items())
    failures = _failures(connection)
    _read_batches(connection, recorded, over, failures)
    _read_bare(recorded, failures)
    for (data,) in connection.execute(
        'SELECT DISTINCT id FROM large WHERE kind = ? ORDER BY id', (DATA,)
    ).fetchall():
        content = _large(connection, DATA, data)
        recorded.data.append(ShareData(recorded.declared.computation, data, content))
    return recorded


def _large(connection: sqlite3.Connection, kind: int, number: int) -> bytes:
    query = 'SELECT content FROM large WHERE kind = ? AND id = ? ORDER BY part'
    return b''.join(part for (part,) in connection.execute(query, (kind, number)))


def _large_ids(connection: sqlite3.Connection, kind: int) -> set[int]:
    query = 'SELECT DISTINCT id FROM large WHERE kind = ?'
    return {number for (number,) in connection.execute(query, (kind,)).fetchall()}


def _ended(connection: sqlite3.Connection) -> Iterator[Ended]:
    large = _large_ids(connection, OUTCOME)
    for (content,) in connection.execute('SELECT content FROM outcomes ORDER BY row').fetchall():
        letter = decode(Letter, content)
        columns = letter.ids, letter.statuses, letter.outcomes, letter.reasons, letter.seconds
        for job, status, outcome, reason, seconds in zip(*columns, strict=True):
            whole = _large(connection, OUTCOME, job) if job in large else outcome
            yield Ended(job, letter.node, letter.at, status, whole, reason, seconds)


def _failures(connection: sqlite3.Connection) -> dict[int, int]:
    failures: dict[int, int] = {}
    for (content,) in connection.execute('SELECT ids FROM retries').fetchall():
        for job in unpacked(content):
            failures[job] = failures.get(job, 0) + 1
    return failures


def _read_batches(
    connection: sqlite3.Connection, recorded: Recorded, over: set[int], failures: dict[int, int]
) -> None:
    """Read the jobs of a journal that keeps all: those that have not ended are to be submitted."""
    large = _large_ids(connection, ARGUMENTS)
    query = 'SELECT row, content, payloads FROM jobs ORDER BY row'
    for row, content, stored in connection.execute(query).fetchall():
        recorded.latest_batch = row
        batch = decode(Batch, content)
        ids = unpacked(batch.ids)
        payloads = decode(list[bytes], stored) if stored else [b''] * len(ids)
        again = ResubmitJobs(
            recorded.declared.computation,
            batch.node,
            [],
            [],
            [],
            JobOptions(batch.timeout, batch.retries, batch.priority),
        )
        for job, each, payload in zip(ids, _submitted(batch, ids, payloads), payloads, strict=True):
            recorded.jobs[job] = each
            if job in over:
                continue
            again.ids.append(job)
            again.payloads.append(_large(connection, ARGUMENTS, job) if job in large else payload)
            again.places.append(recorded.placed.get(job, ''))
            again.shared.append(each.shared)
            again.manifests.append(each.manifest)
            again.failures.append(failures.get(job, 0))
            again.attempts.append(recorded.attempts.get(job, 0))
        if again.ids:
            recorded.resubmissions.append(again)
            recorded.batches.append((row, again.ids))


def _submitted(batch: Batch, ids: list[int], payloads: list[bytes]) -> Iterator[Submitted]:
    shared = batch.shared or [[]] * len(ids)
    manifests = batch.manifests or [b''] * len(ids)
    columns = ids, batch.submitted_at, batch.shown, payloads, shared, manifests
    for job, at, shown, payload, data, manifest in zip(*columns, strict=True):
        shown = tuple(shown) if isinstance(shown, list) else shown
        yield Submitted(job, at, shown, len(payload), data, batch.files.get(job), manifest)


def _read_bare(recorded: Recorded, failures: dict[int, int]) -> None:
    """Take in jobs of which nothing but their place is kept."""
    ids = [job for job in recorded.placed if job not in recorded.jobs]
    if ids:
        places = [recorded.placed[job] for job in ids]
        counts = [failures.get(job, 0) for job in ids]
        again = ResubmitJobs(recorded.declared.computation, '', ids, [b''] * len(ids), places)
        again.failures.extend(counts)
        again.attempts.extend(recorded.attempts[job] for job in ids)
        recorded.resubmissions.append(again)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Have the file open for a moment, for a change of one's own."""
    connection = open_database(path, APPLICATION_ID, VERSION, SCHEMA)
    try:
        with connection:
            yield connection
    except sqlite3.Error as error:
        raise in_words(path, error) from error
    finally:
        connection.close()
