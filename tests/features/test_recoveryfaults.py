"""Recovery where more than a program fails: disks full, nodes dead, programs hung, clocks wrong."""

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from nodeserver.core.errors import (
    DatabaseDamaged,
    DatabaseExposed,
    DatabaseForeign,
    DatabaseVersionUnknown,
)
from tests.features.conftest import Pair
from tests.features.test_dispyscheduler import double, outcomes, shared
from tests.features.test_recover import (
    LIMIT,
    check,
    gate,
    here,
    killed,
    nodes,
    scheduler_at,
    shared_source,
    source,
    their_key,
)
from tests.features.test_schedulerrestart import Place, starts, two_nodes
from tests.support.machines import machines
from tests.support.netns import Lan
from tests.support.programs import all_entered, eventually, free_port, node_program, program

__all__ = ['gate', 'here', 'their_key', 'two_nodes']  # fixtures

pytestmark = pytest.mark.slow


# schedulers that end


@pytest.mark.row('I05', 'I13')
def test_a_scheduler_that_ends_in_order_leaves_what_nodes_have_of_a_program_that_was_killed(
    their_key: Pair, gate: Path, here: Path, tmp_path: Path
) -> None:
    ports = free_port(), free_port()
    more = '--dest_path_prefix', tmp_path / 'state', '--zombie_interval', 0.01
    with scheduler_at(their_key, ports, *more) as (scheduler, options):
        options = options | {'name': 'squares', 'recover_file': 'file'}
        killed(shared_source(here, gate, their_key, options), gate, 1)
        scheduler.signal(signal.SIGTERM)  # it waits for its jobs until the program is given up
        assert scheduler.wait(LIMIT) == 128 + signal.SIGTERM
    gate.touch()
    with scheduler_at(their_key, ports, *more):
        results = {job.id: job.result for job in dispy.recover_jobs('file')}
    assert results == {f'square of {x}': None if x == 3 else x * x for x in range(6)}
    assert len([*gate.parent.glob('gate.*')]) == 6  # each began once


# nodes that are gone


