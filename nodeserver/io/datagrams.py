"""UDP sockets on an event loop, and limits on how much of a flood they look at and answer."""

import asyncio
import ipaddress
import logging
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final

SocketAddress = tuple[Any, ...]  # (host, port) or, for IPv6, (host, port, flow, scope)
Received = Callable[['DatagramSocket', bytes, SocketAddress], None]

_LARGEST: Final = 2048
_DRAIN: Final = 64  # datagrams a loop turn, so that a flood leaves time for everything else
_RECEIVE_BUFFER: Final = 1 << 20  # answers of a thousand nodes come at once
_PAUSE: Final = 0.05  # without looking, once the budget is spent

# Linux gives a broadcast to all sockets that share so; REUSEPORT would give it to one of them
_SHARING: Final = (
    socket.SO_REUSEADDR if sys.platform == 'linux' else getattr(socket, 'SO_REUSEPORT', 4)
)

_log = logging.getLogger(__name__)


class Budget:
    """How many datagrams may be looked at: so many a second, and after a quiet time a burst.

    It is shared by the sockets of one beacon.  What is over it stays with the kernel, which drops
    what does not fit into its buffer, at no cost to us.  A forged packet costs 6 us, so that a
    flood takes an eighth of a processor; what is genuine has to come through it, too, and a
    smaller budget would let less of it.
    """

    def __init__(self, per_second: float = 20_000, burst: float = 20_000) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._filled_at = burst, 0.0

    def fill(self, now: float) -> None:
        """Note the time that has passed."""
        more = (now - self._filled_at) * self._per_second
        self._left, self._filled_at = min(self._burst, self._left + more), now

    def spend(self) -> bool:
        """Take one; False where none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class DatagramSocket:
    """A UDP socket that hands over what arrives and never raises for what it cannot send."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        received: Received,
        place: tuple[str, int] = ('', 0),
        shared: bool = False,
        budget: Budget | None = None,
    ) -> None:
        address, port = place
        self._loop, self._received, self._budget = loop, received, budget or Budget()
        self._resuming: asyncio.TimerHandle | None = None
        self.family = family_of(address)
        self.socket = socket.socket(self.family, socket.SOCK_DGRAM)
        try:
            self._prepare()
            self._bind(bind_address(address, port) if address else (address, port), shared)
        except OSError:
            self.socket.close()
            raise
        loop.add_reader(self.socket, self._drain)

    @property
    def port(self) -> int:
        """The port that the socket is bound to."""
        return int(self.socket.getsockname()[1])

    def send(self, data: bytes, target: SocketAddress) -> bool:
        """Send a packet; False where the network does not take it (others may do so)."""
        try:
            self.socket.sendto(data, target)
        except OSError as exc:  # no route, a filter's EPERM, a full buffer, an interface gone
            _log.debug('a UDP packet to %s port %s was not sent: %s', target[0], target[1], exc)
            return False
        return True

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket)
            self.socket.close()

    def _prepare(self) -> None:
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if self.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    def _bind(self, address: SocketAddress, shared: bool) -> None:
        """Bind, on a port that several programs of one machine can have if it is `shared`."""
        if shared and address[1]:
            self.socket.setsockopt(socket.SOL_SOCKET, _SHARING, 1)
        self.socket.bind(address)
        if shared:  # with it set before, a port chosen by the system could be somebody's
            self.socket.setsockopt(socket.SOL_SOCKET, _SHARING, 1)

    def _drain(self) -> None:
        self._budget.fill(self._loop.time())
        for _ in range(_DRAIN):
            if not self._budget.spend():
                self._pause()
                return
            try:
                data, source = self.socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError as exc:  # an earlier packet's "port unreachable", on some systems
                _log.debug('receiving on UDP: %s', exc)
                return
            self._received(self, data, source)
            if self.socket.fileno() < 0:  # closed by what it led to
                return

    def _pause(self) -> None:
        self._loop.remove_reader(self.socket)
        self._resuming = self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self.socket, self._drain)


class Throttle:
    """Allows a thing once in so many seconds for each key, of which it remembers only so many."""

    def __init__(self, interval: float, size: int = 256) -> None:
        self._interval, self._size = interval, size
        self._allowed_at: OrderedDict[Hashable, float] = OrderedDict()

    def allows(self, key: Hashable, now: float) -> bool:
        """Tell whether it may be done now; a table full of recent keys allows no new one."""
        while self._allowed_at:
            oldest = next(iter(self._allowed_at))
            if now - self._allowed_at[oldest] < self._interval:
                break
            del self._allowed_at[oldest]
        if key in self._allowed_at or len(self._allowed_at) >= self._size:
            return False
        self._allowed_at[key] = now
        return True


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of a numeric address; '' means IPv4."""
    return socket.AF_INET6 if ':' in address else socket.AF_INET


def bind_address(address: str, port: int) -> SocketAddress:
    """Return what sockets take for a numeric address; a ValueError if it is not numeric."""
    ipaddress.ip_address(address)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=flags)[0][4]


def printable(source: SocketAddress) -> str:
    """Return the address of a sender, with the interface where a link-local one needs it."""
    host = str(source[0])
    if len(source) == 4 and source[3] and '%' not in host:
        try:
            return f'{host}%{socket.if_indextoname(source[3])}'
        except OSError:  # the interface has gone since
            return host
    return host
