"""Schedulers in a world of one thread: their end towards nodes, and those that are programs.

SchedulerSeat: SchedulerCore ◀── SimulatedDialers, SimulatedListener ──▶ nodes
SchedulerProgram: a SchedulerSeat ◀── SimulatedListener ──▶ user programs with shared clusters
"""

from collections.abc import Callable
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.core import recoveryeffects as keep
from nodeserver.core.fleet import IN_USE
from nodeserver.core.messages import (
    JobsDone,
    JobsProvisional,
    JobsRequeued,
    JobsRetried,
    Message,
    OpenComputation,
    RunJobs,
)
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.takeover import ALL_JOBS
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.dialer import OTHER_WAY_ROUND
from nodeserver.wire.session import Session
from tests.support.disks import State
from tests.support.hosts import LoopProgram, Performers, Surroundings
from tests.support.linkends import (
    STARTED_ANEW,
    Around,
    Place,
    SimulatedDialer,
    SimulatedListener,
    goes_on,
)
from tests.support.network import End
from tests.support.promises import Promise, broken, left_in

KNOCK_INTERVAL = 5.0
# what a scheduler knows when nobody uses it: nodes that are there, or were, and who refused it
_OF_NODES = ('._fleet.nodes', '._fleet.nodes.places', '._fleet.discovery.refusals')
# which of them were away when what they may keep was closed: they may be back within 30 days
_LATE = tuple(f'._closings.late._closed{of}' for of in ('', '.away.known', '.away._by_address'))
# where the outcomes of clients that were killed are, should one come back within 7 days; after a
# restart new ones wait for these for 30 seconds, if they have to
_DORMANT = (
    '._deadlines.absences',
    '._sharing._admission._expected',
    *(f'._absence._dormant{of}' for of in ('', '.nodes', '.places', '.endings', '.endings.ids')),
)
ABSENCE = 300.0  # seconds after which a client that is away loses its nodes


class Door:
    """Where a program listens, as long as it lives."""

    def __init__(self, program: LoopProgram, end: End, listener: SimulatedListener) -> None:
        self._program, self._listener = program, listener
        self.end = end

    @property
    def listener(self) -> SimulatedListener | None:
        """Who listens there."""
        return self._listener if self._program.is_alive else None


class SchedulerSeat:
    """The scheduler of a program, and its links to nodes."""

    def __init__(
        self,
        program: LoopProgram,
        around: Surroundings,
        where: tuple[str, End],  # its peer id, and its machine
        place_of: Callable[[str], Place | None],
        core: SchedulerCore,
        records: Performers,
    ) -> None:
        self.program, self.core = program, core
        self.peer, self.end = where
        self._around, self._place_of = around, place_of
        self.dialers: dict[str, SimulatedDialer] = {}
        self.link = Around(
            program, self.end, around.network, (self.peer, SCHEDULER_ROLE), around.limits, self.tell
        )
        self.link.admits = self._admits
        self.listener = SimulatedListener(self.link)  # of nodes that call
        self.door = Door(program, self.end, self.listener)
        self.to_client: Callable[[str, Message], bool] = lambda peer, message: False
        self._knocks: set[tuple[str, int]] = set()
        witness = around.witness
        self._witnessed: dict[type[Message], Callable[[str, Any], None]] = {
            OpenComputation: witness.opened,
            RunJobs: witness.ordered,
            JobsRequeued: lambda peer, message: witness.withdrawn(message),
            JobsRetried: lambda peer, message: witness.withdrawn(message),
            JobsDone: lambda peer, message: witness.believed(message),
            JobsProvisional: lambda peer, message: witness.believed(message),
        }
        program.seat(
            core,
            {
                do.Send: lambda e: self._send(e.peer, e.message),
                do.Ping: lambda e: around.discover(self),
                do.Knock: lambda e: self._begin_to_knock((e.address, e.port)),
                do.StopKnocking: lambda e: self._knocks.discard((e.address, e.port)),
                do.Connect: lambda e: self._connect(e.node),
                do.Disconnect: lambda e: self._disconnect(e.peer),
                do.Report: lambda e: None,
                **records,
            },
        )

    def tell(self, event: seen.Event) -> None:
        """Have the core told of something."""
        self.program.post(self.core, event)

    def tell_if_alive(self, event: seen.Event) -> None:
        """Have the core told of something, unless the program has ended meanwhile."""
        if self.program.is_alive:
            self.tell(event)

    def say_good_bye(self, reason: str) -> None:
        """End in order: nodes are told."""
        left = self.left()
        if left:
            name = self.program.name
            broken(Promise.NOTHING_KEPT, f'{name}: a scheduler without clusters has {left}')
        self.tell(seen.StopAsked(False, reason))
        self.program.turn()
        for dialer in self.dialers.values():
            dialer.close('it ended')
        self.listener.close('it ended')

    def left(self) -> dict[str, int]:
        """What the core keeps although nobody uses it, but for what it knows of nodes."""
        forgotten = self._around.witness.forgotten.issuperset(self.core._absence._dormant)
        allowed = _OF_NODES + _LATE + (_DORMANT if forgotten else ())
        return left_in(self.core, SchedulerCore(is_shared=True), allowed)

    def computations(self) -> set[int]:
        """Which it serves."""
        return set(self.core._fleet.computations)

    def sessions(self) -> list[Session]:
        """The sessions that there are with nodes."""
        dialled = [dialer.session for dialer in self.dialers.values()]
        return dialled + list(self.listener.sessions.values())

    def _send(self, peer: str, message: Message) -> None:
        if type(message) in self._witnessed:
            self._witnessed[type(message)](peer, message)
        if self.to_client(peer, message):
            return
        if peer in self.dialers:
            self.dialers[peer].send(message)
        else:
            self.listener.send(peer, message)

    # nodes

    def _begin_to_knock(self, place: tuple[str, int]) -> None:
        if place in self._knocks:
            broken(Promise.PROTOCOL, f'{self.program.name} knocks twice at {place}')
        self._knocks.add(place)
        self._knock(place)

    def _knock(self, place: tuple[str, int]) -> None:
        """Ask by TCP whether a node is there, as `io/knocks.py` does."""
        if place in self._knocks:
            self._around.knock(self, place[0])
            self.link.later(KNOCK_INTERVAL, self._knock, place)

    def knocked(self, found: seen.NodeFound | None, place: tuple[str, int]) -> None:
        """A node answered a knock, or nobody did."""
        if place not in self._knocks:
            return
        if found is None:
            self.tell(seen.KnockFailed(*place, 'no answer'))
        else:
            self._knocks.remove(place)
            self.tell(found)

    def _connect(self, peer: str) -> None:
        place = self._place_of(peer)
        if place is None or peer in self.listener.sessions:
            return
        for other in [d for d in self.dialers.values() if d.place is place and d.peer != peer]:
            other.supersede()
        if peer not in self.dialers:
            self.dialers[peer] = SimulatedDialer(self.link, peer, place, self._gone)

    def _gone(self, peer: str) -> None:
        self.dialers.pop(peer, None)

    def _admits(self, peer: str) -> str:
        """Decide over a node that connects, also while there is another way to it; '' admits it."""
        dialer = self.dialers.get(peer)
        if dialer is None:
            return ''
        if goes_on(dialer, self.link.us):
            return OTHER_WAY_ROUND
        del self.dialers[peer]
        dialer.close(OTHER_WAY_ROUND)
        if dialer.is_greeted:
            self.tell(seen.PeerLost(peer, STARTED_ANEW))
        return ''

    def _disconnect(self, peer: str) -> None:
        dialer = self.dialers.pop(peer, None)
        if dialer is not None:
            dialer.close('it closed the connection')
        else:
            self.listener.forget(peer, 'it closed the connection')


