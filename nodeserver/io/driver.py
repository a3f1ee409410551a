"""Runs cores on an asyncio loop: hands them events, performs their effects, wakes them in time.

    post(event) ──▶ inbox ──▶ core.handle ──▶ effects ──▶ performers ──▶ new events
                             core.end_turn, once the inbox is empty

One *turn* works off all that has arrived; what performers post meanwhile belongs to it.  Events
of one core are handled in the order in which they were posted.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Protocol

from nodeserver.core.effects import Effect
from nodeserver.core.events import DeadlinePassed, Event
from nodeserver.io.trace import in_words

_log = logging.getLogger(__name__)

Performers = Mapping[type[Any], Callable[[Any], None]]

MOST_ROUNDS = 1000  # a turn that long is two cores answering each other for ever
IDLE_SECONDS = 0.0001  # without a turn: what comes then is not one of many


class Core(Protocol):
    """What the driver asks of a core."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in an event and answer with effects; called for each posted event."""

    def end_turn(self, now: float) -> list[Effect]:
        """Decide what waits for a full picture; called when all that has arrived is handled."""

    def next_deadline(self) -> float | None:
        """When to post `DeadlinePassed`; asked at the end of each turn."""


class Seat:
    """A core's place in a driver."""

    def __init__(self, driver: 'Driver', core: Core, performers: Performers) -> None:
        self.core = core
        self.performers = performers
        self._driver = driver

    def post(self, event: Event) -> None:
        """Hand the core an event in this turn or the next; on the loop's thread only."""
        self._driver.post(self, event)

    def leave(self) -> None:
        """Take the core out; events posted to it from now on are dropped."""
        self._driver.leave(self)


class Driver:
    """The cores of one loop, and the loop's turns."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.loop = loop
        self.clock = clock
        self._seats: dict[Seat, None] = {}
        self._inbox: deque[tuple[Seat, Event]] = deque()
        self._scheduled = False
        self._ended_at = 0.0  # the last turn
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def add(self, core: Core, performers: Performers) -> Seat:
        """Give a core a seat; its first turn comes by itself."""
        seat = Seat(self, core, performers)
        self._seats[seat] = None
        self._schedule()
        return seat

    def leave(self, seat: Seat) -> None:
        """Take a core out."""
        self._seats.pop(seat, None)

    def post(self, seat: Seat, event: Event) -> None:
        """Put an event into the inbox, and see to it that a turn follows."""
        self._inbox.append((seat, event))
        if not self._scheduled:
            self._schedule()

    def turn_if_idle(self) -> None:
        """Work off a lone event at once, called by whoever has posted all that it had.

        Under load the turn comes in its own time, so that it finds the events of many.
        """
        if self._scheduled and self.clock() - self._ended_at > IDLE_SECONDS:
            self.turn()

    def turn(self) -> None:
        """Work off the inbox until every core has nothing more to say."""
        if not self._scheduled:
            return  # it was done already
        now = self.clock()
        for _ in range(MOST_ROUNDS):
            self._work_off(now)
            for seat in list(self._seats):
                self._end_turn(seat, now)
            if not self._inbox:
                break
        self._scheduled = False
        if self._inbox:
            self._schedule()
        self._set_timer(now)
        self._ended_at = self.clock()

    def close(self) -> None:
        """Stop waking cores."""
        self._seats.clear()
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._scheduled = True
        self.loop.call_soon(self.turn)

    def _work_off(self, now: float) -> None:
        inbox, seats, traced = self._inbox, self._seats, _is_traced()
        while inbox:
            seat, event = inbox.popleft()
            if seat in seats:
                if traced:
                    _trace(seat, '<-', event)
                try:
                    effects = seat.core.handle(event, now)
                except Exception:  # noqa: BLE001
                    # a bug of ours must not silence a server: it is shown whole, the rest goes on
                    _log.exception('%s failed on %r', type(seat.core).__name__, type(event))
                else:
                    if effects:
                        self._perform(seat, effects)

    def _end_turn(self, seat: Seat, now: float) -> None:
        try:
            effects = seat.core.end_turn(now)
        except Exception:  # noqa: BLE001 - as above
            _log.exception('%s failed at the end of a turn', type(seat.core).__name__)
        else:
            if effects:
                self._perform(seat, effects)

    def _perform(self, seat: Seat, effects: list[Effect]) -> None:
        traced = _is_traced()
        for effect in effects:
            if traced:
                _trace(seat, '->', effect)
            try:
                seat.performers[type(effect)](effect)
            except Exception:  # noqa: BLE001
                _log.exception('%s could not be performed', type(effect).__name__)

    def _set_timer(self, now: float) -> None:
        earliest = inf
        for seat in self._seats:
            due = seat.core.next_deadline()
            if due is not None and due < earliest:
                earliest = due
        if earliest == self._timer_at:
            return
        self._timer_at = earliest
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if earliest != inf:
            delay = max(0.0, earliest - now)
            self._timer = self.loop.call_later(delay, self._deadline)

    def _deadline(self) -> None:
        """A moment has come; what sockets have brought meanwhile was posted before this."""
        self._timer, self._timer_at = None, inf
        now = self.clock()
        for seat in list(self._seats):
            due = seat.core.next_deadline()
            if due is not None and due <= now + 0.001:
                self.post(seat, DeadlinePassed())


def _is_traced() -> bool:
    return _log.isEnabledFor(logging.DEBUG)


def _trace(seat: Seat, arrow: str, what: object) -> None:
    """Show at DEBUG what a core was told and what it answered (L05)."""
    _log.debug('%s %s %s', type(seat.core).__name__, arrow, in_words(what))
