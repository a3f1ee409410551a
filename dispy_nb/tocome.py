"""Documented names whose features this version does not have; each says so when used (U01)."""

from typing import Any

from nodeserver.core.errors import NotYetSupported


class SharedJobCluster:
    """A cluster whose nodes are shared by several programs, through `dispyscheduler`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotYetSupported('SharedJobCluster')
