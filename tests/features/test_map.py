"""`map` and `imap`: results in order, failures where they belong, nothing left half."""

import itertools
import stat
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.features.conftest import MakeCluster
from tests.support.programs import client_program, eventually

LIMIT = 15.0


# what runs on the nodes


def double(value):
    return 2 * value


def add(a, b, c=100):
    return a + b + c


def picky(value):
    if value % 5 == 3:
        print('about to fail')
        raise KeyError(f'no {value}')
    return value


def process_of(value):
    import os

    return os.getpid()


def die(value):
    import os
    import signal

    if value == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def hold_or_fail(value, gate, log):
    """Fail for 0; for others wait until the gate is there, and tell that this has begun."""
    import pathlib
    import time

    if value == 0:
        raise ValueError('the first one')
    pathlib.Path(log, str(value)).touch()
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return value


def unpicklable(value):
    import threading

    return threading.Lock() if value == 2 else value


class OwnError(Exception):
    def __init__(self, what: str, code: int) -> None:
        super().__init__(what, code)
        self.code = code


class UnmakeableError(Exception):
    def __init__(self, what: str, code: int) -> None:
        super().__init__(what)  # pickle will call it with one argument


def raise_own(kind):
    if kind == 'own':
        raise OwnError('that', 7)
    if kind == 'unmakeable':
        raise UnmakeableError('this', 1)
    if kind == 'exit':
        raise SystemExit(3)
    return kind


# results


@pytest.mark.row('Z01')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
@pytest.mark.parametrize('chunksize', [None, 1, 7, 1000])
def test_results_come_in_order(
    make_cluster: MakeCluster, isolation: str, chunksize: int | None
) -> None:
    cluster = make_cluster(double, isolation=isolation)
    wanted = [2 * number for number in range(100)]
    assert cluster.map(range(100), chunksize=chunksize) == wanted
    assert list(cluster.imap(range(100), chunksize=chunksize or 3)) == wanted


@pytest.mark.row('Z01')
def test_several_iterables_give_several_arguments_and_the_shortest_is_the_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(add)
    assert cluster.map(range(5), [10, 20, 30]) == [110, 121, 132]
    assert cluster.map(itertools.count(), 'ab', 'xy', errors='return')[0].args  # str + int
    assert cluster.map([1, 2], (10, 20), {5: '', 6: ''}) == [16, 28]
    assert list(cluster.imap(itertools.count(), [1, 2])) == [101, 103]
    assert cluster.map([]) == []
    assert cluster.map([], [1]) == []
    assert list(cluster.imap([])) == []


def test_a_chunk_is_one_process_and_chunks_are_smaller_towards_the_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(process_of)
    assert len(set(cluster.map(range(12), chunksize=4))) == 3
    pids = cluster.map(range(2000))
    sizes = [len(list(group)) for _, group in itertools.groupby(pids)]
    assert sum(sizes) == 2000
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= 100
    assert 20 < len(sizes) < 100


def test_a_hundred_thousand_calls_take_few_jobs(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double, isolation='worker')
    assert cluster.map(range(100_000)) == list(range(0, 200_000, 2))
    assert cluster.snapshot().submitted < 200


def test_a_program_is_run_for_each_string(make_cluster: MakeCluster, own_home: Path) -> None:
    script = own_home / 'ends_with'
    script.write_text('#!/bin/sh\nexit $1\n')
    script.chmod(stat.S_IRWXU)
    cluster = make_cluster(str(script))
    assert cluster.map(['0', '3', '4']) == [0, 3, 4]
    with pytest.raises(dispy.UsageError, match='must be a string, not 5'):
        cluster.map(['0', 5])


# failures


@pytest.mark.row('Z01')
@pytest.mark.parametrize('chunksize', [None, 4, 100])
def test_a_failing_call_loses_no_other_result(
    make_cluster: MakeCluster, chunksize: int | None
) -> None:
    cluster = make_cluster(picky)
    results = cluster.map(range(20), chunksize=chunksize, errors='return')
    failed = [number for number in range(20) if number % 5 == 3]
    for number, result in enumerate(results):
        if number in failed:
            assert type(result) is KeyError
            assert result.args == (f'no {number}',)
            assert 'in picky' in str(result.__cause__)
            assert result.__notes__ == [f'raised by call {number}']
        else:
            assert result == number
    assert list(map(repr, cluster.imap(range(20), chunksize=3, errors='return'))) == list(
        map(repr, results)
    )


@pytest.mark.row('Z01')
def test_the_first_failure_in_order_is_raised_after_all_calls(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(picky)
    with pytest.raises(KeyError, match='no 3') as caught:
        cluster.map(range(20), chunksize=2)
    assert isinstance(caught.value.__cause__, Exception)
    assert 'about to' not in str(caught.value.__cause__)
    assert 'KeyError' in str(caught.value.__cause__)
    assert cluster.snapshot().finished == 10
    results = cluster.imap(range(20))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match='no 3'):
        next(results)
    assert list(results) == []


@pytest.mark.row('Z01')
@pytest.mark.parametrize('lazily', [False, True])
def test_stop_raises_at_once_and_cancels_what_is_pending(
    make_cluster: MakeCluster, own_home: Path, lazily: bool
) -> None:
    cluster = make_cluster(hold_or_fail)
    gate, log = str(own_home / 'gate'), str(own_home)
    calls = [*range(1, 6), 0, *range(6, 12)]
    if not lazily:  # the failing one is first in its chunk: the others there are not begun
        calls = [0, *calls[:5], *range(6, 12)]
    arguments = (calls, itertools.repeat(gate), itertools.repeat(log))
    with pytest.raises(ValueError, match='the first one'):
        if lazily:
            # one call waits for ever on each cpu but one, where the failure comes in its turn
            list(cluster.imap([1, 0, *range(2, 9)], *arguments[1:], errors='stop'))
        else:
            cluster.map(*arguments, errors='stop', chunksize=6)
    assert cluster.wait(LIMIT)  # no gate was opened: they were cancelled
    assert cluster.snapshot().cancelled > 0


