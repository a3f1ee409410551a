"""The scheduler's shell: its core on a loop, with links to nodes and to clusters.

ClusterCore ◀── LocalLink ──▶ SchedulerCore ◀── ZmqLink ──▶ nodes
                                   ▲── NodeFound ── ClientBeacon

Nodes are connected to, and those that are not found connect by themselves.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nodeserver.core.cluster import ClusterCore
from nodeserver.core.effects import (
    Connect,
    Disconnect,
    Knock,
    Ping,
    Report,
    Send,
    StopKnocking,
    UseRelay,
)
from nodeserver.core.errors import PortBusy
from nodeserver.core.events import CertificateExpiring, Event, MessageArrived, PeerLost, StopAsked
from nodeserver.core.listing import NodeList
from nodeserver.core.messages import DeclareComputation
from nodeserver.core.overview import Overview
from nodeserver.core.recoveryeffects import (
    ForgetComputation,
    ForgetUntold,
    RecordClosed,
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
)
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.clientbeacon import ClientBeacon, ClientPlace
from nodeserver.io.driver import Driver, Performers, Seat
from nodeserver.io.expirywatch import ExpiryWatch
from nodeserver.io.keys import Secret
from nodeserver.io.knocks import Knocks
from nodeserver.io.link import Link
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.locallink import LocalLink
from nodeserver.io.sealedfile import FileExchange, for_this_process
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services.kept import NOTHING_KEPT, Kept
from nodeserver.services.report import write_report
from nodeserver.wire.beacon import Asker, Callback, Role

_log = logging.getLogger(__name__)

# what can be put on record of the jobs that nodes have
RECORDS: tuple[type[Any], ...] = (
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
    ForgetComputation,
    RecordClosed,
    ForgetUntold,
)
SCHEDULER = 'scheduler'  # its name on links within the process


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """Who the scheduler is and where it listens; `port` 0 means any free one."""

    peer_id: str
    secret: Secret
    ip_addr: str | list[str] | None
    port: int
    is_port_given: bool  # else a free one will do where it is taken
    ipv4_multicast: bool = False  # in place of broadcast
    certificate: Certificate | None = None  # all connections are made over TLS
    ext_ip_addr: tuple[str, ...] = ()  # where nodes are told to connect to it (A20)
    option: str = 'port'  # what the port was given by


class SchedulerService:
    """A scheduler in this process."""

    def __init__(
        self,
        driver: Driver,
        options: SchedulerOptions,
        core: SchedulerCore | None = None,
        performers: Performers | None = None,
    ) -> None:
        self._driver = driver
        self._is_tls = options.certificate is not None
        self._core = core or SchedulerCore(is_tls=self._is_tls)
        self._seat = driver.add(
            self._core,
            {
                Send: self._send,
                Ping: self._ping,
                Knock: lambda effect: self._knocks.knock(effect),
                StopKnocking: lambda effect: self._knocks.stop(effect),
                Connect: self._connect,
                Disconnect: self._disconnect,
                UseRelay: self._use_relay,
                Report: write_report,
                **dict.fromkeys(RECORDS, lambda effect: None),
                **(performers or {}),
            },
        )
        self._clients: dict[str, Link] = {}
        self._closing = contextlib.ExitStack()
        self._nodes = ZmqLink(
            driver.loop,
            self._from_node,
            (options.peer_id, SCHEDULER_ROLE),
            options.secret.link_keys(),
            LinkOptions(files=FileExchange(for_this_process), tls=self._tls_identity(options)),
            driver.turn_if_idle,
        )
        self._knocks = Knocks(driver.loop, self._nodes.ask, self._seat.post, self._is_tls)
        self._closing.callback(self._nodes.close)
        self._closing.callback(self._knocks.close)
        try:
            self._open(options)
        except BaseException:
            self._closing.close()
            raise

    def attach(
        self,
        declared: DeclareComputation,
        performers: Performers,
        kept: Kept = NOTHING_KEPT,
    ) -> Seat:
        """Seat a cluster of this process beside the scheduler, linked in memory."""
        name = f'cluster-{declared.computation:x}'
        table: dict[type[Any], Any] = {}
        core = ClusterCore(SCHEDULER, declared, kept.before, keeping=kept.keeping)
        seat = self._driver.add(core, table)
        near, far = LocalLink.pair(self._seat.post, seat.post, SCHEDULER, name)
        self.admit(name, near)
        table.update(performers)
        table[Send] = kept.send_after(lambda effect: far.send(effect.peer, effect.message))
        return seat

    def admit(self, client: str, link: Link) -> None:
        """Send by this link what is for a client; no node can have its name."""
        self._clients[client] = link

    def dismiss(self, client: str) -> None:
        """Send nothing to a client any more."""
        self._clients.pop(client, None)

    def post(self, event: Event) -> None:
        """Hand the core an event."""
        self._seat.post(event)

    @property
    def port(self) -> int:
        """Where it listens for nodes."""
        return self._beacon.port

    def explain(self, computation: int) -> list[str]:
        """Say where a computation stands; on the loop's thread only."""
        return self._core.explain(computation, self._driver.clock())

    def list_nodes(self) -> NodeList:
        """List the nodes that were found; on the loop's thread only."""
        return self._core.list_nodes(self._driver.clock())

    def overview(self) -> Overview:
        """Count what there is to do; on the loop's thread only."""
        return self._core.overview(self._driver.clock())

    def ask_for_nodes(self, targets: list[tuple[str, int]]) -> None:
        """Ask these addresses for nodes, beyond what computations ask for."""
        self._beacon.ping(targets, 0)

    def detach(self, computation: int) -> None:
        """Forget a cluster that is closed."""
        self.dismiss(f'cluster-{computation:x}')

    def close(self, reason: str, comes_back: bool = False) -> None:
        """Take leave of the nodes and close every socket.

        Nodes keep what they have for a scheduler that comes back.
        """
        if not comes_back:
            self._seat.post(StopAsked(False, reason))
        self._driver.turn()
        self._closing.close()
        self._seat.leave()

    def _from_node(self, event: Event) -> None:
        """Pass on what nodes and relays say: what only clients may say is not believed."""
        if type(event) is MessageArrived and type(event.message) is DeclareComputation:
            _log.warning('%s, which is no client, declared a computation', event.peer)
            self._nodes.disconnect(event.peer)
            self._seat.post(PeerLost(event.peer, 'it broke the protocol'))
            return
        self._seat.post(event)

    def _tls_identity(self, options: SchedulerOptions) -> TlsIdentity | None:
        certificate = options.certificate
        if certificate is None:
            return None

        def warn(text: str) -> None:
            self._seat.post(CertificateExpiring(text))

        watch = ExpiryWatch(self._driver.loop, certificate, warn)
        self._closing.callback(watch.close)
        return TlsIdentity(certificate, options.secret.proof_key())

    def _open(self, options: SchedulerOptions) -> None:
        """Listen at the port for announcements, and for nodes that call (A21)."""
        asker = Asker(options.peer_id, Role.CLIENT)
        around = self._driver.loop, self._seat.post, options.secret, asker

        def hear(port: int) -> int:
            place = ClientPlace(options.ip_addr, port, options.ipv4_multicast, options.option)
            self._beacon = ClientBeacon(*around, place)
            self._beacon.sightings.is_connected = self._nodes.is_up
            self._closing.callback(self._beacon.close)
            return self._beacon.port

        given = options.ip_addr
        self._at_port('UDP', options, hear)
        options = replace(options, port=self._beacon.port)  # one number for both
        for address in [given] if isinstance(given, str) else given or ['']:
            listen = partial(self._nodes.listen, address, option=options.option)
            port = self._at_port('TCP', options, listen)
        if options.ext_ip_addr:
            self._beacon.callback = Callback(options.ext_ip_addr, port)

    def _at_port(self, kind: str, options: SchedulerOptions, listen: Callable[[int], int]) -> int:
        """Listen at the port, or at a free one where it is taken and nobody insists on it (D2)."""
        try:
            return listen(options.port)
        except PortBusy:
            if options.is_port_given:
                raise
            other = listen(0)
            _log.info('%s port %d is in use: port %d was taken instead', kind, options.port, other)
            return other

    def _send(self, effect: Send) -> None:
        link: Link = self._clients.get(effect.peer) or self._nodes
        link.send(effect.peer, effect.message)

    def _ping(self, effect: Ping) -> None:
        self._beacon.ping(effect.targets, effect.broadcast_port)

    def _connect(self, effect: Connect) -> None:
        self._beacon.sightings.wanted(effect.node)
        local_path = '' if self._is_tls else effect.local_path  # a certificate is asked of all (D7)
        self._nodes.connect(effect.node, effect.address, effect.port, local_path, effect.via)

    def _disconnect(self, effect: Disconnect) -> None:
        link: Link = self._clients.get(effect.peer) or self._nodes
        link.disconnect(effect.peer)

    def _use_relay(self, effect: UseRelay) -> None:
        self._nodes.use_relay(effect.relay, effect.host, effect.port)
