"""The end of a node: after its running jobs, by a deadline, or at once."""

from collections.abc import Callable
from math import inf

from nodeserver.core import levels
from nodeserver.core.effects import Effect, Report, Send, Stop
from nodeserver.core.events import (
    StopAsked,
)
from nodeserver.core.hosted import Hosted
from nodeserver.core.kept import Shelf
from nodeserver.core.messages import Farewell, NodeEnding
from nodeserver.core.nodeevents import (
    OwnerGone,
)
from nodeserver.core.nodefacts import Peer
from nodeserver.core.workplace import Workplace

ORPHAN_SECONDS = 600.0  # how long a node outlives the program that started it (V02)


class Departure:
    """Why a node ends, how far that is, and what is told of it."""

    def __init__(
        self,
        peers: dict[str, Peer],
        hosted: dict[int, Hosted],
        emit: Callable[[Effect], None],
        workplace: Workplace,
        leave: Callable[[Hosted], None],
        shelf: Shelf,
    ) -> None:
        self.reason = ''  # why the node ends, in words; '' as long as it does not
        self.is_over = False
        self._peers = peers
        self._hosted = hosted
        self._emit = emit
        self._workplace = workplace
        self.leave = leave  # what ends a computation here
        self._shelf = shelf
        self._is_orphaned = False  # whoever started the node is gone: it ends what it has begun
        self._deadline = inf

    @property
    def words(self) -> str:
        """What a scheduler is told that wants something yet; '' as long as the node stays."""
        return f'the node is ending: {self.reason}' if self.reason else ''

    def deadline(self) -> float:
        """When the node ends whatever runs on it."""
        return inf if self.is_over else self._deadline

    def asked(self, event: StopAsked, now: float) -> None:
        """Whoever runs the node wants it to end."""
        if event.at_once:
            self.reason = self.reason or event.reason
            self._deadline = now
            return
        running = sum(hosted.running for hosted in self._hosted.values())
        if running and not self.reason:
            jobs = '1 running job' if running == 1 else f'{running} running jobs'
            text = f'ending after {jobs}; interrupt again to end at once'
            self._emit(Report(levels.WARNING, text))
        self._is_orphaned = False  # who asks for the end does not want the outcomes awaited
        self.begin(event.reason)

    def owner_gone(self, event: OwnerGone, now: float) -> None:
        """The program that started the node for itself has ended."""
        self._deadline = now + ORPHAN_SECONDS
        self._is_orphaned = True
        self.begin('the program that started this node has ended')

    def begin(self, reason: str) -> None:
        """Take no more jobs and give back those that wait; what runs may end."""
        self.reason = reason
        for peer in self._peers:
            self._emit(Send(peer, NodeEnding(reason)))
        for hosted in self._hosted.values():
            if hosted.waiting and not self._is_orphaned:
                self._workplace.give_back(hosted, hosted.waiting, self.words)

    def end_if_done(self, now: float) -> None:
        """End once nothing runs and every outcome was taken, or nobody is left to take it."""
        if self.reason and not self.is_over:
            busy = any(
                hosted.running
                or (hosted.letters and not hosted.orphaned)
                or (hosted.waiting and self._is_orphaned)
                for hosted in self._hosted.values()
            )
            awaits = len(self._shelf) if self._is_orphaned else self._shelf.awaits(self._peers)
            if not (busy or awaits) or now >= self._deadline:
                self._end()

    def _end(self) -> None:
        self.is_over = True
        begun = {hosted.id: hosted.begun_ids() for hosted in self._hosted.values()}
        for peer in self._peers:
            self._emit(Send(peer, Farewell(self.reason, begun)))
        for hosted in self._hosted.values():
            self.leave(hosted)
        self._emit(Stop(self.reason))
