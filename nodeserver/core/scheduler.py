"""The scheduler's decisions: which job goes to which node, and which answers are believed.

    client ── SubmitJobs ──▶ Computation.queue ── end_turn: Placement ──▶ RunJobs ──▶ node
    client ◀── JobsDone (unchanged) ── is the attempt current? ◀── JobsDone ── node

`JobCluster` embeds this core, a shared scheduler serves it to many; there is no other.
"""

from collections.abc import Callable
from itertools import compress
from typing import Any

from nodeserver.core import levels
from nodeserver.core.answering import Answering
from nodeserver.core.claims import is_own, lie_of
from nodeserver.core.computation import NOTICE_INTERVAL, Computation
from nodeserver.core.deadlines import Deadlines
from nodeserver.core.dispatch import Dispatch
from nodeserver.core.effects import Disconnect, Effect, Send
from nodeserver.core.endings import Endings
from nodeserver.core.events import (
    CertificateExpiring,
    DeadlinePassed,
    Event,
    MessageArrived,
    PeerLost,
    StopAsked,
)
from nodeserver.core.expiry import Expiry
from nodeserver.core.explain import explain, notice
from nodeserver.core.fairness import Ring, Shares
from nodeserver.core.fileroutes import FileRoutes
from nodeserver.core.fleet import IN_USE, NodeRecord, UseState
from nodeserver.core.fleetmessages import WatchFigures
from nodeserver.core.letters import acknowledgement, part_of
from nodeserver.core.listing import NodeList, list_nodes
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
    JobsDone,
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
    SchedulerPulse,
    ShareData,
    SubmitJobs,
)
from nodeserver.core.overview import Overview, overview
from nodeserver.core.passing import Passing
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.retries import split
from nodeserver.core.sharing import Sharing
from nodeserver.core.status import JobStatus, NodeStatus
from nodeserver.core.steering import Steering
from nodeserver.core.watching import Watching

MISSED_PULSES = 5
CLOSE_TIMEOUT = 10.0  # how long a node may take to tidy up before its client stops waiting


