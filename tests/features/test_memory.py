"""What the client keeps of jobs that have ended: nothing (C25)."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.features.conftest import MakeCluster
from tests.support.programs import eventually

LIMIT = 15.0


# sets can be referred to weakly, and travel as they are


def work(argument):
    dispy_provisional_result(argument)  # noqa: F821 - every job finds it
    if min(argument) % 3 == 0:
        raise ValueError(argument)
    return argument


def plainly(cluster: dispy.JobCluster) -> list[dispy.DispyJob]:
    jobs = [cluster.submit({number}) for number in range(60)]
    assert cluster.wait(LIMIT)
    assert {type(job.result) for job in jobs} == {set, type(None)}
    return jobs


def as_completed(cluster: dispy.JobCluster) -> list[dispy.DispyJob]:
    jobs = [cluster.submit({number}) for number in range(60)]
    ends = cluster.as_completed()
    assert {next(ends) for _ in jobs} == set(jobs)
    return jobs


def in_a_loop(cluster: dispy.JobCluster) -> list[dispy.DispyJob]:
    async def collect() -> list[dispy.DispyJob]:
        jobs = [cluster.submit({number}) for number in range(60)]
        found = [job async for job in cluster.as_completed(jobs)]
        await jobs[0]
        await cluster.wait_async()
        return found

    return asyncio.run(collect())


def cancelled(cluster: dispy.JobCluster) -> list[dispy.DispyJob]:
    jobs = [cluster.submit({number}) for number in range(60)]
    for job in jobs[::-1]:
        cluster.cancel(job)
    assert cluster.wait(LIMIT)
    return jobs


@pytest.fixture
def collected_at_once() -> Iterator[None]:
    """Without the collector of cycles: what lives in none dies with its last name."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.row('C25')
@pytest.mark.usefixtures('collected_at_once')
@pytest.mark.parametrize('use', [plainly, as_completed, in_a_loop, cancelled])
@pytest.mark.parametrize('with_callbacks', [False, True])
def test_ended_jobs_die_with_the_programs_last_name_for_them(
    make_cluster: MakeCluster,
    use: Callable[[dispy.JobCluster], list[dispy.DispyJob]],
    with_callbacks: bool,
) -> None:
    heard: list[int] = []
    options: dict[str, Any] = {}
    if with_callbacks:
        options['callback'] = lambda job: heard.append(job.status)
        options['cluster_status'] = lambda status, node, job: heard.append(status)
    cluster = make_cluster(work, **options)
    jobs = use(cluster)
    assert cluster.wait(LIMIT)
    assert len(jobs) == 60
    assert bool(heard) == with_callbacks
    assert cluster.snapshot().failed + cluster.snapshot().cancelled >= 20
    assert len(cluster.snapshot().failures) == 10  # words of the first ones
    refs = [weakref.ref(job) for job in jobs]
    jobs.clear()
    eventually(lambda: not [ref() for ref in refs if ref() is not None], LIMIT)


@pytest.mark.row('C25')
@pytest.mark.usefixtures('collected_at_once')
def test_what_map_and_executors_made_dies_too(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = make_cluster(work)
    arguments = [{number} for number in range(60)]
    results = cluster.map(arguments, errors='return')
    results += list(cluster.imap(arguments, errors='return', chunksize=7))
    with cluster.executor() as executor:
        futures = [executor.submit(work, argument) for argument in arguments]
        results += [future.exception(LIMIT) or future.result() for future in futures]
        assert executor.cluster.wait(LIMIT)
        brought = [result for result in results if isinstance(result, set)]
        assert (len(brought), len(results)) == (120, 180)
        things = [*arguments, *brought, *futures]
        refs = [weakref.ref(thing) for thing in things]
        for names in (arguments, results, brought, futures, things):
            names.clear()  # type: ignore[attr-defined]
        del names
        eventually(lambda: not [ref() for ref in refs if ref() is not None], LIMIT)


@pytest.mark.row('C25')
def test_memory_does_not_grow_with_the_number_of_jobs(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(len, isolation='worker')

    def objects_after(rounds: int) -> int:
        for _ in range(rounds):
            for number in range(1000):
                cluster.submit(range(number))
            assert cluster.wait(LIMIT)
        gc.collect()
        return len(gc.get_objects())

    before = objects_after(1)
    assert objects_after(5) - before < 1000  # 5,000 jobs with a few objects each
