"""Counting what must arrive: numbers, what is unacknowledged, what is repeated or missing (D4).

    Outbound.number ──▶ wire ──▶ Inbound.believe ─ NEW ──▶ handed on, once and in order
    Outbound.acknowledge ◀── highest number believed ── Inbound.received
    Outbound.kept ◀── a gap or a reconnect: all of these go out again

The wire may lose, repeat and reorder; it is trusted only not to invent.
"""

from collections import deque
from enum import Enum
from typing import Generic, TypeVar

from nodeserver.core.errors import ProtocolError

T = TypeVar('T')


class Verdict(Enum):
    """What a number that came in is."""

    NEW = 'new'
    REPEATED = 'repeated'
    GAP = 'gap'


class Outbound(Generic[T]):
    """Numbers what goes out, and keeps it until the other side has it."""

    def __init__(self) -> None:
        self.last = 0
        self.in_flight = 0
        self._kept: deque[tuple[int, int, T]] = deque()

    def number(self, item: T, size: int) -> int:
        """Give the item the next number and count its bytes as in flight."""
        self.last += 1
        self.in_flight += size
        self._kept.append((self.last, size, item))
        return self.last

    @property
    def acknowledged(self) -> int:
        """The number up to which the other side has everything."""
        return self._kept[0][0] - 1 if self._kept else self.last

    def acknowledge(self, received: int) -> list[T]:
        """Forget what the other side has; answers with what was freed by this."""
        if received > self.last:
            raise ProtocolError(f'number {received} was acknowledged, {self.last} is the last')
        freed = []
        kept = self._kept
        while kept and kept[0][0] <= received:
            _, size, item = kept.popleft()
            self.in_flight -= size
            freed.append(item)
        return freed

    def kept(self) -> list[tuple[int, T]]:
        """Everything that is unacknowledged, oldest first, as it has to go out again."""
        return [(number, item) for number, _, item in self._kept]


class Inbound:
    """Believes each number once and in order, and notices what is missing."""

    def __init__(self) -> None:
        self.received = 0
        self._asked_at = -1

    def believe(self, number: int) -> Verdict:
        """Judge a number; only a NEW one may be handed on."""
        if number == self.received + 1:
            self.received = number
            return Verdict.NEW
        return Verdict.REPEATED if number <= self.received else Verdict.GAP

    def asks_again(self) -> bool:
        """Whether a gap is to be told now: once per gap, else a full wire would be told often."""
        asks = self._asked_at != self.received
        self._asked_at = self.received
        return asks

    def misses(self, last: int) -> bool:
        """Whether the tail up to `last`, which the other side says it sent, is missing."""
        return last > self.received
