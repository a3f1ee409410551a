"""The programs of a world in one thread: real cores, in turns as `io/driver.py` takes them.

ClientProgram: ClusterCores ◀── LocalLink ──▶ SchedulerCore ◀── SimulatedDialers ──▶ network
NodeProgram: network ◀── SimulatedListener ──▶ NodeCore ◀──▶ SimulatedProcesses
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.core.closings import CLOSE_TIMEOUT
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.fleetmessages import RequestAnswered
from nodeserver.core.messages import (
    AllocateAnswer,
    Availability,
    DeclareComputation,
    Message,
    RunJobs,
)
from nodeserver.core.node import NodeCore
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus
from nodeserver.io.dialer import OTHER_WAY_ROUND
from nodeserver.io.driver import MOST_ROUNDS, Core
from nodeserver.io.locallink import LocalLink
from nodeserver.services.node import MEASURE_INTERVAL
from nodeserver.services.scheduler import RECORDS, SCHEDULER
from nodeserver.wire.session import Limits
from tests.support.agenda import Agenda
from tests.support.files import ClusterFiles, Manifests, Mishaps, NodeFiles
from tests.support.linkends import (
    STARTED_ANEW,
    Around,
    Place,
    SimulatedDialer,
    SimulatedListener,
    goes_on,
)
from tests.support.network import End, Network
from tests.support.processes import SimulatedProcesses, Troubles
from tests.support.promises import MEMORY, Promise, Witness, broken, left_in, shared_content

GPUS = ('0', '1')  # of each node
_NEVER = float('inf')
_MOST_WAKES = 20  # of one program at one moment
_AVAILABILITY = Availability(50.0, 1 << 30, 1 << 40, 90.0)
_CLOSE_SLACK = 0.5
CALL_INTERVAL = 2.0
KNOCK_INTERVAL = 5.0
# what a scheduler knows of nodes: which there are, what was asked of them, why some refused
_OF_NODES = (
    '._fleet.nodes',
    '._fleet.discovery.refusals',
    '._dispatch._barren',
    '._dispatch._asked',
)

Performers = dict[type[Any], Callable[[Any], Any]]


class Surroundings:
    """What all programs of a world share."""

    def __init__(
        self, agenda: Agenda, network: Network, limits: Limits, check_every: int, mishaps: Mishaps
    ) -> None:
        self.agenda, self.network, self.limits = agenda, network, limits
        self.check_every = check_every
        self.witness = Witness()
        self.manifests = Manifests()
        self.mishaps = mishaps
        self.discover: Callable[[ClientProgram], None] = lambda program: None
        self.knock: Callable[[ClientProgram, str], None] = lambda program, address: None
        self.who_is_called: Callable[[], ClientProgram | None] = lambda: None


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

    def stall(self, seconds: float) -> None:
        """Let this program do nothing for a while, as a busy or suspended one does."""
        until = self._agenda.now + seconds
        self.stalled_seconds += max(0.0, until - max(self.stalled_until, self._agenda.now))
        self.stalled_until = max(self.stalled_until, until)

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
        stopped: Callable[['NodeProgram'], None],
    ) -> None:
        peer, name = identity
        super().__init__(around, name)
        self._around = around
        self.peer, self.end, self.cpus = peer, end, machine[0]
        self._facts = NodeFacts(peer, name, self.cpus, 'Linux', '3.11', MEMORY, GPUS)
        self.core = NodeCore(self._facts)
        self._stopped = stopped
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
            do.Send: lambda e: self._send(e.peer, e.message),
            do.Disconnect: lambda e: self._disconnect(e.peer),
            do.Report: lambda e: None,
            do.MeasureAvailability: lambda e: self._tell_figures(),
            do.Stop: self._stop,
        }
        self.seat(self.core, performers | self.processes.performers() | self.files.performers())
        self._measure()

    def tell(self, event: seen.Event) -> None:
        """Have the core told of something."""
        self.post(self.core, event)

    def call(self) -> None:
        """Connect to whoever has the port that it calls, as `io/standingcall.py` does."""
        self._agenda.later(CALL_INTERVAL, self, self.call)
        program = self._around.who_is_called()
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

    def _send(self, peer: str, message: Message) -> None:
        dialer = self._dialer_to(peer)
        if dialer is not None:
            dialer.send(message)
        else:
            self.listener.send(peer, message)

    def _disconnect(self, peer: str) -> None:
        dialer = self._dialer_to(peer)
        if dialer is not None:
            dialer.close('it closed the connection')
            self.dialer = None
        else:
            self.listener.forget(peer, 'it closed the connection')

    def _measure(self) -> None:
        self._tell_figures()
        self._agenda.later(MEASURE_INTERVAL, self, self._measure)

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

    def left(self) -> dict[str, int]:
        """What the core keeps although nobody uses the node."""
        left = left_in(self.core, NodeCore(self._facts)) | self.files.left()
        left |= {'directories': self.files.places} if self.files.places else {}
        return left | ({'sessions': len(self.listener.sessions)} if self.listener.sessions else {})


class Door:
    """Where a program listens for nodes that call, as long as it lives."""

    def __init__(self, program: 'ClientProgram') -> None:
        self._program = program
        self.end = program.end

    @property
    def listener(self) -> SimulatedListener | None:
        """Who listens there."""
        return self._program.listener if self._program.is_alive else None


class Cluster:
    """A cluster in a user's program: its core, and what its user has done with it."""

    def __init__(
        self, program: 'ClientProgram', declared: DeclareComputation, around: Surroundings
    ) -> None:
        self.program, self.declared = program, declared
        self.files = ClusterFiles(
            (around.agenda, program, around.mishaps),
            declared.computation,
            around.manifests,
            lambda event: program.post(self.core, event),
        )
        if declared.manifest:
            around.manifests.own[declared.computation] = declared.manifest
        self.core = ClusterCore(SCHEDULER, declared)
        self.submitted = 0
        self.is_closing = self.is_closed = False
        self.said: list[str] = []
        self._data_of: dict[int, int] = {}  # by job
        self._users: Counter[int] = Counter()  # jobs that name data and have not ended
        self._shared = 0
        self._requests = 0
        self._unanswered: set[int] = set()

    @property
    def id(self) -> int:
        """The id of its computation."""
        return self.declared.computation

    def share(self, size: int, jobs: list[int]) -> int:
        """Send data ahead of the jobs that name them, as `dispy_nb/shareddata.py` does."""
        self._shared += 1
        data = self._shared
        self._data_of.update(dict.fromkeys(jobs, data))
        self._users[data] = len(jobs)
        content = shared_content(self.id, data, size)
        self.program.post(self.core, seen.DataShared(data, content))
        return data

    def let_go(self, jobs: list[int]) -> None:
        """Drop the data that only these jobs have named, which have ended."""
        named = [self._data_of.pop(job) for job in jobs if job in self._data_of]
        self._users.subtract(named)
        unused = [data for data in dict.fromkeys(named) if not self._users[data]]
        if unused:
            self.program.post(self.core, seen.DataDropped(unused))

    def request(self, kind: type[Any], *values: Any) -> None:
        """Ask the scheduler for something that it answers."""
        self._requests += 1
        self._unanswered.add(self._requests)
        message = kind(self.id, self._requests, *values)
        self.program.post(self.core, seen.RequestMade(message))

    def answered(self, answer: RequestAnswered) -> None:
        """An answer came, to a request that has none yet."""
        if answer.request not in self._unanswered:
            broken(Promise.PROTOCOL, f'request {answer.request} was answered again')
        if answer.value < 0 and not answer.reason:
            broken(Promise.TRUTH, f'request {answer.request} failed without a word')
        self._unanswered.remove(answer.request)

    @property
    def is_open(self) -> bool:
        """Whether its user may still use it."""
        return self.program.is_alive and not self.is_closing


