"""The scheduler's side of the search for nodes: it asks, and believes only answers."""

import asyncio
import errno
import logging
import secrets
import socket
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nodeserver.core.errors import KeyFileError, PortBusy
from nodeserver.core.events import Event, NodeFound, OtherKeySeen, RelayFound
from nodeserver.io import netif
from nodeserver.io.datagrams import (
    Budget,
    DatagramSocket,
    SocketAddress,
    Throttle,
    bind_address,
    family_of,
    printable,
)
from nodeserver.io.keys import Secret
from nodeserver.io.multicast import Membership, group_interfaces, send_to_group
from nodeserver.io.sightings import Sightings
from nodeserver.io.udp import CLIENT_PORT, NONCE_LIFETIME, OTHER_KEY_INTERVAL, open_if_there
from nodeserver.wire import beacon

_NONCE_LIMIT: Final = 16384
_HERE_INTERVAL: Final = 0.1  # of pings to an announcer
_MOST_ANNOUNCERS: Final = 4096  # that are asked back in this time
_FOLLOW_INTERVAL: Final = 5.0  # between looks at the interfaces, when nothing else leads to one

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientPlace:
    """The own addresses that are used (None: all), and where announcements are heard."""

    ip_addr: str | Sequence[str] | None = None
    port: int = CLIENT_PORT
    ipv4_multicast: bool = False
    option: str = 'port'  # what the port was given by


