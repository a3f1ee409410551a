"""What a node orders of its deputy, beside which a descriptor comes: of a process, or a socket."""

import struct
from typing import Final

from nodeserver.core.errors import ProtocolError

READY: Final = b'ready'
REMOVE: Final = b'r'
SIGNAL: Final = b's'
LONGEST: Final = 8192

_signal = struct.Struct('=cii')


def encode_signal(number: int, group: int) -> bytes:
    """Order a signal, to a group if there is one, else to the process."""
    return _signal.pack(SIGNAL, number, group)


def decode_signal(message: bytes) -> tuple[int, int]:
    """Return the signal and the group, 0 if there is none."""
    if len(message) != _signal.size or message[:1] != SIGNAL:
        raise ProtocolError('an order that is no signal')
    _, number, group = _signal.unpack(message)
    if number <= 0 or group < 0:
        raise ProtocolError('an order of no signal, or to no group')
    return number, group


def encode_removal(path: bytes) -> bytes:
    """Order the removal of a directory."""
    return REMOVE + path


def decode_removal(message: bytes) -> bytes:
    """Return the directory."""
    if message[:1] != REMOVE or b'\0' in message or not message.startswith(b'/', 1):
        raise ProtocolError('an order that is no removal of a directory')
    return message[1:]
