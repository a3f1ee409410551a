"""A program that uses a shared scheduler, as a stand-in for `SharedJobCluster`: bare messages.

The link, the core of the cluster and what is sent are the real ones.  It runs on a loop in a
thread of its own, and a test looks at what has come.
"""

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.events import (
    CancelAsked,
    CloseAsked,
    Event,
    JobsSubmitted,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
)
from nodeserver.core.recoveryeffects import StoreEpoch
from nodeserver.core.values import CLIENT_ROLE
from nodeserver.io import netif
from nodeserver.io.certificate import TlsIdentity
from nodeserver.io.dialer import Target
from nodeserver.io.driver import Driver
from nodeserver.io.keys import Secret, choose_secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.sysinfo import python_version
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.payload import dump_call, dump_package, load_result
from nodeserver.wire.outcome import decode_outcome
from tests.support.programs import eventually

T = TypeVar('T')
SCHEDULER = 'scheduler'


class Client:
    """One program with one cluster."""

    def __init__(
        self,
        port: int,
        function: Callable[..., Any],
        node_port: int,
        secret: Secret | None = None,
        **more: Any,
    ) -> None:
        self._secret = secret or choose_secret()
        tls: TlsIdentity | None = more.pop('tls', None)
        is_local: bool = more.pop('is_local', False)
        nodes: tuple[str, ...] = more.pop('nodes', ('127.0.0.1',))
        self._target = Target('127.0.0.1', port, self._socket(port) if is_local else '')
        self._tls, self._scheduler, self._next = tls, '', 1
        specs = [m.NodeSpec(node, node_port, 0, False) for node in nodes]
        self.declared = m.DeclareComputation(
            secrets.randbits(62) | 1,
            more.pop('name', 'compute'),
            'somebody at a test',
            python_version(),
            dump_package(function),
            specs,
            node_port,
            'job',
            reentrant=False,
            dest_path='',
            cleanup=True,
            pulse_interval=5.0,
            ping_interval=0.0,
            token=secrets.token_bytes(16),
            **more,
        )
        self.results: dict[int, Any] = {}
        self.statuses: dict[int, int] = {}
        self.reasons: dict[int, str] = {}
        self.started: dict[int, str] = {}
        self.said: list[str] = []
        self.refusals: list[str] = []
        self.losses: list[str] = []
        self.connected = self.closed = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name='test client')
        self._is_up = threading.Event()
        self._thread.start()
        self._is_up.wait(10)

    def submit(self, *args: Any) -> int:
        """Have a job run; its id."""
        job = self._next
        self._next += 1
        self._post(JobsSubmitted('', [job], [dump_call(args, {})]))
        return job

    def cancel(self, *jobs: int) -> None:
        """Take jobs back."""
        self._post(CancelAsked(list(jobs)))

    def result(self, job: int, timeout: float = 20) -> Any:
        """What a job has returned, which must have gone well."""
        eventually(
            lambda: job in self.statuses,
            timeout,
            lambda: f'job {job}: {self.said} {self.refusals} {self.connected}',
        )
        assert job in self.results, (self.statuses[job], self.reasons.get(job))
        return self.results[job]

    def close(self) -> None:
        """Close the cluster and the connection, if there is one."""
        if self.connected:
            self._post(CloseAsked())
            eventually(lambda: self.closed)
        self.vanish()

    def vanish(self) -> None:
        """End without a word of the cluster."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _socket(self, port: int) -> str:
        return str(netif.runtime_directory() / netif.scheduler_socket(port))

    def _post(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._seat.post, event)

    def _run(self) -> None:
        driver = Driver(self._loop)
        core = ClusterCore(SCHEDULER, self.declared, is_elsewhere=True)
        self._seat = driver.add(core, self._performers())
        self._link = ZmqLink(
            self._loop,
            self._happened,
            (secrets.token_hex(16), CLIENT_ROLE),
            self._secret.link_keys(),
            LinkOptions(tls=self._tls),
            driver.turn_if_idle,
        )
        self._link.dial(self._target)
        self._loop.call_soon(self._is_up.set)
        self._loop.run_forever()
        self._link.close()
        driver.close()
        self._loop.close()

    def _happened(self, event: Event) -> None:
        if isinstance(event, PeerConnected):
            self._scheduler = event.peer
            self.connected += 1
        elif isinstance(event, PeerRefusedUs):
            self.refusals.append(event.reason)
            return
        self._seat.post(event)
        if isinstance(event, PeerLost):
            self.losses.append(event.reason)
            self._link.dial(self._target)

    def _performers(self) -> dict[type[Any], Callable[[Any], None]]:
        return {
            do.Send: lambda effect: self._link.send(self._scheduler, effect.message),
            do.SettleJobs: self._settle,
            do.SettleUnrun: self._unrun,
            do.MarkStarted: lambda e: self.started.update(dict.fromkeys(e.ids, e.node)),
            do.MarkRequeued: lambda effect: None,
            do.TellNode: lambda effect: None,
            do.TakeBackNotice: lambda effect: None,
            do.Report: lambda effect: self.said.append(effect.text),
            do.SayClosed: self._say_closed,
            StoreEpoch: lambda effect: None,
        }

    def _say_closed(self, effect: do.SayClosed) -> None:
        self.closed += 1

    def _settle(self, effect: do.SettleJobs) -> None:
        done = effect.done
        for job, status, outcome in zip(done.ids, done.statuses, done.outcomes, strict=True):
            self.reasons[job] = done.reasons[done.ids.index(job)]
            if outcome:
                head, result = decode_outcome(outcome)
                if head.exception:
                    self.reasons[job] = head.exception
                else:
                    self.results[job] = load_result(result)
            self.statuses[job] = status

    def _unrun(self, effect: do.SettleUnrun) -> None:
        for job in effect.ids:
            self.reasons[job], self.statuses[job] = effect.reason, effect.status


@contextlib.contextmanager
def client(port: int, function: Callable[..., Any], **options: Any) -> Iterator[Client]:
    """Run such a program until the block ends."""
    made = Client(port, function, **options)
    try:
        yield made
    finally:
        made.vanish()


def socket_of(port: int) -> Path:
    """Where this user's programs connect without TCP."""
    return netif.runtime_directory() / netif.scheduler_socket(port)
