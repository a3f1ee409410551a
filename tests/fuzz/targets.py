"""What is fuzzed: each reader of bytes that others wrote, with correct inputs to begin from.

A target reads one input.  A value, None or a `ProtocolError` is an answer; anything else is a
crash, and so is memory far above the size of the input.
"""

import io
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.core.messages import Message
from nodeserver.io.framedsocket import FramedSocket
from nodeserver.wire import bulk, codec, envelope, lane, manifest, outcome, packed
from nodeserver.wire.envelope import Introduction, Kind
from nodeserver.wire.session import Limits, Session
from tests.fuzz import networktargets
from tests.fuzz.networktargets import ME, YOU
from tests.wire.test_codec import _example

LARGEST = 1 << 20  # bytes that a message may have here
_GREETING = Introduction(YOU, 'test', '3.11', 'theirs', '', 1, 'c' * 32, '/tmp/probe')
_SIZE = struct.Struct('<H')


@dataclass(frozen=True, slots=True)
class Target:
    """A reader of bytes."""

    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]

    def __call__(self, data: bytes) -> bool:
        """Have one input read; whether it was taken for a correct one."""
        try:
            return self.read(data) is not None
        except ProtocolError as error:
            assert 0 < len(str(error)) < 2000, 'the words of a refusal are missing, or endless'
            return False


def joined(frames: Sequence[bytes]) -> bytes:
    """Write frames as one input."""
    return b''.join(_SIZE.pack(len(frame)) + frame for frame in frames)


def frames_of(data: bytes) -> list[bytes]:
    """Cut an input into frames; the last one is what is left."""
    frames, at = [], 0
    while at + _SIZE.size <= len(data):
        size = _SIZE.unpack_from(data, at)[0]
        at += _SIZE.size
        frames.append(data[at : at + size])
        at += size
    return frames or [b'']


# messages


def _messages() -> list[bytes]:
    large = bytes(codec.INSIDE_LIMIT + 1)
    seeds = [joined(codec.encode(_example(kind))) for kind in get_args(Message)]
    body = codec.encode(_example(codec.messages.RunJobs))[0]
    outside = bytes((body[0] | 128,)) + body[1:]
    places = msgspec.msgpack.encode([0, 2])
    return [*seeds, joined([outside, places, large[:100], b'second'])]


def _read_message(data: bytes) -> object:
    return codec.decode(frames_of(data))


# greetings


def _greetings() -> list[bytes]:
    hello = envelope.write_greeting(Kind.HELLO, _GREETING, 7)[0]
    return [hello, envelope.write_refusal('it ended')[0], envelope.head(Kind.HELLO, 99, 0)]


def _read_greeting(data: bytes) -> object:
    frames = [data]
    envelope.objection(frames)
    assert len(envelope.read_refusal(frames)) <= 2000
    return envelope.read_greeting(frames)


# sessions


class _Files:
    """Stands in for files of peers: one of them is there."""

    probe = 'memory:1'

    def can_open(self, place: str) -> bool:
        return place == self.probe

    def open(self, place: str) -> bytes:
        if place != self.probe:
            raise ValueError('no such place')
        return b'contents'

    def close(self) -> None:
        """Close nothing."""


def _envelopes() -> list[bytes]:
    small = codec.encode(_example(codec.messages.SubmitJobs))
    pulse = codec.encode(_example(codec.messages.NodePulse))[0]
    sizes = msgspec.msgpack.encode([len(frame) for frame in small])
    places = msgspec.msgpack.encode(['', 'memory:1'])
    return [
        _many([[envelope.head(Kind.MESSAGE, 1, 0) + small[0]]]),
        _many([[envelope.head(Kind.PULSE, 3, 0) + pulse], [envelope.head(Kind.RESEND, 0, 1)]]),
        _many([[envelope.head(Kind.BULK, 1, 0) + sizes], [envelope.head(Kind.PART, 2, 0), *small]]),
        _many([[envelope.head(Kind.PLACED, 1, 0) + places, small[0]]]),
        _many([[envelope.head(Kind.OPENS, 0, 0)], [envelope.head(Kind.ACK, 0, 2)]]),
    ]


def _many(those: Sequence[Sequence[bytes]]) -> bytes:
    return joined([joined(frames) for frames in those])


def _read_session(data: bytes) -> object:
    session = Session((ME, 'test'), 'ours', Limits(largest=LARGEST), sink=_Sink, files=_Files())
    session.greeted(_GREETING, 0)
    session.send(codec.messages.Farewell('numbered'))
    session.send(codec.messages.ShareData(1, 1, b'in parts'))
    messages: list[Any] = []
    for one in frames_of(data)[:20]:
        session.due()
        messages += session.receive(frames_of(one))
        session.greeted(_GREETING, 0)
    return messages or None


class _Sink:
    """Gathers a large frame, which may not be larger than what is allowed."""

    def __init__(self, size: int) -> None:
        assert size <= LARGEST, f'{size} bytes would have been taken'
        self._left = size

    def write(self, piece: codec.Frame) -> None:
        self._left -= len(piece)
        assert self._left >= 0

    def finish(self) -> bytes:
        return b''


def _parts() -> list[bytes]:
    frames = [b'message', msgspec.msgpack.encode([0]), bytes(300)]
    steps = list(bulk.split(frames, 128))
    return [joined([bytes((kind,)) + joined(those) for kind, those in _as_bytes(steps)])]


def _as_bytes(steps: Sequence[tuple[Kind, list[codec.Frame]]]) -> list[tuple[Kind, list[bytes]]]:
    head = b'h' * envelope.HEADER_SIZE
    return [
        (kind, [bytes(f) for f in ([head, *frames] if kind is Kind.PART else frames)])
        for kind, frames in steps
    ]


