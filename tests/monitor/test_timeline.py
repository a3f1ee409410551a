"""Jobs as bars: where they ran, when, and how they ended; never more than can be looked at."""

from dataclasses import replace
from itertools import pairwise

import pytest

from dispy_nb.history import Span
from dispy_nb.monitor.series import Series
from dispy_nb.monitor.timeline import (
    MOST_BARS,
    MOST_ROWS,
    MOST_RUNNING,
    JobBar,
    Timeline,
    busy_bands,
    seconds_text,
)
from dispy_nb.snapshot import JobSnapshot
from nodeserver.core.status import JobStatus
from tests.monitor.test_series import node, seen

ZERO = 1000.0


def span(id: str, where: str, start: float, end: float, status=JobStatus.FINISHED) -> Span:
    return Span(id, where, ZERO + start, ZERO + end, status, f'{id}, 1')


def job(number: int, where: str, seconds: float, status: str = 'running') -> JobSnapshot:
    return JobSnapshot(number, str(number), status, where, seconds, '')


def laid_out(spans: list[Span], *nodes, jobs=(), stride: int = 1, now: float = 10.0) -> Timeline:
    timeline = Timeline()
    snapshot = replace(seen(*nodes), jobs=tuple(jobs))
    timeline.put(snapshot, spans, stride, ZERO, ZERO + now)
    return timeline


def overlap(one: JobBar, other: JobBar) -> bool:
    apart = one.right <= other.left or other.right <= one.left
    return not (apart or one.top <= other.bottom or other.top <= one.bottom)


@pytest.mark.row('V09')
def test_a_bar_has_its_times_its_node_and_its_end():
    spans = [
        span('1', 'a', 0.5, 2.0),
        span('2', 'b', 1.0, 3.0, JobStatus.TERMINATED),
        span('3', 'a', 2.0, 4.0, JobStatus.CANCELLED),
    ]
    timeline = laid_out(spans, node('a'), node('b'))
    first, second, third = timeline.ended
    assert (first.left, first.right, first.node, first.id) == (0.5, 2.0, 'a', '1')
    assert (first.arguments, first.took) == ('1, 1', '1.50 s')
    assert [bar.status for bar in timeline.ended] == ['finished', 'failed', 'cancelled']
    assert timeline.rows == ['a', 'b']
    assert 1 <= first.bottom < first.top <= 2  # rows count from the bottom
    assert 0 <= second.bottom < second.top <= 1
    assert (third.bottom, third.top) == (first.bottom, first.top)  # one after the other


def test_bars_of_the_same_time_do_not_hide_each_other():
    spans = [span(str(n), 'a', n * 0.5, n * 0.5 + 1.9) for n in range(40)]
    timeline = laid_out(spans, node('a'))
    bars = timeline.ended
    assert not any(overlap(one, other) for one in bars for other in bars if one is not other)
    assert len({bar.bottom for bar in bars}) == 4


def test_running_jobs_grow_and_those_that_wait_at_the_node_are_not_among_them():
    jobs = [job(7, 'a', 3.0), job(8, 'a', 2.0), job(9, 'a', 1.0), job(10, '', 0.0, 'waiting')]
    timeline = laid_out([], node('a', busy=2), jobs=jobs)
    assert [bar.id for bar in timeline.running] == ['7', '8']
    assert [(bar.left, bar.right) for bar in timeline.running] == [(7.0, 10.0), (8.0, 10.0)]
    assert {bar.status for bar in timeline.running} == {'running'}
    assert not overlap(*timeline.running)
    assert timeline.running[0].took == '3.00 s so far'


def test_bars_and_rows_are_bounded_and_it_is_known_how_many_there_are():
    spans = [span(str(n), f'n{n % 40}', n * 0.1, n * 0.1 + 1) for n in range(790)]
    nodes = [node(f'n{n}', done=40 - n, busy=8) for n in range(40)]
    jobs = [job(n, f'n{n % 40}', 1.0) for n in range(128)]
    timeline = laid_out(spans, *nodes, jobs=jobs, stride=8, now=100.0)
    assert len(timeline.ended) <= MOST_BARS
    assert len(timeline.running) <= MOST_RUNNING
    assert timeline.every == 8 * 2  # of those in the rows
    assert timeline.rows == [f'n{n}' for n in range(MOST_ROWS)]  # as people sort


def test_while_the_epoch_is_the_same_bars_are_only_added():
    timeline = Timeline()
    spans: list[Span] = []
    seen_before: list[tuple[object, list[JobBar]]] = []
    for n in range(600):
        spans.append(span(str(n), f'n{n % 3}', n * 0.1, n * 0.1 + 0.25))
        timeline.put(seen(*(node(f'n{k}') for k in range(3))), spans, 1, ZERO, ZERO + n * 0.1)
        seen_before.append((timeline.epoch, list(timeline.ended)))
    for (epoch, before), (later, after) in pairwise(seen_before):
        if epoch == later:
            assert after[: len(before)] == before
    assert len({epoch for epoch, _ in seen_before}) < 12


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.0123, '12 ms'), (1.5, '1.50 s'), (75.25, '75.2 s'), (4000, '4,000.0 s')],
)
def test_lengths_of_time_are_brief(seconds: float, text: str):
    assert seconds_text(seconds) == text


def test_between_the_bars_of_a_choice_a_band_says_that_the_node_had_jobs():
    series = Series()
    at_work = {'a': [1, 2, 0, 1, 1], 'b': [0, 0, 1, 0, 0]}
    for moment in range(5):
        nodes = [node(name, busy=counts[moment]) for name, counts in at_work.items()]
        series.add(seen(*nodes), ZERO + moment)
    bands = busy_bands(series, ['a', 'b'], ZERO)
    assert [(band.left, band.right) for band in bands] == [(0.0, 1.0), (3.0, 4.0)]
    assert {round(band.bottom, 3) for band in bands} == {1.1}  # rows stand from the top down
