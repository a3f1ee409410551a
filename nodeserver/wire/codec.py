"""Messages to frames and back: one tag byte, then the dataclass as msgpack.

    [tag | msgpack]                                   payloads up to 32 kB ride inside
    [tag + 128 | msgpack] [places] [payload] ...      larger ones as frames of their own

Small payloads are cheaper inside, large ones outside (measured; the border lies between 16 and
64 kB).  `places` says which entries of the payload column the outer frames are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from nodeserver.core import askmessages, filemessages, fleetmessages, messages, relaymessages
from nodeserver.core.errors import ProtocolError
from nodeserver.core.messages import Message

Frame = bytes | memoryview
"""A frame: whole, or a slice of a kept one."""

INSIDE_LIMIT = 32 * 1024
_OUTSIDE = 0x80

# Numbers are never given again and never move: two releases must not misread each other.
TAGS: dict[type[Any], int] = {
    messages.DeclareComputation: 1,
    messages.SubmitJobs: 2,
    messages.CancelJobs: 3,
    messages.CloseComputation: 4,
    messages.AcknowledgeOutcomes: 5,
    messages.AllocateAnswer: 6,
    messages.AllocateAsk: 7,
    messages.JobsStarted: 8,
    messages.JobsRequeued: 9,
    messages.JobsSettled: 10,
    messages.NodeChanged: 11,
    messages.Notice: 12,
    messages.OpenComputation: 13,
    messages.RunJobs: 14,
    messages.StopJobs: 15,
    messages.RecallJobs: 16,
    messages.SchedulerPulse: 17,
    messages.Farewell: 18,
    messages.NodeDetails: 19,
    messages.ComputationReady: 20,
    messages.ComputationRefused: 21,
    messages.NodeFree: 22,
    messages.JobsDone: 23,
    messages.JobsProvisional: 24,
    messages.JobsReturned: 25,
    messages.ComputationClosed: 26,
    messages.NodePulse: 27,
    messages.NodeEnding: 28,
    messages.JobsRetried: 29,
    messages.ShareData: 30,
    messages.DropData: 31,
    filemessages.OfferFile: 32,
    filemessages.PlaceFiles: 33,
    filemessages.FetchFiles: 34,
    filemessages.FileBlocks: 35,
    filemessages.FilesPlaced: 36,
    filemessages.FilesFailed: 37,
    messages.ResubmitJobs: 38,
    messages.JobsHeld: 39,
    messages.KeepOutcomes: 40,
    messages.ResendLetters: 41,
    messages.HandoverBegun: 46,
    askmessages.AskExplanation: 42,
    askmessages.Explanation: 43,
    askmessages.AskNodeList: 44,
    askmessages.NodeListing: 45,
    fleetmessages.AddNodes: 48,
    fleetmessages.FindNodes: 49,
    fleetmessages.DeallocateNode: 50,
    fleetmessages.CloseNode: 51,
    fleetmessages.SetNodeCpus: 52,
    fleetmessages.RequestAnswered: 53,
    fleetmessages.LimitCpus: 54,
    fleetmessages.WatchFigures: 55,
    messages.JobsOutput: 56,
    messages.OutputTaken: 57,
    messages.NodePaused: 64,
    messages.NodeNotice: 76,
    relaymessages.AskNodes: 80,
    relaymessages.RelayDetails: 81,
    relaymessages.NodesSeen: 82,
    relaymessages.NodesGone: 83,
    messages.AskDiagnosis: 88,
    messages.Diagnosis: 89,
}


def _list_fields(kind: type[Any]) -> tuple[str, ...]:
    """The columns of a message of jobs; a message without ids has none."""
    hints = get_type_hints(kind)
    lists = tuple(name for name, hint in hints.items() if get_origin(hint) is list)
    return lists if 'ids' in lists else ()


def _spare_columns(kind: type[Any]) -> frozenset[str]:
    """Those that are left empty when there is nothing to say of any job."""
    fields = dataclasses.fields(kind)
    return frozenset(field.name for field in fields if field.default_factory is list)


def _payload_field(kind: type[Any]) -> str:
    """The one field that can be large: a package, or a column of bytes."""
    for name, hint in get_type_hints(kind).items():
        if hint is bytes or (get_origin(hint) is list and get_args(hint) == (bytes,)):
            return name
    return ''


_TAG_BYTES = {kind: bytes((tag,)) for kind, tag in TAGS.items()}
_KINDS = {tag: kind for kind, tag in TAGS.items()}
_DECODERS = {tag: msgspec.msgpack.Decoder(kind) for kind, tag in TAGS.items()}
_COLUMNS = {kind: _list_fields(kind) for kind in TAGS}
_SPARE = {kind: _spare_columns(kind) for kind in TAGS}
_PAYLOADS = {kind: name for kind in TAGS if (name := _payload_field(kind))}
# what a decoder raises: text that is no UTF-8 and nesting without end have errors of Python's
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SOON_GONE = {filemessages.FileBlocks}  # their payloads need not outlive the frames
PULSES = (messages.NodePulse, messages.SchedulerPulse)
_PLACES = msgspec.msgpack.Decoder(list[int])
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message) -> list[Any]:
    """Write a message as frames; the caller's lists are left as they are."""
    kind = type(message)
    name = _PAYLOADS.get(kind)
    if name:
        value = getattr(message, name)
        entries = value if isinstance(value, list) else [value]
        if entries and max(map(len, entries)) > INSIDE_LIMIT:
            return _encode_outside(message, name, entries)
    return [_TAG_BYTES[kind] + _ENCODER.encode(message)]


