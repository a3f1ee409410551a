"""Deaths of jobs, nodes and programs: what is said, and that everything else goes on (Z08)."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from tests.features.conftest import MakeCluster, Pair
from tests.support import smallmemory
from tests.support.deathmatrix import DYING, RAISING, Promise, cells
from tests.support.programs import Program, eventually, free_port, node_program, program
from tests.support.ways import SIGNALS, AtLoading, Trapped, hold, work

LIMIT = 20.0
SOON = 10.0  # seconds within which anything is told, also on a loaded machine
ADDRESS = '127.0.5.1'

both = pytest.mark.parametrize('isolation', ['job', 'worker'])
of_jobs = pytest.mark.row('Z08')


def gone(pid: int) -> bool:
    """Whether a process has ended; one that waits to be reaped has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def gate(own_home: Path) -> Path:
    """The file for which the jobs of `hold` wait."""
    return own_home / 'gate'


def await_begun(gate: Path, count: int) -> list[int]:
    """Wait until so many jobs wait for the file; answers their processes."""
    paths = eventually(
        lambda: len(found := list(gate.parent.glob(f'{gate.name}.*'))) >= count and found, SOON
    )
    return [int(path.suffix[1:]) for path in paths or ()]


# jobs


def submit(cluster: dispy.JobCluster, moment: str, way: str) -> DispyJob:
    """Submit a job that dies at a moment."""
    if moment == 'load':
        return cluster.submit(AtLoading(way))
    return cluster.submit(moment, way)


def problem(job: DispyJob, way: str, promise: Promise) -> str:
    """Compare the end of a job with the promise; '' where that is kept."""
    exception = job.exception or ''
    expected = {
        Promise.RETURNS: (DispyJob.Finished, '', ''),
        Promise.AGAIN: (DispyJob.Finished, '', ''),
        Promise.RAISES: (DispyJob.Terminated, '', RAISING.get(way, '')),
        Promise.DIES: (DispyJob.Terminated, f'its process {DYING.get(way)}', 'last words'),
        Promise.CANCELS: (DispyJob.Cancelled, 'cancelled', 'Cancelled'),
    }[promise]
    status, reason, words = expected
    kept = job.status == status and job.reason.startswith(reason) and words in exception
    return '' if kept else f'{way}: {promise}: not {job!r} {job.reason!r} {exception!r}'


def end_of(cluster: dispy.JobCluster, job: DispyJob, promise: Promise) -> None:
    """Wait for the end of a job, which some have to be told of."""
    if promise is Promise.CANCELS:
        eventually(stopped_processes, SOON, lambda: f'{job!r} {job.exception}')
        cluster.cancel(job)
    assert job.wait(SOON), cluster.explain()


def cancelled(cluster: dispy.JobCluster) -> str:
    """Cancel a job that does not get on; what is wrong with its end, if anything."""
    stuck = cluster.submit('')
    eventually(lambda: stuck.status == DispyJob.Running, SOON)
    cluster.cancel(stuck)
    assert stuck.wait(SOON), cluster.explain()
    return problem(stuck, 'stop', Promise.CANCELS)


