"""The monitor in a browser, under dispy's name for its module; to come."""

from typing import Any

from nodeserver.core.errors import NotYetSupported


class DispyHTTPServer:
    """A web server that shows clusters; each use says that it is not in this version."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotYetSupported('DispyHTTPServer')
