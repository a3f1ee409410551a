"""What a node gives to jobs: counted over all computations, each gpu to one process at a time."""

import signal
from typing import Any

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import (
    JobsReported,
    MemoryExceeded,
    MessageArrived,
    PeerConnected,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.messages import ONE_CPU, Resources
from nodeserver.core.node import NodeCore
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.status import JobStatus

GIB = 1 << 30
A, B = 7, 8


class Floor:
    """A node's core, with several computations on it."""

    def __init__(self, cpus: int = 4, gpus: tuple[str, ...] = ('g0', 'g1')) -> None:
        self.core = NodeCore(NodeFacts('n', 'n', cpus, 'Linux', '3.11', 8 * GIB, gpus))
        self.now = 50.0
        self.effects: list[Any] = []
        self.workers = 0
        self.given: dict[tuple[int, int], tuple[int, list[str]]] = {}  # (computation, job)
        self.tell(PeerConnected('s', ''))

    def tell(self, event: Any) -> None:
        """One turn with one event; forks come at once."""
        effects = [*self.core.handle(event, self.now), *self.core.end_turn(self.now)]
        self.core.check()
        self.effects += effects
        for effect in effects:
            if isinstance(effect, do.GiveJobs):
                for job in effect.ids:
                    self.given[effect.computation, job] = effect.worker, effect.gpus
            elif isinstance(effect, do.ForkWorkers):
                for _ in range(effect.count):
                    self.workers += 1
                    self.tell(WorkerForked(effect.computation, self.workers))

    def hears(self, message: Any) -> None:
        """One turn with one message."""
        self.tell(MessageArrived('s', message))

    def open(self, computation: int, needs: Resources, isolation: str = 'job') -> None:
        """A computation comes."""
        what = (computation, 'f', 'me', '3.11', b'package', isolation, '', True, 5.0, 64)
        self.hears(m.OpenComputation(*what, needs))
        self.tell(TemplateReady(computation))

    def run(self, computation: int, *ids: int) -> None:
        """Jobs come."""
        self.hears(m.RunJobs(computation, list(ids), [1] * len(ids), [b'x'] * len(ids)))

    def reported(self, computation: int, job: int, seconds: float = 1.0) -> int:
        """A job reports its end; its worker."""
        worker, _ = self.given[computation, job]
        self.tell(JobsReported(computation, worker, [job], [False], [b'o'], [seconds]))
        return worker

    def gone(self, computation: int, worker: int, status: int = 0) -> None:
        """A process is gone."""
        self.tell(WorkerEnded(computation, worker, status, b'', 0))

    def ends(self, computation: int, job: int) -> None:
        """A job ends, and its process."""
        self.gone(computation, self.reported(computation, job))

    def take(self, kind: type[Any]) -> list[Any]:
        """Effects, or messages sent, of a kind since the last look."""
        found = [e for e in self.effects if isinstance(e, kind)]
        found += [
            e.message
            for e in self.effects
            if isinstance(e, do.Send) and isinstance(e.message, kind)
        ]
        self.effects.clear()
        return found

    @property
    def running(self) -> list[tuple[int, int]]:
        """What was given out, in its order."""
        return list(self.given)


@pytest.mark.parametrize(
    ('needs', 'count'),
    [(Resources(cpus=2), 2), (Resources(memory=3 * GIB), 2), (Resources(gpus=1), 2)],
)
def test_no_more_jobs_start_than_there_is_room_for(needs: Resources, count: int) -> None:
    floor = Floor()
    floor.open(A, needs)
    floor.run(A, 1, 2, 3, 4, 5)
    assert floor.running == [(A, job) for job in range(1, count + 1)]
    floor.ends(A, 1)
    assert floor.running == [(A, job) for job in range(1, count + 2)]


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        (Resources(cpus=3), Resources(cpus=2)),
        (Resources(memory=6 * GIB), Resources(memory=3 * GIB)),
        (Resources(gpus=2), Resources(gpus=1)),
    ],
)
def test_what_one_computation_has_another_waits_for(first: Resources, second: Resources) -> None:
    floor = Floor()
    floor.open(A, first)
    floor.open(B, second)
    floor.run(A, 1)
    floor.run(B, 1)
    assert floor.running == [(A, 1)]
    floor.ends(A, 1)
    assert floor.running == [(A, 1), (B, 1)]


def test_each_gpu_is_given_to_one_process_at_a_time_and_free_when_that_is_gone() -> None:
    floor = Floor()
    floor.open(A, Resources(gpus=1))
    floor.run(A, 1, 2, 3)
    assert [gpus for _, gpus in floor.given.values()] == [['g0'], ['g1']]
    worker = floor.reported(A, 2)
    assert (A, 3) not in floor.given  # its process may have it open yet
    floor.gone(A, worker)
    assert floor.given[A, 3][1] == ['g1']


def test_a_gpu_of_a_process_that_dies_is_free_again() -> None:
    floor = Floor(gpus=('g0',))
    floor.open(A, Resources(gpus=1))
    floor.run(A, 1, 2)
    floor.gone(A, floor.given[A, 1][0], -signal.SIGSEGV)
    assert floor.given[A, 2][1] == ['g0']


def test_a_lasting_worker_keeps_its_gpu_from_job_to_job() -> None:
    floor = Floor()
    floor.open(A, Resources(gpus=1), 'worker')
    floor.run(A, 1, 2, 3)
    workers = {floor.given[A, job][0] for job in (1, 2)}
    worker = floor.reported(A, 1)
    assert floor.given[A, 3] == (worker, [])  # it has been told which one
    floor.reported(A, 3)
    floor.run(A, 4)
    assert floor.given[A, 4] == (worker, [])
    assert len(workers) == 2


