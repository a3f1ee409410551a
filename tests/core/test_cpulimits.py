"""A node whose scheduler changes how many cpus a computation may use there."""

import signal

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import JobsReported, WorkerEnded
from nodeserver.core.fleetmessages import LimitCpus
from tests.core.test_node import Bench


def given(bench: Bench) -> list[int]:
    return [job for give in bench.take(do.GiveJobs) for job in give.ids]


def test_fewer_cpus_are_used_as_jobs_end() -> None:
    bench = Bench(cpus=2)
    bench.open(workers=4)
    bench.run(1, 2, 3, 4)
    assert given(bench) == [1, 2]
    bench.hears(LimitCpus(7, 1))
    bench.reported(1, 1)
    assert given(bench) == []
    bench.reported(2, 2)
    assert given(bench) == [3]
    bench.hears(LimitCpus(7, 2))
    assert given(bench) == [4]


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_with_no_cpu_left_nothing_begins_and_what_waits_is_given_back(isolation: str) -> None:
    bench = Bench(cpus=1)
    bench.open(isolation, workers=2)
    bench.run(1, 2, 3)
    bench.hears(LimitCpus(7, 0))
    assert [back.ids for back in bench.take(m.JobsReturned)] == [[2, 3]]
    bench.tell(JobsReported(7, 1, [1], [False], [b'out'], [1.0]))
    assert given(bench) == [1]


def test_a_job_whose_process_died_before_it_began_is_given_back_too() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.hears(LimitCpus(7, 0))
    assert not bench.take(m.JobsReturned)
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'', 0, begun=False))
    assert [back.ids for back in bench.take(m.JobsReturned)] == [[1]]


def test_a_worker_that_runs_beyond_the_limit_is_not_filled_up() -> None:
    bench = Bench(cpus=1)
    bench.open('worker', workers=1)
    bench.run(1)
    bench.reported(1, 1, seconds=0.0001)
    bench.run(2)
    assert given(bench) == [1, 2]
    bench.hears(LimitCpus(7, 0))
    bench.run(3, 4)
    assert given(bench) == []


def test_only_its_own_scheduler_limits_a_computation() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=2)
    bench.hears(LimitCpus(7, 0), peer='stranger')
    bench.hears(LimitCpus(8, 0))
    bench.run(1)
    assert given(bench) == [1]


def test_a_limit_below_0_is_none_at_all() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=2)
    bench.hears(LimitCpus(7, -5))
    bench.run(1)
    assert given(bench) == []
