"""What is kept of a cluster, whoever schedules it: what was before, and where records go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nodeserver.core.effects import Send
from nodeserver.core.messages import ResubmitJobs, ShareData
from nodeserver.core.recoveryeffects import Keeping


@dataclass(frozen=True, slots=True)
class Kept:
    """The jobs of a program that was killed, and what is stored of them and of new ones."""

    before: Sequence[ResubmitJobs | ShareData] = ()
    keeping: Keeping = Keeping.NOTHING
    flush: Callable[[], None] = lambda: None  # commits what was stored

    def send_after(self, send: Callable[[Send], None]) -> Callable[[Send], None]:
        """What sends: what is stored is on the disk before that."""
        if self.keeping == Keeping.NOTHING:
            return send
        flush = self.flush

        def flush_and_send(effect: Send) -> None:
            flush()
            send(effect)

        return flush_and_send


NOTHING_KEPT = Kept()
