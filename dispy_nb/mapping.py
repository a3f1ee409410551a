"""`map` and `imap`: one function, many calls, results in order.

iterables ──▶ columns ──▶ chunks, each one job ──▶ (values, failures) ──▶ results in order
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispy_nb.cells import name_cells
from dispy_nb.completion import AsCompleted
from dispy_nb.failures import failure_of, remote_failure
from dispy_nb.interrupts import say_cancelled
from dispy_nb.job import DispyJob
from nodeserver.core.errors import UsageError
from nodeserver.core.status import JobStatus
from nodeserver.payload import CallFailure, dump_chunk

ERRORS = ('raise', 'return', 'stop')
CHUNKS_AHEAD = 4  # of what is left, a cpu gets one part of so many at a time
LEAST_PARTS = 64  # no chunk is smaller than one such part of a cpu's share: each has its cost
LEAST_CPUS = 4  # more nodes may still come
LEAST_IN_FLIGHT = 16

Columns = Sequence[Sequence[Any]]  # one for each iterable
Failures = dict[int, BaseException]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A job that does several calls: the number of its first one, and how many."""

    job: DispyJob
    first: int
    size: int

    def opened(self) -> tuple[list[Any], Failures]:
        """Return values and failures, by place, of a chunk that has ended."""
        if failure_of(self.job) is None:
            return opened(self.job.result, self.first)
        numbers = range(self.size)
        errors = {at: failure_of(self.job, self.first + at) for at in numbers}
        return [None] * self.size, {at: error for at, error in errors.items() if error}


@dataclass(frozen=True, slots=True)
class Target:
    """Where chunks go."""

    submit: Callable[[bytes], DispyJob]
    cancel: Callable[[Iterable[DispyJob]], None]
    cpus: int
    by_value: Iterable[str]
    check: Callable[[Columns], None]  # raises for arguments that the computation cannot take


def check_calls(iterables: Sequence[Any], chunksize: Any, errors: Any) -> None:
    """Raise `UsageError` for wrong arguments of `map` and `imap`."""
    if not iterables:
        raise UsageError('map needs at least one iterable, one for each parameter of the function')
    for position, iterable in enumerate(iterables, 1):
        if not isinstance(iterable, Iterable):
            raise UsageError(f'iterable {position} cannot be iterated: {iterable!r}')
    if errors not in ERRORS:
        raise UsageError(f"errors must be 'raise', 'return' or 'stop', not {errors!r}")
    if chunksize is not None:
        check_count('chunksize', chunksize)


