"""What holds for one job holds for thousands: overlap on cpus, order of statuses."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import pytest

import dispy_nb as dispy
from tests.support.programs import free_port, node_program

LIMIT = 50.0
JOBS = {'job': 500, 'worker': 2000}


def stamped(number):
    """Say who ran, and from when till when, by a clock that all processes share."""
    import os
    import time

    began = time.monotonic()
    while time.monotonic() - began < 0.0002 * (number % 4):
        pass
    return dispy_node_name, os.getpid(), began, time.monotonic()  # noqa: F821


@pytest.fixture
def nodes() -> Iterator[tuple[list[str], int]]:
    """Two nodes of two cpus each."""
    port, addresses = free_port(), ['127.0.0.2', '127.0.0.3']
    with (
        node_program('-i', addresses[0], '-p', port, '-c', 2, '--name', 'one'),
        node_program('-i', addresses[1], '-p', port, '-c', 2, '--name', 'two'),
    ):
        yield addresses, port


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Count how many spans overlap at most."""
    edges = sorted((at, step) for span in spans for at, step in zip(span, (1, -1), strict=True))
    most = now = 0
    for _, step in edges:  # at one moment ends (-1) come before beginnings
        now += step
        most = max(most, now)
    return most


@pytest.mark.row('A04')
@pytest.mark.slow
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_no_cpu_ever_runs_two_jobs(nodes: tuple[list[str], int], isolation: str) -> None:
    addresses, port = nodes
    with dispy.JobCluster(
        stamped, nodes=addresses, ip_addr='127.0.0.1', port=0, node_port=port, isolation=isolation
    ) as cluster:
        cluster.wait_for_nodes(2, LIMIT)
        jobs = [cluster.submit(number) for number in range(JOBS[isolation])]
        assert cluster.wait(LIMIT)
        ran = [job.result for job in jobs]
    assert most_at_once([span[2:] for span in ran]) <= 4
    by_node, by_process = defaultdict(list), defaultdict(list)
    for name, process, *span in ran:
        by_node[name].append(tuple(span))
        by_process[name, process].append(tuple(span))
    assert by_node.keys() == {'one', 'two'}
    assert all(most_at_once(spans) <= 2 for spans in by_node.values())
    assert all(most_at_once(spans) == 1 for spans in by_process.values())
    assert len(by_process) == (4 if isolation == 'worker' else JOBS[isolation])


@pytest.mark.row('D05')
@pytest.mark.slow
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_each_job_goes_its_way_in_order(nodes: tuple[list[str], int], isolation: str) -> None:
    addresses, port = nodes
    ways: dict[int, list[int]] = defaultdict(list)
    threads = set()

    def note(status: int, node: dispy.DispyNode | None, job: dispy.DispyJob | None) -> None:
        threads.add(threading.current_thread())
        if job is not None:
            ways[job.id].append(status)
            assert job.status == status

    with dispy.JobCluster(
        stamped,
        nodes=addresses,
        ip_addr='127.0.0.1',
        port=0,
        node_port=port,
        isolation=isolation,
        cluster_status=note,
    ) as cluster:
        for number in range(JOBS[isolation]):
            cluster.submit(number)
        assert cluster.wait(LIMIT)
    assert len(threads) == 1
    assert len(ways) == JOBS[isolation]
    order = [dispy.DispyJob.Created, dispy.DispyJob.Running, dispy.DispyJob.Finished]
    for way in ways.values():
        # one that a full node gave back to an idle one was queued again in between
        assert way[:2] == order[:2]
        assert way[-2:] == order[1:]
        assert all(b != a and (a, b) != (order[0], order[2]) for a, b in pairwise(way))
        assert way.count(order[2]) == 1
    straight = sum(way == order for way in ways.values())
    assert straight > JOBS[isolation] / 2


def pause(seconds):
    import time

    time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize('isolation', ['job', 'worker'])
@pytest.mark.parametrize('cpus', [1, 2])
def test_thousands_of_short_jobs_do_not_hold_up_those_of_another_cluster(
    isolation: str, cpus: int
) -> None:
    with dispy.LocalNodes(1, cpus=cpus) as local:
        options = {'nodes': local.nodes, 'ip_addr': '127.0.0.1', 'isolation': isolation}
        many = dispy.JobCluster(pause, **options)
        few = dispy.JobCluster(pause, **options)
        assert many.map([0.001] * 20, chunksize=1) == [None] * 20  # they are known to be short
        jobs = [many.submit(0.001) for _ in range(20_000)]

        def ended() -> int:
            return sum(job.status == dispy.DispyJob.Finished for job in jobs)

        others = [few.submit(0.1) for _ in range(6)]
        enough = ended() + 20
        while ended() < enough:  # they go on although some of the others wait all the time
            others.append(few.submit(0.1))
            others[-6]()
        assert few.wait(10), few.explain()
        assert {job.status for job in others} == {dispy.DispyJob.Finished}
        assert ended() < 20_000  # neither were held up until the short ones were at their end
        many.close(timeout=0, terminate=True)
        few.close()
