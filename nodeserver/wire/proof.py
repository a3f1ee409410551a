"""How both ends of a TLS connection prove that they know the secret, without telling it.

    client ── HELLO(nonce) ──▶ server
    client ◀── ANSWER(nonce, proof) ── server
    client ── PROOF(proof), or nothing but a verdict ──▶ server
    client ◀── VERDICT ── server

A proof covers who gives it, both nonces, both certificates and this very connection: neither a
recording, nor the other side's own proof, nor one that a third party fetched from elsewhere
over a connection of its own is worth anything.  All messages have fixed sizes.
"""

import hashlib
import hmac
from typing import Final

from nodeserver.core.errors import PeerRefused
from nodeserver.core.values import value

NONCE_SIZE: Final = 32
HELLO_SIZE: Final = 5 + NONCE_SIZE
ANSWER_SIZE: Final = 5 + NONCE_SIZE + 32
PROOF_SIZE: Final = 1 + 32
VERDICT_SIZE: Final = 1

OTHER_SECRET: Final = 'it has the same certificate and another secret: give both the same'

_MAGIC: Final = b'dnbp\x01'
_YES, _NO = b'\x01', b'\x00'
_SERVER, _CLIENT = b'server', b'client'


@value
class Connection:
    """What a proof is bound to: the connection's own fingerprint and both certificates'."""

    channel: bytes
    server: bytes
    client: bytes


class ServerProof:
    """The side that took the connection."""

    def __init__(self, key: bytes, nonce: bytes, connection: Connection) -> None:
        self._key, self._nonce, self._connection = key, nonce, connection
        self._nonces = b''

    def answer(self, hello: bytes) -> bytes:
        """Read a HELLO and make the ANSWER; `PeerRefused` for what is no HELLO."""
        self._nonces = _nonce_of(hello, HELLO_SIZE) + self._nonce
        mine = _proof(self._key, _SERVER, self._nonces, self._connection)
        return _MAGIC + self._nonce + mine

    def verdict(self, proof: bytes) -> tuple[bytes, bool]:
        """Read a PROOF; the VERDICT, and whether the other side is one of ours."""
        theirs = _proof(self._key, _CLIENT, self._nonces, self._connection)
        is_good = len(proof) == PROOF_SIZE and proof[:1] == _YES
        is_good = hmac.compare_digest(proof[1:], theirs) and is_good
        return (_YES if is_good else _NO), is_good


class ClientProof:
    """The side that made the connection."""

    def __init__(self, key: bytes, nonce: bytes, connection: Connection) -> None:
        self._key, self._nonce, self._connection = key, nonce, connection

    def hello(self) -> bytes:
        """Make the HELLO."""
        return _MAGIC + self._nonce

    def prove(self, answer: bytes) -> tuple[bytes, bool]:
        """Read an ANSWER; the PROOF, which is empty for one who does not know our secret."""
        nonces = self._nonce + _nonce_of(answer, ANSWER_SIZE)
        theirs = _proof(self._key, _SERVER, nonces, self._connection)
        if not hmac.compare_digest(answer[-32:], theirs):
            return _NO + bytes(32), False
        return _YES + _proof(self._key, _CLIENT, nonces, self._connection), True


def is_accepted(verdict: bytes) -> bool:
    """Read a VERDICT."""
    return verdict == _YES


def _nonce_of(message: bytes, size: int) -> bytes:
    if len(message) != size or not message.startswith(_MAGIC):
        raise PeerRefused('it does not speak the protocol of this version of dispy-nb')
    return message[len(_MAGIC) : len(_MAGIC) + NONCE_SIZE]


def _proof(key: bytes, role: bytes, nonces: bytes, connection: Connection) -> bytes:
    parts = (role, nonces, connection.channel, connection.server, connection.client)
    text = b''.join(len(part).to_bytes(2) + part for part in parts)
    return hashlib.blake2b(text, digest_size=32, key=key, person=b'dispy-nb proof 1').digest()
