"""A cluster in one thread: the real cores and sessions, on a network and a clock in memory.

    Machine ── NodeProgram ◀── Network ──▶ ClientProgram (any number of each)
       └── Troubles                │ └───▶ SchedulerProgram ── Office
                                   └─────▶ SharedProgram
                       all of it in the time of one Agenda, and watched by a Witness

Everything that happens is drawn from the seed, so that a history that breaks a promise can be run
again.  `tests/support/promises.py` says what is promised, `tests/support/operations.py` what may
happen to a world, `tests/support/disks.py` what outlives those who are killed.
"""

import random
from dataclasses import dataclass, replace
from typing import Any

from nodeserver.core import events as seen
from nodeserver.core.messages import ORDINARY, DeclareComputation, JobOptions, NodeSpec
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.wire.session import Limits
from tests.support.agenda import Agenda
from tests.support.disks import Spool, State
from tests.support.fairshares import LOOK_INTERVAL, SharesWatch
from tests.support.files import Mishaps
from tests.support.hosts import NodeProgram, Seeker, Surroundings
from tests.support.linkends import SimulatedListener
from tests.support.network import PERFECT, End, Faults, Network
from tests.support.processes import Troubles
from tests.support.promises import Fate, Promise, broken, jobs_left_in
from tests.support.seats import ABSENCE, Office, SchedulerProgram, SchedulerSeat
from tests.support.users import ClientProgram, Cluster, SharedProgram, UserProgram

# Small enough that credit runs out and messages travel in parts.
TIGHT = Limits(credit=6000, unacknowledged=4, bulk_above=700, part=300, largest=1 << 20)
_PULSES_UNTIL_LOST = 12  # no heartbeat or probe takes longer, either, to find out
_ANNOUNCE_PAUSES = (0.2, 0.4, 0.8, 1.6, 2.0)
_TWO_PULSES = 2.4  # and a little
_ZOMBIE = 2 * 3600.0
_PATIENCE = 3 * 3600.0  # for anything to go on
_ROUNDS = 90  # of the longest job, until the next one ends: many are tried four times each


def declaration(computation: int = 7, **changes: Any) -> DeclareComputation:
    """A computation that any node may run."""
    values: dict[str, Any] = {
        'computation': computation,
        'name': 'compute',
        'owner': 'somebody',
        'python': '3.11',
        'package': b'package',
        'specs': [NodeSpec('*', 51348, 0, False)],
        'node_port': 51348,
        'isolation': 'job',
        'reentrant': False,
        'dest_path': '',
        'cleanup': True,
        'pulse_interval': 5.0,
        'ping_interval': 0.0,
        'token': computation.to_bytes(16),
    }
    return DeclareComputation(**(values | changes))


@dataclass(frozen=True)
class Needs:
    """What jobs have besides their arguments."""

    shared: int = 0  # bytes that they have in common
    files: bytes = b''  # a manifest of what each has


ALONE = Needs()


class Machine:
    """A machine that may run a node."""

    def __init__(self, address: str, cpus: int, calls: bool, is_deaf: bool) -> None:
        self.end = End(address)
        self.cpus = cpus
        self.calls = calls  # its node is not found, and connects to the first program
        self.is_deaf = is_deaf  # to pings: its node is named, and found by TCP alone
        self.troubles = Troubles()
        self.node: NodeProgram | None = None
        self.spool = Spool()

    @property
    def listener(self) -> SimulatedListener | None:
        """Who listens at its port."""
        return self.node.listener if self.node is not None else None


