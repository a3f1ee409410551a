"""Hosts, network and clock in one thread: histories that a seed repeats exactly.

    core.handle ─▶ network.send(source, target, message) ─▶ a queue by due time
                                                                 │ step()
    clock.now := due time;  handle(source, message)  ◀───────────┘

Messages of one lane (source, target, lane) keep their order, as a link promises; lanes overtake
each other.  What the network does to them is drawn from the seed, so that a failing history can be
run again.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.support.clock import Clock

Handle = Callable[[str, Any], object]
Lane = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to messages: chances from 0 to 1, durations in seconds."""

    shortest: float = 0.001
    longest: float = 0.05
    resend_chance: float = 0.1  # lost once, sent again after `resend_after`
    resend_after: float = 1.0
    duplicate_chance: float = 0.0  # arrives a second time, later
    lose_chance: float = 0.0  # never arrives: only for tests of what resends


PERFECT = Faults(shortest=0.0, longest=0.0, resend_chance=0.0)


@dataclass(slots=True)
class _Host:
    handle: Handle
    deadline: Callable[[], float | None]
    wake: Callable[[], object]


class Network:
    """Carries message objects between the hosts that were attached to it."""

    def __init__(self, seed: int, clock: Clock | None = None, faults: Faults | None = None) -> None:
        self.seed = seed
        self.clock = clock or Clock()
        self.faults = faults or Faults()
        self.story: deque[str] = deque(maxlen=40)
        self.delivered = 0
        self._random = random.Random(seed)
        self._hosts: dict[str, _Host] = {}
        self._queue: list[tuple[float, int, Lane, Any]] = []
        self._lane_busy_until: dict[Lane, float] = {}
        self._held: list[tuple[Lane, Any]] = []
        self._cut: set[frozenset[str]] = set()
        self._count = 0

    def attach(
        self,
        name: str,
        handle: Handle,
        deadline: Callable[[], float | None] = lambda: None,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        """Put a host on the network: `wake` is called when the moment `deadline()` has come."""
        self._hosts[name] = _Host(handle, deadline, wake)

    def detach(self, name: str) -> None:
        """Take a host away for good, with all that is on its way from and to it."""
        del self._hosts[name]
        self._queue = [entry for entry in self._queue if name not in entry[2][:2]]
        heapq.heapify(self._queue)
        self._held = [entry for entry in self._held if name not in entry[0][:2]]
        self._tell(f'{name} is detached')

    def send(self, source: str, target: str, message: object, lane: str = '') -> None:
        """Send once; whether it comes late, twice or not at all is up to the seed."""
        key = (source, target, lane)
        if frozenset((source, target)) in self._cut:
            self._held.append((key, message))
        elif self._random.random() < self.faults.lose_chance:
            self._tell(f'{source} -> {target} lost {message}')
        else:
            self._enqueue(key, message)

    def broadcast(self, source: str, message: object, lane: str = '') -> None:
        """Send to every other host."""
        for target in [name for name in self._hosts if name != source]:
            self.send(source, target, message, lane)

    def cut(self, one: str, others: Iterable[str] | None = None) -> None:
        """Hold back all between `one` and the others; also what is on its way now."""
        names = [name for name in self._hosts if name != one] if others is None else others
        self._cut |= {frozenset((one, other)) for other in names}
        reaches = [entry for entry in self._queue if frozenset(entry[2][:2]) not in self._cut]
        held = sorted(entry for entry in self._queue if frozenset(entry[2][:2]) in self._cut)
        self._held += [(lane, message) for _, _, lane, message in held]
        self._queue = reaches
        heapq.heapify(self._queue)
        self._tell(f'{one} is cut')

    def heal(self) -> None:
        """Join everything again; what was held back is sent in its order."""
        self._cut.clear()
        held, self._held = self._held, []
        self._tell(f'healed, {len(held)} messages go on')
        for lane, message in held:
            self._enqueue(lane, message)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way; deadlines may still come."""
        return not self._queue

    def step(self) -> bool:
        """Let the next thing happen, a message or a deadline; False when there is none."""
        host, moment = self._next_deadline()
        if self._queue and (host is None or self._queue[0][0] <= moment):
            self._deliver(*heapq.heappop(self._queue))
        elif host is not None:
            self._wake(host, moment)
        else:
            return False
        return True

    def run_until(self, predicate: Callable[[], object], limit: int = 10_000) -> None:
        """Step until the predicate holds; the error tells the seed and the last moves."""
        for _ in range(limit):
            if predicate():
                return
            if not self.step():
                break
        if not predicate():
            raise AssertionError(self._failure(limit))

    def run(self, seconds: float, limit: int = 100_000) -> None:
        """Let so much time pass, with all that happens in it."""
        end = self.clock.now + seconds
        for _ in range(limit):
            _, moment = self._next_deadline()
            due = self._queue[0][0] if self._queue else moment
            if min(due, moment) > end:
                self.clock.now = end
                return
            self.step()
        raise AssertionError(self._failure(limit))

    def _enqueue(self, lane: Lane, message: object) -> None:
        due = self.clock.now + self._random.uniform(self.faults.shortest, self.faults.longest)
        if self._random.random() < self.faults.resend_chance:
            due += self.faults.resend_after
        due = max(due, self._lane_busy_until.get(lane, 0.0))
        self._push(due, lane, message)
        if self._random.random() < self.faults.duplicate_chance:
            self._push(due + self._random.uniform(0, 10 * self.faults.longest), lane, message)
        self._lane_busy_until[lane] = due

    def _push(self, due: float, lane: Lane, message: object) -> None:
        self._count += 1
        heapq.heappush(self._queue, (due, self._count, lane, message))

    def _deliver(self, due: float, _count: int, lane: Lane, message: object) -> None:
        source, target, _ = lane
        self.clock.now = max(self.clock.now, due)
        host = self._hosts.get(target)
        if host is None:
            self._tell(f'{source} -> {target} is not there for {message}')
            return
        self._tell(f'{source} -> {target} {message}')
        self.delivered += 1
        host.handle(source, message)

    def _wake(self, name: str, moment: float) -> None:
        self.clock.now = max(self.clock.now, moment)
        self._tell(f'{name} wakes')
        self._hosts[name].wake()

    def _next_deadline(self) -> tuple[str | None, float]:
        found: str | None = None
        soonest = float('inf')
        for name, host in self._hosts.items():
            moment = host.deadline()
            if moment is not None and moment < soonest:
                found, soonest = name, moment
        return found, soonest

    def _tell(self, text: str) -> None:
        self.story.append(f'{self.clock.now:10.3f} {text[:200]}')

    def _failure(self, limit: int) -> str:
        story = '\n'.join(self.story)
        return f'seed {self.seed}: not reached within {limit} steps; the last moves:\n{story}'
