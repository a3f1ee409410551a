"""The connecting end over a local socket: a stream to a program of this user on this machine.

connect ─▶ greeting
end of the stream ─▶ session paused, connect again ─ refused ─▶ PeerLost
"""

import errno
import os
import socket

from nodeserver.io.streamdial import StreamDialer

_NOBODY = (errno.ECONNREFUSED, errno.ENOENT)


class UnixDialer(StreamDialer):
    """Connects to the socket of one peer."""

    def _open(self) -> None:
        self._retry_timer = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(self.target.local_path)
        if code == 0:
            self._begin(sock)
            return
        sock.close()
        if self.is_greeted and code in _NOBODY:
            self.give_up(os.strerror(code).lower())
        else:
            self._open_later()
