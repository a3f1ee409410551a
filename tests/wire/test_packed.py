"""Payloads of several buffers: found again where they lie, and nothing else is believed."""

import random
import struct

import pytest

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.outcome import Outcome, decode_outcome, encode_outcome
from nodeserver.wire.packed import ALIGNMENT, Elsewhere, filled_in, is_packed, pack, unpack


@pytest.mark.parametrize('seed', range(10))
def test_buffers_are_found_as_they_were_and_aligned(seed: int) -> None:
    choice = random.Random(seed)
    parts = [choice.randbytes(choice.choice([0, 1, 63, 64, 65, 1000])) for _ in range(7)]
    packed = pack(parts)
    data = packed.join()
    assert len(data) == len(packed)
    assert is_packed(data)
    found = unpack(data)
    assert [bytes(view) for view in found] == parts
    starts = [data.index(part) for part in parts if len(part) >= 63]
    assert all(start % ALIGNMENT == 0 for start in starts)


def test_a_payload_lies_aligned_within_another() -> None:
    inner = pack([b'head', b'i' * 100])
    data = pack([b'outer', inner, b'last']).join()
    outer, middle, last = unpack(data)
    assert (bytes(outer), bytes(last)) == (b'outer', b'last')
    assert [bytes(view) for view in unpack(middle)] == [b'head', b'i' * 100]
    assert data.index(b'i' * 100) % ALIGNMENT == 0


def test_shared_data_stand_in_their_places() -> None:
    shared = [b'first shared', b'second']
    data = pack([b'head', Elsewhere(6, 2), b'own', Elsewhere(12, 1)]).join()
    assert b'second' not in data
    expected = [b'head', b'second', b'own', b'first shared']
    assert [bytes(view) for view in unpack(data, shared)] == expected
    assert [bytes(view) for view in unpack(filled_in(data, shared).join())] == expected


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'\0\0\0', 'of 3 bytes'),
        (struct.pack('<B3xI', 0, 1 << 31), 'claims to have'),
        (pack([b'x' * 100]).join()[:-1], 'ends within its buffer 0'),
        (pack([Elsewhere(3, 1)]).join(), 'shared data 1 has 0 bytes instead of 3'),
    ],
)
def test_what_does_not_fit_is_a_protocol_error(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        unpack(data)


def test_a_large_result_lies_in_its_outcome_uncopied() -> None:
    result = b'r' * 100_000
    packed = encode_outcome(result, 'printed')
    assert not isinstance(packed, bytes)
    assert result in packed.pieces
    outcome, pickled = decode_outcome(packed.join())
    assert outcome == Outcome(b'', 'printed')
    assert bytes(pickled) == result
