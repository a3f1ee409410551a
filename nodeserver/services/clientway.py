"""The way from a shared scheduler to one client.

SchedulerService ── send ──▶ ClientWay ──▶ Link ──▶ client
                             └─ JobsStarted ─ until something follows, or for a moment
"""

import asyncio
from collections.abc import Callable

from nodeserver.core.messages import JobsDone, JobsStarted, Message
from nodeserver.io.link import Link

# seconds: more than most jobs take for which a wake-up counts, and less than anybody sees
MOST_HELD = 0.005


class ClientWay:
    """The link of one client, to which the scheduler's shell hands its messages.

    That jobs have begun goes out with what follows it, be it their outcomes.  By itself it would
    wake the program just when the node and its worker want to run: that costs a job alone more than
    its message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        peer: str,
        ended: Callable[[int], None],  # is told how many jobs have ended
    ) -> None:
        self._loop, self._link, self._peer, self._ended = loop, link, peer, ended
        self._held: list[Message] = []
        self._timer: asyncio.TimerHandle | None = None

    def send(self, peer: str, message: Message) -> None:
        """Send by the name that the client has on the link."""
        if type(message) is JobsStarted:
            self._held.append(message)
            if self._timer is None:  # one that finds nothing is cheaper than one for each job
                self._timer = self._loop.call_later(MOST_HELD, self._due)
            return
        if type(message) is JobsDone:
            self._ended(len(message.ids))
        self.flush()
        self._link.send(self._peer, message)

    def flush(self) -> None:
        """Send what was held."""
        held, self._held = self._held, []
        for each in held:
            self._link.send(self._peer, each)

    def disconnect(self, peer: str) -> None:
        """Part from the client."""
        self.close()
        self._link.disconnect(self._peer)

    def close(self) -> None:
        """Drop what was held; the link is that of all clients."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self.flush()
