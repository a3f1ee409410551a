"""Computations share the cpus of nodes fairly, however long their jobs are."""

from collections import deque
from dataclasses import replace

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import TemplateReady, WorkerForked
from nodeserver.core.hosted import Hosted, NodeJob, Worker
from nodeserver.core.turns import Turns
from nodeserver.core.workplace import FORKS_FOR_A_TURN
from tests.core.test_recalls import OTHER, TwoClusters
from tests.support.desk import CLIENT
from tests.support.nodebench import Bench, opening
from tests.support.world import declaration


def test_short_jobs_given_out_ahead_do_not_keep_a_longer_one_waiting() -> None:
    desk = TwoClusters()
    desk.join('n1', cpus=2)
    desk.learns(7, 'n1')
    desk.submit(*range(2, 5000))
    desk.sent(m.RunJobs)
    desk.submit_to(OTHER, 1, 2, 3)
    assert desk.with_nodes()['n1'][OTHER] == 2  # of unknown length: one for each cpu
    desk.ends(7, 'n1', 2)
    desk.hears('n1', m.JobsDone(OTHER, 'n1', 1, [1], [1], [11], [b'o'], [''], [5.0]))
    assert desk.with_nodes()['n1'][OTHER] == 2


def test_many_clusters_behind_shorter_jobs_are_served_in_turn() -> None:
    desk = TwoClusters()
    desk.join('n1')
    desk.learns(7, 'n1')
    desk.submit(*range(2, 5000))
    others = range(10, 50)  # more of them than are looked for a place in one turn
    for number in others:
        desk.hears(CLIENT, replace(declaration(), computation=number))
        desk.hears('n1', m.ComputationReady(number))
        desk.submit_to(number, 1, 2)
    served = []
    for _ in range(3 * len(others)):
        desk.waits(0.001)
        running = set(desk.with_nodes()['n1']) - {7}
        assert len(running) == 1  # the only cpu is for one of them, beside what is done in no time
        (number,) = running
        (job,) = desk.core._fleet.computations[number].jobs
        served.append((number, job))
        desk.hears('n1', m.JobsDone(number, 'n1', 1, [job], [1], [11], [b'o'], [''], [5.0]))
        if len(served) == 2 * len(others):
            break
    assert sorted(served) == [(number, job) for number in others for job in (1, 2)]
    first = [number for number, _ in served[: len(others)]]
    assert len(set(first)) >= 0.75 * len(others)  # few have had their second job by then


def test_long_jobs_wait_for_a_free_cpu_of_any_node() -> None:
    desk = TwoClusters()
    desk.join('n1', cpus=2)
    desk.submit(1, 2, 3)
    desk.submit_to(OTHER, 1)
    assert desk.with_nodes() == {'n1': {7: 2}}
    desk.join('n2', address='10.0.0.2')
    assert sum(sum(loads.values()) for loads in desk.with_nodes().values()) == 3


def hosted(number: int, busy: int, used: float) -> Hosted:
    opened = m.OpenComputation(number, 'f', 'me', '3.11', b'', 'worker', '', True, 5.0, 4)
    made = Hosted(CLIENT, opened)
    made.workers = {worker: Worker(worker) for worker in range(busy)}
    made.queue = deque([NodeJob(1, 1, b'x')])
    made.used_seconds = used
    return made


@pytest.mark.parametrize(
    ('first', 'second', 'served'),
    [
        ((0, 5.0), (1, 0.0), 0),  # cpus in use, then time used
        ((1, 5.0), (1, 1.0), 1),
        ((2, 0.0), (1, 9.0), 1),
    ],
)
def test_the_one_with_the_fewest_cpus_is_next(
    first: tuple[int, float], second: tuple[int, float], served: int
) -> None:
    both = [hosted(1, *first), hosted(2, *second)]
    assert Turns().next_of(both) is both[served]


def test_who_comes_late_does_not_catch_up() -> None:
    turns, old, new = Turns(), hosted(1, 0, 1000.0), hosted(2, 0, 0.0)
    turns.next_of([old])
    assert turns.next_of([new]) is new
    new.used_seconds += 0.3
    assert turns.next_of([new, old]) is old


@pytest.mark.parametrize(
    ('ours', 'other', 'yields'),
    [
        ((2, 1.0), (0, 1.0), True),  # one each is fairer than two and none
        ((1, 1.0), (0, 1.0), False),  # the only cpu goes to and fro
        ((1, 1.0), (0, 0.5), True),
        ((2, 1.0), (1, 0.5), True),
        ((1, 9.0), (1, 0.5), False),
        ((0, 9.0), (0, 0.5), False),  # there is no worker
    ],
)
def test_a_worker_runs_dry_for_one_that_has_fewer_cpus(
    ours: tuple[int, float], other: tuple[int, float], yields: bool
) -> None:
    computation, waiting = hosted(1, *ours), hosted(2, *other)
    assert Turns().must_yield(computation, [computation, waiting]) is yields


def test_short_jobs_beside_another_cluster_have_processes_for_a_turn() -> None:
    """A turn ended with the one process that was ready, however little time it had had."""
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.reported(1, 1, seconds=0.001)
    bench.tell(WorkerForked(7, 2))
    bench.take(do.ForkWorkers)
    bench.run(2, 3)
    assert sum(order.count for order in bench.take(do.ForkWorkers)) == 1  # alone: one for the cpu
    bench.hears(opening(computation=8))
    bench.tell(TemplateReady(8))
    bench.hears(m.RunJobs(8, [1, 2], [1, 1], [b'x'] * 2))
    orders = bench.take(do.ForkWorkers)
    assert sum(o.count for o in orders if o.computation == 7) == FORKS_FOR_A_TURN
    assert sum(o.count for o in orders if o.computation == 8) == 1  # its jobs are not known
