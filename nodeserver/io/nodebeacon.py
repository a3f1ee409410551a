"""The node's side of the search for nodes: it answers those with its key, and announces itself."""

import asyncio
import errno
import logging
import random
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from nodeserver.core.errors import PortBusy
from nodeserver.io import netif
from nodeserver.io.datagrams import (
    Budget,
    DatagramSocket,
    SocketAddress,
    Throttle,
    family_of,
    printable,
)
from nodeserver.io.keys import Secret
from nodeserver.io.multicast import Membership, group_interfaces, send_to_group
from nodeserver.io.udp import (
    CLIENT_PORT,
    JITTER,
    NODE_PORT,
    NONCE_LIFETIME,
    OTHER_KEY_INTERVAL,
    open_if_there,
)
from nodeserver.wire import beacon

# close to each other: each is answered by one ping at the most, so that nobody is made to send
# more than he gets, and of these three packets in a row each may be lost
_FIRST_GAPS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 1.0, 2.0)
_ANNOUNCE_INTERVAL: Final = 5.0  # after these, for clients that have not heard them
_SERIES: Final = sum(_FIRST_GAPS) + NONCE_LIFETIME
_REPLAY_WINDOW: Final = 60.0
_REPLAY_LIMIT: Final = 16384
_WARN_INTERVAL: Final = 600.0
_MOST_WARNINGS: Final = 20  # in that time
_CLOCK_MASK: Final = 0xFFFFFFFF

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BeaconPlace:
    """Where a node's beacon listens ('': everywhere), and where clients listen for it.

    `own_port` is one more port at which it answers, which no other node of the machine shares.
    """

    address: str = ''
    port: int = NODE_PORT
    client_port: int = CLIENT_PORT
    ipv4_multicast: bool = False
    own_port: int = 0


