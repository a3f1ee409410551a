"""What both ends of the search for nodes have in common.

    ClientBeacon.ping() ── PING ──▶ NodeBeacon ── PONG ──▶ ClientBeacon ── NodeFound ──▶ core
    NodeBeacon.announce() ── HERE, to all ──▶ ClientBeacon ── PING ──▶ NodeBeacon, as above

"To all" is by broadcast on each network of IPv4, or by multicast where that is asked for, and
always by multicast on each of IPv6.  Both live on an event loop's thread (`io/clientbeacon.py`,
`io/nodebeacon.py`); nothing there blocks or raises once it is made.
"""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from nodeserver.io.datagrams import DatagramSocket

CLIENT_PORT: Final = 51347
NODE_PORT: Final = 51348
SCHEDULER_PORT: Final = 51349  # of dispyscheduler, for programs

JITTER: Final = 0.2  # of intervals, so that nodes that start together do not stay in step
NONCE_LIFETIME: Final = 10.0
OTHER_KEY_INTERVAL: Final = 1.0  # between two OTHER_KEY, for each address

_log = logging.getLogger(__name__)


def open_if_there(
    make: Callable[[str, int], DatagramSocket], port: int, is_port_given: bool
) -> DatagramSocket | None:
    """Open a socket for all of IPv6; None where that is switched off on this machine."""
    if not socket.has_ipv6:
        return None
    try:
        return make('::', port)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE and is_port_given:
            raise
        _log.debug('nodes are not looked for by IPv6: %s', exc)
        return None
