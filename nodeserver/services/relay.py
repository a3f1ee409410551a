"""The relay's shell: its core on a loop, a link to programs, and beacons to both sides (M10).

    programs ◀── ZmqLink ──▶ RelayCore ◀── NodeFound ── ClientBeacon ── PING, PONG ──▶ nodes
    programs ── PING ──▶ NodeBeacon

It runs no job and opens no connection to a node; what it is told is never unpickled.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace

from nodeserver.core.effects import (
    AdmitProgram,
    CloseWay,
    Disconnect,
    DismissProgram,
    OpenWay,
    Ping,
    Report,
    Send,
    Stop,
)
from nodeserver.core.errors import PortBusy
from nodeserver.core.events import CarriedChanged, Event, StopAsked
from nodeserver.core.relay import RelayCore, RelayFacts
from nodeserver.core.values import RELAY_ROLE
from nodeserver.io import netif
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.clientbeacon import ClientBeacon, ClientPlace
from nodeserver.io.driver import Driver, Performers
from nodeserver.io.expirywatch import ExpiryWatch
from nodeserver.io.forwarding import FrontDoor
from nodeserver.io.keys import Secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.nodebeacon import BeaconPlace, NodeBeacon
from nodeserver.io.standingcall import StandingCall
from nodeserver.io.udp import CLIENT_PORT
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services.report import write_report
from nodeserver.wire.beacon import Asker, Flag, NodeContact, Role

_PORT_OPTION = '--relay_port'
_INNER = '127.0.0.1'  # where the link listens behind the door that tells connections apart

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """How a relay was started; without `addresses` it uses every interface."""

    peer_id: str
    name: str
    addresses: tuple[str, ...]
    port: int
    port_given: bool  # else a free one will do where it is taken
    secret: Secret
    node_ports: tuple[int, ...]
    ping_interval: float
    schedulers: tuple[tuple[str, int], ...] = ()  # to be connected to
    carries: bool = False
    ipv4_multicast: bool = False  # in place of broadcast
    host: str = ''  # where programs reach it, if that is another address
    certificate: Certificate | None = None  # its own link is made over TLS


class RelayService:
    """A relay in this process, from start to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: RelayOptions) -> None:
        self._loop, self._options = loop, options
        self._stopped: asyncio.Future[str] = loop.create_future()
        self._calls: list[StandingCall] = []
        self._closing = contextlib.AsyncExitStack()

    def start(self) -> int:
        """Open sockets; the port of all of them.

        Raises
        ------
        PortBusy
            The port is taken.
        """
        options, closing = self._options, self._closing
        self._driver = Driver(self._loop)
        closing.callback(self._driver.close)
        self._link = ZmqLink(
            self._loop,
            self._post,
            (options.peer_id, RELAY_ROLE),
            options.secret.link_keys(),
            LinkOptions(origin=self._origin, tls=self._tls_identity()),
            self._driver.turn_if_idle,
        )
        closing.callback(self._link.close)
        port = self._listen()
        self._answer_pings(port)
        self._look_for_nodes()
        self._core = RelayCore(self._facts(port))
        self._seat = self._driver.add(self._core, self._table())
        closing.callback(self._hang_up)
        for address, scheduler_port in options.schedulers:
            self._calls.append(StandingCall(self._loop, self._link, address, scheduler_port))
        return port

    def stop(self, at_once: bool, reason: str) -> None:
        """End after the connections that are carried, or at once."""
        self._hang_up()
        self._post(StopAsked(at_once, reason))

    def status(self) -> list[str]:
        """Say in words whom the relay serves, and of which nodes it knows."""
        return self._core.status()

    async def run(self) -> str:
        """Serve until stopped; the reason of the end."""
        return await self._stopped

    async def close(self) -> None:
        """End what was started, in the opposite order; also after a start that failed."""
        await self._closing.aclose()

    def _tls_identity(self) -> TlsIdentity | None:
        certificate = self._options.certificate
        if certificate is None:
            return None
        watch = ExpiryWatch(self._loop, certificate, _warn_of_expiry)
        self._closing.callback(watch.close)
        return TlsIdentity(certificate, self._options.secret.proof_key())

    def _post(self, event: Event) -> None:
        self._seat.post(event)

    def _listen(self) -> int:
        """Take connections of programs: at one port, of every address that was given."""
        options = self._options
        self._door = FrontDoor(
            self._loop,
            options.secret.link_keys(),
            (_INNER, self._link.listen(_INNER, 0, _PORT_OPTION)),
            self._carried_changed,
            options.certificate is not None,
        )
        self._closing.push_async_callback(self._door.aclose)
        listen = self._door.listen
        first, *others = options.addresses or ('',)
        try:
            port = listen(first, options.port, _PORT_OPTION)
        except PortBusy:
            if options.port_given:
                raise
            port = listen(first, 0, _PORT_OPTION)
            _log.warning(
                'port %d is in use: port %d was taken instead, and programs have to name it: '
                "nodes=[('%s', %d), ...]",
                *(options.port, port, options.name, port),
            )
        for address in others:
            listen(address, port, _PORT_OPTION)
        return port

    def _answer_pings(self, port: int) -> None:
        options = self._options
        flags = Flag.RELAY | (Flag.TLS if options.certificate else Flag.NONE)
        contact = NodeContact(options.peer_id, port, netif.host_fingerprint(), '', flags=flags)
        for address in options.addresses or ('',):
            place = BeaconPlace(address, port)
            answering = NodeBeacon(self._loop, options.secret, contact, place)
            self._closing.callback(answering.close)

    def _look_for_nodes(self) -> None:
        """Ask for nodes, and hear those that announce themselves to programs."""
        options = self._options
        asker = Asker(options.peer_id, Role.RELAY)
        given = list(options.addresses) or None
        around = self._loop, self._post, options.secret, asker
        place = ClientPlace(given, CLIENT_PORT, options.ipv4_multicast)
        try:
            self._beacon = ClientBeacon(*around, place)
        except PortBusy:
            self._beacon = ClientBeacon(*around, replace(place, port=0))
            _log.info(
                'UDP port %d is in use: nodes are found when they are asked, not when they '
                'announce themselves',
                CLIENT_PORT,
            )
        self._closing.callback(self._beacon.close)

    def _facts(self, port: int) -> RelayFacts:
        options = self._options
        return RelayFacts(
            options.name,
            options.node_ports,
            options.ping_interval,
            options.carries,
            options.host,
            port,
        )

    def _table(self) -> Performers:
        link, beacon, door = self._link, self._beacon, self._door
        return {
            AdmitProgram: lambda effect: door.admit(effect.peer),
            DismissProgram: lambda effect: door.dismiss(effect.peer),
            OpenWay: lambda effect: door.open_way(effect.node, effect.address, effect.port),
            CloseWay: lambda effect: door.close_way(effect.node),
            Send: lambda effect: link.send(effect.peer, effect.message),
            Disconnect: lambda effect: link.disconnect(effect.peer),
            Ping: lambda effect: beacon.ping(effect.targets, effect.broadcast_port),
            Report: write_report,
            Stop: self._stop,
        }

    def _origin(self, address: str) -> str:
        return self._door.origin(address)

    def _carried_changed(self, count: int) -> None:
        self._post(CarriedChanged(count))

    def _hang_up(self) -> None:
        """Dial no program any more."""
        for call in self._calls:
            call.close()
        self._calls.clear()

    def _stop(self, effect: Stop) -> None:
        if not self._stopped.done():
            self._stopped.set_result(effect.reason)


def _warn_of_expiry(text: str) -> None:
    if text:  # else it was renewed
        _log.warning('%s', text)