def stopped_processes() -> list[psutil.Process]:
    """The processes of nodes of this test that are stopped."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@of_jobs
@both
@pytest.mark.parametrize('moment', ['load', 'run', 'report'])
def test_a_job_that_dies_says_how_and_the_next_ones_run(
    make_cluster: MakeCluster, pair: Pair, isolation: str, moment: str
) -> None:
    # one cpu: if it were not free again, nothing more would run
    cluster = make_cluster(work, isolation=isolation, nodes=[pair.addresses[0]])
    problems = []
    for way, promise in cells(isolation, moment).items():
        job = submit(cluster, moment, way)
        end_of(cluster, job, promise)
        problems.append(problem(job, way, promise))
        after = cluster.submit('')
        assert after.wait(SOON), f'{way}: {cluster.explain()}'
        problems.append(problem(after, way, Promise.RETURNS))
    assert [each for each in problems if each] == []
    # and so do those of another computation, in the same processes of the node
    other = make_cluster(work, isolation=isolation, nodes=[pair.addresses[0]])
    job = other.submit('')
    assert job.wait(SOON), other.explain()
    assert job.status == DispyJob.Finished


@of_jobs
def test_a_job_that_dies_at_its_exit_says_how(make_cluster: MakeCluster, pair: Pair) -> None:
    cluster = make_cluster(work, nodes=[pair.addresses[0]])
    problems = []
    for way, promise in cells('job', 'exit').items():
        job = submit(cluster, 'exit', way)
        end_of(cluster, job, promise)
        problems.append(problem(job, way, promise))
        if way in RAISING and way != 'sys_exit':
            assert RAISING[way] in job.stderr
    assert [each for each in problems if each] == []


@both
def test_a_process_that_dies_after_its_job_harms_no_other(
    make_cluster: MakeCluster, pair: Pair, isolation: str, tmp_path: Path
) -> None:
    cluster = make_cluster(work, isolation=isolation, nodes=[pair.addresses[0]])
    problems = []
    for way, promise in cells(isolation, 'after').items():
        job = cluster.submit('after', way, str(tmp_path / way))
        assert job.wait(SOON)
        problems.append(problem(job, way, Promise.RETURNS))
        (tmp_path / way).touch()
        if way in DYING:
            eventually(lambda job=job: gone(job.result), SOON)
        elif way in RAISING and isolation == 'worker':
            eventually((tmp_path / f'{way}.survived').exists, SOON)
        elif promise is Promise.CANCELS:
            eventually(stopped_processes, SOON)
            # one that is cancelled before it was given to the process does not wake that
            eventually(lambda: problems.append(cancelled(cluster)) or not stopped_processes(), SOON)
        after = cluster.submit('')
        assert after.wait(SOON), f'{way}: {cluster.explain()}'
        problems.append(problem(after, way, Promise.RETURNS))
    assert [each for each in problems if each] == []


@both
def test_processes_that_die_before_they_begin_cost_no_job(
    make_cluster: MakeCluster, pair: Pair, isolation: str, tmp_path: Path
) -> None:
    problems = []
    for way, promise in cells(isolation, 'fork').items():
        trap = tmp_path / way
        trap.touch()
        cluster = make_cluster(
            Trapped('fork', way, str(trap)), isolation=isolation, nodes=[pair.addresses[0]]
        )
        job = cluster.submit('')
        assert job.wait(SOON), f'{way}: {cluster.explain()}'
        problems.append(problem(job, way, promise))
        if promise is not Promise.RETURNS:
            assert not trap.exists(), f'{way}: nothing has died'
        elif way != 'memory':  # with none left at all, to die and to go on are both right
            assert trap.exists(), f'{way}: it has cost processes'
            assert trap.stat().st_size, f'{way}: nothing was caught'
        cluster.close()
    assert [each for each in problems if each] == []


@both
def test_processes_that_never_begin_end_the_job_in_words_and_do_not_storm(
    make_cluster: MakeCluster, pair: Pair, isolation: str, tmp_path: Path
) -> None:
    trap = tmp_path / 'trap'
    trap.touch()
    trapped = Trapped('fork', 'segfault', str(trap), most=10_000)
    cluster = make_cluster(trapped, isolation=isolation, nodes=[pair.addresses[0]])
    job = cluster.submit('')
    assert job.wait(LIMIT)
    assert job.status == DispyJob.Terminated
    assert 'segmentation fault' in job.reason
    caught = trap.stat().st_size
    time.sleep(0.5)
    assert trap.stat().st_size <= caught + 10
    trap.unlink()
    again = cluster.submit('')
    assert again.wait(SOON)
    assert again.status == DispyJob.Finished


# what is told


def crash_with_output() -> None:
    import ctypes

    for number in range(100):
        print('line', number, '\x1b[31m')
        print(f'{number} %', end='\r', file=sys.stderr)
    ctypes.string_at(0)


@of_jobs
@both
def test_a_crash_shows_the_reason_the_place_and_the_last_lines(
    make_cluster: MakeCluster, isolation: str
) -> None:
    job = make_cluster(crash_with_output, isolation=isolation).submit()
    assert job.wait(SOON)
    first, *lines = (job.exception or '').splitlines()
    assert first == job.reason
    assert first.startswith('its process crashed: segmentation fault (SIGSEGV)')
    assert lines[:2] == ['where it crashed:', 'Fatal Python error: Segmentation fault']
    frames = [line for line in lines if line.startswith('  File ')]
    assert 'test_deaths.py' in frames[-1]
    assert frames[-1].endswith(' in crash_with_output')
    assert lines[-2:] == ['last lines of its standard error:', '99 %']
    assert 'line 99 \\x1b[31m' in lines
    assert 'line 89 \\x1b[31m' not in lines
    assert job.stdout.count('\n') == 100
    assert '\x1b' in job.stdout
    assert 'Fatal Python error' in job.stderr


def take_and_die(size: int) -> None:

    taken = b'x' * size
    os.kill(os.getpid(), signal.SIGKILL if taken else 0)


@of_jobs
@both
def test_a_death_tells_the_peak_memory(make_cluster: MakeCluster, isolation: str) -> None:
    job = make_cluster(take_and_die, isolation=isolation).submit(100_000_000)
    assert job.wait(SOON)
    whose = ' of its worker' if isolation == 'worker' else ''
    words = rf'its process was killed by SIGKILL \(from outside\); peak memory{whose} (\d+) MB'
    found = re.fullmatch(words, job.exception or '')
    assert found, job.exception
    assert 95 <= int(found[1]) <= 130


def take_everything() -> None:
    print('taking', flush=True)
    held = []
    while True:
        held.append(b'x' * (1 << 20))


@of_jobs
@both
def test_a_job_that_takes_all_memory_is_killed_and_says_so(own_home: Path, isolation: str) -> None:
    if reason := smallmemory.available():
        pytest.skip(reason)
    port = free_port()
    options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    with (
        smallmemory.small_memory(256 << 20) as within,
        node_program('-i', ADDRESS, '-p', port, '-c', 1, within=within) as node,
        dispy.JobCluster(take_everything, [ADDRESS], isolation=isolation, **options) as cluster,
    ):
        for _ in range(2):
            job = cluster.submit()
            assert job.wait(SOON), cluster.explain()
            assert job.status == DispyJob.Terminated
            words = 'its process was killed by the out-of-memory killer (SIGKILL); peak memory '
            assert job.reason.startswith(words)
            assert (job.exception or '').endswith('last lines of its standard output:\ntaking')
        # the node itself and what it starts jobs from were spared
        assert node.process.poll() is None
        assert 'another is started' not in node.log()


# nodes

STEADY = '127.0.5.2'


@of_jobs
# a killed node can remove neither its directory nor its socket
@pytest.mark.slow
@pytest.mark.leaves('files')
@pytest.mark.parametrize('way', [way for way in cells('node', 'run') if way != 'stop'])
def test_a_job_that_loses_its_node_says_which_and_why(own_home: Path, gate: Path, way: str) -> None:
    port = free_port()
    options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    command = ('-p', port, '-c', 1)
    with (
        node_program('-i', ADDRESS, *command, '--name', 'doomed') as doomed,
        node_program('-i', STEADY, *command, '--name', 'steady'),
        dispy.JobCluster(hold, [ADDRESS, STEADY], **options) as cluster,
    ):
        eventually(lambda: len(cluster.snapshot().nodes) == 2, SOON)
        jobs = [cluster.submit(str(gate)) for _ in range(2)]
        processes = await_begun(gate, 2)
        lost, kept = sorted(jobs, key=lambda job: str(job.ip_addr))
        doomed.signal(SIGNALS[way])
        assert lost.wait(SOON)
        assert lost.status == DispyJob.Cancelled
        assert lost.reason.startswith(f'node doomed ({ADDRESS}) was lost: ')
        assert lost.reason in lost.explain()
        # what it wrote was with the node
        assert (lost.result, lost.stdout, lost.stderr) == (None, None, None)
        eventually(lambda: sum(map(gone, processes)) == 1, SOON)
        gate.touch()
        assert kept() == 'steady'
        with node_program('-i', ADDRESS, *command, '--name', 'again'):
            eventually(lambda: cluster.submit(str(gate))() == 'again', LIMIT)


# programs of users

PROGRAM = """
import sys, time
import dispy_nb as dispy
from tests.support.ways import hold

options = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': int(sys.argv[1])}
with dispy.JobCluster(hold, ['127.0.5.1'], pulse_interval=1, **options) as cluster:
    jobs = [cluster.submit(gate) for gate in sys.argv[2:]]
    print('submitted', flush=True)
    print([job() for job in jobs], [job.status.name for job in jobs], flush=True)
"""


@contextmanager
def node_and_program(own_home: Path, *gates: Path) -> Iterator[tuple[Program, int, Program]]:
    """Run a node, and a program whose first job has begun there."""
    script, port = own_home / 'program.py', free_port()
    script.write_text(PROGRAM)
    path = {'PYTHONPATH': str(Path(__file__).parents[2])}
    # what it keeps of a dead program's job is left behind: that is a promise
    prefix = ('--dest_path_prefix', own_home / 'node')
    with node_program('-i', ADDRESS, '-p', port, '-c', 1, '--name', 'only', *prefix) as node:
        words = (sys.executable, script, port, *gates)
        with program(*words, ready='submitted', env=path) as running:
            await_begun(gates[0], 1)
            yield node, port, running


@pytest.mark.slow
@pytest.mark.parametrize('way', cells('client', 'run', Promise.FREES))
def test_a_node_is_free_again_after_its_program_died(own_home: Path, gate: Path, way: str) -> None:
    with node_and_program(own_home, gate) as (node, port, running):
        (process,) = await_begun(gate, 1)
        running.signal(SIGNALS[way])
        running.wait()
        node.wait_for_log('the program that used this node is gone', SOON)
        assert not gone(process)  # what runs may end
        gate.touch()
        options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
        with dispy.JobCluster(work, [ADDRESS], **options) as cluster:
            job = cluster.submit('')
            assert job.wait(LIMIT), cluster.explain()
            assert job.status == DispyJob.Finished
        assert gone(process)


@pytest.mark.slow
def test_a_stopped_program_loses_nothing(own_home: Path, gate: Path) -> None:
    assert cells('client', 'run')['stop'] is Promise.WAITS
    later = own_home / 'later'
    with node_and_program(own_home, gate, later) as (_, _, running):
        running.signal(signal.SIGSTOP)
        gate.touch()
        time.sleep(7)  # more than five pulses, after which a node would be lost
        running.signal(signal.SIGCONT)
        await_begun(later, 1)
        later.touch()
        running.wait_for_log("['only', 'only'] ['FINISHED', 'FINISHED']", LIMIT)
        assert running.wait() == 0
