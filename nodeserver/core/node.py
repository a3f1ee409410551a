"""A node's decisions: whom it serves, which job gets which cpu, and what is told of the end.

    RunJobs ──▶ Hosted.queue ── end_turn: a free cpu ──▶ GiveJobs ──▶ worker
    JobsDone ◀── end_turn: this turn's letter ◀── JobsReported, WorkerEnded

A node serves one scheduler at a time, as long as that has a computation open here (A25).
"""

from collections.abc import Callable
from math import inf
from typing import Any

from nodeserver.core import levels
from nodeserver.core.effects import CloseTemplate, Disconnect, Effect, Report, Send, Stop
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.events import (
    AvailabilityMeasured,
    DeadlinePassed,
    Event,
    JobsPrinted,
    JobsRecalled,
    JobsReported,
    MessageArrived,
    OwnerGone,
    PeerConnected,
    PeerLost,
    ProvisionalReported,
    StopAsked,
    TemplateClosed,
    TemplateFailed,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.figures import Figures
from nodeserver.core.hosted import Hosted, HostedState
from nodeserver.core.liveoutput import LiveOutput
from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    CloseComputation,
    ComputationClosed,
    ComputationReady,
    ComputationRefused,
    DropData,
    Farewell,
    JobsReturned,
    NodeDetails,
    NodeEnding,
    NodeFree,
    OpenComputation,
    OutputTaken,
    RecallJobs,
    RunJobs,
    SchedulerPulse,
    ShareData,
    StopJobs,
)
from nodeserver.core.nodefacts import NodeFacts, Peer
from nodeserver.core.workplace import Workplace

ZOMBIE_LOOK_INTERVAL = 60.0
ZOMBIE_SECONDS = 3600.0  # silence after which a scheduler is taken for dead (D17)
ORPHAN_SECONDS = 600.0  # how long a node outlives the program that started it (V02)


