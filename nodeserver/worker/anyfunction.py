"""A computation that calls any function: what an executor's jobs run."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from nodeserver.payload import load_function

MOST_KEPT = 64  # functions that a lasting worker has at hand


class AnyFunction:
    """Calls the function that each job brings, as it is or (to be kept for later jobs) pickled."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()

    def __call__(self, function: Callable[..., Any] | bytes, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function with these arguments."""
        if isinstance(function, bytes):
            function = self._known.get(function) or self._load(function)
        return function(*args, **kwargs)

    def _load(self, data: bytes) -> Callable[..., Any]:
        function = self._known[data] = load_function(data)
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)
        return function
