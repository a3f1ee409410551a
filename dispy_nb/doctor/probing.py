"""Pings single nodes by UDP, and listens for what comes back to this machine.

Prober ── PING ──▶ node ── PONG, OTHER_KEY, or the system's "port unreachable" ──▶ UdpAnswer
Ears ◀── our own broadcast, and what a node sends on the way back
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Collection
from typing import Final

from dispy_nb.doctor.facts import Order, UdpAnswer
from nodeserver.core.diagnosis import TOKEN_SIZE, Reach
from nodeserver.io.datagrams import (
    DatagramSocket,
    SocketAddress,
    bind_address,
    family_of,
    printable,
)
from nodeserver.io.keys import Secret
from nodeserver.io.reaching import reach_of
from nodeserver.wire import beacon

_GAPS: Final = (0.0, 0.3, 0.4, 0.4)  # some are lost, and "other key" is said once a second
_MOST_TOKENS: Final = 1000

Place = tuple[str, int]  # address and port


class Prober:
    """Asks places for nodes, one by one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, secret: Secret, asker: beacon.Asker
    ) -> None:
        self._loop, self._key, self._asker = loop, secret.beacon_key(), asker
        self._sockets: dict[int, DatagramSocket] = {}
        self._waiting: dict[bytes, tuple[Place, asyncio.Future[UdpAnswer]]] = {}
        self._strangers: set[Place] = set()

    async def ping(self, address: str, port: int, timeout: float) -> UdpAnswer:
        """Ask a place a few times, until something comes back or the time is over."""
        if (address, port) in self._strangers:
            return UdpAnswer(Reach.OPEN, other_key=True)
        answered: asyncio.Future[UdpAnswer] = self._loop.create_future()
        nonces = [secrets.token_bytes(beacon.NONCE_SIZE) for _ in _GAPS]
        errors = self._loop.create_task(self._hear_errors(address, port, answered))
        try:
            sock = self._socket_for(address)
            target = bind_address(address, port)
            async with asyncio.timeout(timeout):
                for gap, nonce in zip(_GAPS, nonces, strict=True):
                    await asyncio.wait([answered], timeout=gap)
                    if answered.done():
                        break
                    self._waiting[nonce] = ((address, port), answered)
                    sock.send(beacon.encode_ping(nonce, self._asker, self._key), target)
                return await answered
        except TimeoutError:
            return UdpAnswer(Reach.SILENT)
        except OSError as error:
            return UdpAnswer(reach_of(error))
        finally:
            errors.cancel()
            for nonce in nonces:
                self._waiting.pop(nonce, None)

    def saw_other_key(self, address: str, port: int) -> None:
        """Somebody there answered another ping of ours: it answers once a second only."""
        self._strangers.add((address, port))
        for pinged, answered in self._waiting.values():
            if pinged == (address, port) and not answered.done():
                answered.set_result(UdpAnswer(Reach.OPEN, other_key=True))

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets.values():
            sock.close()

    def _socket_for(self, address: str) -> DatagramSocket:
        family = family_of(address)
        if family not in self._sockets:
            here = '::' if family == socket.AF_INET6 else ''
            self._sockets[family] = DatagramSocket(self._loop, self._received, (here, 0))
        return self._sockets[family]

    async def _hear_errors(
        self, address: str, port: int, answered: 'asyncio.Future[UdpAnswer]'
    ) -> None:
        """Learn of "port unreachable", which only a connected socket is told.

        It hears nothing else: a node with several addresses may answer from another one.
        """
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            nonce = secrets.token_bytes(beacon.NONCE_SIZE)
            try:
                sock.connect(bind_address(address, port))
                sock.send(beacon.encode_ping(nonce, self._asker, self._key))
                while True:
                    await self._loop.sock_recv(sock, beacon.PADDED_SIZE)
            except OSError as error:
                await asyncio.sleep(0.1)  # whoever answers as well goes first
                if not answered.done():
                    answered.set_result(UdpAnswer(reach_of(error)))

    def _received(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        if isinstance(packet, beacon.OtherKey):
            place = printable(source), source[1]
            if any(pinged == place for pinged, _ in self._waiting.values()):
                self.saw_other_key(*place)
        elif isinstance(packet, beacon.Pong) and packet.nonce in self._waiting:
            _, answered = self._waiting[packet.nonce]
            if not answered.done():
                answered.set_result(_answer_of(packet.contact))


def _answer_of(contact: beacon.NodeContact) -> UdpAnswer:
    clock = contact.clock - time.time() if contact.clock else 0.0
    return UdpAnswer(
        Reach.OPEN,
        contact.port,
        bool(contact.flags & beacon.Flag.TLS),
        clock,
        node=contact.node,
        is_relay=bool(contact.flags & beacon.Flag.RELAY),
        ext_host=contact.ext_host,
    )


class Ears:
    """What listens on this machine while it is examined; ports that others have are left alone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        order: Order,
        free: Callable[[int, str], bool],
        secret: Secret,
        asker: beacon.Asker,
    ) -> None:
        self._loop, self._key, self._asker = loop, secret.beacon_key(), asker
        self._closing = contextlib.ExitStack()
        self._tokens: set[bytes] = set()
        self.echoes: set[str] = set()  # own addresses whose broadcast came back
        self.udp_port = order.port if free(order.port, 'UDP') else 0
        self.tcp_port = order.port  # if a program has it, that one lets nodes connect
        self.hears_broadcast = free(order.node_port, 'UDP')
        with contextlib.suppress(OSError):  # somebody has just taken it
            if free(order.port, 'TCP'):
                self._listen(order.port)
        self._hear(self.udp_port, self._token_came)
        if self.hears_broadcast:
            self._hear(order.node_port, self._ping_came)

    def heard(self, token: bytes) -> bool | None:
        """Whether this token has come; None if nothing listened for it."""
        return token in self._tokens if self.udp_port else None

    def close(self) -> None:
        """Give all ports back."""
        self._closing.close()

    def _listen(self, port: int) -> None:
        """Let the system accept connections: nobody has anything to say on them."""
        if socket.has_dualstack_ipv6():
            sock = socket.create_server(
                ('::', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
            )
        else:
            sock = socket.create_server(('', port), backlog=128)
        self._closing.enter_context(sock)

    def _hear(
        self, port: int, received: Callable[[DatagramSocket, bytes, SocketAddress], None]
    ) -> None:
        for address in ('', '::') if port else ():
            if address and not socket.has_ipv6:
                continue
            with contextlib.suppress(OSError):  # there is no IPv6, or somebody has just taken it
                sock = DatagramSocket(self._loop, received, (address, port), shared=True)
                self._closing.callback(sock.close)

    def _token_came(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        if len(data) == TOKEN_SIZE and len(self._tokens) < _MOST_TOKENS:
            self._tokens.add(data)

    def _ping_came(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        if isinstance(packet, beacon.Ping) and packet.asker == self._asker:
            self.echoes.add(str(source[0]))


def missing_echoes(
    rows: Collection[tuple[str, str, str]], heard: Collection[str]
) -> list[tuple[str, str, bool]]:
    """List the interfaces with broadcast, and whether each was heard."""
    return [(name, address, address in heard) for name, address, broadcast in rows if broadcast]
