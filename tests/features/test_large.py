"""Large arguments and results travel fast, and a shared one to each node once (Z11)."""

import gc
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import dispy_nb as dispy
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import eventually, free_port, node_program

MB = 1_000_000
LARGE = 20 * MB


@pytest.fixture(scope='module')
def pair(shared_home: Path) -> Iterator[Pair]:
    """Run two nodes that say what arrives."""
    port = free_port()
    with (
        node_program('-d', '-i', '127.0.0.2', '-p', port, '-c', 1, '--name', 'alpha') as alpha,
        node_program('-d', '-i', '127.0.0.3', '-p', port, '-c', 1, '--name', 'beta') as beta,
    ):
        yield Pair(port, alpha, beta)


@pytest.fixture
def arrived(pair: Pair) -> Callable[[], list[list[int]]]:
    """Sizes of the data that have arrived at each node since the test began."""
    logs = [node.log_from_now() for node in (pair.alpha, pair.beta)]
    pattern = re.compile(r'ShareData\(.*?(\d{4,})(?: bytes)')
    return lambda: [[int(size) for size in pattern.findall(log())] for log in logs]


def ends(array: Any, pause: float = 0) -> tuple[float, float]:
    time.sleep(pause)
    return float(array[0]), float(array[-1])


def add_in_place(array: Any) -> Any:
    array += 1
    return array


