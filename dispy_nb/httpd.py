"""The monitor in a browser, under dispy's name for its module; to come."""

import importlib
import sys
from typing import Any

from nodeserver.core.errors import NotYetSupported

if __name__ != 'dispy_nb.httpd':  # imported as `dispy.httpd`: there is one only
    sys.modules[__name__] = importlib.import_module('dispy_nb.httpd')


class DispyHTTPServer:
    """A web server that shows clusters; each use says that it is not in this version."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotYetSupported('DispyHTTPServer')
