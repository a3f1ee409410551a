"""What a `DispyJob` tells, and how jobs are kept apart on the nodes."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import client_program, eventually, free_port, node_program

LIMIT = 15.0
ISOLATIONS = pytest.mark.parametrize('isolation', ['job', 'worker'])


# what runs on the nodes


def where():
    return dispy_node_name, dispy_node_ip_addr  # noqa: F821 - every job finds them


def hold(gate):
    import pathlib
    import time

    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return 'opened'


def divide(number):
    return 10 / number


def write_to_both(text):
    import os
    import sys

    print('out', text)
    print('err', text, file=sys.stderr)
    os.write(1, b'out of C\n')
    os.system('echo err of a child >&2')
    return len(text)


def die():
    import os

    print('last words', flush=True)
    os._exit(3)


def process_ids():
    import os

    return os.getpid(), os.getppid()


def busy_time(seconds):
    """Say at which node this ran, and from when to when by the machine's common clock."""
    import time

    began = time.monotonic()
    time.sleep(seconds)
    return dispy_node_name, began, time.monotonic()  # noqa: F821


def lock():
    import threading

    return [threading.Lock()]


# the handle


class Name:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f'<name {self.text}>'


@pytest.mark.row('D01')
def test_a_jobs_id_is_the_programs_to_set_and_nothing_else_is(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(divide)
    ids: list[Any] = ['text', 5, None, ('a', 'tuple'), Name('object'), {'a': 'dict'}]
    jobs = []
    for wanted in ids:
        job = cluster.submit(5)
        job.id = wanted
        jobs.append(job)
    assert cluster.wait(LIMIT)
    assert [job.id for job in jobs] == ids
    jobs[0].id = 'anew'
    assert jobs[0].id == 'anew'
    for name in ('status', 'result', 'stdout', 'stderr', 'exception', 'ip_addr'):
        with pytest.raises(AttributeError):
            setattr(jobs[0], name, 'mine')
    for name in ('submit_time', 'start_time', 'end_time'):
        with pytest.raises(AttributeError):
            setattr(jobs[0], name, 0.0)
    assert jobs[0].status == DispyJob.Finished


@pytest.mark.row('D02')
def test_log_lines_show_the_id_as_its_own_class_writes_it(
    make_cluster: MakeCluster, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, 'dispy_nb'):
        cluster = make_cluster(hold, loglevel=dispy.logger.DEBUG)
        eventually(lambda: len(cluster.snapshot().nodes) == 2)
        holding = [cluster.submit_node(name, str(own_home / 'gate')) for name in ('alpha', 'beta')]
        good, bad = cluster.submit_node('alpha', '/'), cluster.submit()  # these wait for a cpu
        good.id, bad.id = Name('good'), Name('bad')
        (own_home / 'gate').touch()
        assert cluster.wait(LIMIT)
    lines = [record.getMessage() for record in caplog.records]
    assert 'hold: job <name good> runs at alpha (127.0.0.2)' in lines
    assert 'hold: job <name good> finished' in lines
    assert 'hold: job <name bad> terminated' in lines
    assert 'hold: job 1 finished' in lines
    assert '<name bad>' in {failure.id for failure in cluster.snapshot().failures}
    assert {job.status for job in holding} == {DispyJob.Finished}


@pytest.mark.row('D03')
def test_every_status_is_an_attribute_of_the_class_and_is_seen(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    names = ('Created', 'Running', 'Finished', 'Cancelled', 'Terminated')
    assert len({getattr(DispyJob, name) for name in names}) == len(names)
    cluster = make_cluster(hold, nodes=['127.0.0.2'])
    gate = own_home / 'gate'
    finished, cancelled = cluster.submit(str(gate)), cluster.submit(str(gate))
    terminated = cluster.submit()  # the argument is missing
    eventually(lambda: finished.status == DispyJob.Running)
    assert cancelled.status == DispyJob.Created
    cluster.cancel(cancelled)
    gate.touch()
    assert cluster.wait(LIMIT)
    assert finished.status == DispyJob.Finished
    assert cancelled.status == DispyJob.Cancelled
    assert terminated.status == DispyJob.Terminated
    assert isinstance(finished.Finished, type(finished.status))


def half_and_whole(number):
    dispy_provisional_result(number / 2)  # noqa: F821
    return number


@pytest.mark.row('D04')
def test_provisional_result_is_a_status_of_its_own(make_cluster: MakeCluster) -> None:
    seen: list[tuple[int, Any]] = []
    cluster = make_cluster(
        half_and_whole, callback=lambda job: seen.append((job.status, job.result))
    )
    assert cluster.submit(8)() == 8
    assert cluster.wait(LIMIT)
    assert seen == [(DispyJob.ProvisionalResult, 4.0), (DispyJob.Finished, 8)]
    assert DispyJob.ProvisionalResult not in (DispyJob.Running, DispyJob.Finished)


@pytest.mark.row('D05')
@ISOLATIONS
def test_a_job_is_created_then_running_then_finished(
    make_cluster: MakeCluster, isolation: str
) -> None:
    seen: dict[Any, list[int]] = {}

    def note(status: int, node: Any, job: Any) -> None:
        if job is not None:
            assert job.status == status
            seen.setdefault(job, []).append(status)

    cluster = make_cluster(divide, nodes=['127.0.0.2'], cluster_status=note, isolation=isolation)
    jobs = [cluster.submit(1) for _ in range(20)]
    assert cluster.wait(LIMIT)
    expected = [DispyJob.Created, DispyJob.Running, DispyJob.Finished]
    assert seen == dict.fromkeys(jobs, expected)


@pytest.mark.slow
@pytest.mark.row('D05', 'A16')
@ISOLATIONS
def test_a_job_taken_back_for_an_idle_node_is_created_anew_before_it_runs(
    make_cluster: MakeCluster, isolation: str
) -> None:
    seen: dict[Any, list[int]] = {}

    def note(status: int, node: Any, job: Any) -> None:
        if job is not None:
            assert job.status == status
            seen.setdefault(job, []).append(status)

    cluster = make_cluster(divide, cluster_status=note, isolation=isolation)
    jobs = [cluster.submit(1) for _ in range(500)]  # more than a few at a time for each cpu
    assert cluster.wait(LIMIT)
    turn = [DispyJob.Created, DispyJob.Running]
    for job in jobs:
        *turns, last = seen[job]
        assert last == DispyJob.Finished
        assert turns == turn * (len(turns) // 2)


@pytest.mark.row('D06')
def test_ip_addr_is_where_the_job_ran(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(where)
    jobs = [cluster.submit_node(address) for address in ('127.0.0.2', '127.0.0.3')]
    jobs += [cluster.submit() for _ in range(6)]
    for job in jobs:
        assert job()[1] == job.ip_addr
    assert [job.ip_addr for job in jobs[:2]] == ['127.0.0.2', '127.0.0.3']

    holding = make_cluster(hold, nodes=['127.0.0.3'])
    running, queued = holding.submit(str(own_home / 'gate')), holding.submit(str(own_home / 'gate'))
    eventually(lambda: running.status == DispyJob.Running)
    assert running.ip_addr == '127.0.0.3'
    assert queued.ip_addr is None
    (own_home / 'gate').touch()
    assert holding.wait(LIMIT)


@pytest.mark.row('D07')
def test_calling_a_job_waits_for_its_result_and_answers_it_again(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    cluster = make_cluster(hold)
    gate = own_home / 'gate'
    job = cluster.submit(str(gate))
    results: list[Any] = []
    waiters = [threading.Thread(target=lambda: results.append(job())) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    waiters[0].join(0.3)
    assert results == []
    gate.touch()
    for waiter in waiters:
        waiter.join(LIMIT)
    assert results == ['opened'] * 3
    assert job.result == 'opened'
    assert job() is job.result
    assert cluster.close(LIMIT)
    assert job() == 'opened'  # also when the cluster is gone


@pytest.mark.row('D09')
@ISOLATIONS
def test_output_and_errors_are_kept_apart_for_each_job(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(write_to_both, isolation=isolation)
    jobs = [cluster.submit(text) for text in ('one', 'zwei ü', 'three')]
    for job, text in zip(jobs, ('one', 'zwei ü', 'three'), strict=True):
        assert job() == len(text)
        assert job.stdout == f'out {text}\nout of C\n'
        assert job.stderr == f'err {text}\nerr of a child\n'
    quiet = cluster.submit('')
    assert quiet() == 0
    assert isinstance(quiet.stdout, str)
    assert isinstance(quiet.stderr, str)


@pytest.mark.row('D09')
@ISOLATIONS
def test_what_a_job_printed_survives_the_death_of_its_process(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(die, isolation=isolation)
    job = cluster.submit()
    assert job() is None
    assert job.status == DispyJob.Terminated
    assert job.stdout == 'last words\n'
    assert 'os._exit(3)' in str(job.exception)


@pytest.mark.row('D10')
@ISOLATIONS
def test_an_exception_is_told_with_the_users_own_lines(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(divide, isolation=isolation)
    job = cluster.submit(0)
    assert job() is None
    assert job.result is None
    text = str(job.exception)
    assert text.startswith('Traceback (most recent call last):')
    assert 'test_jobs.py' in text
    assert 'in divide\n    return 10 / number' in text
    assert text.endswith('ZeroDivisionError: division by zero')
    assert 'nodeserver' not in text
    good = cluster.submit(5)
    assert (good(), good.exception) == (2.0, None)


@pytest.mark.row('D11')
def test_times_tell_when_a_job_was_handed_out_and_when_its_result_was_here(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(busy_time, nodes=['127.0.0.2'])
    before = time.time()
    jobs = [cluster.submit(0.1) for _ in range(3)]
    assert jobs[2].end_time is None
    assert cluster.wait(LIMIT)
    after = time.time()
    for job in jobs:
        assert before <= job.submit_time <= job.start_time <= job.end_time <= after
        assert job.end_time - job.start_time >= 0.0999  # as the node timed it
    assert jobs[2].end_time >= before + 0.3  # one after the other, on the only cpu
    assert jobs[2].start_time > jobs[0].start_time


class Recipe:
    """Keeps a lock and a cache; only the text travels, in either direction."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {'text': self.text, 'pickled': True}

    def loud(self) -> str:
        return self.text.upper()


def cook(text):
    return {'recipes': [Recipe(text), Recipe(text * 2)]}


@pytest.mark.row('D12')
@ISOLATIONS
def test_getstate_decides_what_is_sent_of_a_result(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(cook, isolation=isolation)
    first, second = cluster.submit('ab')()['recipes']
    assert (first.loud(), second.loud()) == ('AB', 'ABAB')
    assert isinstance(first, Recipe)
    assert vars(first) == {'text': 'ab', 'pickled': True}


@pytest.mark.row('D13')
@ISOLATIONS
def test_a_result_that_cannot_be_pickled_is_the_jobs_fault(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(lock, isolation=isolation)
    job = cluster.submit()
    assert job.wait(LIMIT)
    assert job() is None
    assert job.status == DispyJob.Terminated
    assert 'result[0] of type _thread.lock cannot be pickled' in str(job.exception)


@pytest.mark.row('D14')
def test_calling_a_cancelled_job_returns_none(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(hold, nodes=['127.0.0.2'])
    running, queued = (cluster.submit(str(own_home / 'gate')) for _ in range(2))
    eventually(lambda: running.status == DispyJob.Running)
    answers: dict[Any, Any] = {}
    waiters = [
        threading.Thread(target=lambda job=job: answers.update({job: job()}))
        for job in (running, queued)
    ]
    for waiter in waiters:
        waiter.start()
    cluster.cancel(running)
    cluster.cancel(queued)
    for waiter in waiters:
        waiter.join(LIMIT)
    assert answers == {running: None, queued: None}
    for job in (running, queued):
        assert job() is None
        assert (job.status, job.result, job.exception) == (DispyJob.Cancelled, None, 'Cancelled')


def test_a_job_can_be_awaited_and_called_in_a_running_loop(make_cluster: MakeCluster) -> None:
    async def main() -> tuple[Any, ...]:
        cluster = make_cluster(divide)
        called = cluster.submit(1)()
        jobs = [cluster.submit(number) for number in (2, 5, 0)]
        gathered = await asyncio.gather(*(_awaited(job) for job in jobs))
        return called, *gathered, await jobs[0]

    async def _awaited(job: Any) -> Any:
        return await job

    assert asyncio.run(main()) == (10.0, 5.0, 2.0, None, 5.0)


# apart from each other


@pytest.mark.row('F01')
def test_each_job_has_a_process_of_its_own(make_cluster: MakeCluster, pair: Pair) -> None:
    cluster = make_cluster(process_ids)
    pids = [cluster.submit()()[0] for _ in range(6)]
    assert len(set(pids)) == 6
    assert not {pair.alpha.pid, pair.beta.pid, os.getpid()} & set(pids)


@pytest.mark.row('F01')
def test_lasting_workers_are_used_again_where_that_was_asked_for(
    make_cluster: MakeCluster, pair: Pair
) -> None:
    cluster = make_cluster(process_ids, isolation='worker')
    pids = [cluster.submit()()[0] for _ in range(8)]
    assert len(set(pids)) <= 2  # one for each cpu
    assert not {pair.alpha.pid, pair.beta.pid, os.getpid()} & set(pids)


shared_number = 7


def rebind(value):
    """Change what a job can change, and say how it was found."""
    global shared_number
    import os
    import pathlib
    import sys

    same = sys.stdout is sys.__stdout__
    found = shared_number, os.environ.get('MARK'), str(pathlib.Path.cwd()), same
    shared_number = value
    os.environ['MARK'] = str(value)
    os.chdir('/')
    sys.stdout = sys.stderr
    return found


@pytest.mark.row('F02')
@ISOLATIONS
def test_what_a_job_rebinds_is_not_seen_by_a_later_one(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(rebind, nodes=['127.0.0.2'], isolation=isolation)
    found = [cluster.submit(number)() for number in range(5)]
    directory = found[0][2]
    assert directory != '/'
    assert found == [(7, None, directory, True)] * 5
    assert shared_number == 7


REBINDING_SCRIPT = """
import dispy_nb as dispy

total = 0

def helper():
    return total

def add(number):
    global total, fresh
    found = total, helper(), 'fresh' in globals()
    total += number
    fresh = 1
    return found

if __name__ == '__main__':
    options = {'nodes': [('127.0.0.6', PORT)], 'ip_addr': '127.0.0.1', 'port': 0}
    with dispy.JobCluster(add, isolation=ISOLATION, **options) as cluster:
        jobs = [cluster.submit(number) for number in range(1, 21)]
        assert [job() for job in jobs] == [(0, 0, False)] * 20, [job() for job in jobs]
"""


@pytest.mark.slow
@pytest.mark.row('F02')
def test_a_scripts_globals_are_put_back_after_each_job() -> None:
    port = free_port()
    with node_program('-i', '127.0.0.6', '-p', port, '-c', 1):
        for isolation in ('job', 'worker'):
            script = REBINDING_SCRIPT.replace('PORT', str(port))
            client_program(script.replace('ISOLATION', repr(isolation)))


@pytest.mark.row('A04')
@ISOLATIONS
def test_no_processor_runs_two_jobs_at_a_time(make_cluster: MakeCluster, isolation: str) -> None:
    cluster = make_cluster(busy_time, isolation=isolation)
    jobs = [cluster.submit(0.03) for _ in range(16)]
    spans: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        name, began, ended = job()
        spans.setdefault(name, []).append((began, ended))
    assert spans.keys() == {'alpha', 'beta'}
    for found in spans.values():
        found.sort()
        ends = [ended for _, ended in found]
        starts = [began for began, _ in found]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.row('A05')
def test_any_function_is_sent_and_called_with_the_arguments(make_cluster: MakeCluster) -> None:
    factor = 3

    def times(number: int, plus: int = 0) -> int:
        return number * factor + plus  # neither this function nor its variable is on the nodes

    for computation in (times, lambda number, plus=0: number * 3 + plus):
        with make_cluster(computation) as cluster:
            assert cluster.submit(5)() == 15
            assert cluster.submit(5, plus=1)() == 16
    with make_cluster(max) as cluster:
        assert cluster.submit(4, 9, 2)() == 9


# directories


@pytest.fixture
def own_node(own_home: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A node of this test alone, and the directory below which it keeps files."""
    port, files = free_port(), tmp_path / 'files'
    options = ('-i', '127.0.0.7', '-p', port, '-c', 1, '--dest_path_prefix', files)
    with node_program(*options):
        yield port, files


def own_cluster(clusters: list[dispy.JobCluster], port: int, **options: Any) -> dispy.JobCluster:
    place = {'nodes': ['127.0.0.7'], 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    cluster = dispy.JobCluster(keep_text, **place, **options)
    clusters.append(cluster)
    return cluster


def keep_text(text=''):
    """Add to a file of the working directory, and say what is in it and where it is."""
    import pathlib

    path = pathlib.Path('same-name.txt')
    with path.open('a') as file:
        file.write(text)
    return path.read_text(), str(path.absolute())


@pytest.mark.row('F14')
def test_two_computations_with_equally_named_files_do_not_collide(
    own_node: tuple[int, Path], open_clusters: list[dispy.JobCluster]
) -> None:
    port, files = own_node
    one, other = (own_cluster(open_clusters, port) for _ in range(2))
    text, path = one.submit('one')()
    other_text, other_path = other.submit('other')()
    assert (text, other_text) == ('one', 'other')
    assert path != other_path
    assert {files} < set(Path(path).parents) & set(Path(other_path).parents)
    assert one.submit('!')() == ('one!', path)  # its own, for as long as it is open
    assert Path(path).parent.stat().st_mode & 0o077 == 0
    assert one.close(LIMIT)
    assert other.submit('!')() == ('other!', other_path)


@pytest.mark.row('F16')
def test_a_closed_cluster_leaves_no_files_unless_it_asked_for_that(
    own_node: tuple[int, Path], open_clusters: list[dispy.JobCluster]
) -> None:
    port, files = own_node
    with own_cluster(open_clusters, port) as cluster:
        path = Path(cluster.submit('text')()[1])
        assert path.read_text() == 'text'
    assert not path.exists()
    assert [entry.name for entry in files.iterdir() if not entry.name.startswith('.')] == []
    # ours: other runs of these tests on the same machine have theirs
    ours = psutil.Process().children(recursive=True)
    template = [p for p in ours if p.is_running() and p.name() == 'dispy template']
    assert not [p for p in template if p.cwd().startswith(str(files))]

    with own_cluster(open_clusters, port, cleanup=False) as cluster:
        path = Path(cluster.submit('kept')()[1])
    assert path.read_text() == 'kept'
