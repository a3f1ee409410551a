"""Where programs come to a shared scheduler: their link, and what they are to its core.

    programs ◀── ZmqLink ──▶ ClientDoor ── PeerConnected(client), MessageArrived ──▶ SchedulerCore

A client has a name of its own kind in the core: its peer id may be that of a node, as whoever
connects says itself what it is called.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nodeserver.core.errors import PortBusy
from nodeserver.core.events import Event, MessageArrived, PeerConnected, PeerLost
from nodeserver.core.messages import DeclareComputation
from nodeserver.core.values import CLIENT_ROLE, SCHEDULER_ROLE
from nodeserver.io import netif
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.dialer import Target
from nodeserver.io.driver import Driver
from nodeserver.io.expirywatch import ExpiryWatch
from nodeserver.io.keys import Secret
from nodeserver.io.leftovers import sweep_sockets
from nodeserver.io.linkoptions import patient_options
from nodeserver.io.lookup import look_up
from nodeserver.io.schedulerstate import Place
from nodeserver.io.sealedfile import FileExchange, for_this_process
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services.clientway import ClientWay
from nodeserver.services.scheduler import SchedulerService

OPTION = '--scheduler_port'
_ADVICE = 'and programs with scheduler_port=...; does another dispyscheduler run here?'
SEEK_AFTER = 1.2  # seconds; programs look for us each second
_HERE = '127.0.0.1'  # where a program is that came by the local socket

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """Where programs connect, and whom of them to trust; an address '' means every interface."""

    peer_id: str
    secret: Secret
    addresses: tuple[str, ...]
    port: int
    msg_timeout: float
    pulse_interval: float  # of all computations (M03)
    ping_interval: float  # the same; 0: as each program wants it
    certificate: Certificate | None = None


class ClientDoor:
    """Takes connections of programs, and hands the scheduler what they say."""

    def __init__(self, driver: Driver, scheduler: SchedulerService, options: DoorOptions) -> None:
        self._scheduler, self._options, self._loop = scheduler, options, driver.loop
        self._sought: dict[Place, list[Target]] = {}  # whom we connect to
        self._dialled: dict[str, str] = {}  # addresses of these, by what the link calls them
        self._is_closed = False
        self.ended = 0  # jobs of all clients so far
        self.addresses: dict[str, str] = {}  # of the clients that are connected, by name
        self._names: dict[str, str] = {}  # of clients, by peer id
        self._ways: dict[str, ClientWay] = {}  # to them
        self._closed_for = ''  # newcomers, and why
        self._closing = contextlib.ExitStack()
        self._events: dict[type[Any], Callable[[Any], None]] = {
            MessageArrived: self._said,
            PeerConnected: self._came,
            PeerLost: self._gone,
        }
        tls = self._tls_identity(driver, options)
        self._link = ZmqLink(
            driver.loop,
            self._happened,
            (options.peer_id, SCHEDULER_ROLE),
            options.secret.link_keys(),
            replace(
                patient_options(options.msg_timeout),
                files=FileExchange(for_this_process),
                tls=tls,
                takes=(CLIENT_ROLE,),
            ),
            driver.turn_if_idle,
        )
        self._closing.callback(self._link.close)

    def listen(self) -> int:
        """Take connections from now on; answers with the port.

        Raises
        ------
        PortBusy
            Another program, such as another dispyscheduler, has it.
        """
        options = self._options
        first, *others = options.addresses
        try:
            port = self._link.listen(first, options.port, OPTION)
            for address in others:
                self._link.listen(address, port, OPTION)
        except PortBusy as error:
            raise PortBusy(error.port, error.address, OPTION, _ADVICE) from error
        if options.secret.is_own and options.certificate is None:
            self._listen_local(port)
        return port

    def seek(self, place: Place) -> None:
        """Connect to a program of before, which may not know where its scheduler is now.

        It looks for us where we were, and is there first if we are there still: its own connection
        is the quicker one on the same machine.
        """
        self._sought.setdefault(place, [])
        self._loop.call_later(SEEK_AFTER, self._seek, place)

    def _seek(self, place: Place) -> None:
        for host in place.hosts if place.port and place in self._sought else ():
            look_up(self._loop, host, partial(self._dial, place))

    def found(self, place: Place) -> None:
        """Seek a program no more."""
        for target in self._sought.pop(place, ()):
            self._dialled.pop(str(target), None)
            self._link.withdraw(target)

    def place_of(self, client: str, declared: DeclareComputation) -> Place:
        """Where a program could be found by the next scheduler."""
        hosts = declared.hosts or [self.addresses.get(client, '')]
        return Place(tuple(filter(None, hosts)), declared.port)

    def admit_nobody(self, reason: str) -> None:
        """Turn newcomers away from now on; who is here may stay."""
        self._closed_for = reason

    def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        for way in self._ways.values():
            way.flush()
            way.close()
        self._closing.close()

    def _listen_local(self, port: int) -> None:
        """Let this user's programs on this machine connect without TCP, where D7 allows it."""
        directory = netif.runtime_directory()
        sweep_sockets(directory)
        path = directory / netif.scheduler_socket(port)
        path.unlink(missing_ok=True)  # of one that was killed: the port is ours
        self._link.listen_local(str(path))
        self._closing.callback(Path.unlink, path, missing_ok=True)

    def _tls_identity(self, driver: Driver, options: DoorOptions) -> TlsIdentity | None:
        if options.certificate is None:
            return None
        watch = ExpiryWatch(driver.loop, options.certificate, _warn)
        self._closing.callback(watch.close)
        return TlsIdentity(options.certificate, options.secret.proof_key())

    def _dial(self, place: Place, addresses: list[str]) -> None:
        if not self._is_closed and place in self._sought:
            for address in addresses[:1]:
                target = Target(address, place.port)
                self._sought[place].append(target)
                self._dialled[str(target)] = address
                self._link.dial(target)

    # what happens on the link

    def _happened(self, event: Event) -> None:
        handler = self._events.get(type(event))
        if handler is not None:  # others tell of nodes, or of clients that we have called in vain
            handler(event)

    def _came(self, event: PeerConnected) -> None:
        if self._closed_for:
            self._link.disconnect(event.peer, self._closed_for)
            return
        name = self._names[event.peer] = f'client-{event.peer}'
        address = self._dialled.pop(event.address, event.address) or _HERE
        self.addresses[name] = address
        way = self._ways[event.peer] = ClientWay(self._loop, self._link, event.peer, self._count)
        self._scheduler.admit(name, way)
        self._scheduler.post(PeerConnected(name, address, CLIENT_ROLE))

    def _count(self, ended: int) -> None:
        self.ended += ended

    def _gone(self, event: PeerLost) -> None:
        name = self._names.pop(event.peer, None)
        if name is not None:
            del self.addresses[name]
            self._ways.pop(event.peer).close()
            self._scheduler.dismiss(name)
            self._scheduler.post(PeerLost(name, event.reason))

    def _said(self, event: MessageArrived) -> None:
        name, message = self._names.get(event.peer), event.message
        if name is None:
            return
        if type(message) is DeclareComputation:
            message = self._ruled(message)
        self._scheduler.post(MessageArrived(name, message))

    def _ruled(self, declared: DeclareComputation) -> DeclareComputation:
        """Let this program's options rule the search for nodes, and for dead ones (M03)."""
        options = self._options
        return replace(
            declared,
            pulse_interval=options.pulse_interval,
            ping_interval=options.ping_interval or declared.ping_interval,
        )


def _warn(text: str) -> None:
    _log.warning('%s', text)
