"""Waiting for jobs as they end, and for nodes; in threads and in event loops."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dispy_nb as dispy
from dispy_nb.completion import AsCompleted
from tests.features.conftest import MakeCluster
from tests.support.programs import eventually, free_port

LIMIT = 15.0


# what runs on the nodes


def hold(gate):
    """Run until the file `gate` is there."""
    import pathlib
    import time

    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return str(gate)


def identity(value):
    return value


def after(seconds: float, call: Callable[[], object]) -> None:
    threading.Timer(seconds, call).start()


# as_completed


@pytest.mark.row('Z01')
def test_jobs_come_as_they_end_and_are_counted(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(hold)
    first, second = (cluster.submit(own_home / name) for name in ('a', 'b'))
    jobs = cluster.as_completed()
    assert len(jobs) == 2
    (own_home / 'b').touch()
    assert next(jobs) is second
    assert second.status == dispy.DispyJob.Finished
    assert len(jobs) == 1
    (own_home / 'a').touch()
    assert list(jobs) == [first]
    assert len(jobs) == 0
    assert list(cluster.as_completed()) == []


@pytest.mark.row('Z01')
def test_jobs_of_several_clusters_twice_given_and_ended_before(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    one, other = make_cluster(identity), make_cluster(hold)
    ended = one.submit(1)
    assert ended() == 1
    gate = own_home / 'gate'
    waits = other.submit(gate)
    jobs = dispy.as_completed([waits, ended, waits, ended])
    assert len(jobs) == 2
    assert next(jobs) is ended
    gate.touch()
    assert next(jobs) is waits
    with pytest.raises(StopIteration):
        next(jobs)


@pytest.mark.row('Z01')
def test_what_a_callback_was_given_stands_for_its_job(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    views = []
    cluster = make_cluster(hold, cluster_status=lambda status, node, job: views.append(job))
    gate = own_home / 'gate'
    job = cluster.submit(gate)
    eventually(lambda: job in views)
    jobs = dispy.as_completed([job, next(view for view in views if view == job)])
    assert len(jobs) == 1
    gate.touch()
    assert next(jobs) is job


@pytest.mark.row('Z01')
def test_a_time_limit_counts_from_the_call(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(hold)
    gate = own_home / 'gate'
    gate.touch()
    done, waits = cluster.submit(gate), cluster.submit(own_home / 'other')
    jobs = cluster.as_completed([done, waits], timeout=1)
    assert next(jobs) is done
    began = time.monotonic()
    with pytest.raises(TimeoutError, match='1 jobs have not ended'):
        next(jobs)
    assert time.monotonic() - began < 1.5

    async def look() -> None:
        async for _ in cluster.as_completed([waits], timeout=0.1):
            raise AssertionError('it cannot have ended')

    with pytest.raises(TimeoutError):
        asyncio.run(look())
    (own_home / 'other').touch()
    assert waits()
    assert next(jobs) is waits  # who asks again is not refused what is there


@pytest.mark.row('Z01', 'V22')
def test_many_jobs_in_an_event_loop_that_goes_on(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(identity, isolation='worker')

    async def collect() -> tuple[list[int], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(tick())
        jobs = cluster.as_completed([cluster.submit(number) for number in range(500)])
        results = [job.result async for job in jobs]
        beside.cancel()
        return results, ticks

    results, ticks = asyncio.run(collect())
    assert sorted(results) == list(range(500))
    assert ticks > 10


@pytest.mark.row('Z01')
def test_an_abandoned_wait_leaves_the_jobs_as_they_were(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    cluster = make_cluster(hold)
    job = cluster.submit(own_home / 'gate')
    jobs = cluster.as_completed([job])
    jobs.close()
    assert job._waiters == ()
    assert len(jobs) == 0
    (own_home / 'gate').touch()
    assert job()


@pytest.mark.row('Z01')
def test_several_threads_take_each_job_once_and_all_come_to_the_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(identity)
    jobs = [cluster.submit(number) for number in range(30)]
    ended, taken = cluster.as_completed(jobs), list[dispy.DispyJob]()
    threads = [threading.Thread(target=lambda: taken.extend(ended)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(job.result for job in taken) == list(range(30))
    assert list(ended) == []


@pytest.mark.row('Z01', 'V22')
def test_several_tasks_take_each_job_once_and_all_come_to_the_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(identity)

    async def take(ended: AsCompleted) -> list[int]:
        return [job.result async for job in ended]

    async def take_together() -> list[list[int]]:
        ended = cluster.as_completed([cluster.submit(number) for number in range(30)])
        return await asyncio.wait_for(asyncio.gather(*(take(ended) for _ in range(4))), LIMIT)

    taken = asyncio.run(take_together())
    assert sorted(number for numbers in taken for number in numbers) == list(range(30))


@pytest.mark.row('Z01')
def test_closing_ends_the_wait_of_others(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(hold)
    cluster.submit(own_home / 'gate')
    ended = cluster.as_completed()
    after(0.2, ended.close)
    assert list(ended) == []
    (own_home / 'gate').touch()


@pytest.mark.row('Z01')
@pytest.mark.parametrize('given', [3, [3], ['job'], [None]])
def test_what_is_no_job_is_refused(make_cluster: MakeCluster, given: object) -> None:
    cluster = make_cluster(identity)
    for verb in (cluster.as_completed, dispy.as_completed):
        with pytest.raises(dispy.UsageError, match='jobs must be'):
            verb(given)  # type: ignore[arg-type]


# awaiting


@pytest.mark.row('V22')
def test_awaiting_takes_no_thread(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(hold)
    gate = own_home / 'gate'
    job = cluster.submit(gate)

    async def wait_in_many_ways() -> list[object]:
        waits = [asyncio.ensure_future(cluster.wait_async()) for _ in range(20)]
        waits += [asyncio.ensure_future(wait) for wait in (_of(cluster), _of(job))]
        await asyncio.sleep(0.1)
        assert threading.active_count() == before
        gate.touch()
        return await asyncio.gather(*waits)

    async def _of(awaitable: dispy.JobCluster | dispy.DispyJob) -> object:
        return await awaitable

    before = threading.active_count()
    assert asyncio.run(wait_in_many_ways()) == [True] * 21 + [str(gate)]


@pytest.mark.row('V22')
def test_wait_async_has_a_time_limit_and_waits_for_callbacks(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    called = []

    def callback(job: dispy.DispyJob) -> None:
        time.sleep(0.2)
        called.append(job)

    cluster = make_cluster(hold, callback=callback)
    gate = own_home / 'gate'
    job = cluster.submit(gate)
    assert asyncio.run(cluster.wait_async(0.05)) is False
    assert asyncio.run(cluster.wait_async(timeout=0)) is False
    gate.touch()
    assert asyncio.run(cluster.wait_async(LIMIT)) is True
    assert called == [job]
    with pytest.raises(dispy.UsageError, match='timeout'):
        asyncio.run(cluster.wait_async('soon'))  # type: ignore[arg-type]


# nodes


@pytest.mark.row('Z06')
def test_waiting_for_nodes_gives_those_that_are_ready(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(identity)
    nodes = cluster.wait_for_nodes(2, timeout=LIMIT)
    assert sorted(node.name for node in nodes) == ['alpha', 'beta']
    assert all(node.cpus == 1 for node in nodes)
    with pytest.raises(dispy.NodesMissing, match=r'2 of 3 nodes are ready after 0.1 s\n') as caught:
        cluster.wait_for_nodes(3, timeout=0.1)
    assert 'identity: 0 jobs waiting' in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(dispy.UsageError, match='n must be'):
        cluster.wait_for_nodes(0)


@pytest.mark.row('Z06')
def test_waiting_for_nodes_that_are_not_there_says_what_is_known(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(identity, nodes=['127.0.0.1'], node_port=free_port())
    with pytest.raises(dispy.NodesMissing, match=r'looked for nodes at: 127\.0\.0\.1'):
        cluster.wait_for_nodes(timeout=0.2)
    after(0.2, lambda: cluster.close(timeout=0, terminate=True))
    with pytest.raises(dispy.ClusterClosed):
        cluster.wait_for_nodes()
