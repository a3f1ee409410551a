"""How fast a cluster takes what its running jobs print: a bound for all its nodes together."""

from collections import deque
from math import inf

from nodeserver.core.outputmessages import JobsOutput

MOST_BYTES = 2 << 20  # a second
MESSAGE_BYTES = 2048  # that a message costs, whatever is in it: so 1,000 a second at most
_AHEAD_SECONDS = 0.5  # of that, which may come in one go


class OutputPace:
    """When each node may send its next piece."""

    def __init__(self) -> None:
        self._arrived: list[JobsOutput] = []
        self._waiting: deque[tuple[float, str]] = deque()  # moment and node, in order
        self._busy_until = -inf

    def took(self, message: JobsOutput) -> None:
        """A piece has come."""
        self._arrived.append(message)

    def free(self, now: float) -> list[str]:
        """Nodes that may go on now."""
        for message in self._arrived:
            size = MESSAGE_BYTES + sum(map(len, message.texts))
            self._busy_until = max(self._busy_until, now) + size / MOST_BYTES
            self._waiting.append((max(now, self._busy_until - _AHEAD_SECONDS), message.node))
        self._arrived.clear()
        nodes = []
        while self._waiting and self._waiting[0][0] <= now:
            nodes.append(self._waiting.popleft()[1])
        return nodes

    def next(self) -> float:
        """When the next one may; infinity: none waits."""
        return self._waiting[0][0] if self._waiting else inf
