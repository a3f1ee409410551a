"""What cannot travel: named at once, and nothing else suffers."""

import contextlib
import functools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispy_nb import DispyJob
from nodeserver.core.errors import PicklingFailed
from tests.features.conftest import MakeCluster

LIMIT = 20.0

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


def either(function: Callable[..., Any] | None, *args: Any) -> Any:
    """Call the function, if there is one: several kinds of jobs in one cluster."""
    return function(*args) if callable(function) else function


# objects that do not travel


class Raises:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError('of __reduce__')


class Nonsense:
    def __reduce__(self) -> Any:
        return 42


class Endless:
    def __reduce__(self) -> Any:
        return Endless, (Endless(),)


class Unspeakable:
    """Neither travels nor can be shown."""

    def __reduce__(self) -> Any:
        raise _UnspeakableError

    def __repr__(self) -> str:
        raise _UnspeakableError

    def __hash__(self) -> int:
        return 1


class _UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError('of __str__')


class Liar:
    """Claims attributes, and raises when they are looked at."""

    __slots__ = ('there',)

    def __reduce__(self) -> Any:
        raise TypeError('of a liar')

    def __getattribute__(self, name: str) -> Any:
        if name in ('there', '__dict__'):
            raise ZeroDivisionError(name)
        return object.__getattribute__(self, name)


@contextlib.contextmanager
def things() -> Iterator[dict[str, Any]]:
    """Make one of each kind of object that cannot travel."""
    with open(__file__, 'rb') as file, socket.socket() as sock:  # noqa: PTH123 - an open file it is
        yield {
            'lock': threading.Lock(),
            'socket': sock,
            'file': file,
            'generator': (number for number in range(3)),
            'raising': Raises(),
            'nonsense': Nonsense(),
            'endless': Endless(),
            'unspeakable': Unspeakable(),
            'unspeakable key': {Unspeakable(): threading.Lock()},
            'liar': Liar(),
            'thread': threading.current_thread(),
            'frame': sys._getframe(),
            'nested': [[[[[[threading.Lock()]]]]]],
        }


KINDS = [
    ('lock', r'argument 2 of type _thread\.lock'),
    ('socket', r'argument 2.* of type .*socket'),
    ('file', r'argument 2.* of type _io\.'),
    ('generator', 'argument 2 of type generator'),
    ('raising', 'argument 2 of type .*Raises cannot be pickled: of __reduce__'),
    ('nonsense', 'argument 2 of type .*Nonsense cannot be pickled'),
    ('endless', 'argument 2 of type .*Endless cannot be pickled'),
    ('unspeakable', 'argument 2 of type .*Unspeakable cannot be pickled'),
    ('unspeakable key', 'argument 2'),
    ('liar', 'argument 2 of type .*Liar cannot be pickled: of a liar'),
    ('thread', 'argument 2'),
    ('frame', 'argument 2 of type frame'),
    ('nested', r'argument 2\[0\]\[0\]\[0\]\[0\] of type list'),
]


@pytest.mark.row('C04')
@pytest.mark.parametrize(('kind', 'words'), KINDS, ids=[kind for kind, _ in KINDS])
def test_an_argument_that_cannot_travel_is_named_in_the_caller(
    make_cluster: MakeCluster, kind: str, words: str
) -> None:
    cluster = make_cluster(either)
    with things() as made, pytest.raises(PicklingFailed, match=words):
        cluster.submit(None, made[kind])
    assert cluster.submit(7)() == 7
    assert cluster.snapshot().submitted == 1


def test_every_kind_of_thing_is_tried() -> None:
    with things() as made:
        assert list(made) == [kind for kind, _ in KINDS]


@pytest.mark.parametrize('kind', [kind for kind, _ in KINDS])
def test_a_function_that_takes_such_a_thing_along_is_refused_with_its_name(
    make_cluster: MakeCluster, kind: str
) -> None:
    threads = threading.active_count()
    with things() as made:
        thing = made[kind]
        with pytest.raises(PicklingFailed, match=r"computation: variable 'thing' that .* closes"):
            make_cluster(lambda: thing)
        with pytest.raises(PicklingFailed, match='computation: bound argument'):
            make_cluster(functools.partial(either, thing))
    assert threading.active_count() == threads


