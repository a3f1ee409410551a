"""Figures of nodes over time stay few, and stay true."""

from dataclasses import replace
from itertools import pairwise
from math import isnan

import pytest

from dispy_nb.monitor.series import GAP, Series, Slots
from dispy_nb.snapshot import NodeSnapshot, Snapshot

GIB = 2**30


def node(name: str, done: int = 0, busy: int = 0, cpu: float | None = 50.0) -> NodeSnapshot:
    return NodeSnapshot(
        name=name,
        address='192.0.2.1',
        cpus=4,
        busy=busy,
        jobs_done=done,
        cpu_time=0.0,
        closed=False,
        id=f'id of {name}',
        cpu_in_use=cpu,
        memory_in_use=GIB,
        memory=4 * GIB,
    )


def seen(*nodes: NodeSnapshot) -> Snapshot:
    return replace(EMPTY, nodes=nodes)


EMPTY = Snapshot(
    name='cluster',
    submitted=0,
    waiting=0,
    running=0,
    finished=0,
    failed=0,
    cancelled=0,
    provisional=0,
    latest_provisional=None,
    elapsed=0.0,
    rate=0.0,
    nodes=(),
    failures=(),
    notice='',
    closed=False,
)


def whole(series: Series, name: str, metric: str) -> list[float]:
    return list(series.column([f'id of {name}'], metric, 0, len(series.times)))


def test_a_look_takes_in_what_each_node_does():
    series = Series(cpus_per_job=2)
    series.add(seen(node('a', busy=4)), 100.0)
    assert list(series.times) == [100.0]
    assert whole(series, 'a', 'cpu') == [50.0]
    assert whole(series, 'a', 'memory') == [25.0]
    assert whole(series, 'a', 'running') == [2]
    assert isnan(whole(series, 'a', 'rate')[0])  # of one look nothing can be said


def test_jobs_per_second_come_from_the_jobs_of_the_last_seconds():
    series = Series()
    for second in range(10):
        series.add(seen(node('a', done=3 * second)), 100.0 + second)
    for second in range(10, 20):
        series.add(seen(node('a', done=27)), 100.0 + second)
    rates = whole(series, 'a', 'rate')
    assert rates[1:10] == [3.0] * 9
    assert rates[14:] == [0.0] * 6


def test_points_are_few_however_long_it_takes_and_even():
    series = Series(most=40)
    for look in range(5000):
        series.add(seen(node('a', done=look)), look * 0.5)
        assert len(series.times) <= 41
        assert series.times[-1] == look * 0.5  # the present is always there
        assert len(series.times) - series.lasting in (0, 1)
    assert series.stride >= 5000 / 40
    lasting = list(series.times)[: series.lasting]
    steps = {round(b - a, 6) for a, b in pairwise(lasting)}
    assert steps == {series.stride * 0.5}
    assert all(rate == pytest.approx(2.0) for rate in whole(series, 'a', 'rate'))


def test_what_lasts_is_a_beginning_of_what_comes_later():
    series = Series(most=1000)
    before: list[float] = []
    for look in range(300):
        series.add(seen(node('a', done=look)), float(look))
        now = list(series.times)[: series.lasting]
        assert now[: len(before)] == before
        before = now


def test_a_node_that_comes_later_has_nothing_before():
    series = Series()
    series.add(seen(node('a')), 1.0)
    series.add(seen(node('a'), node('b', done=4)), 3.0)
    assert [isnan(value) for value in whole(series, 'b', 'cpu')] == [True, False]
    assert whole(series, 'b', 'rate')[1] == 2.0  # it has done all of them since


def test_a_node_that_tells_nothing_or_is_gone_has_no_figures():
    series = Series()
    series.add(seen(node('a', cpu=None), node('b')), 1.0)
    series.add(seen(node('a', cpu=None)), 2.0)
    assert all(isnan(value) for value in whole(series, 'a', 'cpu'))
    assert isnan(whole(series, 'b', 'memory')[1])


def test_lines_are_broken_where_nobody_looked():
    series = Series()
    series.add(seen(node('a', done=5)), 1.0)
    series.add(seen(node('a', done=5)), 2.0)
    series.add(seen(node('a', done=9)), 2.0 + 10 * GAP)
    cpu = whole(series, 'a', 'cpu')
    assert [isnan(value) for value in cpu] == [False, False, True, False]
    # jobs per second count from the return, not from long ago
    assert whole(series, 'a', 'rate')[-1] == 4.0


def test_several_nodes_together_are_their_mean():
    series = Series()
    series.add(seen(node('a', busy=1, cpu=20.0), node('b', busy=2, cpu=40.0)), 1.0)
    series.add(seen(node('a', busy=1, cpu=None), node('b', busy=2, cpu=40.0)), 2.0)
    both = ['id of a', 'id of b']
    assert series.column(both, 'cpu', 0, 2) == [30.0, 40.0]
    assert series.column(both, 'running', 0, 2) == [1.5, 1.5]


def test_a_clock_that_was_set_back_stops_no_time():
    series = Series()
    for now in (10.0, 3.0, 4.0, 11.0):
        series.add(seen(node('a')), now)
    assert list(series.times) == sorted(series.times)


def test_the_busiest_nodes_come_first():
    series = Series()
    series.add(seen(node('a', done=1), node('b', done=9), node('c', done=5)), 1.0)
    assert series.busiest() == ['id of b', 'id of c', 'id of a']


def test_who_stays_shown_keeps_its_place():
    slots = Slots(3)
    assert slots.choose(['a', 'b', 'c', 'd'])
    assert slots.keys == ['a', 'b', 'c']
    assert not slots.choose(['c', 'b', 'a'])
    assert slots.choose(['d', 'c', 'a', 'b'])
    assert slots.keys == ['a', 'd', 'c']


def test_those_that_are_about_equal_do_not_change_places_all_the_time():
    slots = Slots(2, rank=3)
    slots.choose(['a', 'b', 'c', 'd'])
    assert not slots.choose(['c', 'a', 'b', 'd'])
    assert slots.choose(['c', 'a', 'd', 'b'])
    assert slots.keys == ['a', 'c']
