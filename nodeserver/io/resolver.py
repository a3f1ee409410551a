"""Host names that many ask for: looked up a few at a time, and remembered for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from nodeserver.io.lookup import look_up
from nodeserver.io.netif import is_address

_LIFETIME = 60.0  # of what was found, and of nothing found
_MOST_NAMES = 1024
_MOST_WAITING = 256
_MOST_THREADS = 4

Then = Callable[[list[str]], None]


class Resolver:
    """Looks host names up, a few at a time, and remembers for a while what it found."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._found: OrderedDict[str, tuple[list[str], float]] = OrderedDict()
        self._waiting: OrderedDict[str, list[Then]] = OrderedDict()
        self._looking: dict[str, list[Then]] = {}
        self._is_closed = False

    def resolve(self, host: str, then: Then) -> None:
        """Call `then` with the addresses of a host, none if it has none; now if that is known."""
        if is_address(host):
            then([host])
            return
        found, until = self._found.get(host, ([], 0.0))
        if self._loop.time() < until:
            then(found)
            return
        for asked in (self._waiting, self._looking):
            if host in asked:
                asked[host].append(then)
                return
        if self._is_closed or len(self._waiting) >= _MOST_WAITING:
            then([])
            return
        self._waiting[host] = [then]
        self._look()

    def close(self) -> None:
        """Tell nobody any more; a look-up under way ends by itself."""
        self._is_closed = True
        self._waiting.clear()
        self._looking.clear()

    def _look(self) -> None:
        while self._waiting and len(self._looking) < _MOST_THREADS:
            host, asked = self._waiting.popitem(last=False)
            self._looking[host] = asked
            look_up(self._loop, host, partial(self._done, host))

    def _done(self, host: str, found: list[str]) -> None:
        self._found[host] = (found, self._loop.time() + _LIFETIME)
        self._found.move_to_end(host)
        while len(self._found) > _MOST_NAMES:
            self._found.popitem(last=False)
        for then in self._looking.pop(host, []):
            then(found)
        self._look()