def check_count(name: str, value: Any) -> None:
    """Raise `UsageError` unless it is a number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f'{name} must be a number from 1 on, not {value!r}')


def guided_sizes(calls: int, cpus: int) -> Iterator[int]:
    """Yield the sizes of chunks: large ones first, smaller ones to balance the end."""
    cpus = max(cpus, LEAST_CPUS)
    least = max(1, calls // (LEAST_PARTS * cpus))
    while calls:
        size = min(calls, max(least, calls // (CHUNKS_AHEAD * cpus)))
        yield size
        calls -= size


def sizes_of(calls: int, chunksize: int | None, cpus: int) -> Iterator[int]:
    """Yield the sizes of the chunks that so many calls are cut into."""
    if chunksize is None:
        return guided_sizes(calls, cpus)
    return (min(chunksize, calls - at) for at in range(0, calls, chunksize))


def calls_of(iterables: Sequence[Iterable[Any]]) -> Iterable[Any]:
    """Return the argument of each call, or its arguments as a row if there are several."""
    return iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False)


def columns_of(calls: Sequence[Any], width: int) -> Columns:
    """Turn some of what `calls_of` gave into a column for each parameter."""
    return [calls] if width == 1 else list(zip(*calls, strict=True))


def opened(
    brought: tuple[list[Any], Mapping[int, CallFailure]], first: int
) -> tuple[list[Any], Failures]:
    """Make what a chunk brought into values and exceptions, by their place in the chunk."""
    values, failures = brought
    errors = {
        at: remote_failure(data, name_cells(text), JobStatus.TERMINATED, first + at)
        for at, (text, data) in failures.items()
    }
    return values, errors


def map_calls(
    target: Target, iterables: Sequence[Iterable[Any]], chunksize: int | None, errors: str
) -> list[Any]:
    """Run all calls and return their results in order."""
    calls = list(calls_of(iterables))
    chunks: deque[Chunk] = deque()
    try:
        first = 0
        for size in sizes_of(len(calls), chunksize, target.cpus):
            columns = columns_of(calls[first : first + size], len(iterables))
            chunks.append(_sent(target, columns, first, errors))
            first += size
        del calls
        if errors == 'stop':
            _watch_for_failure(chunks)
        return _gathered(chunks, errors)
    except BaseException as error:  # Ctrl-C too
        target.cancel(chunk.job for chunk in chunks)
        if isinstance(error, KeyboardInterrupt):
            say_cancelled('map')
        raise


def map_lazily(
    target: Target,
    iterables: Sequence[Iterable[Any]],
    chunksize: int,
    errors: str,
    buffersize: int,
) -> Iterator[Any]:
    """Yield results in order; so many chunks at most are on their way or wait to be yielded."""
    calls = iter(calls_of(iterables))
    numbers = itertools.count(0, chunksize)

    def next_chunks() -> Iterator[Chunk]:
        while some := list(itertools.islice(calls, chunksize)):
            yield _sent(target, columns_of(some, len(iterables)), next(numbers), errors)

    coming = next_chunks()
    chunks: deque[Chunk] = deque()
    try:
        chunks.extend(itertools.islice(coming, buffersize))
    except BaseException:
        target.cancel(chunk.job for chunk in chunks)
        raise
    return begun(_in_order(target, chunks, coming, errors))


def begun(generator: Iterator[Any]) -> Iterator[Any]:
    """Take a generator into its `try` block: only then does closing it tidy up."""
    next(generator)
    return generator


def _sent(target: Target, columns: Columns, first: int, errors: str) -> Chunk:
    target.check(columns)
    payload = dump_chunk(columns, target.by_value, stop=errors == 'stop', first=first)
    return Chunk(target.submit(payload), first, len(columns[0]))


def _gathered(chunks: deque[Chunk], errors: str) -> list[Any]:
    results: list[Any] = []
    failure: BaseException | None = None
    while chunks:
        chunks[0].job._wait()
        values, failures = chunks[0].opened()
        for at, error in failures.items():
            values[at] = error
        if failures and failure is None:
            failure = failures[min(failures)]
        results += values
        chunks.popleft()  # not before: Ctrl-C while waiting cancels it too
    if failure is not None and errors != 'return':
        try:
            raise failure
        finally:
            del failure, results, values, failures  # they would live on in its traceback
    return results


def _in_order(
    target: Target, chunks: deque[Chunk], coming: Iterator[Chunk], errors: str
) -> Iterator[Any]:
    try:
        yield  # to `begun`
        while chunks:
            if errors == 'stop':
                _watch_for_failure(chunks, until=chunks[0].job)
            chunks[0].job._wait()
            values, failures = chunks.popleft().opened()
            chunks.extend(itertools.islice(coming, 1))
            for at, value in enumerate(values):
                if at in failures and errors != 'return':
                    raise failures[at]
                yield failures.get(at, value)
    except KeyboardInterrupt:  # while it waits
        say_cancelled('imap')
        raise
    finally:
        target.cancel(chunk.job for chunk in chunks)


def _watch_for_failure(chunks: Iterable[Chunk], until: DispyJob | None = None) -> None:
    """Raise the first failure, as soon as it is known, of any of the chunks."""
    by_job = {chunk.job: chunk for chunk in chunks}
    ends = AsCompleted(by_job)
    try:
        for job in ends:
            _, failures = by_job[job].opened()
            if failures:
                raise failures[min(failures)]
            if job is until:
                break
    finally:
        ends.close()
