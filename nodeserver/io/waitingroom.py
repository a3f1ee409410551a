"""Tasks of connections that have not shown yet who they are: how many there may be.

Of too many the oldest ends, of the network that has the most: to show that takes milliseconds, and
who is about to do it should not be turned away because of others that never will.
"""

import asyncio
import logging
from collections import Counter

from nodeserver.io.anteroom import network_of
from nodeserver.io.datagrams import Throttle

log = logging.getLogger('nodeserver.link')

_ONE_LINE_PER = 60.0
_LINES_PER = 20  # of different networks, in that time


class WaitingRoom:
    """Holds the tasks, and cancels those that are too many; on one loop."""

    def __init__(self, most: int, most_of_a_network: int) -> None:
        self._most, self._most_of_a_network = most, most_of_a_network
        self._tasks: dict[asyncio.Task[None], str] = {}  # and their networks, the oldest first
        self._of_network: Counter[str] = Counter()
        self._complaints = Throttle(_ONE_LINE_PER, _LINES_PER)

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self, task: 'asyncio.Task[None]', address: str) -> None:
        """Let a task wait, until it is done or `leave` is called; others may have to go."""
        network = network_of(address)
        self._tasks[task] = network
        self._of_network[network] += 1
        task.add_done_callback(self.leave)
        if self._of_network[network] > self._most_of_a_network:
            self._evict(network)
        elif len(self._tasks) > self._most:
            self._evict(max(self._of_network, key=self._of_network.__getitem__))

    def leave(self, task: 'asyncio.Task[None]') -> None:
        """Forget a task: its connection has shown who it is, or has ended."""
        network = self._tasks.pop(task, None)
        if network is None:
            return
        self._of_network[network] -= 1
        if not self._of_network[network]:
            del self._of_network[network]

    def _evict(self, network: str) -> None:
        task = next(task for task, its in self._tasks.items() if its == network)
        self.leave(task)
        task.cancel()
        if self._complaints.allows(network, task.get_loop().time()):
            log.warning(
                'closing connections from %s: too many at once have not said who they are', network
            )
