"""The journal of one cluster: what another program needs to go on where this one was killed.

    StoreJobs, StoreOutcomes, RecordPlacements ... ──▶ rows ──▶ flush: one commit ──▶ Send

Rows are gathered until something is about to be sent that relies on them.  All but `note_id` is
called on the loop's thread.
"""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dispy_nb.recovery.fileformat import (
    ARGUMENTS,
    DATA,
    LARGE,
    OUTCOME,
    PART,
    Batch,
    Letter,
    decode,
    encode,
    packed,
    packed_alike,
    unpacked,
)
from dispy_nb.recovery.journalfile import PUT_FACT, JournalFile, JournalPlan
from dispy_nb.shortened import arguments_text
from nodeserver.core.events import JobsSubmitted
from nodeserver.core.recoveryeffects import (
    DropStored,
    Keeping,
    RecordNode,
    RewritePlacements,
    StoreData,
    StoreEpoch,
    StoreJobs,
    StoreOutcomes,
    StoreUnrun,
)
from nodeserver.core.status import Unrun

WRITE_SECONDS = 0.05  # that new jobs and ids wait for others, where nothing is sent
LONGEST_ID = 1000  # characters
PLAIN_IDS = frozenset((int, str, float, bool, bytes, type(None)))
MOST_STRUCK = 100_000  # ended jobs, before they are forgotten
SMALL = 200  # bytes of arguments that are kept as they are, to be shown

_PUT_NODE = 'INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?)'
_PUT_PLACEMENT = 'INSERT INTO placements (node, ids, attempts) VALUES (?, ?, ?)'
PUT_ENDED = 'INSERT INTO ended (ids) VALUES (?)'
_PUT_JOBS = 'INSERT INTO jobs VALUES (?, ?, ?)'
_DROP_PAYLOADS = "UPDATE jobs SET payloads = x'' WHERE row = ?"
PUT_OUTCOMES = 'INSERT INTO outcomes (content) VALUES (?)'
_PUT_RETRIES = 'INSERT INTO retries (ids) VALUES (?)'
_PUT_IDS = 'INSERT INTO users_ids (content) VALUES (?)'
_PUT_LARGE = 'INSERT OR REPLACE INTO large VALUES (?, ?, ?, ?)'
_DROP_LARGE = 'DELETE FROM large WHERE kind = ? AND id = ?'


