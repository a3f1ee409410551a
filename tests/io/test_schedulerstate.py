"""What a dispyscheduler keeps on disk: it is read again whole, whatever has happened meanwhile."""

import logging
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeserver.core.errors import (
    DatabaseBusy,
    DatabaseExposed,
    DatabaseForeign,
    DatabaseUnwritable,
    DatabaseVersionUnknown,
    UsageError,
)
from nodeserver.core.messages import CloseComputation, DeclareComputation, NodeSpec
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
from nodeserver.io import schedulerstate
from nodeserver.io.schedulerstate import (
    FILE,
    KnownComputation,
    Place,
    SchedulerState,
    clean_state,
    state_directory,
)

HOME = Place(('10.1.2.3', 'laptop'), 51347)
NODE = KnownNode('n1', '10.1.2.4', 51348, '')
TOKEN = bytes(range(16))


def declared(
    computation: int = 7, epoch: int = 0, token: bytes = TOKEN, **more: Any
) -> DeclareComputation:
    specs = [NodeSpec('*', 51348, 0, False)]
    who = computation, 'compute', 'Ann', '3.11', b'package', specs, 51348, 'job', False
    return DeclareComputation(*who, '', True, 5.0, 0.0, token=token, epoch=epoch, **more)


def record(state: SchedulerState, computation: int = 7, epoch: int = 0) -> None:
    state.computation(RecordComputation('client-1', declared(computation, epoch)), HOME)


def placements(found: KnownComputation) -> dict[int, str]:
    """The node that each job was given last."""
    pairs = zip(found.places, found.ids, strict=True)
    return {job: node for node, ids in pairs for job in ids}


def known(directory: Path) -> list[KnownComputation]:
    """What the next scheduler would read, without becoming it."""
    state = SchedulerState(directory)
    try:
        return state._read()
    finally:
        state.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SchedulerState]:
    made = SchedulerState(tmp_path)
    yield made
    made.close()


def test_what_was_recorded_is_read_again(state: SchedulerState, tmp_path: Path) -> None:
    record(state)
    state.node(RecordNode(7, NODE))
    state.placements(RecordPlacements([7, 7], ['n1', 'n2'], [[1, 2], [3]], [[1, 1], [4]]))
    state.placements(RecordPlacements([7], ['n2'], [[2]], [[2]]))  # it has moved
    state.placements(RecordPlacements([7], [''], [[3]], [[]]))
    state.close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (one,) = SchedulerState(tmp_path).take_over()
    assert (one.computation, one.token, one.name, one.place) == (7, TOKEN, 'compute', HOME)
    assert one.nodes == [NODE]
    assert placements(one) == {1: 'n1', 2: 'n2', 3: ''}
    assert one.attempts == [[1, 1], [4], [2], []]


def test_it_is_known_which_computation_has_all_nodes_for_itself(
    state: SchedulerState, tmp_path: Path
) -> None:
    record(state)
    state.computation(RecordComputation('client-2', declared(8, exclusive=True)), HOME)
    state.close()
    found = {each.computation: each.exclusive for each in SchedulerState(tmp_path).take_over()}
    assert found == {7: False, 8: True}


def test_that_nobody_knows_where_jobs_are_is_on_record_with_their_computation(
    state: SchedulerState, tmp_path: Path
) -> None:
    state.computation(RecordComputation('client-1', declared(7), is_unknown=True), HOME)
    state.close()
    (one,) = SchedulerState(tmp_path).take_over()
    assert placements(one) == {ALL_JOBS: ANYWHERE[0]}


def test_each_scheduler_that_takes_over_counts_the_epoch_up_before_it_is_told(
    state: SchedulerState, tmp_path: Path
) -> None:
    record(state, epoch=3)
    for epoch in (4, 5):
        state.close()
        state.__init__(tmp_path)  # type: ignore[misc]
        assert [each.epoch for each in state.take_over()] == [epoch]
    record(state, epoch=4)  # an earlier one has no effect
    assert [each.epoch for each in state._read()] == [5]
    record(state, epoch=9)
    assert [each.epoch for each in state._read()] == [9]