@pytest.mark.row('I05', 'I11')
@pytest.mark.leaves('files')  # of the nodes that are killed
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_when_half_of_the_nodes_are_gone_the_others_jobs_are_returned_and_these_stay(
    gate: Path, here: Path, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    """Those that were killed never come; those that only hang are there at the next try."""
    with nodes(count=4) as (port, running):
        addresses = [f'127.0.7.{n}' for n in range(1, 5)]
        options = {'recover_file': 'file', 'pulse_interval': 1}
        killed(source(here, gate, port, addresses, options=options), gate, 4)
        gone = running[2:]
        for each in gone:
            each.signal(how)
        gate.touch()
        first = dispy.recover_jobs('file')
        check(first, 2)
        assert {job.ip_addr for job in first} == set(addresses[:2])
        for address in addresses[2:]:
            assert address in caplog.text
        assert caplog.text.count('not recovered: node') == 2
        assert (here / 'file').exists()
        if how == signal.SIGKILL:
            assert dispy.recover_jobs('file', timeout=0.2) == []
            assert (here / 'file').exists()
            return
        for each in gone:
            each.signal(signal.SIGCONT)
        second = dispy.recover_jobs('file')
        check(second, 2)
        assert Counter(job.id for job in first + second) == Counter(
            f'square of {x}' for x in range(2, 6)
        )
        assert not (here / 'file').exists()


MADE = """
import os
import time
import dispy_nb as dispy

def work(number, place):
    open(f'{place}/begun-{number}', 'a').write('x')
    while not os.path.exists(f'{place}/gate'):
        time.sleep(0.01)
    return number

os.chdir(%r)
cluster = dispy.JobCluster(work, nodes=%r, port=0, depends=[os, time], recover_file='file',
                           pulse_interval=1)
jobs = [cluster.submit(number, os.getcwd()) for number in range(4)]
print('ready', flush=True)
cluster.wait()
"""
FETCHED = """
import os
import dispy_nb as dispy
os.chdir(%r)
jobs = dispy.recover_jobs('file')
results, nodes = sorted(job.result for job in jobs), {job.ip_addr for job in jobs}
print(results, len(nodes), os.path.exists('file'))
"""


@pytest.mark.netns
@pytest.mark.row('I05', 'I11')
def test_jobs_of_nodes_that_are_cut_off_are_returned_when_these_are_there_again() -> None:
    with ExitStack() as stack:
        hosts = stack.enter_context(machines(*stack.enter_context(Lan(5))))
        client, *others = hosts
        all_entered(stack, *(each.node('-c', 1) for each in others))
        place = client.home / 'place'
        place.mkdir(mode=0o777)
        source = MADE % (str(place), [each.ip for each in others])
        with client.program(sys.executable, '-c', source, ready='ready') as victim:
            eventually(lambda: len([*place.glob('begun-*')]) == 4, LIMIT)
            victim.kill()
            victim.wait()
        for each in others[:2]:
            each.host.cut()
        (place / 'gate').touch()
        told = client.client(FETCHED % str(place), timeout=50)
        first, count, is_left = told.stdout.rsplit(maxsplit=2)
        assert (count, is_left) == ('2', 'True')
        assert told.stderr.count('not recovered: node') == 2
        for each in others[:2]:
            each.host.heal()
        second, count, is_left = client.client(FETCHED % str(place), 50).stdout.rsplit(maxsplit=2)
        assert (count, is_left) == ('2', 'False')
        assert sorted(json.loads(first) + json.loads(second)) == [0, 1, 2, 3]
        assert [path.read_text() for path in place.glob('begun-*')] == ['x'] * 4


# files that are not sound


def torn(path: Path) -> None:
    """Half of it was written."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))


def newer(path: Path) -> None:
    """A later version of this package has written it."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (version,) = database.execute('PRAGMA user_version').fetchone()
        database.execute(f'PRAGMA user_version = {version + 1}')


@pytest.mark.row('I10')
def test_a_file_that_is_not_sound_is_refused_in_words_and_the_sound_one_is_not_disturbed(
    their_key: Pair, gate: Path, here: Path
) -> None:
    killed(source(here, gate, their_key.port, their_key.addresses), gate)
    gate.touch()
    harms: list[tuple[Callable[[Path], object], type[Exception], str]] = [
        (torn, DatabaseDamaged, 'damaged|does not hold'),
        (newer, DatabaseVersionUnknown, 'a newer version of this package'),
        (lambda path: path.write_text('a poem'), DatabaseForeign, 'not one of the files'),
        (lambda path: path.chmod(0o644), DatabaseExposed, 'chmod 600'),
    ]
    for number, (harm, error, words) in enumerate(harms):
        for name in [path.name for path in here.glob('file*')]:
            (here / str(number)).mkdir(exist_ok=True)
            shutil.copy(here / name, here / str(number) / name)
        with contextlib.closing(sqlite3.connect(here / str(number) / 'file')) as database:
            database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        harm(here / str(number) / 'file')
        for use in (dispy.recover_jobs, dispy.fault_recover_jobs, dispy.attach):
            with pytest.raises(error, match=words):
                use(here / str(number) / 'file')
    check(dispy.recover_jobs('file'), 2)


# disks that are full

FULL = """
import logging, os, resource, sys, time
from pathlib import Path
import dispy_nb as dispy

def work(number, padding):
    return number

logging.basicConfig(level=logging.INFO)
place, port = Path(sys.argv[1]), int(sys.argv[2])
filler = place / 'filler'
if not filler.exists():  # else the disk is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
cluster = dispy.JobCluster(
    work, ['127.0.7.1'], node_port=port, ip_addr='127.0.0.1', port=0, name='of a full disk',
    recover_file=str(place / 'file'), pulse_interval=1,
)
jobs = [cluster.submit(number, os.urandom(5000)) for number in range(300)]
assert [job() for job in jobs] == [*range(300)]
print('all done', flush=True)
filler.unlink(missing_ok=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
number = 300
while not (place / 'enough').exists():
    assert cluster.submit(number, b'')() == number
    number += 1
    time.sleep(0.1)
print('submitted', number, flush=True)
time.sleep(60)
"""


def a_limit(tmp_path: Path, stack: ExitStack) -> Path:
    """No file of the program can grow."""
    return tmp_path


def a_disk(tmp_path: Path, stack: ExitStack) -> Path:
    """A disk of 8 MB of which 400 kB are free."""
    place = tmp_path / 'disk'
    place.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', place], check=True)
    stack.callback(subprocess.run, ['umount', '-l', place], check=True)
    (place / 'filler').write_bytes(bytes(8 * 1024 * 1024 - 400_000))
    return place


@pytest.mark.row('I01', 'V15')
@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (a_limit, 'disk I/O error'),
        pytest.param(a_disk, 'the disk is full', marks=pytest.mark.netns),
    ],
)
def test_on_a_full_disk_work_goes_on_and_all_is_recovered_once_there_was_room(
    own_home: Path, tmp_path: Path, make: Callable[[Path, ExitStack], Path], words: str
) -> None:
    """The real disk needs root, as network namespaces do."""
    with ExitStack() as stack:
        place = make(tmp_path, stack)
        port, _ = stack.enter_context(nodes(count=1))
        client = stack.enter_context(program(sys.executable, '-c', FULL, place, port))
        client.wait_for_log(f'{words}): jobs go on', LIMIT)
        eventually(lambda: 'all done' in client.output(), LIMIT)
        client.wait_for_log('is written again', LIMIT)
        assert client.log().count('jobs go on') == 1
        (place / 'enough').touch()
        eventually(lambda: 'submitted' in client.output(), LIMIT)
        submitted = int(client.output().split()[-1])
        client.kill()
        client.wait()
        with dispy.attach(place / 'file') as cluster:
            jobs = cluster.attached_jobs
            assert cluster.wait(LIMIT)
            assert [job.result for job in jobs] == [*range(submitted)]
        assert not (place / 'file').exists()


