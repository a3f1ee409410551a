"""The one port of a relay: whoever comes is told apart by a first byte.

    ZeroMQ's 0xFF, 0x16 of TLS ──▶ joined to the relay's own listener
    a HELLO ──▶ proof of the key ──▶ joined to a node that the relay has found
    else ──▶ closed

What is carried is encrypted between its two ends; the relay opens connections to nowhere but the
nodes that its core has named.
"""

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nodeserver.core.errors import PortBusy
from nodeserver.io.acceptor import Acceptor
from nodeserver.io.datagrams import Throttle, bind_address
from nodeserver.io.pump import PORTION, Pump
from nodeserver.io.waitingroom import WaitingRoom
from nodeserver.wire import carriage
from nodeserver.wire.carriage import Answer
from nodeserver.wire.linkkeys import LinkKeys

MOST_WAITING: Final = 512  # connections that have not shown what they are
MOST_WAITING_OF_ONE: Final = 128  # of them from one address; of IPv6, from one /64
MOST_CARRIED: Final = 4096
MOST_OWN: Final = 2048
MOST_OWN_OF_ONE: Final = 128
MOST_ALIASES: Final = 16384
GREETING_SECONDS: Final = 5.0
NODE_SECONDS: Final = 5.0
_ZMTP, _TLS_RECORD = bytes((carriage.ZMTP_FIRST,)), b'\x16'
_OWN = (_ZMTP, _TLS_RECORD)  # first bytes of a program that wants to talk to the relay itself
_SIGNATURE = b'\xff' + bytes(8) + b'\x7f'  # with which each end of ZMTP begins
_SMALL = 4096
_NO_CERTIFICATE = (
    'a program that uses SSL tried to connect, and this relay was given no certificate: start it '
    'with --certfile'
)
_BACKLOG = 256
_ONE_LINE_PER, _LINES_PER = 60.0, 20
# seconds: an end that is gone without a word keeps its connection for less than two hours, and
# a laptop that sleeps for one comes back to it
_KEEPALIVE = (('TCP_KEEPIDLE', 600), ('TCP_KEEPINTVL', 300), ('TCP_KEEPCNT', 12))

_log = logging.getLogger(__name__)


