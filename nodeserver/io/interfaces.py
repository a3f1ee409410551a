"""Addresses of this machine's network interfaces: of psutil, or of Linux where that is missing."""

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from nodeserver.io.sysinfo import psutil

_GET_FLAGS, _GET_ADDRESS, _GET_NETMASK = 0x8913, 0x8915, 0x891B  # netdevice(7)
_IS_UP = 1
_LINK_LOCAL = 0x20
_IPV6_TABLE = Path('/proc/net/if_inet6')

Address = tuple[str, str, str | None]
"""Interface, address, netmask."""


def addresses() -> Iterator[Address]:
    """All IPv4 and IPv6 addresses of interfaces that are up."""
    yield from _of_system() if psutil is None else _of_psutil()


def boot_time() -> float:
    """When the machine was started, in seconds since the epoch; 0.0 where nobody knows."""
    return float(psutil.boot_time()) if psutil is not None else 0.0


def _of_psutil() -> Iterator[Address]:
    up = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        if name in up and up[name].isup:
            for entry in entries:
                if entry.family in (socket.AF_INET, socket.AF_INET6):
                    yield name, entry.address, entry.netmask


def _of_system() -> Iterator[Address]:
    names = [name for _, name in socket.if_nameindex()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        up = [name for name in names if _flags(sock, name) & _IS_UP]
        for name in up:
            address = _ipv4(sock, name, _GET_ADDRESS)
            if address:
                yield name, address, _ipv4(sock, name, _GET_NETMASK)
    yield from (row for row in _ipv6() if row[0] in up)


def _flags(sock: socket.socket, name: str) -> int:
    try:
        answer = fcntl.ioctl(sock, _GET_FLAGS, struct.pack('256s', name.encode()[:15]))
    except OSError:  # it has just gone
        return 0
    return int(struct.unpack_from('H', answer, 16)[0])


def _ipv4(sock: socket.socket, name: str, request: int) -> str | None:
    try:
        answer = fcntl.ioctl(sock, request, struct.pack('256s', name.encode()[:15]))
    except OSError:  # it has none
        return None
    return socket.inet_ntoa(answer[20:24])


def _ipv6() -> Iterator[Address]:
    try:
        lines = _IPV6_TABLE.read_text().splitlines()
    except OSError:  # the system has no IPv6, or is not Linux
        return
    for line in lines:
        digits, _, prefix, scope, _, name = line.split()
        address = str(ipaddress.IPv6Address(int(digits, 16)))
        netmask = str(ipaddress.IPv6Network((0, int(prefix, 16))).netmask)
        yield name, f'{address}%{name}' if int(scope, 16) == _LINK_LOCAL else address, netmask
