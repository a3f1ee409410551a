"""What the ends of all processes of a node have in common."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from nodeserver.core.deaths import MemoryKill
from nodeserver.core.events import Event
from nodeserver.io.memorykills import MemoryKills
from nodeserver.io.signals import Signals
from nodeserver.io.watcher import Watcher

_KILLED = -int(signal.SIGKILL)

OfferFile = Callable[[int, int, int], None]
"""Takes the socket in which a job waits for its file to be sent: computation, worker, socket."""


def refuse_file(computation: int, worker: int, fd: int) -> None:
    """Take no file: the job sees the end of its socket."""
    os.close(fd)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all processes of a node have in common."""

    loop: asyncio.AbstractEventLoop
    watcher: Watcher
    post: Callable[[Event], None]
    worker_ids: 'count[int]'
    memory_kills: MemoryKills
    offer_file: OfferFile = refuse_file
    signals: Signals = field(default_factory=Signals)

    def memory_kill(self, exit_status: int | None) -> MemoryKill:
        """Whether the out-of-memory killer ended a process that ended just now."""
        if exit_status != _KILLED:
            return MemoryKill.NONE
        return self.memory_kills.take(self.loop.time())