@pytest.mark.row('Z01')
def test_a_process_that_dies_costs_the_calls_of_its_chunk(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(die)
    results = cluster.map(range(9), chunksize=3, errors='return')
    assert results[:3] == [0, 1, 2]
    assert results[6:] == [6, 7, 8]
    for number, error in enumerate(results[3:6], 3):
        assert isinstance(error, dispy.JobFailed)
        assert (error.index, error.status) == (number, 'terminated')
        assert 'SIGKILL' in error.text
        assert str(error).startswith(f'call {number}: ')
    with pytest.raises(dispy.JobFailed, match=r'call 3: .*SIGKILL'):
        cluster.map(range(9), chunksize=3)


def test_a_result_that_cannot_travel_is_its_own_failure(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(unpicklable)
    results = cluster.map(range(4), chunksize=4, errors='return')
    assert [results[0], results[1], results[3]] == [0, 1, 3]
    assert isinstance(results[2], dispy.PicklingFailed)
    assert 'lock' in str(results[2])


def test_exceptions_are_those_of_this_program(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(raise_own)
    kinds = ['own', 'unmakeable', 'exit', 'fine']
    own, unmakeable, end, fine = cluster.map(kinds, errors='return')
    assert type(own) is OwnError
    assert (own.args, own.code) == (('that', 7), 7)
    assert isinstance(unmakeable, dispy.JobFailed)
    assert 'UnmakeableError: this' in unmakeable.text
    assert isinstance(end, SystemExit)
    assert end.code == 3
    assert fine == 'fine'


# laziness and ends


@pytest.mark.row('Z01')
def test_imap_reads_its_iterables_no_further_than_needed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double)
    taken = []

    def numbers() -> Any:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = cluster.imap(numbers(), chunksize=2, buffersize=3)
    assert len(taken) == 6
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(taken) == 12
    results.close()  # type: ignore[attr-defined]
    assert cluster.wait(LIMIT)
    assert len(taken) == 12


@pytest.mark.row('Z01')
def test_closing_imap_cancels_what_it_has_on_its_way(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    cluster = make_cluster(hold_or_fail)
    gate = own_home / 'gate'
    results = cluster.imap(range(1, 50), itertools.repeat(str(gate)), itertools.repeat(own_home))
    eventually(lambda: (own_home / '1').exists())
    results.close()  # type: ignore[attr-defined]
    assert cluster.wait(LIMIT)
    assert cluster.snapshot().cancelled == cluster.snapshot().submitted


@pytest.mark.row('Z01')
@pytest.mark.slow
def test_an_interrupted_map_leaves_no_call_behind() -> None:
    source = """
import os, pathlib, signal, threading, time
import dispy_nb as dispy

def touch_and_stay(value, directory):
    import pathlib, time
    pathlib.Path(directory, str(value)).touch()
    time.sleep(60)

directory = pathlib.Path.cwd() / 'marks'
directory.mkdir()

def interrupt():
    while not list(directory.iterdir()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

with dispy.LocalNodes(1, cpus=1) as local:
    cluster = dispy.JobCluster(touch_and_stay, nodes=local.nodes, ip_addr='127.0.0.1')
    threading.Thread(target=interrupt).start()
    try:
        cluster.map(range(500), [str(directory)] * 500)
        print('not interrupted')
    except KeyboardInterrupt:
        print('interrupted', cluster.wait(20), cluster.snapshot().finished)
    print(cluster.snapshot().cancelled == cluster.snapshot().submitted)
    cluster.close()
"""
    done = client_program(source, timeout=45)
    assert done.stdout == 'interrupted True 0\nTrue\n'


# wrong use


@pytest.mark.row('Z01')
@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        ((), {}, 'at least one iterable'),
        ((3,), {}, 'iterable 1 cannot be iterated: 3'),
        (([], 4), {}, 'iterable 2 cannot be iterated: 4'),
        (([],), {'chunksize': 0}, 'chunksize must be a number from 1 on, not 0'),
        (([],), {'chunksize': 'all'}, "chunksize must be .*, not 'all'"),
        (([],), {'errors': 'ignore'}, "errors must be .*, not 'ignore'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    make_cluster: MakeCluster, arguments: Any, options: Any, message: str
) -> None:
    cluster = make_cluster(double)
    for verb in (cluster.map, cluster.imap):
        with pytest.raises(dispy.UsageError, match=message):
            verb(*arguments, **options)
    assert cluster.snapshot().submitted == 0


def test_an_argument_that_cannot_travel_is_named_and_nothing_runs_on(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(double)
    lock = __import__('threading').Lock()
    with pytest.raises(dispy.PicklingFailed, match='argument 1 of call 7'):
        cluster.map([*range(7), lock, 8], chunksize=2)
    assert cluster.wait(LIMIT)


def test_a_closed_cluster_refuses(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double)
    cluster.close()
    with pytest.raises(dispy.ClusterClosed):
        cluster.map([1])
    with pytest.raises(dispy.ClusterClosed):
        cluster.imap([1])


def interrupt_itself(value):
    if value == 1:
        raise KeyboardInterrupt('by itself')
    return value


@pytest.mark.row('Z01')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_an_interrupt_that_a_call_raises_by_itself_is_its_own(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(interrupt_itself, isolation=isolation)
    first, failed, third = cluster.map(range(3), chunksize=3, errors='return')
    assert (first, third) == (0, 2)
    assert repr(failed) == "KeyboardInterrupt('by itself')"
