"""What happens when in a world of one thread, and whose turn it is.

    later(seconds, program, call) ──▶ heap by moment ── step() ──▶ clock.now := moment; call()
                                                                    └▶ program.turn(), once all
                                                                       of that moment has come

A program that was ended gets no calls any more; one that is stalled gets them when it goes on, in
the order in which they were due, and what arrived before what it set itself as a deadline, as an
event loop does that was held up.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tests.support.clock import Clock

ARRIVAL, DEADLINE, LAST = 0, 1, 2
_STORY = 60
# its moment, its rank, when it was due first, its number, whose it is, and what
_Call = tuple[float, int, float, int, 'Program | None', Callable[..., object], Any]


class Program(Protocol):
    """What the agenda asks of those for whom things happen."""

    name: str
    is_alive: bool
    stalled_until: float

    def turn(self) -> None:
        """Work off what has arrived."""


class Agenda:
    """The calls to come, the clock, and the story of what came last."""

    def __init__(self, now: float = 100.0) -> None:
        self.clock = Clock(now)
        self.steps = 0
        self.story: deque[tuple[float, str, object]] = deque(maxlen=_STORY)
        self._heap: list[_Call] = []
        self._count = 0
        self._ready: list[Program] = []

    @property
    def now(self) -> float:
        """The present moment."""
        return self.clock.now

    @property
    def has_more_now(self) -> bool:
        """Whether something else is to happen at this very moment."""
        return bool(self._heap and self._heap[0][0] <= self.clock.now)

    def later(
        self, seconds: float, program: Program | None, call: Callable[..., object], *args: Any
    ) -> None:
        """Have something happen after a while; to no program in particular when it is None."""
        self._push(self.clock.now + seconds, ARRIVAL, program, call, args)

    def at_deadline(self, moment: float, program: Program, call: Callable[..., object]) -> None:
        """Have a program look at its deadlines at a moment, after all that arrives by then."""
        self._push(moment, DEADLINE, program, call, (moment,))

    def ready(self, program: Program) -> None:
        """A program has something to work off."""
        self._ready.append(program)

    def tell(self, who: str, what: object) -> None:
        """Add a line to the story."""
        self.story.append((self.clock.now, who, what))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is left."""
        if self._ready and not (self._heap and self._heap[0][0] <= self.clock.now):
            self._take_turns()
        if not self._heap:
            return False
        self.steps += 1
        moment, rank, due, number, program, call, args = heapq.heappop(self._heap)
        clock = self.clock
        if moment > clock.now:
            clock.now = moment
        if program is None:
            call(*args)
        elif program.is_alive:
            if program.stalled_until > clock.now:
                waits = program.stalled_until, rank, due, number, program, call, args
                heapq.heappush(self._heap, waits)
            else:
                call(*args)
        if self._ready and not (self._heap and self._heap[0][0] <= clock.now):
            self._take_turns()
        return True

    def run(self, seconds: float) -> None:
        """Let so much time pass, with all that happens in it."""
        end = self.clock.now + seconds
        self._take_turns()
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.step()
        self.clock.now = max(self.clock.now, end)

    def run_until(self, predicate: Callable[[], object], seconds: float) -> bool:
        """Run until something holds; False when it does not within so much time."""
        end = self.clock.now + seconds
        self._take_turns()
        while not predicate():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.step()
        return True

    def tale(self) -> str:
        """The story, for people."""
        return '\n'.join(f'{at:12.4f} {who}: {str(what)[:300]}' for at, who, what in self.story)

    def _push(
        self, moment: float, rank: int, program: Program | None, call: Any, args: Any
    ) -> None:
        self._count += 1
        heapq.heappush(self._heap, (moment, rank, moment, self._count, program, call, args))

    def _take_turns(self) -> None:
        while self._ready:
            ready, self._ready = self._ready, []
            for program in ready:
                if program.stalled_until > self.clock.now:
                    self._push(program.stalled_until, LAST, program, self.ready, (program,))
                elif program.is_alive:
                    program.turn()
