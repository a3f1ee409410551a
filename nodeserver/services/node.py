"""The node's shell: its core on a loop, with a listening link, a beacon and processes.

scheduler ◀── ZmqLink ──▶ NodeCore ◀── Processes ──▶ template ──▶ jobs
"""

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from nodeserver.core.departure import ORPHAN_SECONDS
from nodeserver.core.effects import (
    CloseFiles,
    CloseTemplate,
    Diagnose,
    Disconnect,
    EndTransfers,
    ForkWorkers,
    GiveJobs,
    HearOfFiles,
    MeasureAvailability,
    OpenFiles,
    OpenTemplate,
    ReadOutput,
    RecallFromWorker,
    ReleaseFiles,
    Report,
    Send,
    SignalWorker,
    Stop,
)
from nodeserver.core.errors import PortBusy
from nodeserver.core.events import (
    AvailabilityMeasured,
    CloseAsked,
    StopAsked,
)
from nodeserver.core.node import NodeCore
from nodeserver.core.nodeevents import (
    ClockRead,
    CpusChosen,
    OwnerGone,
    PauseAsked,
    ReleaseAsked,
)
from nodeserver.core.nodefacts import AT_ALL_TIMES, NodeFacts, NodeRules
from nodeserver.core.recoveryeffects import (
    ForgetKept,
    ForgetLetters,
    KeepComputation,
    KeepLetters,
    OfferAgain,
    RefuseOffers,
    SendKept,
)
from nodeserver.core.values import NODE_ROLE, Availability
from nodeserver.io import netif
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.clock import second_of_day
from nodeserver.io.deputy import OWN_USER, Owner
from nodeserver.io.driver import Driver
from nodeserver.io.expirywatch import ExpiryWatch
from nodeserver.io.health import HealthServer
from nodeserver.io.keys import Secret
from nodeserver.io.leftovers import sweep_sockets
from nodeserver.io.linkoptions import MSG_TIMEOUT, patient_options
from nodeserver.io.nodebeacon import BeaconPlace, NodeBeacon
from nodeserver.io.nodefiles import NodeFiles
from nodeserver.io.procs import Processes
from nodeserver.io.returncalls import ReturnCalls
from nodeserver.io.sealedfile import FileExchange, for_other_processes, payload_sink
from nodeserver.io.spool import Spool
from nodeserver.io.standingcall import StandingCall
from nodeserver.io.sysinfo import measure, memory_size, platform_name, python_version
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services.diagnosis import Examined
from nodeserver.services.nodepages import node_pages
from nodeserver.services.report import write_report
from nodeserver.wire.beacon import Flag, NodeContact

MEASURE_INTERVAL = 5.0
CLOCK_INTERVAL = 30.0  # at the latest: a clock that was set, or a machine that has slept
FRESH_SECONDS = 0.25  # over less than that a processor's load says nothing
END_PATIENCE = 30.0  # for a core that is to end at once, before the node ends without it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a node was started; `address` '' means every interface."""

    peer_id: str
    name: str
    cpus: int
    address: str
    port: int
    port_given: bool
    secret: Secret
    prefix: Path
    owner_fd: int = -1  # end of file on it: the program that started this node is gone
    max_file_size: int = 0  # bytes of a file that is transferred; 0: any
    rules: NodeRules = AT_ALL_TIMES
    msg_timeout: float = MSG_TIMEOUT
    gpus: tuple[str, ...] = ()  # that jobs may use
    scheduler: tuple[str, int] | None = None  # to be connected to; others find the node
    ext_host: str = ''  # where it is to be connected to, if not at the address that answers
    ipv4_multicast: bool = False  # in place of broadcast
    certificate: Certificate | None = None  # all connections are made over TLS
    owner: Owner = OWN_USER  # of computations
    health: tuple[str, int] | None = None  # where it can be watched by HTTP


def _warn(text: str) -> None:
    if text:
        _log.warning('%s', text)


