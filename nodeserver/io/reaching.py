"""Can that port be reached?  One try, with a time limit, and what the other side says first."""

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Final

from nodeserver.core.diagnosis import Reach
from nodeserver.io.datagrams import bind_address, family_of

# ZMTP 3: a signature of ten bytes, said at once; to whoever says as much and the version, the rest
GREETING: Final = b'\xff' + bytes(8) + b'\x7f\x03'
_SIGNATURE_SIZE: Final = 10
_MECHANISM: Final = slice(12, 32)
_FIRST_WORDS: Final = 64
_TLS_RECORDS: Final = (b'\x15', b'\x16')  # an alert, a part of the handshake
_REACHES: Final = {
    errno.ECONNREFUSED: Reach.REFUSED,
    errno.ECONNRESET: Reach.REFUSED,
    errno.ETIMEDOUT: Reach.SILENT,
    errno.EPERM: Reach.PROHIBITED,
    errno.EACCES: Reach.PROHIBITED,
}


def reach_of(error: OSError) -> Reach:
    """Say what an error of a socket means for whoever wanted to reach a port."""
    return _REACHES.get(error.errno or 0, Reach.UNREACHABLE)


async def try_tcp(
    address: str, port: int, timeout: float, patience: float = 0.0, greeting: bytes = GREETING
) -> tuple[Reach, bytes]:
    """Connect to a numeric address; with `patience` seconds, also hear what it says first.

    It is greeted with the beginning of ZeroMQ's greeting, after which no key is judged yet: so
    who is there tells what it is, and finds nothing to complain about.  Where TLS is expected,
    `greeting` is empty: programs with ZeroMQ say who they are all the same.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(family_of(address), socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, bind_address(address, port))
        except TimeoutError as error:  # the kernel's own is one as well, with a number
            return (reach_of(error) if error.errno else Reach.SILENT), b''
        except OSError as error:
            return reach_of(error), b''
        return Reach.OPEN, await _first_words(sock, patience, greeting) if patience else b''


async def answers_tls(address: str, port: int, patience: float) -> bool:
    """Whether who listens there speaks TLS: it answers the beginning of a handshake with its own.

    Nothing else is said, and no certificate is shown: to the other side we have gone away.
    """
    reach, words = await try_tcp(address, port, patience, patience, _client_hello())
    return reach is Reach.OPEN and words[:1] in _TLS_RECORDS


def _client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):  # it waits for an answer
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


async def _first_words(sock: socket.socket, patience: float, greeting: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    words = b''
    try:
        async with asyncio.timeout(patience):
            await loop.sock_sendall(sock, greeting)
            while more := await loop.sock_recv(sock, _FIRST_WORDS):
                words += more
                is_more_to_come = greeting == GREETING and is_zeromq(words)
                if len(words) >= (_FIRST_WORDS if is_more_to_come else _SIGNATURE_SIZE):
                    break
    except OSError:  # it says nothing (more), or has closed the connection
        pass
    return words


def mechanism(words: bytes) -> str:
    """Return how a program with ZeroMQ has its peers prove themselves: 'CURVE', 'NULL', or ''."""
    if not is_zeromq(words):
        return ''
    return words[_MECHANISM].rstrip(b'\0').decode('ascii', 'replace')


def is_zeromq(words: bytes) -> bool:
    """Tell whether who said this first is a program with ZeroMQ, as all of ours are."""
    return len(words) >= _SIGNATURE_SIZE and words[0] == 0xFF and words[9] == 0x7F
