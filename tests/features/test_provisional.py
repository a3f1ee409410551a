"""Callbacks, `cluster_status` and provisional results."""

import threading
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob, DispyNode
from tests.features.conftest import MakeCluster
from tests.support.programs import client_program, eventually, free_port, node_program

LIMIT = 15.0
ISOLATIONS = pytest.mark.parametrize('isolation', ['job', 'worker'])


# what runs on the nodes


def square(number):
    return number * number


def steps(count, mark=''):
    """Send so many results; go on afterwards, and leave a sign of it."""
    import pathlib

    for number in range(count):
        dispy_provisional_result({'step': number})  # noqa: F821 - there without an import
    if mark:
        pathlib.Path(mark).write_text('went on')
    return 'done'


def send_and_hold(gate):
    import pathlib
    import time

    dispy_provisional_result('early')  # noqa: F821
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return 'opened'


def send_lock():
    import threading

    try:
        dispy_provisional_result(threading.Lock())  # noqa: F821
    except TypeError as error:
        told = str(error)
    dispy_provisional_result('still there')  # noqa: F821
    return told


def send_lock_unguarded():
    import threading

    dispy_provisional_result([threading.Lock()])  # noqa: F821


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


def send_objects():
    dispy_provisional_result(Point(1, 2))  # noqa: F821
    dispy_provisional_result(lambda number: number + 1)  # noqa: F821
    dispy_provisional_result(b'\x00' * 6_000_000)  # noqa: F821


# callbacks

CALLBACK_SCRIPT = """
import os
import threading
import dispy_nb as dispy

total, seen, threads = 0, [], set()

def square(number):
    return number * number

def add(job):
    global total
    total += job.result
    seen.append(job)
    threads.add((os.getpid(), threading.current_thread().name))

if __name__ == '__main__':
    options = {'nodes': [('127.0.0.8', PORT)], 'ip_addr': '127.0.0.1', 'port': 0}
    with dispy.JobCluster(square, callback=add, **options) as cluster:
        jobs = [cluster.submit(number) for number in range(20)]
    assert total == sum(number * number for number in range(20)), total
    assert set(seen) == set(jobs) and len(seen) == 20
    assert all(isinstance(job, dispy.DispyJob) for job in seen)
    assert {pid for pid, _ in threads} == {os.getpid()}
    assert len(threads) == 1
"""


@pytest.mark.slow
@pytest.mark.row('A15')
def test_the_callback_runs_in_the_client_with_each_job() -> None:
    port = free_port()
    with node_program('-i', '127.0.0.8', '-p', port, '-c', 1):
        client_program(CALLBACK_SCRIPT.replace('PORT', str(port)))


