"""Multicast: the groups in which clients and nodes find each other on one network.

IPv6 has no broadcast, and always uses its group; IPv4 does so where it is asked to.  Both groups
stay within a link: routers do not pass `ff02::` on, nor packets with IPv4's time to live of 1.
"""

import logging
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Final

from nodeserver.io.datagrams import DatagramSocket
from nodeserver.io.netif import Interface

IPV4_GROUP: Final = '239.255.110.98'  # administratively scoped (RFC 2365)
IPV6_GROUP: Final = 'ff02::6e62'
_PACKED4 = socket.inet_aton(IPV4_GROUP)
_PACKED6 = bytes.fromhex('ff02000000000000000000000000') + b'nb'
# <linux/in.h>, <linux/in6.h>: of the groups that any program here has joined, take only our own
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29

_log = logging.getLogger(__name__)


class Membership:
    """Keeps a listening socket in its group, on interfaces that come and go."""

    def __init__(self, sock: DatagramSocket) -> None:
        self._sock = sock
        self._joined: set[bytes] = set()
        if sys.platform == 'linux':
            is_ipv6 = sock.family == socket.AF_INET6
            option = _IPV6_MULTICAST_ALL if is_ipv6 else _IP_MULTICAST_ALL
            try:
                sock.socket.setsockopt(_level(sock), option, 0)
            except OSError as exc:  # a kernel before 4.20
                _log.debug('groups of other programs are heard too: %s', exc)

    def follow(self, every: Sequence[Interface]) -> None:
        """Be in the group on these interfaces, as far as they take part, and on no other."""
        wanted = {_request(place) for place in group_interfaces(every, self._sock.family)}
        wanted.discard(b'')
        is_ipv6 = self._sock.family == socket.AF_INET6
        join = socket.IPV6_JOIN_GROUP if is_ipv6 else socket.IP_ADD_MEMBERSHIP
        leave = socket.IPV6_LEAVE_GROUP if is_ipv6 else socket.IP_DROP_MEMBERSHIP
        for request in self._joined - wanted:
            self._set(leave, request)  # fails where the interface is gone, and with it all of it
            self._joined.discard(request)
        for request in wanted - self._joined:
            if self._set(join, request):
                self._joined.add(request)

    def _set(self, option: int, request: bytes) -> bool:
        try:
            self._sock.socket.setsockopt(_level(self._sock), option, request)
        except OSError as exc:
            _log.debug('a multicast group was not joined or left: %s', exc)
            return False
        return True


def group_interfaces(every: Sequence[Interface], family: socket.AddressFamily) -> list[Interface]:
    """Choose one address of this family for each interface that multicast may use."""
    chosen: dict[str, Interface] = {}
    for interface in every:
        if interface.family == family and not (interface.is_loopback and interface.is_ipv6):
            chosen.setdefault(interface.name, interface)
    return list(chosen.values())


def send_to_group(sock: DatagramSocket, data: bytes, port: int, interface: Interface) -> bool:
    """Send a packet to everybody on one interface's network; False where it does not take it."""
    if sock.family == socket.AF_INET6:
        index = _index(interface.name)
        return bool(index) and sock.send(data, (IPV6_GROUP, port, 0, index))
    try:
        where = socket.inet_aton(interface.address)
        sock.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, where)
    except OSError as exc:  # the address has just gone
        _log.debug('no multicast from %s: %s', interface.address, exc)
        return False
    return sock.send(data, (IPV4_GROUP, port))


def _level(sock: DatagramSocket) -> int:
    return socket.IPPROTO_IPV6 if sock.family == socket.AF_INET6 else socket.IPPROTO_IP


def _request(interface: Interface) -> bytes:
    """What the system wants to be told of a group on an interface; b'' if that is gone."""
    if interface.is_ipv6:
        index = _index(interface.name)
        return _PACKED6 + struct.pack('@I', index) if index else b''
    return _PACKED4 + socket.inet_aton(interface.address)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:  # it has just gone, or its system calls it otherwise
        return 0
