"""Messages survive the way through frames, and nothing else gets through."""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeserver.core.errors import ProtocolError
from nodeserver.core.messages import (
    JobsDone,
    Message,
    NodePulse,
    OpenComputation,
    RunJobs,
    ShareData,
    StopJobs,
    SubmitJobs,
)
from nodeserver.wire.codec import INSIDE_LIMIT, TAGS, Frame, decode, encode

BIG = b'b' * (INSIDE_LIMIT + 1)


def _value(hint: Any, name: str) -> Any:
    """Make some value of a field's type; columns have three entries."""
    if get_origin(hint) is list:
        return [_value(get_args(hint)[0], name) for _ in range(3)]
    if get_origin(hint) is dict:
        key, value = get_args(hint)
        return {_value(key, name): _value(value, name)}
    if dataclasses.is_dataclass(hint):
        return _example(hint)
    if args := [arg for arg in get_args(hint) if arg is not ...]:
        return tuple(_value(arg, name) for arg in args) if get_origin(hint) is tuple else None
    plain: dict[Any, Any] = {int: 7, float: 1.5, str: name, bytes: b'bytes', bool: True}
    return plain[hint]


def _example(kind: Any) -> Any:
    return kind(**{name: _value(hint, name) for name, hint in get_type_hints(kind).items()})


def test_each_message_type_has_a_tag_of_its_own() -> None:
    assert set(TAGS) == set(get_args(Message))
    assert len(set(TAGS.values())) == len(TAGS)
    assert all(0 < tag < 128 for tag in TAGS.values())


@pytest.mark.parametrize('kind', get_args(Message), ids=lambda kind: kind.__name__)
def test_each_message_type_survives(kind: type[Any]) -> None:
    message = _example(kind)
    assert decode(encode(message)) == message


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from((b'', b'small', BIG, b'x' * INSIDE_LIMIT)), max_size=12))
def test_small_and_large_payloads_keep_their_places(payloads: list[bytes]) -> None:
    count = len(payloads)
    message = RunJobs(1, list(range(count)), [1] * count, list(payloads))
    frames = encode(message)
    large = [payload for payload in payloads if len(payload) > INSIDE_LIMIT]
    assert len(frames) == (2 + len(large) if large else 1)
    assert decode(frames) == message
    assert message.payloads == payloads


def test_a_large_package_rides_in_its_own_frame() -> None:
    message = dataclasses.replace(_example(OpenComputation), package=BIG)
    frames = encode(message)
    assert frames[2] is message.package
    assert decode(frames) == message


DONE = encode(_example(JobsDone))[0]
SUBMIT = bytes((TAGS[SubmitJobs],))
OUTSIDE = bytes((TAGS[SubmitJobs] | 128,))
UNEVEN = SUBMIT + msgspec.msgpack.encode(SubmitJobs(1, '', [1, 2], [b'']))
ONE_PLACE = OUTSIDE + msgspec.msgpack.encode(SubmitJobs(1, '', [1], [b'']))


@pytest.mark.parametrize(
    'frames',
    [
        [],
        [b''],
        [b'\x00'],
        [b'\x7fabc'],
        [DONE[:-1]],
        [DONE + b'more'],
        [DONE, b'a frame too many'],
        [bytes((TAGS[NodePulse],)) + DONE[1:]],
        [UNEVEN],
        [ONE_PLACE],
        [ONE_PLACE, b'\x91\x00'],
        [ONE_PLACE, b'\x91\x01', BIG],
        [ONE_PLACE, b'\x91\xff', BIG],
        [ONE_PLACE, b'\x92\x00\x00', BIG, BIG],
        [ONE_PLACE, b'junk', BIG],
        [bytes((TAGS[StopJobs] | 128,)) + encode(StopJobs(1, [], []))[0][1:], b'\x91\x00', BIG],
    ],
)
def test_malformed_frames_are_a_protocol_error(frames: Sequence[Frame]) -> None:
    with pytest.raises(ProtocolError):
        decode(frames)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=4), st.integers(0, 255))
def test_random_bytes_are_refused_or_read_but_never_crash(tail: list[bytes], tag: int) -> None:
    try:
        decode([bytes((tag,)) + (tail[0] if tail else b''), *tail[1:]])
    except ProtocolError:
        return


def test_payload_that_is_a_part_of_something_larger_is_taken_out_of_it() -> None:
    payload = b'x' * (INSIDE_LIMIT + 1)
    head, places, frame = encode(ShareData(7, 1, payload))
    received = memoryview(bytearray(b'around' + frame))
    message = decode([head, places, received[6:]])
    assert isinstance(message, ShareData)
    assert (type(message.content), message.content) == (bytes, payload)
