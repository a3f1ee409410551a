"""What is remembered of a run is bounded, and an even choice; what is not known is not said."""

from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy_nb import shortened
from dispy_nb.cells import name_cells, running_statement, variable_of
from dispy_nb.history import LATEST_PROVISIONALS, MOST_FAILURES, MOST_SPANS, History, Thinned
from dispy_nb.job import DispyJob
from dispy_nb.outcomes import ProvisionalOutcome
from dispy_nb.throughput import LEAST_ENDED, Throughput
from nodeserver.core.status import JobStatus

# an even choice


@given(st.integers(0, 5000), st.integers(1, 50))
def test_an_even_choice_is_kept(offered: int, least: int):
    thinned: Thinned[int] = Thinned(least)
    for number in range(offered):
        thinned.offer(lambda number=number: number)
    kept, stride = thinned.items, thinned.stride
    assert len(kept) <= 2 * least
    if offered >= 2 * least:
        assert len(kept) >= least
    # one of each so many, in order; of the last ones, which are not so many yet, perhaps one
    whole = offered // stride
    assert [number // stride for number in kept[:whole]] == list(range(whole))
    assert len(kept) in (whole, whole + 1)


def test_things_that_take_turns_are_all_chosen_of():
    thinned: Thinned[int] = Thinned(100)
    for number in range(10_000):
        thinned.offer(lambda number=number: number % 2)
    assert 0.3 < sum(thinned.items) / len(thinned.items) < 0.7


def ended_job(number: int, status: JobStatus) -> DispyJob:
    job = DispyJob(None, number)
    job._arguments = (number,)
    job._started(SimpleNamespace(name='near'), now=100.0 + number)
    job._settle(status, b'', 'it was lost', now=101.0 + number)
    return job


def test_jobs_and_failures_are_kept_in_bounded_number_and_without_their_handles():
    history = History(keeps_jobs=True)
    for number in range(10 * MOST_SPANS):
        job = ended_job(number, JobStatus.TERMINATED)
        history.ended(job, JobStatus.TERMINATED, b'', 'it was lost', 0.25)
    assert MOST_SPANS <= len(history.spans.items) <= 2 * MOST_SPANS
    span = history.spans.items[-1]
    assert (span.node, span.end - span.start, span.status) == ('near', 0.25, JobStatus.TERMINATED)
    assert span.arguments == span.id
    assert [failure.id for failure in history.failures] == [str(n) for n in range(MOST_FAILURES)]
    assert history.failures[3][1:] == ('terminated', 'it was lost', 'it was lost', '3')


def test_programs_outside_notebooks_keep_failures_only():
    history = History(keeps_jobs=False)
    job = ended_job(1, JobStatus.TERMINATED)
    history.ended(job, JobStatus.TERMINATED, b'', 'why', 0.0)
    history.provisional(job, ProvisionalOutcome(b''), now=1.0)
    assert history.shown((1,), {}) is None
    assert (history.spans.items, history.points.items, history.provisionals) == ([], [], {})
    assert len(history.failures) == 1


def test_of_provisional_results_the_latest_jobs_are_kept_with_their_last_one():
    history = History(keeps_jobs=True)
    jobs = [DispyJob(None, number) for number in range(LATEST_PROVISIONALS + 3)]
    for moment in range(3):
        for job in jobs:
            history.provisional(job, ProvisionalOutcome(b'%d' % moment), now=float(moment))
    kept = list(history.provisionals.values())
    assert [row.id for row in kept] == [str(job.id) for job in jobs[3:]]
    assert len(history.points.items) == 3 * len(jobs)


# how long it may take


def filled(ends: list[tuple[float, int]]) -> Throughput:
    throughput = Throughput()
    for at, count in ends:
        throughput.add(count, at)
    return throughput


def test_a_steady_rate_gives_a_narrow_range_around_the_truth():
    throughput = filled([(1000 + step / 10, 10) for step in range(100)])  # 100 jobs/s for 10 s
    found = throughput.remaining(5000, 1010.0)
    assert found is not None
    least, most = found
    assert least < 50 < most
    assert most - least < 10


def test_an_unsteady_rate_gives_a_wide_range():
    bursts = [(1000 + 2.5 * step, 250) for step in range(8)]
    steady = [(1000 + step / 10, 10) for step in range(200)]
    wide = filled(bursts).remaining(5000, 1020.0)
    narrow = filled(steady).remaining(5000, 1020.0)
    assert wide is not None and narrow is not None
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_nothing_is_said_before_enough_has_been_seen():
    assert Throughput().remaining(10, 1000.0) is None
    few = filled([(1000.0 + step, 1) for step in range(LEAST_ENDED - 1)])
    assert few.remaining(10, 1010.0) is None
    assert filled([(1000.0, 1000)]).remaining(10, 1000.1) is None  # all in one moment
    assert filled([(1000.0 + step, 5) for step in range(20)]).remaining(0, 1020.0) is None


def test_a_pause_says_nothing_of_the_jobs_that_come_after_it():
    first = [(1000 + step / 10, 10) for step in range(100)]
    later = [(at + 600, count) for at, count in first]  # ten minutes without any jobs
    throughput = filled(first)
    throughput.restart()
    for at, count in later:
        throughput.add(count, at)
    found = throughput.remaining(5000, 1610.0)
    assert found is not None
    assert 45 < found[0] < 50 < found[1] < 55


def test_where_nothing_ends_any_more_nobody_knows():
    stalled = filled([(1000 + step / 10, 1) for step in range(20)])
    assert stalled.remaining(100, 1100.0) is None
    slow = filled([(1000.0, 40), (1004.0, 1)])
    found = slow.remaining(100, 1005.0)
    assert found is None or found[1] == float('inf')


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 1000)), max_size=60))
def test_the_range_is_in_order_and_takes_little(steps: list[tuple[float, int]]):
    throughput, now = Throughput(), 1e9
    for pause, count in steps:
        now += pause
        throughput.add(count, now)
        assert len(throughput._counts) <= 33
    found = throughput.remaining(7, now)
    assert found is None or 0 <= found[0] <= found[1]
    assert sum(throughput._counts) == sum(count for _, count in steps)


