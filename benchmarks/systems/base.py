"""What a workload asks of a system, whichever it is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

WORKERS = 2  # processes that every system may use


class UnsupportedError(Exception):
    """The system cannot do what the workload asks of it; the text says what."""


class Session(ABC):
    """One function on a running system, ready to be called there."""

    @abstractmethod
    def submit(self, *args: Any) -> Any:
        """Have the function called; answer a handle at once."""

    @abstractmethod
    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for one call and answer its result; raise if there is none."""

    def results(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Submit many calls one by one, then collect all results in order."""
        handles = [self.submit(*row) for row in rows]
        return [self.result(handle) for handle in handles]

    def large(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Do the same with large arguments, where the system has a way of its own for them."""
        return self.results(rows)

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Call the function with each value, by the system's own means for many."""
        raise UnsupportedError('it has no call for many')

    def share(self, value: Any) -> Any:
        """Place a large value so that many calls can use it; answer what to pass to them."""
        raise UnsupportedError('it cannot place a value once for many jobs')


class System(ABC):
    """A system from its start to its end, with `WORKERS` processes on this machine."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start what must run before a function can be called."""

    @abstractmethod
    def stop(self) -> None:
        """End it, also when processes of it have died."""

    @abstractmethod
    def open(self, function: Callable[..., Any]) -> AbstractContextManager[Session]:
        """Make a function callable there."""
