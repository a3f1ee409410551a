"""The first bytes of a connection that a relay is to carry: a proof of the key, and to whom.

    program ── HELLO: magic, program, nonce ──▶ relay
    program ◀── CHALLENGE: nonce ── relay
    program ── REQUEST: node, proof ──▶ relay
    program ◀── ANSWER: one byte ── relay          then bytes of both ends, which nobody reads

ZeroMQ's own connections begin with 0xFF: one port can tell both apart by the first byte.  The
proof is worth nothing to who records it, as the relay's nonce is in it; what is carried is
encrypted by its ends, so that the answer needs no proof.
"""

import hashlib
import hmac
from enum import IntEnum
from typing import Final

from nodeserver.core.values import value
from nodeserver.wire.linkkeys import LinkKeys

NONCE_SIZE: Final = 16
ZMTP_FIRST: Final = 0xFF
MAGIC: Final = b'dnbc\x01'
_ID_SIZE = 16
_PROOF_SIZE = 32
HELLO_SIZE: Final = len(MAGIC) + _ID_SIZE + NONCE_SIZE
REQUEST_SIZE: Final = _ID_SIZE + _PROOF_SIZE
_INSECURE = b'dispy-nb insecure carriage'


class Answer(IntEnum):
    """What becomes of a request."""

    CARRIED = 0
    NOT_ADMITTED = 1  # the proof is wrong, or the program is not connected to the relay
    UNKNOWN_NODE = 2  # the relay has not found it, or not lately
    NODE_REFUSES = 3  # nobody listens there
    NODE_SILENT = 4
    FULL = 5


@value
class Hello:
    """Which program asks, and its nonce."""

    program: str
    nonce: bytes


@value
class Request:
    """To which node the connection is to be carried, and the proof of the key."""

    node: str
    proof: bytes


def carriage_key(keys: LinkKeys | None) -> bytes:
    """Derive the key of these proofs from those of links; a public one when insecure."""
    root = keys.server_secret if keys is not None else _INSECURE
    return hashlib.blake2b(root, digest_size=32, person=b'dispy-nb carry 1').digest()


def write_hello(program: str, nonce: bytes) -> bytes:
    """Write a HELLO; the nonce is made of fresh random bytes."""
    return MAGIC + bytes.fromhex(program) + nonce


def read_hello(data: bytes) -> Hello | None:
    """Read a HELLO; None for anything else."""
    if len(data) != HELLO_SIZE or not data.startswith(MAGIC):
        return None
    start = len(MAGIC)
    return Hello(data[start : start + _ID_SIZE].hex(), data[start + _ID_SIZE :])


def write_request(hello: Hello, challenge: bytes, node: str, key: bytes) -> bytes:
    """Write the REQUEST that follows a HELLO and the relay's challenge."""
    return bytes.fromhex(node) + _proof(hello, challenge, node, key)


def read_request(data: bytes) -> Request:
    """Read a REQUEST of the right size."""
    return Request(data[:_ID_SIZE].hex(), data[_ID_SIZE:])


def is_proven(hello: Hello, challenge: bytes, request: Request, key: bytes) -> bool:
    """Whether a request comes from somebody who has the key, and was made just now."""
    wanted = _proof(hello, challenge, request.node, key)
    return hmac.compare_digest(wanted, request.proof)


def _proof(hello: Hello, challenge: bytes, node: str, key: bytes) -> bytes:
    text = challenge + hello.nonce + bytes.fromhex(hello.program) + bytes.fromhex(node)
    return hashlib.blake2b(text, digest_size=_PROOF_SIZE, key=key, person=b'carry request').digest()
