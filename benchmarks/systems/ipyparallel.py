"""ipyparallel: a controller and two engines."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipyparallel

from benchmarks.systems.base import WORKERS, Session, System


class IpyparallelSession(Session):
    """A function and a load-balanced view."""

    def __init__(self, client: ipyparallel.Client, function: Callable[..., Any]) -> None:
        self._client, self._function = client, function
        self._view = client.load_balanced_view()

    def submit(self, *args: Any) -> Any:
        """Use `apply_async`."""
        return self._view.apply_async(self._function, *args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Use `get`."""
        return handle.get(timeout)

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Use the direct view, which gives each engine its part at once."""
        return list(self._client[:].map_sync(self._function, values))


class Ipyparallel(System):
    """A `Cluster` on this machine."""

    def start(self) -> None:
        """Start everything."""
        self._cluster = ipyparallel.Cluster(n=WORKERS, log_level=40)
        self._client = self._cluster.start_and_connect_sync()

    def stop(self) -> None:
        """End it."""
        self._client.close()
        self._cluster.stop_cluster_sync()

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Any function will do."""
        yield IpyparallelSession(self._client, function)


SYSTEMS = {'ipyparallel': Ipyparallel}
