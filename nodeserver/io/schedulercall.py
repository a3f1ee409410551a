"""A program's standing call to its shared scheduler.

look up ─▶ see who accepts, address after address ─▶ dial ─▶ connected
   ▲── nobody ─▶ missed(why), again after a pause       └─ gone ─▶ again at once
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nodeserver.io import netif
from nodeserver.io.connecting import Connecting, words_of
from nodeserver.io.dialer import Target
from nodeserver.io.lookup import look_up
from nodeserver.io.zmqlink import ZmqLink

CONNECT_LIMIT = 2.0  # seconds; within that lost packets are sent again
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 0.5
LOOK_INTERVAL = 1.0  # at a connection that stands
REFUSED_PAUSE = 5.0
BROKEN_AFTER, LOST_AFTER = 5.0, 15.0  # seconds without a connection that stood
SILENT_AFTER = 5.0  # seconds in which somebody who accepts is to say who he is
_SHORT = 1.0  # a connection that is over so soon is not made anew at once
_HERE = '127.0.0.1'

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SchedulerPlace:
    """Where a scheduler takes connections of programs; `host` '' is this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f'{self.host or "this machine"}, port {self.port}'

    def addresses(self) -> list[str]:
        """Return the addresses at which a scheduler on this machine may listen."""
        own = [interface.address for interface in netif.interfaces()]
        return list(dict.fromkeys((_HERE, *own)))


class Caller(NamedTuple):
    """Who has a scheduler called."""

    is_linked: Callable[[], bool]
    missed: Callable[[str, bool], None]  # why, and whether it is a refusal
    given_up: Callable[[str], None]  # the connection is broken for too long
    stands: Callable[[], None]  # the connection does; told every second


class SchedulerCall:
    """Keeps one place dialled while no scheduler is connected."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: ZmqLink,
        place: SchedulerPlace,
        caller: Caller,
        uses_local: bool,
    ) -> None:
        self._loop, self._link, self._place = loop, link, place
        self._is_linked, self._missed, self._given_up, self._stands = caller
        self._uses_local = uses_local
        self._target: Target | None = None
        self._dialled_at = self._seen_at = 0.0
        self._connecting: Connecting | None = None
        self._pause = FIRST_PAUSE
        self._is_looking_up = False
        self._is_closed = False
        self._timer = loop.call_later(0, self._look)

    def close(self) -> None:
        """Dial no more; the link ends what there is."""
        self._is_closed = True
        self._stop()

    def linked(self) -> None:
        """A scheduler is connected, whoever called whom."""
        self._dialled_at = self._seen_at = self._loop.time()

    def lost(self) -> None:
        """The scheduler is gone: look for it at once, unless it came only to go."""
        lasted = self._loop.time() - self._dialled_at
        self._pause = FIRST_PAUSE if lasted > _SHORT else LONGEST_PAUSE
        self._look_after(self._pause)

    def refused(self, reason: str) -> None:
        """Who answered there turns us away: it may be another program in a while."""
        if self._target is not None:
            self._link.withdraw(self._target)
        self._missed(reason, True)
        self._look_after(REFUSED_PAUSE)

    def _stop(self) -> None:
        self._timer.cancel()
        if self._connecting is not None:
            self._connecting.close()
            self._connecting = None

    def _look_after(self, seconds: float) -> None:
        self._stop()
        if not self._is_closed:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._is_linked():
            self._pause, self._seen_at = FIRST_PAUSE, now
            self._look_after(LOOK_INTERVAL)
            self._stands()
        elif self._target is not None and self._link.has_answered(self._target):
            self._look_after(LOOK_INTERVAL)  # its connection broke: the link makes it anew
            if now - self._seen_at > LOST_AFTER:
                self._given_up(f'it could not be reached for {LOST_AFTER:g} s')
            elif now - self._seen_at > BROKEN_AFTER:
                self._missed('the connection broke, and is being made anew', False)
        else:
            self._begin()

    def _begin(self) -> None:
        if not self._place.host:
            self._found(self._place.addresses())
            return
        self._look_after(LOOK_INTERVAL)
        if not self._is_looking_up:  # a name server that does not answer is asked once at a time
            self._is_looking_up = True
            look_up(self._loop, self._place.host, self._found)

    def _found(self, addresses: list[str]) -> None:
        self._is_looking_up = False
        if self._is_closed or self._is_linked():
            return
        if not addresses:
            self._failed(f'the address of {self._place.host} is not known')
            return
        self._try(addresses, '')

    def _try(self, addresses: list[str], reason: str) -> None:
        """See whether anybody accepts at the first of the addresses, else at the others."""
        self._stop()
        if not addresses:
            self._failed(reason)
            return
        address, *others = addresses

        def seen(code: int) -> None:
            self._connecting = None
            if code:
                self._try(others, reason or words_of(code))
            else:
                self._dial(address)

        place = address, self._place.port
        self._connecting = Connecting(self._loop, place, CONNECT_LIMIT, seen)

    def _dial(self, address: str) -> None:
        target = Target(address, self._place.port, self._local_path(address))
        if self._target is not None and target != self._target:
            self._link.withdraw(self._target)
        now = self._loop.time()
        if self._link.has_answered(target) is None:
            self._target, self._dialled_at = target, now
            self._link.dial(target)
        elif now - self._dialled_at > SILENT_AFTER:
            self._missed('somebody accepts connections there, and says nothing', False)
        self._look_after(LOOK_INTERVAL)

    def _failed(self, reason: str) -> None:
        self._missed(reason, False)
        self._look_after(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _local_path(self, address: str) -> str:
        """Where a scheduler on this machine takes this user's programs without TCP, if it does."""
        if not self._uses_local or not netif.is_local_address(address):
            return ''
        path = netif.runtime_directory() / netif.scheduler_socket(self._place.port)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            return '' if sock.connect_ex(str(path)) else str(path)