def give(kind: str) -> Any:
    with things() as made:
        return made[kind]


def send(kind: str) -> None:
    with things() as made:
        dispy_provisional_result(made[kind])  # type: ignore[name-defined]  # noqa: F821


RESULTS = ['lock', 'generator', 'raising', 'nonsense', 'endless', 'unspeakable', 'liar', 'file']


@both
def test_a_result_that_cannot_travel_is_the_fault_of_its_job(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(either, isolation=isolation)
    jobs = [cluster.submit(way, kind) for kind in RESULTS for way in (give, send)]
    others = [cluster.submit(number) for number in range(10)]
    assert cluster.wait(LIMIT), cluster.explain()
    assert [other() for other in others] == list(range(10))
    assert {job.status for job in jobs} == {DispyJob.Terminated}
    assert [job.exception for job in jobs if 'result of type' not in str(job.exception)] == []
    assert [job.exception for job in jobs if 'cloudpickle' in str(job.exception)] == []


# objects that travel and do not arrive


def fail_to_load(how: str) -> Any:
    if how == 'exit':
        raise SystemExit('of the loader')
    if how == 'interrupt':
        raise KeyboardInterrupt('of the loader')
    if how == 'death':
        import os

        os._exit(5)
    raise ZeroDivisionError('of the loader')


class Trap:
    """Is pickled here without trouble; loading it fails."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return fail_to_load, (self.how,)


@pytest.mark.parametrize(
    ('how', 'words'),
    [
        ('error', 'ZeroDivisionError: of the loader'),
        ('exit', 'SystemExit: of the loader'),
        ('interrupt', 'KeyboardInterrupt: of the loader'),
        ('death', 'its process was ended by os._exit(5)'),
    ],
)
@both
def test_an_argument_that_does_not_arrive_is_the_fault_of_its_job(
    make_cluster: MakeCluster, isolation: str, how: str, words: str
) -> None:
    cluster = make_cluster(either, isolation=isolation)
    job = cluster.submit(None, Trap(how))
    others = [cluster.submit(number) for number in range(10)]
    assert cluster.wait(LIMIT), cluster.explain()
    assert [other() for other in others] == list(range(10))
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert words in job.exception
    if how != 'death':
        assert 'its arguments could not be unpickled on the node' in job.exception


def give_trap(how: str) -> Any:
    return Trap(how)


def send_trap(how: str) -> str:
    dispy_provisional_result(Trap(how))  # type: ignore[name-defined]  # noqa: F821
    return 'went on'


@pytest.mark.parametrize('how', ['error', 'exit'])
@both
def test_a_result_that_does_not_arrive_is_told_in_the_client(
    make_cluster: MakeCluster, isolation: str, how: str
) -> None:
    seen: list[Any] = []
    cluster = make_cluster(
        either,
        isolation=isolation,
        callback=lambda job: seen.append((job.status, job.result, job.exception)),
    )
    jobs = [cluster.submit(way, how) for way in (give_trap, send_trap)]
    others = [cluster.submit(number) for number in range(5)]
    assert cluster.wait(LIMIT), cluster.explain()
    assert [other() for other in others] == list(range(5))
    assert jobs[0]() is None
    assert 'the result cannot be unpickled here: ' in str(jobs[0].exception)
    assert 'of the loader' in str(jobs[0].exception)
    assert jobs[1]() == 'went on'
    provisional = [text for status, _, text in seen if status == DispyJob.ProvisionalResult]
    assert len(provisional) == 1
    assert 'the provisional result cannot be unpickled: ' in provisional[0]
    assert len(seen) == 8


class StubbornError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__('takes two')
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise TypeError('of a stubborn error')


def raise_stubborn() -> None:
    raise StubbornError(1, 2)


@both
def test_an_exception_need_not_be_picklable(make_cluster: MakeCluster, isolation: str) -> None:
    cluster = make_cluster(either, isolation=isolation)
    job = cluster.submit(raise_stubborn)
    assert job() is None
    assert str(job.exception).endswith('StubbornError: takes two')
    assert cluster.submit(3)() == 3
