"""A stream between two programs of one user on one machine, cut into messages of frames.

    [count] [size] * count [frame] * count        all numbers 4 bytes, little-endian

ZeroMQ carries the same over two threads of its own, which costs four wake-ups for each message
and its answer: here a message goes from loop to loop.
"""

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.codec import Frame
from nodeserver.wire.limits import MOST_FRAMES

LARGEST = 16 * 1024 * 1024  # bytes of a message; what is larger comes in parts
_READ = 128 * 1024
_READS_A_TURN = 16
_SEND_BUFFER = 1024 * 1024  # as far as the system allows: each time it is full costs a wake-up
_JOINED = 64 * 1024  # frames of up to so many bytes together are joined: quicker than a table
_number = struct.Struct('<I')
_one_size = struct.Struct('<II')  # the head of a message of one frame, as nearly all are


class FramedSocket:
    """One end of a connection; `take` gets each message, `gone` is called once when it ends."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        take: Callable[[list[Frame]], None],
        gone: Callable[[str], None],
        after_turn: Callable[[], None],
    ) -> None:
        self._loop, self._sock = loop, sock
        self._take, self._gone, self._after_turn = take, gone, after_turn
        self._backlog: deque[memoryview] = deque()
        # made once: memory of that size is asked of the system, and given back, each time
        self._buffer = bytearray(_READ)
        self._view = memoryview(self._buffer)
        self._rest = b''
        self._large: memoryview | None = None  # a message that is gathered without copying
        self._large_filled = 0
        self.is_open = True
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        loop.add_reader(sock, self._readable)

    def send(self, frames: Sequence[Frame]) -> None:
        """Write a message, or keep what the other side is too slow to take."""
        if not self.is_open:
            return
        sizes = [len(frame) for frame in frames]
        if len(sizes) == 1:
            head = _one_size.pack(1, sizes[0])
        else:
            head = struct.pack(f'<{len(sizes) + 1}I', len(sizes), *sizes)
        waiting = bool(self._backlog)
        if sum(sizes) <= _JOINED:
            self._backlog.append(memoryview(b''.join((head, *frames))))
        else:
            self._backlog.extend(map(memoryview, (head, *frames)))
        if not waiting:
            self._write()

    def close(self, linger: float = 0) -> None:
        """End the connection; what is still to be written has so many seconds."""
        if not self.is_open:
            return
        self._stop()
        if self._backlog and linger:
            threading.Thread(target=self._write_last, args=(linger,)).start()
        else:
            self._sock.close()

    def _stop(self) -> None:
        self.is_open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        # whoever holds this end may do so until the next collection of garbage: many that come
        # and go would hold much of the memory
        self._view, self._rest, self._large = memoryview(b''), b'', None
        self._buffer = bytearray()

    def _write_last(self, linger: float) -> None:
        with self._sock:
            self._sock.settimeout(linger)
            try:
                for piece in self._backlog:
                    self._sock.sendall(piece)
            except OSError:  # nobody is there to take it
                return

    def _write(self) -> None:
        backlog = self._backlog
        while backlog:
            try:
                sent = self._sock.send(backlog[0])
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._writable)
                return
            except OSError as error:
                self._end(str(error))
                return
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
            else:
                backlog.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._write()

    def _readable(self) -> None:
        try:
            for _ in range(_READS_A_TURN):
                if not (self.is_open and self._read()):
                    break
        except OSError as error:
            self._end(str(error))
        except ProtocolError as error:
            self._end(f'it broke the protocol: {error}')
        else:
            self._after_turn()

    def _read(self) -> bool:
        """Read one piece; whether there may be more."""
        if self._large is not None:
            return self._read_large()
        try:
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return False
        if not count:
            self._end('its connection was closed')
            return False
        data = bytes(self._view[:count])
        self._parse(self._rest + data if self._rest else data)
        return count == _READ or self._large is not None

    def _parse(self, data: bytes) -> None:
        """Hand on the whole messages, and keep the beginning of the next."""
        at, end, view = 0, len(data), memoryview(data)
        while self.is_open and end - at >= _number.size:
            count = _number.unpack_from(data, at)[0]
            if not 0 < count <= MOST_FRAMES:
                raise ProtocolError(f'a message of {count} frames came in')
            begin = at + _number.size * (1 + count)
            if begin > end:
                break
            sizes = struct.unpack_from(f'<{count}I', data, at + _number.size)
            total = sum(sizes)
            if total > LARGEST:
                raise ProtocolError(f'a message of {total} bytes came in')
            if begin + total > end:
                if total > _READ:
                    self._begin_large(view[at:], begin - at + total)
                    return
                break
            at = begin + total
            self._take(_cut(view[begin:at], sizes))
        self._rest = data[at:]

    def _begin_large(self, beginning: memoryview, size: int) -> None:
        self._rest = b''
        self._large = memoryview(bytearray(size))
        self._large[: len(beginning)] = beginning
        self._large_filled = len(beginning)

    def _read_large(self) -> bool:
        large = self._large
        assert large is not None
        try:
            count = self._sock.recv_into(large[self._large_filled :])
        except BlockingIOError:
            return False
        if not count:
            self._end('its connection was closed')
            return False
        self._large_filled += count
        if self._large_filled == len(large):
            self._large = None
            frames = _number.unpack_from(large)[0]
            sizes = struct.unpack_from(f'<{frames}I', large, _number.size)
            self._take(_cut(large[_number.size * (1 + frames) :], sizes))
        return True

    def _end(self, reason: str) -> None:
        if self.is_open:
            self._stop()
            self._sock.close()
            self._gone(reason)


def _cut(data: memoryview, sizes: Sequence[int]) -> list[Frame]:
    if len(sizes) == 1:
        return [data]
    ends = accumulate(sizes, initial=0)
    return [data[start:stop] for start, stop in pairwise(ends)]
