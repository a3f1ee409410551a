"""The thread that holds all TLS connections of a link: the loop of the link never encrypts.

    listen ── accept ─▶ handshake, proof ─▶ Pump ── socket pair ─▶ link's loop: peer(sock, address)
    connect ──────────▶ handshake, proof ─▶ Pump ── socket pair ─▶ link's loop: up(sock)

What strangers send is read here and nowhere else; the link gets a connection whose far end has
shown our certificate and knows our secret.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from nodeserver.core.errors import PeerRefused
from nodeserver.io.acceptor import Acceptor
from nodeserver.io.anteroom import most_connections
from nodeserver.io.certificate import TlsIdentity
from nodeserver.io.datagrams import Throttle, bind_address
from nodeserver.io.tlshandshake import admit, introduce
from nodeserver.io.tlspump import SCRATCH_SIZE, Pump
from nodeserver.io.waitingroom import WaitingRoom
from nodeserver.io.wirewatch import CAN_TELL, is_cut

log = logging.getLogger('nodeserver.link')

HANDSHAKE_SECONDS: Final = 10.0  # for handshake and proof together
MOST_UNPROVEN: Final = 256  # connections that have not finished them
MOST_UNPROVEN_OF_ONE: Final = 64  # of one address, which may be a whole network's
_DESCRIPTORS: Final = 3  # of each connection: its own, and those between this thread and the link
_ONE_LINE_PER = 60.0
_LOOKS = 3  # at a wire, in the time that it may be silent

Peer = Callable[[socket.socket, str], None]
Stranger = Callable[[str, str], None]  # address, words
Reach = Callable[[asyncio.AbstractEventLoop], Awaitable[socket.socket]]
"""Opens the connection on which TLS begins; called on the thread, with its loop."""


@dataclass(frozen=True, slots=True)
class WireTimes:
    """Seconds that who connects allows: between signs of life, and without any.

    `unacknowledged` is how long the other system may leave unconfirmed what it was sent.
    """

    sign: float
    silence: float
    unacknowledged: float


class Attempt:
    """One try to connect; after `cancel` neither of its two outcomes is told."""

    def __init__(
        self,
        thread: 'TlsThread',
        up: Callable[[socket.socket], None],
        failed: Callable[[PeerRefused | OSError], None],
    ) -> None:
        self._thread, self._up, self._failed = thread, up, failed
        self._task: asyncio.Task[None] | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """Give it up; on the loop of the link."""
        self.is_cancelled = True
        self._thread.post(self._cancel_task)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start the work; on the thread."""
        if self.is_cancelled:
            work.close()
        else:
            self._task = self._thread.start(work)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def succeeded(self, sock: socket.socket) -> None:
        """Hand the connection over; on the loop of the link."""
        if self.is_cancelled:
            sock.close()
        else:
            self._up(sock)

    def fail(self, error: PeerRefused | OSError) -> None:
        """Tell why there is none; on the loop of the link."""
        if not self.is_cancelled:
            self._failed(error)