def test_a_computation_that_is_forgotten_leaves_nothing(
    state: SchedulerState, tmp_path: Path
) -> None:
    for computation in (7, 8):
        record(state, computation)
        state.node(RecordNode(computation, NODE))
        state.placements(RecordPlacements([computation], ['n1'], [[1]], [[1]]))
    state.forgotten(ForgetComputation(7))
    assert [each.computation for each in state._read()] == [8]
    state.forgotten(ForgetComputation(8))
    assert state._read() == []
    state.close()
    assert list(tmp_path.iterdir()) == []


def test_placements_that_matter_replace_all_others(state: SchedulerState) -> None:
    record(state)
    for job in range(100):
        state.placements(RecordPlacements([7], ['n1'], [[job]], [[1]]))
    state.rewritten(RewritePlacements(7, ['n1', 'n2'], [[98], [99]], [[1], [1]]))
    (one,) = state._read()
    assert placements(one) == {98: 'n1', 99: 'n2'}


OTHER = KnownNode('n2', '10.1.2.5', 0, 'relay')


def closed(computation: int, *nodes: KnownNode) -> RecordClosed:
    return RecordClosed(CloseComputation(computation, token=TOKEN, epoch=4), [*nodes])


def test_which_nodes_are_to_be_told_of_a_close_is_read_again_and_nothing_else(
    tmp_path: Path,
) -> None:
    clock = [1000.0]
    state = SchedulerState(tmp_path, lambda: clock[0])
    record(state)
    record(state, 8)
    state.node(RecordNode(7, KnownNode('n0', '10.1.2.3', 51348)))
    state.placements(RecordPlacements([7], ['n1'], [[1]], [[1]]))
    state.closed(closed(7, NODE, OTHER))
    clock[0] = 1090.0
    state.close()
    state = SchedulerState(tmp_path, lambda: clock[0])
    assert [each.computation for each in state.take_over()] == [8]  # 7 has the epoch that it had
    assert state.closings() == [ClosingKnown(closed(7).message, [NODE, OTHER], 90.0)]
    clock[0] = 500.0  # somebody has set it
    assert [each.age for each in state.closings()] == [0.0]
    state.close()


def test_nodes_that_are_told_leave_the_record_and_the_last_of_them_leaves_nothing(
    state: SchedulerState, tmp_path: Path
) -> None:
    for computation in 7, 8:
        state.closed(closed(computation, NODE, OTHER))
    state.told(ForgetUntold([7, 8], [['n1'], ['n1', 'n2']]))
    assert [(each.message.computation, each.nodes) for each in state.closings()] == [(7, [OTHER])]
    assert not state.has_computations()  # nodes that are here need not wait for the next one
    state.close()
    assert (tmp_path / FILE).exists()  # but there is something for it to do
    state = SchedulerState(tmp_path)
    state.told(ForgetUntold([7], [['n2']]))
    assert state.closings() == []
    state.close()
    assert list(tmp_path.iterdir()) == []


def test_a_computation_that_was_closed_is_used_again_or_forgotten(state: SchedulerState) -> None:
    for computation in 7, 8:
        state.closed(closed(computation, NODE))
    record(state)
    state.forgotten(ForgetComputation(8))
    assert state.closings() == []
    state.told(ForgetUntold([7], [[]]))
    assert [each.computation for each in state._read()] == [7]


def test_a_state_of_the_version_before_is_read(tmp_path: Path) -> None:
    state = SchedulerState(tmp_path)
    record(state)
    state.node(RecordNode(7, NODE))
    state.close()
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute('DROP TABLE closed')
        connection.execute('PRAGMA user_version = 2')
    connection.close()
    state = SchedulerState(tmp_path)
    assert state.closings() == []
    assert [(each.computation, each.nodes) for each in state.take_over()] == [(7, [NODE])]
    state.closed(closed(7, NODE))
    state.close()
    state = SchedulerState(tmp_path)
    assert len(state.closings()) == 1
    state.close()
    assert not list(tmp_path.glob('*unusable*'))


def test_neither_functions_nor_arguments_nor_tokens_are_shown(
    state: SchedulerState, tmp_path: Path
) -> None:
    record(state)
    assert b'package' not in (tmp_path / FILE).read_bytes()
    (one,) = state._read()
    assert repr(TOKEN) not in repr(one)
    assert TOKEN.hex() not in repr(one)


# files that cannot be used


