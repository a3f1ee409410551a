"""joblib, and the executor below it: loky's, which also takes single calls."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from joblib import Parallel, delayed
from joblib.executor import get_memmapping_executor

from benchmarks.systems.base import WORKERS, Session, System


class JoblibSession(Session):
    """Single calls go to loky's executor, many to `Parallel`, as its users do."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._parallel = Parallel(n_jobs=WORKERS)
        self._executor = get_memmapping_executor(WORKERS)

    def submit(self, *args: Any) -> Any:
        """Use loky's `submit`."""
        return self._executor.submit(self._function, *args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a future."""
        return handle.result(timeout)

    def large(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Use `Parallel`, which puts large arrays into files that the processes map."""
        call = delayed(self._function)
        results: list[Any] = self._parallel(call(*row) for row in rows)
        return results

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Use `Parallel`, with its own choice of batches."""
        return self.large((value,) for value in values)

    def share(self, value: Any) -> Any:
        """`Parallel` finds by itself that an array comes again."""
        return value


class Joblib(System):
    """loky's reusable processes."""

    def start(self) -> None:
        """Processes come with the first calls."""

    def stop(self) -> None:
        """End them."""
        get_memmapping_executor(WORKERS).terminate(kill_workers=True)

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Any function will do."""
        yield JoblibSession(function)


SYSTEMS = {'joblib': Joblib}