class Office:
    """A machine that may run a scheduler for several programs."""

    def __init__(self, name: str) -> None:
        self.end = End(name)
        self.state = State()
        self.program: SchedulerProgram | None = None

    @property
    def listener(self) -> SimulatedListener | None:
        """Who listens for user programs."""
        return self.program.clients if self.program is not None else None


class SchedulerProgram(LoopProgram):
    """A `dispyscheduler`."""

    def __init__(
        self,
        around: Surroundings,
        office: Office,
        identity: tuple[str, str],
        place_of: Callable[[str], Place | None],
    ) -> None:
        self.peer, name = identity
        super().__init__(around, name)
        self.office = office
        self.scheduling = SchedulerSeat(
            self,
            around,
            (self.peer, office.end),
            place_of,
            SchedulerCore(is_shared=True, zombie_seconds=ABSENCE),
            {**office.state.performers(around.agenda), keep.RecordPlacements: self._placed},
        )
        self._witness = around.witness
        self._place = office.state.performers(around.agenda)[keep.RecordPlacements]
        link = Around(
            self,
            office.end,
            around.network,
            (self.peer, SCHEDULER_ROLE),
            around.limits,
            self.scheduling.tell,
        )
        self.clients = SimulatedListener(link)
        self.scheduling.to_client = self._to_client
        for event in (*office.state.closings(around.agenda.now), *office.state.found()):
            self.scheduling.tell(event)

    def _placed(self, effect: keep.RecordPlacements) -> None:
        self._place(effect)
        for computation, node, ids in zip(
            effect.computations, effect.nodes, effect.ids, strict=True
        ):
            if not node and ids == [ALL_JOBS]:
                nodes = self.scheduling.core._fleet.nodes.values()
                uses = {node.id: node.uses.get(computation) for node in nodes}
                used = {node for node, use in uses.items() if use and use.state in IN_USE}
                self._witness.asked_all(computation, used)

    def _to_client(self, peer: str, message: Message) -> bool:
        if peer not in self.clients.sessions:
            return False
        self.clients.send(peer, message)
        return True

    def finish(self) -> None:
        """The program ends in order, when it has no clients."""
        self.check()
        self.scheduling.say_good_bye('it was asked to end')
        self.clients.close('it ended')
        self.is_alive = False
        self.office.program = None
