"""A program that takes computations over from nodes: a stand-in for a scheduler that recovers.

It speaks to real nodes over the real link, and does as it is told: what a scheduler decides
is shown elsewhere.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from nodeserver.core.events import Event, MessageArrived, PeerConnected
from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    CloseComputation,
    ComputationClosed,
    ComputationRefused,
    Farewell,
    JobsDone,
    Message,
    OpenComputation,
)
from nodeserver.core.recoverymessages import JobsHeld
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.dialer import Target
from nodeserver.io.keys import choose_secret
from nodeserver.io.sysinfo import python_version
from nodeserver.io.zmqlink import ZmqLink

M = TypeVar('M')
LIMIT = 20.0


class Taker:
    """One connection to one node."""

    def __init__(self, address: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._events: list[Event] = []
        keys = choose_secret('').link_keys()
        who = secrets.token_hex(16), SCHEDULER_ROLE
        self._link = ZmqLink(self._loop, self._events.append, who, keys)
        self._link.dial(Target(address, port))
        self.node = self._until(
            lambda: next((e.peer for e in self._events if isinstance(e, PeerConnected)), '')
        )

    def _until(self, look: Callable[[], Any]) -> Any:
        end = time.monotonic() + LIMIT
        while not (found := look()):
            assert time.monotonic() < end, self._events
            self._loop.run_until_complete(asyncio.sleep(0.005))
        return found

    def said(self, kind: type[M]) -> list[M]:
        """All messages of a kind so far."""
        messages = [e.message for e in self._events if isinstance(e, MessageArrived)]
        return [message for message in messages if isinstance(message, kind)]

    def hears(self, kind: type[M], count: int = 1) -> list[M]:
        """Wait until so many messages of a kind have come."""
        self._until(lambda: len(self.said(kind)) >= count)
        return self.said(kind)

    def say(self, message: Message) -> None:
        """Tell the node something."""
        self._link.send(self.node, message)

    def claim(self, computation: int, token: bytes, epoch: int = 1, **changes: Any) -> None:
        """Take a computation over, only to have what is there."""
        who = ('taken', 'the test', python_version())
        rest = (b'', 'job', '', True, 1.0, 1)
        changes = {'collects': True, **changes}
        self.say(
            OpenComputation(
                computation, *who, *rest, token=token, epoch=epoch, resumes=True, **changes
            )
        )

    def refusal(self) -> str:
        """Why the node has nothing for us (any more)."""
        return self.hears(ComputationRefused)[-1].reason

    def held(self) -> list[int]:
        """The jobs that the node still has to do."""
        return self.hears(JobsHeld)[-1].ids

    def outcomes(self) -> list[int]:
        """Ids of all jobs that were reported, a letter that came twice counted once."""
        letters = {letter.letter: letter for letter in self.said(JobsDone)}
        return [job for letter in letters.values() for job in letter.ids]

    def await_outcomes(self, jobs: list[int]) -> None:
        """Wait until each of these jobs was reported."""
        self._until(lambda: set(jobs) <= set(self.outcomes()))

    def acknowledge(self, computation: int) -> None:
        """Say that all letters have arrived."""
        letters = [letter.letter for letter in self.said(JobsDone)]
        self.say(AcknowledgeOutcomes(computation, self.node, letters))

    def close_computation(self, computation: int) -> None:
        """Say that nothing of it is needed any more, and wait until nothing is left."""
        self.say(CloseComputation(computation))
        self.hears(ComputationClosed)

    def farewell(self) -> None:
        """Leave in peace."""
        self.say(Farewell('the test is over'))

    def close(self) -> None:
        """End the connection."""
        self._link.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@contextmanager
def taker(address: str, port: int) -> Iterator[Taker]:
    """Connect to a node, as long as the block lasts."""
    made = Taker(address, port)
    try:
        yield made
    finally:
        made.close()