class Journal:
    """What is kept of one cluster, and when."""

    def __init__(
        self,
        plan: JournalPlan,
        jobs: Mapping[int, Any],
        files: Mapping[int, Any],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.file = JournalFile(plan)
        self.keeping = plan.keeping
        self._keeps_all = plan.keeping == Keeping.ALL
        self._jobs, self._files = jobs, files  # of its cluster: what is shown of pending jobs
        self._later = later  # from any thread: have something called after so many seconds
        self._batches = 0
        self._left: dict[int, int] = {}  # by batch: jobs that have not ended
        self._batch_of: dict[int, int] = {}
        self._large: set[int] = set()  # jobs with large arguments
        self._ids: deque[tuple[int, Any]] = deque()
        self._writing_is_due = False
        self._struck = 0  # jobs that the file has as ended, where it keeps no more of them

    def performers(self) -> dict[type[Any], Callable[[Any], None]]:
        """What the driver calls for each effect of the cluster's core."""
        return {
            StoreJobs: lambda effect: self._store_jobs(effect.submitted),
            StoreOutcomes: self._store_outcomes,
            StoreUnrun: self._store_unrun,
            StoreData: lambda effect: self._apart(DATA, effect.data, effect.content),
            DropStored: lambda effect: self.drop_data(effect.ids),
            StoreEpoch: self._store_epoch,
            RecordNode: self.record_node,
        }

    def resume(self, batches: Iterable[tuple[int, list[int]]], latest: int) -> None:
        """Go on with the batches of before: these jobs of them have not ended."""
        self._batches = latest
        for row, ids in batches:
            self._left[row] = len(ids)
            self._batch_of.update(dict.fromkeys(ids, row))

    def leave(self) -> None:
        """Close it, and let it lie."""
        self._write()
        self.file.leave()

    # what the scheduler tells

    def record_node(self, effect: RecordNode) -> None:
        """A node is about to be told of the computation, or a scheduler elsewhere names it."""
        node = effect.node
        self.file.add(_PUT_NODE, node.node, node.address, node.port, node.via, '')

    def record_placements(self, node: str, ids: list[int], attempts: list[int]) -> None:
        """Jobs are about to go to a node."""
        self.file.is_wanted = True
        self.file.add(_PUT_PLACEMENT, node, packed(ids), packed_alike(attempts))

    def rewrite(self, effect: RewritePlacements) -> None:
        """Forget placements that do not matter any more, and what is kept of such jobs."""
        self.file.flush()
        if not self.file.is_wanted:
            return

        def act(connection: sqlite3.Connection) -> None:
            connection.execute('DELETE FROM placements')
            ids, attempts = map(packed, effect.ids), map(packed_alike, effect.attempts)
            rows = zip(effect.nodes, ids, attempts, strict=True)
            connection.executemany(_PUT_PLACEMENT, rows)
            if not self._keeps_all:
                _forget_others(connection, {job for ids in effect.ids for job in ids})

        self.file.change(act)

    # what the cluster's core tells

    def _store_jobs(self, event: JobsSubmitted) -> None:
        self.file.is_wanted = True
        if not self._keeps_all:
            self.file.add(_PUT_PLACEMENT, '', packed(event.ids), b'')
            return
        self._batches = row = self._batches + 1
        self._left[row] = len(event.ids)
        self._batch_of.update(dict.fromkeys(event.ids, row))
        payloads = self._without_large(ARGUMENTS, event.ids, event.payloads)
        batch = self._batch(event)
        try:
            content = encode(batch)
        except (TypeError, OverflowError):  # an argument that msgpack has no form for
            texts = [arguments_text(_as_shown(shown)) for shown in batch.shown]
            content = encode(self._batch(event, texts))
        self.file.add(_PUT_JOBS, row, content, encode(payloads))
        self._write_soon()  # nothing is sent while no scheduler is connected

    def _batch(self, event: JobsSubmitted, shown: list[str] | None = None) -> Batch:
        jobs = [self._jobs.get(job) for job in event.ids]
        options, now = event.options, time.time()
        return Batch(
            event.node,
            options.timeout,
            options.retries,
            options.priority,
            packed(event.ids),
            [job._submit_time if job is not None else now for job in jobs],
            shown or [_shown(*row) for row in zip(jobs, event.payloads, strict=True)],
            event.shared,
            event.manifests,
            {j: self._files[j].sources() for j in event.ids if j in self._files},
        )

    def _without_large(self, kind: int, ids: list[int], contents: list[bytes]) -> list[bytes]:
        """Lay what is large apart; the others, as they are to be stored."""
        if max(map(len, contents)) < LARGE:
            return contents
        kept = list(contents)
        for place, (job, content) in enumerate(zip(ids, contents, strict=True)):
            if len(content) >= LARGE:
                self._apart(kind, job, content)
                kept[place] = b''
                if kind == ARGUMENTS:
                    self._large.add(job)
        return kept

    def _apart(self, kind: int, number: int, content: Any) -> None:
        """Lay something large into rows of its own."""
        mapped = getattr(content, 'mapped', None)  # a file of sealed memory
        view = memoryview(mapped() if mapped is not None else content).cast('B')
        for part, start in enumerate(range(0, max(len(view), 1), PART)):
            self.file.add(_PUT_LARGE, kind, number, part, bytes(view[start : start + PART]))

    def drop_data(self, ids: list[int]) -> None:
        """Forget data that no job names any more."""
        for data in ids:
            self.file.add(_DROP_LARGE, DATA, data)

    def _store_outcomes(self, effect: StoreOutcomes) -> None:
        done = effect.done
        if self._end(done.ids):
            outcomes = self._without_large(OUTCOME, done.ids, done.outcomes)
            columns = done.ids, done.statuses, outcomes, done.reasons, done.seconds
            self.file.add(PUT_OUTCOMES, encode(Letter(done.node, time.time(), *columns)))

    def _store_unrun(self, effect: StoreUnrun) -> None:
        if effect.kind == Unrun.UNREACHED:
            return  # they are where they were, for a later try
        if effect.kind == Unrun.UNSTARTED and self._batch_of.keys() >= {*effect.ids}:
            return  # with their arguments: who attaches has them run
        if self._end(effect.ids):
            count = len(effect.ids)
            words = [effect.status] * count, [b''] * count, [effect.reason] * count
            letter = Letter('', time.time(), effect.ids, *words, [0.0] * count)
            self.file.add(PUT_OUTCOMES, encode(letter))

    def _end(self, ids: list[int]) -> bool:
        """Jobs have ended; whether their outcomes are to be stored."""
        if not self._keeps_all:
            self.file.add(PUT_ENDED, packed(ids))
            if self.keeping == Keeping.JOBS:
                self._compact(len(ids))
            return False
        for job in ids:
            row = self._batch_of.pop(job, 0)
            if row:
                self._left[row] -= 1
                if not self._left[row]:
                    del self._left[row]
                    self.file.add(_DROP_PAYLOADS, row)
        if self._large:
            for job in self._large.intersection(ids):
                self._large.discard(job)
                self.file.add(_DROP_LARGE, ARGUMENTS, job)
        return True

    def _compact(self, count: int) -> None:
        """Forget ended jobs once they are many: no scheduler here tells which matter."""
        self._struck += count
        if self._struck >= MOST_STRUCK and self._struck > 4 * len(self._jobs):
            self._struck = 0
            self.rewrite(RewritePlacements(0, [''], [list(self._jobs)], [[]]))

    def store_retries(self, ids: list[int]) -> None:
        """Jobs have used up one more of their retries."""
        if self._keeps_all:
            self.file.add(_PUT_RETRIES, packed(ids))

    def _store_epoch(self, effect: StoreEpoch) -> None:
        self.file.add(PUT_FACT, 'epoch', str(effect.epoch).encode())

    # what users call their jobs

    def note_id(self, number: int, given: Any) -> None:
        """Keep the id that a user has given to a job; from any thread."""
        self._ids.append((number, given))
        self._write_soon()

    def _write_soon(self) -> None:
        if not self._writing_is_due and not self.file.is_over:
            self._writing_is_due = True
            self._later(WRITE_SECONDS, self._write)

    def _write(self) -> None:
        self._writing_is_due = False
        self._add_ids()
        self.file.flush()

    def _add_ids(self) -> None:
        texts: dict[int, str] = {}
        while self._ids:
            number, given = self._ids.popleft()
            if _is_plain(given) and len(text := repr(given)) <= LONGEST_ID:
                texts[number] = text
        if texts:
            self.file.add(_PUT_IDS, encode(texts))


def _is_plain(given: Any) -> bool:
    """Whether it can be written without running anything of the user's."""
    parts = given if type(given) is tuple else (given,)
    return all(type(part) in PLAIN_IDS for part in parts)


def _shown(job: Any, payload: bytes) -> Any:
    """What is kept of a job's arguments to show them; those that are short, as they are."""
    if job is None or job._arguments is None:
        return ''
    return job._arguments if len(payload) <= SMALL else arguments_text(job._arguments)


def _as_shown(shown: Any) -> Any:
    return tuple(shown) if isinstance(shown, list) else shown


def _forget_others(connection: sqlite3.Connection, matter: set[int]) -> None:
    """Keep of the ends and ids of jobs only those of jobs that still matter."""
    ended: set[int] = set()
    for (content,) in connection.execute('SELECT ids FROM ended').fetchall():
        ended.update(unpacked(content))
    texts: dict[int, str] = {}
    for (content,) in connection.execute('SELECT content FROM users_ids ORDER BY row').fetchall():
        texts.update(decode(dict[int, str], content))
    connection.execute('DELETE FROM ended')
    connection.execute('DELETE FROM users_ids')
    connection.execute(PUT_ENDED, (packed(sorted(ended & matter)),))
    kept = {job: text for job, text in texts.items() if job in matter}
    connection.execute(_PUT_IDS, (encode(kept),))


def keep_outcomes(connection: sqlite3.Connection, wanted: set[int]) -> None:
    """Keep of the outcomes only those of these jobs."""
    rows = connection.execute('SELECT content FROM outcomes ORDER BY row').fetchall()
    connection.execute('DELETE FROM outcomes')
    for (content,) in rows:
        letter = decode(Letter, content)
        columns = letter.ids, letter.statuses, letter.outcomes, letter.reasons, letter.seconds
        kept = [row for row in zip(*columns, strict=True) if row[0] in wanted]
        if kept:
            left = Letter(letter.node, letter.at, *map(list, zip(*kept, strict=True)))
            connection.execute(PUT_OUTCOMES, (encode(left),))
    query = 'SELECT DISTINCT id FROM large WHERE kind = ?'
    large = {number for (number,) in connection.execute(query, (OUTCOME,)).fetchall()}
    connection.executemany(_DROP_LARGE, [(OUTCOME, number) for number in large - wanted])
