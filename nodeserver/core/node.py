"""A node's decisions: whom it serves, which job gets which cpu, and what is told of the end.

    RunJobs ──▶ Hosted.queue ── end_turn: a free cpu ──▶ GiveJobs ──▶ worker
    JobsDone ◀── end_turn: this turn's letter ◀── JobsReported, WorkerEnded

A node serves one scheduler at a time, as long as that has a computation open here (A25).
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from nodeserver.core import levels
from nodeserver.core.arrivals import Arrivals
from nodeserver.core.departure import Departure
from nodeserver.core.effects import CloseTemplate, Disconnect, Effect, Report, Send
from nodeserver.core.events import (
    AvailabilityMeasured,
    CloseAsked,
    DeadlinePassed,
    Event,
    JobsPrinted,
    JobsRecalled,
    JobsReported,
    MemoryExceeded,
    MessageArrived,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
    ProvisionalReported,
    StopAsked,
    TemplateClosed,
    TemplateFailed,
    TemplateNoted,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.figures import Figures
from nodeserver.core.handover import Handovers
from nodeserver.core.hosted import Hosted, HostedState, noted
from nodeserver.core.joborders import JobOrders
from nodeserver.core.liveoutput import LiveOutput
from nodeserver.core.messages import (
    CloseComputation,
    ComputationClosed,
    ComputationReady,
    ComputationRefused,
    DropData,
    Farewell,
    JobsReturned,
    NodeEnding,
    NodePaused,
    OpenComputation,
    OutputTaken,
    RunJobs,
    ShareData,
)
from nodeserver.core.nodeevents import (
    ClockRead,
    CpusChosen,
    OwnerGone,
    PauseAsked,
    ReleaseAsked,
)
from nodeserver.core.nodefacts import AT_ALL_TIMES, NodeFacts, NodeRules, Peer
from nodeserver.core.nodefiles import NodeFiles
from nodeserver.core.nodestatus import NodeFigures, count_figures, refused, status_lines
from nodeserver.core.openings import Openings
from nodeserver.core.shift import Shift
from nodeserver.core.silence import Silence
from nodeserver.core.workplace import Workplace


class NodeCore:
    """One node: its cpus, the scheduler it serves, and the computations it hosts."""

    def __init__(self, facts: NodeFacts, rules: NodeRules = AT_ALL_TIMES) -> None:
        self._facts = facts
        self._peers: dict[str, Peer] = {}
        self._hosted: dict[int, Hosted] = {}
        self._out: list[Effect] = []
        self._now = 0.0
        self._files = NodeFiles(facts, self._hosted, self._out.append, self._fail)
        self._arrivals = Arrivals(self._hosted, self._files.place)
        self._workplace = Workplace(facts, self._hosted, self._out.append)
        self._orders = JobOrders(self._hosted, self._workplace, self._out.append)
        shared = (self._peers, self._hosted)
        self._handovers = Handovers(facts.id, *shared, self._files, self._out.append)
        self._shelf, self._resending = self._handovers.shelf, self._handovers.resending
        self._departure = Departure(
            *shared, self._out.append, self._workplace, self._leave, self._shelf
        )
        self._shift = Shift(rules, *shared, self._workplace, self._departure, self._out.append)
        self._shift.refuse = self._refuse
        deciding = self._handovers, self._departure, self._shift
        self._openings = Openings(*deciding, lambda: self._facts, self._drop)
        self._silence = Silence(self._peers, rules.zombie_seconds)
        self._figures = Figures(self._out.append, self._peers, self.status)
        self._live_output = LiveOutput(facts.id, self._hosted, self._out.append)
        self._events = self._event_table()
        self._messages = self._message_table()

    def _event_table(self) -> dict[type[Any], Callable[[Any, float], None]]:
        return {
            MessageArrived: self._message_arrived,
            PeerConnected: self._peer_connected,
            PeerLost: self._peer_lost,
            PeerRefusedUs: lambda event, now: self._out.append(refused(event)),
            DeadlinePassed: self._deadline_passed,
            TemplateReady: self._template_ready,
            TemplateFailed: self._template_failed,
            TemplateClosed: self._template_closed,
            TemplateNoted: lambda event, now: self._out.extend(noted(self._hosted, event)),
            WorkerForked: self._workplace.forked,
            JobsReported: self._workplace.reported,
            JobsRecalled: self._workplace.recalled,
            ProvisionalReported: self._workplace.provisional,
            JobsPrinted: self._live_output.printed,
            WorkerEnded: self._workplace.ended,
            MemoryExceeded: self._workplace.exceeded,
            CpusChosen: self._resize,
            ClockRead: self._shift.clock_read,
            PauseAsked: self._shift.pause,
            ReleaseAsked: self._shift.release,
            CloseAsked: self._shift.close,
            StopAsked: self._departure.asked,
            OwnerGone: self._departure.owner_gone,
            **self._handovers.events,
            **self._files.events,
            AvailabilityMeasured: self._figures.measured,
        }

    def _message_table(self) -> dict[type[Any], Callable[[str, Any, float], None]]:
        return {
            OpenComputation: self._openings.open,
            RunJobs: self._run,
            **self._orders.messages,
            ShareData: self._arrivals.share,
            DropData: self._arrivals.drop,
            **self._handovers.messages,
            CloseComputation: self._close,
            OutputTaken: self._live_output.taken,
            **self._figures.messages,
            Farewell: self._farewell,
            **self._files.messages,
        }

    # the doors

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened and answer what is to be done."""
        self._now = now
        self._events[type(event)](event, now)
        return self._take()

    def end_turn(self, now: float) -> list[Effect]:
        """Send what ended in this turn, and give the free cpus their next jobs."""
        has_orphans = False
        for hosted in self._hosted.values():
            news = hosted.take_news(self._facts.id)
            if hosted.given_back and hosted.scheduler in self._peers:
                hosted.given_back.heard(self._peers[hosted.scheduler].heard_at)
            if hosted.keeps:
                self._shelf.store(hosted, now)
            if hosted.orphaned:
                has_orphans = True
                continue
            for message in news:
                self._send(hosted.scheduler, message)
        self._workplace.run(now)
        for hosted in self._hosted.values():  # also of jobs that go back, before they come again
            self._files.release(hosted)
        if has_orphans:
            self._end_orphans(now)
        self._shift.end_turn()
        self._departure.end_if_done(now)
        return self._take()

    def next_deadline(self) -> float | None:
        """When the core wants a `DeadlinePassed`, or None."""
        due = min(self._departure.deadline(), self._silence.deadline(), self._handovers.deadline())
        due = min(due, self._workplace.next_kill())
        return due if due != inf else None

    def check(self) -> None:
        """Raise `InvariantBroken` if a cpu holds two jobs."""
        self._workplace.check()

    @property
    def data_held(self) -> int:
        """Bytes of shared data on this node."""
        return sum(hosted.data.size for hosted in self._hosted.values())

    def _take(self) -> list[Effect]:
        effects = self._out[:]
        self._out.clear()
        return self._resending.in_order(effects)

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
        self._peers[event.peer] = Peer(now, event.address)
        self._silence.begins(now)
        self._send(event.peer, self._facts.details(self._figures.latest))
        if self._departure.reason:
            self._send(event.peer, NodeEnding(self._departure.reason))
        elif self._shift.closed:
            self._send(event.peer, NodePaused(self._shift.closed))

    def _peer_lost(self, event: PeerLost, now: float) -> None:
        if self._peers.pop(event.peer, None) is None:
            return
        self._shift.peer_left(event.peer)
        held = [hosted for hosted in self._hosted.values() if hosted.scheduler == event.peer]
        if held and not self._departure.is_over:
            text = f'the program that used this node is gone: {event.reason}'
            self._out.append(Report(levels.WARNING, text))
        self._handovers.peer_lost(event.peer, held)
        for hosted in held:
            if hosted.unwanted_by:
                self._drop(hosted)
        if held:
            self._shift.holder_gone()

    def _farewell(self, peer: str, message: Farewell, now: float) -> None:
        self._peers.pop(peer, None)
        self._shift.peer_left(peer)
        for hosted in [h for h in self._hosted.values() if h.scheduler == peer]:
            if hosted.unwanted_by or not (hosted.orphaned or hosted.opened.collects):
                self._drop(hosted)
            elif not hosted.orphaned:
                self._handovers.lose_holder(hosted)  # it was not closed: the rest will be collected
        self._handovers.farewell(peer)
        self._out.append(Disconnect(peer))

    def _end_orphans(self, now: float) -> None:
        """Close what a lost scheduler has left, once all of it has ended: the node is free."""
        is_wanted = bool(self._departure.reason) or any(p.waits for p in self._peers.values())
        for hosted in list(self._handovers.idle(now, is_wanted)):
            self._leave(hosted)

    # computations

    def _template_ready(self, event: TemplateReady, now: float) -> None:
        hosted = self._hosted.get(event.computation)
        if hosted is not None and hosted.state is HostedState.OPENING:
            hosted.state = HostedState.READY
            if not hosted.reopenings:
                hosted.takes_all = hosted.opened.cpus >= self._facts.cpus
                self._send(hosted.scheduler, ComputationReady(hosted.id, event.remarks))

    def _template_failed(self, event: TemplateFailed, now: float) -> None:
        hosted = self._hosted.get(event.computation)
        if hosted is None or hosted.state is HostedState.CLOSING:
            return
        if not self._departure.reason and hosted.begin_reopening():
            text = f'{hosted.opened.name}: {event.reason}; another is started'
            self._out.append(Report(levels.WARNING, text))
            self._out.append(CloseTemplate(hosted.id, keeps_files=True))
        else:
            self._fail(hosted, event.reason)

    def _fail(self, hosted: Hosted, reason: str) -> None:
        """A computation cannot be run here (any more)."""
        self._workplace.give_back(hosted, hosted.waiting, reason)
        if not hosted.orphaned:
            self._refuse(hosted, 'failed', reason)
        self._retire(hosted)

    def _refuse(self, hosted: Hosted, kind: str, reason: str) -> None:
        """Tell that none of its jobs will end here, after what they have brought in this turn."""
        for message in hosted.take_news(self._facts.id):
            self._send(hosted.scheduler, message)
        self._send(hosted.scheduler, ComputationRefused(hosted.id, kind, reason))

    def _close(self, peer: str, message: CloseComputation, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        self._openings.given_up(peer, message.computation)
        if message.keeps:
            if unwanted := self._handovers.left(peer, message.computation):
                self._drop(unwanted)
        elif hosted is not None and self._handovers.may_close(peer, hosted, message):
            hosted.returns = message.again
            self._drop(hosted)
        else:
            if hosted is None:
                self._handovers.close_kept(peer, message)
            has_cause = bool(self._hosted or self._shift.closed)
            self._peers[peer].waits = self._peers[peer].waits and has_cause
            waits = self._handovers.closing_waits(peer, message.computation)
            self._send(peer, ComputationClosed(message.computation, waits))

    def _drop(self, hosted: Hosted) -> None:
        """End all of a computation, and keep nothing of it."""
        self._shelf.forget(hosted.id)
        hosted.keeps = False
        hosted.letters.clear()
        self._end(hosted)

    def _retire(self, hosted: Hosted) -> None:
        """End what runs of a computation; what nobody has taken is kept for its client."""
        self._handovers.retire(hosted, self._now)
        self._end(hosted)

    def _leave(self, hosted: Hosted) -> None:
        """End what runs of a computation, for a reason that is not its client's."""
        is_wanted = self._handovers.may_be_gone(hosted, self._now)
        (self._retire if is_wanted else self._drop)(hosted)

    def _end(self, hosted: Hosted) -> None:
        """Remove a computation from the cpus; `TemplateClosed` completes this."""
        before, hosted.state = hosted.state, HostedState.CLOSING
        if before is not HostedState.CLOSING:
            hosted.forget_waiting()
            self._files.close(hosted)
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
        self._handovers.closed(hosted, now)
        del self._hosted[hosted.id]
        told = [hosted.scheduler, *([] if hosted.keeps else [hosted.unwanted_by])]
        for peer in dict.fromkeys(each for each in told if each in self._peers):
            self._send(peer, ComputationClosed(hosted.id))
        if not self._hosted:
            self._shift.client_left(hosted)
        self._openings.closed(hosted, now)

    # jobs

    def _run(self, peer: str, message: RunJobs, now: float) -> None:
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer or hosted.state is HostedState.CLOSING:
            if hosted is not None and hosted.scheduler == peer:
                hosted.given_back.remember(message.ids, message.attempts)
            reason = 'the computation is not open on this node'
            back = JobsReturned(message.computation, message.ids, message.attempts, reason)
            self._send(peer, back)
            return
        self._arrivals.accept(hosted, message)
        closed = self._departure.words or self._shift.closed
        if closed:
            self._workplace.give_back(hosted, hosted.waiting, closed)

    # time

    def _deadline_passed(self, event: DeadlinePassed, now: float) -> None:
        self._workplace.kill_due(now)
        self._shelf.expire(now)
        for name in self._silence.too_long(now):
            held = [hosted for hosted in self._hosted.values() if hosted.scheduler == name]
            # if it lives, it learns what it may run elsewhere: what waits here goes on as well
            begun = {h.id: h.begun_ids() + [job.id for job in h.queue] for h in held}
            self._send(name, Farewell(self._silence.words, begun))
            self._peer_lost(PeerLost(name, self._silence.words), now)
            self._out.append(Disconnect(name))

    # what whoever runs the node wants

    def _resize(self, event: CpusChosen, now: float) -> None:
        """Offer more or fewer cpus from now on; what runs goes on."""
        self._facts = replace(self._facts, cpus=event.cpus)
        self._workplace.resize(event.cpus)
        for hosted in self._hosted.values():
            if hosted.takes_all:
                hosted.opened = replace(hosted.opened, cpus=event.cpus)
        for peer in self._peers:
            self._send(peer, self._facts.details(self._figures.latest))

    def figures(self) -> NodeFigures:
        """Count what the node does."""
        what = self._hosted.values(), self._peers.values(), len(self._shelf), self._departure.words
        return count_figures((self._facts.cpus, self._workplace.busy), *what)

    def status(self) -> list[str]:
        """Say in words who holds the node and what it does."""
        cpus = (self._facts.cpus, self._workplace.busy)
        lines = status_lines(cpus, self._hosted.values(), self._peers.values())
        told = [self._departure.words] if self._departure.words else self._shift.words
        kept = self._shelf.lines(self._now)
        return [f'{self._facts.name}: {lines[0]}', *told, *lines[1:], *kept]
