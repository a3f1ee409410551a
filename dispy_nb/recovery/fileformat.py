"""What a journal's file holds: tables, and the values within them, as msgpack.

Rows are batches, never single jobs: what a turn of the loop brings is one row, or a few.
"""

from array import array
from typing import Any, TypeVar

import msgspec

from nodeserver.core.messages import DeclareComputation

APPLICATION_ID = 0x64_6A_6E_31  # 'djn1'
VERSION = 1
PART = 32 << 20  # bytes of a row of something large
LARGE = 1 << 20  # what is larger lies apart from its batch
ARGUMENTS, OUTCOME, DATA = range(3)  # what is large

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE nodes (node TEXT PRIMARY KEY, address TEXT NOT NULL, port INTEGER NOT NULL,
    via TEXT NOT NULL, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE placements (row INTEGER PRIMARY KEY, node TEXT NOT NULL, ids BLOB NOT NULL,
    attempts BLOB NOT NULL);
CREATE TABLE ended (row INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE jobs (row INTEGER PRIMARY KEY, content BLOB NOT NULL, payloads BLOB NOT NULL);
CREATE TABLE outcomes (row INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE retries (row INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE users_ids (row INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE large (kind INTEGER NOT NULL, id INTEGER NOT NULL, part INTEGER NOT NULL,
    content BLOB NOT NULL, UNIQUE (kind, id, part))
"""


KeptFile = tuple[str, bytes | None]
"""Where a file is, and its content if that is small."""


class Setting(msgspec.Struct, frozen=True):
    """How the cluster's program reached its nodes, and who it was."""

    secret: str  # 'own', 'variable', 'kept' or 'insecure'
    kept: bytes = b''  # of the secret, where the program gave it
    certfile: str | None = None
    keyfile: str | None = None
    ip_addr: list[str] | None = None
    ext_ip_addr: list[str] | None = None
    port: int = 0
    ipv4_udp_multicast: bool = False
    keeps_all: bool = False
    made_at: float = 0.0  # seconds since the epoch
    program: str = ''  # its path, where the computation is one
    by_value: list[str] = []  # modules that travel so
    sent: list[str] = []  # modules that travel as files
    files: list[KeptFile] = []  # of the cluster, in the order of its manifest
    scheduler: tuple[str, int] | None = None  # of a shared cluster

    def __repr__(self) -> str:
        return '<Setting>'


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Jobs that were submitted together; their arguments lie beside it."""

    node: str
    timeout: float
    retries: int
    priority: int
    ids: bytes  # as `packed` writes them
    submitted_at: list[float]
    shown: list[Any]  # their arguments, as `shortened.arguments_text` takes them
    shared: list[list[int]]
    manifests: list[bytes]
    files: dict[int, list[KeptFile]]  # by job


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """Jobs that have ended; an empty node: the scheduler says so."""

    node: str
    at: float
    ids: list[int]
    statuses: list[int]
    outcomes: list[bytes]
    reasons: list[str]
    seconds: list[float]


T = TypeVar('T')

encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[Any, Any] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (Setting, Batch, Letter, DeclareComputation, list[bytes], dict[int, str])
}


def decode(kind: type[T], content: bytes) -> T:
    """Read a value back; raises `msgspec.DecodeError` for what is none of that kind."""
    value: T = _DECODERS[kind].decode(content)
    return value


def packed(ids: list[int]) -> bytes:
    """Write ids side by side."""
    return array('Q', ids).tobytes()


def packed_alike(numbers: list[int]) -> bytes:
    """Write numbers side by side; those that are all the same, as they mostly are, once."""
    is_same = len(numbers) > 1 and numbers.count(numbers[0]) == len(numbers)
    return packed(numbers[:1] if is_same else numbers)


def unpacked_alike(content: bytes, count: int) -> list[int]:
    """Read so many of them back; none where none were written."""
    numbers = unpacked(content)
    if len(numbers) == 1:
        return numbers * count
    if len(numbers) not in (0, count):
        raise ValueError(f'{len(numbers)} numbers for {count} jobs')
    return numbers or [0] * count


def unpacked(content: bytes) -> list[int]:
    """Read them back."""
    ids = array('Q')
    ids.frombytes(content)
    return ids.tolist()
