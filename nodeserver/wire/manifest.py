"""A manifest: which files belong to a computation or a job, as bytes that travel and back.

A row for each file: where it is to lie, its size, time of change, mode, a digest of its content,
and where its sender has it: on the same machine, or below a home that both share, nothing needs to
be sent.  Names are bytes: a file system's names need not be text.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import MALFORMED

DIGEST_SIZE = 16  # bytes of SHA-256: who can choose both files of a pair only harms himself
LONGEST_NAME = 255  # bytes of one component
MODES = 0o755  # the bits that are kept: what is private stays so, nobody else gets to write
MOST_BYTES = 64 << 20  # of a manifest, unpacked: 300 for each file
MOST_FILES = 200_000

# the directory of the sender below which most lie, then the columns of `FileEntry`
_Bounded = msgspec.Meta(max_length=MOST_FILES)  # looked at before memory is taken for a column
_Names = Annotated[list[bytes], _Bounded]
_Numbers = Annotated[list[int], _Bounded]
_Columns = tuple[bytes, _Names, _Numbers, _Numbers, _Numbers, _Names, _Names]
_USUAL = b'*'  # in place of an origin: below the directory, where it is to lie here too
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Columns)


class FileEntry(NamedTuple):
    """One file of a manifest."""

    path: bytes  # relative, with '/', below the directory that it is sent to
    size: int
    mtime: int  # nanoseconds since the epoch (H09)
    mode: int
    digest: bytes = b''  # b'': not known before it is read
    origin: bytes = b''  # its place at the sender; b'': of no use


def encode_manifest(entries: Sequence[FileEntry]) -> bytes:
    """Write a manifest; b'' for none."""
    if not entries:
        return b''
    base = next((e.origin.removesuffix(e.path) for e in entries if e.origin.endswith(e.path)), b'')
    *columns, origins = map(list, zip(*entries, strict=True))
    usual = [base + path for path in columns[0]]
    origins = [_USUAL if a == b else a for a, b in zip(origins, usual, strict=True)]
    return zlib.compress(_ENCODER.encode((base, *columns, origins)), 6)


def decode_manifest(data: bytes) -> list[FileEntry]:
    """Read a manifest back.

    Raises
    ------
    ProtocolError
        It is malformed, too large, or names a place outside its directory.
    """
    if not data:
        return []
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, MOST_BYTES)
        if not unpacker.eof:
            raise ProtocolError(f'a manifest of more than {MOST_BYTES} bytes came in')
        decoded: tuple[Any, ...] = _DECODER.decode(text)
        base, paths, *columns, origins = decoded
        origins = [base + p if o == _USUAL else o for p, o in zip(paths, origins, strict=False)]
        entries = list(map(FileEntry, paths, *columns, origins))
    except (zlib.error, *MALFORMED) as error:
        raise ProtocolError(f'a malformed manifest came in: {error}') from error
    if {*map(len, (origins, *columns))} != {len(paths)}:
        raise ProtocolError('a manifest with columns of unequal length came in')
    _check(entries)
    return entries


def _check(entries: Iterable[FileEntry]) -> None:
    seen: set[bytes] = set()
    for entry in entries:
        why = why_refused(entry.path)
        if not why and entry.path in seen:
            why = 'it is there twice'
        if not why and (entry.size < 0 or len(entry.digest) not in (0, DIGEST_SIZE)):
            why = 'its size or digest is wrong'
        if why:
            raise ProtocolError(f'file {entry.path[:LONGEST_NAME]!r}: {why}')
        seen.add(entry.path)


def why_refused(path: bytes) -> str:
    """Say why a place would lead out of its directory, or is none; '' if it is well (D7)."""
    parts = path.split(b'/')
    if not path or path.startswith(b'/') or b'\0' in path:
        return 'its path is not a relative one'
    if any(part in (b'', b'.', b'..') for part in parts):
        return "its path has '.', '..' or empty parts"
    if max(map(len, parts)) > LONGEST_NAME:
        return f'a part of its path has more than {LONGEST_NAME} bytes'
    return ''