def _encode_outside(message: Message, name: str, entries: list[bytes]) -> list[Any]:
    places = [place for place, entry in enumerate(entries) if len(entry) > INSIDE_LIMIT]
    inside = [b'' if len(entry) > INSIDE_LIMIT else entry for entry in entries]
    is_column = isinstance(getattr(message, name), list)
    changes: dict[str, Any] = {name: inside if is_column else b''}
    body = _ENCODER.encode(dataclasses.replace(message, **changes))
    tag = bytes((TAGS[type(message)] | _OUTSIDE,))
    return [tag + body, _ENCODER.encode(places), *(entries[place] for place in places)]


def decode(frames: Sequence[Frame]) -> Message:
    """Read a message back; whatever is unknown, ill-typed or uneven is a `ProtocolError`."""
    if not frames or not len(frames[0]):
        raise ProtocolError('an empty message came in')
    head = memoryview(frames[0])
    tag = head[0] & ~_OUTSIDE
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ProtocolError(f'a message of the unknown type {tag} came in')
    try:
        message: Message = decoder.decode(head[1:])
        if head[0] & _OUTSIDE:
            message = _with_outside(message, frames)
        elif len(frames) != 1:
            raise ProtocolError(f'{_KINDS[tag].__name__} came with {len(frames) - 1} frames extra')
    except MALFORMED as error:
        raise ProtocolError(f'{_KINDS[tag].__name__} is malformed: {error}') from error
    _check_columns(message)
    return message


def decode_pulse(frames: Sequence[Frame]) -> Message:
    """Read a pulse: it has no number, so that anything else would be believed again and again."""
    message = decode(frames)
    if not isinstance(message, PULSES):
        raise ProtocolError(f'{type(message).__name__} came in place of a pulse')
    return message


def _with_outside(message: Message, frames: Sequence[Frame]) -> Message:
    kind = type(message)
    name = _PAYLOADS.get(kind)
    if name is None or len(frames) < 3:
        raise ProtocolError(f'{kind.__name__} has no place for payload frames')
    places = _PLACES.decode(frames[1])
    value = getattr(message, name)
    column = [value] if isinstance(value, bytes) else value
    fits = len(places) == len(frames) - 2 and places == sorted(set(places))
    if not fits or places[0] < 0 or places[-1] >= len(column):
        raise ProtocolError(f'{kind.__name__} names places that its payload frames do not fit')
    for place, frame in zip(places, frames[2:], strict=True):
        column[place] = frame if kind in _SOON_GONE else _own(frame)
    if not isinstance(value, bytes):
        return message
    changes: dict[str, Any] = {name: column[0]}
    return dataclasses.replace(message, **changes)


def _own(frame: Any) -> Any:
    """Have a payload apart from its message, which it would keep, and be unaligned in.

    Others are as they came: bytes, or what a large one was gathered in.
    """
    if isinstance(frame, memoryview) and isinstance(frame.obj, bytes | bytearray):
        return bytes(frame)
    return frame


def _check_columns(message: Message) -> None:
    columns = _COLUMNS[type(message)]
    if len(columns) > 1:
        count = len(getattr(message, columns[0]))
        spare = _SPARE[type(message)]
        for name in columns[1:]:
            length = len(getattr(message, name))
            if length != count and (length or name not in spare):
                raise ProtocolError(f'{type(message).__name__} has columns of unequal length')