class TlsThread:
    """Made, called and closed on the link's loop; everything else happens on its own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, identity: TlsIdentity) -> None:
        self._link_loop, self._identity = loop, identity
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumps: set[Pump] = set()
        self._acceptors: dict[socket.socket, Acceptor] = {}  # by where they listen
        self._unproven = WaitingRoom(MOST_UNPROVEN, MOST_UNPROVEN_OF_ONE)
        self._full = Throttle(_ONE_LINE_PER)
        self._most = max(most_connections() // _DESCRIPTORS, 1)
        self._handed_over: set[socket.socket] = set()  # that the link has not got yet
        self._scratch = memoryview(bytearray(SCRATCH_SIZE))
        self._idle: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name='dispy-tls', daemon=True)
        self._thread.start()

    # called on the link's loop

    def listen(self, sock: socket.socket, peer: Peer, stranger: Stranger) -> None:
        """Take connections of a socket that listens, which is ours from now on."""
        self.post(lambda: self._watch(sock, peer, stranger))

    def stop_listening(self, sock: socket.socket) -> None:
        """Take no more connections of it, and close it."""
        done = threading.Event()

        def stop() -> None:
            self._unwatch(sock)
            done.set()

        self.post(stop)
        done.wait()  # its port is free when this returns

    def connect(
        self,
        reach: Reach,
        times: WireTimes,
        up: Callable[[socket.socket], None],
        failed: Callable[[PeerRefused | OSError], None],
    ) -> Attempt:
        """Connect to a peer; later `up` gets the connection, or `failed` the reason."""
        attempt = Attempt(self, up, failed)
        self.post(lambda: attempt.begin(self._dial(reach, times, attempt)))
        return attempt

    def close(self, linger: float) -> None:
        """Send what the link has said within `linger` seconds, and leave nothing behind."""
        self.post(lambda: self.start(self._finish(linger)))
        self._thread.join()
        for sock in self._handed_over:
            sock.close()
        self._handed_over.clear()

    # called by whoever

    def post(self, call: Callable[[], object]) -> None:
        """Have something done on the thread."""
        self._loop.call_soon_threadsafe(call)

    def start(self, work: Coroutine[Any, Any, None]) -> 'asyncio.Task[None]':
        """Begin some work; on the thread."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # on the thread

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def _watch(self, sock: socket.socket, peer: Peer, stranger: Stranger) -> None:
        def accepted(connection: socket.socket, name: Any) -> None:
            self._accepted(connection, name, peer, stranger)

        self._acceptors[sock] = Acceptor(self._loop, sock, accepted)

    def _unwatch(self, sock: socket.socket) -> None:
        acceptor = self._acceptors.pop(sock, None)
        if acceptor is not None:
            acceptor.close()

    def _accepted(self, sock: socket.socket, name: Any, peer: Peer, stranger: Stranger) -> None:
        if len(self._pumps) >= self._most:
            if self._full.allows('', self._loop.time()):
                log.warning('there are %d connections: others are closed', self._most)
            sock.close()
            return
        address = plain_address(name)
        task = self.start(self._admit(sock, address, peer, stranger))
        # only if nobody has taken it over: a task may be cancelled before it begins
        task.add_done_callback(lambda _: sock.close())
        self._unproven.enter(task, address)

    async def _admit(
        self, sock: socket.socket, address: str, peer: Peer, stranger: Stranger
    ) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock, *_LISTENERS_KEEPALIVE)
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                proven = await admit(self._loop, sock, self._identity)
            self._hand_over(proven, lambda near: peer(near, address))
        except PeerRefused as error:
            self._tell(stranger, address, str(error))
        except TimeoutError:
            self._tell(stranger, address, f'it did not say who it is in {HANDSHAKE_SECONDS:g} s')
        except OSError:  # it went away, or no descriptor is left
            pass

    async def _dial(self, reach: Reach, times: WireTimes, attempt: Attempt) -> None:
        try:
            sock = await reach(self._loop)
            try:
                keep_alive(sock, times.sign, times.silence)
            except OSError:
                sock.close()
                raise
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                proven = await introduce(self._loop, sock, self._identity)
            self._watch_wire(self._hand_over(proven, attempt.succeeded), times.unacknowledged)
        except (PeerRefused, OSError) as error:  # TimeoutError is one of the latter
            self._tell(attempt.fail, error)

    def _hand_over(self, far: Any, take: Callable[[socket.socket], None]) -> Pump:
        try:
            near, links = socket.socketpair()
        except OSError:
            far.close()
            raise
        pump = Pump(self._loop, far, near, self._scratch, self._pump_done)
        self._pumps.add(pump)
        self._handed_over.add(links)

        def taken() -> None:
            if links in self._handed_over:
                self._handed_over.discard(links)
                take(links)

        self._tell(taken)
        return pump

    def _watch_wire(self, pump: Pump, patience: float) -> None:
        """Notice a wire that is cut: who connected has to connect anew, perhaps elsewhere."""
        if not pump.is_open or not CAN_TELL:
            return
        if is_cut(pump.far, patience):
            pump.abort()
        else:
            self._loop.call_later(patience / _LOOKS, self._watch_wire, pump, patience)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # that loop ended without closing us
            self._link_loop.call_soon_threadsafe(call, *args)

    def _pump_done(self, pump: Pump) -> None:
        self._pumps.discard(pump)
        if not self._pumps and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _finish(self, linger: float) -> None:
        """End: first who is still unproven, then, when they are done, the others."""
        for sock in list(self._acceptors):
            self._unwatch(sock)
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._pumps:
            self._idle = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(linger):
                    await self._idle
        for pump in list(self._pumps):
            pump.abort()
        self._loop.stop()


# a scheduler that is suspended may come back within an hour (D17); who is gone for good is noticed
_LISTENERS_KEEPALIVE = (60.0, 3600.0)


async def connected(
    loop: asyncio.AbstractEventLoop, where: tuple[str, int], seconds: float
) -> socket.socket:
    """Connect to an address, or to the first one of a host."""
    async with asyncio.timeout(seconds):  # the system would ask ever more seldom
        try:
            target = bind_address(*where)
        except ValueError:  # a host name
            target = (await loop.getaddrinfo(*where, type=socket.SOCK_STREAM))[0][4]
        family = socket.AF_INET6 if ':' in target[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, target)
        except BaseException:
            sock.close()
            raise
        return sock


def keep_alive(sock: socket.socket, interval: float, limit: float) -> None:
    """Have the system ask a silent peer for signs of life, and give it up after `limit` seconds."""
    seconds = max(1, round(interval))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, amount in (
        ('TCP_KEEPIDLE', seconds),
        ('TCP_KEEPINTVL', seconds),
        ('TCP_KEEPCNT', min(127, max(1, round(limit / seconds)))),
        ('TCP_USER_TIMEOUT', round(limit * 1000)),
    ):
        if hasattr(socket, name):  # other systems have some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), amount)


def plain_address(name: Any) -> str:
    """Write a peer's address; an IPv4 one as usual, if it came to a socket of both families."""
    address = str(name[0])
    return address.removeprefix('::ffff:') if '.' in address else address
