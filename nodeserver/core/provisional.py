"""Provisional results of a computation on a node that have not been sent yet.

ProvisionalReported ──▶ this turn's ──▶ JobsProvisional
                     └─ nobody takes them: the latest, as many as there is room for
"""

from collections.abc import Container

from nodeserver.core.letters import part_of
from nodeserver.core.messages import JobsProvisional

MOST_KEPT = 1000  # results, while nobody takes them
MOST_BYTES = 64 * 1024 * 1024  # of them; a single one may have more


class Provisional:
    """The results that are to be sent, in their order."""

    __slots__ = ('_bytes', '_computation', '_message', 'dropped')

    def __init__(self, computation: int) -> None:
        self._computation = computation
        self._message = JobsProvisional(computation, '', [], [], [])
        self._bytes = 0
        self.dropped = 0  # that nobody will get

    def add(self, job: int, attempt: int, result: bytes) -> None:
        """A job has sent one."""
        message = self._message
        message.ids.append(job)
        message.attempts.append(attempt)
        message.results.append(result)
        self._bytes += len(result)

    def bound(self) -> None:
        """Let the oldest go: who waits for none gets few."""
        message, over = self._message, 0
        while len(message.ids) - over > 1 and (
            len(message.ids) - over > MOST_KEPT or self._bytes > MOST_BYTES
        ):
            self._bytes -= len(message.results[over])
            over += 1
        if over:
            self.dropped += over
            del message.ids[:over], message.attempts[:over], message.results[:over]

    def keep_of(self, jobs: Container[int]) -> None:
        """Nobody is told of other jobs that they still run."""
        is_kept = [job in jobs for job in self._message.ids]
        self.dropped += is_kept.count(False)
        self._message = part_of(self._message, is_kept)
        self._bytes = sum(map(len, self._message.results))

    def take(self, node: str) -> JobsProvisional | None:
        """All that there are."""
        taken = self._message
        if not taken.ids:
            return None
        self._message, self._bytes = JobsProvisional(self._computation, '', [], [], []), 0
        return JobsProvisional(self._computation, node, taken.ids, taken.attempts, taken.results)

    def loss(self, name: str) -> str:
        """Say what was dropped, once; '' if nothing was."""
        count, self.dropped = self.dropped, 0
        if not count:
            return ''
        results = '1 provisional result' if count == 1 else f'{count} provisional results'
        return f'{results} of {name} could be given to nobody while its program was gone'
