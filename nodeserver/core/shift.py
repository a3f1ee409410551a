"""Whether a node takes jobs now: by its hours, by the word of whoever runs it, by whom it served.

    ClockRead, PauseAsked, ReleaseAsked ──▶ causes ──▶ NodePaused(why), at last NodePaused('')

A node that takes no jobs gives those that wait back and lets the running ones go on, but for the
end of its hours: then nothing of anybody is left on it.
"""

from collections.abc import Callable, Iterable

from nodeserver.core import levels
from nodeserver.core.departure import Departure
from nodeserver.core.effects import Effect, Report, Send
from nodeserver.core.events import (
    CloseAsked,
)
from nodeserver.core.hosted import Hosted, HostedState
from nodeserver.core.hours import Service
from nodeserver.core.messages import NodeFree, NodePaused
from nodeserver.core.nodeevents import (
    ClockRead,
    PauseAsked,
    ReleaseAsked,
)
from nodeserver.core.nodefacts import NodeRules, Peer
from nodeserver.core.workplace import Workplace

_BY_HOURS, _BY_WORD, _BY_RELEASE = 'hours', 'word', 'release'
_WHO = 'whoever runs this node'


class Shift:
    """Says why no jobs are taken, and tells schedulers when that begins and ends."""

    def __init__(
        self,
        rules: NodeRules,
        peers: dict[str, Peer],
        hosted: dict[int, Hosted],
        workplace: Workplace,
        departure: Departure,
        emit: Callable[[Effect], None],
    ) -> None:
        self._hours = rules.hours
        self._peers = peers
        self._hosted = hosted
        self._workplace = workplace
        self._departure = departure
        self._emit = emit
        # tells a scheduler that none of the jobs of a computation will end here
        self.refuse: Callable[[Hosted, str, str], None]
        self._causes: dict[str, str] = {}
        self._told = ''  # why no jobs are taken, as schedulers know it
        self._service = Service.OPEN
        self._clients = rules.clients
        self._served = 0
        self._returning = ''  # a client that has nothing here at the moment, and is served on

    @property
    def closed(self) -> str:
        """Why no jobs are taken, in words; '' where they are."""
        return next(iter(self._causes.values()), '')

    @property
    def words(self) -> list[str]:
        """What there is to say of it to whoever runs the node."""
        lines = [f'takes no jobs: {text}' for text in self._causes.values()] or ['takes jobs']
        if self._hours is not None and not self._causes.get(_BY_HOURS):
            lines.append(self._hours.words)
        if self._clients >= 0:
            lines.append(f'ends after {_clients(self._clients)} more')
        return lines

    def clock_read(self, event: ClockRead, now: float) -> None:
        """The clock on the wall: it may be time to begin or to end."""
        if self._hours is None:
            return
        service = self._hours.at(event.second)
        if service is self._service:
            return
        self._service = service
        if service is Service.OPEN:
            self._allow(_BY_HOURS)
        else:
            self._forbid(_BY_HOURS, self._hours.words)
        if service is Service.OVER:
            self._evict('over', self._hours.words_of_end)

    def pause(self, event: PauseAsked, now: float) -> None:
        """Whoever runs the node wants it to rest, or to go on."""
        if event.ends:
            self._allow(_BY_WORD)
        else:
            self._forbid(_BY_WORD, f'{_WHO} has stopped its service')

    def release(self, event: ReleaseAsked, now: float) -> None:
        """The client that holds the node shall have it as long as its running jobs take."""
        if self._hosted:
            self._forbid(_BY_RELEASE, f'{_WHO} takes it from its client')

    def close(self, event: CloseAsked, now: float) -> None:
        """The client that holds the node loses it now, and its running jobs with it."""
        self._evict('failed', f'{_WHO} has closed it')

    def end_turn(self) -> None:
        """A node that is being released is free once nothing runs and all outcomes were taken."""
        if _BY_RELEASE in self._causes and not any(
            hosted.running or (hosted.letters and not hosted.orphaned)
            for hosted in self._hosted.values()
        ):
            self._evict('failed', f'{_WHO} has taken it from its client')

    def client_left(self, last: Hosted) -> None:
        """Nothing of a client is left: the next one may come, if there is to be one."""
        if last.returns and last.scheduler in self._peers:
            self._returning = last.scheduler
        else:
            self._count()
        self._allow(_BY_RELEASE)
        self._tell_free()

    def client_came(self, scheduler: str) -> None:
        """A client opens a computation: one that was to come back does so no more, if another."""
        if self._returning and scheduler != self._returning:
            self._count()
        self._returning = ''

    def peer_left(self, scheduler: str) -> None:
        """A scheduler is gone: it comes back no more."""
        if self._returning == scheduler:
            self._returning = ''
            self._count()

    def _count(self) -> None:
        """One more client was served."""
        self._served += 1
        if self._clients > 0:
            self._clients -= 1
            if not self._clients and not self._departure.reason:
                self._departure.begin(f'it has served {_clients(self._served)}')

    def _forbid(self, cause: str, text: str) -> None:
        self._causes[cause] = text
        self._tell()
        for hosted in self._hosted.values():
            if hosted.waiting:
                self._workplace.give_back(hosted, hosted.waiting, text)

    def _allow(self, cause: str) -> None:
        if self._causes.pop(cause, None) is not None:
            self._tell()
            self._tell_free()

    def _tell(self) -> None:
        """Let schedulers know of a change; one that ends has told them that it takes no more."""
        if self.closed == self._told:
            return
        self._told = self.closed
        if not self._departure.reason:
            for peer in self._peers:
                self._emit(Send(peer, NodePaused(self._told)))
            text = f'taking no more jobs: {self._told}' if self._told else 'taking jobs again'
            self._emit(Report(levels.INFO, text))

    def _tell_free(self) -> None:
        """Have those ask again who were refused, if what they were told of has ended."""
        if self._causes or self._departure.reason:
            return
        holder = next((hosted.scheduler for hosted in self._hosted.values()), '')
        self._invite([name for name in self._peers if holder in ('', name)])

    def holder_gone(self) -> None:
        """Have those who wait for the node ask again, and learn that only running jobs hold it."""
        self._invite(self._peers)

    def _invite(self, names: Iterable[str]) -> None:
        for name in names:
            if self._peers[name].waits:
                self._peers[name].waits = False
                self._emit(Send(name, NodeFree()))

    def _evict(self, kind: str, reason: str) -> None:
        """End all that the node hosts: jobs that have not begun go back, and none is left."""
        for hosted in self._hosted.values():
            if hosted.state is HostedState.CLOSING:
                continue
            if not hosted.orphaned:
                if hosted.waiting:
                    self._workplace.give_back(hosted, hosted.waiting, reason)
                self.refuse(hosted, kind, reason)
                self._peers[hosted.scheduler].waits = hosted.returns = kind == 'over'
            self._departure.leave(hosted)


def _clients(count: int) -> str:
    return '1 client' if count == 1 else f'{count} clients'
