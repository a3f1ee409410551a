"""The scheduler's decisions: which job goes to which node, and which answers are believed.

    client ── SubmitJobs ──▶ Computation.queue ── end_turn: Placement ──▶ RunJobs ──▶ node
    client ◀── JobsDone (unchanged) ── is the attempt current? ◀── JobsDone ── node

`JobCluster` embeds this core, a shared scheduler serves it to many; there is no other.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from nodeserver.core import levels
from nodeserver.core.absence import Absence
from nodeserver.core.answering import Answering
from nodeserver.core.answers import Answers
from nodeserver.core.books import check_books
from nodeserver.core.claims import is_own, lie_of
from nodeserver.core.closings import Closings
from nodeserver.core.computation import NOTICE_INTERVAL, Computation
from nodeserver.core.effects import Effect
from nodeserver.core.events import (
    CertificateExpiring,
    ClosingKnown,
    DeadlinePassed,
    Event,
    MessageArrived,
    PeerLost,
    PlacementsKnown,
    StopAsked,
)
from nodeserver.core.expiry import Expiry
from nodeserver.core.explain import explain, notice
from nodeserver.core.fairness import Ring, Shares
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.fleetmessages import WatchFigures
from nodeserver.core.listing import NodeList, list_nodes
from nodeserver.core.losses import Losses
from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    AllocateAnswer,
    CancelJobs,
    CloseComputation,
    ComputationClosed,
    ComputationReady,
    ComputationRefused,
    DeclareComputation,
    DropData,
    Farewell,
    HandoverBegun,
    JobsDone,
    JobsHeld,
    JobsOutput,
    JobsProvisional,
    JobsReturned,
    NodeDetails,
    NodeEnding,
    NodeFree,
    NodeNotice,
    NodePaused,
    NodePulse,
    Notice,
    OutputTaken,
    ResubmitJobs,
    ShareData,
    SubmitJobs,
)
from nodeserver.core.overview import Overview, overview
from nodeserver.core.parts import Parts
from nodeserver.core.passing import Passing
from nodeserver.core.sharing import Sharing
from nodeserver.core.takeovers import Takeovers

ZOMBIE_SECONDS = 3600.0  # for which the nodes of a client that is away are kept for it (D17)
# what is only passed on, or shown: no job finds room through it
_PASSED_ON = frozenset(
    (NodePulse, JobsProvisional, JobsOutput, AcknowledgeOutcomes, OutputTaken, WatchFigures)
)


class SchedulerCore:
    """Jobs of many computations on many nodes."""

    def __init__(
        self,
        is_tls: bool = False,
        is_shared: bool = False,
        most_cpus_per_client: int = 0,
        zombie_seconds: float = ZOMBIE_SECONDS,
    ) -> None:
        self._out: list[Effect] = []
        order = Shares(most_cpus_per_client) if is_shared else Ring()
        self._parts = parts = Parts(self._out.append, is_tls, is_shared, order)
        self._fleet, self._dispatch = parts.fleet, parts.dispatch
        self._deadlines, self._endings = parts.deadlines, parts.endings
        self._closings = Closings(parts)
        self._answers = Answers(parts)
        self._takeovers = Takeovers(parts, self._answers)
        self._absence = Absence(parts, self._closings, self._takeovers, zombie_seconds)
        self._losses = Losses(parts, self._closings, self._takeovers)
        self._sharing = Sharing(self._fleet, order, self._dispatch.enlist, self._absence.is_away)
        self._absence.start = self._sharing.declare
        self._answers.may_return = self._absence.may_return
        self._expiry = Expiry(self._fleet.computations, self._out.append)
        self._passing = Passing(self._fleet, self._out.append)
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            MessageArrived: self._message_arrived,
            **self._fleet.discovery.events,
            CertificateExpiring: self._expiry.warned,
            PeerLost: self._peer_lost,
            DeadlinePassed: self._deadline_passed,
            StopAsked: self._stop_asked,
            PlacementsKnown: self._known,
            ClosingKnown: self._closings.late.known,
        }
        self._from_client = self._client_table()
        self._from_node = self._node_table()

    def _client_table(self) -> dict[type[Any], Callable[[str, Any, float], None]]:
        parts = self._parts
        return {
            DeclareComputation: self._declare,
            SubmitJobs: self._submit,
            ResubmitJobs: self._takeovers.resubmit,
            **dict.fromkeys((ShareData, DropData), self._share),
            CancelJobs: self._cancel,
            CloseComputation: self._closings.close,
            **dict.fromkeys((AcknowledgeOutcomes, OutputTaken), self._passing.to_node),
            WatchFigures: parts.watching.watch,
            AllocateAnswer: lambda peer, message, now: self._fleet.answered(message, now),
            **parts.files.from_client,
            **dict.fromkeys(parts.steering.requests, parts.steering.asked),
            **Answering(self._fleet, self._out.append, self.explain).from_client,
        }

    def _node_table(self) -> dict[type[Any], Callable[[NodeRecord, Any, float], None]]:
        fleet, answers, takeovers = self._fleet, self._answers, self._takeovers
        return {
            NodeDetails: self._details,
            NodePulse: fleet.pulse,
            ComputationReady: self._ready,
            ComputationRefused: takeovers.refused,
            HandoverBegun: takeovers.begun,
            JobsHeld: self._held,
            NodeFree: fleet.node_free,
            JobsDone: answers.done,
            **dict.fromkeys((JobsProvisional, JobsOutput), self._passing.to_client),
            JobsReturned: answers.returned,
            ComputationClosed: self._closings.closed,
            **dict.fromkeys((NodeEnding, NodePaused), fleet.ending),
            NodeNotice: fleet.noted,
            Farewell: self._losses.farewell,
            **self._parts.files.from_node,
        }

    # the doors

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened and answer what is to be done."""
        self._deadlines.happened(event)
        if type(event) is not MessageArrived or type(event.message) not in _PASSED_ON:
            self._dispatch.is_due = True
        self._events[type(event)](event, now)
        return self._take()

    def end_turn(self, now: float) -> list[Effect]:
        """Hand out waiting jobs, once everything that has arrived is known."""
        self._parts.steering.run(now)
        if self._sharing.run(now):  # it may look for nodes at once
            self._deadlines.moved()
        self._dispatch.run(now)
        self._parts.records.flush()
        return self._take()

    def next_deadline(self) -> float | None:
        """When the core wants a `DeadlinePassed`, or None."""
        return self._deadlines.next()

    def explain(self, computation: int, now: float) -> list[str]:
        """Say in words where a computation and each node stand (D12)."""
        comp = self._fleet.computations.get(computation)
        sharing = self._sharing
        return explain(self._fleet, comp, now, sharing) if comp else ['the cluster is closed']

    def list_nodes(self, now: float) -> NodeList:
        """List the nodes that were found, with the reasons of those that are not used (V03)."""
        return list_nodes(self._fleet, now)

    def overview(self, now: float) -> Overview:
        """Count what there is to do (M01)."""
        return overview(self._fleet, self._absence.is_away)

    def check(self) -> None:
        """Raise `InvariantBroken` if the books do not balance."""
        self._dispatch.check()
        self._deadlines.check()
        self._absence.check()
        for comp in self._fleet.computations.values():
            check_books(comp)

    def _take(self) -> list[Effect]:
        effects = self._absence.without_absent(self._out[:])
        self._out.clear()
        return effects

    def _message_arrived(self, event: MessageArrived, now: float) -> None:
        node = self._fleet.nodes.get(event.peer)
        kind = type(event.message)
        if node is not None:
            node.heard(now)
            hear = self._from_node.get(kind)
            if hear is not None and (lie := lie_of(node.id, event.message)):
                self._deadlines.moved()
                self._losses.lose(node, f'it broke the protocol: {lie}', now)
            elif hear is not None:
                hear(node, event.message, now)
        elif event.peer in self._fleet.discovery.relays:
            self._fleet.discovery.relays.hear(event, now)
        elif kind in self._from_client and is_own(
            self._fleet.computations, event.peer, event.message
        ):
            self._from_client[kind](event.peer, event.message, now)

    # from clients

    def _declare(self, peer: str, message: DeclareComputation, now: float) -> None:
        comp = self._absence.declare(peer, message, now)
        if comp is not None:
            self._deadlines.pulse_by(now + message.pulse_interval)
            self._expiry.declared(comp)

    def _submit(self, peer: str, message: SubmitJobs, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is not None and not comp.closing:
            comp.submit(message)
            if message.node:
                comp.notice_soon(now)
            self._dispatch.enlist(comp)

    def _share(self, peer: str, message: ShareData | DropData, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is None or comp.closing:
            return
        if isinstance(message, ShareData):
            self._dispatch.share(comp, message)
        else:
            self._dispatch.drop(comp, message)

    def _cancel(self, peer: str, message: CancelJobs, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is not None:
            self._endings.cancel(comp, message.ids)
            self._takeovers.cancel(comp, message.ids)

    # nodes that come and go

    def _details(self, node: NodeRecord, message: NodeDetails, now: float) -> None:
        self._closings.late.met(node)
        self._fleet.details(node, message, now)

    def _ready(self, node: NodeRecord, message: ComputationReady, now: float) -> None:
        self._takeovers.ready(node, message, now)
        self._keep(node, message.computation)

    def _held(self, node: NodeRecord, message: JobsHeld, now: float) -> None:
        self._takeovers.held(node, message, now)
        self._keep(node, message.computation)

    def _keep(self, node: NodeRecord, computation: int) -> None:
        comp = self._fleet.computations.get(computation)
        if comp is not None:
            self._absence.keep(node, comp)

    def _peer_lost(self, event: PeerLost, now: float) -> None:
        node = self._fleet.nodes.get(event.peer)
        if node is not None:
            self._losses.lose(node, event.reason, now, is_gone=node.has_called)
        elif event.peer in self._fleet.discovery.relays:
            self._fleet.discovery.relays.lost(event, now)
        else:
            self._absence.lost(event.peer, now)

    def _stop_asked(self, event: StopAsked, now: float) -> None:
        for node in self._fleet.nodes.values():
            if node.connected:
                self._parts.send(node.id, Farewell(event.reason))

    def _known(self, event: PlacementsKnown, now: float) -> None:
        """A scheduler of before has left this on disk."""
        self._absence.known(event, now)
        self._deadlines.reunion_at = self._sharing.expect(event, now)

    # time

    def _deadline_passed(self, event: DeadlinePassed, now: float) -> None:
        self._losses.lose_silent(now)
        if now >= self._deadlines.pulse_at and self._deadlines.has_peers():
            self._losses.pulse(now)
        if now >= self._deadlines.reunion_at:  # the end of the turn sees that, too
            self._deadlines.reunion_at = inf
            self._sharing.expect_no_more()
        self._parts.watching.ask(now)
        self._fleet.discovery.relays.due(now)
        self._absence.due(now)
        self._closings.late.due(now)
        for comp in list(self._fleet.computations.values()):
            self._takeovers.due(comp, now)
            self._fleet.discovery.due(comp, now)
            self._notice_due(comp, now)
            self._closings.due(comp, now)

    def _notice_due(self, comp: Computation, now: float) -> None:
        """Say why nothing happens, without being asked (D12)."""
        if now < comp.notice_at or comp.closing:
            return
        comp.notice_at = now + NOTICE_INTERVAL
        text = notice(self._fleet, comp, now, self._sharing)
        if text:
            comp.noticed_at = now
            self._parts.send(comp.client, Notice(comp.id, levels.WARNING, text))
