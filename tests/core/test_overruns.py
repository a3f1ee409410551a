"""Jobs that run longer than they may, as a node's core sees them: the clock is the test's."""

import signal

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import DeadlinePassed, JobsReported, WorkerEnded, WorkerForked
from nodeserver.core.status import JobStatus
from tests.core.test_node import Bench

OVERRUN = 'ran longer than its timeout of 2 s'


class TimedBench(Bench):
    """A node of one cpu whose jobs have 2 seconds each."""

    def __init__(self, isolation: str = 'job', workers: int = 1) -> None:
        super().__init__(cpus=1)
        self.open(isolation, workers)

    def run_timed(self, *ids: int, timeout: float = 2.0) -> None:
        """Jobs come that have so much time each."""
        count = len(ids)
        self.hears(m.RunJobs(7, list(ids), [1] * count, [b'x'] * count, [timeout] * count))

    def passes(self, seconds: float) -> list[tuple[int, int, int]]:
        """Time goes by; which job, attempt and worker got which signal then."""
        self.now += seconds
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.tell(DeadlinePassed())
        return self.signals()

    def signals(self) -> list[tuple[int, int, int]]:
        """Which job was meant, as its worker counts, which worker, and by which signal."""
        return [(e.number, e.worker, e.signal) for e in self.take(do.SignalWorker)]

    def ends(self) -> list[tuple[int, int, str]]:
        """Which jobs have ended how since the last look."""
        letters = self.take(m.JobsDone)
        columns = [zip(done.ids, done.statuses, done.reasons, strict=True) for done in letters]
        return [entry for column in columns for entry in column]


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_a_job_over_its_time_is_ended_step_by_step_and_says_so(isolation: str) -> None:
    bench = TimedBench(isolation)
    bench.run_timed(1)
    assert bench.passes(1.9) == []
    assert bench.passes(0.1) == [(1, 1, signal.SIGINT)]
    assert bench.passes(2.9) == []
    assert bench.passes(0.1) == [(1, 1, signal.SIGTERM)]
    assert bench.passes(2.0) == [(1, 1, signal.SIGKILL)]
    assert bench.passes(60.0) == []
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'output', 0))
    (letter,) = bench.take(m.JobsDone)
    assert (letter.statuses, letter.reasons) == ([JobStatus.TERMINATED], [OVERRUN])
    assert letter.outcomes == [b'output']


def test_a_job_that_heeds_the_interrupt_has_still_run_too_long() -> None:
    bench = TimedBench()
    bench.run_timed(1)
    bench.passes(2.0)
    bench.tell(JobsReported(7, 1, [1], [True], [b'traceback'], [2.01]))
    assert bench.ends() == [(1, JobStatus.TERMINATED, OVERRUN)]
    assert bench.passes(60.0) == []


@pytest.mark.parametrize(
    ('seconds', 'end'),
    [(2.5, (1, JobStatus.TERMINATED, OVERRUN)), (1.9, (1, JobStatus.FINISHED, ''))],
)
def test_what_a_job_returned_counts_if_its_own_clock_says_that_it_was_in_time(
    seconds: float, end: tuple[int, int, str]
) -> None:
    bench = TimedBench()
    bench.run_timed(1)
    bench.passes(2.0)
    bench.reported(1, 1, seconds)
    assert bench.ends() == [end]


def test_the_time_spent_in_the_queue_does_not_count() -> None:
    bench = TimedBench(workers=2)
    bench.run_timed(1, timeout=10.0)
    bench.run_timed(2)
    assert bench.passes(9.0) == []
    bench.reported(1, 1)
    assert bench.passes(1.9) == []
    assert bench.passes(0.1) == [(1, 2, signal.SIGINT)]


def test_in_a_lasting_worker_a_jobs_time_begins_when_the_one_before_has_ended() -> None:
    bench = TimedBench('worker')
    bench.run_timed(1)
    bench.reported(1, 1, seconds=0.0001)
    bench.run_timed(2, 3, 4)
    assert bench.take(do.GiveJobs)[-1].ids == [2, 3, 4]
    assert bench.passes(1.5) == []
    bench.reported(1, 2)
    assert bench.passes(1.5) == []
    bench.reported(1, 3)
    assert bench.passes(2.0) == [(4, 1, signal.SIGINT)]


def test_when_a_lasting_worker_is_killed_for_one_job_the_next_ones_run_in_another() -> None:
    bench = TimedBench('worker')
    bench.run_timed(1)
    bench.reported(1, 1, seconds=0.0001)
    bench.run_timed(2, 3)
    bench.take(do.GiveJobs)
    bench.ends()
    assert not bench.take(do.RecallFromWorker)
    for seconds, number in ((2.0, signal.SIGINT), (3.0, signal.SIGTERM), (2.0, signal.SIGKILL)):
        assert bench.passes(seconds) == [(2, 1, number)]
    assert bench.take(do.RecallFromWorker) == [do.RecallFromWorker(7, 1, 0.0)]
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'', 0))
    assert bench.ends() == [(2, JobStatus.TERMINATED, OVERRUN)]
    bench.tell(WorkerForked(7, 2))
    assert bench.take(do.GiveJobs)[-1].ids == [3]
    assert bench.passes(1.9) == []
    bench.reported(2, 3)
    assert bench.ends() == [(3, JobStatus.FINISHED, '')]
    assert bench.passes(60.0) == []


def test_nothing_is_put_behind_a_job_that_is_being_ended() -> None:
    bench = TimedBench('worker')
    bench.run_timed(1)
    bench.reported(1, 1, seconds=0.0001)
    bench.run_timed(2)
    bench.passes(2.0)
    bench.take(do.GiveJobs)
    bench.run_timed(3)
    assert not bench.take(do.GiveJobs)
    bench.tell(JobsReported(7, 1, [2], [True], [b'traceback'], [2.0]))
    assert bench.take(do.GiveJobs)[-1].ids == [3]


@pytest.mark.parametrize('after', [0.0, 2.0])
def test_a_job_that_its_user_takes_back_is_cancelled_also_when_its_time_is_up(
    after: float,
) -> None:
    bench = TimedBench()
    bench.run_timed(1)
    signals = bench.passes(after)
    bench.hears(m.StopJobs(7, [1], [1]))
    signals += bench.signals()
    assert signals == [(1, 1, signal.SIGINT)]  # once, whoever asked first
    assert bench.passes(3.0) == [(1, 1, signal.SIGTERM)]
    bench.tell(WorkerEnded(7, 1, -signal.SIGTERM, b'', 0))
    assert bench.ends() == [(1, JobStatus.CANCELLED, 'cancelled')]


def test_a_job_that_ends_in_time_leaves_nothing_to_wake_for() -> None:
    bench = TimedBench(workers=2)
    bench.tell(DeadlinePassed())
    before = bench.core.next_deadline()
    bench.run_timed(1)
    assert bench.core.next_deadline() == bench.now + 2.0
    bench.reported(1, 1)
    assert bench.core.next_deadline() == before


def test_jobs_without_a_timeout_may_run_beside_those_with_one() -> None:
    bench = TimedBench(workers=2)
    bench.hears(m.RunJobs(7, [1, 2], [1, 1], [b'x', b'x'], [0.0, 2.0]))
    assert bench.passes(1000.0) == []
    bench.reported(1, 1)
    assert bench.passes(2.0) == [(1, 2, signal.SIGINT)]
