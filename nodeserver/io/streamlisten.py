"""The listening end over streams, however they were accepted: locally, or by TLS."""

import asyncio
import socket
from collections.abc import Sequence
from functools import partial

from nodeserver.io.framedsocket import FramedSocket
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.listener import Admits, Listener
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import (
    HEADER_SIZE,
    Kind,
    objection,
    open_header,
    read_greeting,
    write_refusal,
)

MOST_UNGREETED = 64  # connections that have not greeted yet
LAST_WORDS = 1.0  # seconds that a refusal may take


class Stream:
    """A connection, and whose it is once it has greeted."""

    def __init__(self, address: str) -> None:
        self.name = b''
        self.address = address
        self.socket: FramedSocket | None = None
        self.timer: asyncio.TimerHandle | None = None


class StreamListener(Listener):
    """Holds the streams that peers have made, however they were accepted."""

    _strangers_title = 'a stranger'

    def __init__(self, around: Surroundings, admits: Admits) -> None:
        super().__init__(around, admits)
        self._streams: dict[bytes, Stream] = {}
        self._ungreeted: set[Stream] = set()

    def _take_stream(self, sock: socket.socket, address: str) -> None:
        stream, loop = Stream(address), self._around.loop
        stream.socket = FramedSocket(
            loop,
            sock,
            partial(self._take, stream),
            partial(self._closed, stream),
            self._received,
        )
        patience = self._around.options.handshake_timeout
        stream.timer = loop.call_later(patience, self._drop, stream)
        self._ungreeted.add(stream)

    def _take(self, stream: Stream, frames: list[Frame]) -> None:
        if not stream.name:
            if len(frames[0]) < HEADER_SIZE or open_header(frames[0])[0] != Kind.HELLO:
                self._complain(self._strangers_title, 'it began without a greeting')
                self._drop(stream)
                return
            if words := objection(frames):
                assert stream.socket is not None
                stream.socket.send(write_refusal(words))
                self._drop(stream, LAST_WORDS)
                return
            self._name(stream, frames)
        self._receive(stream.name, frames, lambda: stream.address)

    def _name(self, stream: Stream, frames: list[Frame]) -> None:
        """A stream is its peer's from the greeting on; one that it had before is dead."""
        self._forget(stream)
        theirs, _ = read_greeting(frames)
        stream.name = (theirs.name or theirs.peer).encode()
        before = self._streams.get(stream.name)
        self._streams[stream.name] = stream
        if before is not None and before.socket is not None:
            before.socket.close()

    def _transmit(self, name: bytes, frames: Sequence[Frame]) -> bool:
        stream = self._streams.get(name)
        if stream is None or stream.socket is None or not stream.socket.is_open:
            return False
        stream.socket.send(frames)
        return True

    def _closed(self, stream: Stream, reason: str) -> None:
        self._forget(stream)
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]
            if stream.name in self._sessions:
                self._sessions[stream.name].pause()
                self._check_later()

    def _drop(self, stream: Stream, linger: float = 0) -> None:
        self._forget(stream)
        if stream.socket is not None:
            stream.socket.close(linger)

    def _forget(self, stream: Stream) -> None:
        self._ungreeted.discard(stream)
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None

    def _shut(self, linger: float) -> None:
        for stream in [*self._ungreeted, *self._streams.values()]:
            self._forget(stream)
            if stream.socket is not None:
                stream.socket.close(linger)
