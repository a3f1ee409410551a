"""The loop thread of a client process: a scheduler and the clusters it serves.

    user's threads ── outbox, wake-up ──▶ loop thread: ClusterCore, SchedulerCore ──▶ nodes

One runtime for each pair of secret and certificate (D2), and one more for each scheduler that is
elsewhere; it starts with the first cluster and ends with the last.
"""

import asyncio
import concurrent.futures
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from dispy_nb.callbacks import CallbackThread
from dispy_nb.cells import name_cells
from dispy_nb.options import ClusterOptions
from dispy_nb.recovery.journal import Journal
from dispy_nb.recovery.records import Records
from dispy_nb.shell import ClusterShell
from nodeserver.core.effects import Send
from nodeserver.core.errors import UsageError
from nodeserver.core.events import Event, JobsSubmitted
from nodeserver.core.listing import NodeList
from nodeserver.core.messages import (
    DeclareComputation,
    JobOptions,
    Message,
    ResubmitJobs,
    ShareData,
)
from nodeserver.io.certificate import Certificate, choose_certificate
from nodeserver.io.driver import Driver, Performers, Seat
from nodeserver.io.keys import Secret, choose_secret
from nodeserver.io.udp import CLIENT_PORT
from nodeserver.services.kept import NOTHING_KEPT, Kept
from nodeserver.services.scheduler import SCHEDULER, SchedulerOptions, SchedulerService

_log = logging.getLogger('dispy_nb')

Result = TypeVar('Result')

MOST_PER_TURN = 4096  # jobs taken from the outbox at once

CALLBACKS = CallbackThread()
_runtimes: dict['Key', 'Runtime'] = {}
_registry = threading.Lock()


# a job on its way to its cluster's core, with the ids of its data and the manifest of its files
Entry = tuple[Seat, ClusterShell, str, int, bytes, JobOptions, list[int], bytes]


class Trust(NamedTuple):
    """Whom a cluster works with: the secret, and the certificate's files."""

    secret: Secret
    files: tuple[str, str] | None


# which runtime a cluster is on: whom it trusts, and where its scheduler is; None: here
Key = tuple[Trust, Hashable]


class Service(Protocol):
    """A scheduler, or the way to one, on the loop's thread."""

    def attach(
        self, declared: DeclareComputation, performers: Performers, kept: Kept = NOTHING_KEPT
    ) -> Seat:
        """Seat a cluster."""

    def detach(self, computation: int) -> None:
        """Forget a cluster that is closed."""

    def close(self, reason: str, comes_back: bool = False) -> None:
        """End it; nodes keep what they have for a program that comes back."""