class ClientBeacon:
    """Asks for nodes, all of them or one by one, and believes only answers to its questions.

    `ip_addr` restricts all packets to interfaces with these addresses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Event], None],
        secret: Secret,
        asker: beacon.Asker,
        place: ClientPlace = ClientPlace(),
    ) -> None:
        self._loop, self._post, self._asker, self._place = loop, post, asker, place
        self._key, self._is_own = secret.beacon_key(), secret.is_own
        self._fingerprint, self._closed = netif.host_fingerprint(), False
        self.callback: beacon.Callback | None = None  # where nodes are to connect to us (A20)
        self._pinged: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._asked_at: OrderedDict[str, float] = OrderedDict()  # '': everybody
        self._answers = Throttle(OTHER_KEY_INTERVAL)
        self._seen = Throttle(OTHER_KEY_INTERVAL)
        self._asked_back = Throttle(_HERE_INTERVAL, _MOST_ANNOUNCERS)
        self.sightings = Sightings(loop, post, self._ping_named)
        self._budget = Budget()
        self._interfaces: list[netif.Interface] = []
        self._bound: dict[str, tuple[netif.Interface, DatagramSocket]] = {}
        self._unbound: dict[socket.AddressFamily, DatagramSocket] = {}
        self._listening: list[DatagramSocket] = []
        self._groups: list[Membership] = []
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._open_sockets()
        except OSError as exc:
            self.close()
            if exc.errno == errno.EADDRINUSE:
                raise PortBusy(place.port, '', place.option) from exc
            raise
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The UDP port at which announcements are heard."""
        return self._listening[0].port

    def ping(self, targets: Sequence[tuple[str, int]], broadcast_port: int) -> None:
        """Ask these numeric addresses and, with a port other than 0, everybody in reach."""
        if self._closed:
            return
        for address, port in targets:
            self._ping_named(address, port)
        if broadcast_port:
            self._follow_interfaces()
            self._ping_networks(broadcast_port)
            self._ping_groups(socket.AF_INET6, broadcast_port)

    def close(self) -> None:
        """Close all sockets; a second time does nothing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.sightings.close()
        for _, sock in self._bound.values():
            sock.close()
        for sock in (*self._unbound.values(), *self._listening):
            sock.close()

    # sockets

    def _open_sockets(self) -> None:
        self._interfaces = netif.interfaces(self._place.ip_addr)
        families = {interface.family for interface in self._interfaces}
        is_free, port = self._place.ip_addr is None, self._place.port
        if is_free or socket.AF_INET in families:
            self._listening.append(self._listen('', port))
        if is_free or socket.AF_INET6 in families:
            port = self._listening[0].port if self._listening else port
            found = open_if_there(self._listen, port, bool(self._place.port))
            self._listening += [found] if found is not None else []
        self._groups = [
            Membership(sock)
            for sock in self._listening
            if sock.family == socket.AF_INET6 or self._place.ipv4_multicast
        ]
        if is_free:
            self._unbound[socket.AF_INET] = self._speak('', 0)
            speaking = open_if_there(self._speak, 0, is_port_given=False)
            self._unbound |= {} if speaking is None else {socket.AF_INET6: speaking}
        self._follow_now_and_then()

    def _listen(self, address: str, port: int) -> DatagramSocket:
        return DatagramSocket(self._loop, self._received, (address, port), True, self._budget)

    def _speak(self, address: str, port: int) -> DatagramSocket:
        return DatagramSocket(self._loop, self._received, (address, port), budget=self._budget)

    def _follow_now_and_then(self) -> None:
        """Hear announcements also on networks that this machine joins later."""
        self._follow_interfaces()
        self._timer = self._loop.call_later(_FOLLOW_INTERVAL, self._follow_now_and_then)

    def _follow_interfaces(self) -> None:
        """Follow the machine's interfaces as they come and go."""
        present = netif.present_interfaces(self._place.ip_addr)
        if present is None:
            return
        self._interfaces = present
        for group in self._groups:
            group.follow(present)
        there = {interface.address: interface for interface in present}
        for address in set(self._bound) - set(there):
            self._bound.pop(address)[1].close()
        for address, interface in there.items():
            if address not in self._bound and self._speaks_from(interface):
                try:
                    sock = self._speak(address, 0)
                except OSError as exc:  # it has just gone, or is not ready yet
                    _log.debug('no pings from %s: %s', address, exc)
                else:
                    self._bound[address] = (interface, sock)
        self.sightings.ipv4_names = frozenset(i.name for i in present if i.broadcast)

    def _speaks_from(self, interface: netif.Interface) -> bool:
        """Whether this address needs a socket of its own."""
        if self._place.ip_addr is not None or interface.broadcast:
            return True
        return self._place.ipv4_multicast and not interface.is_ipv6

    # questions

    def _ping_networks(self, port: int) -> None:
        """Ask everybody by IPv4."""
        if self._place.ipv4_multicast:
            self._ping_groups(socket.AF_INET, port)
            return
        bound = [interface for interface, _ in self._bound.values()]
        for interface in netif.broadcast_interfaces(bound):
            sock = self._bound[interface.address][1]
            sock.send(self._fresh_ping(''), (interface.broadcast, port))

    def _ping_groups(self, family: socket.AddressFamily, port: int) -> None:
        """Ask everybody by multicast."""
        for interface in group_interfaces(self._interfaces, family):
            bound = self._bound.get(interface.address)
            sock = bound[1] if bound is not None else self._unbound.get(family)
            if sock is not None:
                send_to_group(sock, self._fresh_ping(''), port, interface)

    def _ping_named(self, address: str, port: int) -> None:
        self._ping_one(address, port, address)

    def _ping_one(self, address: str, port: int, asked: str) -> None:
        try:
            target = bind_address(address, port)
        except (OSError, ValueError):
            _log.warning('%r is not an IP address and is not asked for a node', address)
            return
        if sock := self._sending_to(address):
            sock.send(self._fresh_ping(asked), target)

    def _sending_to(self, address: str) -> DatagramSocket | None:
        """Choose the socket for an address: of its network if we are restricted to some."""
        family = family_of(address)
        if self._place.ip_addr is None:
            return self._unbound.get(family)
        usable = [(i, sock) for i, sock in self._bound.values() if sock.family == family]
        near = [sock for interface, sock in usable if interface.reaches(address)]
        return near[0] if near else usable[0][1] if usable else None

    def _fresh_ping(self, asked: str) -> bytes:
        """Make a ping with a nonce that is remembered; `asked` is '' where all are asked."""
        now = self._loop.time()
        self._forget_old(now)
        nonce = secrets.token_bytes(beacon.NONCE_SIZE)
        self._pinged[nonce] = (now, asked)
        self._asked_at[asked] = now
        self._asked_at.move_to_end(asked)
        if len(self._asked_at) > _NONCE_LIMIT:
            self._asked_at.popitem(last=False)
        return beacon.encode_ping(nonce, self._asker, self._key, self.callback)

    def _forget_old(self, now: float) -> None:
        while self._pinged:
            sent_at, _ = next(iter(self._pinged.values()))
            if now - sent_at < NONCE_LIFETIME and len(self._pinged) < _NONCE_LIMIT:
                break
            self._pinged.popitem(last=False)

    def _has_asked(self, asked: str, now: float) -> bool:
        return now - self._asked_at.get(asked, float('-inf')) < NONCE_LIFETIME

    # answers

    def _received(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        if packet is None:
            return
        now = self._loop.time()
        self._forget_old(now)
        if isinstance(packet, beacon.Pong):
            if packet.nonce in self._pinged:
                self._answered(packet.contact, source, self._pinged[packet.nonce][1])
        elif isinstance(packet, beacon.Here):
            self._heard(packet.contact, source, now)
        elif isinstance(packet, beacon.OtherKey):
            address = printable(source)
            if self._has_asked('', now) or self._has_asked(address, now):
                self._saw_other_key(address, now)
        elif isinstance(packet, beacon.WrongKey) and packet.kind is beacon.Kind.HERE:
            self._refuse(source, now)

    def _answered(self, contact: beacon.NodeContact, source: SocketAddress, asked: str) -> None:
        address, port = printable(source), source[1]
        is_tls = bool(contact.flags & beacon.Flag.TLS)
        if contact.flags & beacon.Flag.RELAY:
            self._post(RelayFound(contact.node, address, contact.port, is_tls))
            return
        found = NodeFound(
            contact.node,
            address,
            contact.port,
            self._local_path(contact),
            port,
            is_tls=is_tls,
        )
        self.sightings.seen(found, contact.ext_host, is_named=bool(asked))

    def _heard(self, contact: beacon.NodeContact, source: SocketAddress, now: float) -> None:
        """Ask a node that announces itself, unless we are connected to it there."""
        address, port = printable(source), source[1]
        if self.sightings.is_settled(contact.node, address, port) or not self._is_near(address):
            return
        if self._asked_back.allows(source[:2], now):
            self._ping_one(address, port, '')

    def _is_near(self, address: str) -> bool:
        """Whether who announces itself is on a network that we use: no router passes that on."""
        if self._place.ip_addr is None:
            return True
        return any(interface.reaches(address) for interface in self._interfaces)

    def _refuse(self, source: SocketAddress, now: float) -> None:
        address = printable(source)
        if not self._is_near(address):
            return
        self._saw_other_key(address, now)
        sock = self._sending_to(address)
        if sock and self._answers.allows(source[0], now):
            sock.send(beacon.OTHER_KEY_PACKET, source)

    def _saw_other_key(self, address: str, now: float) -> None:
        if self._seen.allows(address, now):
            self._post(OtherKeySeen(address))

    def _local_path(self, contact: beacon.NodeContact) -> str:
        """Return the node's ipc socket if it is this very machine's and user's, else ''."""
        if not (contact.local_name and self._is_own) or contact.fingerprint != self._fingerprint:
            return ''
        try:
            path = netif.runtime_directory() / contact.local_name
            return str(path) if stat.S_ISSOCK(path.stat().st_mode) else ''
        except (KeyFileError, OSError) as exc:
            _log.debug('no local connection to node %s: %s', contact.node, exc)
            return ''