class World:
    """Machines, programs, and what lies between them."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        limits: Limits | None = None,
        check_every: int = 1,
        pulse_interval: float = 5.0,
    ) -> None:
        """Make a world in which no cluster's pulses, and no measurements of a node, are rarer."""
        self.seed = seed
        self.random = random.Random(seed)
        self.agenda = Agenda()
        self._began = self.agenda.now
        self.network = Network(self.agenda, self.random, faults or Faults())
        self._mishaps = Mishaps(self.random)
        self.around = Surroundings(
            self.agenda, self.network, limits or Limits(), check_every, self._mishaps
        )
        self.around.measure_interval = pulse_interval
        self._lost_for_sure = _PULSES_UNTIL_LOST * pulse_interval
        self._two_pulses = _TWO_PULSES * pulse_interval
        self.around.discover = self._discover
        self.around.knock = self._knock
        self.around.who_is_called = lambda: next(iter(self.seekers()), None)
        self.witness = self.around.witness
        self.witness.machine_of = lambda peer: self._places[peer].end.name
        self.machines: list[Machine] = []
        self.programs: list[UserProgram] = []
        self.offices: list[Office] = []
        self._killed: list[UserProgram] = []
        self.abandoned: list[Cluster] = []  # with journals, of programs that were killed
        self.shares_compared = 0  # how often two clients had jobs waiting for long enough
        self._names = 0
        self._places: dict[str, Machine] = {}  # by peer id

    def _identity(self, kind: str) -> tuple[str, str]:
        self._names += 1
        return f'{self._names:032x}', f'{kind}-{self._names}'

    # nodes

    def add_machine(self, cpus: int = 2, calls: bool = False, is_deaf: bool = False) -> Machine:
        """Put a machine on the network and start a node there."""
        machine = Machine(f'10.0.0.{len(self.machines) + 1}', cpus, calls, is_deaf)
        self.machines.append(machine)
        self.start_node(machine)
        return machine

    def start_node(self, machine: Machine) -> None:
        """Start a node where there is none; it announces itself."""
        if machine.node is not None:
            return
        if not machine.end.is_on:
            machine.end.is_on = True
            self.network.open(machine.end)
        identity = self._identity('node')
        place = machine.cpus, machine.troubles, self.random
        self._places[identity[0]] = machine
        machine.node = NodeProgram(
            self.around, machine.end, identity, place, machine.spool, self._node_stopped
        )
        if machine.calls:
            machine.node.call()
        else:
            self._announce(machine.node, 0)

    def _announce(self, node: NodeProgram, times: int) -> None:
        """A node tells that it is here, some times in its first seconds: datagrams get lost."""
        for seeker in self.seekers():
            self._answer(self._places[node.peer], seeker)
        if times < len(_ANNOUNCE_PAUSES):
            self.agenda.later(_ANNOUNCE_PAUSES[times], node, self._announce, node, times + 1)

    def _node_stopped(self, node: NodeProgram) -> None:
        self.kill_node(self._places[node.peer])

    def kill_node(self, machine: Machine) -> None:
        """A node's program ends at once: its connections close, and its port refuses."""
        if machine.node is not None:
            machine.node.is_alive = False
            self.network.closed_by(machine.node)
            self.witness.gone(machine.node.name)
            machine.node = None

    def lose_power(self, machine: Machine) -> None:
        """A machine is gone without a word."""
        if machine.node is not None:
            machine.node.is_alive = False
            self.network.lose_power(machine.end)
            self.witness.gone(machine.node.name)
            machine.node = None

    def _discover(self, seeker: Seeker) -> None:
        """A scheduler asks for nodes."""
        for machine in self.machines:
            self.network.datagram(seeker.end, machine.end, self._answer, machine, seeker)

    def _answer(self, machine: Machine, seeker: Seeker) -> None:
        node = machine.node
        if node is None or node.is_ending:
            return
        if not machine.calls and not machine.is_deaf:
            found = seen.NodeFound(node.peer, machine.end.name, 51348, '')
            self.network.datagram(machine.end, seeker.end, seeker.tell_if_alive, found)

    def _knock(self, seeker: SchedulerSeat, address: str) -> None:
        """A scheduler connects to an address, and asks who is there."""
        machine = next(m for m in self.machines if m.end.name == address)
        node, place = machine.node, (address, 51348)
        if node is not None and self.network.is_open(seeker.end, machine.end):
            answer = seen.NodeFound(node.peer, *place, '') if not node.is_ending else None
        else:
            answer = None
        seeker.link.later(0.01, seeker.knocked, answer, place)

    # schedulers

    def add_office(self) -> Office:
        """Start a scheduler for several programs, on a machine of its own."""
        office = Office(f'office-{len(self.offices) + 1}')
        self.offices.append(office)
        self.start_scheduler(office)
        self._look_at_shares(office, SharesWatch(self.witness))
        return office

    def _look_at_shares(self, office: Office, watch: SharesWatch) -> None:
        watch.look(self.agenda.now, _Site(self, office))
        self.shares_compared += watch.compared
        watch.compared = 0
        self.agenda.later(LOOK_INTERVAL, None, self._look_at_shares, office, watch)

    def start_scheduler(self, office: Office) -> None:
        """Start a scheduler where there is none."""
        if office.program is None:
            identity = self._identity('scheduler')
            office.program = SchedulerProgram(self.around, office, identity, self._places.get)

    def close_office(self, office: Office) -> None:
        """A shared scheduler ends for good."""
        self.kill_scheduler(office)
        self.witness.forgotten |= office.state.untold().keys()
        self.offices.remove(office)
        self.kill_programs_of(office)

    def kill_programs_of(self, office: Office) -> None:
        """All programs of a shared scheduler end at once."""
        for program in list(self.living()):
            if isinstance(program, SharedProgram) and program.office is office:
                self.kill_program(program)
        self.abandoned = [c for c in self.abandoned if c.program.is_elsewhere is False]

    def kill_scheduler(self, office: Office) -> None:
        """A shared scheduler's program ends at once."""
        if office.program is not None:
            office.program.is_alive = False
            self.network.closed_by(office.program)
            office.program = None

    def move_scheduler(self, office: Office) -> None:
        """A shared scheduler goes on elsewhere, with its state.

        Who calls whom does not matter here: programs know at once where it is.
        """
        self.kill_scheduler(office)
        self._names += 1
        office.end = End(f'office-at-{self._names}')
        self.start_scheduler(office)

    def lose_state(self, office: Office) -> None:
        """A shared scheduler ends, and what it has put on record is gone.

        Clients tell the next one where their jobs are, as far as they have been told.
        """
        self.kill_scheduler(office)
        programs = [p for p in self.living() if isinstance(p, SharedProgram)]
        clusters = [c for p in programs if p.office is office for c in p.clusters]
        self.witness.lost_record({*office.state.computations, *(c.id for c in clusters)})
        self.witness.forgotten |= office.state.untold().keys()
        office.state = State()

    def lose_disk(self, machine: Machine) -> None:
        """A node ends, and what it has kept is gone."""
        self.kill_node(machine)
        machine.spool = Spool()

    def seekers(self) -> list[SchedulerSeat]:
        """The schedulers that live."""
        shared = [o.program.scheduling for o in self.offices if o.program is not None]
        return shared + [p.scheduling for p in self.living() if isinstance(p, ClientProgram)]

    # programs

    def add_program(self, office: Office | None = None) -> UserProgram:
        """Start a user's program, which has a scheduler of its own unless it uses one."""
        identity = self._identity('client')
        program: UserProgram
        if office is None:
            program = ClientProgram(self.around, identity, self._places.get)
        else:
            program = SharedProgram(self.around, identity, office)
        program.allocates = lambda cpus: self.random.choice((cpus, cpus, 1, 0))
        program.closed = self._cluster_closed
        self.programs.append(program)
        return program

    def living(self) -> list[UserProgram]:
        """The programs that have not ended."""
        self.programs = [program for program in self.programs if program.is_alive]
        return self.programs

    def clusters(self) -> list[Cluster]:
        """The clusters that their users may use."""
        return [c for program in self.living() for c in program.clusters if c.is_open]

    def make_cluster(
        self,
        program: UserProgram | None = None,
        keeping: Keeping = Keeping.NOTHING,
        **changes: Any,
    ) -> Cluster:
        """Make a cluster, in a program of its own unless one is given."""
        self._names += 1
        owner = program or self.add_program()
        specs = changes.get('specs') or declaration().specs
        deaf = [machine.end.name for machine in self.machines if machine.is_deaf]
        named = [replace(specs[-1], pattern=name) for name in deaf]
        changes['specs'] = [*named, *specs]
        declared = declaration(self._names, owner=owner.name, **changes)
        return owner.make_cluster(declared, keeping)

    def submit(
        self,
        cluster: Cluster,
        count: int,
        fate: Fate | None = None,
        node: str = '',
        options: JobOptions = ORDINARY,
        needs: Needs = ALONE,
    ) -> list[int]:
        """Submit jobs, which may have bytes in common, or files each."""
        fate = fate or Fate()
        ids = list(range(cluster.submitted + 1, cluster.submitted + count + 1))
        cluster.submitted += count
        reentrant = cluster.declared.reentrant
        data = cluster.share(needs.shared, ids) if needs.shared else 0
        again = reentrant or options.retries > 0, reentrant
        self.witness.accept((cluster.id, bool(node)), ids, again, fate, data)
        cluster.files.assign(ids, needs.files)
        files = [needs.files] * count if needs.files else []
        named = [[data]] * count if data else []
        event = seen.JobsSubmitted(node, ids, [fate.payload()] * count, options, named, files)
        cluster.program.post(cluster.core, event)
        return ids

    def cancel(self, cluster: Cluster, ids: list[int]) -> None:
        """Take jobs back."""
        cluster.program.post(cluster.core, seen.CancelAsked(ids))

    def kill_program(self, program: UserProgram) -> None:
        """A user's program ends at once."""
        program.is_alive = False
        self._killed.append(program)
        self.network.closed_by(program)
        for cluster in program.clusters:
            self.witness.forget(cluster.id)
            if cluster.journal.keeping and not cluster.is_closing:
                self.abandoned.append(cluster)

    def take_over(self, cluster: Cluster, collects: bool) -> Cluster:
        """Have a new program go on with a cluster of one that was killed."""
        self.abandoned.remove(cluster)
        before = cluster.program
        office = before.office if isinstance(before, SharedProgram) else None
        collects = collects or not cluster.journal.keeps_all
        return self.add_program(office).take_over(cluster, collects)

    def _cluster_closed(self, cluster: Cluster) -> None:
        """A scheduler that ends with its program tells no node that was away: what it keeps stays.

        One that is shared tells it when it is back, unless it has lost its record of which it was.
        """
        if cluster.journal.unreached:
            self.abandoned.append(cluster)
        is_alone = isinstance(cluster.program, ClientProgram)
        if not is_alone and cluster.id not in self.witness.unrecorded:
            return
        seat = self._scheduler_of(cluster.program)
        nodes = seat.core._fleet.nodes.values() if seat is not None else ()
        linked = {each.id for each in nodes if each.connected and each.broken_at is None}
        for machine in self.machines:
            node = machine.node
            is_told = node is not None and node.peer in linked
            is_told = is_told and node.stalled_until <= self.agenda.now
            if not (is_told and self.network.is_open(machine.end, machine.end)):
                self.witness.forgotten.add(cluster.id)

    # time

    @property
    def hours(self) -> float:
        """How much time has passed here."""
        return (self.agenda.now - self._began) / 3600.0

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.agenda.run(seconds)

    def run_until_settled(self, cluster: Cluster, seconds: float = 600.0) -> None:
        """Let a cluster's jobs end."""
        if not self.agenda.run_until(lambda: not self.witness.pending(cluster.id), seconds):
            left = self.witness.pending(cluster.id)
            broken(Promise.ENDS, f'{left} jobs of cluster {cluster.id} have not ended')

    # the end of a history

    def finish(self) -> None:
        """End all faults; then everything must end, and nothing may be left anywhere."""
        self._end_faults()
        for cluster in list(self.abandoned):
            self._take_over_at_last(cluster)
        self.run(self._longest_stall())  # who hangs notices nothing until then
        self.run(self._lost_for_sure)
        self._wait_until_forgotten()
        self._end_idle_schedulers()
        self._wait_for_one(pinned=False)
        for program in list(self.living()):
            self._wait_for_answers(program)
        for machine in list(self.machines):  # jobs may wait for a node that failed or was cut off
            self.kill_node(machine)
            self.start_node(machine)
        self._close_all()
        for cluster in list(self.abandoned):  # of nodes that hung they were collected in vain
            self._take_over_at_last(cluster)  # one by one: a node that calls calls one program
            self._close_all()
        for cluster in self.abandoned:
            self._look_at_unreached(cluster)
        self.abandoned.clear()
        self._end_idle_schedulers()
        self._tell_of_closings()
        self.run(self._lost_for_sure)
        if self._nodes_in_use():
            self.run(_ZOMBIE)  # of clients whose end nobody could tell them
        for node, left in self._nodes_in_use():
            broken(Promise.NOTHING_KEPT, f'{node.name} has {left}')
        self._look_at_disks()

    def _take_over_at_last(self, cluster: Cluster) -> None:
        if isinstance(cluster.program, SharedProgram):
            self.start_scheduler(cluster.program.office)
        again = self.take_over(cluster, self.random.random() < 0.5)
        again.program.allocates = lambda cpus: cpus

    def _look_at_unreached(self, cluster: Cluster) -> None:
        """A node that called and has nothing on its disk knows nothing of the one before it."""
        for job in cluster.journal.unreached:
            place = self.witness.machine_with(cluster.id, job)  # '': none, it was about to be given
            for machine in [m for m in self.machines if m.end.name == place]:
                if not machine.calls or cluster.id in machine.spool.left():
                    broken(Promise.ENDS, f'job {job} of {cluster.id} is not reached at {place}')
        self.witness.forget(cluster.id)

    def _close_all(self) -> None:
        """Close all clusters, as soon as their jobs have ended."""
        while self.living():
            program = self._wait_for_one(pinned=True)
            if program is None:
                return  # some hung before, and have ended meanwhile
            self._wait_for_answers(program)
            if not self._pending_of(program, pinned=True):  # else another one holds its nodes
                self._look_at_rest(program)
            for cluster in list(program.clusters):
                program.close_cluster(cluster)
            if not self.agenda.run_until(lambda p=program: not p.is_alive, 60.0):
                broken(Promise.CLOSES, f'{program.name} has not ended')
            self._end_idle_schedulers()

    def _tell_of_closings(self) -> None:
        """Schedulers have ended that were to tell nodes of a close: the next ones do so."""
        untold = [office for office in self.offices if office.state.untold()]
        for office in untold:
            self.start_scheduler(office)
        self.run(self._lost_for_sure)
        for office in untold:
            assert office.program is not None
            office.program.finish()

    def _look_at_disks(self) -> None:
        """What nobody can ask for any more is on no disk."""
        disks = [(machine.end.name, machine.spool.left()) for machine in self.machines]
        disks += [(office.end.name, office.state.left()) for office in self.offices]
        unasked = self.witness.forgotten
        for name, computations in disks:
            left = {c: count for c, count in computations.items() if c not in unasked}
            if left:
                broken(Promise.NOTHING_KEPT, f'the disk of {name} has {left}')

    def _wait_until_forgotten(self) -> None:
        """Shared schedulers wait for programs that were killed, but not for ever."""

        def awaited() -> bool:
            seats = [o.program.scheduling for o in self.offices if o.program is not None]
            return any(self.witness.forgotten & seat.computations() for seat in seats)

        longest = ABSENCE + self._lost_for_sure
        if awaited() and not self.agenda.run_until(lambda: not awaited(), longest):
            broken(Promise.NOTHING_KEPT, 'a program that was killed is awaited for ever')

    def _end_idle_schedulers(self) -> None:
        """End the schedulers that no program uses any more; nodes that called them are free."""
        used = [p.office for p in self.living() if isinstance(p, SharedProgram)]
        before = [cluster.program for cluster in self.abandoned]
        awaited = [p.office for p in before if isinstance(p, SharedProgram)]
        for office in self.offices:
            if office.program is not None and office not in used:
                self.run(self._two_pulses)  # until it has heard of the last good-byes
                if office in awaited:  # it is started again, for a later try
                    self.kill_scheduler(office)
                else:
                    office.program.finish()

    def _end_faults(self) -> None:
        """Nothing breaks any more, each machine runs a node, and one of them is new."""
        self.network.faults = PERFECT
        nodes = [machine.node for machine in self.machines if machine.node is not None]
        schedulers = [office.program for office in self.offices if office.program is not None]
        for each in (*self.living(), *nodes, *schedulers):
            each.live_on()
        self._mishaps.chance = 0.0
        for machine in self.machines:
            self.network.open(machine.end)
            machine.troubles.refuses_forks = machine.troubles.refuses_templates = False
            self.start_node(machine)
        for office in self.offices:
            self.network.open(office.end)
            self.start_scheduler(office)
        for killed in self._killed:
            self.network.open(killed.end)
            self.network.forget_dialer(killed)
        for program in self.living():
            self.network.open(program.end)
            program.allocates = lambda cpus: cpus
        self.add_machine(2)

    def _longest_stall(self) -> float:
        nodes = [machine.node for machine in self.machines if machine.node is not None]
        schedulers = [office.program for office in self.offices if office.program is not None]
        ends = [program.stalled_until for program in (*self.living(), *nodes, *schedulers)]
        return max(max(ends, default=0.0) - self.agenda.now, 0.0)

    def _wait_for_one(self, pinned: bool) -> UserProgram | None:
        """Let the jobs of some program end: others may wait for its nodes."""

        def done() -> list[UserProgram]:
            return [p for p in self.living() if not self._pending_of(p, pinned)]

        def some_ended() -> bool:
            return sum(self._pending_of(p, pinned) for p in self.living()) < before

        while self.living() and not done():
            before = sum(self._pending_of(p, pinned) for p in self.living())
            longest = max(self.witness.longest(c.id) for p in self.living() for c in p.clusters)
            if self.agenda.run_until(some_ended, max(_PATIENCE, _ROUNDS * longest)):
                continue
            for program in self.living() if pinned and len(self.living()) > 1 else ():
                if not self._pending_of(program, pinned=False):
                    return program  # what it waits for is a node that another program holds
            left = {p.name: self._pending_of(p, pinned) for p in self.living()}
            broken(Promise.ENDS, f'jobs pending: {left}')
        return next(iter(done()), None)

    def _pending_of(self, program: UserProgram, pinned: bool) -> int:
        return sum(self.witness.pending(cluster.id, pinned) for cluster in program.clusters)

    def _wait_for_answers(self, program: UserProgram) -> None:
        """Each file that was sent to a node gets its answer."""

        def sending() -> dict[int, list[tuple[str, int]]]:
            files = {cluster.id: cluster.files.sending for cluster in program.clusters}
            return {computation: list(sent) for computation, sent in files.items() if sent}

        if not self.agenda.run_until(lambda: not sending(), _PATIENCE):
            broken(Promise.ANSWERED, f'{program.name} still waits: {sending()}')

    def _look_at_rest(self, program: UserProgram) -> None:
        """With all jobs ended, and two pulses later, nothing of them may be left anywhere."""
        ended = -1
        while ended != self.witness.settled_count:  # else some have ended a moment ago
            ended = self.witness.settled_count
            self.run(self._two_pulses)
        if program not in self.living():
            return  # stalled before, it has closed its clusters only now, and ended with them
        things: list[tuple[str, object]] = [(program.name, c.core) for c in program.clusters]
        others = [other for other in self.living() if self._pending_of(other, True)]
        seat = self._scheduler_of(program)
        if seat is not None and not any(self._scheduler_of(other) is seat for other in others):
            things.append((seat.program.name, seat.core))
        if not others:
            nodes = [machine.node for machine in self.machines if machine.node is not None]
            things += [(node.name, node.core) for node in nodes]
            for seeker in [seat] if seat is not None else []:
                sessions = [(n, n.listener.connected_session(seeker.peer)) for n in nodes]
                things += [(node.name, session) for node, session in sessions if session]
                things += [(seeker.program.name, s) for s in seeker.sessions()]
            things += [(n.name, n.dialer.session) for n in nodes if n.dialer is not None]
        for cluster in program.clusters:
            left = cluster.files.left()
            if left and not self._pending_of(program, True):
                broken(Promise.NOTHING_KEPT, f'{program.name} keeps of files: {left}')
        excused = [n for node in nodes for n in node.excused] if not others else []
        for name, thing in things:
            left = {
                where: count for where, count in jobs_left_in(thing).items() if where not in excused
            }
            if left:
                broken(Promise.NOTHING_KEPT, f'{name}: all jobs have ended, and it has {left}')

    def _scheduler_of(self, program: UserProgram) -> SchedulerSeat | None:
        """The scheduler that serves a user's program, if it lives."""
        if isinstance(program, ClientProgram):
            return program.scheduling
        office = program.office if isinstance(program, SharedProgram) else None
        return office.program.scheduling if office is not None and office.program else None

    def _nodes_in_use(self) -> list[tuple[NodeProgram, dict[str, int]]]:
        nodes = [machine.node for machine in self.machines if machine.node is not None]
        return [(node, left) for node in nodes if (left := node.left())]


class _Site:
    """A shared scheduler, and all that may keep it from being fair at a moment."""

    def __init__(self, world: World, office: Office) -> None:
        self._world, self._office = world, office

    @property
    def clients(self) -> list[UserProgram]:
        """The programs that live and use it."""
        programs = self._world.programs
        return [p for p in programs if isinstance(p, SharedProgram) and p.office is self._office]

    @property
    def nodes(self) -> object:
        """All nodes and the scheduler; None while one of them hangs, is cut off or broken."""
        scheduler, world = self._office.program, self._world
        if scheduler is None or any(isinstance(p, ClientProgram) for p in world.programs):
            return None
        found: list[object] = [scheduler, self._office.end.closings]
        for machine in world.machines:
            node, troubles = machine.node, machine.troubles
            if node is None or troubles.refuses_forks or troubles.refuses_templates:
                return None
            found += [node, node.stalled_seconds, machine.end.closings]
            if machine.end.deaf or machine.end.mute:
                return None
        found += [(c, c.stalled_seconds, c.end.closings) for c in self.clients]
        return found
