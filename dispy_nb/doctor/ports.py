"""Looks at this machine's ports: free, or who has them."""

import contextlib
import errno
import functools
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, Final

from dispy_nb.doctor.facts import Order, Owner, Port
from nodeserver.io.reaching import is_zeromq
from nodeserver.io.sysinfo import psutil
from nodeserver.wire import beacon

_KINDS: Final = {'TCP': socket.SOCK_STREAM, 'UDP': socket.SOCK_DGRAM}
_ANSWER_SECONDS: Final = 0.3
_LONGEST_WORDS: Final = 60
_NODE_WORDS: Final = ('dispynode', 'dispynode.py', 'nodeserver.cli.dispynode')
_LOOPBACK: Final = '127.0.0.1'


def look_at_ports(order: Order) -> list[Port]:
    """Look at the ports of nodes and of clusters, each for TCP and UDP."""
    numbers = dict.fromkeys((order.node_port, order.port))
    every = [(number, kind) for number in numbers for kind in _KINDS]
    taken = [place for place in every if not is_free(*place)]
    sockets = _sockets() if taken else []
    is_node = functools.cache(_answers_as_node)  # it says so once a second
    return [
        Port(*place, owner_of(*place, sockets, is_node) if place in taken else None)
        for place in every
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


def owner_of(
    number: int, kind: str, sockets: Sequence[Any], answers_as_node: Callable[[int], bool]
) -> Owner | None:
    """Say who has a port, as far as this user may know: if not by name, by how it answers."""
    process = _process_of(number, kind, sockets)
    speaks = kind == 'TCP' and _greets_as_zeromq(number)
    if process is not None:
        pid, command, user = process
        is_node = any(PurePath(word).name in _NODE_WORDS for word in command)
        is_doctor = 'doctor' in command and any('dispy' in word for word in command)
        is_ours = is_node or speaks or is_doctor or (kind == 'UDP' and _is_python(command))
        words = 'dispynode' if is_node else program_words(command)
        return Owner(is_ours, is_node, f'{words} (process {pid} of {user})', is_doctor)
    if is_free(number, kind):  # it has just ended
        return None
    is_node = (speaks or kind == 'UDP') and answers_as_node(number)
    words = 'dispynode of another user' if is_node else 'another program'
    if speaks and not is_node:
        words = 'a program with ZeroMQ'
    return Owner(speaks or is_node, is_node, f'{words} (root can see which: sudo ss -lnp)')


def program_words(command: Sequence[str]) -> str:
    """Name a program by its file, and the script or module that Python runs; no arguments.

    These belong to whoever started it, and a secret may be among them.
    """
    if not command:
        return 'another program'
    words = [PurePath(command[0]).name]
    if _is_python(command):
        named = [word for word in command[1:3] if not word.startswith('-')]
        is_script = bool(named) and not command[1].startswith('-')
        if is_script or command[1:2] == ['-m']:
            words += [PurePath(word).name for word in named[:1]]
    return ' '.join(words)[:_LONGEST_WORDS]


def _is_python(command: Sequence[str]) -> bool:
    return bool(command) and 'python' in PurePath(command[0]).name.lower()


def _sockets() -> list[Any]:
    """List all sockets of the internet that this user may know of."""
    if psutil is not None:
        with contextlib.suppress(psutil.Error, OSError):
            return list(psutil.net_connections('inet'))
    return []


def _process_of(
    number: int, kind: str, sockets: Sequence[Any]
) -> tuple[int, list[str], str] | None:
    """Find the process that listens: its id, command line and user."""
    for each in sockets:
        if each.type != _KINDS[kind] or not each.laddr or each.laddr.port != number or not each.pid:
            continue
        if kind == 'TCP' and each.status != psutil.CONN_LISTEN:
            continue
        if kind == 'UDP' and each.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):  # it has just ended
            process = psutil.Process(each.pid)
            return each.pid, process.cmdline() or [process.name()], process.username()
    return None


def _greets_as_zeromq(number: int) -> bool:
    """Hear what the program says first to whoever connects."""
    said = b''
    with (
        contextlib.suppress(OSError),
        socket.create_connection((_LOOPBACK, number), _ANSWER_SECONDS) as sock,
    ):
        sock.settimeout(_ANSWER_SECONDS)
        while len(said) < 10 and (more := sock.recv(64)):
            said += more
    return is_zeromq(said)


def _answers_as_node(number: int) -> bool:
    """Ask under a key that nobody has: a node says that it has another one."""
    asker = beacon.Asker(secrets.token_hex(16), beacon.Role.CLIENT)
    nonce, key = secrets.token_bytes(beacon.NONCE_SIZE), secrets.token_bytes(32)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_ANSWER_SECONDS)
        sock.sendto(beacon.encode_ping(nonce, asker, key), (_LOOPBACK, number))
        return sock.recv(beacon.PADDED_SIZE) == beacon.OTHER_KEY_PACKET
    return False
