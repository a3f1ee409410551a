"""What is kept of a cluster, whoever schedules it: what was before, and where records go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nodeserver.core.effects import Send, SettleJobs, SettleUnrun
from nodeserver.core.messages import ResubmitJobs, ShareData
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.io.driver import Performers


@dataclass(frozen=True, slots=True)
class Kept:
    """The jobs of a program that was killed, and what is stored of them and of new ones."""

    before: Sequence[ResubmitJobs | ShareData] = ()
    keeping: Keeping = Keeping.NOTHING
    flush: Callable[[], None] = lambda: None  # commits what was stored

    def send_after(self, send: Callable[[Send], None]) -> Callable[[Send], None]:
        """What sends: what is stored is on the disk before that."""
        return send if self.keeping == Keeping.NOTHING else self._after(send)

    def tell_after(self, performers: Performers) -> Performers:
        """Have what is stored of a job's end on the disk before the user is told of it.

        Only where the user can come back to it: one answer would else be followed by another.
        """
        if self.keeping != Keeping.ALL:
            return performers
        told = (SettleJobs, SettleUnrun)
        return {**performers, **{kind: self._after(performers[kind]) for kind in told}}

    def _after(self, perform: Callable[[Any], None]) -> Callable[[Any], None]:
        flush = self.flush

        def flush_and_perform(effect: Any) -> None:
            flush()
            perform(effect)

        return flush_and_perform


NOTHING_KEPT = Kept()
