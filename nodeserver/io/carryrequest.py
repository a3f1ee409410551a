"""Asking a relay to carry a connection to a node: what comes back is a socket to that node."""

import asyncio
import secrets
import socket
from collections.abc import Callable

from nodeserver.core.errors import NotCarried
from nodeserver.io.datagrams import bind_address, family_of
from nodeserver.io.lookup import look_up
from nodeserver.wire import carriage
from nodeserver.wire.carriage import Answer

Place = Callable[[], tuple[str, int] | None]
"""Where the relay takes connections to be carried; None while there is no relay."""

_CONNECT_SECONDS = 3.0  # within that lost packets are sent again twice
_ANSWER_SECONDS = 8.0  # the relay may have to wait for the node
_UNACKNOWLEDGED_MS = 5000  # what the system at the relay has not confirmed: the wire is cut
_WORDS = {
    Answer.NOT_ADMITTED: 'the relay at {} does not know this program, or has another key',
    Answer.UNKNOWN_NODE: 'the relay at {} does not find it any more',
    Answer.NODE_REFUSES: 'the relay at {} finds nobody listening there',
    Answer.NODE_SILENT: 'the relay at {} gets no answer from it',
    Answer.FULL: 'the relay at {} carries as many connections as it can',
}


class Requester:
    """Asks for one program, on one thread's loop."""

    def __init__(self, program: str, key: bytes) -> None:
        self._program, self._key = program, key
        self._look_ups: dict[str, asyncio.Future[list[str]]] = {}  # of hosts, under way

    async def ask(self, loop: asyncio.AbstractEventLoop, node: str, place: Place) -> socket.socket:
        """Ask the relay once for a connection to a node; `NotCarried` if there is none."""
        found = place()
        if found is None:
            raise NotCarried('its relay is not connected')
        where = f'{found[0]} port {found[1]}'
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                addresses = await self._addresses(loop, found[0])
                sock = await _dial(loop, addresses, found[1])
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self._request(loop, sock, node)
            if answer is not Answer.CARRIED:
                words = _WORDS[answer].format(where)
                raise NotCarried(words, is_certain=answer is Answer.NODE_REFUSES)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, OSError):  # a timeout is one, without words
                words = error.strerror or str(error) or 'no answer'
                raise NotCarried(f'the relay at {where} cannot be reached: {words}') from error
            raise
        return sock

    async def _addresses(self, loop: asyncio.AbstractEventLoop, host: str) -> list[str]:
        """Look a host up; one that takes long is not looked up twice at a time."""
        look_up_done = self._look_ups.get(host)
        if look_up_done is None:
            look_up_done = self._look_ups[host] = loop.create_future()
            look_up(loop, host, lambda addresses: self._looked_up(host, addresses))
        return await asyncio.shield(look_up_done)

    def _looked_up(self, host: str, addresses: list[str]) -> None:
        self._look_ups.pop(host).set_result(addresses)

    async def _request(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, node: str
    ) -> Answer:
        hello = carriage.Hello(self._program, secrets.token_bytes(carriage.NONCE_SIZE))
        await loop.sock_sendall(sock, carriage.write_hello(hello.program, hello.nonce))
        challenge = await _exactly(loop, sock, carriage.NONCE_SIZE)
        request = carriage.write_request(hello, challenge, node, self._key)
        await loop.sock_sendall(sock, request)
        (answer,) = await _exactly(loop, sock, 1)
        try:
            return Answer(answer)
        except ValueError:
            raise ConnectionResetError('what answers is no relay') from None


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    """Read so much and no more: what follows is said by the node."""
    data = b''
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise ConnectionResetError('it closed the connection, and may carry none')
        data += more
    return data


async def _dial(loop: asyncio.AbstractEventLoop, addresses: list[str], port: int) -> socket.socket:
    """Connect to the first address of a host that answers."""
    failure: OSError = ConnectionRefusedError('its name is not known here')
    for address in addresses:
        sock = socket.socket(family_of(address), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, 'TCP_USER_TIMEOUT'):  # not on every system
                timeout = socket.TCP_USER_TIMEOUT
                sock.setsockopt(socket.IPPROTO_TCP, timeout, _UNACKNOWLEDGED_MS)
            await loop.sock_connect(sock, bind_address(address, port))
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