class Runtime:
    """One loop thread with a scheduler on it."""

    place: Hashable = None  # where the scheduler is, if it is elsewhere

    def __init__(
        self,
        trust: Trust,
        certificate: Certificate | None,
        options: ClusterOptions,
        taken: Iterable[int] = (),
    ) -> None:
        self.trust = trust
        self._certificate = certificate
        self.ip_addr = options.ip_addr
        self.ext_ip_addr = options.ext_ip_addr
        self.port = options.port or 0
        self._is_port_given = self.port not in (0, CLIENT_PORT, *taken)
        self.ipv4_udp_multicast = options.ipv4_udp_multicast
        self.clusters = 0
        self.is_alone = False  # it serves one cluster, which no other joins
        self._comes_back = False  # nodes keep what they have for another program
        self._records = Records()
        self._outbox: deque[Entry] = deque()
        self._signalled = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name='dispy-loop', daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            self._close_pipe()
            raise

    # called by users' threads

    def attach(
        self,
        declared: DeclareComputation,
        shell: ClusterShell,
        journal: Journal,
        before: Sequence[ResubmitJobs | ShareData] = (),
    ) -> Seat:
        """Seat a cluster; `before` are jobs of a program that was killed."""

        def seat() -> Seat:
            self._records.journals[declared.computation] = journal
            kept = Kept(before, journal.keeping, journal.file.flush)
            performers = {**kept.tell_after(shell.performers()), **journal.performers()}
            return self._service.attach(declared, performers, kept)

        return self.call(seat)

    def submit(self, entry: Entry) -> None:
        """Put a job into the outbox, and wake the loop if it may be asleep."""
        self._outbox.append(entry)
        if not self._signalled:
            try:
                self._signalled = True
                os.write(self._wake_write, b'x')
            except BaseException:  # Ctrl-C: one byte too many is harmless, one too few is not
                self._signalled = False
                raise

    def post(self, seat: Seat, event: Event) -> None:
        """Hand a cluster's core an event, behind all jobs submitted before."""
        self._loop.call_soon_threadsafe(self._post, seat, event)

    def soon(self, function: Callable[[], None]) -> None:
        """Have a function called on the loop's thread; from any thread, at any moment."""
        self._loop.call_soon_threadsafe(function)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Have a function called on the loop's thread in so many seconds; from any thread."""
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, function)

    def send(self, seat: Seat, message: Message) -> None:
        """Have a cluster say something to its scheduler."""
        effect = Send(SCHEDULER, message)
        self._loop.call_soon_threadsafe(lambda: seat.performers[Send](effect))

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function on the loop's thread and return what it returns."""
        future: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as exc:  # noqa: BLE001
                future.set_exception(exc)  # it is the caller's to handle

        self._loop.call_soon_threadsafe(run)
        return future.result()

    def explain(self, computation: int) -> list[str]:
        """Say where a computation stands."""
        self.call(self._drain_whole_outbox)  # the cores' turn comes between the two calls
        return [name_cells(line) for line in self._explain(computation)]

    def list_nodes(self) -> NodeList:
        """List the nodes that the scheduler has found, whoever uses them."""
        return self.call(self._scheduler.list_nodes)

    def _explain(self, computation: int) -> list[str]:
        return self.call(lambda: self._scheduler.explain(computation))

    def detach(self, seat: Seat, computation: int, unsaid: Event | None = None) -> None:
        """Take a closed cluster out; `unsaid` is what its core is still to be told."""

        def leave() -> None:
            if unsaid is not None:
                seat.post(unsaid)
            self._driver.turn()  # after Ctrl-C, the order to close it may not be worked off yet
            seat.leave()
            self._service.detach(computation)
            self._records.journals.pop(computation, None)

        self.call(leave)

    def stop(self, comes_back: bool = False) -> None:
        """End the loop and its thread; nodes are told, unless they are to keep what they have."""
        self._comes_back = comes_back
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._close_pipe()

    # on the loop's thread

    def _run(self) -> None:
        self._loop = loop = asyncio.new_event_loop()
        try:
            self._driver = Driver(loop)
            self._service = self._make_service()
            loop.add_reader(self._wake_read, self._woken)
        except BaseException as exc:  # noqa: BLE001
            loop.close()
            self._started.set_exception(exc)  # raised in the user's thread
            return
        self._started.set_result(None)
        try:
            loop.run_forever()
            self._service.close('the program has closed its clusters', self._comes_back)
            self._driver.close()
            loop.remove_reader(self._wake_read)
            loop.run_until_complete(loop.shutdown_asyncgens())
        except Exception:  # noqa: BLE001
            _log.exception('the loop of this program failed while closing')
        finally:
            loop.close()

    def _make_service(self) -> Service:
        """Make the scheduler of this program's clusters."""
        place = self.ip_addr, self.port, self._is_port_given, self.ipv4_udp_multicast
        name, certificate = secrets.token_hex(16), self._certificate
        hosts = tuple(self.ext_ip_addr or ())
        options = SchedulerOptions(name, self.trust.secret, *place, certificate, hosts)
        performers = self._records.performers()
        self._scheduler = SchedulerService(self._driver, options, performers=performers)
        return self._scheduler

    def _woken(self) -> None:
        os.read(self._wake_read, 64)
        self._signalled = False  # before the look into the outbox: a late job signals again
        self._drain_outbox()
        self._driver.turn_if_idle()

    def _drain_outbox(self) -> None:
        outbox = self._outbox
        batches: list[tuple[Seat, JobsSubmitted]] = []
        latest: dict[tuple[Seat, str], JobsSubmitted] = {}
        for _ in range(min(len(outbox), MOST_PER_TURN)):
            seat, shell, node, number, payload, options, named, manifest = outbox.popleft()
            if number not in shell.jobs:
                continue  # its submission was interrupted
            batch = latest.get((seat, node))
            if batch is None or (batch.options is not options and batch.options != options):
                batch = latest[seat, node] = JobsSubmitted(node, [], [], options)
                batches.append((seat, batch))  # other options end a batch: jobs stay in order
                shell.hold_interpreter()
            if named or batch.shared:
                batch.shared.extend([[]] * (len(batch.ids) - len(batch.shared)))
                batch.shared.append(named)
            if manifest or batch.manifests:
                batch.manifests.extend([b''] * (len(batch.ids) - len(batch.manifests)))
                batch.manifests.append(manifest)
            batch.ids.append(number)
            batch.payloads.append(payload)
        for seat, batch in batches:
            seat.post(batch)
        if outbox:
            self._loop.call_soon(self._drain_outbox)

    def _drain_whole_outbox(self) -> None:
        while self._outbox:
            self._drain_outbox()

    def _post(self, seat: Seat, event: Event) -> None:
        self._drain_whole_outbox()
        seat.post(event)

    def _close_pipe(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


AnyRuntime = TypeVar('AnyRuntime', bound=Runtime)


def acquire(options: ClusterOptions, alone: bool = False) -> Runtime:
    """Return the runtime for a new cluster, starting it if there is none for whom it trusts."""
    return acquire_kind(Runtime, options, None, alone)


def acquire_kind(
    kind: type[AnyRuntime], options: ClusterOptions, place: Hashable, alone: bool = False
) -> AnyRuntime:
    """Return the runtime of this kind for a new cluster, starting it if there is none.

    One that is `alone` has a scheduler that serves no other cluster.

    Raises
    ------
    UsageError
        Open clusters of this program use another `ip_addr`, `ext_ip_addr`, `port` or
        `ipv4_udp_multicast`.
    """
    secret = options.trusted or choose_secret(options.secret, None, options.insecure)
    certificate = choose_certificate(options.certfile, options.keyfile, options.insecure)
    trust = Trust(secret, certificate.names if certificate else None)
    if secret.is_insecure:
        _log.warning(
            'INSECURE: nothing is encrypted; who reaches the network can read the jobs, pretend '
            'to be a node, and run programs as this user'
        )
    with _registry:
        runtime = None if alone else _runtimes.get((trust, place))
        if alone or not isinstance(runtime, kind):
            ports = [other.port for other in _runtimes.values()]  # of which each has another key
            runtime = kind(trust, certificate, options, ports)
            runtime.is_alone = alone
            if not alone:
                _runtimes[trust, place] = runtime
        else:
            _check_same_place(runtime, options)
        runtime.clusters += 1
        return runtime


def release(runtime: Runtime, comes_back: bool = False) -> None:
    """Note that a cluster is closed; with the last one the runtime ends.

    Where another program `comes_back` for what nodes have, they are not told so.
    """
    with _registry:
        runtime.clusters -= 1
        if runtime.clusters:
            return
        if not runtime.is_alone:
            del _runtimes[runtime.trust, runtime.place]
        runtime.stop(comes_back)
        last = not _runtimes
    if last:
        CALLBACKS.stop()


def _forget_parent() -> None:
    """In a fork of the program: its loops are not here, and its lock may be held."""
    global _registry
    _registry = threading.Lock()
    _runtimes.clear()


os.register_at_fork(after_in_child=_forget_parent)


def _check_same_place(runtime: Runtime, options: ClusterOptions) -> None:
    # what nobody has asked for is no reason to refuse: the port is as good as the usual one
    port = options.port if options.port != CLIENT_PORT else 0
    for name, ours, wanted in (
        ('ip_addr', runtime.ip_addr, options.ip_addr),
        ('port', runtime.port, port or runtime.port),
        ('ipv4_udp_multicast', runtime.ipv4_udp_multicast, options.ipv4_udp_multicast),
        ('ext_ip_addr', runtime.ext_ip_addr, options.ext_ip_addr or runtime.ext_ip_addr),
    ):
        if wanted != ours:
            raise UsageError(
                f'{name}={wanted!r}: open clusters of this program use {name}={ours!r}, and all '
                f'clusters of a program share one: close them first, or give the same'
            )
