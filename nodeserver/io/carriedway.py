"""Local endpoints from which connections are carried to nodes by a relay, on a thread of their own.

    DEALER ── local socket ──▶ CarriedWay ── HELLO, REQUEST ──▶ relay ──▶ node

ZeroMQ could ask a proxy by itself (SOCKS), but aborts the whole process when a socket is closed
while its proxy refuses (libzmq 4.3.5: the descriptor of a failed attempt is removed twice).
The thread leaves the loop of the link to the link: what is carried is no work for it, and what
was said last still goes out while that loop waits for ZeroMQ to end.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Callable

from nodeserver.core.errors import NotCarried
from nodeserver.io.acceptor import Acceptor
from nodeserver.io.carryrequest import Place, Requester
from nodeserver.io.pump import PORTION, Pump
from nodeserver.io.zmqsocket import tcp_endpoint

Failed = Callable[[str, bool], object]
"""Called, on the way's thread, with words where no connection is made, and if that is for good."""

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
_CREDENTIALS = struct.Struct('3i')  # process, user, group


class CarryThread:
    """Runs the ways of one link; started with the first."""

    def __init__(self, requester: Requester) -> None:
        self.requester = requester
        self._scratch = bytearray(PORTION)
        self._pumps: set[Pump] = set()
        self._has_ended = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name='dispy-carried', daemon=True)
        self._thread.start()

    def close(self, linger: float) -> None:
        """End, with `linger` seconds for what this side has closed to be handed on."""
        asyncio.run_coroutine_threadsafe(self._drain(linger), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called on the thread."""
        self.loop.call_soon_threadsafe(function)

    def join(self, near: socket.socket, far: socket.socket) -> None:
        """Carry bytes between the two; on the thread."""
        self._pumps.add(Pump(self.loop, near, far, self._scratch, self._ended))

    def _ended(self, pump: Pump) -> None:
        self._pumps.discard(pump)
        self._has_ended.set()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _drain(self, linger: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linger):
                while self._pumps:  # near ends are closed, and pumps end when these are read
                    self._has_ended.clear()
                    await self._has_ended.wait()
        for pump in list(self._pumps):
            pump.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class CarriedWay:
    """A local endpoint, each connection to which is carried to one node."""

    def __init__(self, thread: CarryThread, node: str, place: Place, failed: Failed) -> None:
        self._thread, self._loop = thread, thread.loop
        self._node, self._place, self._failed = node, place, failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor: Acceptor | None = None
        listening, self.endpoint = _local_listener()
        thread.call(lambda: self._listen(listening))

    def close(self) -> None:
        """Close the endpoint; what goes through it ends when its near end is closed."""
        self._thread.call(self._close)

    def _listen(self, listening: socket.socket) -> None:
        self._acceptor = Acceptor(self._loop, listening, self._accepted)

    def _close(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
        for task in self._tasks:
            task.cancel()

    def _accepted(self, near: socket.socket, where: object) -> None:
        if not _is_ours(near):
            near.close()
            return
        near.setblocking(False)
        task = self._loop.create_task(self._carry(near))
        for tasks in (self._tasks, self._thread.tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _carry(self, near: socket.socket) -> None:
        """Ask the relay until it carries, or until nobody here waits for that any more."""
        far: socket.socket | None = None
        try:
            for number in range(sys.maxsize):
                if _has_gone(near):
                    return
                try:
                    far = await self._thread.requester.ask(self._loop, self._node, self._place)
                    break
                except NotCarried as error:
                    self._failed(str(error), error.is_certain)
                await asyncio.sleep(_PAUSES[min(number, len(_PAUSES) - 1)])
        finally:
            if far is None:
                near.close()
        if far is not None:
            self._thread.join(near, far)


def _local_listener() -> tuple[socket.socket, str]:
    """Listen where programs of this machine can connect; only those of this user are served.

    Where the system has no sockets with names outside its files it is a port: what is said there
    is encrypted between the two ends.
    """
    if sys.platform == 'linux':
        name = f'dispy-nb-carried-{secrets.token_hex(16)}'
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        where: str | tuple[str, int] = f'\0{name}'
        endpoint = f'ipc://@{name}'
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        where, endpoint = ('127.0.0.1', 0), ''
    try:
        sock.bind(where)
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock, endpoint or tcp_endpoint(*sock.getsockname())


def _is_ours(sock: socket.socket) -> bool:
    """Whether a connection comes from this very process, where the system can tell."""
    if sys.platform != 'linux':
        return True
    with contextlib.suppress(OSError):
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(data)[0] == os.getpid())
    return False


def _has_gone(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
