"""Connections at a port that have not said yet who they are: how many there may be, how long.

    ACCEPTED ─▶ guest ─ HELLO of a peer that is admitted ─▶ peer ─▶ DISCONNECTED
                  └─ too late, or too many ─▶ shut down ───────────▶ DISCONNECTED

The library accepts whoever comes, without limit.  Whoever is shut down here has used one
descriptor for a moment.  Of too many the oldest goes, of the network that has the most: a
handshake takes milliseconds, and who is about to end one should not be turned away because of
others that never will.
"""

import asyncio
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from nodeserver.io.datagrams import Throttle

if sys.platform != 'win32':
    import resource

log = logging.getLogger('nodeserver.link')

MOST_GUESTS = 512
MOST_OF_A_NETWORK = 128  # guests of one address; of IPv6, of one /64, as one machine has all of it
GREETING_TIME = 1.0  # seconds, beyond those for the handshake
_NEVER_FILLED = 64  # descriptors that connections leave to the program's other work
_ONE_LINE_PER = 60.0
_LINES_PER = 20  # of different networks, in that time


class _Guest(NamedTuple):
    """A connection that has not greeted."""

    peer: Any  # address and port, as the system writes them
    network: str
    deadline: float


class Anteroom:
    """Knows all connections of one port by their descriptors, and shuts down who stays too long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        origin: Callable[[str], str] = str,  # who is behind an address of ours
    ) -> None:
        self._loop, self._origin = loop, origin
        self._patience = patience + GREETING_TIME
        self._guests: dict[int, _Guest] = {}  # the oldest first
        self._of_network: dict[str, int] = {}  # guests
        self._peers: set[int] = set()  # those that have greeted
        self._most = most_connections()
        self._timer: asyncio.TimerHandle | None = None
        self._complaints = Throttle(_ONE_LINE_PER, _LINES_PER)

    def __len__(self) -> int:
        return len(self._guests)

    def accepted(self, fd: int) -> None:
        """Let a connection in, unless there are too many."""
        self.left(fd)  # of an earlier one with this descriptor the end was not told
        peer = _peer_of(fd)
        if peer is None:  # it is closed already
            return
        network = network_of(self._origin(plain(peer[0])))
        guest = _Guest(peer, network, self._loop.time() + self._patience)
        if len(self._peers) + len(self._guests) >= self._most:
            self._turn_away(fd, guest, f'there are {self._most} connections, which is the most')
            return
        self._guests[fd] = guest
        self._of_network[network] = count = self._of_network.get(network, 0) + 1
        if count > MOST_OF_A_NETWORK:
            self._evict(network)
        elif len(self._guests) > MOST_GUESTS:
            self._evict(max(self._of_network, key=self._of_network.__getitem__))
        self._wake_up()

    def greeted(self, fd: int) -> None:
        """Note that a peer that was admitted speaks over a connection."""
        if self._forget(fd) is not None:
            self._peers.add(fd)

    def left(self, fd: int) -> str:
        """Forget a connection that ended; its address, if it was a guest that is known."""
        self._peers.discard(fd)
        guest = self._forget(fd)
        return self._origin(plain(guest.peer[0])) if guest is not None else ''

    def close(self) -> None:
        """Let nobody be shut down any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _forget(self, fd: int) -> _Guest | None:
        guest = self._guests.pop(fd, None)
        if guest is not None:
            left = self._of_network[guest.network] - 1
            if left:
                self._of_network[guest.network] = left
            else:
                del self._of_network[guest.network]
        return guest

    def _evict(self, network: str) -> None:
        fd = next(fd for fd, guest in self._guests.items() if guest.network == network)
        guest = self._forget(fd)
        assert guest is not None
        self._turn_away(fd, guest, 'too many at once have not said who they are')

    def _turn_away(self, fd: int, guest: _Guest, why: str) -> None:
        shut_down(fd, guest.peer)
        if self._complaints.allows(guest.network, self._loop.time()):
            log.warning('closing connections from %s: %s', guest.network, why)

    def _wake_up(self) -> None:
        if self._timer is None and self._guests:
            first = next(iter(self._guests.values()))
            self._timer = self._loop.call_at(first.deadline, self._sweep)

    def _sweep(self) -> None:
        """Shut down those whose time is over."""
        self._timer, now = None, self._loop.time()
        for fd, guest in list(self._guests.items()):
            if guest.deadline > now:
                break
            self._forget(fd)
            self._turn_away(fd, guest, f'no greeting within {self._patience:g} s')
        self._wake_up()


def most_connections() -> int:
    """Say how many connections a port may have: three quarters of what the system allows."""
    if sys.platform == 'win32':
        return 1 << 20
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(soft - max(soft // 4, _NEVER_FILLED), 1)


def network_of(address: str) -> str:
    """Name what one machine can have as many addresses of as it likes: a /64 of IPv6."""
    if ':' not in address:
        return address
    packed = ipaddress.IPv6Address(address.partition('%')[0]).packed
    return f'{ipaddress.IPv6Address(packed[:8] + bytes(8))}/64'


def plain(address: str) -> str:
    """Write an IPv4 address as usual, if it came to a socket of both families."""
    return address.removeprefix('::ffff:') if '.' in address else address


def _peer_of(fd: int) -> Any:
    """Who is at the other end: the address and port, or None if that cannot be said."""
    return _with_socket(fd, lambda sock: sock.getpeername() or None)


def shut_down(fd: int, peer: Any) -> None:
    """End a connection of the library's, if its descriptor still is that peer's."""

    def end(sock: socket.socket) -> None:
        if sock.getpeername() == peer:
            sock.shutdown(socket.SHUT_RDWR)

    _with_socket(fd, end)


def _with_socket(fd: int, act: Callable[[socket.socket], Any]) -> Any:
    """Look at a descriptor that belongs to the library; None if it is no connected socket."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # closed in the meantime
        return None
    try:
        return act(sock)
    except OSError:
        return None
    finally:
        sock.detach()
