"""The listening end over TLS: the streams of peers that have proven themselves."""

import errno
import logging
import socket

from nodeserver.core.errors import PortBusy
from nodeserver.core.events import PeerRefusedUs
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.datagrams import Throttle
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.listener import LINES_PER, ONE_LINE_PER, Admits
from nodeserver.io.streamlisten import LAST_WORDS, MOST_UNGREETED, StreamListener
from nodeserver.io.zmqlisten import open_listening, stop_keeping_from_forks

log = logging.getLogger('nodeserver.link')


class TlsListener(StreamListener):
    """Listens at one address."""

    def __init__(self, around: Surroundings, admits: Admits) -> None:
        super().__init__(around, admits)
        self._refusals = Throttle(ONE_LINE_PER, LINES_PER)
        self._sock: socket.socket | None = None

    def bind(self, address: str, port: int, option: str) -> int:
        """Listen on TCP; answers with the port."""
        assert self._around.tls is not None
        try:
            fd, bound = open_listening(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortBusy(port, address, option) from error
            raise
        self._sock = socket.socket(fileno=fd)
        self._around.tls.listen(self._sock, self._met, self._refused)
        return bound

    def forget(self, peer: str, reason: str) -> None:
        """Tell the peer that we are done with it, and end its connection."""
        stream = self._streams.get(self.name_of(peer))
        super().forget(peer, reason)
        if stream is not None:
            self._drop(stream, LAST_WORDS)

    def _met(self, sock: socket.socket, address: str) -> None:
        if self._sock is None or len(self._ungreeted) >= MOST_UNGREETED:
            sock.close()
        else:
            self._take_stream(sock, self._around.options.origin(address))

    def _refused(self, address: str, words: str) -> None:
        """Say in the log, seldom, who tries to connect and is not one of ours."""
        address = self._around.options.origin(address)
        if self._sock is None or not self._refusals.allows(address, self._around.loop.time()):
            return
        log.warning('a program at %s tried to connect and was refused: %s', address, words)
        if self._around.us[1] == SCHEDULER_ROLE:  # a node has nobody to tell
            self._around.post(PeerRefusedUs('', address, words))

    def _shut(self, linger: float) -> None:
        if self._sock is not None and self._around.tls is not None:
            stop_keeping_from_forks(self._sock.fileno())
            self._around.tls.stop_listening(self._sock)
            self._sock = None
        super()._shut(linger)
