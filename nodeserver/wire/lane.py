"""Bytes between a node, its zygote, its templates and their workers; no socket is touched here.

    node ── OPEN + settings [package(, setup's arguments)], REAP ──▶ zygote
    node ◀── FORKED [control], ENDED ── zygote
    node ── WORK: so many forks, these to reap; CLOSE ──▶ template
    node ◀── BEGINS [stdout, stderr], NOTE, READY, FAILED ── template
    node ◀── FORKED [lane, stdout, stderr(, page)], ENDED ── template
    node ── batches ──▶ worker ── reports ──▶ node

Control messages keep their borders (SEQPACKET), with descriptors in brackets; a worker's lane is
a stream.  Large payloads are memory files, whose descriptors go beside the first byte of the batch
or report that they belong to.  Both stay on one machine, and both ends are of one version.
"""

import struct
from collections.abc import Sequence
from io import BytesIO
from math import inf
from typing import Any, NamedTuple, Protocol

import msgspec

MAX_MESSAGE = 65536
PYTHONPATH = 'DISPY_NB_PYTHONPATH'  # tells the zygote what that variable was before
BIND_NOW = ('LD_BIND_NOW', 'dispy-nb')  # a variable of the zygote's start alone

# kinds of control messages, their first byte
OPEN = b'O'
WORK = b'W'
CLOSE = b'C'
BEGINS = b'B'
NOTE = b'M'
READY = b'R'
FAILED = b'X'
FORKED = b'F'
FORK_FAILED = b'N'
ENDED = b'E'

# what a template begins to do; files beside that are those that it prints to from then on
UNPACKING = 'unpacking'
SETTING_UP = 'setup'
SERVING = 'serving'
CLEANING_UP = 'cleanup'

# kinds of reports
RETURNED = 1
RAISED = 2
PROVISIONAL = 3
LEAVING = 4  # the worker ends by itself before its next job; the body says why
SKIPPED = 5  # a job that was taken back and has not begun, by its number
FILE = 6  # a file for the client: what and which waits in the socket that comes beside it
OUTCOMES = (RETURNED, RAISED)
IN_FILE = 0x40  # added to one: its body is the file that comes beside it

PAYLOAD_IN_FILE = 0x80000000  # added to a job's number of files: the first one is its payload
MOST_FILES = 200  # beside one batch: the system passes 253 at once

REPORT_HEAD = struct.Struct('<BQdQ')  # kind, job, seconds, size of the body
_KINDS = frozenset((RETURNED, RAISED, PROVISIONAL, LEAVING, SKIPPED, FILE))
_LARGEST = 1 << 40  # no report or payload is larger: what claims to be was not written by us
_MOST_JOBS = 1 << 20  # of one batch
BIG_BODY = 262144  # bodies above are gathered on their own instead of in the parser's buffer
_ended = struct.Struct('<iiQ')
_pid = struct.Struct('<i')
_count = struct.Struct('<I')
_one_job = struct.Struct('<IQIQI')  # a batch of one: count, id, attempt, size, files
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
    cpus: int = 1  # of each job
    gpus: int = 0  # of each job; if any, its worker is told which before its first one


class Order(NamedTuple):
    """A job as its worker gets it; its files come beside it."""

    job: int
    attempt: int
    payload: bytes
    files: int = 0
    payload_in_file: bool = False


class Ended(NamedTuple):
    """A process that was reaped; `peak_memory` in bytes above its parent's size."""

    pid: int
    status: int
    peak_memory: int


Report = tuple[int, int, float, Any]
"""A worker's word about a job: kind, job, seconds, body (bytes, or a file); made quickest."""


def encode_open(settings: TemplateSettings) -> bytes:
    """Order a template; the package's memory file goes beside it."""
    return OPEN + msgspec.msgpack.encode(settings)


def decode_open(data: bytes) -> TemplateSettings:
    """Read an order that `encode_open` wrote."""
    return msgspec.msgpack.decode(data[1:], type=TemplateSettings)


