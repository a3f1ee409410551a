"""What a node orders of its deputy, beside which a descriptor comes: of a process, or a socket."""

import struct
from typing import Final

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
    _, number, group = _signal.unpack(message)
    return number, group


def encode_removal(path: bytes) -> bytes:
    """Order the removal of a directory."""
    return REMOVE + path


def decode_removal(message: bytes) -> bytes:
    """Return the directory."""
    return message[1:]