def test_array_goes_there_and_comes_back_writable(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(add_in_place)
    array = numpy.arange(LARGE // 8, dtype=float)
    result = cluster.submit(array)()
    result += 1
    assert (result == array + 2).all()


@pytest.mark.row('Z11')
def test_large_argument_of_many_jobs_goes_to_each_node_once(
    make_cluster: MakeCluster, arrived: Callable[[], list[list[int]]]
) -> None:
    cluster = make_cluster(ends)
    array = numpy.ones(LARGE // 8)
    jobs = [cluster.submit(array, 0.05) for _ in range(20)]
    assert [job() for job in jobs] == [(1, 1)] * 20
    assert {job.ip_addr for job in jobs} == {'127.0.0.2', '127.0.0.3'}
    assert arrived() == [[LARGE], [LARGE]]


@pytest.mark.row('Z11')
def test_array_that_was_changed_meanwhile_is_sent_anew(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ends)
    array = numpy.zeros(LARGE // 8)
    jobs = []
    for number in range(4):
        array[-1] = number
        jobs.append(cluster.submit(array))
    array[:] = -1
    assert [job() for job in jobs] == [(0, number) for number in range(4)]


@pytest.mark.row('Z11')
def test_writes_of_one_job_are_not_seen_by_another(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(lambda array: ends(add_in_place(array)), isolation='worker')
    array = numpy.zeros(LARGE // 8)
    jobs = [cluster.submit(array) for _ in range(6)]
    assert [job() for job in jobs] == [(1, 1)] * 6


@pytest.mark.row('Z11')
def test_several_threads_share_one_array(
    make_cluster: MakeCluster, arrived: Callable[[], list[list[int]]]
) -> None:
    cluster = make_cluster(ends)
    array = numpy.ones(LARGE // 8)
    jobs: list[dispy.DispyJob] = []

    def submit() -> None:
        jobs.extend(cluster.submit(array) for _ in range(5))

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job() for job in jobs] == [(1, 1)] * 20
    assert all(sizes in ([LARGE], []) for sizes in arrived())


@pytest.mark.row('Z11')
def test_shared_value_is_plain_in_the_job_and_goes_to_each_node_once(
    make_cluster: MakeCluster, arrived: Callable[[], list[list[int]]]
) -> None:
    def look(table: Any, key: str, within: Any) -> Any:
        return type(table).__name__, float(table[key].sum()), within[0] is not None

    cluster = make_cluster(look)
    table = cluster.share({'a': numpy.ones(LARGE // 8), 'b': [1, 2, 3]})
    assert repr(table) == '<Shared dict of 20.0 MB>'
    jobs = [cluster.submit(table, 'a', [table]) for _ in range(8)]
    assert [job() for job in jobs] == [('dict', LARGE // 8, True)] * 8
    assert all(len(sizes) <= 1 for sizes in arrived())
    small = cluster.share({'a': numpy.ones(2)})
    assert cluster.submit(small, 'a', [1])() == ('dict', 2, True)


def test_shared_value_of_another_or_a_closed_cluster_is_refused_at_once(
    make_cluster: MakeCluster,
) -> None:
    one, other = make_cluster(ends, name='one'), make_cluster(ends, name='other')
    value = one.share(numpy.ones(10))
    for args in ((value,), ([{'x': value}],)):
        with pytest.raises(dispy.UsageError, match=r'shared by cluster one .* cluster other'):
            other.submit(*args)
    same = make_cluster(ends, name='one')
    with pytest.raises(dispy.UsageError, match='by another cluster one was given to cluster one:'):
        same.submit(value)
    one.close()
    with pytest.raises(dispy.ClusterClosed):
        one.share(numpy.ones(10))
    with pytest.raises(dispy.ClusterClosed):
        one.submit(value)
    with pytest.raises(dispy.UsageError):
        other.submit(value)
    assert other.submit(numpy.ones(10))() == (1, 1)


@pytest.mark.row('Z11', 'C25')
def test_data_that_nobody_needs_are_freed_everywhere(make_cluster: MakeCluster, pair: Pair) -> None:
    cluster = make_cluster(ends)
    array = numpy.ones(LARGE // 8)
    value = cluster.share(array)
    assert cluster.submit(array)() == cluster.submit(value)() == (1, 1)
    logs = [node.log_from_now() for node in (pair.alpha, pair.beta)]
    book = cluster._data
    assert len(book._entries) == 2
    del array, value
    gc.collect()
    eventually(lambda: not book._entries and not book.of_jobs)
    pattern = re.compile(r'<- MessageArrived\(.*DropData\(\d+, \[([\d, ]+)\]')

    def dropped() -> int:
        return sum(len(ids.split(',')) for log in logs for ids in pattern.findall(log()))

    eventually(lambda: dropped() == 2, message=lambda: '\n'.join(log() for log in logs))


def test_copies_that_are_kept_have_a_bound(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('dispy_nb.shareddata.KEPT', 3 * LARGE)
    cluster = make_cluster(ends)
    arrays = [numpy.full(LARGE // 8, number, float) for number in range(8)]
    jobs = [cluster.submit(array) for array in arrays]
    assert [job() for job in jobs] == [(n, n) for n in range(8)]
    cluster.submit(numpy.ones(LARGE // 8))()
    book = cluster._data
    eventually(lambda: sum(len(e.content) for e in book._entries.values()) <= 3 * LARGE)


@pytest.mark.slow
@pytest.mark.row('Z11')
@pytest.mark.leaves('files')  # of the killed node: the next one sweeps them up
def test_node_that_is_killed_with_the_data_costs_only_its_jobs(shared_home: Path) -> None:
    with (
        dispy.LocalNodes(2, cpus=1) as local,
        dispy.JobCluster(ends, nodes=local.nodes, ip_addr='127.0.0.1', reentrant=True) as cluster,
    ):
        array = numpy.ones(LARGE // 8)
        jobs = [cluster.submit(array, 0.3) for _ in range(8)]
        eventually(lambda: len({job.node.node_id for job in jobs if job.node}) == 2)
        os.kill(local.pids[0], signal.SIGKILL)
        assert [job() for job in jobs] == [(1, 1)] * 8


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_large_payloads_travel_over_the_network_too(shared_home: Path, isolation: str) -> None:
    """With a passphrase there is no local socket: everything goes in parts, encrypted."""
    port, secret = free_port(), 'a long passphrase'
    with (
        node_program('-d', '-i', '127.0.0.4', '-p', port, '-c', 1, '--secret', secret) as node,
        dispy.JobCluster(
            add_in_place,
            nodes=['127.0.0.4'],
            ip_addr='127.0.0.1',
            port=0,
            node_port=port,
            secret=secret,
            isolation=isolation,
        ) as cluster,
    ):
        array = numpy.arange(LARGE // 8, dtype=float)
        jobs = [cluster.submit(array) for _ in range(4)]
        for job in jobs:
            result = job()
            result += 1
            assert (result == array + 2).all()
        assert len(re.findall(r'<- MessageArrived\(.*ShareData', node.log())) == 1


def test_result_over_the_limit_is_refused_in_words(make_cluster: MakeCluster) -> None:
    def huge() -> bytes:
        from nodeserver.wire import packed

        packed.LARGEST = 10
        from nodeserver import payload

        payload.LARGEST = 1000
        return bytes(2000)

    job = make_cluster(huge).submit()
    job()
    assert job.status == dispy.DispyJob.Terminated
    assert '1,000 are allowed' in str(job.exception)


def test_argument_over_the_limit_is_refused_at_once(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('nodeserver.payload.LARGEST', 1000)
    cluster = make_cluster(ends)
    with pytest.raises(dispy.UsageError, match='1,000 are allowed'):
        cluster.submit(list(range(1000)))
    with pytest.raises(dispy.UsageError, match='1,000 are allowed'):
        cluster.share(list(range(1000)))
