"""Is a wire cut?  The system knows whether the other one still confirms what it is sent.

`TCP_USER_TIMEOUT` would not do: it also ends connections to programs that hang, or read slowly,
whose systems answer all the time that there is no room.
"""

import socket
import struct
import sys
from typing import Final

_SIZE: Final = 60  # bytes of struct tcp_info, as far as it is read here
_PROBES: Final = 3  # asked for signs of life, and not answered
_UNACKNOWLEDGED: Final = 24  # segments
_LAST_ACKNOWLEDGEMENT: Final = 56  # ms ago
_number = struct.Struct('=I')

CAN_TELL: Final = sys.platform == 'linux'


def is_cut(sock: socket.socket, patience: float) -> bool:
    """Whether something was sent, and for so many seconds nothing was heard of the other system."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:  # it is closed: that is told otherwise
        return False
    silence = _number.unpack_from(info, _LAST_ACKNOWLEDGEMENT)[0] / 1000
    is_waited_for = info[_PROBES] or _number.unpack_from(info, _UNACKNOWLEDGED)[0]
    return bool(is_waited_for) and silence >= patience
