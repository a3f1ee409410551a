"""Shared data in both cores: sent to a node once, with the first job, and waited for (Z11)."""

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import PeerLost
from nodeserver.core.status import JobStatus
from tests.core.test_node import Bench
from tests.support.desk import CLIENT, Desk

DATA = m.ShareData(7, 1, b'large')


def submit(desk: Desk, *ids: int, named: list[int]) -> None:
    shared = [named] * len(ids)
    desk.hears(CLIENT, m.SubmitJobs(7, '', list(ids), [b'x'] * len(ids), shared=shared))


def run(bench: Bench, *ids: int, named: list[int]) -> None:
    count = len(ids)
    bench.hears(m.RunJobs(7, list(ids), [1] * count, [b'x'] * count, shared=[named] * count))


# the scheduler


def test_data_go_to_each_node_once_and_only_where_a_job_needs_them() -> None:
    desk = Desk()
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    desk.hears(CLIENT, DATA)
    assert not desk.sent(m.ShareData)
    submit(desk, 1, named=[1])
    assert [(e.peer, e.message) for e in desk.effects if _is_data(e)] == [('a', DATA)]
    submit(desk, 2, 3, 4, named=[1])
    assert [e.peer for e in desk.effects if _is_data(e)] == ['a', 'b']
    for job, node in ((1, 'a'), (2, 'b')):
        desk.done(node, job)
    submit(desk, 5, 6, named=[1])
    assert [e.peer for e in desk.effects if _is_data(e)] == ['a', 'b']
    assert all(run.shared == [[1]] * len(run.ids) for run in desk.sent(m.RunJobs))


def test_jobs_without_data_name_none() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1, 2)
    assert [run.shared for run in desk.sent(m.RunJobs)] == [[]]


def test_data_that_come_after_their_job_follow_it() -> None:
    desk = Desk()
    desk.join('a')
    submit(desk, 1, named=[1])
    assert [run.ids for run in desk.sent(m.RunJobs)] == [[1]]
    assert not desk.sent(m.ShareData)
    desk.hears(CLIENT, DATA)
    assert desk.sent(m.ShareData, 'a') == [DATA]


def test_a_node_that_comes_again_gets_the_data_again() -> None:
    desk = Desk(reentrant=True)
    desk.join('a', cpus=1)
    desk.hears(CLIENT, DATA)
    submit(desk, 1, named=[1])
    desk.tell(PeerLost('a', 'its port refuses'))
    desk.join('a', cpus=1)
    assert len(desk.sent(m.ShareData, 'a')) == 2
    assert desk.sent(m.RunJobs)[-1].shared == [[1]]


def test_dropped_data_are_dropped_where_they_are() -> None:
    desk = Desk()
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    desk.hears(CLIENT, DATA)
    submit(desk, 1, named=[1])
    desk.done('a', 1)
    desk.hears(CLIENT, m.DropData(7, [1, 2]))
    assert [(e.peer, e.message) for e in desk.effects if _is_drop(e)] == [('a', m.DropData(7, [1]))]


def _is_data(effect: object) -> bool:
    return isinstance(effect, do.Send) and isinstance(effect.message, m.ShareData)


def _is_drop(effect: object) -> bool:
    return isinstance(effect, do.Send) and isinstance(effect.message, m.DropData)


# the node


def test_a_job_whose_data_are_on_their_way_keeps_no_cpu_from_others() -> None:
    bench = Bench(cpus=1)
    bench.open()
    run(bench, 1, named=[1])
    bench.run(2)
    (give,) = bench.take(do.GiveJobs)
    assert (give.ids, give.shared) == ([2], [])
    bench.reported(1, 2)
    bench.hears(DATA)
    (give,) = bench.take(do.GiveJobs)
    assert (give.ids, give.shared) == ([1], [[b'large']])


def test_a_job_whose_data_the_node_had_no_memory_for_is_not_begun() -> None:
    bench = Bench()
    bench.open()
    run(bench, 1, named=[1])
    bench.hears(m.ShareData(7, 1, b''))
    run(bench, 2, named=[1])
    assert not bench.take(do.GiveJobs)
    done = bench.take(m.JobsDone)
    assert [job for letter in done for job in letter.ids] == [1, 2]
    assert {status for letter in done for status in letter.statuses} == {JobStatus.TERMINATED}
    assert 'no memory' in done[0].reasons[0]


def test_a_job_waits_for_all_of_its_data() -> None:
    bench = Bench()
    bench.open()
    bench.hears(DATA)
    run(bench, 1, named=[2, 1, 3])
    bench.hears(m.ShareData(7, 2, b'two'))
    assert not bench.take(do.GiveJobs)
    bench.hears(m.ShareData(7, 3, b'three'))
    assert bench.take(do.GiveJobs)[0].shared == [[b'two', b'large', b'three']]


def test_a_job_that_lacks_data_can_be_cancelled_and_recalled() -> None:
    bench = Bench()
    bench.open()
    run(bench, 1, 2, named=[1])
    bench.hears(m.StopJobs(7, [1], [1]))
    assert bench.take(m.JobsDone)[0].ids == [1]
    bench.hears(m.RecallJobs(7, 5))
    assert bench.take(m.JobsReturned)[0].ids == [2]
    bench.hears(DATA)
    assert not bench.take(do.GiveJobs)


def test_dropped_data_are_gone_and_a_job_that_has_them_keeps_them() -> None:
    bench = Bench(cpus=1)
    bench.open()
    bench.hears(DATA)
    run(bench, 1, 2, named=[1])
    bench.hears(m.DropData(7, [1]))
    assert bench.core.data_held == 0
    bench.take(do.GiveJobs)
    bench.reported(1, 1)
    assert bench.take(do.GiveJobs)[0].shared == [[b'large']]


def test_data_of_another_scheduler_or_of_nothing_are_not_kept() -> None:
    bench = Bench()
    bench.open()
    bench.hears(m.ShareData(8, 1, b'large'))
    bench.hears(DATA, peer='stranger')
    assert bench.core.data_held == 0


def test_data_go_with_the_computation() -> None:
    bench = Bench()
    bench.open()
    bench.hears(DATA)
    assert bench.core.data_held == len(b'large')
    bench.hears(m.CloseComputation(7))
    assert bench.core.data_held == 0