class NodeCore:
    """One node: its cpus, the scheduler it serves, and the computations it hosts."""

    def __init__(self, facts: NodeFacts) -> None:
        self._facts = facts
        self._peers: dict[str, Peer] = {}
        self._hosted: dict[int, Hosted] = {}
        self._out: list[Effect] = []
        self._workplace = Workplace(facts.cpus, self._hosted, self._out.append)
        self._figures = Figures(self._out.append)
        live_output = LiveOutput(facts.id, self._hosted, self._out.append)
        self._look_at = 0.0
        self._stopping = ''  # why the node ends, in words
        self._stopped = False
        self._stop_by = inf
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            MessageArrived: self._message_arrived,
            PeerConnected: self._peer_connected,
            PeerLost: self._peer_lost,
            DeadlinePassed: self._deadline_passed,
            TemplateReady: self._template_ready,
            TemplateFailed: self._template_failed,
            TemplateClosed: self._template_closed,
            WorkerForked: self._workplace.forked,
            JobsReported: self._workplace.reported,
            JobsRecalled: self._workplace.recalled,
            ProvisionalReported: self._workplace.provisional,
            JobsPrinted: live_output.printed,
            WorkerEnded: self._workplace.ended,
            AvailabilityMeasured: self._figures.measured,
            StopAsked: self._stop_asked,
            OwnerGone: self._owner_gone,
        }
        self._messages: dict[type[Any], Callable[[str, Any, float], None]] = {
            OpenComputation: self._open,
            RunJobs: self._run,
            StopJobs: self._stop_jobs,
            RecallJobs: self._recall,
            ShareData: self._workplace.share,
            DropData: self._workplace.drop,
            AcknowledgeOutcomes: self._acknowledged,
            CloseComputation: self._close,
            OutputTaken: live_output.taken,
            SchedulerPulse: self._figures.pulse,
            Farewell: self._farewell,
        }

    # the doors

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened and answer what is to be done."""
        self._events[type(event)](event, now)
        return self._take()

    def end_turn(self, now: float) -> list[Effect]:
        """Send what ended in this turn, and give the free cpus their next jobs."""
        for hosted in self._hosted.values():
            provisional = hosted.take_provisional(self._facts.id)
            letter = hosted.take_letter(self._facts.id)
            if not hosted.orphaned:
                if provisional is not None:
                    self._send(hosted.scheduler, provisional)
                if letter is not None:
                    self._send(hosted.scheduler, letter)
        self._workplace.run(now)
        self._end_orphans()
        self._stop_if_done(now)
        return self._take()

    def next_deadline(self) -> float | None:
        """When the core wants a `DeadlinePassed`, or None."""
        due = self._workplace.next_kill()
        if self._peers:
            due = min(due, self._look_at)
        if not self._stopped:
            due = min(due, self._stop_by)
        return due if due != inf else None

    def check(self) -> None:
        """Raise `InvariantBroken` if a cpu holds two jobs."""
        if self._workplace.busy > self._facts.cpus:
            raise InvariantBroken(f'{self._workplace.busy} busy cpus of {self._facts.cpus}')
        for hosted in self._hosted.values():
            for worker in hosted.workers.values():
                if (worker.id in hosted.idle) != (not worker.held):
                    raise InvariantBroken(f'worker {worker.id}: idle, with {len(worker.held)} jobs')
                if not hosted.lasting and len(worker.held) > 1:
                    raise InvariantBroken(f'worker {worker.id} has {len(worker.held)} jobs')

    @property
    def data_held(self) -> int:
        """Bytes of shared data on this node."""
        return sum(hosted.data.size for hosted in self._hosted.values())

    @property
    def _ending(self) -> str:
        return f'the node is ending: {self._stopping}'

    def _take(self) -> list[Effect]:
        effects = self._out[:]
        self._out.clear()
        return effects

    def _send(self, peer: str, message: Any) -> None:
        self._out.append(Send(peer, message))

    def _message_arrived(self, event: MessageArrived, now: float) -> None:
        peer = self._peers.get(event.peer)
        handler = self._messages.get(type(event.message))
        if peer is not None and handler is not None:
            peer.heard_at = now
            handler(event.peer, event.message, now)

    # schedulers that come and go

    def _peer_connected(self, event: PeerConnected, now: float) -> None:
        self._peers[event.peer] = Peer(now)
        facts = self._facts
        self._send(
            event.peer,
            NodeDetails(facts.name, facts.cpus, facts.platform, facts.python, self._figures.latest),
        )

    def _peer_lost(self, event: PeerLost, now: float) -> None:
        if self._peers.pop(event.peer, None) is None:
            return
        held = [hosted for hosted in self._hosted.values() if hosted.scheduler == event.peer]
        if held and not self._stopped:
            text = f'the program that used this node is gone: {event.reason}'
            self._out.append(Report(levels.WARNING, text))
        for hosted in held:
            hosted.orphaned = True
            hosted.forget_waiting()

    def _farewell(self, peer: str, message: Farewell, now: float) -> None:
        self._peers.pop(peer, None)
        for hosted in self._hosted.values():
            if hosted.scheduler == peer:
                self._drop(hosted)
        self._out.append(Disconnect(peer))

    def _end_orphans(self) -> None:
        """An orphan's running jobs may end; then it is closed, and the node is free."""
        for hosted in self._hosted.values():
            if hosted.orphaned and hosted.state is not HostedState.CLOSING and not hosted.running:
                if hosted.letters:
                    count = sum(len(letter.ids) for letter in hosted.letters.values())
                    text = f'{hosted.opened.name}: nobody is left to take {count} results'
                    self._out.append(Report(levels.WARNING, text))
                self._drop(hosted)

    def _holder(self) -> Hosted | None:
        return next(iter(self._hosted.values()), None)

    # computations

    def _open(self, peer: str, message: OpenComputation, now: float) -> None:
        holder = self._holder()
        before = self._hosted.get(message.computation)
        if before is not None and not before.orphaned and before.state is not HostedState.CLOSING:
            return
        if self._stopping:
            self._refuse(peer, message, 'failed', self._ending)
        elif message.python != self._facts.python:
            text = (
                f'it runs Python {self._facts.python} and the program Python {message.python}: '
                f'start dispynode with Python {message.python}'
            )
            self._refuse(peer, message, 'failed', text)
        elif not message.package:  # no function is pickled to nothing
            self._refuse(peer, message, 'failed', 'it has no memory left for the function')
        elif before is not None:
            # the scheduler lost us meanwhile and has given up the jobs that run here
            self._drop(before)
            self._peers[peer].waits = True
            self._refuse(peer, message, 'busy', 'it ends what it ran before the connection broke')
        elif holder is not None and holder.scheduler != peer:
            self._peers[peer].waits = True
            self._refuse(peer, message, 'busy', f'held by {holder.opened.owner}')
        else:
            hosted = self._hosted[message.computation] = Hosted(peer, message)
            self._out.append(hosted.order())

    def _refuse(self, peer: str, message: OpenComputation, kind: str, reason: str) -> None:
        self._send(peer, ComputationRefused(message.computation, kind, reason))

    def _template_ready(self, event: TemplateReady, now: float) -> None:
        hosted = self._hosted.get(event.computation)
        if hosted is not None and hosted.state is HostedState.OPENING:
            hosted.state = HostedState.READY
            if not hosted.reopenings:
                self._send(hosted.scheduler, ComputationReady(hosted.id))

    def _template_failed(self, event: TemplateFailed, now: float) -> None:
        hosted = self._hosted.get(event.computation)
        if hosted is None or hosted.state is HostedState.CLOSING:
            return
        if not self._stopping and hosted.begin_reopening():
            text = f'{hosted.opened.name}: {event.reason}; another is started'
            self._out.append(Report(levels.WARNING, text))
            self._out.append(CloseTemplate(hosted.id))
        else:
            self._workplace.give_back(hosted, hosted.waiting, event.reason)
            self._send(hosted.scheduler, ComputationRefused(hosted.id, 'failed', event.reason))
            self._drop(hosted)

    def _close(self, peer: str, message: CloseComputation, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer:
            self._peers[peer].waits = self._peers[peer].waits and bool(self._hosted)
            self._send(peer, ComputationClosed(message.computation))
        else:
            self._drop(hosted)

    def _drop(self, hosted: Hosted) -> None:
        """End what runs of a computation and remove it; `TemplateClosed` completes this."""
        before, hosted.state = hosted.state, HostedState.CLOSING
        if before is not HostedState.CLOSING:
            hosted.forget_waiting()
            hosted.letters.clear()
            if before is not HostedState.REOPENING:  # its template is being closed already
                self._out.append(CloseTemplate(hosted.id))

    def _template_closed(self, event: TemplateClosed, now: float) -> None:
        hosted = self._hosted.get(event.computation)
        if hosted is None:
            return
        if hosted.state is HostedState.REOPENING:
            hosted.state = HostedState.OPENING
            self._out.append(hosted.order())
            return
        del self._hosted[hosted.id]
        if hosted.scheduler in self._peers:
            self._send(hosted.scheduler, ComputationClosed(hosted.id))
        if not self._hosted:
            for name, peer in self._peers.items():
                if peer.waits:
                    peer.waits = False
                    self._send(name, NodeFree())

    # jobs

    def _run(self, peer: str, message: RunJobs, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer or hosted.state is HostedState.CLOSING:
            reason = 'the computation is not open on this node'
            back = JobsReturned(message.computation, message.ids, message.attempts, reason)
            self._send(peer, back)
            return
        self._workplace.accept(hosted, message)
        if self._stopping:
            self._workplace.give_back(hosted, hosted.waiting, self._ending)

    def _recall(self, peer: str, message: RecallJobs, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer:
            self._send(peer, JobsReturned(message.computation, [], [], ''))
        else:
            self._workplace.recall(hosted, message.count)

    def _acknowledged(self, peer: str, message: AcknowledgeOutcomes, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            for letter in message.letters:
                hosted.letters.pop(letter, None)

    def _stop_jobs(self, peer: str, message: StopJobs, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer:
            return
        for job, attempt in zip(message.ids, message.attempts, strict=True):
            self._workplace.stop(hosted, job, attempt, now)

    # time, and the end

    def _deadline_passed(self, event: DeadlinePassed, now: float) -> None:
        self._workplace.kill_due(now)
        if self._peers and now >= self._look_at:
            self._look_for_zombies(now)

    def _look_for_zombies(self, now: float) -> None:
        """Give up schedulers that were silent for too long."""
        self._look_at = now + ZOMBIE_LOOK_INTERVAL
        for name, peer in list(self._peers.items()):
            if now - peer.heard_at > ZOMBIE_SECONDS:
                self._peer_lost(PeerLost(name, 'nothing was heard of it for an hour'), now)
                self._out.append(Disconnect(name))

    def _stop_asked(self, event: StopAsked, now: float) -> None:
        if event.at_once:
            self._stopping = self._stopping or event.reason
            self._stop_by = now
            return
        running = sum(hosted.running for hosted in self._hosted.values())
        if running and not self._stopping:
            jobs = '1 running job' if running == 1 else f'{running} running jobs'
            text = f'ending after {jobs}; interrupt again to end at once'
            self._out.append(Report(levels.WARNING, text))
        self._begin_stop(event.reason)

    def _owner_gone(self, event: OwnerGone, now: float) -> None:
        self._stop_by = now + ORPHAN_SECONDS
        self._begin_stop('the program that started this node has ended')

    def _begin_stop(self, reason: str) -> None:
        """Take no more jobs and give back those that wait; what runs may end."""
        self._stopping = reason
        for peer in self._peers:
            self._send(peer, NodeEnding(reason))
        for hosted in self._hosted.values():
            if hosted.waiting:
                self._workplace.give_back(hosted, hosted.waiting, self._ending)

    def _stop_if_done(self, now: float) -> None:
        """End once nothing runs and every outcome was taken, or nobody is left to take it."""
        if self._stopping and not self._stopped:
            busy = any(
                hosted.running or (hosted.letters and not hosted.orphaned)
                for hosted in self._hosted.values()
            )
            if not busy or now >= self._stop_by:
                self._stop_now()

    def _stop_now(self) -> None:
        self._stopped = True
        begun = {hosted.id: hosted.begun_ids() for hosted in self._hosted.values()}
        for peer in self._peers:
            self._send(peer, Farewell(self._stopping, begun))
        for hosted in self._hosted.values():
            self._drop(hosted)
        self._out.append(Stop(self._stopping))
