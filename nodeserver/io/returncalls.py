"""A node's connections to clients that ask for them in their pings (A20).

ping with a callback ──▶ a second later: is that client connected to us? ── yes ──▶ nothing to do
                              └─ no ──▶ its hosts in turn ── welcomed ──▶ the link is as any other
                                                └─ nobody answers ──▶ until its next ping

The ping is under our key, and may yet be a recording: what it leads to is few connections, one
after the other, that say nothing to whoever has not the key.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from nodeserver.io.datagrams import Throttle
from nodeserver.io.dialer import Target
from nodeserver.io.lookup import look_up
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.wire.beacon import Asker, Callback

_WAIT = 1.0  # seconds: the client connects within milliseconds, where it can
_LIMIT = 10.0  # for all hosts of one client
_MOST = 16  # clients that are called at a time
_ONE_LINE_PER = 60.0  # seconds, of failures

_log = logging.getLogger(__name__)


class ReturnCalls:
    """The calls that are being made, of which each client has one at the most."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: ZmqLink) -> None:
        self._loop, self._link = loop, link
        self._calls: dict[str, _Call] = {}
        self._failures = Throttle(_ONE_LINE_PER)

    def asked(self, asker: Asker, callback: Callback) -> None:
        """A ping named places where its sender wants to be connected to."""
        peer = asker.peer
        if peer in self._calls or len(self._calls) >= _MOST or self._link.is_linked(peer):
            return
        self._calls[peer] = _Call(self._loop, self._link, peer, callback, self._ended)

    def close(self) -> None:
        """Call nobody any more."""
        for call in self._calls.values():
            call.close()
        self._calls.clear()

    def _ended(self, peer: str, callback: Callback, is_linked: bool) -> None:
        del self._calls[peer]
        hosts = ', '.join(callback.hosts)
        if not is_linked and self._failures.allows((hosts, callback.port), self._loop.time()):
            _log.warning(
                'a client asks to be connected to at %s port %s, and does not answer there: is '
                'that its ext_ip_addr, and does its gateway forward the port to it?',
                hosts,
                callback.port,
            )


class _Call:
    """Calls one client at its hosts, one after the other."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: ZmqLink,
        peer: str,
        callback: Callback,
        ended: Callable[[str, Callback, bool], None],
    ) -> None:
        self._loop, self._link = loop, link
        self._peer, self._callback = peer, callback
        self._ended = ended
        self._hosts = list(callback.hosts)
        self._each = _LIMIT / len(self._hosts)
        self._target: Target | None = None
        self._is_closed = False
        self._turn = 0  # of which host it is
        self._timer = loop.call_later(_WAIT, self._next)

    def close(self) -> None:
        """Stop calling, but for a link that stands."""
        self._is_closed = True
        self._timer.cancel()
        if self._target is not None:
            self._link.withdraw(self._target)

    def _next(self) -> None:
        """Go on with the next host, unless the client is connected, whoever did it."""
        is_linked = self._link.is_linked(self._peer)
        if self._target is not None and not is_linked:
            self._link.withdraw(self._target)
        if is_linked or not self._hosts:
            self._is_closed = True
            self._ended(self._peer, self._callback, is_linked)
            return
        self._timer = self._loop.call_later(self._each, self._next)
        self._turn += 1
        look_up(self._loop, self._hosts.pop(0), partial(self._call, self._turn))

    def _call(self, turn: int, addresses: list[str]) -> None:
        # a name server may answer when it is the next host's turn, or nobody's
        if turn != self._turn or self._is_closed or self._link.is_linked(self._peer):
            return
        if addresses:
            self._target = Target(addresses[0], self._callback.port)
            self._link.connect(self._peer, self._target.address, self._target.port)
        else:
            self._timer.cancel()
            self._next()
