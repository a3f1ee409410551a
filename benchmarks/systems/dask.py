"""dask.distributed: scheduler and workers as processes of their own."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.systems.base import WORKERS, Session, System


class DaskSession(Session):
    """A function and a client."""

    def __init__(self, client: Client, function: Callable[..., Any]) -> None:
        self._client, self._function = client, function

    def submit(self, *args: Any) -> Any:
        """Use `submit`; calls with the same arguments are calls of their own."""
        return self._client.submit(self._function, *args, pure=False)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a future."""
        return handle.result(timeout=timeout)

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Use `map` and `gather`."""
        futures = self._client.map(self._function, values, pure=False)
        return list(self._client.gather(futures))

    def share(self, value: Any) -> Any:
        """Use `scatter`."""
        return self._client.scatter(value)


class Dask(System):
    """A `LocalCluster` without its dashboard."""

    def start(self) -> None:
        """Start everything."""
        self._cluster = LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            host='127.0.0.1',
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
        self._client = Client(self._cluster)

    def stop(self) -> None:
        """End it."""
        self._client.close()
        self._cluster.close()

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Any function will do."""
        yield DaskSession(self._client, function)


SYSTEMS = {'dask': Dask}
