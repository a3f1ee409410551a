"""Can that port be reached?  One try, with a time limit, and what the other side says first."""

import asyncio
import errno
import socket
from typing import Final

from nodeserver.core.diagnosis import Reach
from nodeserver.io.datagrams import bind_address, family_of

# what ZeroMQ says as soon as somebody connects (ZMTP 3): a signature of ten bytes
_SIGNATURE_SIZE: Final = 10
_FIRST_WORDS: Final = 64
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
    address: str, port: int, timeout: float, patience: float = 0.0
) -> tuple[Reach, bytes]:
    """Connect to a numeric address; with `patience` seconds, also hear what it says first."""
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
        words = b''
        try:
            async with asyncio.timeout(patience):
                while len(words) < _SIGNATURE_SIZE and (
                    more := await loop.sock_recv(sock, _FIRST_WORDS)
                ):
                    words += more
        except OSError:  # it says nothing, or has closed the connection
            pass
        return Reach.OPEN, words


def is_zeromq(words: bytes) -> bool:
    """Tell whether who said this first is a program with ZeroMQ, as all of ours are."""
    return len(words) >= _SIGNATURE_SIZE and words[0] == 0xFF and words[9] == 0x7F
