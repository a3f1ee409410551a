"""The UDP packets with which nodes are found: bytes in, values out.

    client ── PING(nonce) ──▶ node        node ── HERE ──▶ client (broadcast, at the node's start)
    client ◀── PONG(nonce) ── node        client ── PING ──▶ node, and so on

Only a PONG is believed, for it echoes a nonce that was just made (clocks may differ, recordings
are worthless); a HERE merely says whom to ask.  A packet of ours under another key is answered
by OTHER_KEY, so that a wrong key is told apart from silence (D7).  No answer is larger than
what it answers: a forged source address gains an attacker nothing.

    magic 3 | version 1 | kind 1 | body | zeros (PING and HERE) | authenticator 16
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Final

from nodeserver.core.values import value

NONCE_SIZE: Final = 16
FINGERPRINT_SIZE: Final = 16
LOCAL_NAME_LIMIT: Final = 64
HOST_LIMIT: Final = 100
MOST_CALLBACK_HOSTS: Final = 8  # each costs the node a look-up of a name
PADDED_SIZE: Final = 256
# with `insecure` there is no secret: packets are told from noise, and from secured ones, only
INSECURE_KEY: Final = hashlib.blake2b(b'dispy-nb insecure beacons', digest_size=32).digest()

_HEAD = b'dnb\x02'
_MAC_SIZE = 16
_PREFIX_SIZE = len(_HEAD) + 1
_PING = struct.Struct('!16s16sBHB')  # nonce, peer, role, callback port, length of their hosts
_CONTACT = struct.Struct('!16s16sHBI16sBB')  # ..., flags, clock, fingerprint, two lengths


class Kind(IntEnum):
    """The fifth byte of a packet."""

    PING = 1
    PONG = 2
    HERE = 3
    OTHER_KEY = 4


class Flag(IntFlag):
    """What else there is to know of who answers."""

    NONE = 0
    TLS = 1  # its port speaks TLS, as both sides were given a certificate
    RELAY = 2  # it is no node, and tells of those of its network


class Role(IntEnum):
    """Who asks: answers do not differ by it, logs do."""

    CLIENT = 1
    SCHEDULER = 2
    RELAY = 3


@value
class Asker:
    """Who sends pings: a peer id (32 hexadecimal digits) and what it is."""

    peer: str
    role: Role


@value
class NodeContact:
    """How to reach a node; `local_name` is its ipc socket's file name, '' when it has none.

    `ext_host` is the address or host name to use in place of the one that answers (L10), `clock`
    the node's time in seconds since the epoch.
    """

    node: str
    port: int
    fingerprint: bytes
    local_name: str
    ext_host: str = ''
    flags: Flag = Flag.NONE
    clock: int = 0


@value
class Callback:
    """Where a node is to connect to whoever asks (A20): addresses or names, and a TCP port."""

    hosts: tuple[str, ...]
    port: int


@value
class Ping:
    """Is a node there?  The answer goes to where this came from."""

    nonce: bytes
    asker: Asker
    callback: Callback | None = None


@value
class Pong:
    """A node's answer to the ping with this nonce."""

    nonce: bytes
    contact: NodeContact


@value
class Here:
    """A node's announcement: worth a ping, and no more than that."""

    contact: NodeContact


@value
class OtherKey:
    """The sender got a packet of ours that is not under its key."""


@value
class WrongKey:
    """A well-formed packet that is not under our key."""

    kind: Kind


Packet = Ping | Pong | Here | OtherKey | WrongKey

