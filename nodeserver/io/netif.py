"""This machine on its networks: interfaces, addresses, and what tells it from other machines."""

import errno
import hashlib
import ipaddress
import logging
import os
import re
import socket
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeserver.core.errors import KeyFileError, UsageError
from nodeserver.io.datagrams import printable
from nodeserver.io.interfaces import addresses, boot_time

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_HOST = 255  # RFC 1035
_HOST = re.compile(r'\w[\w.-]*|[0-9a-fA-F:.]+(%[\w.-]+)?')
# 107 characters are the longest ipc path; this leaves 50 for the names of sockets
_LONGEST_DIRECTORY = 57

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of this machine; `broadcast` is '' where the network has none."""

    name: str
    address: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    broadcast: str

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine hears what is sent here."""
        return self.network.is_loopback

    def reaches(self, address: str) -> bool:
        """Tell whether `address` is on this very network, without a router between."""
        plain, _, scope = address.partition('%')
        if scope and scope != self.name:  # each network has the same link-local addresses
            return False
        return ipaddress.ip_address(plain) in self.network

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return self.network.version == 6

    @property
    def family(self) -> socket.AddressFamily:
        """The family of its sockets."""
        return socket.AF_INET6 if self.is_ipv6 else socket.AF_INET


def interfaces(ip_addr: str | Sequence[str] | None = None) -> list[Interface]:
    """Return the addresses in use: all of them, or those that `ip_addr` restricts us to."""
    every = _every_interface()
    if ip_addr is None:
        return every
    wanted = [ip_addr] if isinstance(ip_addr, str) else ip_addr
    return [_interface_at(address, every) for name in wanted for address in resolve(name)[:1]]


def present_interfaces(ip_addr: str | Sequence[str] | None = None) -> list[Interface] | None:
    """Return those of `interfaces(ip_addr)` that are there now; None where that is not known."""
    try:
        if ip_addr is None:
            return interfaces()
        wanted = [ip_addr] if isinstance(ip_addr, str) else ip_addr
        return [i for address in wanted if is_local_address(address) for i in interfaces(address)]
    except UsageError as exc:  # one went while we looked
        _log.debug('the interfaces have changed: %s', exc)
    except OSError as exc:  # no descriptor is left to look with
        _log.debug('the interfaces were not looked at: %s', exc)
    return None


def broadcast_interfaces(every: Sequence[Interface]) -> list[Interface]:
    """Choose one address for each network that has a broadcast address."""
    chosen: dict[tuple[str, str], Interface] = {}
    for interface in every:
        if interface.broadcast:
            chosen.setdefault((interface.name, interface.broadcast), interface)
    return list(chosen.values())


def resolve(host: str) -> list[str]:
    """Return the addresses of a host name, or the address itself when it is one."""
    if len(host) > LONGEST_HOST:
        raise UsageError(f'host of {len(host)} characters: a host name has at most {LONGEST_HOST}')
    try:
        if not host.strip():  # would mean the loopback address
            raise ValueError('no name at all')
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, ValueError) as exc:
        raise UsageError(f'host {host!r} is unknown: give a host name or an IP address') from exc
    return list(dict.fromkeys(_plain(printable(entry[4])) for entry in found))


def own_addresses(host: str) -> list[str]:
    """Return the addresses of a host name that are this machine's; else what is to be refused."""
    found = resolve(host)
    return [address for address in found if is_local_address(address)] or found[:1]


def is_address(text: str) -> bool:
    """Tell whether a text is a numeric address."""
    return _parsed(text) is not None


def check_host(host: str) -> None:
    """Refuse what can be neither a host name nor an address; a name may be unknown as yet."""
    if len(host) > LONGEST_HOST or not _HOST.fullmatch(host):
        raise UsageError(f'host {host[:LONGEST_HOST]!r} is neither a host name nor an IP address')


def is_local_address(address: str) -> bool:
    """Tell whether this machine has this address (the whole of 127.0.0.0/8 on Linux)."""
    ip = _parsed(address)
    if ip is None or ip.is_unspecified or ip.is_multicast:
        return False
    if any(_parsed(interface.address) == ip for interface in _every_interface()):
        return True
    return ip.is_loopback and _can_bind(ip)


def likely_address() -> str:
    """Return the address by which others know this machine, as far as it can tell by itself."""
    here = sorted(present_interfaces() or [], key=lambda each: (each.is_loopback, each.is_ipv6))
    return here[0].address if here else ''


