"""Letters that a cluster has settled and is to thank for, a moment later, all together.

What is stored of their jobs is stored at that moment too: it is on disk before a node forgets it.
"""

from math import inf

from nodeserver.core.effects import Effect
from nodeserver.core.messages import AcknowledgeOutcomes, JobsDone
from nodeserver.core.recoveryeffects import Keeping, StoreOutcomes

# a node keeps outcomes until they are acknowledged: for so long, or so many bytes, at most
ACKNOWLEDGE_SECONDS = 0.02
ACKNOWLEDGE_BYTES = 1 << 20


class Acknowledging:
    """The letters of one cluster."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._letters: dict[str, list[int]] = {}  # by node; '': the scheduler's own
        self._believed: list[Effect] = []  # what is to be stored of them
        self._bytes = 0  # that nodes keep of them
        self._at = inf

    def took(self, node: str, letter: int, size: int = 0) -> None:
        """A letter was settled: it has so many bytes."""
        self._letters.setdefault(node, []).append(letter)
        self._bytes += size

    def believed(self, done: JobsDone) -> list[Effect]:
        """These jobs have ended by it: what is to be done before the user is told.

        What a user may come back to stays as it was told, whoever dies next.  Else it is enough
        that it is stored before the node forgets it: who waits for a job comes first.
        """
        if self._keeping is Keeping.ALL:
            return [StoreOutcomes(done)]
        if self._keeping:
            self._believed.append(StoreOutcomes(done))
        return []

    def is_due(self, now: float) -> bool:
        """Whether it is time to thank."""
        if not self._letters:
            return False
        if self._at == inf:
            self._at = now + ACKNOWLEDGE_SECONDS
        return now >= self._at or self._bytes > ACKNOWLEDGE_BYTES

    def next(self) -> float:
        """When it is time at the latest."""
        return self._at if self._letters else inf

    def take(self, computation: int) -> list[AcknowledgeOutcomes]:
        """Say the thanks, and forget the letters."""
        thanks = [AcknowledgeOutcomes(computation, *row) for row in self._letters.items()]
        self._letters.clear()
        self._bytes, self._at = 0, inf
        return thanks

    def stored(self) -> list[Effect]:
        """What is to be done before anybody is thanked, or has nobody to thank any more."""
        effects = self._believed[:]
        self._believed.clear()
        return effects