class NodeService:
    """A node in this process, from start to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: NodeOptions) -> None:
        self._loop = loop
        self._options = options
        self._stopped: asyncio.Future[str] = loop.create_future()
        self._driver = Driver(loop)
        facts = NodeFacts(
            options.peer_id,
            options.name,
            options.cpus,
            platform_name(),
            python_version(),
            memory_size(),
            options.gpus,
            options.max_file_size,
        )
        self._table: dict[type, object] = {}
        self._core = NodeCore(facts, options.rules)
        self._seat = self._driver.add(self._core, self._table)  # type: ignore[arg-type]
        self._local_path: Path | None = None
        self._call: StandingCall | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._clock_timer: asyncio.TimerHandle | None = None
        self._availability: Availability | None = None
        self._measured_at = -MEASURE_INTERVAL
        self.health_port = 0
        self._closing = contextlib.AsyncExitStack()

    def start(self) -> tuple[str, int]:
        """Open sockets and start processes; where the node listens.

        Raises
        ------
        PortBusy
            The user named a port that is taken.
        """
        options, closing = self._options, self._closing
        closing.callback(self._remove_local_socket)
        closing.callback(self._driver.close)
        port = self._open_sockets()
        where = options.prefix, options.peer_id
        self._spool = Spool(self._loop, *where, self._link, self._seat.post)
        closing.callback(self._spool.close)
        for found in self._spool.open():
            self._seat.post(found)
        self._start_processes()
        closing.callback(self._beacon.close)
        self._examined = Examined(self._loop, self._link.send, options.secret, options.prefix)
        closing.push_async_callback(self._examined.aclose)
        self._fill_table()
        self._measure()
        closing.callback(self._stop_measuring)
        self._read_clock()
        closing.callback(self._stop_clock)
        if options.owner_fd >= 0:
            self._loop.add_reader(options.owner_fd, self._owner_readable)
            closing.callback(self._loop.remove_reader, options.owner_fd)
        self._beacon.announce()
        self._open_health()
        return options.address or '*', port

    def _open_health(self) -> None:
        if self._options.health is not None:
            pages = node_pages(self._options.name, self._core.figures, self._core.status)
            server = HealthServer(self._loop, pages)
            self._closing.callback(server.close)
            self.health_port = server.listen(*self._options.health, '--health')

    def _open_sockets(self) -> int:
        options = self._options
        self._link = ZmqLink(
            self._loop,
            self._seat.post,
            (options.peer_id, NODE_ROLE),
            options.secret.link_keys(),
            replace(
                patient_options(options.msg_timeout),
                sink=payload_sink,
                files=FileExchange(for_other_processes),
                tls=self._tls_identity(),
            ),
            self._driver.turn_if_idle,
        )
        self._closing.callback(self._link.close)
        port = self._listen()
        who = options.peer_id, port, netif.host_fingerprint(), self._listen_local()
        flags = Flag.TLS if options.certificate else Flag.NONE
        contact = NodeContact(*who, options.ext_host, flags)
        if options.scheduler is not None:
            self._call = StandingCall(self._loop, self._link, *options.scheduler)
            self._closing.callback(self._hang_up)
        place = BeaconPlace(
            options.address,
            options.port or port,
            ipv4_multicast=options.ipv4_multicast,
            own_port=port,
        )
        self._beacon = NodeBeacon(self._loop, options.secret, contact, place)
        calls = ReturnCalls(self._loop, self._link)
        self._closing.callback(calls.close)
        self._beacon.called = calls.asked
        return port

    def _start_processes(self) -> None:
        options, owner = self._options, self._options.owner
        around = self._loop, self._seat.post, owner.directories(options.prefix)
        self._files = NodeFiles(*around, options.peer_id, options.max_file_size)
        self._closing.callback(self._files.close)
        self._procs = Processes(
            *around,
            (options.name, options.address or netif.likely_address()),
            self._driver.turn_if_idle,
            owner,
        )
        self._procs.offer_file = self._files.offer
        self._closing.push_async_callback(self._procs.aclose)
        self._procs.start()

    def stop(self, at_once: bool, reason: str) -> None:
        """End after the running jobs, or at once."""
        self._hang_up()
        self._seat.post(StopAsked(at_once, reason))
        if at_once:
            self._loop.call_later(END_PATIENCE, self._give_up, reason)

    def tell(self, event: CpusChosen | PauseAsked | ReleaseAsked | CloseAsked) -> None:
        """Hand the core what whoever runs the node wants of it."""
        self._seat.post(event)

    def status(self) -> list[str]:
        """Say in words who holds the node and what it does."""
        return self._core.status()

    async def run(self) -> str:
        """Serve until stopped; the reason of the end."""
        return await self._stopped

    async def close(self) -> None:
        """End what was started, in the opposite order; also after a start that failed."""
        await self._closing.aclose()

    def _fill_table(self) -> None:
        procs, link, files = self._procs, self._link, self._files
        self._table.update(
            {
                Send: lambda effect: link.send(effect.peer, effect.message),
                Disconnect: lambda effect: link.disconnect(effect.peer),
                Report: write_report,
                OpenTemplate: procs.open_template,
                CloseTemplate: procs.close_template,
                ForkWorkers: procs.fork_workers,
                GiveJobs: procs.give_jobs,
                SignalWorker: procs.signal_worker,
                RecallFromWorker: procs.recall_from_worker,
                ReadOutput: procs.read_output,
                MeasureAvailability: lambda effect: self._tell_figures(),
                Diagnose: self._examined.answer,
                Stop: self._stop,
                OpenFiles: files.open,
                HearOfFiles: files.hear,
                ReleaseFiles: files.release,
                EndTransfers: files.end_transfers,
                CloseFiles: files.close_computation,
                OfferAgain: files.offer_again,
                RefuseOffers: files.refuse_offers,
                KeepComputation: self._spool.keep_computation,
                KeepLetters: self._spool.keep_letters,
                ForgetLetters: self._spool.forget_letters,
                ForgetKept: self._spool.forget_kept,
                SendKept: self._spool.send_kept,
            }
        )

    def _listen(self) -> int:
        options = self._options
        try:
            return self._link.listen(options.address, options.port, '--node_port')
        except PortBusy:
            if options.port_given:
                raise
            port = self._link.listen(options.address, 0, '--node_port')
            _log.info('port %d is in use: port %d was taken instead', options.port, port)
            return port

    def _listen_local(self) -> str:
        """Open the socket for this user's programs on this machine, where D7 allows it."""
        if not self._options.secret.is_own or self._options.certificate is not None:
            return ''
        name = f'node-{self._options.peer_id[:16]}'
        directory = netif.runtime_directory()
        sweep_sockets(directory)
        self._local_path = directory / name
        self._link.listen_local(str(self._local_path))
        return name

    def _tls_identity(self) -> TlsIdentity | None:
        certificate = self._options.certificate
        if certificate is None:
            return None
        watch = ExpiryWatch(self._loop, certificate, _warn)
        self._closing.callback(watch.close)
        return TlsIdentity(certificate, self._options.secret.proof_key())

    def _measure(self) -> None:
        """Have figures for whoever comes; pulses measure for themselves."""
        self._timer = self._loop.call_later(MEASURE_INTERVAL, self._measure)
        if self._loop.time() - self._measured_at >= MEASURE_INTERVAL / 2:
            self._tell_figures()

    def _tell_figures(self) -> None:
        """Measure, if the last figures are not of this moment; those who wait go on in any case."""
        now = self._loop.time()
        try:
            if now - self._measured_at >= FRESH_SECONDS:
                self._availability, self._measured_at = measure(self._options.prefix), now
        except OSError as error:  # no descriptor is left to look with, or the directory is gone
            _log.debug('not measured: %s', error)
        finally:
            self._seat.post(AvailabilityMeasured(self._availability))

    def _stop_measuring(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _read_clock(self) -> None:
        """Tell the core the time of day, often enough to see that the clock was set."""
        hours = self._options.rules.hours
        if hours is not None:
            second = second_of_day()
            self._seat.post(ClockRead(second))
            pause = min(CLOCK_INTERVAL, hours.until_change(second))
            self._clock_timer = self._loop.call_later(pause, self._read_clock)

    def _stop_clock(self) -> None:
        if self._clock_timer is not None:
            self._clock_timer.cancel()

    def _owner_readable(self) -> None:
        if not os.read(self._options.owner_fd, 1024):
            self._loop.remove_reader(self._options.owner_fd)
            self._seat.post(OwnerGone())
            self._loop.call_later(ORPHAN_SECONDS + END_PATIENCE, self._give_up, 'its owner is gone')

    def _give_up(self, reason: str) -> None:
        """End although the core does not say so: it must have a bug, and is of no use to anyone."""
        if not self._stopped.done():
            _log.error('the node does not end by itself, and is ended')
            self._stopped.set_result(reason)

    def _hang_up(self) -> None:
        """Dial no scheduler any more: a node that ends is of no use to one."""
        if self._call is not None:
            self._call.close()

    def _stop(self, effect: Stop) -> None:
        self._hang_up()
        if not self._stopped.done():
            self._stopped.set_result(effect.reason)

    def _remove_local_socket(self) -> None:
        if self._local_path is not None:
            self._local_path.unlink(missing_ok=True)