@pytest.mark.parametrize('content', [b'no database at all\n' * 100, b'SQLite format 3\0' * 64])
def test_a_file_that_cannot_be_read_is_set_aside_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(content)
    (tmp_path / FILE).chmod(0o600)
    state = SchedulerState(tmp_path)
    record(state)
    assert len(state._read()) == 1
    state.close()
    assert (tmp_path / f'{FILE}.unusable-1').read_bytes() == content
    (error,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert str(tmp_path / FILE) in error.getMessage()
    assert f'{FILE}.unusable-1' in error.getMessage()


@pytest.mark.parametrize(
    'words',
    [
        "UPDATE placement SET jobs = x'ff'",
        "UPDATE placement SET jobs = 'text'",
        "UPDATE computation SET token = 'text'",
        "UPDATE node SET port = 'many'",
        "INSERT INTO closed VALUES (9, 'text', 1, 1.0)",
    ],
)
def test_contents_that_make_no_sense_are_set_aside(
    tmp_path: Path, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = SchedulerState(tmp_path)
    record(state)
    state.node(RecordNode(7, NODE))
    state.placements(RecordPlacements([7], ['n1'], [[1]], [[1]]))
    state.close()
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute(words)
    connection.close()
    state = SchedulerState(tmp_path)
    assert state.closings() == []
    assert state.take_over() == []
    record(state)
    assert len(state._read()) == 1
    state.close()
    assert (tmp_path / f'{FILE}.unusable-1').exists()
    assert 'does not hold what it should' in caplog.text


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    state = SchedulerState(tmp_path)
    record(state)
    state.close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f'PRAGMA user_version = {schedulerstate.VERSION + 1}')
    connection.close()
    with pytest.raises(DatabaseVersionUnknown, match='a newer version'):
        SchedulerState(tmp_path)
    clean_state(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / f'{FILE}.unusable-1').mkdir()
    with pytest.raises(DatabaseUnwritable, match=r'unusable-1 cannot be removed: Is a directory'):
        clean_state(tmp_path)


def test_files_that_others_read_or_have_put_there_are_refused(tmp_path: Path) -> None:
    state = SchedulerState(tmp_path)
    record(state)
    state.close()
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(DatabaseExposed, match='chmod 600'):
        SchedulerState(tmp_path)
    (tmp_path / FILE).rename(tmp_path / 'elsewhere')
    (tmp_path / FILE).symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(DatabaseExposed, match='symbolic link'):
        SchedulerState(tmp_path)


def test_two_schedulers_cannot_have_one_state(state: SchedulerState, tmp_path: Path) -> None:
    with pytest.raises(DatabaseBusy, match='in use by another program'):
        SchedulerState(tmp_path)
    with pytest.raises(DatabaseBusy):
        clean_state(tmp_path)


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match='chmod go-w'):
        state_directory(tmp_path, 0)
    assert state_directory(tmp_path / 'new' / 'one', 0).stat().st_mode & 0o777 == 0o700
    with pytest.raises(UsageError, match='--dest_path_prefix'):
        state_directory(Path('/proc/none'), 0)
    assert state_directory(None, 4242).name == 'scheduler-4242'


def test_cleaning_leaves_what_others_have_made(tmp_path: Path) -> None:
    foreign = tmp_path / FILE
    foreign.write_text('of somebody else' * 100)
    foreign.chmod(0o600)
    with pytest.raises(DatabaseForeign):
        clean_state(tmp_path)
    assert foreign.exists()


# disks and deaths


def test_a_full_disk_is_said_once_and_written_to_when_there_is_room(
    state: SchedulerState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger='nodeserver')
    record(state)
    with _full_disk():
        for job in range(50):
            state.placements(
                RecordPlacements([7], ['n1'], [[job, *range(10**6, 10**6 + 5000)]], [[]])
            )
        assert not state.is_written
        state.try_again()
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 1
    assert 'cannot be written' in errors[0]
    state.try_again()
    assert state.is_written
    assert 'can be written again' in caplog.text
    (one,) = state._read()
    assert {*range(50)} <= {*placements(one)}


