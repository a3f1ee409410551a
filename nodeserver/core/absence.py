"""Clients of a shared scheduler that go away, and come back or do not.

PeerLost ──▶ KeepOutcomes to nodes; jobs go on, and nothing is sent to the client
DeclareComputation(resumes) ──▶ ResendLetters to nodes, endings told again, ResubmitJobs
zombie_seconds later ──▶ Dormant: nodes are left, and keep what they have
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat

from nodeserver.core import levels
from nodeserver.core.claims import fault_of, may_take_over
from nodeserver.core.closings import Closings
from nodeserver.core.computation import Computation
from nodeserver.core.effects import Effect, Send
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.events import PlacementsKnown
from nodeserver.core.fleet import IN_USE, NodeRecord, UseState
from nodeserver.core.lacking import holders
from nodeserver.core.messages import (
    CloseComputation,
    DeclareComputation,
    JobsSettled,
    JobsStarted,
    KeepOutcomes,
    KnownNode,
    NodeChanged,
    Notice,
    OutputTaken,
)
from nodeserver.core.parts import Parts
from nodeserver.core.records import placements
from nodeserver.core.status import NodeStatus
from nodeserver.core.takeover import ALL_JOBS, ANYWHERE, NOWHERE, Place, Takeover
from nodeserver.core.takeovers import Takeovers
from nodeserver.core.wording import harmless_name

MOST_CLUSTERS = 1000  # of one program
MOST_DORMANT = 10_000
DORMANT_SECONDS = 7 * 86400.0  # for which a computation without nodes is remembered
UNKNOWN_EPOCHS = 1000  # more often no scheduler was restarted whose records are lost
_NOTHING_THERE = (UseState.ASKING, UseState.UNWANTED, UseState.DISMISSED, UseState.CLOSING)


@dataclass(frozen=True, slots=True)
class Dormant:
    """What is known of a computation whose client is not here, and which no node is asked for."""

    token: bytes
    epoch: int
    nodes: list[KnownNode]
    places: dict[int, Place]  # of jobs that nodes may have, or keep outcomes of
    endings: list[JobsSettled]
    since: float


class Absence:
    """Which clients are away, and what they will find when they are back."""

    def __init__(
        self, parts: Parts, closings: Closings, takeovers: Takeovers, zombie_seconds: float
    ) -> None:
        self._parts = parts
        self._fleet = parts.fleet
        self._closings = closings
        closings.left_for_later = self._left_for_later
        self._takeovers = takeovers
        self._zombie_seconds = zombie_seconds
        self._dormant: dict[int, Dormant] = {}
        # what has a computation look for nodes, when it may
        self.start: Callable[[Computation, float], None] = parts.fleet.declare
        # of computations whose clients are away: nodes that they have lost meanwhile
        self._away: dict[int, dict[str, NodeChanged]] = {}

    # declared

    def declare(self, peer: str, message: DeclareComputation, now: float) -> Computation | None:
        """A client declares a computation: a new one, its own once more, or one of before."""
        comp = self._fleet.computations.get(message.computation)
        dormant = self._dormant.get(message.computation)
        before = comp.declared if comp is not None else dormant
        fault = fault_of(message)
        if not fault and before is not None and not may_take_over(message, before.token):
            if comp is not None and not message.resumes:
                return None  # it was declared before, and is as it was
            fault = 'it belongs to another program, as its token is not the right one'
        elif before is None and self._clusters_of(peer) >= MOST_CLUSTERS:
            fault = f'its program has {MOST_CLUSTERS} clusters open already: close some of them'
        if fault:
            text = f'{harmless_name(message.name)} cannot be used: {fault}'
            self._parts.send(peer, Notice(message.computation, levels.ERROR, text))
            return None
        if comp is not None:
            self._back(comp, peer, message, now)
            return None
        if dormant is not None:
            del self._dormant[message.computation]
            self._parts.deadlines.absences.pop(message.computation, None)
        return self._declared(peer, message, dormant, now)

    def _clusters_of(self, peer: str) -> int:
        return sum(comp.client == peer for comp in self._fleet.computations.values())

    def _declared(
        self, peer: str, message: DeclareComputation, dormant: Dormant | None, now: float
    ) -> Computation:
        if dormant is not None:
            message = replace(message, epoch=max(message.epoch, dormant.epoch + 1))
        elif message.resumes and self._fleet.is_shared:  # it may have been taken over often
            message = replace(message, epoch=message.epoch + UNKNOWN_EPOCHS)
        self._closings.late.declared(message.computation)
        comp = Computation(peer, message, now)
        if message.resumes:
            nodes = {known.node: known for known in message.nodes}
            nodes |= {known.node: known for known in (dormant.nodes if dormant else ())}
            comp.declared = replace(message, nodes=[*nodes.values()])
            places = dormant.places if dormant is not None else self._without_records()
            comp.takeover = Takeover(nodes.values(), message.resubmits, places)
        self._parts.records.declared(comp)
        if dormant is not None:
            comp.undelivered.take_over(dormant.endings)
        self._tell_endings(comp)
        self.start(comp, now)
        if comp.takeover is not None:
            for known in comp.takeover.known.values():
                self._parts.records.node(comp, known)
            if not comp.takeover.is_gathering:
                self._takeovers.begin(comp, now)
        return comp

    def _without_records(self) -> dict[int, Place] | None:
        """What is taken for known of the jobs of a computation that is not on record here.

        A program's own scheduler writes into its journal, so that this has told everything.
        """
        return {ALL_JOBS: ANYWHERE} if self._fleet.is_shared else None

    def _tell_endings(self, comp: Computation) -> None:
        for ending in comp.undelivered.endings.values():
            self._parts.send(comp.client, ending)
        if comp.takeover is not None:
            comp.takeover.settled.update(comp.undelivered.ended())

    # away

    def may_return(self, computation: int) -> bool:
        """Whether it is remembered for a client that may come back."""
        return computation in self._dormant

    def is_away(self, client: str) -> bool:
        """Whether a client is, that had a computation here."""
        computations = self._fleet.computations
        return any(
            computations[comp].client == client for comp in self._away if comp in computations
        )

    def lost(self, peer: str, now: float) -> None:
        """A client is gone, perhaps for good: what is going on for it goes on."""
        for comp in self._fleet.computations.values():
            if comp.client != peer or comp.closing or comp.id in self._away:
                continue
            self._away[comp.id] = {}
            self._parts.deadlines.absences[comp.id] = now + self._zombie_seconds
            for node in self._fleet.nodes.values():
                self.keep(node, comp)

    def keep(self, node: NodeRecord, comp: Computation) -> None:
        """Have a node keep outcomes for a client that is away."""
        use = node.uses.get(comp.id)
        if comp.id in self._away and use is not None and use.state not in _NOTHING_THERE:
            self._parts.send(node.id, KeepOutcomes(comp.id))

    def without_absent(self, effects: list[Effect]) -> list[Effect]:
        """Leave out what is for clients that are away."""
        if not self._away:
            return effects
        return [effect for effect in effects if not self._is_for_absent(effect)]

    def _is_for_absent(self, effect: Effect) -> bool:
        if not isinstance(effect, Send):
            return False
        lost = self._away.get(getattr(effect.message, 'computation', 0))
        if lost is None:
            return False
        message = effect.message
        comp = self._fleet.computations.get(getattr(message, 'computation', 0))
        if comp is None or comp.client != effect.peer:
            return False
        if isinstance(message, NodeChanged):
            if message.status == NodeStatus.CLOSED:
                lost[message.node] = message
            else:
                lost.pop(message.node, None)
        return True

    # back

    def _back(self, comp: Computation, peer: str, message: DeclareComputation, now: float) -> None:
        """A client is here again, or another one in its place."""
        lost = self._away.pop(comp.id, {})
        self._parts.deadlines.absences.pop(comp.id, None)
        if comp.closing:
            comp.client = peer
            return
        epoch = max(comp.declared.epoch, message.epoch)
        comp.client, comp.declared = peer, replace(message, epoch=epoch)
        comp.keeps = False  # it knows what was not reached, and says so at its close
        self._parts.dispatch.client_changed(comp)
        self._parts.records.declared(comp)
        takeover = comp.takeover or Takeover()
        comp.takeover = takeover
        takeover.await_jobs(message.resubmits)
        takeover.resends = True
        if comp.data is not None:
            comp.data.doubt_all()
        # in doubt, until they have come once more
        for node, ids, attempts in comp.undelivered.places():
            takeover.overrides.update(_placed(node, ids, attempts))
        self._seek_unreached(comp, takeover)
        for node in dict.fromkeys(node for node, _ in comp.undelivered.letters):
            if node not in self._fleet.nodes and node in comp.nodes:
                takeover.know(comp.nodes[node])
        self._tell_nodes(comp, lost.values())
        self._tell_jobs(comp)
        self._tell_endings(comp)
        self._parts.files.client_back(comp)
        if not takeover.is_gathering:
            self._takeovers.begin(comp, now)

    def _seek_unreached(self, comp: Computation, takeover: Takeover) -> None:
        """Jobs that an earlier recovery did not reach are looked for where it has left them."""
        comp.undelivered.forget_left()
        for node, columns in comp.unreached.items():
            takeover.overrides.update(_placed(node, *columns))
            if node in comp.nodes:
                takeover.know(comp.nodes[node])
        if takeover.overrides.pop(ALL_JOBS, NOWHERE) == ANYWHERE:
            takeover.asks_all = True
            self._parts.records.unknown(comp, True)

    def _tell_jobs(self, comp: Computation) -> None:
        """Say which jobs are with nodes, before anything else is said of them."""
        by_node: dict[str, list[int]] = {}
        for job, node in comp.places.items():
            by_node.setdefault(node, []).append(job)
        for node, ids in by_node.items():
            self._parts.send(comp.client, JobsStarted(comp.id, node, ids))

    def _tell_nodes(self, comp: Computation, lost: Iterable[NodeChanged]) -> None:
        """Say how nodes stand."""
        for change in lost:
            self._parts.send(comp.client, change)
        for node in list(self._fleet.nodes.values()):
            use = node.uses.get(comp.id)
            if use is None or use.state in (UseState.UNWANTED, UseState.DISMISSED):
                continue
            if use.state is UseState.ASKING:
                self._fleet.ask(node, comp)
                continue
            if use.state in IN_USE:
                self._fleet.tell(node, comp, NodeStatus.INITIALIZED, '')
                self._parts.send(node.id, OutputTaken(comp.id, node.id))

    # for good

    def due(self, now: float) -> None:
        """Leave the nodes of clients that did not come back in time."""
        for computation, moment in list(self._parts.deadlines.absences.items()):
            if moment <= now:
                self._retire(computation, now)

    def _retire(self, computation: int, now: float) -> None:
        del self._parts.deadlines.absences[computation]
        self._away.pop(computation, None)
        comp = self._fleet.computations.get(computation)
        if comp is None:
            self._forget(computation)
            return
        comp.undelivered.forget_left()
        self._remember(comp, [*comp.undelivered.endings.values()], now)
        for name, _ in holders(self._parts, comp):
            self._parts.send(name, CloseComputation(comp.id, keeps=True))
        self._closings.drop(comp)

    def _left_for_later(self, comp: Computation, now: float) -> None:
        """Its client cannot tell where its jobs are, unless the scheduler is part of it."""
        if self._fleet.is_shared:
            self._remember(comp, [], now)

    def _remember(self, comp: Computation, endings: list[JobsSettled], now: float) -> None:
        places: dict[int, Place] = {}
        for node, columns in placements(comp).items():
            places.update(_placed(node, *columns))
        if comp.takeover is not None and comp.takeover.is_on_record:
            places = comp.takeover.overrides | places
        declared, nodes = comp.declared, [*comp.nodes.values()]
        dormant = Dormant(declared.token, declared.epoch, nodes, places, endings, now)
        self._keep(comp.id, dormant, now)

    def known(self, event: PlacementsKnown, now: float) -> None:
        """A scheduler of before has left this on disk."""
        places: dict[int, Place] = {}
        for node, ids, attempts in zip(event.places, event.ids, event.attempts, strict=True):
            places.update(_placed(node, ids, attempts))
        places = {job: place for job, place in places.items() if place[0]}
        dormant = Dormant(event.token, event.epoch, event.nodes, places, [], now)
        self._keep(event.computation, dormant, now)

    def _keep(self, computation: int, dormant: Dormant, now: float) -> None:
        self._dormant[computation] = dormant
        self._parts.deadlines.absences[computation] = now + DORMANT_SECONDS
        if len(self._dormant) > MOST_DORMANT:
            self._forget(next(iter(self._dormant)))

    def check(self) -> None:
        """Raise `InvariantBroken` if a computation is dormant that is not, or waits for nothing."""
        absences, here = self._parts.deadlines.absences.keys(), self._fleet.computations.keys()
        if self._dormant.keys() & here:
            raise InvariantBroken('computations are dormant, and are here')
        if absences != self._dormant.keys() | self._away.keys():
            raise InvariantBroken(f'{absences} are waited for, {self._away} are away')

    def _forget(self, computation: int) -> None:
        del self._dormant[computation]
        self._parts.deadlines.absences.pop(computation, None)
        self._parts.records.forgotten(computation)


def _placed(node: str, ids: list[int], attempts: list[int]) -> Iterator[tuple[int, Place]]:
    """Where each of these jobs is; where nothing is said of attempts, they are not known."""
    return zip(ids, zip(repeat(node), attempts or repeat(0), strict=False), strict=False)