def is_loopback(address: str) -> bool:
    """Tell whether only this machine has this address."""
    ip = _parsed(address)
    return ip is not None and ip.is_loopback


def check_bindable(address: str) -> None:
    """Refuse an address that programs here cannot listen at (N07)."""
    ip = _parsed(address)
    if ip is not None and (ip.is_unspecified or is_local_address(address)):
        return
    given = f'ip_addr={address!r} is not an address of this machine'
    here = ', '.join(interface.address for interface in _every_interface())
    raise UsageError(
        f'{given}; it has {here or "none"}. The public address of a machine behind a '
        f'gateway, or in a cloud, belongs in ext_ip_addr (--ext_ip_addr)'
    )


def host_fingerprint() -> bytes:
    """Name this user on this boot of this machine in this network namespace, in 16 bytes (D7)."""
    user = os.getuid() if hasattr(os, 'getuid') else os.environ.get('USERNAME', '')
    facts = f'{user} {_boot_identity()} {_network_namespace()}'
    return hashlib.blake2b(facts.encode(), digest_size=16, person=b'dispy-nb host').digest()


def scheduler_socket(port: int) -> str:
    """Name, in the runtime directory, of a scheduler's local socket beside its port for clients."""
    return f'scheduler-{port}-{host_fingerprint().hex()[:8]}'  # ports are those of one network


def runtime_directory() -> Path:
    """Return the directory of this user's ipc sockets, made with mode 0700 and checked (D7)."""
    path = _runtime_path()
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.lstat()
    except OSError as exc:
        raise KeyFileError(f'the directory for local sockets cannot be made: {exc}') from exc
    if not stat.S_ISDIR(facts.st_mode):
        raise KeyFileError(f'{path} should be a directory for local sockets: remove it')
    if hasattr(os, 'getuid') and facts.st_uid != os.getuid():
        raise KeyFileError(
            f'{path}, the directory for local sockets, belongs to user {facts.st_uid}: '
            f'remove it, or set XDG_RUNTIME_DIR to a directory of your own'
        )
    if hasattr(os, 'getuid') and facts.st_mode & 0o077:
        raise KeyFileError(f'{path} is open to other users: chmod 700 {path}')
    return path


def _runtime_path() -> Path:
    name = f'dispy-nb-{os.getuid()}' if hasattr(os, 'getuid') else 'dispy-nb'
    given = os.environ.get('XDG_RUNTIME_DIR', '')
    for parent in (given, tempfile.gettempdir(), '/tmp'):
        path = Path(parent, name)
        if parent and os.access(parent, os.W_OK) and len(os.fsencode(path)) <= _LONGEST_DIRECTORY:
            return path
    return Path(tempfile.gettempdir(), name)


def _boot_identity() -> str:
    try:
        return Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
    except OSError:  # not Linux
        return f'{socket.gethostname()} {int(boot_time())}'


def _network_namespace() -> int:
    try:
        return Path('/proc/self/ns/net').stat().st_ino
    except OSError:  # not Linux
        return 0


def _every_interface() -> list[Interface]:
    return [_interface(*row) for row in addresses()]


def _interface(name: str, address: str, netmask: str | None) -> Interface:
    plain = address.partition('%')[0]
    ip = ipaddress.ip_address(plain)
    if isinstance(ip, ipaddress.IPv6Address):
        prefix = int(ipaddress.ip_address(netmask)).bit_count() if netmask else 128
        return Interface(name, address, ipaddress.IPv6Network((plain, prefix), strict=False), '')
    network = ipaddress.IPv4Network((plain, netmask or 32), strict=False)
    # computed, for the one that is configured is often missing (on loopback always)
    broadcast = str(network.broadcast_address) if network.prefixlen < 31 else ''
    return Interface(name, address, network, broadcast)


def _interface_at(address: str, every: Sequence[Interface]) -> Interface:
    """Find the interface of an address; 127.0.0.2 is on the loopback one without being listed."""
    for interface in every:
        if interface.address == address:
            return interface
    check_bindable(address)
    for interface in every:
        if interface.reaches(address):
            return Interface(interface.name, address, interface.network, interface.broadcast)
    host = ipaddress.ip_network(address.partition('%')[0])
    return Interface('', address, host, '')


def _plain(address: str) -> str:
    """Write an IPv4 address as such, if it was given in the way of IPv6."""
    ip = _parsed(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped) if mapped is not None else address


def _parsed(address: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _can_bind(ip: IPAddress) -> bool:
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((str(ip), 0))
        except OSError as exc:
            if exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return False
            raise
    return True