def test_what_has_nothing_left_goes_from_a_full_disk_too(
    state: SchedulerState, tmp_path: Path
) -> None:
    record(state)
    with _full_disk():
        for job in range(20):
            state.placements(
                RecordPlacements([7], ['n1'], [[job, *range(10**6, 10**6 + 5000)]], [[]])
            )
        assert state.has_computations()
        state.forgotten(ForgetComputation(7))
        assert not state.is_written
        assert not state.has_computations()
        state.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_stays_full_costs_the_state_but_no_memory(
    state: SchedulerState,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedulerstate, 'MOST_PENDING', 10)
    record(state)
    with _full_disk():
        for job in range(20):
            state.placements(
                RecordPlacements([7], ['n1'], [[job, *range(10**6, 10**6 + 5000)]], [[]])
            )
    assert 'is given up, and removed' in caplog.text
    assert list(tmp_path.iterdir()) == []
    state.try_again()
    state.placements(RecordPlacements([7], ['n1'], [[1]], [[1]]))  # it does no harm
    assert state.take_over() == []


class _full_disk:  # noqa: N801
    """Has files grow no more: what a full disk does, as far as SQLite sees it."""

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, self._before[1]))

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.io.test_schedulerstate import NODE, OTHER, closed, placements, record
from nodeserver.core.recoveryeffects import *
from nodeserver.io.schedulerstate import SchedulerState
state = SchedulerState(Path(sys.argv[1]))
state.take_over()
job = max([0, *(job for known in state._read() for job in placements(known))])
while True:
    job += 1
    record(state, 7)
    state.node(RecordNode(7, NODE))
    state.placements(RecordPlacements([7], ['n1'], [[job]], [[1]]))
    print(job, flush=True)  # what is sent afterwards may rely on it
    if job % 50 == 0:
        state.rewritten(RewritePlacements(7, ['n1'], [[job]], [[1]]))
    if job % 70 == 0:
        state.forgotten(ForgetComputation(8))
    state.closed(closed(9, NODE, OTHER))
    state.told(ForgetUntold([9], [['n1']]))
    record(state, 8)
"""


@pytest.mark.slow
def test_a_scheduler_that_is_killed_while_it_writes_leaves_what_it_has_sent_jobs_by(
    tmp_path: Path,
) -> None:
    chance = random.Random(20)
    root = str(Path(__file__).parents[2])
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, '-c', _WRITER, str(tmp_path), root], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 120)):
            process.stdout.readline()
        process.kill()
        told = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        (one,) = [each for each in known(tmp_path) if each.computation == 7]
        if told:
            assert int(told[-1]) in placements(one)
        assert one.nodes == [NODE]
        state = SchedulerState(tmp_path)
        for closing in state.closings():
            assert closing.nodes in ([NODE, OTHER], [OTHER])
        state.close()
    assert not list(tmp_path.glob('*unusable*'))


_STEPS = """
import os, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.io.test_schedulerstate import NODE, record
from nodeserver.core.recoveryeffects import *
from nodeserver.io.schedulerstate import SchedulerState
for limit in map(int, sys.argv[3:]):
    child = os.fork()
    if not child:
        place = Path(sys.argv[1], str(limit))
        place.mkdir(mode=0o700)
        told = os.open(f'{place}.told', os.O_WRONLY | os.O_CREAT, 0o600)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        state = SchedulerState(place)
        state.take_over()
        for job in range(1, 1000):
            record(state, 7)
            state.node(RecordNode(7, NODE))
            state.placements(RecordPlacements([7], ['n1'], [[job]], [[1]]))
            os.write(told, b'%d ' % job)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ, status
"""


@pytest.mark.slow
def test_a_scheduler_that_is_killed_in_the_midst_of_each_write_has_all_that_it_relied_on(
    tmp_path: Path,
) -> None:
    """Its system ends it at the first byte for which a file has no room, some bytes further each
    time: from the making of the file to its thirtieth record, between writes and within them."""
    limits = range(1000, 160_000, 997)
    command = [sys.executable, '-c', _STEPS, tmp_path, Path(__file__).parents[2], *limits]
    subprocess.run([*map(str, command)], check=True, timeout=60)
    most = 0
    for limit in limits:
        place = tmp_path / str(limit)
        told = Path(f'{place}.told').read_text().split()
        found = [each for each in known(place) if each.computation == 7]
        if told:
            (one,) = found
            assert {*range(1, int(told[-1]) + 1)} <= {*placements(one)}
            assert one.nodes == [NODE]
        most = max(most, len(told))
        assert not list(place.glob('*unusable*'))
    assert most >= 10
