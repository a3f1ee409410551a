"""Addresses of host names, looked up beside the loop: a name server may take many seconds."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

from nodeserver.io.netif import is_address


def look_up(loop: asyncio.AbstractEventLoop, host: str, found: Callable[[list[str]], None]) -> None:
    """Have `found` called with a host's addresses, those of IPv4 first; with none if it has none.

    An address is its own answer.  The thread of a look-up that takes long ends with the program.
    """
    if is_address(host):
        loop.call_soon(found, [host])
        return

    def ask() -> None:
        addresses = _addresses(host)
        with contextlib.suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(found, addresses)

    # no pool: its threads would keep the program from ending until each has an answer
    threading.Thread(target=ask, name=f'look-up of {host}', daemon=True).start()


def _addresses(host: str) -> list[str]:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # unknown, no name server, or no name at all
        return []
    addresses = dict.fromkeys(str(entry[4][0]) for entry in entries)
    return sorted(addresses, key=lambda address: ':' in address)
