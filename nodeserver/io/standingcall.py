"""A node's standing connection to a scheduler that does not find it, or cannot reach it (D2).

look up ─▶ dial ──▶ nobody answers, or refuses: the link goes on by itself ──▶ connected
   ▲────────────────── gone, or taken leave of, or its name has another address ──┘
"""

import asyncio
import logging

from nodeserver.io.dialer import Target
from nodeserver.io.lookup import look_up
from nodeserver.io.zmqlink import ZmqLink

_LOOK_INTERVAL, _MOST_INTERVAL = 2.0, 60.0  # seconds; longer for who cannot be understood

_log = logging.getLogger(__name__)


class StandingCall:
    """Keeps dialling one host, whoever answers there, and says so when nobody does.

    Its name is looked up anew each time: it may be known only later, and have another address.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: ZmqLink, host: str, port: int
    ) -> None:
        self._loop, self._link = loop, link
        self._host, self._port = host, port
        self._target: Target | None = None
        self._complained = False
        self._is_closed = False
        self._interval = _LOOK_INTERVAL
        self._look()

    def close(self) -> None:
        """Dial no more; the link ends what there is."""
        self._is_closed = True
        self._timer.cancel()

    def _look(self) -> None:
        # begun anew by `_found`; a name server that does not answer is asked once at a time
        self._timer = self._loop.call_later(_MOST_INTERVAL, self._look)
        look_up(self._loop, self._host, self._found)

    def _found(self, addresses: list[str]) -> None:
        if self._is_closed:
            return
        pause, target = self._interval, self._target
        answered = self._link.has_answered(target) if target is not None else None
        if not addresses and not answered:
            self._complain(f'the address of {self._host} is not known; it is looked up until it is')
        elif answered is None:
            self._dial(addresses)
            self._interval = min(2 * self._interval, _MOST_INTERVAL)
        elif not answered and target is not None:
            self._complain(f'no scheduler answers at {target}; it is tried until one does')
            if addresses != [target.address]:
                self._link.withdraw(target)
                self._dial(addresses)
        elif target is not None and addresses and target.address not in addresses:
            self._target = self._link.redirect(target, Target(addresses[0], self._port))
        self._timer.cancel()
        self._timer = self._loop.call_later(pause, self._look)

    def _dial(self, addresses: list[str]) -> None:
        """Try the address after the one that was tried last."""
        last = self._target.address if self._target is not None else ''
        following = addresses.index(last) + 1 if last in addresses else 0
        target = self._target = Target(addresses[following % len(addresses)], self._port)
        self._link.dial(target, self._met)

    def _complain(self, words: str) -> None:
        if not self._complained:
            self._complained = True
            _log.info(words)

    def _met(self) -> None:
        """A scheduler answered: the next one is looked for, and missed, as this one was."""
        self._complained, self._interval = False, _LOOK_INTERVAL
