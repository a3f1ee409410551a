"""Sessions whose large payloads stay where they lie, on one machine, and those that cannot."""

from collections.abc import Iterator

import msgspec
import pytest

from nodeserver.core.errors import ProtocolError
from nodeserver.core.messages import DropData, JobsDone, JobsProvisional, ShareData, SubmitJobs
from nodeserver.io.sealedfile import FileExchange, SealedFile, for_this_process, sealed
from nodeserver.wire.envelope import HEADER_SIZE, Kind, open_header
from nodeserver.wire.session import Session
from tests.support.scarcity import descriptors_below
from tests.wire.test_session import TINY, A, B, Pair

BIG = b'x' * 40_000


def payload() -> SealedFile:
    return sealed([BIG], 'test')


class FilePair(Pair):
    """Two sessions on one machine."""

    def __init__(self, ends: str) -> None:
        super().__init__()
        self.exchanges = [FileExchange(for_this_process) for _ in ends]
        a, b = (e if has == 'y' else None for e, has in zip(self.exchanges, ends, strict=True))
        self.a = Session((A, 'scheduler'), 'first a', TINY, files=a)
        self.b = Session((B, 'node'), 'first b', TINY, files=b)

    def end(self) -> None:
        """Close what the two still have open."""
        for exchange in self.exchanges:
            exchange.close()
        del self.a, self.b


@pytest.fixture(params=['yy', 'yn', 'ny', 'nn'])
def pair(request: pytest.FixtureRequest) -> Iterator[FilePair]:
    made = FilePair(request.param)
    yield made
    made.end()


def kinds(wire: list[list[bytes]]) -> list[int]:
    return [open_header(frames[0])[0] for frames in wire]


def test_payloads_in_files_arrive_whoever_can_open_them(pair: FilePair) -> None:
    pair.greet()
    pair.settle()
    pair.a.send(ShareData(7, 1, payload()))  # type: ignore[arg-type]
    pair.b.send(JobsProvisional(7, 'n', [1, 2], [1, 1], [b'small', payload()]))  # type: ignore[list-item]
    pair.settle()
    assert pair.at_b == [ShareData(7, 1, BIG)]
    assert pair.at_a == [JobsProvisional(7, 'n', [1, 2], [1, 1], [b'small', BIG])]


@pytest.fixture
def near() -> Iterator[FilePair]:
    made = FilePair('yy')
    made.greet()
    made.settle()
    yield made
    made.end()


def test_a_payload_in_a_file_does_not_travel_itself(near: FilePair) -> None:
    near.a.send(ShareData(7, 1, payload()))  # type: ignore[arg-type]
    near.collect()
    assert kinds(near.to_b) == [Kind.PLACED]
    assert sum(len(frame) for frame in near.to_b[0]) < 200


def test_a_file_stays_open_until_the_other_side_has_it_also_over_a_reconnect(
    near: FilePair,
) -> None:
    near.a.send(ShareData(7, 1, payload()))  # type: ignore[arg-type]
    near.collect()
    near.cut()
    near.greet()
    near.settle()
    assert near.at_b == [ShareData(7, 1, BIG)]


def test_what_is_sent_before_the_greeting_goes_without_files() -> None:
    pair = FilePair('yy')
    pair.a.send(ShareData(7, 1, payload()))  # type: ignore[arg-type]
    pair.greet()
    pair.settle()
    assert pair.at_b == [ShareData(7, 1, BIG)]
    pair.end()


def test_what_must_not_overtake_does_not_even_with_a_file(near: FilePair) -> None:
    provisional = JobsProvisional(7, 'n', [1], [1], [BIG])
    done = JobsDone(7, 'n', 1, [1], [1], [5], [payload()], [''], [0.0])  # type: ignore[list-item]
    near.b.send(provisional)
    near.b.send(done)
    near.settle()
    assert [type(message) for message in near.at_a] == [JobsProvisional, JobsDone]


def test_data_that_are_to_be_dropped_come_before_word_of_it() -> None:
    pair = Pair()
    pair.greet()
    pair.a.send(ShareData(7, 1, BIG))
    pair.a.send(DropData(7, [1]))
    pair.a.send(SubmitJobs(7, '', [1], [b'']))
    pair.settle()
    order = [type(message) for message in pair.at_b]
    assert order.index(ShareData) < order.index(DropData)
    assert order[0] is SubmitJobs


@pytest.mark.parametrize('place', ['0:0:0:0', 'nonsense', '1:2:3:4'])
def test_a_place_where_nothing_is_breaks_the_protocol(near: FilePair, place: str) -> None:
    near.a.send(ShareData(7, 1, payload()))  # type: ignore[arg-type]
    near.collect()
    (frames,) = near.to_b
    forged = bytes(frames[0])[:HEADER_SIZE] + msgspec.msgpack.encode(['', '', place])
    with pytest.raises(ProtocolError, match='not where it was said to be'):
        near.b.receive([forged, *frames[1:]])


def test_who_has_no_descriptors_left_gets_nothing_in_a_files_place(near: FilePair) -> None:
    near.a.send(ShareData(7, 1, payload()))  # type: ignore[arg-type]
    with descriptors_below(1):
        near.settle()
    assert near.at_b == [ShareData(7, 1, b'')]


def test_a_session_without_files_opens_none() -> None:
    pair = Pair()
    pair.greet()
    header = pair.a.greeting(Kind.HELLO)[0][:HEADER_SIZE]
    forged = bytes((Kind.PLACED,)) + (1).to_bytes(8) + header[9:HEADER_SIZE]
    with pytest.raises(ProtocolError, match='not opened on this link'):
        pair.b.receive([forged + msgspec.msgpack.encode(['1:2:3:4'])])