# programs that hang

HUNG = """
import sys
import dispy_nb as dispy
from tests.features.test_schedulerrestart import noted

directory, port, node_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cluster = dispy.SharedJobCluster(
    noted, ['127.0.0.2', '127.0.0.3'], scheduler_node='127.0.0.1', scheduler_port=port, port=0,
    ip_addr='127.0.0.1', node_port=node_port, name='hung', recover_file=directory + '/file',
)
jobs = [cluster.submit(directory, number, 0.01) for number in range(20)]
print('ready', flush=True)
print([job() for job in jobs] == [*range(20)], flush=True)
"""


@pytest.mark.row('I03', 'B02')
@pytest.mark.parametrize('ends', ['well', 'killed'])
def test_a_program_that_acknowledges_nothing_holds_nobody_up_and_loses_nothing(
    own_home: Path, two_nodes: int, ends: str
) -> None:
    place = Place(own_home)
    with ExitStack() as stack:
        stack.enter_context(place.scheduler())
        words = own_home, place.port, two_nodes
        hung = stack.enter_context(program(sys.executable, '-c', HUNG, *words, ready='ready'))
        eventually(lambda: len(starts(own_home)) == 2)
        hung.signal(signal.SIGSTOP)
        (own_home / 'gate').touch()
        options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
        with shared(place.port, double, **options) as other:
            assert outcomes(other, *range(20)) == [2 * number for number in range(20)]
        eventually(lambda: len(starts(own_home)) == 20, LIMIT)
        if ends == 'well':
            hung.signal(signal.SIGCONT)
            eventually(lambda: 'True' in hung.output(), LIMIT)
            assert hung.wait() == 0
        else:
            hung.kill()
            hung.wait()
            with dispy.attach(own_home / 'file') as cluster:
                assert cluster.wait(LIMIT)
                assert [job.result for job in cluster.attached_jobs] == [*range(20)]
        assert starts(own_home) == Counter(dict.fromkeys(range(20), 1))


# clocks that are wrong

CLOCK = """
import os
import time

now = time.time


def wrong_by():
    try:
        with open(os.environ['WRONG_BY']) as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


time.time = lambda: now() + wrong_by()
"""
YEAR = 365 * 86400.0


@pytest.mark.row('I03', 'L23')
@pytest.mark.leaves('files')  # of the node that is killed
@pytest.mark.parametrize(
    ('jumps', 'told'),
    [((YEAR, -YEAR), 'less than a minute ago'), ((-YEAR, YEAR), '730 days ago')],
)
def test_outcomes_are_kept_whatever_becomes_of_the_clock(
    gate: Path, here: Path, tmp_path: Path, jumps: tuple[float, float], told: str
) -> None:
    (tmp_path / 'sitecustomize.py').write_text(CLOCK)
    clock, port = tmp_path / 'clock', free_port()
    env = {'PYTHONPATH': str(tmp_path), 'WRONG_BY': str(clock)}
    words = '-i', '127.0.7.1', '-p', port, '-c', 2, '--dest_path_prefix', tmp_path / 'kept'
    with node_program(*words, env=env) as node:
        killed(source(here, gate, port, ['127.0.7.1']), gate)
        clock.write_text(str(jumps[0]))
        gate.touch()
        node.wait_for_log('whose program is gone', LIMIT)
        node.kill()
        node.wait()
    clock.write_text(str(jumps[1]))
    with node_program(*words, env=env) as node:
        assert f', first kept {told}' in node.wait_for_log('of work for')
        clock.unlink()
        check(dispy.recover_jobs('file', timeout=LIMIT), 2)
