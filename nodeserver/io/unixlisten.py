"""The listening end over local sockets: streams of programs of this user on this machine."""

import os
import socket
import struct

from nodeserver.io.acceptor import Acceptor
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
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        self._acceptor = Acceptor(around.loop, sock, self._accepted)

    def _accepted(self, sock: socket.socket, where: object) -> None:
        if len(self._ungreeted) >= MOST_UNGREETED or not _is_ours(sock):
            sock.close()
        else:
            self._take_stream(sock, '')

    def _shut(self, linger: float) -> None:
        self._acceptor.close()
        super()._shut(linger)


def _is_ours(sock: socket.socket) -> bool:
    """Whether the other end runs as this user: its directory's mode says so too."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size)
    return bool(_credentials.unpack(data)[1] == os.getuid())
