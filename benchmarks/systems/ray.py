"""ray, on this machine only."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from benchmarks.systems.base import WORKERS, Session, System


class RaySession(Session):
    """A remote function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._remote = ray.remote(function)

    def submit(self, *args: Any) -> Any:
        """Use `remote`."""
        return self._remote.remote(*args)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Use `get`."""
        return ray.get(handle, timeout=timeout)

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Submit each, which is what its users do, and get all at once."""
        return list(ray.get([self._remote.remote(value) for value in values]))

    def share(self, value: Any) -> Any:
        """Use `put`."""
        return ray.put(value)


class Ray(System):
    """A raylet with two cpus."""

    def start(self) -> None:
        """Start everything."""
        os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            logging_level='error',
            object_store_memory=2_000_000_000,
            _node_ip_address='127.0.0.1',
        )

    def stop(self) -> None:
        """End it."""
        ray.shutdown()

    @contextmanager
    def open(self, function: Callable[..., Any]) -> Iterator[Session]:
        """Make a remote function."""
        yield RaySession(function)


SYSTEMS = {'ray': Ray}
