"""Looks at this machine's ports: free, or who has them."""

import contextlib
import errno
import os
import socket
from typing import Any, Final

from dispy_nb.doctor.facts import Order, Owner, Port
from nodeserver.io.reaching import is_zeromq
from nodeserver.io.sysinfo import psutil

_KINDS: Final = {'TCP': socket.SOCK_STREAM, 'UDP': socket.SOCK_DGRAM}
_GREETING_SECONDS: Final = 0.3
_LONGEST_WORDS: Final = 60
_NODE_WORDS: Final = ('dispynode', 'nodeserver.cli.dispynode')


def look_at_ports(order: Order) -> list[Port]:
    """Look at the ports of nodes and of clusters, each for TCP and UDP."""
    return [
        Port(number, kind, None if is_free(number, kind) else owner_of(number, kind))
        for number in dict.fromkeys((order.node_port, order.port))
        for kind in _KINDS
    ]


def is_free(number: int, kind: str) -> bool:
    """Tell whether a program could have this port for itself, at every address."""
    families = [(socket.AF_INET, '0.0.0.0')]
    if socket.has_ipv6:
        families.append((socket.AF_INET6, '::'))
    for family, every in families:
        try:
            with socket.socket(family, _KINDS[kind]) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if kind == 'TCP':  # connections that have just ended do not count
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((every, number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False  # any other: there is no IPv6, or a low port
    return True


def owner_of(number: int, kind: str) -> Owner:
    """Say who has a port, as far as this user may know."""
    process = _process_of(number, kind)
    speaks = kind == 'TCP' and _greets_as_zeromq(number)
    if process is None:
        words = 'a program with ZeroMQ' if speaks else 'another program'
        return Owner(speaks, False, f'{words} (root could see which: sudo ss -lpn)')
    pid, name, command, user = process
    is_node = any(word in command for word in _NODE_WORDS)
    is_python = 'python' in os.path.basename(name).lower()  # noqa: PTH119 - a name, no path
    words = 'dispynode' if is_node else _short(command) or name
    return Owner(
        is_node or speaks or (kind == 'UDP' and is_python),
        is_node,
        f'{words} (process {pid} of {user})',
    )


def _process_of(number: int, kind: str) -> tuple[int, str, str, str] | None:
    """Find the process that listens: its id, name, command line and user."""
    if psutil is None:
        return None
    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections(kind.lower()):
            if each.laddr and each.laddr.port == number and _listens(each, kind) and each.pid:
                process = psutil.Process(each.pid)
                command = ' '.join(process.cmdline())
                return each.pid, process.name(), command, process.username()
    return None


def _listens(connection: Any, kind: str) -> bool:
    return kind == 'UDP' or connection.status == psutil.CONN_LISTEN


def _short(command: str) -> str:
    """Cut a command line, whose arguments may be long; a secret may be among them."""
    words = command.split()
    kept = [word for word in words[:3] if not word.startswith('-')]
    return ' '.join(kept)[:_LONGEST_WORDS]


def _greets_as_zeromq(number: int) -> bool:
    """Hear what the program says first to whoever connects."""
    said = b''
    with (
        contextlib.suppress(OSError),
        socket.create_connection(('127.0.0.1', number), _GREETING_SECONDS) as sock,
    ):
        sock.settimeout(_GREETING_SECONDS)
        while len(said) < 10 and (more := sock.recv(64)):
            said += more
    return is_zeromq(said)
