"""The listening end over local sockets: streams of programs of this user on this machine."""

import os
import socket
import struct
from contextlib import suppress

from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.listener import Admits
from nodeserver.io.streamlisten import MOST_UNGREETED, StreamListener

_BACKLOG = 128
_credentials = struct.Struct('3i')


class UnixListener(StreamListener):
    """Holds the local socket that programs of this user connect to, and their streams."""

    is_local = True
    _strangers_title = 'a local program'

    def __init__(self, around: Surroundings, admits: Admits, path: str) -> None:
        super().__init__(around, admits)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        try:
            self._sock.bind(path)
            self._sock.listen(_BACKLOG)
        except OSError:
            self._sock.close()
            raise
        around.loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._sock.accept()
                if len(self._ungreeted) >= MOST_UNGREETED or not _is_ours(sock):
                    sock.close()
                else:
                    self._take_stream(sock, '')

    def _shut(self, linger: float) -> None:
        self._around.loop.remove_reader(self._sock)
        self._sock.close()
        super()._shut(linger)


def _is_ours(sock: socket.socket) -> bool:
    """Whether the other end runs as this user: its directory's mode says so too."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size)
    return bool(_credentials.unpack(data)[1] == os.getuid())