def _read_parts(data: bytes) -> object:
    assembler = bulk.Assembler(LARGEST, _Sink)
    whole = None
    for step in frames_of(data)[:20]:
        kind = Kind.BULK if step[:1] == bytes((Kind.BULK,)) else Kind.PART
        whole = assembler.take(kind, frames_of(step[1:]))
    return whole


# payloads


def _packed() -> list[bytes]:
    whole = packed.pack([b'head', bytes(100), packed.Elsewhere(6, 1)])
    return [whole.join(), packed.pack([]).join()]


def _read_packed(data: bytes) -> object:
    if not packed.is_packed(data):
        return None
    return packed.unpack(data, [b'shared'])


def _outcomes() -> list[bytes]:
    large = outcome.encode_outcome(bytes(outcome.INSIDE + 1), 'out', 'err', '')
    assert isinstance(large, packed.Packed)
    small = outcome.encode_outcome(b'result', 'out', 'err', 'text')
    assert isinstance(small, bytes)
    return [small, large.join()[:300], outcome.encode_failure('a', 'b', 'c')]


def _manifests() -> list[bytes]:
    row = manifest.FileEntry(b'd/file', 5, 10**18, 0o644, bytes(16), b'/home/u/d/file')
    return [manifest.encode_manifest([row, row._replace(path=b'other', origin=b'')])]


def _rows(entries: Sequence[manifest.FileEntry]) -> bytes:
    """Have the text of a manifest before it is compressed, so that changes reach its reader."""
    unpacker = manifest.zlib.decompressobj()
    return unpacker.decompress(manifest.encode_manifest(entries))


def _manifest_texts() -> list[bytes]:
    row = manifest.FileEntry(b'd/file', 5, 10**18, 0o644, bytes(16), b'/home/u/d/file')
    return [_rows([row, row._replace(path=b'other', origin=b'')])]


def _read_manifest(data: bytes) -> object:
    return manifest.decode_manifest(data)


def _read_manifest_text(data: bytes) -> object:
    return manifest.decode_manifest(manifest.zlib.compress(data, 1))


# what jobs write to their node, and what the node writes to them


def _reports() -> list[bytes]:
    head = lane.REPORT_HEAD
    return [
        head.pack(lane.RETURNED, 1, 0.5, 3) + b'yes' + head.pack(lane.PROVISIONAL, 2, 0, 0),
        head.pack(lane.RAISED | lane.IN_FILE, 3, 1.0, 8) + b'12345678',
        head.pack(lane.RETURNED, 1, 0.5, lane.BIG_BODY + 1) + b'the beginning',
    ]


def _read_reports(data: bytes) -> object:
    reader, reports = lane.ReportReader(), []
    for at in range(0, len(data), 64):
        reports += reader.feed(data[at : at + 64])
        if reader.is_garbled:
            break
    return reports or None


def _batches() -> list[bytes]:
    order = lane.Order(1, 1, b'payload', 1, True)
    return [
        b''.join(lane.encode_batch([1, 2], [1, 1], [b'one', b'two'])),
        b''.join(lane.encode_order(order)),
    ]


def _read_batch(data: bytes) -> object:
    return lane.read_batch(io.BytesIO(data)) or None


# streams between programs of one machine


class _Loop:
    """Stands in for a loop that is never waited for."""

    def add_reader(self, *args: object) -> None:
        """Call nobody."""

    remove_reader = add_writer = remove_writer = add_reader


def _streams() -> list[bytes]:
    def framed(*frames: bytes) -> bytes:
        sizes = [len(frame) for frame in frames]
        return struct.pack(f'<{1 + len(sizes)}I', len(sizes), *sizes) + b''.join(frames)

    hello = envelope.write_greeting(Kind.HELLO, _GREETING, 0)
    return [framed(*hello) + framed(b'a', b'', b'bc'), struct.pack('<2I', 1, 1 << 20) + b'begun']


def _read_stream(data: bytes) -> object:
    ours, theirs = socket.socketpair()
    taken: list[list[codec.Frame]] = []
    ended: list[str] = []
    loop: Any = _Loop()
    stream = FramedSocket(loop, ours, taken.append, ended.append, lambda: None)
    with theirs:
        theirs.sendall(data[:60_000])
        stream._readable()
    stream.close()
    return taken or None


@cache
def targets() -> dict[str, Target]:
    """Answer all of them, by name."""
    made = [
        Target('message', _read_message, _messages),
        Target('greeting', _read_greeting, _greetings),
        Target('session', _read_session, _envelopes),
        Target('parts', _read_parts, _parts),
        Target('packed', _read_packed, _packed),
        Target('outcome', outcome.decode_outcome, _outcomes),
        Target('manifest', _read_manifest, _manifests),
        Target('manifest text', _read_manifest_text, _manifest_texts),
        Target('reports', _read_reports, _reports),
        Target('batch', _read_batch, _batches),
        Target('local stream', _read_stream, _streams),
        Target('beacon', networktargets.read_beacon, networktargets.beacons),
        Target('sealed beacon', networktargets.read_sealed_beacon, networktargets.beacons),
        Target('carriage', networktargets.read_request, networktargets.requests),
        Target('proof', networktargets.read_proof, networktargets.proofs),
        Target('certificate', networktargets.read_certificate, networktargets.certificates),
        Target('errand', networktargets.read_errand, networktargets.orders),
        Target('diagnosis', networktargets.read_diagnosis, networktargets.diagnoses),
        Target('first words', networktargets.read_first_words, networktargets.first_words),
    ]
    return {target.name: target for target in made}