class NodeBeacon:
    """Answers pings that are under our key, and announces the node as long as it is there.

    Broadcasts and multicasts come only to sockets bound to every address; a unicast ping goes to
    the socket that is bound to its very address, so that nodes of one machine can share the port
    (each with an `ip_addr` of its own).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        secret: Secret,
        contact: beacon.NodeContact,
        place: BeaconPlace = BeaconPlace(),
    ) -> None:
        self.contact = contact  # replaced when the node's port or socket changes
        self._loop, self._key, self._place = loop, secret.beacon_key(), place
        self._budget, self._answered = Budget(), _Answered()
        self._answers = Throttle(OTHER_KEY_INTERVAL)
        self._warnings = Throttle(_WARN_INTERVAL, _MOST_WARNINGS)
        self._announced_at = -_SERIES
        self._timer: asyncio.TimerHandle | None = None
        self._sockets: list[DatagramSocket] = []
        # told where a client wants to be connected to (A20)
        self.called: Callable[[beacon.Asker, beacon.Callback], None] = lambda asker, there: None
        self._own: list[DatagramSocket] = []  # bound to the one address that we have
        try:
            self._interfaces = netif.interfaces(place.address or None)
            self._open_sockets()
        except OSError as exc:
            self.close()
            if exc.errno == errno.EADDRINUSE:
                raise PortBusy(place.port, place.address, '--node_port') from exc
            raise

    @property
    def port(self) -> int:
        """The UDP port that pings come to."""
        return self._sockets[0].port

    def announce(self) -> None:
        """Tell schedulers that listen that a node is here: often at first, then now and then.

        Packets get lost, networks heal, and a client that has nodes already does not ask again.
        """
        self._stop_announcing()
        self._announced_at = self._loop.time()
        self._announce_after(list(_FIRST_GAPS))

    def close(self) -> None:
        """Fall silent; a second time does nothing."""
        self._stop_announcing()
        for sock in self._sockets:
            sock.close()

    # sockets

    def _open_sockets(self) -> None:
        address, port = self._place.address, self._place.port
        family = family_of(address)
        everywhere = []
        if not address or family == socket.AF_INET:
            everywhere.append(self._listen('', port))
            port = everywhere[0].port
        if not address or family == socket.AF_INET6:
            found = open_if_there(self._listen, port, bool(self._place.port))
            everywhere += [found] if found is not None else []
        if address:
            port = everywhere[0].port if everywhere else port
            self._own.append(self._listen(address, port))
        if self._place.own_port not in (0, port):
            self._open_own_port(self._place.own_port)
        self._groups = [Membership(sock) for sock in everywhere]
        self._everywhere = {sock.family: sock for sock in everywhere}
        self._follow_interfaces()

    def _listen(self, address: str, port: int) -> DatagramSocket:
        sock = DatagramSocket(self._loop, self._received, (address, port), True, self._budget)
        self._sockets.append(sock)
        return sock

    def _open_own_port(self, port: int) -> None:
        """Be found at the TCP port's number too, where other nodes here share the usual port."""
        for address in [self._place.address] if self._place.address else ['', '::']:
            try:
                sock = self._listen(address, port)
            except OSError as exc:
                _log.debug('not found at UDP port %d: %s', port, exc)
            else:
                self._own += [sock] if address == self._place.address != '' else []

    def _follow_interfaces(self) -> None:
        present = netif.present_interfaces(self._place.address or None)
        if present is not None:
            self._interfaces = present
            for group in self._groups:
                group.follow(present)

    # answers

    def _received(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        if packet is None or not self._is_for_us(sock, source):
            return
        now = self._loop.time()
        if isinstance(packet, beacon.Ping):
            if self._answered.is_new(packet.nonce, now):
                pong = beacon.encode_pong(packet.nonce, self._contact_now(), self._key)
                self._answering(sock).send(pong, source)
                if packet.callback is not None:
                    self.called(packet.asker, packet.callback)
        elif isinstance(packet, beacon.WrongKey) and packet.kind is beacon.Kind.PING:
            if self._answers.allows(source[0], now):
                self._answering(sock).send(beacon.OTHER_KEY_PACKET, source)
            self._warn(printable(source))
        elif isinstance(packet, beacon.OtherKey) and now - self._announced_at < _SERIES:
            self._warn(printable(source))  # at other times it is idle talk

    def _is_for_us(self, sock: DatagramSocket, source: SocketAddress) -> bool:
        """Whether it came to our own address or, where we have but one, from its network."""
        if not self._own or sock in self._own:
            return True
        address = printable(source)
        return any(interface.reaches(address) for interface in self._interfaces)

    def _answering(self, sock: DatagramSocket) -> DatagramSocket:
        """Choose the socket that answers: clients take the source of a PONG for our address."""
        return sock if not self._own or sock in self._own else self._own[0]

    def _contact_now(self) -> beacon.NodeContact:
        return replace(self.contact, clock=int(time.time()) & _CLOCK_MASK)

    def _warn(self, address: str) -> None:
        if self._warnings.allows(address, self._loop.time()):
            _log.warning(
                'somebody at %s uses another key and is not served; if it is you: '
                '`dispy key export` there, `dispy key import` here',
                address,
            )

    # announcements

    def _announce_after(self, gaps: list[float]) -> None:
        gap = gaps.pop(0) if gaps else _ANNOUNCE_INTERVAL
        gap *= random.uniform(1 - JITTER, 1 + JITTER)
        self._timer = self._loop.call_later(gap, self._announce_now, gaps)

    def _announce_now(self, gaps: list[float]) -> None:
        self._announce_after(gaps)
        self._follow_interfaces()
        nonce = secrets.token_bytes(beacon.NONCE_SIZE)
        packet = beacon.encode_here(nonce, self._contact_now(), self._key)
        port = self._place.client_port
        for family, sock in self._everywhere.items():
            speaking = self._answering(sock)
            if family == socket.AF_INET and not self._place.ipv4_multicast:
                # the subnet's own broadcast address finds its interface, and the right source
                for interface in netif.broadcast_interfaces(self._interfaces):
                    speaking.send(packet, (interface.broadcast, port))
            else:
                for interface in group_interfaces(self._interfaces, family):
                    send_to_group(speaking, packet, port, interface)

    def _stop_announcing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Answered:
    """The nonces of pings that were answered: a recording of one is not answered again."""

    def __init__(self) -> None:
        self._nonces: OrderedDict[bytes, float] = OrderedDict()

    def is_new(self, nonce: bytes, now: float) -> bool:
        while self._nonces:
            oldest = next(iter(self._nonces))
            if now - self._nonces[oldest] < _REPLAY_WINDOW and len(self._nonces) < _REPLAY_LIMIT:
                break
            del self._nonces[oldest]
        if nonce in self._nonces:
            return False
        self._nonces[nonce] = now
        return True
