"""The first bytes of everything on a link: kind, number, highest number received.

| kind    | number                     | what follows                                     |
| ------- | -------------------------- | ------------------------------------------------ |
| HELLO   | protocol version           | an `Introduction`: the connecting side's greeting |
| WELCOME | protocol version           | an `Introduction`: the listening side's answer    |
| REFUSE  | protocol version           | the reason in words; the connection is of no use  |
| ACK     | 0                          | nothing                                          |
| RESEND  | 0                          | nothing: a gap was seen after `received`          |
| PULSE   | last number sent           | a pulse message, never kept                       |
| MESSAGE | its own                    | a message of up to 4 MiB                          |
| BULK    | its own                    | the sizes of the frames of a larger message       |
| PART    | its own                    | up to 1 MiB of these frames                       |
| PLACED  | its own                    | a message, with the places of frames in files     |
| OPENS   | 0                          | nothing: we can open the other side's files       |
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import MALFORMED, Frame

PROTOCOL = 1
PEER_ID_LENGTH = 32
_HEADER = struct.Struct('!BQQ')
HEADER_SIZE = _HEADER.size
_REASON_LIMIT = 2000


class Kind(IntEnum):
    """What an envelope is; the numbers are the protocol's."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    ACK = 4
    RESEND = 5
    PULSE = 6
    MESSAGE = 7
    BULK = 8
    PART = 9
    PLACED = 10
    OPENS = 11


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who speaks, and what it has of the other side.

    `incarnation` names this side's session; a new one means that everything counted before is
    void.  `knows` is the other side's incarnation that the counters are of.
    """

    peer: str
    role: str
    python: str
    incarnation: str
    knows: str
    connection: int  # counts the connecting side's connections; a WELCOME has its HELLO's
    # The connecting side's name for its connections to the other one, which nobody else knows:
    # only who knows it can take up what was begun under the same peer id.
    name: str = field(default='', repr=False)
    probe: str = ''  # the place of a file of ours: whoever can open it, can open the others


_INTRODUCTION = msgspec.msgpack.Decoder(Introduction)
_ENCODER = msgspec.msgpack.Encoder()


def is_peer_id(name: str) -> bool:
    """Whether this is 32 lower-case hex characters: 16 random bytes, as text."""
    return len(name) == PEER_ID_LENGTH and not name.strip('0123456789abcdef')


def head(kind: int, number: int, received: int) -> bytes:
    """Write the header."""
    return _HEADER.pack(kind, number, received)


def open_header(first: Frame) -> tuple[int, int, int]:
    """Read (kind, number, received)."""
    if len(first) < HEADER_SIZE:
        raise ProtocolError(f'an envelope of {len(first)} bytes came in')
    kind, number, received = _HEADER.unpack_from(first)
    return kind, number, received


def write_greeting(kind: Kind, introduction: Introduction, received: int) -> list[bytes]:
    """Write a HELLO or WELCOME."""
    return [head(kind, PROTOCOL, received) + _ENCODER.encode(introduction)]


def read_greeting(frames: Sequence[Frame]) -> tuple[Introduction, int]:
    """Read a HELLO or WELCOME of our own protocol version: who, and what it has received."""
    _, _, received = open_header(frames[0])
    try:
        introduction = _INTRODUCTION.decode(memoryview(frames[0])[HEADER_SIZE:])
    except MALFORMED as error:
        raise ProtocolError(f'a malformed greeting: {error}') from error
    named = all(map(is_peer_id, (introduction.peer, introduction.name or introduction.peer)))
    if not introduction.incarnation or not named:
        raise ProtocolError('a greeting without a proper name')
    return introduction, received


def objection(frames: Sequence[Frame]) -> str:
    """Why a greeting cannot be accepted, in words; '' when it can."""
    _, protocol, _ = open_header(frames[0])
    if protocol == PROTOCOL:
        return ''
    return (
        f'the connecting program speaks protocol version {protocol}, the listening one version '
        f'{PROTOCOL}: install the same release of dispy-nb for both'
    )


def write_refusal(reason: str) -> list[bytes]:
    """Write a REFUSE."""
    return [head(Kind.REFUSE, PROTOCOL, 0) + reason[:_REASON_LIMIT].encode()]


def read_refusal(frames: Sequence[Frame]) -> str:
    """Read the reason; it is the peer's text, so only printable characters of it are kept."""
    text = bytes(frames[0])[HEADER_SIZE:].decode(errors='replace')[:_REASON_LIMIT]
    return ''.join(char if char.isprintable() else '?' for char in text)
