"""A node's standing connection to a scheduler that does not find it, or cannot reach it (D2).

dial ──▶ nobody answers, or refuses: the link goes on by itself ──▶ connected
 ▲────────────────────── gone, or taken leave of ──────────────────────┘
"""

import asyncio
import logging

from nodeserver.io.dialer import Target
from nodeserver.io.zmqlink import ZmqLink

_LOOK_INTERVAL, _MOST_INTERVAL = 2.0, 60.0  # seconds; longer for who cannot be understood

_log = logging.getLogger(__name__)


class StandingCall:
    """Keeps dialling one address, whoever answers there, and says so when nobody does."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: ZmqLink, address: str, port: int
    ) -> None:
        self._loop, self._link = loop, link
        self._target = Target(address, port)
        self._complained = False
        self._interval = _LOOK_INTERVAL
        self._look()

    def close(self) -> None:
        """Dial no more; the link ends what there is."""
        self._timer.cancel()

    def _look(self) -> None:
        pause, answered = self._interval, self._link.has_answered(self._target)
        if answered is None:
            self._link.dial(self._target, self._met)
            self._interval = min(2 * self._interval, _MOST_INTERVAL)
        elif not answered and not self._complained:
            self._complained = True
            _log.info('no scheduler answers at %s; it is tried until one does', self._target)
        self._timer = self._loop.call_later(pause, self._look)

    def _met(self) -> None:
        """A scheduler answered: the next one is looked for, and missed, as this one was."""
        self._complained, self._interval = False, _LOOK_INTERVAL
