"""Whatever comes over a wire, its readers answer with a value or a `ProtocolError`."""

import io
import random
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodeserver.core.errors import ProtocolError
from nodeserver.core.messages import Farewell, Message
from nodeserver.wire import beacon, codec, envelope, lane
from nodeserver.wire.bulk import Assembler
from nodeserver.wire.envelope import Introduction, Kind
from nodeserver.wire.outcome import decode_outcome, encode_outcome
from nodeserver.wire.session import Limits, Session
from tests.wire.test_codec import _example

ME, YOU = 'a' * 32, 'b' * 32
GREETING = Introduction(YOU, 'test', '3.11', 'theirs', '', 1)
KEY = bytes(range(32))


def believe(read: Callable[[], object]) -> None:
    """Read; a `ProtocolError` is an answer."""
    try:
        read()
    except ProtocolError as error:
        assert 0 < len(str(error)) < 1000


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Change, cut, repeat or insert a few bytes of something correct."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(('set', 'cut', 'insert', 'drop', 'repeat')))
        if change == 'set' and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif change == 'cut':
            del data[place:]
        elif change == 'insert':
            data[place:place] = draw(st.binary(min_size=1, max_size=9))
        elif change == 'drop':
            del data[place : place + draw(st.integers(1, 9))]
        elif change == 'repeat':
            data[place:place] = data[max(0, place - 9) : place]
    return bytes(data)


@pytest.mark.parametrize('kind', get_args(Message), ids=lambda kind: kind.__name__)
def test_a_damaged_message_is_read_or_refused(kind: type[Any]) -> None:
    whole = codec.encode(_example(kind))[0]

    @given(damaged(whole), st.lists(st.binary(max_size=20), max_size=3))
    def refuse(data: bytes, more: list[bytes]) -> None:
        believe(lambda: codec.decode([data, *more]))
        believe(lambda: codec.decode([bytes((data[0] | 128,)) + data[1:] if data else b'', *more]))

    refuse()


def test_nesting_without_end_is_refused() -> None:
    tag = bytes((codec.TAGS[Farewell],))
    with pytest.raises(ProtocolError, match='Farewell is malformed'):
        codec.decode([tag + b'\x81\xa1x' + b'\x91' * 100_000])


# a session

numbers = st.one_of(st.integers(0, 6), st.integers(0, (1 << 64) - 1))
bodies = st.one_of(
    st.binary(max_size=30),
    st.lists(st.integers(-3, 1 << 40), max_size=4).map(msgspec.msgpack.encode),
    st.sampled_from(get_args(Message)).map(lambda kind: codec.encode(_example(kind))[0]),
)


@st.composite
def envelopes(draw: st.DrawFn) -> list[bytes]:
    kind = draw(st.one_of(st.sampled_from(list(Kind)), st.integers(0, 255)))
    first = envelope.head(kind, draw(numbers), draw(numbers)) + draw(bodies)
    return [first, *draw(st.lists(st.binary(max_size=10), max_size=3))]


@given(st.lists(envelopes(), max_size=8), st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_a_session_reads_or_refuses_whatever_comes(
    those: list[list[bytes]], noise: list[bytes]
) -> None:
    session = Session((ME, 'test'), 'ours', Limits(largest=1 << 20))
    session.greeted(GREETING, 0)
    for frames in [*those, noise]:
        believe(lambda frames=frames: session.receive(frames))  # type: ignore[misc]
        session.due()


@given(envelopes())
def test_a_greeting_or_refusal_is_read_or_refused(frames: list[bytes]) -> None:
    believe(lambda: envelope.objection(frames))
    believe(lambda: envelope.read_greeting(frames))
    believe(lambda: envelope.read_refusal(frames))


@given(st.data())
def test_a_damaged_greeting_is_read_or_refused(data: st.DataObject) -> None:
    whole = envelope.write_greeting(Kind.HELLO, GREETING, 0)[0]
    frames = [data.draw(damaged(whole))]
    believe(lambda: envelope.objection(frames))
    believe(lambda: envelope.read_greeting(frames))


@given(st.lists(st.tuples(st.sampled_from((Kind.BULK, Kind.PART)), envelopes()), max_size=6))
def test_parts_are_taken_or_refused_and_never_more_than_is_allowed(
    those: list[tuple[Kind, list[bytes]]],
) -> None:
    assembler = Assembler(1000)
    for kind, frames in those:
        believe(lambda kind=kind, frames=frames: assembler.take(kind, frames))  # type: ignore[misc]


@pytest.mark.parametrize('size', [1 << 40, (1 << 64) - 1])
def test_a_huge_announcement_is_refused_before_memory_is_taken(size: int) -> None:
    announcement = msgspec.msgpack.encode([size])
    with pytest.raises(ProtocolError, match='are allowed'):
        Assembler(4 << 30).take(Kind.BULK, [announcement])


# a beacon, an outcome

PONG = beacon.NodeContact('0' * 32, 51348, b'f' * 16, 'node')


@given(st.data())
def test_a_damaged_beacon_is_not_believed(data: st.DataObject) -> None:
    whole = beacon.encode_pong(bytes(16), PONG, KEY)
    packet = data.draw(damaged(whole))
    if packet != whole:
        assert isinstance(beacon.decode(packet, KEY), beacon.WrongKey | None)


@given(st.data())
def test_a_damaged_outcome_is_read_or_refused(data: st.DataObject) -> None:
    whole = encode_outcome(b'result', 'out', 'err', 'text')
    packet = data.draw(st.one_of(damaged(whole), st.binary(max_size=50)))
    believe(lambda: decode_outcome(packet))


# a lane: the node reads what a job's process writes, and a job may write anything


@given(st.lists(st.binary(max_size=80), max_size=6))
@example([b'\x01' + b'\xff' * 60])
def test_a_lane_of_noise_is_found_out_and_never_fails(pieces: list[bytes]) -> None:
    reader = lane.ReportReader()
    for piece in pieces:
        for report in reader.feed(piece):
            assert report.kind in (*lane.OUTCOMES, lane.PROVISIONAL, lane.LEAVING)
        if reader.is_garbled:
            return


def test_reports_in_front_of_the_noise_are_not_lost() -> None:
    good = lane.REPORT_HEAD.pack(lane.RETURNED, 1, 0.5, 3) + b'yes'
    reader = lane.ReportReader()
    noise = random.Random(1).randbytes(200)
    assert reader.feed(good + good + b'\xaa' + noise) == [(1, 1, 0.5, b'yes')] * 2
    assert reader.is_garbled


@given(st.binary(max_size=200))
def test_a_batch_of_noise_is_the_end_of_the_lane(data: bytes) -> None:
    stream = io.BytesIO(data)
    batch = lane.read_batch(stream)
    assert batch == [] or all(len(row) == 3 for row in batch)
