"""What pickle and cloudpickle send by name only, or not whole, and what has to be made anew."""

import fnmatch
import functools
from dataclasses import dataclass, field

import pytest

from tests.features.conftest import MakeCluster, outcome

pytestmark = pytest.mark.parametrize('isolation', ['job', 'worker'])


@functools.lru_cache(maxsize=7)
def fibonacci(n: int) -> int:
    """Call itself, by its own global name."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@functools.cache
def square(n: int) -> int:
    return n * n


class Slots:
    __slots__ = ('__hidden', 'shown')

    def __init__(self, value: int) -> None:
        self.__hidden = self.shown = value

    def both(self) -> tuple[int, int]:
        return self.__hidden, self.shown


class MoreSlots(Slots):
    __slots__ = ('more',)

    @functools.lru_cache  # noqa: B019 - as users write it
    def next(self, n: int) -> int:
        return n + 1


@dataclass(slots=True)
class Record:
    number: int = 4
    others: list[int] = field(default_factory=list)


class Lazy:
    @functools.cached_property
    def value(self) -> int:
        return 77


@pytest.mark.row('A05', 'F03')
def test_cached_functions_run_and_keep_their_caches_options(
    make_cluster: MakeCluster, isolation: str
) -> None:
    with make_cluster(fibonacci, isolation=isolation) as cluster:
        assert outcome(cluster.submit(50)) == 12586269025

    def looks(n: int) -> tuple[int, int, object, str]:
        return square(n), square(n), fibonacci.cache_parameters()['maxsize'], square.__name__

    with make_cluster(looks, isolation=isolation, depends=[square]) as cluster:
        assert outcome(cluster.submit(3)) == (9, 9, 7, 'square')

    def hits() -> int:
        square.cache_clear()
        square(2), square(2)
        return square.cache_info().hits

    with make_cluster(hits, isolation=isolation) as cluster:
        assert outcome(cluster.submit()) == 1


def test_a_cached_function_of_an_installed_module_is_that_one(
    make_cluster: MakeCluster, isolation: str
) -> None:
    theirs = fnmatch._compile_pattern  # type: ignore[attr-defined]

    def is_that_one() -> bool:
        import fnmatch

        return theirs is fnmatch._compile_pattern  # type: ignore[attr-defined]

    with make_cluster(is_that_one, isolation=isolation) as cluster:
        assert outcome(cluster.submit())


@pytest.mark.row('F04', 'F09')
def test_objects_with_slots_go_and_come_back(make_cluster: MakeCluster, isolation: str) -> None:
    def makes(n: int, given: Slots, record: Record) -> tuple[object, ...]:
        more = MoreSlots(n)
        more.more = given.both()  # type: ignore[attr-defined]
        plain = hasattr(more, '__dict__') or hasattr(given, '__dict__')
        return plain, more, record, Record(), more.next(3), Lazy().value, Lazy()

    with make_cluster(makes, isolation=isolation) as cluster:
        plain, more, record, fresh, four, value, lazy = outcome(
            cluster.submit(5, Slots(6), Record(7, [8]))
        )
    assert not plain
    assert (type(more), more.both(), more.more) == (MoreSlots, (5, 5), (6, 6))
    assert (record, fresh, four, value, lazy.value) == (Record(7, [8]), Record(), 4, 77, 77)