class SchedulerCore:
    """Jobs of many computations on many nodes."""

    def __init__(
        self, is_tls: bool = False, is_shared: bool = False, most_cpus_per_client: int = 0
    ) -> None:
        self._out: list[Effect] = []
        self._fleet = Recruiting(self._out.append, self._node_changed, is_tls)
        order = Shares(most_cpus_per_client) if is_shared else Ring()
        self._dispatch = Dispatch(self._fleet, self._out.append, order)
        self._sharing = Sharing(self._fleet, order, self._dispatch.enlist, lambda client: False)
        self._endings = Endings(self._dispatch, self._out.append)
        self._steering = Steering(
            self._fleet, self._dispatch, self._endings, self._out.append, is_shared
        )
        passing = Passing(self._fleet, self._out.append)
        discovery = self._fleet.discovery
        self._watching = Watching(self._fleet, self._out.append)
        self._deadlines = Deadlines(self._fleet, self._watching)
        self._files = FileRoutes(self._fleet, self._out.append)
        self._expiry = Expiry(self._fleet.computations, self._out.append)
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            MessageArrived: self._message_arrived,
            **discovery.events,
            CertificateExpiring: self._expiry.warned,
            PeerLost: self._peer_lost,
            DeadlinePassed: self._deadline_passed,
            StopAsked: self._stop_asked,
        }
        self._from_client: dict[type[Any], Callable[[str, Any, float], None]] = {
            DeclareComputation: self._declare,
            SubmitJobs: self._submit,
            **dict.fromkeys((ShareData, DropData), self._share),
            CancelJobs: self._cancel,
            CloseComputation: self._close,
            **dict.fromkeys((AcknowledgeOutcomes, OutputTaken), passing.to_node),
            WatchFigures: self._watching.watch,
            AllocateAnswer: lambda peer, message, now: self._fleet.answered(message, now),
            **self._files.from_client,
            **Answering(self._fleet, self._out.append, self.explain).from_client,
        }
        self._from_client |= dict.fromkeys(self._steering.requests, self._steering.asked)
        self._from_node: dict[type[Any], Callable[[NodeRecord, Any, float], None]] = {
            NodeDetails: self._fleet.details,
            NodePulse: self._fleet.pulse,
            ComputationReady: lambda node, message, now: self._fleet.ready(node, message),
            ComputationRefused: self._node_refused,
            NodeFree: self._fleet.node_free,
            JobsDone: self._jobs_done,
            **dict.fromkeys((JobsProvisional, JobsOutput), passing.to_client),
            JobsReturned: self._jobs_returned,
            ComputationClosed: self._computation_closed,
            **dict.fromkeys((NodeEnding, NodePaused), self._fleet.ending),
            NodeNotice: self._fleet.noted,
            Farewell: self._farewell,
            **self._files.from_node,
        }

    # the doors

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened and answer what is to be done."""
        self._deadlines.happened(event)
        self._events[type(event)](event, now)
        return self._take()

    def end_turn(self, now: float) -> list[Effect]:
        """Hand out waiting jobs, once everything that has arrived is known."""
        self._steering.run(now)
        self._sharing.run(now)
        self._dispatch.run(now)
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
        return overview(self._fleet, now)

    def check(self) -> None:
        """Raise `InvariantBroken` if the books do not balance."""
        self._dispatch.check()
        self._deadlines.check()

    def _node_changed(self, node: NodeRecord) -> None:
        self._dispatch.place(node)

    def _take(self) -> list[Effect]:
        effects = self._out[:]
        self._out.clear()
        return effects

    def _send(self, peer: str, message: Any) -> None:
        self._out.append(Send(peer, message))

    def _message_arrived(self, event: MessageArrived, now: float) -> None:
        node = self._fleet.nodes.get(event.peer)
        kind = type(event.message)
        if node is not None:
            node.heard(now)
            hear = self._from_node.get(kind)
            if hear is not None and (lie := lie_of(node.id, event.message)):
                self._deadlines.moved()
                self._lose(node, f'it broke the protocol: {lie}', now)
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
        self._deadlines.pulse_by(now + message.pulse_interval)
        self._sharing.declare(Computation(peer, message, now), now)
        self._expiry.declared(self._fleet.computations[message.computation])

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

    def _close(self, peer: str, message: CloseComputation, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is None:
            self._send(peer, ComputationClosed(message.computation))
            return
        left = [*comp.waiting, *comp.jobs]
        comp.waiting.clear()
        self._endings.settle(comp, left, JobStatus.CANCELLED, 'cancelled: its cluster was closed')
        for node in self._fleet.nodes.values():
            self._endings.unload_all(node, comp)
        comp.settle([*comp.jobs])
        self._dispatch.withdraw(comp)
        self._dispatch.recalls.closed(comp.id)
        if self._fleet.close(comp):
            self._finish_close(comp)
        else:
            self._deadlines.closing[comp.id] = now + CLOSE_TIMEOUT

    def _computation_closed(self, node: NodeRecord, message: ComputationClosed, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        use = node.uses.get(message.computation)
        if comp is None or use is None or use.state is not UseState.CLOSING:
            return
        if not comp.closing:
            self._files.node_gone(node, comp, 'the cluster does not use this node any more')
        if not self._steering.closed(node, comp, now):
            node.leave(message.computation)
            self._finish_close_if_unused(comp)

    def _finish_close_if_unused(self, comp: Computation) -> None:
        if comp.closing and self._fleet.is_unused(comp):
            self._finish_close(comp)

    def _finish_close(self, comp: Computation) -> None:
        self._deadlines.closing.pop(comp.id, None)
        for node in self._fleet.nodes.values():
            node.leave(comp.id)
        del self._fleet.computations[comp.id]
        self._send(comp.client, ComputationClosed(comp.id))

    # from nodes

    def _jobs_done(self, node: NodeRecord, message: JobsDone, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is None or comp.closing:
            self._send(node.id, acknowledgement(message))
            return
        current = comp.are_current(message.ids, message.attempts, node.id)
        if False in current:
            message = part_of(message, current)
        if not message.ids:
            self._send(node.id, acknowledgement(message))
            return
        self._dispatch.ended(node, comp, len(message.ids))
        comp.pace.learn(message.seconds)
        if comp.has_retries:
            message, retried = split(comp, message)
            if retried is not None:
                self._dispatch.enlist(comp)
                self._send(comp.client, retried)
        comp.settle(message.ids)
        if message.ids:
            self._send(comp.client, message)
        else:
            self._send(node.id, acknowledgement(message))

    def _jobs_returned(self, node: NodeRecord, message: JobsReturned, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is None or comp.closing:
            self._dispatch.recalls.returned(node, message.computation, of_use=True)
            return
        current = comp.are_current(message.ids, message.attempts, node.id)
        ids = list(compress(message.ids, current))
        of_use = not all(map(comp.is_pinned, ids))
        self._dispatch.recalls.returned(node, comp.id, of_use)
        self._dispatch.unload(node, comp, len(ids))
        self._endings.requeue(comp, ids, message.reason)
        self._steering.returned(node, comp)

    def _node_refused(self, node: NodeRecord, message: ComputationRefused, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is not None and message.kind == 'over':
            reason = f'node {node.title}: {message.reason}'
            self._endings.give_up(node, comp, reason, JobStatus.TERMINATED)
        elif comp is not None:
            self._endings.give_up(node, comp, f'node {node.title} failed: {message.reason}')
        if comp is not None:
            self._files.node_gone(node, comp, message.reason)
        self._fleet.node_refused(node, message, now)

    # nodes that go

    def _farewell(self, node: NodeRecord, message: Farewell, now: float) -> None:
        """A node leaves: jobs that it never began wait again, whatever becomes of the others."""
        for computation in node.uses:
            comp = self._fleet.computations[computation]
            begun = set(message.begun.get(computation, ()))
            unbegun = [job for job in comp.on_node(node.id) if job not in begun]
            self._dispatch.unload(node, comp, len(unbegun))
            self._endings.requeue(comp, unbegun, f'node {node.title} has left: {message.reason}')
        self._lose(node, message.reason, now)

    def _peer_lost(self, event: PeerLost, now: float) -> None:
        node = self._fleet.nodes.get(event.peer)
        if node is not None:
            self._lose(node, event.reason, now, is_gone=node.has_called)
        elif event.peer in self._fleet.discovery.relays:
            self._fleet.discovery.relays.lost(event, now)

    def _lose(self, node: NodeRecord, reason: str, now: float, *, is_gone: bool = False) -> None:
        """A node is gone: its jobs go elsewhere or end, and its clients are told.

        A connection that the node has made itself is gone with it: by now there may be a new one.
        """
        del self._fleet.nodes[node.id]
        self._fleet.discovery.lost(node, now)
        for computation, use in node.uses.items():
            comp = self._fleet.computations[computation]
            self._endings.give_up(node, comp, f'node {node.title} was lost: {reason}')
            self._files.node_gone(node, comp, f'node {node.title} was lost: {reason}')
            unrun = comp.give_up_pinned(node.id)
            self._endings.settle(
                comp, unrun, JobStatus.CANCELLED, f'node {node.title} was lost: {reason}'
            )
            if use.state in IN_USE or (use.state is UseState.CLOSING and not comp.closing):
                self._fleet.tell(node, comp, NodeStatus.CLOSED, reason)
            if not comp.closing:
                text = f'node {node.title} was lost: {reason}'
                self._send(comp.client, Notice(comp.id, levels.WARNING, text))
            self._finish_close_if_unused(comp)
        self._dispatch.forget(node)
        if not is_gone:
            self._out.append(Disconnect(node.id))

    def _stop_asked(self, event: StopAsked, now: float) -> None:
        for node in self._fleet.nodes.values():
            if node.connected:
                self._send(node.id, Farewell(event.reason))

    # time

    def _deadline_passed(self, event: DeadlinePassed, now: float) -> None:
        if self._fleet.nodes and now >= self._deadlines.pulse_at:
            self._pulse(now)
        self._watching.ask(now)
        self._fleet.discovery.relays.due(now)
        for comp in list(self._fleet.computations.values()):
            self._fleet.discovery.due(comp, now)
            self._notice_due(comp, now)
            if self._deadlines.closing.get(comp.id, now + 1) <= now:
                self._finish_close(comp)

    def _pulse(self, now: float) -> None:
        """Ask each node for a sign of life; lose those that left several pulses unanswered.

        Pulses are counted, not seconds: a program that was suspended has sent none (D17).
        """
        self._deadlines.pulse_at = self._fleet.begin_pulse(now)
        for node in list(self._fleet.nodes.values()):
            if node.unanswered >= MISSED_PULSES:
                seconds = round(now - node.heard_at)
                self._lose(node, f'nothing was heard of it for {seconds} s', now)
                continue
            node.unanswered += 1
            node.owes_pulse = True
            if node.connected:
                self._send(node.id, SchedulerPulse())

    def _notice_due(self, comp: Computation, now: float) -> None:
        """Say why nothing happens, without being asked (D12)."""
        if now < comp.notice_at or comp.closing:
            return
        comp.notice_at = now + NOTICE_INTERVAL
        text = notice(self._fleet, comp, now, self._sharing)
        if text:
            comp.noticed_at = now
            self._send(comp.client, Notice(comp.id, levels.WARNING, text))