class ClientProgram(LoopProgram):
    """A user's program: a scheduler, and the clusters it serves; it ends with the last of them."""

    def __init__(
        self,
        around: Surroundings,
        identity: tuple[str, str],
        place_of: Callable[[str], Place | None],
    ) -> None:
        self.peer, name = identity
        super().__init__(around, name)
        self._around = around
        self._witness = around.witness
        self._place_of = place_of
        self.end = End(name)
        self.scheduler = SchedulerCore()
        self.clusters: list[Cluster] = []
        self.dialers: dict[str, SimulatedDialer] = {}
        self.allocates: Callable[[int], int] = lambda cpus: cpus
        self._link = Around(
            self, self.end, around.network, (self.peer, 'scheduler'), around.limits, self.tell
        )
        self._link.admits = self._admits
        self.listener = SimulatedListener(self._link)  # of nodes that call
        self.door = Door(self)
        self._local: dict[str, LocalLink] = {}
        self._knocks: set[tuple[str, int]] = set()
        self.seat(
            self.scheduler,
            {
                do.Send: lambda e: self._send(e.peer, e.message),
                do.Ping: lambda e: around.discover(self),
                do.Knock: lambda e: self._begin_to_knock((e.address, e.port)),
                do.StopKnocking: lambda e: self._knocks.discard((e.address, e.port)),
                do.Connect: lambda e: self._connect(e.node),
                do.Disconnect: lambda e: self._disconnect(e.peer),
                do.Report: lambda e: None,
                **dict.fromkeys(RECORDS, lambda e: None),
            },
        )

    def tell(self, event: seen.Event) -> None:
        """Have the scheduler told of something."""
        self.post(self.scheduler, event)

    def tell_if_alive(self, event: seen.Event) -> None:
        """Have the scheduler told of something, unless the program has ended meanwhile."""
        if self.is_alive:
            self.tell(event)

    # the user

    def make_cluster(self, declared: DeclareComputation) -> Cluster:
        """Make a cluster."""
        cluster = Cluster(self, declared, self._around)
        self.clusters.append(cluster)
        name = f'cluster-{declared.computation:x}'
        near, far = LocalLink.pair(
            self.tell, lambda event: self.post(cluster.core, event), SCHEDULER, name
        )
        self._local[name] = near
        witness, computation = self._witness, declared.computation
        self.seat(
            cluster.core,
            {
                do.Send: lambda e: far.send(e.peer, e.message),
                do.MarkStarted: lambda e: witness.moved(computation, e.ids, JobStatus.RUNNING),
                do.MarkRequeued: lambda e: witness.moved(computation, e.ids, JobStatus.CREATED),
                do.MarkRetried: lambda e: witness.moved(
                    computation, e.retried.ids, JobStatus.CREATED
                ),
                do.SettleJobs: lambda e: self._settled(cluster, e),
                do.SettleUnrun: lambda e: self._settled_unrun(cluster, e),
                do.DeliverProvisional: lambda e: witness.shown(e.results),
                do.TellNode: lambda e: None,
                do.AskAllocation: lambda e: self._ask(cluster, far, e),
                do.Report: lambda e: cluster.said.append(e.text),
                do.SayClosed: lambda e: self._closed(cluster),
                do.HearOfFiles: cluster.files.perform,
                do.SettleRequest: lambda e: cluster.answered(e.answer),
            },
        )
        return cluster

    def _settled(self, cluster: Cluster, effect: do.SettleJobs) -> None:
        self._witness.settled(effect.done)
        cluster.let_go(effect.done.ids)
        cluster.files.settle(effect.done.ids)

    def _settled_unrun(self, cluster: Cluster, effect: do.SettleUnrun) -> None:
        self._witness.settled_unrun(cluster.id, effect.ids, effect.status, effect.reason)
        cluster.let_go(effect.ids)
        cluster.files.settle(effect.ids)

    def close_cluster(self, cluster: Cluster) -> None:
        """Close a cluster: what is pending is cancelled."""
        if not cluster.is_closing:
            cluster.is_closing = True
            self.post(cluster.core, seen.CloseAsked())
            hangs = max(0.0, self.stalled_until - self._agenda.now)
            seconds = hangs + CLOSE_TIMEOUT + _CLOSE_SLACK
            self._expect_closed(cluster, self.stalled_seconds, seconds)

    def _expect_closed(self, cluster: Cluster, stalled: float, seconds: float) -> None:
        """The scheduler gives its nodes so long, but for the time that the program itself hung."""

        def look() -> None:
            extra = self.stalled_seconds - stalled
            if extra and not cluster.is_closed:
                self._expect_closed(cluster, self.stalled_seconds, extra)
            elif not cluster.is_closed:
                broken(Promise.CLOSES, f'{self.name}: cluster {cluster.id} is still not closed')

        self._agenda.later(seconds, self, look)

    def _ask(self, cluster: Cluster, link: LocalLink, effect: do.AskAllocation) -> None:
        ask = effect.ask
        more = cluster.files.assign_to_node(ask.node)
        answer = AllocateAnswer(ask.computation, ask.node, self.allocates(ask.cpus), manifest=more)
        self._agenda.later(0.01, self, link.send, SCHEDULER, answer)

    def _closed(self, cluster: Cluster) -> None:
        if self._witness.pending(cluster.id):
            broken(Promise.CLOSES, f'{self.name}: cluster {cluster.id} closed with jobs pending')
        cluster.is_closed = True
        cluster.files.close()
        self._agenda.later(0.001, self, self._detach, cluster)

    def _detach(self, cluster: Cluster) -> None:
        del self._seats[cluster.core]
        fresh = ClusterCore(SCHEDULER, cluster.declared)
        fresh.end_turn(0.0)
        left = left_in(cluster.core, fresh)
        if left:
            broken(Promise.NOTHING_KEPT, f'{self.name}: a closed cluster has {left}')
        del self._local[f'cluster-{cluster.id:x}']
        self.clusters.remove(cluster)
        if not self.clusters:
            self.finish()

    def finish(self) -> None:
        """The program ends in order: nodes are told."""
        self.check()
        left = self.left()
        if left:
            broken(Promise.NOTHING_KEPT, f'{self.name}: a scheduler without clusters has {left}')
        self.tell(seen.StopAsked(False, 'the program has closed its clusters'))
        self.turn()
        for dialer in self.dialers.values():
            dialer.close('it ended')
        self.listener.close('it ended')
        self.is_alive = False

    def left(self) -> dict[str, int]:
        """What the scheduler keeps although nobody uses it, but for what it knows of nodes."""
        return left_in(self.scheduler, SchedulerCore(), _OF_NODES)

    def _send(self, peer: str, message: Message) -> None:
        if isinstance(message, RunJobs):
            self._witness.ordered(peer, message)
        local = self._local.get(peer)
        if local is not None:
            local.send(peer, message)
        elif peer in self.dialers:
            self.dialers[peer].send(message)
        else:
            self.listener.send(peer, message)

    def _begin_to_knock(self, place: tuple[str, int]) -> None:
        if place in self._knocks:
            broken(Promise.PROTOCOL, f'{self.name} knocks twice at {place}')
        self._knocks.add(place)
        self._knock(place)

    def _knock(self, place: tuple[str, int]) -> None:
        """Ask by TCP whether a node is there, as `io/knocks.py` does."""
        if place in self._knocks:
            self._around.knock(self, place[0])
            self._agenda.later(KNOCK_INTERVAL, self, self._knock, place)

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
            self.dialers[peer] = SimulatedDialer(self._link, peer, place, self._gone)

    def _gone(self, peer: str) -> None:
        self.dialers.pop(peer, None)

    def _admits(self, peer: str) -> str:
        """Decide over a node that connects, also while there is another way to it; '' admits it."""
        dialer = self.dialers.get(peer)
        if dialer is None:
            return ''
        if goes_on(dialer, self._link.us):
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
