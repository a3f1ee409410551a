"""The journal of a cluster: what is written when, and what is read of it after a death."""

import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dispy_nb.job import DispyJob
from dispy_nb.options import ClusterOptions
from dispy_nb.prepared import Prepared, prepare
from dispy_nb.recovery import journalfile, places
from dispy_nb.recovery.attaching import attach, chosen
from dispy_nb.recovery.fileformat import LARGE, PART, Setting, decode, encode, packed
from dispy_nb.recovery.journal import Journal, keep_outcomes
from dispy_nb.recovery.journalfile import JournalPlan
from dispy_nb.recovery.planning import keeping_of, plan_of, secret_of
from dispy_nb.recovery.recorded import Recorded, opened, read
from dispy_nb.recovery.tidying import DAY, MOST_LOOKED_AT, PENDING_DAYS, RESULT_DAYS, tidy
from nodeserver.core.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseExposed,
    DatabaseForeign,
    DatabaseVersionUnknown,
    UsageError,
)
from nodeserver.core.events import JobsSubmitted
from nodeserver.core.messages import (
    DeclareComputation,
    JobOptions,
    JobsDone,
    KnownNode,
    ResubmitJobs,
    ShareData,
)
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
from nodeserver.core.status import JobStatus
from nodeserver.io.keys import choose_secret

COMPUTATION = 12345
DECLARED = DeclareComputation(
    COMPUTATION, 'work', 'ann', '3.11', b'package', [], 51348, 'job', False, '', True, 5.0, 0.0
)
FACTS = {'declared': encode(DECLARED)}


class Desk:
    """One journal, and the jobs of its cluster; what it wants to be done later, too."""

    def __init__(self, path: Path | None, keeping: Keeping, **more: Any) -> None:
        self.jobs: dict[int, DispyJob] = {}
        self.later: list[Callable[[], None]] = []
        setting = encode(Setting('own', keeps_all=keeping == Keeping.ALL))
        plan = JournalPlan('work', keeping, FACTS | {'setting': setting}, path, **more)
        self.journal = Journal(plan, self.jobs, {}, lambda seconds, act: self.later.append(act))
        if path is not None:
            self.journal.file.open()

    def tell(self, effect: Any) -> None:
        """Have an effect of the cluster's core performed."""
        self.journal.performers()[type(effect)](effect)

    def submit(self, *ids: int, **more: Any) -> None:
        """Submit jobs, as a turn of the loop does."""
        for number in ids:
            self.jobs[number] = DispyJob(None, number)
            self.jobs[number]._arguments = (number,)
        payloads = more.pop('payloads', [b'arguments %d' % number for number in ids])
        event = JobsSubmitted(more.pop('node', ''), [*ids], payloads, **more)
        self.tell(StoreJobs(event))
        self.journal.file.flush()

    def place(self, node: str, *ids: int, attempt: int = 1) -> None:
        """Give jobs to a node."""
        self.journal.record_placements(node, [*ids], [attempt] * len(ids))
        self.journal.file.flush()

    def end(self, node: str, *ids: int, outcomes: list[bytes] | None = None) -> None:
        """Have jobs end."""
        count = len(ids)
        outcomes = outcomes or [b'outcome %d' % number for number in ids]
        columns = [1] * count, [int(JobStatus.FINISHED)] * count, outcomes, [''] * count
        done = JobsDone(COMPUTATION, node, 1, [*ids], *columns, [0.5] * count)
        self.tell(StoreOutcomes(done))
        self.journal.file.flush()


@pytest.fixture
def desks() -> Iterator[Callable[..., Desk]]:
    """Make journals that are closed at the end."""
    made: list[Desk] = []

    def make(path: Path | None, keeping: Keeping = Keeping.ALL, **more: Any) -> Desk:
        made.append(Desk(path, keeping, **more))
        return made[-1]

    yield make
    for desk in made:
        desk.journal.leave()


