"""The standard library's pools of processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import AsyncResult, Pool
from typing import Any

from benchmarks.systems.base import WORKERS, Session, System

CHUNK = 2500  # calls that the executor sends together; its own default is 1


class PoolSession(Session):
    """A function and the pool that calls it."""

    def __init__(self, pool: Pool, function: Callable[..., Any]) -> None:
        self._pool, self._function = pool, function

    def submit(self, *args: Any) -> Any:
        """Use `apply_async`."""
        return self._pool.apply_async(self._function, args)

    def result(self, handle: AsyncResult[Any], timeout: float | None = None) -> Any:
        """Wait for a call; one that a dead process had never ends."""
        return handle.get(timeout)

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Use the pool's map, with its own choice of chunks."""
        return self._pool.map(self._function, values)


class Pools(System):
    """`multiprocessing.Pool`, whose processes are forked."""

    def __init__(self, tasks_per_child: int | None) -> None:
        self._tasks = tasks_per_child

    def start(self) -> None:
        """Fork the processes."""
        context = multiprocessing.get_context('fork')
        self._pool = context.Pool(WORKERS, maxtasksperchild=self._tasks)

    def stop(self) -> None:
        """End them; one may be lost, and `close` would wait for its call for ever."""
        self._pool.terminate()
        self._pool.join()

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Any function will do."""
        yield PoolSession(self._pool, function)


class ExecutorSession(Session):
    """A function and the executor that calls it."""

    def __init__(self, executor: ProcessPoolExecutor, function: Callable[..., Any]) -> None:
        self._executor, self._function = executor, function

    def submit(self, *args: Any) -> Any:
        """Use `submit`."""
        return self._executor.submit(self._function, *args)

    def result(self, handle: Future[Any], timeout: float | None = None) -> Any:
        """Wait for a future."""
        return handle.result(timeout)

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Use `map`, in chunks."""
        return list(self._executor.map(self._function, values, chunksize=CHUNK))


class Executor(System):
    """`ProcessPoolExecutor`, whose processes are forked."""

    def start(self) -> None:
        """Make the executor; processes come with the first calls."""
        context = multiprocessing.get_context('fork')
        self._executor = ProcessPoolExecutor(WORKERS, mp_context=context)

    def stop(self) -> None:
        """End the processes."""
        self._executor.shutdown(cancel_futures=True)

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Any function will do."""
        yield ExecutorSession(self._executor, function)


SYSTEMS = {
    'pool': partial(Pools, None),
    'pool-fresh': partial(Pools, 1),
    'executor': Executor,
}
