"""Carries bytes between a TLS connection and the local socket of the link it belongs to.

    network ══ TLS ══ Pump ── socket pair ── FramedSocket of the link

Neither direction reads on while the other side does not take what was read, so that a slow
reader holds up the sender at the far end, and no more than a buffer is kept here.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

SCRATCH_SIZE: Final = 256 * 1024
_SEND_BUFFER = 1024 * 1024  # of the socket pair, as far as the system allows
_LAST_WORDS = 1.0  # seconds in which the far end may read what was sent last
_PATIENCE = 30.0  # seconds that a peer which stopped reading has for what the link has left


class Pump:
    """One connection, from the moment that both sides are proven to its end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        far: ssl.SSLSocket,
        near: socket.socket,
        scratch: memoryview,  # shared by all pumps of a thread
        done: Callable[['Pump'], None],
    ) -> None:
        self._loop, self._far, self._near = loop, far, near
        self._scratch, self._done = scratch, done
        self._to_near = memoryview(b'')
        self._to_far = memoryview(b'')
        self._far_ended = self._near_ended = self._near_waits = False
        self._timer: asyncio.TimerHandle | None = None
        self.is_open = True
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        loop.add_reader(far, self._far_readable)
        loop.add_reader(near, self._near_readable)
        loop.call_soon(self._far_readable)  # OpenSSL may hold what came with the handshake

    @property
    def far(self) -> socket.socket:
        """The connection to the other machine."""
        return self._far

    def abort(self) -> None:
        """Close at once, whatever is still under way."""
        if not self.is_open:
            return
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        for sock in (self._far, self._near):
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
        self._done(self)

    # from the network

    def _far_readable(self) -> None:
        if self._near_ended or not self.is_open:
            return
        if self._to_far:  # OpenSSL may have waited for something to read before it could write
            self._write_far()
        if self._to_near or not self.is_open:
            return
        filled = self._read_far()
        if filled:
            self._to_near = self._scratch[:filled]
            self._write_near()
        if self._far_ended:
            self._end_near()
        elif filled == len(self._scratch) and not self._to_near:
            self._loop.call_soon(self._far_readable)  # OpenSSL may hold more, unseen by the loop

    def _read_far(self) -> int:
        """Gather records, which are of 16 kB at most."""
        scratch, filled = self._scratch, 0
        try:
            while filled < len(scratch):
                count = self._far.recv_into(scratch[filled:])
                if not count:
                    self._far_ended = True
                    break
                filled += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._far, self._far_writable)
        except OSError:  # also what OpenSSL finds wrong
            self._far_ended = True
        return filled

    def _write_near(self) -> None:
        try:
            while self._to_near:
                self._to_near = self._to_near[self._near.send(self._to_near) :]
        except BlockingIOError:
            self._to_near = memoryview(bytes(self._to_near))
            self._loop.remove_reader(self._far)
            self._loop.add_writer(self._near, self._near_writable)
        except OSError:  # the link has let go of it
            self._to_near = memoryview(b'')

    def _near_writable(self) -> None:
        self._loop.remove_writer(self._near)
        self._write_near()
        if self._to_near:
            return
        if self._far_ended:
            self._end_near()
            return
        self._loop.add_reader(self._far, self._far_readable)
        self._far_readable()

    def _end_near(self) -> None:
        """The far end is gone: so is the link's, once it has what came before."""
        if not self._to_near:
            self.abort()
        else:
            self._loop.remove_reader(self._far)

    # from the link

    def _near_readable(self) -> None:
        try:
            count = self._near.recv_into(self._scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self._to_far = self._scratch[:count]
            self._write_far()
            return
        self._near_ended, self._to_near = True, memoryview(b'')
        self._loop.remove_reader(self._near)
        self._loop.remove_writer(self._near)
        self._timer = self._loop.call_later(_PATIENCE, self.abort)
        self._end_far()

    def _write_far(self) -> None:
        try:
            while self._to_far:
                self._to_far = self._to_far[self._far.send(self._to_far) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as wish:
            self._to_far = memoryview(bytes(self._to_far))
            self._near_waits = True
            self._loop.remove_reader(self._near)
            if isinstance(wish, ssl.SSLWantWriteError):
                self._loop.add_writer(self._far, self._far_writable)
        except OSError:
            self.abort()
        else:
            if self._near_waits and not self._near_ended:
                self._near_waits = False
                self._loop.add_reader(self._near, self._near_readable)

    def _far_writable(self) -> None:
        self._loop.remove_writer(self._far)
        self._write_far()
        if not self.is_open:
            return
        if self._near_ended:
            self._end_far()
        else:
            self._far_readable()

    def _end_far(self) -> None:
        """The link is done: say so at the far end, which may be in the middle of sending.

        Closing at once would have the system reset the connection, and the far end lose what it
        has not read yet.
        """
        if self._to_far or not self.is_open:
            return
        with contextlib.suppress(OSError):  # the far end answers later, or never
            self._far.unwrap()
        with contextlib.suppress(OSError):
            self._far.shutdown(socket.SHUT_WR)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LAST_WORDS, self.abort)
        self._loop.add_reader(self._far, self._discard)

    def _discard(self) -> None:
        try:
            if socket.socket.recv_into(self._far, self._scratch):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.abort()
