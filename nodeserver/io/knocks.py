"""Asking by TCP whether a node is at a place where no ping was answered (N09).

    connect ── refused, no answer ──▶ KnockFailed, and again after a pause
       └─ accepted ──▶ greeting under an id of its own ── WELCOME of a node ──▶ NodeFound, closed

The greeting only asks: a node that is connected already keeps its connection, which one under our
own id would take over.  The link to a node that was found is then made as to any other.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from nodeserver.core.effects import Knock, StopKnocking
from nodeserver.core.events import Event, KnockFailed, NodeFound, RelayFound
from nodeserver.core.values import NODE_ROLE, RELAY_ROLE
from nodeserver.io.connecting import Connecting, words_of
from nodeserver.io.dialer import Dialer, Target
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.tlsdial import TlsDialer
from nodeserver.io.zmqdial import ZmqDialer
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import objection, read_greeting

CONNECT_LIMIT = 3.0  # seconds; within that lost packets are sent again twice
GREETING_LIMIT = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
MOST_AT_ONCE = 100  # of a thousand places that nobody answers at: each holds a descriptor

_GOOD_BYE_LINGER = 1.0

Ask = Callable[[Target, Callable[[str, str], None], Callable[[str], None]], Dialer]


class _KnockDialer(Dialer):
    """Greets whoever listens at a place, learns who that is, and leaves."""

    def __init__(
        self,
        around: Surroundings,
        target: Target,
        answered: Callable[[str, str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._tell_peer, self._tell_failure = answered, failed
        us = secrets.token_hex(16), around.us[1]
        alone = replace(around, us=us, seed=secrets.token_bytes(32))  # under a name of its own, too
        super().__init__(alone, '', target, lambda peer: None)

    def _on_welcome(self, frames: Sequence[Frame]) -> None:
        if text := objection(frames):
            self._refused(text)
            return
        theirs, _ = read_greeting(frames)
        if theirs.role in (NODE_ROLE, RELAY_ROLE):
            self._tell_peer(theirs.peer, theirs.role)
        else:
            self._refused(f'a {theirs.role} answers there, and no node or relay')

    def _refused(self, words: str) -> None:
        self._tell_failure(words)

    def give_up(self, reason: str) -> None:
        """Tell whoever asked, who closes this."""
        self._tell_failure(reason)


class ZmqKnock(_KnockDialer, ZmqDialer):
    """Knocks over ZeroMQ."""


class TlsKnock(_KnockDialer, TlsDialer):
    """Knocks over TLS."""


class Knocks:
    """All places at which it is knocked; only so many at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Ask,
        post: Callable[[Event], None],
        is_tls: bool = False,
    ) -> None:
        self.loop, self.ask = loop, ask
        self._is_tls = is_tls
        self._post = post
        self._knocks: dict[tuple[str, int], _Knocking] = {}
        self._busy: set[_Knocking] = set()
        self._waiting: deque[_Knocking] = deque()

    def knock(self, effect: Knock) -> None:
        """Begin to knock at a place; called by the driver."""
        place = effect.address, effect.port
        if place not in self._knocks:
            self._knocks[place] = _Knocking(self, Target(*place))

    def stop(self, effect: StopKnocking) -> None:
        """Knock there no more; called by the driver."""
        self._end((effect.address, effect.port))

    def close(self) -> None:
        """Knock nowhere any more."""
        for place in list(self._knocks):
            self._end(place)

    # called by those that knock

    def enter(self, knocking: '_Knocking') -> None:
        """Let it try now, or as soon as fewer do."""
        if len(self._busy) < MOST_AT_ONCE:
            self._busy.add(knocking)
            knocking.connect()
        else:
            self._waiting.append(knocking)

    def leave(self, knocking: '_Knocking') -> None:
        """Note that it does not try any more; one that waits may."""
        self._busy.discard(knocking)
        while self._waiting and len(self._busy) < MOST_AT_ONCE:
            other = self._waiting.popleft()
            if self._knocks.get((other.target.address, other.target.port)) is other:
                self._busy.add(other)
                other.connect()

    def failed(self, target: Target, reason: str, has_answered: bool) -> None:
        """Tell why nobody was met, or nobody of use."""
        self._post(KnockFailed(target.address, target.port, reason, has_answered))

    def found(self, target: Target, peer: str, role: str) -> None:
        """Tell who was met."""
        place = target.address, target.port
        self._end(place)
        if role == RELAY_ROLE:
            self._post(RelayFound(peer, *place, self._is_tls))
        else:
            self._post(NodeFound(peer, *place, '', is_tls=self._is_tls))

    def _end(self, place: tuple[str, int]) -> None:
        knocking = self._knocks.pop(place, None)
        if knocking is not None:
            knocking.close()
            self.leave(knocking)


class _Knocking:
    """Tries one place, over and over."""

    def __init__(self, owner: Knocks, target: Target) -> None:
        self.target = target
        self._owner = owner
        self._told = ''
        self._pause = FIRST_PAUSE
        self._connecting: Connecting | None = None
        self._dialer: Dialer | None = None
        self._timer: asyncio.TimerHandle | None = None
        owner.enter(self)

    def connect(self) -> None:
        """See by a plain connection, which costs little, whether anybody is there."""
        place = self.target.address, self.target.port
        self._connecting = Connecting(self._owner.loop, place, CONNECT_LIMIT, self._judge)

    def close(self) -> None:
        """Stop, whatever it is doing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting is not None:
            self._connecting.close()
            self._connecting = None
        if self._dialer is not None:
            self._dialer.close(_GOOD_BYE_LINGER, 'it only asked who is there')
            self._dialer = None

    def _judge(self, code: int) -> None:
        self.close()
        if code:
            self._failed(words_of(code), has_answered=False)
            return
        loop = self._owner.loop
        silent = 'somebody accepts connections there, and says nothing'
        self._timer = loop.call_later(GREETING_LIMIT, self._failed, silent)
        self._dialer = self._owner.ask(self.target, self._found, self._failed)

    def _found(self, peer: str, role: str) -> None:
        if self._dialer is not None:
            self._owner.found(self.target, peer, role)

    def _failed(self, reason: str, has_answered: bool = True) -> None:
        self.close()
        self._owner.leave(self)
        if reason != self._told:
            self._told = reason
            self._owner.failed(self.target, reason, has_answered)
        self._timer = self._owner.loop.call_later(self._pause, self._owner.enter, self)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