def encode_note(level: int, text: str) -> bytes:
    """Tell something that the user should know; `level` is a number of the logging module."""
    return NOTE + _count.pack(level) + text.encode()[-MAX_MESSAGE // 2 :]


def decode_note(data: bytes) -> tuple[int, str]:
    """Read what `encode_note` wrote."""
    return _count.unpack_from(data, 1)[0], data[1 + _count.size :].decode(errors='replace')


def encode_work(forks: int, reaps: Sequence[int]) -> bytes:
    """Order so many forks and the reaping of these processes."""
    return WORK + struct.pack(f'<{1 + len(reaps)}i', forks, *reaps)


def decode_work(data: bytes) -> tuple[int, list[int]]:
    """Read an order that `encode_work` wrote."""
    forks, *reaps = struct.unpack(f'<{len(data) // 4}i', data[1:])
    return forks, reaps


def encode_ready(remarks: str) -> bytes:
    """Tell that the package is unpacked, and what its user should know of the packages here."""
    return READY + remarks.encode()[: MAX_MESSAGE // 2]


def decode_ready(data: bytes) -> str:
    """Read what `encode_ready` wrote."""
    return data[1:].decode(errors='replace')


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
    head = _batch_struct(count).pack(count, *ids, *attempts, *sizes, *bytes(count))
    if sum(sizes) < BIG_BODY:
        return [b''.join((head, *payloads))]
    return [head, *payloads]


def encode_order(order: Order) -> list[bytes]:
    """Make the pieces of a batch of one job, which has files."""
    files = order.files | (PAYLOAD_IN_FILE if order.payload_in_file else 0)
    head = _one_job.pack(1, order.job, order.attempt, len(order.payload), files)
    return [head + order.payload] if len(order.payload) < BIG_BODY else [head, order.payload]


def read_batch(stream: ByteStream) -> list[Order]:
    """Wait for jobs; empty when the node has closed the lane."""
    head = stream.read(_one_job.size)
    if len(head) < _one_job.size:
        return []
    count, job, attempt, size, files = _one_job.unpack(head)
    if not 0 < count <= _MOST_JOBS or (count == 1 and size > _LARGEST):
        return []  # of more jobs than one, these bytes are other columns
    if count == 1:  # the common case of a fork that has all this to learn anew
        payload = stream.read(size)
        return [_order(job, attempt, payload, files)] if len(payload) == size else []
    table = head + stream.read(_ROW * (count - 1))
    if len(table) < _ROW * count + _count.size:
        return []
    _, *numbers = _batch_struct(count).unpack(table)
    sizes = numbers[2 * count : 3 * count]
    if max(sizes) > _LARGEST:
        return []
    payloads = [stream.read(size) for size in sizes]
    if len(payloads[-1]) < sizes[-1]:
        return []
    ids, attempts, files = numbers[:count], numbers[count : 2 * count], numbers[3 * count :]
    if not any(files):
        return list(map(Order, ids, attempts, payloads))
    return list(map(_order, ids, attempts, payloads, files))


def _batch_struct(count: int) -> struct.Struct:
    return _one_job if count == 1 else struct.Struct(f'<I{count}Q{count}I{count}Q{count}I')


def _order(job: int, attempt: int, payload: bytes, files: int) -> Order:
    in_file = bool(files & PAYLOAD_IN_FILE)
    return Order(job, attempt, payload, files & ~PAYLOAD_IN_FILE, in_file)


def encode_gpus(gpus: Sequence[str]) -> bytes:
    """Tell a worker which gpus it has, ahead of its first batch."""
    text = ','.join(gpus).encode()
    return _count.pack(len(text)) + text


def read_gpus(stream: ByteStream) -> str:
    """Wait for what `encode_gpus` wrote; empty when the node has closed the lane."""
    head = stream.read(_count.size)
    if len(head) < _count.size:
        return ''
    return stream.read(_count.unpack(head)[0]).decode()


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
            if kind & ~IN_FILE not in _KINDS or size > _LARGEST or not 0 <= seconds < inf:
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