def test_a_clock_that_is_set_back_does_no_harm():
    throughput = filled([(1000.0 + step, 5) for step in range(20)])
    throughput.add(5, 500.0)
    assert throughput.remaining(10, 500.0) is None


# in a few words


class Awkward:
    def __repr__(self) -> str:
        raise RuntimeError('no')

    def __str__(self) -> str:
        raise RuntimeError('no')


DEEP = "{'step': 3, 'rows': [0, 1, 2, 3, ...], 'deep': dict of 1}"


@pytest.mark.row('V11')
class Found(NamedTuple):
    ways: int
    where: list[int]


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (3, '3'),
        ('a' * 500, "'aaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaa'"),
        ([1, 2, 3], '[1, 2, 3]'),
        (list(range(1000)), '[0, 1, 2, 3, ...]'),
        ([Awkward()], '[<Awkward>]'),
        ({'step': 3, 'rows': list(range(9)), 'deep': {'a': [{}]}}, DEEP),
        (({'a': [1]},), '(dict of 1,)'),
        ([numpy.float64(0.5), numpy.ones((2, 3)), True], '[0.5, ndarray(2, 3) float64, True]'),
        (numpy.float32(2), '2.0'),
        (numpy.array(Awkward()), 'ndarray() object'),
        (Awkward(), '<Awkward>'),
        (len, 'len'),
        ({'step': 1, 'loss': 0.5}, "{'step': 1, 'loss': 0.5}"),
        ({n: n for n in range(9, 0, -1)}, '{9: 9, 8: 8, 7: 7, 6: 6, ...}'),
        ({}, '{}'),
        (Found(3, [1, 2]), 'Found(ways=3, where=[1, 2])'),
        (deque([1]), '<deque>'),
        (10**100, '1000000000...00000000000'),
        (SimpleNamespace(shape=(2, 3), dtype='float64'), 'SimpleNamespace(2, 3) float64'),
    ],
)
def test_values_are_described_in_a_few_words(value: Any, text: str):
    assert shortened.value_text(value) == text


class Lazy:
    """Looks like an array, and cannot be reached."""

    @property
    def shape(self) -> tuple[int, ...]:
        raise OSError('no connection')


class Remote:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (Lazy(), '<Lazy>'),
        (Remote(), '<Remote>'),
        ([Remote(), 1], '[<Remote>, 1]'),
        (10**5000, '<int>'),  # more digits than Python writes
        ([1, 10**5000], '<list>'),
        (b'x' * 1000, f"b'{'x' * 40}'..."),
    ],
    ids=['lazy', 'remote', 'in a list', 'long number', 'beside others', 'bytes'],
)
def test_what_cannot_be_described_is_named_by_its_type(value: Any, text: str):
    assert shortened.value_text(value) == text
    assert shortened.call_text((value,), {}) == text


def test_text_of_users_is_one_printable_line():
    assert shortened.cut('a\n\tb\x1b[31m\u202ec') == 'a b\ufffd[31m\ufffdc'
    assert len(shortened.cut('x ' * 1000)) == shortened.MOST_CHARACTERS
    job = DispyJob(None, 7)
    job.id = Awkward()
    assert shortened.id_text(job) == '#7'
    assert shortened.call_text((1, 'b'), {'c': None}) == "1, 'b', c=None"
    assert shortened.call_text(tuple(range(20)), {}) == '0, 1, 2, 3, 4, 5, 6, 7, ...'


# outside of notebooks


def test_programs_have_no_cells():
    text = 'Traceback ...\n  File "<stdin>", line 1, in f\n'
    assert name_cells(text) == text
    assert running_statement() == ''
    assert variable_of(text) == ''


def test_failures_that_nodes_garble_are_told_as_such():
    history = History(keeps_jobs=False)
    job = ended_job(1, JobStatus.TERMINATED)
    history.ended(job, JobStatus.TERMINATED, b'\xff\xff', '', 0.0)
    assert history.failures[0].text == history.failures[0].detail != ''
