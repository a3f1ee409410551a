"""Executors: `concurrent.futures` on nodes."""

import asyncio
import concurrent.futures
import inspect
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb.executor import check_names
from dispy_nb.futures import ClusterExecutor
from nodeserver.core.errors import RemoteTraceback
from tests.features.conftest import MakeCluster
from tests.support.programs import client_program, eventually, free_port

LIMIT = 15.0
MakeExecutor = Callable[..., ClusterExecutor]


def double(value):
    return 2 * value


def hold(gate, mark=''):
    """Run until the file `gate` is there; `mark` tells that this has begun."""
    import pathlib
    import time

    if mark:
        pathlib.Path(mark).touch()
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return str(gate)


def fail(value):
    raise KeyError(value)


def kill_itself():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def picky(value):
    if value == 5:
        raise KeyError(value)
    return value


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, value: int) -> int:
        return self.factor * value

    def times(self, value: int) -> int:
        return self.factor * value


@pytest.fixture
def make_executor(make_cluster: MakeCluster) -> Iterator[MakeExecutor]:
    """Make executors on the pair of nodes."""
    made: list[ClusterExecutor] = []

    def make(**options: Any) -> ClusterExecutor:
        executor = make_cluster(double).executor(**options)
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.cluster.close(timeout=0, terminate=True)
        executor.shutdown()


