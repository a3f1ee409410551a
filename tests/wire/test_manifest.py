"""Manifests: what was written is read back, small; what leads elsewhere is not believed."""

import os
import random
import zlib

import msgspec
import pytest

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.manifest import FileEntry, decode_manifest, encode_manifest

DIGEST = bytes(16)


def entry(path: bytes, **other: object) -> FileEntry:
    row = FileEntry(path, 1, 2, 0o644, DIGEST, b'/srv/jobs/' + path)
    return row._replace(**other)  # type: ignore[arg-type]


@pytest.mark.parametrize('seed', range(10))
def test_entries_come_back_as_they_were(seed: int) -> None:
    choice = random.Random(seed)
    entries = [
        FileEntry(
            b'/'.join(b'p%x' % choice.randrange(1 << 30) for _ in range(choice.randint(1, 4))),
            choice.randrange(1 << 40),
            choice.randrange(1 << 62),
            choice.randrange(0o1000),
            choice.choice([b'', choice.randbytes(16)]),
            choice.choice([b'', b'/elsewhere/x', b'*']),
        )
        for _ in range(choice.randint(1, 50))
    ]
    origins = [
        e._replace(origin=b'/home/u/' + e.path) if choice.random() < 0.5 else e for e in entries
    ]
    found = decode_manifest(encode_manifest(origins))
    assert [e._replace(origin=b'') for e in found] == [e._replace(origin=b'') for e in origins]
    wanted = [b'' if e.origin == b'*' else e.origin for e in origins]
    assert [
        b'' if o == b'*' else e.origin
        for e, o in zip(found, (x.origin for x in origins), strict=True)
    ] == wanted


def test_no_files_are_no_bytes() -> None:
    assert encode_manifest([]) == b''
    assert decode_manifest(b'') == []


def test_a_thousand_files_of_4_kb_take_less_than_a_hundredth_of_them() -> None:
    entries = [
        FileEntry(
            b'data/part-%04d.dat' % n,
            4096,
            1_700_000_000_000_000_000 + random.Random(n).randrange(10**9),
            0o644,
            os.urandom(16),
            b'/srv/jobs/data/part-%04d.dat' % n,
        )
        for n in range(1000)
    ]
    assert len(encode_manifest(entries)) < 4096 * 1000 // 100


@pytest.mark.parametrize(
    'path',
    [b'', b'/etc/passwd', b'../up', b'a/../b', b'./a', b'a//b', b'a/', b'nul\0', b'x' * 256],
)
def test_a_path_that_leads_elsewhere_is_refused(path: bytes) -> None:
    data = encode_manifest([entry(b'fine'), entry(path)])
    with pytest.raises(ProtocolError, match='its path'):
        decode_manifest(data)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'nonsense', 'malformed'),
        (zlib.compress(b'nonsense'), 'malformed'),
        (zlib.compress(msgspec.msgpack.encode((b'', [b'a'], [], [], [], [], []))), 'unequal'),
        (
            zlib.compress(
                msgspec.msgpack.encode((b'', [b'a'] * 2, *[[1] * 2] * 3, [b''] * 2, [b''] * 2))
            ),
            'twice',
        ),
        (
            zlib.compress(msgspec.msgpack.encode((b'', [b'a'], [-1], [1], [1], [b''], [b'']))),
            'size',
        ),
        (zlib.compress(bytes(300 << 20)), 'more than'),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_manifest(data)
