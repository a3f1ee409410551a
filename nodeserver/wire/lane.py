"""Bytes between a node, its zygote, its templates and their workers; no socket is touched here.

    node ── OPEN + settings [package], REAP ──▶ zygote ── FORKED [control], ENDED ──▶ node
    node ── WORK: so many forks, these to reap ──▶ template
    node ◀── READY, FAILED, FORKED [lane, stdout, stderr(, page)], ENDED ── template
    node ── batches ──▶ worker ── reports ──▶ node

Control messages keep their borders (SEQPACKET), with descriptors in brackets; a worker's lane is
a stream.  Both stay on one machine, and both ends are of one version.
"""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple, Protocol

import msgspec

MAX_MESSAGE = 65536
PYTHONPATH = 'DISPY_NB_PYTHONPATH'  # tells the zygote what that variable was before

# kinds of control messages, their first byte
OPEN = b'O'
WORK = b'W'
READY = b'R'
FAILED = b'X'
FORKED = b'F'
FORK_FAILED = b'N'
ENDED = b'E'

# kinds of reports
RETURNED = 1
RAISED = 2
PROVISIONAL = 3
LEAVING = 4  # the worker ends by itself before its next job; the body says why
SKIPPED = 5  # a job that was taken back and has not begun, by its number
OUTCOMES = (RETURNED, RAISED)

REPORT_HEAD = struct.Struct('<BQdQ')  # kind, job, seconds, size of the body
_KINDS = frozenset((RETURNED, RAISED, PROVISIONAL, LEAVING, SKIPPED))
_LARGEST = 1 << 40  # no report is larger: what claims to be was not written by us
BIG_BODY = 262144  # bodies above are gathered on their own instead of in the parser's buffer
_ended = struct.Struct('<iiQ')
_pid = struct.Struct('<i')
_count = struct.Struct('<I')
_one_job = struct.Struct('<IQIQ')  # a batch of one: count, id, attempt, size
_ROW = _one_job.size - _count.size


class ByteStream(Protocol):
    """Where a worker reads from: a short answer means the end."""

    def read(self, size: int, /) -> bytes: ...


class TemplateSettings(msgspec.Struct, array_like=True, frozen=True):
    """What a template has to know besides the package."""

    computation: int
    directory: str
    isolation: str
    node_name: str
    node_address: str


class Ended(NamedTuple):
    """A process that was reaped; `peak_memory` in bytes above its parent's size."""

    pid: int
    status: int
    peak_memory: int


Report = tuple[int, int, float, bytes]
"""One word of a worker about one job: kind, job, seconds, body; plain tuples are made quickest."""


def encode_open(settings: TemplateSettings) -> bytes:
    """Order a template; the package's memory file goes beside it."""
    return OPEN + msgspec.msgpack.encode(settings)


def decode_open(data: bytes) -> TemplateSettings:
    """Read an order that `encode_open` wrote."""
    return msgspec.msgpack.decode(data[1:], type=TemplateSettings)


def encode_work(forks: int, reaps: Sequence[int]) -> bytes:
    """Order so many forks and the reaping of these processes."""
    return WORK + struct.pack(f'<{1 + len(reaps)}i', forks, *reaps)


def decode_work(data: bytes) -> tuple[int, list[int]]:
    """Read an order that `encode_work` wrote."""
    forks, *reaps = struct.unpack(f'<{len(data) // 4}i', data[1:])
    return forks, reaps


def encode_forked(pid: int) -> bytes:
    """Tell of a fork; the descriptors of the new process go beside it."""
    return FORKED + _pid.pack(pid)


def decode_forked(data: bytes) -> int:
    """Read what `encode_forked` wrote."""
    pid: int = _pid.unpack_from(data, 1)[0]
    return pid


def encode_ended(ended: Sequence[Ended]) -> bytes:
    """Tell of processes that were reaped."""
    return ENDED + b''.join(_ended.pack(*one) for one in ended)


def decode_ended(data: bytes) -> list[Ended]:
    """Read what `encode_ended` wrote."""
    return [Ended(*fields) for fields in _ended.iter_unpack(data[1:])]


def encode_batch(
    ids: Sequence[int], attempts: Sequence[int], payloads: Sequence[bytes]
) -> list[bytes]:
    """Make the pieces that hand jobs to a worker; small payloads are joined into one."""
    count = len(ids)
    sizes = [len(payload) for payload in payloads]
    head = struct.pack(f'<I{count}Q{count}I{count}Q', count, *ids, *attempts, *sizes)
    if sum(sizes) < BIG_BODY:
        return [b''.join((head, *payloads))]
    return [head, *payloads]


def read_batch(stream: ByteStream) -> list[tuple[int, int, bytes]]:
    """Wait for jobs, as (id, attempt, payload); empty when the node has closed the lane."""
    head = stream.read(_one_job.size)
    if len(head) < _one_job.size:
        return []
    count, job, attempt, size = _one_job.unpack(head)
    if count == 1:  # the common case of a fork that has all this to learn anew
        payload = stream.read(size)
        return [(job, attempt, payload)] if len(payload) == size else []
    table = head[_count.size :] + stream.read(_ROW * (count - 1))
    if len(table) < _ROW * count:
        return []
    numbers = struct.unpack(f'<{count}Q{count}I{count}Q', table)
    payloads = [stream.read(size) for size in numbers[2 * count :]]
    if len(payloads[-1]) < numbers[-1]:
        return []
    return list(zip(numbers[:count], numbers[count : 2 * count], payloads, strict=True))


class ReportReader:
    """Finds reports in a worker's stream, whatever pieces it comes in."""

    @property
    def missing(self) -> int:
        """Bytes that a big report still lacks."""
        return self._head[3] - self._body.tell() if self._body is not None else 0

    def __init__(self) -> None:
        self.is_garbled = False  # a job wrote into the stream: what follows cannot be read
        self._rest = b''
        self._body: BytesIO | None = None  # of a big report, gathered without copying
        self._head = (0, 0, 0.0, 0)

    def feed(self, data: bytes) -> list[Report]:
        """Take the next piece and answer the reports that it completes."""
        reports: list[Report] = []
        if self._body is not None:
            data = self._feed_body(data, reports)
        elif self._rest:
            data = self._rest + data
        at, end, room = 0, len(data), REPORT_HEAD.size
        while self._body is None and end - at >= room:
            kind, job, seconds, size = head = REPORT_HEAD.unpack_from(data, at)
            if kind not in _KINDS or size > _LARGEST:
                self.is_garbled = True
                return reports
            stop = at + room + size
            if stop <= end:
                reports.append((kind, job, seconds, data[at + room : stop]))
            elif size <= BIG_BODY:
                break
            else:
                self._body, self._head = BytesIO(), head
                self._body.write(data[at + room :])
                stop = end
            at = stop
        self._rest = data[at:]
        return reports

    def _feed_body(self, data: bytes, reports: list[Report]) -> bytes:
        assert self._body is not None
        kind, job, seconds, size = self._head
        missing = size - self._body.tell()
        self._body.write(data[:missing])
        if len(data) < missing:
            return b''
        reports.append((kind, job, seconds, self._body.getvalue()))
        self._body = None
        return data[missing:]