_ROLES = frozenset(int(role) for role in Role)
_ALL_FLAGS = sum(Flag)
_NAME_BYTES = frozenset(b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_')
_HOST_BYTES = _NAME_BYTES | frozenset(b':%')
CALLBACK_LIMIT: Final = PADDED_SIZE - _PREFIX_SIZE - _PING.size - _MAC_SIZE

OTHER_KEY_PACKET: Final = _HEAD + bytes((Kind.OTHER_KEY,))


def encode_ping(nonce: bytes, asker: Asker, key: bytes, callback: Callback | None = None) -> bytes:
    """Make a PING; `nonce` must be fresh random bytes.

    Raises `ValueError` for hosts that are none, or together too long for a packet.
    """
    hosts, port = b'', 0
    if callback is not None:
        hosts, port = callback_bytes(callback.hosts), callback.port
    body = _PING.pack(nonce, bytes.fromhex(asker.peer), asker.role, port, len(hosts)) + hosts
    return _sealed(Kind.PING, body, key, padded=True)


def callback_bytes(hosts: Sequence[str]) -> bytes:
    """Write the hosts of a callback; a `ValueError` for those that cannot be in a packet."""
    names = [host.encode('ascii') for host in hosts]
    text = b','.join(names)
    is_short = len(text) <= CALLBACK_LIMIT and len(names) <= MOST_CALLBACK_HOSTS
    if not is_short or not all(map(_is_host, names)):
        raise ValueError(f'the addresses {hosts!r} do not fit into a packet')
    return text


def encode_pong(nonce: bytes, contact: NodeContact, key: bytes) -> bytes:
    """Make the answer to the PING that carried `nonce`."""
    return _sealed(Kind.PONG, _contact_body(nonce, contact), key, padded=False)


def encode_here(nonce: bytes, contact: NodeContact, key: bytes) -> bytes:
    """Make an announcement; the nonce only makes each one differ."""
    return _sealed(Kind.HERE, _contact_body(nonce, contact), key, padded=True)


def decode(data: bytes, key: bytes) -> Packet | None:
    """Read a packet; None for what is not one of ours, `WrongKey` for one under another key."""
    if data == OTHER_KEY_PACKET:
        return OtherKey()
    kind = _kind_of(data)
    if kind is None:
        return None
    if not hmac.compare_digest(_authenticator(data[:-_MAC_SIZE], key), data[-_MAC_SIZE:]):
        return WrongKey(kind)
    body = data[_PREFIX_SIZE:-_MAC_SIZE]
    return _read_ping(body) if kind is Kind.PING else _read_contact(kind, body)


def _kind_of(data: bytes) -> Kind | None:
    """Judge the outer form, before any key is looked at."""
    if not data.startswith(_HEAD) or not _PREFIX_SIZE < len(data) <= PADDED_SIZE:
        return None
    code = data[_PREFIX_SIZE - 1]
    if code in (Kind.PING, Kind.HERE):
        return Kind(code) if len(data) == PADDED_SIZE else None
    least = _PREFIX_SIZE + _CONTACT.size + _MAC_SIZE
    return Kind.PONG if code == Kind.PONG and len(data) >= least else None


def _read_ping(body: bytes) -> Ping | None:
    nonce, peer, role, port, length = _PING.unpack_from(body)
    hosts = body[_PING.size : _PING.size + length]
    if role not in _ROLES or len(hosts) != length or bool(hosts) != bool(port):
        return None
    asker = Asker(peer.hex(), Role(role))
    if not hosts:
        return Ping(nonce, asker)
    names = hosts.split(b',')
    if len(names) > MOST_CALLBACK_HOSTS or not all(map(_is_host, names)):
        return None
    return Ping(nonce, asker, Callback(tuple(name.decode('ascii') for name in names), port))


def _read_contact(kind: Kind, body: bytes) -> Pong | Here | None:
    nonce, node, port, flags, clock, fingerprint, *lengths = _CONTACT.unpack_from(body)
    middle = _CONTACT.size + lengths[0]
    name, host = body[_CONTACT.size : middle], body[middle : middle + lengths[1]]
    if [len(name), len(host)] != lengths or port == 0 or flags > _ALL_FLAGS:
        return None
    if not _is_file_name(name) or (host and not _is_host(host)):
        return None
    names = name.decode('ascii'), host.decode('ascii')
    contact = NodeContact(node.hex(), port, fingerprint, *names, Flag(flags), clock)
    return Pong(nonce, contact) if kind is Kind.PONG else Here(contact)


def _contact_body(nonce: bytes, contact: NodeContact) -> bytes:
    name, host = contact.local_name.encode('ascii'), contact.ext_host.encode('ascii')
    if len(name) > LOCAL_NAME_LIMIT or not _is_file_name(name):
        raise ValueError(f'local_name={contact.local_name!r} is not a short plain file name')
    if len(host) > HOST_LIMIT or (host and not _is_host(host)):
        raise ValueError(f'ext_host={contact.ext_host!r} is not a short host name or address')
    head = _CONTACT.pack(
        nonce,
        bytes.fromhex(contact.node),
        contact.port,
        contact.flags,
        contact.clock,
        contact.fingerprint,
        len(name),
        len(host),
    )
    return head + name + host


def is_host(text: str) -> bool:
    """Tell whether a text can be a host name or an address, and short enough for a contact."""
    return text.isascii() and len(text) <= HOST_LIMIT and _is_host(text.encode('ascii'))


def _is_host(text: bytes) -> bool:
    """Tell whether a text can be a host name or an address: it comes from a peer."""
    return bool(text) and all(byte in _HOST_BYTES for byte in text) and text[:1] not in b'.-%'


def _is_file_name(name: bytes) -> bool:
    """Tell whether a name stays in its directory: it comes from a peer and becomes a path."""
    return all(byte in _NAME_BYTES for byte in name) and not name.startswith(b'.')


def _sealed(kind: Kind, body: bytes, key: bytes, *, padded: bool) -> bytes:
    text = _HEAD + bytes((kind,)) + body
    if padded:
        text = text.ljust(PADDED_SIZE - _MAC_SIZE, b'\0')
    return text + _authenticator(text, key)


def _authenticator(text: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_MAC_SIZE, key=key, person=b'dispy-nb beacon').digest()