@pytest.mark.row('Z03')
def test_any_function_runs(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    assert isinstance(executor, concurrent.futures.Executor)
    scale = Scale(3)
    calls = [
        (executor.submit(double, 4), 8),
        (executor.submit(math.sqrt, 9), 3.0),
        (executor.submit(lambda a, *, b: a - b, 9, b=2), 7),
        (executor.submit(partial(pow, 2), 5), 32),
        (executor.submit(scale, 5), 15),
        (executor.submit(scale.times, 6), 18),
        (executor.submit(dict, a=1, fn=2, self=3), {'a': 1, 'fn': 2, 'self': 3}),
    ]
    for future, wanted in calls:
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(LIMIT) == wanted
        assert future.done()
        assert not future.running()
        assert not future.cancel()
    scale.factor = 10
    assert executor.submit(scale, 5).result(LIMIT) == 50  # as it is now


@pytest.mark.row('Z03')
def test_what_a_call_raises_is_raised_here(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    future = executor.submit(fail, 'this')
    with pytest.raises(KeyError, match='this') as caught:
        future.result(LIMIT)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert 'in fail' in str(caught.value.__cause__)
    assert future.exception() is caught.value
    assert executor.submit(fail, 'x' * 100_000).exception(LIMIT).args == ('x' * 100_000,)


@pytest.mark.row('Z03')
def test_a_process_that_dies_costs_its_own_future_only(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    futures = [executor.submit(double, n) for n in range(20)]
    killed = executor.submit(kill_itself)
    futures += [executor.submit(double, n) for n in range(20, 40)]
    with pytest.raises(dispy.JobFailed, match='SIGKILL'):
        killed.result(LIMIT)
    assert [future.result(LIMIT) for future in futures] == [2 * n for n in range(40)]


@pytest.mark.row('Z03')
def test_futures_are_waited_for_as_usual(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    futures = [executor.submit(double, number) for number in range(50)]
    done = {future.result() for future in concurrent.futures.as_completed(futures, LIMIT)}
    assert done == {2 * number for number in range(50)}
    assert concurrent.futures.wait(futures, LIMIT).not_done == set()


@pytest.mark.row('Z03')
def test_callbacks_may_submit_and_wait_elsewhere(make_executor: MakeExecutor) -> None:
    executor, other = make_executor(), make_executor()
    heard: list[Any] = []

    def called(future: concurrent.futures.Future[int]) -> None:
        heard.append(other.submit(double, future.result()).result(LIMIT))
        heard.append(executor.submit(double, 100))

    executor.submit(double, 1).add_done_callback(called)
    eventually(lambda: len(heard) == 2)
    assert heard[0] == 4
    assert heard[1].result(LIMIT) == 200


def leave(future: object) -> None:
    raise SystemExit('of a callback')


@pytest.mark.row('Z03')
def test_a_callback_that_exits_stops_nothing(
    make_executor: MakeExecutor, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor, gate = make_executor(), own_home / 'gate'
    future, called = executor.submit(hold, gate), threading.Event()
    future.add_done_callback(leave)
    future.add_done_callback(lambda _: called.set())
    gate.touch()
    assert called.wait(LIMIT)
    assert executor.submit(double, 1).result(LIMIT) == 2
    assert 'leave raised' in caplog.text
    assert 'SystemExit: of a callback' in caplog.text
    with pytest.raises(SystemExit):  # called here, it is this thread's
        future.add_done_callback(leave)


class Wrecker:
    def __reduce__(self):
        return wreck, ()


def wreck():
    raise KeyboardInterrupt('of the loader')


@pytest.mark.row('Z03')
def test_a_result_that_interrupts_the_one_who_opens_it_fails_alone(
    make_executor: MakeExecutor,
) -> None:
    executor = make_executor()
    wrecked = executor.submit(Wrecker)
    with pytest.raises(KeyboardInterrupt, match='of the loader'):
        wrecked.result(LIMIT)
    assert executor.submit(double, 1).result(LIMIT) == 2


@pytest.mark.row('Z03')
def test_a_call_is_cancelled_also_when_it_runs(make_executor: MakeExecutor, own_home: Path) -> None:
    executor = make_executor()
    marks = [own_home / str(number) for number in range(2)]
    gate = own_home / 'gate'
    running = [executor.submit(hold, gate, mark) for mark in marks]
    waiting = executor.submit(hold, own_home / 'never')
    eventually(lambda: all(mark.exists() for mark in marks))
    eventually(lambda: all(future.running() for future in running))
    assert not waiting.running()
    called: list[Any] = []
    waiting.add_done_callback(called.append)
    assert waiting.cancel()
    assert waiting.cancel()  # again
    assert called == [waiting]
    assert running[0].cancel()
    for future in (waiting, running[0]):
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
    assert concurrent.futures.wait([waiting, running[0]], LIMIT).not_done == set()
    assert executor.submit(double, 1).result(LIMIT) == 2  # its cpu is free: one is held yet
    assert not gate.exists()
    gate.touch()
    assert running[1].result(LIMIT) == str(gate)


@pytest.mark.row('Z03')
def test_max_workers_is_the_most_at_a_time(make_executor: MakeExecutor, own_home: Path) -> None:
    executor = make_executor(max_workers=1)
    marks, gates = ([own_home / f'{kind}{n}' for n in range(3)] for kind in 'mg')
    futures = [executor.submit(hold, *each) for each in zip(gates, marks, strict=True)]
    for number in range(3):
        eventually(lambda number=number: marks[number].exists())
        assert sum(mark.exists() for mark in marks) == number + 1
        gates[number].touch()
    assert [future.result(LIMIT) for future in futures] == list(map(str, gates))


@pytest.mark.row('Z03')
def test_a_cluster_is_closed_after_the_calls_that_wait_in_its_executor(
    make_executor: MakeExecutor, own_home: Path
) -> None:
    executor, heard = make_executor(max_workers=1), []
    gate = own_home / 'gate'
    futures = [executor.submit(hold, gate) for _ in range(3)]
    futures[-1].add_done_callback(lambda future: heard.append(time.sleep(0.1)))
    assert executor.cluster.snapshot().pending == 3
    assert not executor.cluster.close(timeout=0)
    assert futures[1].cancel()
    assert executor.cluster.snapshot().pending == 2
    gate.touch()
    assert executor.cluster.close(timeout=LIMIT)
    assert heard == [None]
    assert [futures[n].result(0) for n in (0, 2)] == [str(gate)] * 2


@pytest.mark.row('Z03')
def test_a_cluster_that_is_ended_at_once_cancels_the_calls_that_wait_in_its_executor(
    make_executor: MakeExecutor, own_home: Path
) -> None:
    executor = make_executor(max_workers=1)
    mark = own_home / 'mark'
    futures = [executor.submit(hold, own_home / 'never', mark) for _ in range(3)]
    eventually(mark.exists)
    began = time.monotonic()
    assert executor.cluster.close(timeout=0, terminate=True)
    assert time.monotonic() - began < LIMIT
    assert isinstance(futures[0].exception(0), dispy.JobFailed)
    assert [future.cancelled() for future in futures] == [False, True, True]
    with pytest.raises(dispy.ClusterClosed):
        executor.submit(double, 1)


@pytest.mark.row('Z03')
def test_map_is_that_of_the_library(make_executor: MakeExecutor, own_home: Path) -> None:
    executor = make_executor()
    assert list(executor.map(double, range(10))) == list(range(0, 20, 2))
    assert list(executor.map(pow, [2, 3], [3, 2, 9], chunksize=5)) == [8, 9]
    assert list(executor.map(double, range(1000), chunksize=None)) == list(range(0, 2000, 2))
    results = executor.map(picky, range(20), chunksize=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)
    held = executor.map(hold, [own_home / 'never'] * 5, timeout=0.2)
    with pytest.raises(TimeoutError):
        next(held)
    assert executor.submit(double, 1).result(LIMIT) == 2  # an early end has cancelled the rest
    with pytest.raises(dispy.UsageError, match='chunksize'):
        executor.map(double, [], chunksize=0)
    abandoned = executor.map(hold, [own_home / 'never'] * 5)
    del abandoned
    assert executor.submit(double, 1).result(LIMIT) == 2


@pytest.mark.row('Z03')
def test_shutdown_waits_and_then_refuses(make_executor: MakeExecutor, own_home: Path) -> None:
    executor = make_executor()
    gate = own_home / 'gate'
    future = executor.submit(hold, gate)
    executor.shutdown(wait=False)
    assert not future.done()
    with pytest.raises(RuntimeError, match='after shutdown'):
        executor.submit(double, 1)
    gate.touch()
    executor.shutdown()
    assert future.done()
    assert future.result() == str(gate)
    with pytest.raises(dispy.ClusterClosed):
        executor.cluster.submit(double, 1)


@pytest.mark.row('Z03')
@pytest.mark.parametrize('max_workers', [None, 1])
def test_an_interrupt_leaves_the_block_at_once(
    make_executor: MakeExecutor, own_home: Path, max_workers: int | None
) -> None:
    executor, mark = make_executor(max_workers=max_workers), own_home / 'mark'
    futures = []
    with pytest.raises(KeyboardInterrupt), executor:
        futures += [executor.submit(hold, own_home / 'never', mark) for _ in range(4)]
        eventually(lambda: mark.exists() and futures[0].running())
        raise KeyboardInterrupt
    assert all(future.cancelled() for future in futures)
    with pytest.raises(RuntimeError, match='after shutdown'):
        executor.submit(double, 1)
    with pytest.raises(dispy.ClusterClosed):
        executor.cluster.submit(double, 1)


@pytest.mark.row('Z03')
def test_an_error_leaves_the_block_after_all_calls(make_executor: MakeExecutor) -> None:
    with pytest.raises(KeyError), make_executor(max_workers=1) as executor:
        futures = [executor.submit(double, number) for number in range(4)]
        raise KeyError
    assert [future.result(0) for future in futures] == [0, 2, 4, 6]


@pytest.mark.row('Z03')
@pytest.mark.parametrize('max_workers', [None, 1])
def test_shutdown_can_cancel_what_has_not_begun(
    make_executor: MakeExecutor, own_home: Path, max_workers: int | None
) -> None:
    executor = make_executor(max_workers=max_workers)
    gate, mark = own_home / 'gate', own_home / 'mark'
    first = executor.submit(hold, gate, mark)
    eventually(lambda: first.running() and mark.exists())
    others = [executor.submit(hold, gate) for _ in range(100)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert sum(future.cancelled() for future in others) >= 98
    gate.touch()
    executor.shutdown()
    assert first.result() == str(gate)
    assert all(future.done() for future in others)


@pytest.mark.row('Z03')
def test_an_event_loop_runs_calls_in_it(make_executor: MakeExecutor) -> None:
    executor = make_executor()

    async def both() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(executor.submit(double, 2))
        return await loop.run_in_executor(executor, double, 1), await wrapped

    async def too_long() -> None:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(executor, time.sleep, 60)
        await asyncio.wait_for(call, 0.3)

    assert asyncio.run(both()) == (2, 4)
    with pytest.raises(TimeoutError):
        asyncio.run(too_long())
    executor.shutdown()  # the call that took too long was ended


@pytest.mark.row('Z03')
def test_a_function_travels_once(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    pickled = [executor._travels.of(double).function for _ in range(2)]
    assert pickled[0] is pickled[1]
    assert isinstance(pickled[0], bytes)
    assert executor.submit(double, 4).result(LIMIT) == 8
    factor = 2

    def scaled(value: int) -> int:
        return factor * value

    assert executor.submit(scaled, 1).result(LIMIT) == 2
    factor = 5
    assert executor.submit(scaled, 1).result(LIMIT) == 5  # a closure as it is now


@pytest.mark.row('Z03')
def test_what_cannot_travel_is_named(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    lock = threading.Lock()
    with pytest.raises(dispy.PicklingFailed, match=r'argument 1 of type _thread\.lock'):
        executor.submit(double, lock)
    with pytest.raises(dispy.PicklingFailed, match="function: variable 'lock'"):
        executor.submit(lambda: lock)
    for handle, words in (
        (executor, r'argument 1 of type \S+ cannot be pickled: an executor is a handle'),
        (executor.submit(double, 1), r'argument 1 of type \S+ cannot be pickled: a future belongs'),
        (executor.cluster, r'argument 1 of type \S+ cannot be pickled: cluster double executor is'),
        (executor.cluster.options(retries=1), r'argument 1\.cluster of type \S+JobCluster'),
    ):
        with pytest.raises(dispy.PicklingFailed, match=words):
            executor.submit(double, handle)
    with pytest.raises(dispy.UsageError, match='3 is no function'):
        executor.submit(3)  # type: ignore[arg-type]
    assert executor.submit(double, 1).result(LIMIT) == 2


@pytest.mark.row('Z03')
def test_without_nodes_it_waits_and_says_why(own_home: Path) -> None:
    port = free_port()
    with dispy.Executor(nodes=['127.0.0.1'], ip_addr='127.0.0.1', port=0, node_port=port) as pool:
        future = pool.submit(os.getpid)
        assert '1 jobs waiting' in pool.explain() or '1 job waiting' in pool.explain()
        assert f'looked for nodes at: 127.0.0.1 (port {port})' in pool.explain()
        assert not future.running()
        assert future.cancel()


@pytest.mark.row('Z03')
@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'computation': double}, 'computation: an executor takes a function with each call'),
        ({'initializer': double}, 'initializer: an executor has none'),
        ({'max_workers': 0}, 'max_workers must be a number from 1 on, not 0'),
        ({'max_workers': '2'}, "max_workers must be a number from 1 on, not '2'"),
        ({'isolation': 'none'}, "isolation .*'none'"),
    ],
)
def test_wrong_options_are_named_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(dispy.UsageError, match=words):
        dispy.Executor(**options)


def test_an_option_that_there_is_not_is_named() -> None:
    words = r"^Executor\(\) got an unexpected keyword argument 'nods'$"
    with pytest.raises(TypeError, match=words):
        dispy.Executor(nods=['*'])
    with pytest.raises(TypeError, match='allocations'):
        dispy.Executor(allocations=[])


def test_an_executor_takes_every_option_of_a_cluster_but_the_function() -> None:
    taken = set(inspect.signature(dispy.JobCluster).parameters)
    check_names(taken - {'computation'})
    with pytest.raises(dispy.UsageError, match='computation'):
        check_names(taken)


@pytest.mark.row('Z03')
@pytest.mark.slow
def test_a_program_uses_the_nodes_it_started() -> None:
    source = """
import os
import dispy_nb as dispy

def where():
    return dispy_node_name, os.getpid()

with dispy.LocalNodes(1, cpus=2), dispy.Executor(ip_addr='127.0.0.1') as pool:
    found = {pool.submit(where).result() for _ in range(20)}
    print({name for name, _ in found}, len(found) <= 2)
pool = dispy.Executor(ip_addr='127.0.0.1')
with dispy.LocalNodes(1, cpus=1) as local:
    late = dispy.Executor(nodes=local.nodes, ip_addr='127.0.0.1')
    late.submit(print, 'never seen')
    late.shutdown(wait=False)
pool.shutdown()
print('end')
"""
    done = client_program(source, timeout=45)
    assert done.stdout == "{'local-1'} True\nend\n"
