"""parsl with its high-throughput executor."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from benchmarks.systems.base import WORKERS, Session, System


class ParslSession(Session):
    """An app."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._app = parsl.python_app(function)

    def submit(self, *args: Any) -> Any:
        """Call the app."""
        return self._app(*args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a future."""
        return handle.result(timeout)


class Parsl(System):
    """One block of two workers, started at once."""

    def start(self) -> None:
        """Load the configuration."""
        self._directory = tempfile.TemporaryDirectory(prefix='parsl')
        executor = HighThroughputExecutor(
            label='htex',
            address='127.0.0.1',
            loopback_address='127.0.0.1',
            max_workers_per_node=WORKERS,
            cores_per_worker=1,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        parsl.load(
            Config(
                executors=[executor],
                run_dir=self._directory.name,
                strategy='none',
                usage_tracking=0,
                initialize_logging=False,
            )
        )

    def stop(self) -> None:
        """End it."""
        parsl.dfk().cleanup()
        parsl.clear()
        self._directory.cleanup()

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Make an app of the function."""
        yield ParslSession(function)


SYSTEMS = {'parsl': Parsl}