class FrontDoor:
    """Listens for programs, and carries the connections of those that may have that."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keys: LinkKeys | None,
        inner: tuple[str, int],  # where the relay's own link listens
        changed: Callable[[int], None],  # how many connections are carried now
        is_tls: bool = False,  # whether the relay's own link is one
    ) -> None:
        self._loop, self._key, self._inner = loop, carriage.carriage_key(keys), inner
        self._changed, self._is_tls = changed, is_tls
        self._acceptors: list[Acceptor] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = WaitingRoom(MOST_WAITING, MOST_WAITING_OF_ONE)
        self._reaching = 0  # connections to nodes that are being made
        self._own: dict[Pump, str] = {}  # to our own link, and from where
        self._own_of: Counter[str] = Counter()
        self._carried: set[Pump] = set()
        self._scratch = bytearray(PORTION)
        self._complaints = Throttle(_ONE_LINE_PER, _LINES_PER)
        self._aliases: dict[str, str] = {}  # by whose connection it is
        self._origins: dict[str, str] = {}  # the other way round
        self._next_alias = 0
        self._admitted: set[str] = set()
        self._ways: dict[str, tuple[str, int]] = {}

    def listen(self, address: str, port: int, option: str) -> int:
        """Take connections at an address ('': all); answers with the port."""
        try:
            sock = _listening(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortBusy(port, address, option) from error
            raise
        self._acceptors.append(Acceptor(self._loop, sock, self._accepted))
        return int(sock.getsockname()[1])

    def admit(self, program: str) -> None:
        """Carry connections of a program from now on."""
        self._admitted.add(program)

    def dismiss(self, program: str) -> None:
        """Carry no more connections of a program; those that stand end with it."""
        self._admitted.discard(program)

    def origin(self, address: str) -> str:
        """Say whose connections come to the relay's own link from this address of ours."""
        return self._origins.get(address, address)

    def open_way(self, node: str, address: str, port: int) -> None:
        """Carry connections to a node from now on."""
        self._ways[node] = (address, port)

    def close_way(self, node: str) -> None:
        """Carry no more connections to a node; those that stand go on as long as it lives."""
        self._ways.pop(node, None)

    def stop_listening(self) -> None:
        """Take no more connections."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    async def aclose(self) -> None:
        """Close everything."""
        self.stop_listening()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pump in (*self._own, *self._carried):
            pump.close()

    # connections that come

    def _accepted(self, sock: socket.socket, name: Any) -> None:
        address = str(name[0]).removeprefix('::ffff:')
        sock.setblocking(False)
        task = self._loop.create_task(self._welcome(sock, address))
        self._tasks.add(task)
        task.add_done_callback(partial(self._welcomed, sock))
        self._waiting.enter(task, address)

    def _welcomed(self, sock: socket.socket, task: 'asyncio.Task[None]') -> None:
        self._tasks.discard(task)
        if task.cancelled():  # perhaps before it began
            sock.close()

    def _may_enter(self, address: str) -> bool:
        """Whether one more connection may come to our own link, which throws strangers out."""
        if self._own_of[address] < MOST_OWN_OF_ONE and len(self._own) < MOST_OWN:
            return True
        self._complain(address, 'too many connections')
        return False

    async def _welcome(self, sock: socket.socket, address: str) -> None:
        """Find out what a connection is, and join it to what it is for."""
        far: socket.socket | None = None
        is_carried = False
        try:
            async with asyncio.timeout(GREETING_SECONDS + NODE_SECONDS):
                _tune(sock)
                first = await self._first(sock)
                if first[:1] == _TLS_RECORD and not self._is_tls:
                    self._complain(address, _NO_CERTIFICATE)
                    await self._say_no_ssl(sock)
                elif first[:1] in _OWN:
                    far = await self._enter(first, address)
                elif first.startswith(carriage.MAGIC):
                    is_carried = True
                    far = await self._answer(sock, first, address)
                elif first:
                    self._complain(address, 'what came is of no program of dispy-nb')
        except (OSError, TimeoutError):
            pass  # it went away, or said nothing for too long
        except asyncio.CancelledError:
            if far is not None:
                far.close()
            raise
        if far is None:
            sock.close()
        else:
            self._join(sock, far, address, is_carried)

    async def _enter(self, first: bytes, address: str) -> socket.socket | None:
        """Join a program to our own link, which sees for itself who that is."""
        if not self._may_enter(address):
            return None
        far = await self._dial(*self._inner, self._alias(address))
        try:
            await self._loop.sock_sendall(far, first)
        except BaseException:
            far.close()
            raise
        return far

    async def _say_no_ssl(self, sock: socket.socket) -> None:
        """Answer as the link would, which is understood at the other end, and wait for its end.

        Closing with anything unread would lose what was said.
        """
        await self._loop.sock_sendall(sock, _SIGNATURE)
        sock.shutdown(socket.SHUT_WR)
        while await self._loop.sock_recv(sock, _SMALL):
            pass

    async def _first(self, sock: socket.socket) -> bytes:
        """The first bytes: a whole HELLO, or what there is of anything else."""
        async with asyncio.timeout(GREETING_SECONDS):
            first = await self._loop.sock_recv(sock, carriage.HELLO_SIZE)
            while carriage.MAGIC.startswith(first[: len(carriage.MAGIC)]) and first:
                if len(first) == carriage.HELLO_SIZE:
                    break
                more = await self._loop.sock_recv(sock, carriage.HELLO_SIZE - len(first))
                if not more:
                    return b''
                first += more
            return first

    async def _answer(
        self, sock: socket.socket, first: bytes, address: str
    ) -> socket.socket | None:
        """Judge a request; the connection to the node if it is carried."""
        hello = carriage.read_hello(first)
        if hello is None:
            return None
        challenge = secrets.token_bytes(carriage.NONCE_SIZE)
        await self._loop.sock_sendall(sock, challenge)
        async with asyncio.timeout(GREETING_SECONDS):
            data = await self._exactly(sock, carriage.REQUEST_SIZE)
        request = carriage.read_request(data)
        far = None
        if not carriage.is_proven(hello, challenge, request, self._key):
            self._complain(address, 'a program with another key (or none) asks to be carried')
            answer = Answer.NOT_ADMITTED
        elif hello.program not in self._admitted:
            answer = Answer.NOT_ADMITTED
        elif len(self._carried) + self._reaching >= MOST_CARRIED:
            self._complain('', f'{MOST_CARRIED} connections are carried: no more are')
            answer = Answer.FULL
        else:
            self._leave_waiting()
            answer, far = await self._reach(request.node)
        try:
            await self._loop.sock_sendall(sock, bytes((answer,)))
        except BaseException:
            if far is not None:
                far.close()
            raise
        return far

    def _leave_waiting(self) -> None:
        """Who has proven the key does not have to go because of others that do not."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting.leave(task)

    async def _reach(self, node: str) -> tuple[Answer, socket.socket | None]:
        place = self._ways.get(node)
        if place is None:
            return Answer.UNKNOWN_NODE, None
        self._reaching += 1
        try:
            async with asyncio.timeout(NODE_SECONDS):
                return Answer.CARRIED, await self._dial(*place)
        except ConnectionRefusedError:
            return Answer.NODE_REFUSES, None
        except (OSError, TimeoutError):
            return Answer.NODE_SILENT, None
        finally:
            self._reaching -= 1

    def _alias(self, address: str) -> str:
        """Choose an address of ours that tells whose connection it is: each has one of its own."""
        alias = self._aliases.get(address)
        if alias is None:
            number = self._next_alias = self._next_alias % MOST_ALIASES + 1
            alias = f'127.77.{number >> 8}.{number & 255}'
            self._aliases.pop(self._origins.get(alias, ''), None)
            self._aliases[address], self._origins[alias] = alias, address
        return alias

    async def _dial(self, address: str, port: int, source: str = '') -> socket.socket:
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _tune(sock)
            if source:
                with contextlib.suppress(OSError):  # only Linux has all of 127.0.0.0/8
                    sock.bind((source, 0))
            await self._loop.sock_connect(sock, bind_address(address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _exactly(self, sock: socket.socket, size: int) -> bytes:
        data = b''
        while len(data) < size:
            more = await self._loop.sock_recv(sock, size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data

    # connections that are joined

    def _join(
        self, near: socket.socket, far: socket.socket, address: str, is_carried: bool
    ) -> None:
        if is_carried:
            self._carried.add(Pump(self._loop, near, far, self._scratch, self._carried_ended))
            self._changed(len(self._carried))
        else:
            pump = Pump(self._loop, near, far, self._scratch, self._own_ended)
            self._own[pump] = address
            self._own_of[address] += 1

    def _own_ended(self, pump: Pump) -> None:
        address = self._own.pop(pump)
        self._own_of[address] -= 1
        if not self._own_of[address]:
            del self._own_of[address]

    def _carried_ended(self, pump: Pump) -> None:
        self._carried.discard(pump)
        self._changed(len(self._carried))

    def _complain(self, address: str, words: str) -> None:
        if self._complaints.allows(address, self._loop.time()):
            _log.warning('%s%s', words, f' (from {address})' if address else '')


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in _KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)


def _listening(address: str, port: int) -> socket.socket:
    """Listen at an address; without one at all of IPv4 and, where the system has it, of IPv6."""
    both = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ':' in address else socket.AF_INET
    where = bind_address(address, port) if address else ('', port)
    sock = socket.create_server(where, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    sock.setblocking(False)
    return sock
