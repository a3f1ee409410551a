"""Finding nodes by UDP: the node's side, which answers, and the scheduler's, which asks.

    ClientBeacon.ping() ── PING ──▶ NodeBeacon ── PONG ──▶ ClientBeacon ── NodeFound ──▶ core
    NodeBeacon.announce() ── HERE, broadcast ──▶ ClientBeacon ── PING ──▶ NodeBeacon, as above

Both live on an event loop's thread; nothing here blocks or raises once it is made.
"""

import asyncio
import errno
import logging
import random
import secrets
import socket
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nodeserver.core.errors import KeyFileError, PortBusy
from nodeserver.core.events import Event, NodeFound, OtherKeySeen
from nodeserver.io import netif
from nodeserver.io.datagrams import (
    DatagramSocket,
    SocketAddress,
    Throttle,
    bind_address,
    family_of,
    printable,
)
from nodeserver.io.keys import Secret
from nodeserver.wire import beacon

CLIENT_PORT: Final = 51347
NODE_PORT: Final = 51348

_ANNOUNCE_GAPS: Final = (0.0, 0.2, 0.4, 0.8, 1.6, 2.0)
_JITTER: Final = 0.2
_NONCE_LIFETIME: Final = 10.0
_NONCE_LIMIT: Final = 16384
_ANSWER_INTERVAL: Final = 1.0  # of OTHER_KEY, for each address
_HERE_INTERVAL: Final = 0.1  # of pings to an announcer
_WARN_INTERVAL: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BeaconPlace:
    """Where a node's beacon listens ('': everywhere), and where clients listen for it."""

    address: str = ''
    port: int = NODE_PORT
    client_port: int = CLIENT_PORT