def test_an_idle_lasting_worker_gives_its_gpus_to_others_that_wait() -> None:
    floor = Floor()
    floor.open(A, Resources(gpus=2), 'worker')
    floor.run(A, 1)
    worker = floor.reported(A, 1)
    floor.open(B, Resources(gpus=1))
    floor.take(do.SignalWorker)
    floor.run(B, 1, 2)
    assert (B, 1) not in floor.given
    assert floor.take(do.SignalWorker) == [do.SignalWorker(A, worker, signal.SIGKILL)]
    floor.gone(A, worker, -signal.SIGKILL)
    assert [floor.given[B, job][1] for job in (1, 2)] == [['g0'], ['g1']]
    floor.run(A, 2)
    floor.ends(B, 1)
    floor.ends(B, 2)
    assert floor.given[A, 2][1] == ['g0', 'g1']


@pytest.mark.parametrize('isolation', ['job', 'worker'])
@pytest.mark.parametrize(
    ('needs', 'small'),
    [
        (Resources(cpus=4), ONE_CPU),
        (Resources(memory=8 * GIB), Resources(memory=GIB)),
        (Resources(gpus=2), Resources(gpus=1)),
    ],
)
def test_a_job_with_needs_does_not_starve_behind_small_ones(
    needs: Resources, small: Resources, isolation: str
) -> None:
    floor = Floor()
    floor.open(A, small, isolation)
    floor.open(B, needs)
    floor.run(A, *range(1, 200))
    floor.run(B, 1)
    for ended in range(1, 200):
        floor.now += 0.5
        worker = floor.reported(A, ended, seconds=0.5)
        if isolation == 'job':
            floor.gone(A, worker)
        for kill in floor.take(do.SignalWorker):
            floor.gone(A, kill.worker, -signal.SIGKILL)
        if (B, 1) in floor.given:
            break
    assert (B, 1) in floor.given
    assert ended < 100


def test_what_a_job_needs_that_is_not_lacked_keeps_nobody_waiting() -> None:
    floor = Floor(gpus=('g0',))
    floor.open(A, Resources(gpus=1))
    floor.open(B, ONE_CPU)
    floor.run(A, 1, 2)
    floor.run(B, 1, 2, 3)
    assert {(B, 1), (B, 2), (B, 3)} <= set(floor.running)  # job 2 of A waits for a gpu alone


def test_used_time_counts_for_each_cpu() -> None:
    floor = Floor()
    floor.open(A, Resources(cpus=4))
    floor.run(A, 1)
    floor.ends(A, 1)
    assert floor.core._hosted[A].used_seconds == 4.0


def test_a_computation_that_could_never_run_is_refused_in_words() -> None:
    floor = Floor()
    floor.open(A, Resources(gpus=3))
    (refused,) = floor.take(m.ComputationRefused)
    assert (refused.kind, refused.reason) == ('failed', 'needs 3 gpus per job, the node has 2')


def test_a_node_tells_of_its_memory_and_gpus() -> None:
    (details,) = Floor().take(m.NodeDetails)
    assert (details.memory, details.gpus) == (8 * GIB, 2)


# memory that was not asked for


def test_a_job_with_more_memory_than_it_asked_for_is_killed_and_both_figures_are_told() -> None:
    floor = Floor()
    floor.open(A, Resources(memory=GIB))
    floor.run(A, 1)
    worker = floor.given[A, 1][0]
    floor.tell(MemoryExceeded(A, worker, 3 * GIB // 2))
    assert floor.take(do.SignalWorker) == [do.SignalWorker(A, worker, signal.SIGKILL)]
    floor.gone(A, worker, -signal.SIGKILL)
    (letter,) = floor.take(m.JobsDone)
    assert letter.statuses == [JobStatus.TERMINATED]
    assert 'it took 1.5 GiB of memory, and its cluster asks for 1 GiB' in letter.reasons[0]


def test_jobs_behind_one_with_too_much_memory_run_in_another_worker() -> None:
    floor = Floor(cpus=1)
    floor.open(A, Resources(memory=GIB), 'worker')
    floor.run(A, 1)
    worker = floor.reported(A, 1, seconds=0.0001)
    floor.run(A, 2, 3, 4)
    floor.tell(MemoryExceeded(A, worker, 2 * GIB))
    assert floor.take(do.RecallFromWorker)
    floor.gone(A, worker, -signal.SIGKILL)
    (letter,) = floor.take(m.JobsDone)
    assert letter.ids == [2]
    assert 'its worker took 2 GiB' in letter.reasons[0]
    assert floor.given[A, 3][0] == floor.given[A, 4][0] != worker


def test_a_job_that_ended_before_it_was_killed_has_ended_well() -> None:
    floor = Floor()
    floor.open(A, Resources(memory=GIB))
    floor.run(A, 1)
    worker = floor.given[A, 1][0]
    floor.tell(MemoryExceeded(A, worker, 2 * GIB))
    floor.reported(A, 1)
    floor.gone(A, worker, -signal.SIGKILL)
    floor.tell(MemoryExceeded(A, worker, 2 * GIB))
    (letter,) = floor.take(m.JobsDone)
    assert letter.statuses == [JobStatus.FINISHED]
