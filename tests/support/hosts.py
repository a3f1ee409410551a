"""The programs of a world in one thread: real cores, in turns as `io/driver.py` takes them.

NodeProgram: network ◀── SimulatedListener ──▶ NodeCore ◀──▶ SimulatedProcesses

`seats.py` has those with a scheduler, `users.py` those with clusters.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.messages import Availability, Message
from nodeserver.core.node import NodeCore
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.io.dialer import OTHER_WAY_ROUND
from nodeserver.io.driver import MOST_ROUNDS, Core
from nodeserver.services.node import MEASURE_INTERVAL
from nodeserver.wire.session import Limits
from tests.support.agenda import Agenda
from tests.support.disks import Spool
from tests.support.files import Manifests, Mishaps, NodeFiles
from tests.support.linkends import (
    STARTED_ANEW,
    Around,
    SimulatedDialer,
    SimulatedListener,
    goes_on,
)
from tests.support.network import End, Network
from tests.support.processes import SimulatedProcesses, Troubles
from tests.support.promises import MEMORY, Promise, Witness, broken, left_in

GPUS = ('0', '1')  # of each node
# where a node keeps outcomes
_OF_OUTCOMES = tuple(f'._shelf._kept{of}' for of in ('', '.formerly', '.letters', '.returned'))
_NEVER = float('inf')
_MOST_WAKES = 20  # of one program at one moment
_AVAILABILITY = Availability(50.0, 1 << 30, 1 << 40, 90.0)
CALL_INTERVAL = 2.0

Performers = dict[type[Any], Callable[[Any], Any]]


class _KilledInMidTurn(Exception):  # noqa: N818 - reads as what happened
    """The program of this turn is no more."""


class Seeker(Protocol):
    """A scheduler that looks for nodes, as those see it."""

    peer: str
    end: End
    door: Any  # where it listens for nodes that call

    def tell_if_alive(self, event: seen.Event) -> None:
        """Have it told of something, unless its program has ended meanwhile."""

    def knocked(self, found: seen.NodeFound | None, place: tuple[str, int]) -> None:
        """A node answered a knock, or nobody did."""


class Surroundings:
    """What all programs of a world share."""

    def __init__(
        self, agenda: Agenda, network: Network, limits: Limits, check_every: int, mishaps: Mishaps
    ) -> None:
        self.agenda, self.network, self.limits = agenda, network, limits
        self.check_every = check_every
        self.measure_interval = MEASURE_INTERVAL  # of nodes; what they measure is always the same
        self.witness = Witness()
        self.manifests = Manifests()
        self.mishaps = mishaps
        self.discover: Callable[[Seeker], None] = lambda seeker: None
        self.knock: Callable[[Seeker, str], None] = lambda seeker, address: None
        self.who_is_called: Callable[[], Seeker | None] = lambda: None


class LoopProgram:
    """A program with one loop: cores that take turns."""

    def __init__(self, around: Surroundings, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.stalled_until = 0.0
        self.stalled_seconds = 0.0
        self._agenda = around.agenda
        self._check_every = around.check_every
        self._seats: dict[Core, Performers] = {}
        self._inbox: deque[tuple[Core, seen.Event]] = deque()
        self._is_ready = False
        self._timer_at = _NEVER
        self._woken_at, self._wakes = -1.0, 0
        self._turns = 0
        self._effects_left = -1  # until it dies, if that is about to happen
        self._killed: Callable[[], None] = lambda: None

    def stall(self, seconds: float) -> None:
        """Let this program do nothing for a while, as a busy or suspended one does."""
        until = self._agenda.now + seconds
        self.stalled_seconds += max(0.0, until - max(self.stalled_until, self._agenda.now))
        self.stalled_until = max(self.stalled_until, until)

    def die_after(self, effects: int, killed: Callable[[], None]) -> None:
        """Be killed in the middle of a turn, when so many effects more were performed."""
        if self._effects_left < 0:
            self._effects_left, self._killed = effects, killed

    def live_on(self) -> None:
        """Be killed no more."""
        self._effects_left = -1

    def post(self, core: Core, event: seen.Event) -> None:
        """Have a core told of something in this turn or the next."""
        self._inbox.append((core, event))
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._agenda.ready(self)

    def seat(self, core: Core, performers: Performers) -> None:
        """Give a core its turns."""
        self._seats[core] = performers
        self._schedule()

    def turn(self) -> None:
        """Work off the inbox until every core has nothing more to say."""
        try:
            self._work_off()
        except _KilledInMidTurn:
            self._killed()

    def _work_off(self) -> None:
        now = self._agenda.clock.now
        inbox, seats = self._inbox, self._seats
        for _ in range(MOST_ROUNDS):
            while inbox:
                core, event = inbox.popleft()
                if core in seats:
                    self._agenda.story.append((now, self.name, event))
                    self._perform(core, core.handle(event, now))
            for core in list(seats):
                self._perform(core, core.end_turn(now))
            if not inbox:
                break
        else:
            broken(Promise.REST, f'{self.name}: its cores talk to each other for ever')
        self._is_ready = False
        self._turns += 1
        if self._turns % self._check_every == 0:
            self.check()
        self._set_timer()

    def _perform(self, core: Core, effects: list[do.Effect]) -> None:
        performers = self._seats[core]
        for effect in effects:
            if self._effects_left >= 0:
                self._effects_left -= 1
                if self._effects_left < 0:
                    raise _KilledInMidTurn
            performers[type(effect)](effect)

    def check(self) -> None:
        """Have each core look through its books."""
        for core in self._seats:
            try:
                getattr(core, 'check', int)()
            except InvariantBroken as error:
                broken(Promise.BOOKS, f'{self.name}: {error}')

    def _set_timer(self) -> None:
        earliest = _NEVER
        for core in self._seats:
            due = core.next_deadline()
            if due is not None and due < earliest:
                earliest = due
        if earliest < self._timer_at:
            self._timer_at = max(earliest, self._agenda.clock.now)
            self._agenda.at_deadline(self._timer_at, self, self._deadline)

    def _deadline(self, moment: float) -> None:
        """A moment has come; what arrived meanwhile was posted before this."""
        if moment != self._timer_at:
            return
        self._timer_at = _NEVER
        now = self._agenda.clock.now
        for core in self._seats:
            due = core.next_deadline()
            if due is not None and due <= now:
                self._inbox.append((core, seen.DeadlinePassed()))
        if self._inbox:
            self._schedule()
            self._count_wakes(now)
        else:
            self._set_timer()

    def _count_wakes(self, now: float) -> None:
        self._wakes = self._wakes + 1 if now == self._woken_at else 0
        self._woken_at = now
        if self._wakes > _MOST_WAKES:
            broken(Promise.REST, f'{self.name} is woken over and over at one moment')


class NodeProgram(LoopProgram):
    """A `dispynode`."""

    def __init__(
        self,
        around: Surroundings,
        end: End,
        identity: tuple[str, str],
        machine: tuple[int, Troubles, Any],
        spool: Spool,
        stopped: Callable[['NodeProgram'], None],
    ) -> None:
        peer, name = identity
        super().__init__(around, name)
        self._around = around
        self.peer, self.end, self.cpus = peer, end, machine[0]
        self._facts = NodeFacts(peer, name, self.cpus, 'Linux', '3.11', MEMORY, GPUS)
        self.core = NodeCore(self._facts)
        self._stopped = stopped
        self.spool = spool
        link = Around(self, end, around.network, (peer, 'node'), around.limits, self.tell)
        self.listener = SimulatedListener(link)
        self._link = link
        link.admits = self._admits
        self.dialer: SimulatedDialer | None = None  # of a node that calls
        self.processes = SimulatedProcesses(around.agenda, self, self.tell, around.witness, machine)
        self.files = NodeFiles(
            (around.agenda, self, around.mishaps),
            peer,
            around.manifests,
            self.tell,
            self.processes.holds,
        )
        self.processes.files = self.files
        self.is_ending = False
        performers: Performers = {
            do.Send: lambda e: self.send(e.peer, e.message),
            do.Disconnect: lambda e: self._disconnect(e.peer),
            do.Report: lambda e: None,
            do.MeasureAvailability: lambda e: self._tell_figures(),
            do.ReadOutput: lambda e: None,  # nothing is printed in this world
            do.Stop: self._stop,
        }
        performers |= self.processes.performers() | self.files.performers()
        performers |= spool.performers(peer, around.agenda.clock, self)
        self.seat(self.core, performers)
        for found in spool.found(peer, around.agenda.now):
            self.tell(found)
        self._measure()

    def tell(self, event: seen.Event) -> None:
        """Have the core told of something."""
        self.post(self.core, event)

    def call(self) -> None:
        """Connect to whoever has the port that it calls, as `io/standingcall.py` does."""
        self._agenda.later(CALL_INTERVAL, self, self.call)
        program = self._around.who_is_called()
        dialer, door = self.dialer, program.door if program is not None else None
        if dialer is not None and not (dialer.is_up or dialer.is_greeted or dialer.place is door):
            dialer.close('')  # it is not there any more: another one has the port now
            self.dialer = None
        if self.dialer is None and program is not None and not self.is_ending:
            self.dialer = SimulatedDialer(
                self._link, program.peer, program.door, self._gone, self._met
            )

    def _met(self, peer: str) -> None:
        """Who was called has answered: it has let go of its own connection, if it had one."""
        if peer in self.listener.sessions:
            self.listener.forget(peer, OTHER_WAY_ROUND)
            self.tell(seen.PeerLost(peer, STARTED_ANEW))

    def _admits(self, peer: str) -> str:
        """Decide over a program that connects, also while it is called; '' admits it."""
        dialer = self._dialer_to(peer)
        if dialer is None:
            return ''
        if goes_on(dialer, self._link.us):
            return OTHER_WAY_ROUND
        self.dialer = None
        dialer.close(OTHER_WAY_ROUND)
        self.tell(seen.PeerLost(peer, STARTED_ANEW))
        return ''

    def _gone(self, peer: str) -> None:
        self.dialer = None

    def _dialer_to(self, peer: str) -> SimulatedDialer | None:
        """Find the connection that we made to a peer; until it answers, it is nobody's."""
        dialer = self.dialer
        return dialer if dialer is not None and dialer.peer == peer and dialer.is_greeted else None

    def send(self, peer: str, message: Message) -> None:
        """Hand a message to the link."""
        dialer = self._dialer_to(peer)
        if dialer is not None:
            dialer.send(message)
        else:
            self.listener.send(peer, message)

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have this called when nothing waits to go out to this peer, as `io/zmqlink.py` does."""
        dialer = self._dialer_to(peer)
        end = dialer if dialer is not None else self.listener
        end.when_sent(peer, lambda: self._agenda.later(0.0, self, call))

    def _disconnect(self, peer: str) -> None:
        dialer = self._dialer_to(peer)
        if dialer is not None:
            dialer.close('it closed the connection')
            self.dialer = None
        else:
            self.listener.forget(peer, 'it closed the connection')

    def _measure(self) -> None:
        self._tell_figures()
        self._agenda.later(self._around.measure_interval, self, self._measure)

    def _tell_figures(self) -> None:
        self.tell(seen.AvailabilityMeasured(_AVAILABILITY))

    def _stop(self, effect: do.Stop) -> None:
        """End in order: processes first, the link as long as they need."""
        self.is_ending = True
        self.processes.close_all()
        self._wait_for_processes(0)

    def _wait_for_processes(self, looks: int) -> None:
        if self.processes.templates and looks < 200:
            self._agenda.later(0.1, self, self._wait_for_processes, looks + 1)
        else:
            if self.dialer is not None:
                self.dialer.close('it ended')
            self.listener.close('it ended')
            self._stopped(self)

    @property
    def excused(self) -> tuple[str, ...]:
        """Where it may keep what nobody will fetch: that of programs that were killed."""
        may_stay = self._around.witness.forgotten.issuperset(self.core._shelf._kept)
        return _OF_OUTCOMES if may_stay else ()

    def left(self) -> dict[str, int]:
        """What the core keeps although nobody uses the node."""
        left = left_in(self.core, NodeCore(self._facts), self.excused) | self.files.left()
        left |= {'directories': self.files.places} if self.files.places else {}
        return left | ({'sessions': len(self.listener.sessions)} if self.listener.sessions else {})
