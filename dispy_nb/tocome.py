"""Documented names whose features this version does not have; each says so when used (U01)."""

from typing import Any, NoReturn

from nodeserver.core.errors import NotYetSupported


class SharedJobCluster:
    """A cluster whose nodes are shared by several programs, through `dispyscheduler`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotYetSupported('SharedJobCluster')


def recover_jobs(*args: Any, **kwargs: Any) -> NoReturn:
    """Fetch the results of a program that has crashed."""
    raise NotYetSupported('recover_jobs()')