def reread(desk: Desk) -> Recorded:
    """Read what a journal says once its program is gone."""
    desk.journal.leave()
    assert desk.journal.file.path is not None
    return read(desk.journal.file.path)


def again(recorded: Recorded) -> dict[int, tuple[bytes, str]]:
    """The jobs that have not ended: arguments and places, by number."""
    return {
        job: (payload, place)
        for message in recorded.resubmissions
        for job, payload, place in zip(message.ids, message.payloads, message.places, strict=True)
    }


# where it lies


def test_a_file_is_made_with_the_first_job_and_not_before(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(None, Keeping.ENDS, directories=(tmp_path,))
    desk.journal.record_node(RecordNode(COMPUTATION, KnownNode('n1', '10.0.0.1', 51348)))
    desk.journal.file.flush()
    assert list(tmp_path.iterdir()) == []
    desk.place('n1', 1, 2)
    path = desk.journal.file.path
    assert path is not None
    assert path.parent == tmp_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    desk.journal.file.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.row('I02')
def test_default_files_have_names_of_their_own_also_within_one_second(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    paths = []
    since = datetime.now().replace(microsecond=0)
    for _ in range(3):
        desk = desks(None, Keeping.ENDS, directories=(tmp_path,))
        desk.place('n1', 1)
        paths.append(desk.journal.file.path)
    assert len({*paths}) == 3
    for path in paths:
        assert path is not None
        named = re.fullmatch(r'_dispy_(\d{14})(_\d+)?', path.name)
        assert named
        assert since <= datetime.strptime(named[1], '%Y%m%d%H%M%S') <= datetime.now()


def test_where_the_first_place_cannot_be_written_the_next_one_is_taken(
    own_home: Path, desks: Callable[..., Desk]
) -> None:
    directories = (own_home / 'there is none', places.state_directory())
    desk = desks(None, Keeping.ENDS, directories=directories)
    desk.place('n1', 1)
    assert desk.journal.file.path is not None
    assert desk.journal.file.path.parent == places.state_directory()
    assert stat.S_IMODE(places.state_directory().stat().st_mode) == 0o700
    assert reread(desk).placed == {1: 'n1'}


def test_a_file_elsewhere_is_pointed_to_once_and_not_when_it_is_gone(
    own_home: Path, tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    files = tmp_path / 'attached to', tmp_path / 'recovered'
    for epoch in range(3):
        for path in files:
            desk = desks(path, Keeping.ALL, epoch=epoch, resumes=epoch > 0)
            desk.submit(epoch + 1)
            desk.journal.leave()
        assert {*places.known_journals()} == {*files}
        assert len([*places.state_directory().iterdir()]) == 2
    desks(files[0], Keeping.ALL, epoch=3, resumes=True).journal.file.remove()
    places.remove_journal(files[1])
    assert not any(path.exists() for path in files)
    assert not any(places.state_directory().iterdir())


def test_a_file_has_one_pointer_whatever_it_is_called(
    own_home: Path, tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    own, there = places.made_state_directory(), tmp_path / 'there'
    there.mkdir()
    (tmp_path / 'link').symlink_to(there)
    (tmp_path / 'own').symlink_to(own)
    names = there / 'file', tmp_path / 'link' / 'file', tmp_path / 'link' / '..' / 'there' / 'file'
    for epoch, path in enumerate((*names, names[0])):
        desk = desks(path, Keeping.ALL, epoch=epoch, resumes=epoch > 0)
        desk.submit(epoch + 1)
        desk.journal.leave()
        assert [*places.known_journals()] == [there / 'file']
    desks(tmp_path / 'own' / '_dispy_1', Keeping.ALL).submit(1)
    assert {*places.known_journals()} == {there / 'file', own / '_dispy_1'}
    places.remove_journal(names[1])
    assert [*places.known_journals()] == [own / '_dispy_1']


def test_a_file_with_a_name_that_is_no_text_is_found_as_well(
    own_home: Path, tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    path = tmp_path / os.fsdecode(b'caf\xe9')
    desks(path, Keeping.ALL).submit(1)
    assert [*places.known_journals()] == [path]


def test_without_any_place_the_work_goes_on_and_that_is_said_once(
    own_home: Path, desks: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    desk = desks(None, Keeping.ENDS, directories=(own_home / 'there is none',))
    for number in range(1, 5):
        desk.place('n1', number)
    assert [record.levelname for record in caplog.records] == ['ERROR']
    assert 'the recovery file cannot be written' in caplog.text
    assert 'there is none' in caplog.text


# what it keeps


@pytest.mark.row('I01')
def test_of_a_script_it_keeps_which_jobs_are_with_which_node(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ENDS)
    desk.journal.record_node(RecordNode(COMPUTATION, KnownNode('n1', '10.0.0.1', 51348)))
    desk.place('n1', 1, 2, 3)
    desk.place('n2', 4)
    desk.end('n1', 2)
    desk.place('n2', 1, attempt=2)  # it came back, and went elsewhere
    recorded = reread(desk)
    assert recorded.nodes == [KnownNode('n1', '10.0.0.1', 51348)]
    assert recorded.placed == {1: 'n2', 3: 'n1', 4: 'n2'}
    assert again(recorded) == {1: (b'', 'n2'), 3: (b'', 'n1'), 4: (b'', 'n2')}
    (message,) = recorded.resubmissions
    assert dict(zip(message.ids, message.attempts, strict=True)) == {1: 2, 3: 1, 4: 1}
    assert recorded.ended == []
    assert b'outcome 2' not in (tmp_path / 'file').read_bytes()


@pytest.mark.row('V15')
def test_of_a_kernel_it_keeps_arguments_options_outcomes_and_data(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    desk.tell(StoreData(7, b'shared by all'))
    desk.tell(StoreData(8, b'not needed any more'))
    desk.submit(1, 2, 3, shared=[[7], [], [7]])
    desk.submit(4, node='n9', options=JobOptions(2.5, 3, -1), manifests=[b'm'])
    desk.place('n1', 1, 2)
    desk.end('n1', 2)
    desk.tell(StoreUnrun([3], JobStatus.CANCELLED, 'taken back'))
    desk.tell(DropStored([8]))
    desk.journal.store_retries([4])
    recorded = reread(desk)
    assert again(recorded) == {1: (b'arguments 1', 'n1'), 4: (b'arguments 4', '')}
    assert recorded.unstarted == [4]
    last = recorded.resubmissions[-1]
    assert isinstance(last, ResubmitJobs)
    assert (last.node, last.options, last.failures) == ('n9', JobOptions(2.5, 3, -1), [1])
    assert last.manifests == [b'm']
    assert recorded.resubmissions[0].shared == [[7]]
    assert recorded.data == [ShareData(COMPUTATION, 7, b'shared by all')]
    assert [(e.number, e.outcome, e.reason) for e in recorded.ended] == [
        (2, b'outcome 2', ''),
        (3, b'', 'taken back'),
    ]
    assert recorded.jobs[1].shown == (1,)


def test_what_is_large_lies_in_parts_and_leaves_with_its_job(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    large = random.Random(1).randbytes(LARGE)
    huge = large * (PART // LARGE + 1)
    desk.submit(1, 2, payloads=[large, b'small'])
    desk.end('n1', 2, outcomes=[huge])
    recorded = reread(desk)
    assert again(recorded)[1] == (large, '')
    assert recorded.ended[0].outcome == huge


@pytest.mark.row('I05')
def test_ids_that_users_give_are_kept(tmp_path: Path, desks: Callable[..., Desk]) -> None:
    desk = desks(tmp_path / 'file', Keeping.ENDS)
    desk.place('n1', 1, 2, 3, 4)
    desk.journal.note_id(1, 'the first')
    desk.journal.note_id(2, (2, 'x', 1.5))
    desk.journal.note_id(3, object())  # nothing that a file could hold
    assert len(desk.later) == 1  # one row for all of them
    desk.later[0]()
    desk.journal.note_id(1, 'renamed')
    assert reread(desk).ids == {1: 'renamed', 2: (2, 'x', 1.5)}


def test_what_does_not_matter_any_more_is_forgotten(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ENDS)
    for start in range(1, 2001, 100):
        desk.place('n1', *range(start, start + 100))
        desk.end('n1', *range(start, start + 100))
    desk.place('n1', 3000, 3001)
    desk.end('n1', 3001)  # which the scheduler does not know yet
    desk.tell(StoreEpoch(0))
    desk.journal.rewrite(RewritePlacements(COMPUTATION, ['n1'], [[3000, 3001]], [[1, 2]]))
    assert again(reread(desk)) == {3000: (b'', 'n1')}
    with opened(tmp_path / 'file') as connection:
        (count,) = connection.execute(
            'SELECT (SELECT count(*) FROM placements) + (SELECT count(*) FROM ended)'
        ).fetchone()
    assert count == 2


def test_jobs_are_written_soon_also_where_nothing_is_sent(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    for number in (1, 2):
        desk.tell(StoreJobs(JobsSubmitted('', [number], [b'arguments'])))
    (write,) = desk.later
    write()
    for end in ('', '-wal'):  # what there would be if it were killed now
        shutil.copy(tmp_path / f'file{end}', tmp_path / f'copy{end}')
    assert again(read(tmp_path / 'copy')) == {1: (b'arguments', ''), 2: (b'arguments', '')}


def test_jobs_of_a_scheduler_elsewhere_are_all_known_and_forgotten_in_time(
    tmp_path: Path, desks: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('dispy_nb.recovery.journal.MOST_STRUCK', 50)
    desk = desks(tmp_path / 'file', Keeping.JOBS)
    for number in range(1, 101):
        desk.submit(number)
        if number % 2:
            del desk.jobs[number]
            desk.end('n1', number)
    desk.jobs = desk.journal._jobs = {}
    assert again(reread(desk)) == dict.fromkeys(range(2, 101, 2), (b'', ''))


def test_of_outcomes_only_some_can_be_kept(tmp_path: Path, desks: Callable[..., Desk]) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    desk.submit(*range(1, 8))
    large = [b'%d' % number * (LARGE + 1) for number in (5, 6)]
    desk.end('n1', 1, 2, 3)
    desk.end('n2', 4)
    desk.end('n1', 5, 6, 7, outcomes=[*large, b'outcome 7'])
    desk.journal.file.change(lambda connection: keep_outcomes(connection, {2, 5, 7}))
    found = [(each.number, each.node, each.outcome) for each in reread(desk).ended]
    assert found == [(2, 'n1', b'outcome 2'), (5, 'n1', large[0]), (7, 'n1', b'outcome 7')]
    with sqlite3.connect(tmp_path / 'file') as connection:
        assert connection.execute('SELECT DISTINCT id FROM large').fetchall() == [(5,)]
    connection.close()


# what cannot be used


def test_a_file_with_the_jobs_of_another_program_is_not_written_over(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ENDS)
    desk.place('n1', 1)
    with pytest.raises(DatabaseBusy, match='in use by another program'):
        desks(tmp_path / 'file', Keeping.ENDS)
    desk.journal.leave()
    with pytest.raises(UsageError, match=r"dispy\.recover_jobs\('.*file'\) fetches their results"):
        desks(tmp_path / 'file', Keeping.ENDS)
    assert read(tmp_path / 'file').placed == {1: 'n1'}


def _tear(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = random.Random(2).randbytes(4096)
    path.write_bytes(data)


def _expose_a_poem(path: Path) -> None:
    path.write_text('a poem')
    path.chmod(0o644)


def _renew(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:64] = (99).to_bytes(4, 'big')  # `user_version`
    path.write_bytes(data)


@pytest.mark.parametrize(
    ('harm', 'error', 'words'),
    [
        (_tear, DatabaseDamaged, 'damaged|does not hold'),
        (_renew, DatabaseVersionUnknown, 'a newer version of this package'),
        (lambda path: path.write_text('a poem'), DatabaseForeign, 'not one of the files'),
        (_expose_a_poem, DatabaseForeign, 'not one of the files'),
        (lambda path: path.chmod(0o644), DatabaseExposed, 'chmod 600'),
        (lambda path: path.write_bytes(b''), UsageError, 'is empty'),
        (lambda path: path.unlink(), UsageError, 'there is no recovery file'),
    ],
    ids=[
        'torn',
        'newer',
        'foreign',
        'foreign and open to others',
        'readable by others',
        'empty',
        'missing',
    ],
)
def test_a_file_that_is_not_sound_is_refused_in_words(
    tmp_path: Path, desks: Callable[..., Desk], harm: Any, error: type[Exception], words: str
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    for number in range(1, 60):
        desk.submit(number, payloads=[bytes(500)])
    desk.journal.leave()
    harm(tmp_path / 'file')
    with pytest.raises(error, match=words):
        read(tmp_path / 'file')


def test_a_file_and_what_sqlite_puts_beside_it_are_told_apart(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    desk.submit(1)
    for end in ('', '-wal'):  # what there would be if it were killed now
        shutil.copy(tmp_path / f'file{end}', tmp_path / f'copy{end}')
    with pytest.raises(UsageError, match=r'copy-wal belongs to .*copy: give that one'):
        read(tmp_path / 'copy-wal')
    assert again(read(tmp_path / 'copy')) == {1: (b'arguments 1', '')}
    shutil.copy(tmp_path / 'file', tmp_path / 'moved')
    with pytest.raises(UsageError, match='or moved-wal was not moved with it'):
        read(tmp_path / 'moved')


def test_a_full_disk_is_said_once_and_what_waited_is_written_when_there_is_room(
    tmp_path: Path,
    desks: Callable[..., Desk],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journalfile, 'RETRY_SECONDS', 0.0)
    desk = desks(tmp_path / 'file', Keeping.ALL)
    connection = desk.journal.file._connection
    assert connection is not None
    connection.execute('PRAGMA max_page_count = 30')  # SQLite's own word for a full disk
    for number in range(1, 50):
        desk.submit(number, payloads=[bytes(5000)])
    assert len(caplog.records) == 1
    assert 'the disk is full): jobs go on' in caplog.text
    connection.execute('PRAGMA max_page_count = 100000')
    desk.submit(50)
    assert 'is written again' in caplog.records[1].message
    assert again(reread(desk)).keys() == {*range(1, 51)}


def test_what_waits_for_room_takes_bounded_memory(
    tmp_path: Path,
    desks: Callable[..., Desk],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journalfile, 'MOST_WAITING', 100_000)
    desk = desks(tmp_path / 'file', Keeping.ALL)
    connection = desk.journal.file._connection
    assert connection is not None
    connection.execute('PRAGMA max_page_count = 30')
    for number in range(1, 60):
        desk.submit(number, payloads=[bytes(5000)])
    assert 'the recovery file is given up' in caplog.text
    assert desk.journal.file._rows == []
    assert len(caplog.records) == 2


# the end of it


def test_files_with_nothing_left_are_tidied_away_and_no_others(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    made = {}
    for name in ('over', 'pending', 'results', 'in use', 'given'):
        desk = desks(None, Keeping.ALL, directories=(tmp_path,))
        if name == 'given':
            desk = desks(tmp_path / 'given', Keeping.ALL)
        desk.submit(1)
        if name != 'pending':
            desk.end('n1', 1)
        if name in ('over', 'given'):
            desk.journal.file.change(lambda c: _hand_out(c))
        if name != 'in use':
            desk.journal.leave()
        assert desk.journal.file.path is not None
        made[name] = desk.journal.file.path
    (tmp_path / '_dispy_20200101000000').write_text('not one of ours')
    tidy(tmp_path, time.time())
    assert {name for name, path in made.items() if not path.exists()} == {'over'}
    assert (tmp_path / '_dispy_20200101000000').exists()


def test_no_file_waits_for_ever_behind_those_that_stay(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    for number in range(2 * MOST_LOOKED_AT):
        (tmp_path / f'_dispy_20200101{number:06}').write_text('not one of ours')
    desk = desks(None, Keeping.ALL, directories=(tmp_path,))
    desk.submit(1)
    desk.end('n1', 1)
    desk.journal.file.change(lambda c: _hand_out(c))
    desk.journal.leave()
    path = desk.journal.file.path
    assert path is not None
    for _ in range(200):  # that it is not drawn in any is as good as impossible
        tidy(tmp_path, time.time())
    assert not path.exists()


def _left(
    directory: Path,
    desks: Callable[..., Desk],
    ends: bool = True,
    keeping: Keeping = Keeping.ALL,
) -> Path:
    """A file that a program has left here."""
    desk = desks(None, keeping, directories=(directory,))
    desk.submit(1)
    if ends:
        desk.end('n1', 1)
    desk.journal.leave()
    assert desk.journal.file.path is not None
    return desk.journal.file.path


@pytest.mark.parametrize(('ends', 'days'), [(True, RESULT_DAYS), (False, PENDING_DAYS)])
def test_what_has_something_for_its_user_goes_when_it_was_found_on_many_days(
    tmp_path: Path,
    desks: Callable[..., Desk],
    monkeypatch: pytest.MonkeyPatch,
    ends: bool,
    days: int,
) -> None:
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path))
    path = _left(places.made_state_directory(), desks, ends)
    facts = path.stat()
    for day in range(days):
        tidy(path.parent, day * DAY)
        tidy(path.parent, (day + 0.9) * DAY)
    assert path.stat().st_mtime_ns == facts.st_mtime_ns
    tidy(path.parent, days * DAY)
    assert not path.exists()


def test_a_clock_that_jumps_and_a_long_absence_count_as_a_day(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    path = _left(tmp_path, desks)
    year_of_a_wrong_clock = 4_000_000_000.0
    for now in (0.0, year_of_a_wrong_clock, 1.0, time.time(), time.time() + 400 * DAY):
        tidy(tmp_path, now)
    assert path.exists()
    os.utime(path, (0.0, 0.0))  # written before the clock was set
    tidy(tmp_path, time.time())
    assert path.exists()


def test_the_days_are_counted_anew_when_somebody_has_had_the_file(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    path = _left(tmp_path, desks)
    for day in range(RESULT_DAYS):
        tidy(tmp_path, day * DAY)
    with opened(path) as connection:
        connection.execute("UPDATE facts SET value = '5' WHERE name = 'epoch'")
    for day in range(RESULT_DAYS):
        tidy(tmp_path, (100 + day) * DAY)
    assert path.exists()
    tidy(tmp_path, 200 * DAY)
    assert not path.exists()


def _hand_out(connection: sqlite3.Connection) -> None:
    connection.execute('DELETE FROM outcomes')
    connection.execute('INSERT INTO ended (ids) VALUES (?)', (packed([1]),))


def test_files_without_arguments_are_not_attached_to_and_hide_none_that_can_be(
    tmp_path: Path, desks: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path))
    directory = places.made_state_directory()
    of_executor = _left(directory, desks, False, Keeping.JOBS)
    with pytest.raises(UsageError, match=f'(?s)there is no cluster to attach to.*{of_executor}'):
        chosen(None)
    whole = _left(directory, desks)
    assert chosen(None).path == chosen('work').path == whole
    with pytest.raises(UsageError, match=rf'had no name.*an executor; .*{of_executor}'):
        attach(of_executor)


# deaths

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.client.test_journal import Desk, Keeping
desk = Desk(Path({path!r}), Keeping.ALL)
for number in range(1, 1_000_000):
    desk.submit(number)
    desk.place('n1', number)
    if number % 3 == 0:
        desk.end('n1', number)
    print(number, flush=True)
"""


def test_what_was_committed_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    for wait in (0, 300):
        path = tmp_path / f'file{wait}'
        source = WRITER.format(root=root, path=str(path))
        with subprocess.Popen(
            [sys.executable, '-c', source], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(wait + 1):
                last = writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            written = int(([last, *writer.stdout.read().split()])[-1])
        recorded = read(path)
        ended = {each.number for each in recorded.ended}
        assert {*range(3, written + 1, 3)} <= ended
        assert {*range(1, written + 1)} <= ended | again(recorded).keys()
        assert all(again(recorded)[job][1] == 'n1' for job in range(1, written + 1) if job % 3)


def test_a_file_that_was_being_written_is_read_as_it_was_before_or_after_that(
    tmp_path: Path, desks: Callable[..., Desk]
) -> None:
    desk = desks(tmp_path / 'file', Keeping.ALL)
    states: list[set[int]] = [set()]
    for number in range(1, 9):
        desk.submit(number)
        states.append({*range(1, number + 1)})
    log = (tmp_path / 'file-wal').read_bytes()
    main = (tmp_path / 'file').read_bytes()
    seen = []
    for size in [*range(0, len(log), 4999), len(log)]:  # what was on the disk at a death
        copy = tmp_path / f'copy{size}'
        for path, content in ((copy, main), (Path(f'{copy}-wal'), log[:size])):
            path.touch(0o600)
            path.write_bytes(content)
        try:
            seen.append({*again(read(copy))})
        except UsageError:  # before anything was committed
            seen.append(set())
    assert all(state in states for state in seen)
    assert seen == sorted(seen, key=len)
    assert seen[-1] == states[-1]


def test_a_fork_of_the_program_harms_nothing(tmp_path: Path, desks: Callable[..., Desk]) -> None:
    desk = desks(tmp_path / 'file', Keeping.ENDS)
    desk.place('n1', 1)
    child = os.fork()
    if not child:
        try:
            del desk
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    desk.place('n1', 2)
    copy = tmp_path / 'copy'
    shutil.copy(tmp_path / 'file', copy)
    shutil.copy(tmp_path / 'file-wal', tmp_path / 'copy-wal')
    assert read(copy).placed == {1: 'n1', 2: 'n1'}


# who it trusts


def _prepared(**options: Any) -> Prepared:
    made = ClusterOptions(abs, ['127.0.0.1'], port=0, **options)
    made.check()
    return prepare(made)


@pytest.mark.row('I09')
def test_the_secret_is_referred_to_and_a_passphrase_is_never_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = plan_of(_prepared()).facts['setting']
    phrase = 'correct horse battery'
    given = plan_of(_prepared(secret=phrase)).facts['setting']
    assert phrase.encode() not in given
    monkeypatch.setenv('DISPY_SECRET', 'another passphrase')
    variable = plan_of(_prepared()).facts['setting']
    settings = [decode(Setting, each) for each in (own, given, variable)]
    assert [each.secret for each in settings] == ['own', 'kept', 'variable']
    assert [bool(each.kept) for each in settings] == [False, True, False]
    assert secret_of(settings[1]) == choose_secret(phrase)
    assert secret_of(settings[2]) == choose_secret('another passphrase')
    assert secret_of(settings[0]) == choose_secret(environ={})
    assert phrase not in repr(settings[1])
    monkeypatch.delenv('DISPY_SECRET')
    with pytest.raises(UsageError, match='DISPY_SECRET, which is not set here: set it'):
        secret_of(settings[2])


def test_arguments_and_function_are_kept_of_named_clusters_only() -> None:
    script, named = _prepared(), _prepared(name='long one')
    assert keeping_of(script.options) == Keeping.ENDS
    assert keeping_of(named.options) == Keeping.ALL
    kept = [decode(DeclareComputation, plan_of(e).facts['declared']) for e in (script, named)]
    assert [each.package for each in kept] == [b'', named.declared.package]
    assert kept[0].token == script.declared.token