@pytest.mark.row('A15')
def test_the_callback_is_called_for_jobs_that_fail_or_are_cancelled_too(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    seen: dict[Any, Any] = {}
    cluster = make_cluster(
        send_and_hold,
        nodes=['127.0.0.2'],
        callback=lambda job: seen.update({job: (job.status, job.result)}),
    )
    running, wrong, queued = cluster.submit(str(own_home / 'gate')), cluster.submit(), None
    queued = cluster.submit(str(own_home / 'gate'))
    eventually(lambda: running in seen)
    cluster.cancel(queued)
    cluster.cancel(running)
    assert cluster.wait(LIMIT)
    assert seen == {
        running: (DispyJob.Cancelled, None),
        wrong: (DispyJob.Terminated, None),
        queued: (DispyJob.Cancelled, None),
    }


@pytest.mark.row('A16')
def test_cluster_status_is_told_of_each_change_of_a_job(make_cluster: MakeCluster) -> None:
    told: list[tuple[int, DispyNode | None, Any]] = []
    cluster = make_cluster(steps, cluster_status=lambda *change: told.append(change))
    job, bad = cluster.submit(2), cluster.submit('no number')
    assert cluster.wait(LIMIT)
    of_job = [(status, node) for status, node, j in told if j == job]
    assert [status for status, _ in of_job] == [
        DispyJob.Created,
        DispyJob.Running,
        DispyJob.ProvisionalResult,
        DispyJob.ProvisionalResult,
        DispyJob.Finished,
    ]
    assert [status for status, _, j in told if j == bad] == [
        DispyJob.Created,
        DispyJob.Running,
        DispyJob.Terminated,
    ]
    for status, node in of_job:
        if status != DispyJob.Created:  # before that no node is concerned
            assert isinstance(node, DispyNode)
            assert node.ip_addr == job.ip_addr
    assert all(isinstance(j, DispyJob) for _, _, j in told if j is not None)


@pytest.mark.row('A17')
def test_cluster_status_is_told_of_each_change_of_a_node(
    open_clusters: list[dispy.JobCluster],
) -> None:
    told: list[tuple[int, DispyNode | None, Any]] = []
    port = free_port()
    with node_program('-i', '127.0.0.8', '-p', port, '-c', 1, '--name', 'short-lived'):
        cluster = dispy.JobCluster(
            square,
            nodes=['127.0.0.8'],
            ip_addr='127.0.0.1',
            port=0,
            node_port=port,
            cluster_status=lambda *change: told.append(change),
        )
        open_clusters.append(cluster)
        eventually(lambda: told)
        status, node, job = told[0]
        assert (status, job) == (DispyNode.Initialized, None)
        assert isinstance(node, DispyNode)
        assert (node.ip_addr, node.name, node.cpus) == ('127.0.0.8', 'short-lived', 1)
    eventually(lambda: told[-1][0] == DispyNode.Closed)
    assert told[-1][1:] == (node, None)


# provisional results


@pytest.mark.row('G01', 'G02', 'G04')
@ISOLATIONS
def test_each_provisional_result_is_one_callback_and_the_end_is_one_more(
    make_cluster: MakeCluster, isolation: str
) -> None:
    seen: dict[Any, list[tuple[int, Any]]] = {}

    def note(job: Any) -> None:
        seen.setdefault(job, []).append((job.status, job.result))

    cluster = make_cluster(steps, callback=note, isolation=isolation)
    jobs = [cluster.submit(50), cluster.submit(3), cluster.submit(0)]
    assert cluster.wait(LIMIT)
    for job, count in zip(jobs, (50, 3, 0), strict=True):
        expected = [(DispyJob.ProvisionalResult, {'step': n}) for n in range(count)]
        assert seen[job] == [*expected, (DispyJob.Finished, 'done')]
        assert job.exception is None
    assert cluster.snapshot().provisional == 53


@pytest.mark.row('G03')
@ISOLATIONS
def test_the_job_goes_on_after_a_provisional_result(
    make_cluster: MakeCluster, tmp_path: Path, own_home: Path, isolation: str
) -> None:
    mark = tmp_path / 'mark'
    with make_cluster(steps, isolation=isolation) as cluster:
        assert cluster.submit(1, str(mark))() == 'done'
    assert mark.read_text() == 'went on'

    results: list[Any] = []
    cluster = make_cluster(
        send_and_hold, callback=lambda job: results.append(job.result), isolation=isolation
    )
    job = cluster.submit(str(own_home / 'gate'))
    eventually(lambda: results == ['early'])  # arrives while the job runs
    assert job.status == DispyJob.ProvisionalResult
    assert job.result == 'early'
    assert not job.wait(0.1)
    (own_home / 'gate').touch()
    assert job() == 'opened'
    assert cluster.wait(LIMIT)
    assert results == ['early', 'opened']


@pytest.mark.row('G05')
@ISOLATIONS
def test_any_picklable_object_can_be_sent(make_cluster: MakeCluster, isolation: str) -> None:
    results: list[Any] = []
    cluster = make_cluster(
        send_objects, callback=lambda job: results.append(job.result), isolation=isolation
    )
    job = cluster.submit()
    assert cluster.wait(LIMIT)
    assert job.exception is None
    point, increment, block, last = results
    assert isinstance(point, Point)
    assert (point.x, point.y) == (1, 2)
    assert increment(1) == 2
    assert block == b'\x00' * 6_000_000
    assert last is None


@pytest.mark.row('G05')
@ISOLATIONS
def test_an_object_that_cannot_be_pickled_makes_the_call_fail_in_the_job(
    make_cluster: MakeCluster, isolation: str
) -> None:
    results: list[Any] = []
    cluster = make_cluster(
        send_lock, callback=lambda job: results.append(job.result), isolation=isolation
    )
    told = cluster.submit()()
    assert 'lock cannot be pickled' in told
    assert cluster.wait(LIMIT)
    assert results == ['still there', told]

    cluster = make_cluster(send_lock_unguarded, isolation=isolation)
    job = cluster.submit()
    assert job() is None
    assert job.status == DispyJob.Terminated
    assert 'in send_lock_unguarded' in str(job.exception)
    assert 'result[0] of type _thread.lock cannot be pickled' in str(job.exception)


@pytest.mark.row('G06')
@ISOLATIONS
def test_jobs_of_any_pending_status_can_be_cancelled_in_the_callback(
    make_cluster: MakeCluster, own_home: Path, isolation: str
) -> None:
    before: list[int] = []

    def cancel_all(job: Any) -> None:
        if job.status == DispyJob.ProvisionalResult and job == jobs[0]:
            released.wait(LIMIT)
            for other in jobs:
                if other.status in (job.Created, job.Running, job.ProvisionalResult):
                    before.append(other.status)
                    cluster.cancel(other)

    released = threading.Event()
    gate = str(own_home / 'gate')
    cluster = make_cluster(send_and_hold, callback=cancel_all, isolation=isolation)
    quiet = make_cluster(wait_only, isolation=isolation)
    jobs = [cluster.submit_node('127.0.0.2', gate)]
    eventually(lambda: jobs[0].status == DispyJob.ProvisionalResult)
    jobs += [cluster.submit_node('127.0.0.2', gate) for _ in range(2)]
    released.set()
    assert cluster.wait(LIMIT)
    assert before == [DispyJob.ProvisionalResult, DispyJob.Created, DispyJob.Created]
    assert {job.status for job in jobs} == {DispyJob.Cancelled}
    assert quiet.close(LIMIT)


def wait_only(gate):
    import pathlib
    import time

    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.row('G06')
def test_a_running_job_can_be_cancelled_in_the_callback_of_another(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    gate = str(own_home / 'gate')
    seen: list[int] = []

    def cancel_other(job: Any) -> None:
        if job == first and job.status == DispyJob.Finished:
            eventually(lambda: other.status == DispyJob.Running)
            seen.append(other.status)
            cluster.cancel(other)

    cluster = make_cluster(wait_only, callback=cancel_other)
    other = cluster.submit_node('127.0.0.3', gate)
    first = cluster.submit_node('127.0.0.2', '/')  # which exists
    assert cluster.wait(LIMIT)
    assert seen == [DispyJob.Running]
    assert (first.status, other.status) == (DispyJob.Finished, DispyJob.Cancelled)


@pytest.mark.row('G07')
@ISOLATIONS
def test_the_callback_can_submit_further_jobs(make_cluster: MakeCluster, isolation: str) -> None:
    results: list[int] = []

    def go_on(job: Any) -> None:
        results.append(job.result)
        if job.result < 1000:
            cluster.submit(job.result)

    cluster = make_cluster(square, callback=go_on, isolation=isolation)
    cluster.submit(2)
    assert cluster.wait(LIMIT)  # waits for those too
    assert results == [4, 16, 256, 65536]
