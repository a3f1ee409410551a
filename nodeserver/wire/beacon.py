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
from enum import IntEnum
from typing import Final

from nodeserver.core.values import value

NONCE_SIZE: Final = 16
FINGERPRINT_SIZE: Final = 16
LOCAL_NAME_LIMIT: Final = 160
PADDED_SIZE: Final = 256
# with `insecure` there is no secret: packets are told from noise, and from secured ones, only
INSECURE_KEY: Final = hashlib.blake2b(b'dispy-nb insecure beacons', digest_size=32).digest()

_HEAD = b'dnb\x01'
_MAC_SIZE = 16
_PREFIX_SIZE = len(_HEAD) + 1
_PING = struct.Struct('!16s16sB')
_CONTACT = struct.Struct('!16s16sH16sB')


class Kind(IntEnum):
    """The fifth byte of a packet."""

    PING = 1
    PONG = 2
    HERE = 3
    OTHER_KEY = 4


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
    """How to reach a node; `local_name` is its ipc socket's file name, '' when it has none."""

    node: str
    port: int
    fingerprint: bytes
    local_name: str


@value
class Ping:
    """Is a node there?  The answer goes to where this came from."""

    nonce: bytes
    asker: Asker


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
_NAME_BYTES = frozenset(b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_')

OTHER_KEY_PACKET: Final = _HEAD + bytes((Kind.OTHER_KEY,))


def encode_ping(nonce: bytes, asker: Asker, key: bytes) -> bytes:
    """Make a PING; `nonce` must be fresh random bytes."""
    body = _PING.pack(nonce, bytes.fromhex(asker.peer), asker.role)
    return _sealed(Kind.PING, body, key, padded=True)


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
    nonce, peer, role = _PING.unpack_from(body)
    if role not in _ROLES:
        return None
    return Ping(nonce, Asker(peer.hex(), Role(role)))


def _read_contact(kind: Kind, body: bytes) -> Pong | Here | None:
    nonce, node, port, fingerprint, length = _CONTACT.unpack_from(body)
    name = body[_CONTACT.size : _CONTACT.size + length]
    if len(name) != length or port == 0 or not _is_file_name(name):
        return None
    contact = NodeContact(node.hex(), port, fingerprint, name.decode('ascii'))
    return Pong(nonce, contact) if kind is Kind.PONG else Here(contact)


def _contact_body(nonce: bytes, contact: NodeContact) -> bytes:
    name = contact.local_name.encode('ascii')
    if len(name) > LOCAL_NAME_LIMIT or not _is_file_name(name):
        raise ValueError(f'local_name={contact.local_name!r} is not a short plain file name')
    node, fingerprint = bytes.fromhex(contact.node), contact.fingerprint
    return _CONTACT.pack(nonce, node, contact.port, fingerprint, len(name)) + name


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