class NodeBeacon:
    """Answers pings that are under our key, and announces the node when it starts.

    Broadcasts come only to a socket bound to every address; a unicast ping goes to the socket
    that is bound to its very address, so that nodes of one machine can share the port (each
    with an `ip_addr` of its own).
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
        self._answers, self._warnings = Throttle(_ANSWER_INTERVAL), Throttle(_WARN_INTERVAL)
        self._announced_at = -_NONCE_LIFETIME
        self._timer: asyncio.TimerHandle | None = None
        self._sockets: list[DatagramSocket] = []
        try:
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
        """Tell schedulers that listen that a node is here; some packets may be lost, so often."""
        self._stop_announcing()
        self._announce_after(list(_ANNOUNCE_GAPS))

    def close(self) -> None:
        """Fall silent; a second time does nothing."""
        self._stop_announcing()
        for sock in self._sockets:
            sock.close()

    def _open_sockets(self) -> None:
        address, port = self._place.address, self._place.port
        if family_of(address) == socket.AF_INET:
            self._sockets.append(self._listen('', port))
        if address:
            port = self._sockets[0].port if self._sockets else port
            self._sockets.append(self._listen(address, port))
        elif socket.has_ipv6:
            self._open_ipv6(self._sockets[0].port)

    def _listen(self, address: str, port: int) -> DatagramSocket:
        return DatagramSocket(self._loop, self._received, address, port, shared=True)

    def _open_ipv6(self, port: int) -> None:
        try:
            sock = self._listen('::', port)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and self._place.port:
                raise
            _log.debug('no pings by IPv6: %s', exc)  # switched off on this machine
        else:
            self._sockets.append(sock)

    def _received(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        if isinstance(packet, beacon.Ping):
            pong = beacon.encode_pong(packet.nonce, self.contact, self._key)
            self._answering(sock).send(pong, source)
        elif isinstance(packet, beacon.WrongKey) and packet.kind is beacon.Kind.PING:
            if self._answers.allows(source[0], self._loop.time()):
                self._answering(sock).send(beacon.OTHER_KEY_PACKET, source)
            self._warn(printable(source))
        elif isinstance(packet, beacon.OtherKey) and self._has_just_announced():
            self._warn(printable(source))

    def _has_just_announced(self) -> bool:
        """Tell whether OTHER_KEY is an answer; at other times it is idle talk."""
        return self._loop.time() - self._announced_at < _NONCE_LIFETIME

    def _answering(self, sock: DatagramSocket) -> DatagramSocket:
        """Choose the socket that answers: clients take the source of a PONG for our address."""
        return self._sockets[-1] if self._place.address else sock

    def _warn(self, address: str) -> None:
        if self._warnings.allows(address, self._loop.time()):
            _log.warning(
                'somebody at %s uses another key and is not served; if it is you: '
                '`dispy key export` there, `dispy key import` here',
                address,
            )

    def _announce_after(self, gaps: list[float]) -> None:
        if gaps:
            gap = gaps.pop(0) * random.uniform(1 - _JITTER, 1 + _JITTER)
            self._timer = self._loop.call_later(gap, self._announce_now, gaps)

    def _announce_now(self, gaps: list[float]) -> None:
        self._announced_at = self._loop.time()
        nonce = secrets.token_bytes(beacon.NONCE_SIZE)
        packet = beacon.encode_here(nonce, self.contact, self._key)
        self._announce_after(gaps)
        try:
            interfaces = netif.broadcast_interfaces(netif.interfaces(self._place.address or None))
        except OSError as exc:  # no descriptor is left to look with
            _log.debug('not announced: %s', exc)
            return
        for interface in interfaces:
            # the subnet's own broadcast address finds its interface, and the right source
            self._sockets[-1 if self._place.address else 0].send(
                packet, (interface.broadcast, self._place.client_port)
            )

    def _stop_announcing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ClientBeacon:
    """Asks for nodes, by broadcast and one by one, and believes only answers to its questions.

    `ip_addr` restricts all packets to interfaces with these addresses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Event], None],
        secret: Secret,
        asker: beacon.Asker,
        ip_addr: str | Sequence[str] | None = None,
        port: int = CLIENT_PORT,
    ) -> None:
        self._loop, self._post, self._asker = loop, post, asker
        self._key, self._is_own = secret.beacon_key(), secret.is_own
        self._ip_addr, self._closed = ip_addr, False
        self._pinged: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._answers, self._seen = Throttle(_ANSWER_INTERVAL), Throttle(_ANSWER_INTERVAL)
        self._asked_back = Throttle(_HERE_INTERVAL)
        self._bound: dict[str, tuple[netif.Interface, DatagramSocket]] = {}
        self._unbound: dict[socket.AddressFamily, DatagramSocket] = {}
        try:
            self._listening = DatagramSocket(loop, self._received, '', port, shared=True)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise PortBusy(port, '', 'port') from exc
            raise
        try:
            self._open_sending()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The UDP port at which announcements are heard."""
        return self._listening.port

    def ping(self, targets: Sequence[tuple[str, int]], broadcast_port: int) -> None:
        """Ask these numeric addresses and, with a port other than 0, everybody in reach."""
        if self._closed:
            return
        for address, port in targets:
            self._ping_one(address, port)
        if broadcast_port:
            self._refresh_interfaces()
            bound = [interface for interface, _ in self._bound.values()]
            for interface in netif.broadcast_interfaces(bound):
                sock = self._bound[interface.address][1]
                target = (interface.broadcast, broadcast_port)
                sock.send(self._fresh_ping(''), target)

    def close(self) -> None:
        """Close all sockets; a second time does nothing."""
        self._closed = True
        for _, sock in self._bound.values():
            sock.close()
        for sock in (*self._unbound.values(), self._listening):
            sock.close()

    def _open_sending(self) -> None:
        self._refresh_interfaces()
        if self._ip_addr is not None:
            return
        self._unbound[socket.AF_INET] = DatagramSocket(self._loop, self._received)
        if socket.has_ipv6:
            try:
                sock = DatagramSocket(self._loop, self._received, '::')
            except OSError as exc:
                _log.debug('no pings by IPv6: %s', exc)  # switched off on this machine
            else:
                self._unbound[socket.AF_INET6] = sock

    def _refresh_interfaces(self) -> None:
        """Follow the machine's interfaces as they come and go."""
        if self._ip_addr is not None and self._bound:
            return
        present = {interface.address: interface for interface in netif.interfaces(self._ip_addr)}
        for address in set(self._bound) - set(present):
            self._bound.pop(address)[1].close()
        for address, interface in present.items():
            if address in self._bound or not (interface.broadcast or self._ip_addr is not None):
                continue
            try:
                sock = DatagramSocket(self._loop, self._received, address)
            except OSError as exc:  # it has just gone, or is not ready yet
                _log.debug('no pings from %s: %s', address, exc)
            else:
                self._bound[address] = (interface, sock)

    def _ping_one(self, address: str, port: int) -> None:
        try:
            target = bind_address(address, port)
        except (OSError, ValueError):
            _log.warning('%r is not an IP address and is not asked for a node', address)
            return
        if sock := self._sending_to(address):
            sock.send(self._fresh_ping(address), target)

    def _sending_to(self, address: str) -> DatagramSocket | None:
        """Choose the socket for an address: of its network if we are restricted to some."""
        family = family_of(address)
        if self._ip_addr is None:
            return self._unbound.get(family)
        usable = [(i, sock) for i, sock in self._bound.values() if sock.family == family]
        near = [sock for interface, sock in usable if interface.reaches(address)]
        return near[0] if near else usable[0][1] if usable else None

    def _fresh_ping(self, address: str) -> bytes:
        """Make a ping with a nonce that is remembered; `address` is '' for a broadcast."""
        now = self._loop.time()
        self._forget_old(now)
        nonce = secrets.token_bytes(beacon.NONCE_SIZE)
        self._pinged[nonce] = (now, address)
        return beacon.encode_ping(nonce, self._asker, self._key)

    def _forget_old(self, now: float) -> None:
        while self._pinged:
            sent_at, _ = next(iter(self._pinged.values()))
            if now - sent_at < _NONCE_LIFETIME and len(self._pinged) < _NONCE_LIMIT:
                break
            self._pinged.popitem(last=False)

    def _received(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        now = self._loop.time()
        self._forget_old(now)
        if isinstance(packet, beacon.Pong):
            if packet.nonce in self._pinged:
                self._post(self._found(packet.contact, printable(source), source[1]))
        elif isinstance(packet, beacon.Here):
            if self._asked_back.allows(source[:2], now):
                self._ping_one(printable(source), source[1])
        elif isinstance(packet, beacon.OtherKey):
            address = printable(source)
            if any(pinged in ('', address) for _, pinged in self._pinged.values()):
                self._saw_other_key(address, now)
        elif isinstance(packet, beacon.WrongKey) and packet.kind is beacon.Kind.HERE:
            self._refuse(source, now)

    def _refuse(self, source: SocketAddress, now: float) -> None:
        address = printable(source)
        self._saw_other_key(address, now)
        sock = self._sending_to(address)
        if sock and self._answers.allows(source[0], now):
            sock.send(beacon.OTHER_KEY_PACKET, source)

    def _saw_other_key(self, address: str, now: float) -> None:
        if self._seen.allows(address, now):
            self._post(OtherKeySeen(address))

    def _found(self, contact: beacon.NodeContact, address: str, port: int) -> NodeFound:
        return NodeFound(contact.node, address, contact.port, self._local_path(contact), port)

    def _local_path(self, contact: beacon.NodeContact) -> str:
        """Return the node's ipc socket if it is this very machine's and user's, else ''."""
        if not (contact.local_name and self._is_own):
            return ''
        if contact.fingerprint != netif.host_fingerprint():
            return ''
        try:
            path = netif.runtime_directory() / contact.local_name
            return str(path) if stat.S_ISSOCK(path.stat().st_mode) else ''
        except (KeyFileError, OSError) as exc:
            _log.debug('no local connection to node %s: %s', contact.node, exc)
            return ''
