"""The client's half of a cluster: which of its jobs are pending.

JobsSubmitted ──▶ StoreJobs, Send(SubmitJobs)
JobsDone ──▶ SettleJobs, AcknowledgeOutcomes; StoreOutcomes before the second, or both
PeerConnected ──▶ Send(DeclareComputation), Send(ResubmitJobs) ...     a scheduler elsewhere

A scheduler in the same program lives as long as its clusters.  One elsewhere may go and come back,
or another one in its place: then it is told of everything that has not ended.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any, get_args

from nodeserver.core import levels
from nodeserver.core.acknowledging import Acknowledging
from nodeserver.core.effects import (
    AskAllocation,
    DeliverOutput,
    DeliverProvisional,
    Effect,
    HearOfFiles,
    MarkRequeued,
    MarkRetried,
    MarkStarted,
    Report,
    SayClosed,
    Send,
    SettleJobs,
    SettleRequest,
    SettleUnrun,
    TellNode,
)
from nodeserver.core.events import (
    CancelAsked,
    CertificateExpiring,
    CloseAsked,
    DataDropped,
    DataShared,
    DeadlinePassed,
    Event,
    FilesToSay,
    JobsSubmitted,
    LinkMended,
    MessageArrived,
    PeerConnected,
    PeerLost,
    RequestMade,
    SchedulerMissed,
)
from nodeserver.core.filemessages import FileMessage
from nodeserver.core.fleetmessages import RequestAnswered
from nodeserver.core.letters import part_of
from nodeserver.core.messages import (
    AllocateAsk,
    CancelJobs,
    ComputationClosed,
    DeclareComputation,
    DropData,
    JobsDone,
    JobsOutput,
    JobsProvisional,
    JobsRequeued,
    JobsRetried,
    JobsSettled,
    JobsStarted,
    NodeChanged,
    Notice,
    OutputTaken,
    ResubmitJobs,
    ShareData,
    SubmitJobs,
)
from nodeserver.core.missing import Missing
from nodeserver.core.outputpace import OutputPace
from nodeserver.core.pending import Asked
from nodeserver.core.recoveryeffects import (
    DropStored,
    Keeping,
    StoreData,
    StoreEpoch,
    StoreJobs,
    StoreUnrun,
)
from nodeserver.core.status import JobStatus
from nodeserver.core.unsettled import NothingKept, Unsettled

_CLOSED = 'cancelled: its cluster was closed'


class ClusterCore:
    """One cluster in the user's program.

    `before` are jobs of a cluster that is gone, and the data that they share, whose computation
    this one takes over.
    """

    def __init__(
        self,
        scheduler: str,
        declared: DeclareComputation,
        before: Sequence[ResubmitJobs | ShareData] = (),
        is_elsewhere: bool = False,
        keeping: Keeping = Keeping.NOTHING,
    ) -> None:
        self._scheduler = scheduler
        self._declared = declared
        self._unsettled = Unsettled() if is_elsewhere else NothingKept()
        self._is_away = is_elsewhere  # the scheduler, at first too
        self._is_known = declared.resumes  # some scheduler has heard of the computation
        self._missing = Missing(declared.name)
        self._asked = Asked(declared.computation, is_elsewhere)
        self._is_closing = False
        self._cancelled: set[int] = set()  # pending jobs that the user has taken back
        self._keeping = keeping
        self._pending = self._unsettled.taken_over(before)
        self._letters = Acknowledging(keeping)
        self._output_pace = OutputPace()
        self._out: list[Effect] = []
        self._unsettled.know(declared.nodes)
        if not is_elsewhere:
            self._out += [Send(scheduler, declared), *(Send(scheduler, m) for m in before)]
        self._events = self._event_table()
        self._messages = self._message_table()

    def _event_table(self) -> dict[type[Any], Callable[[Any, float], None]]:
        return {
            JobsSubmitted: self._submitted,
            DataShared: self._data_shared,
            DataDropped: self._data_dropped,
            CancelAsked: self._cancel_asked,
            RequestMade: self._request_made,
            CloseAsked: self._close_asked,
            DeadlinePassed: lambda event, now: None,  # `end_turn` looks at the time
            MessageArrived: self._message_arrived,
            PeerConnected: self._scheduler_found,
            PeerLost: self._scheduler_lost,
            SchedulerMissed: lambda event, now: self._out.extend(self._missing.missed(event, now)),
            LinkMended: lambda event, now: self._out.extend(self._missing.mended()),
            CertificateExpiring: self._certificate_expiring,
            FilesToSay: self._files_to_say,
        }

    def _message_table(self) -> dict[type[Any], Callable[[Any], None]]:
        return {
            JobsStarted: self._started,
            JobsRequeued: self._requeued,
            JobsRetried: self._retried,
            JobsDone: self._done,
            JobsProvisional: lambda message: self._out.append(DeliverProvisional(message)),
            JobsOutput: self._output,
            JobsSettled: self._settled,
            NodeChanged: self._node_changed,
            AllocateAsk: lambda message: self._out.append(AskAllocation(message)),
            Notice: lambda message: self._out.append(Report(message.level, message.text)),
            RequestAnswered: self._request_answered,
            ComputationClosed: self._computation_closed,
            **dict.fromkeys(get_args(FileMessage), self._of_files),
        }

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened and answer what is to be done."""
        self._events[type(event)](event, now)
        effects = self._out[:]
        self._out.clear()
        return effects

    def end_turn(self, now: float) -> list[Effect]:
        """Acknowledge letters together, a moment later: their jobs' waiters come first."""
        if self._letters.is_due(now):
            self._acknowledge()
        for node in self._output_pace.free(now):
            self._send(OutputTaken(self._declared.computation, node))
        effects = self._out[:]
        self._out.clear()
        return effects

    def next_deadline(self) -> float | None:
        """When letters are to be acknowledged at the latest, or output may be asked for again."""
        due = min(self._letters.next(), self._output_pace.next())
        return due if due != inf else None

    def _acknowledge(self) -> None:
        self._out += self._letters.stored()
        for thanks in self._letters.take(self._declared.computation):
            self._send(thanks)

    def _send(self, message: Any) -> None:
        """Tell the scheduler; one that is away is told what still matters when it is back."""
        if not self._is_away:
            self._out.append(Send(self._scheduler, message))

    def _message_arrived(self, event: MessageArrived, now: float) -> None:
        handler = self._messages.get(type(event.message))
        if handler is None:
            text = f'unexpected {type(event.message).__name__} from the scheduler'
            self._out.append(Report(levels.WARNING, text))
        else:
            handler(event.message)

    # a scheduler elsewhere

    def _scheduler_found(self, event: PeerConnected, now: float) -> None:
        """The scheduler is here, or back: tell it of everything that has not ended."""
        if not self._is_away or (self._is_closing and not self._is_known):  # that is closed
            return
        self._is_away = False
        self._out += self._missing.found(event.address, self._is_known)
        self._send(
            replace(
                self._declared,
                resubmits=len(self._unsettled) if self._is_known else 0,
                nodes=[*self._unsettled.nodes.values()],
                specs=[*self._asked.added, *self._declared.specs],
            )
        )
        computation = self._declared.computation
        for data, content in self._unsettled.data.items():
            self._send(ShareData(computation, data, content))
        kept = self._unsettled
        for message in (kept.resubmissions if self._is_known else kept.submissions)(computation):
            self._send(message)
        self._is_known = True
        if self._cancelled:
            self._send(CancelJobs(computation, sorted(self._cancelled)))
            self._cancelled &= self._pending
        if kept.dropped:
            self._send(DropData(computation, kept.take_dropped()))
        if self._is_closing:
            self._send(kept.closing(computation))

    def _scheduler_lost(self, event: PeerLost, now: float) -> None:
        """The scheduler is gone: what nodes keep is acknowledged when it comes to us again."""
        if self._is_away:
            return
        self._is_away = True
        self._out += self._letters.stored()  # they have ended, and are not submitted again
        self._letters.take(self._declared.computation)  # nodes send them once more
        epoch = self._declared.epoch + 1
        self._declared = replace(self._declared, resumes=True, epoch=epoch)
        self._out += [StoreEpoch(epoch), *self._missing.lost(event.reason, now)]
        self._out += self._asked.give_up(self._missing.reason)
        self._end_cancelled(sorted(self._cancelled & self._pending))
        if self._is_closing:
            self._end_unrun(sorted(self._pending), JobStatus.CANCELLED, _CLOSED)

    def _certificate_expiring(self, event: CertificateExpiring, now: float) -> None:
        self._out.append(Report(levels.WARNING, event.text))

    def explain_absence(self) -> list[str]:
        """Say how things stand while the scheduler cannot be asked."""
        total, placed = len(self._pending), self._unsettled.placed
        jobs = f'{self._declared.name}: {total} {"job" if total == 1 else "jobs"} pending'
        if placed:
            jobs += f', {placed} of them with nodes when the scheduler was last heard of'
        return [jobs, *self._missing.words()]

    def _request_made(self, event: RequestMade, now: float) -> None:
        if self._is_away:
            self._out.append(self._asked.refusal(event.message, self._missing.reason))
            return
        self._asked.made(event.message)
        self._send(event.message)

    def _request_answered(self, message: RequestAnswered) -> None:
        self._asked.answered(message)
        self._out.append(SettleRequest(message))

    def _files_to_say(self, event: FilesToSay, now: float) -> None:
        if self._is_away:
            self._out += self._asked.file_refusal(event.message, self._missing.reason)
            return
        self._asked.of_files(event.message)
        self._send(event.message)

    def _node_changed(self, message: NodeChanged) -> None:
        """Note where a node is: it may be asked for what it has, one day."""
        self._out += [*self._unsettled.met(message, self._keeping), TellNode(message)]

    # the user's wishes

    def _submitted(self, event: JobsSubmitted, now: float) -> None:
        self._pending.update(event.ids)
        self._unsettled.submitted(event)
        if self._keeping >= Keeping.JOBS:
            self._out.append(StoreJobs(event))
        self._send(
            SubmitJobs(
                self._declared.computation,
                event.node,
                event.ids,
                event.payloads,
                event.options,
                event.shared,
                event.manifests,
            )
        )

    def _data_shared(self, event: DataShared, now: float) -> None:
        self._unsettled.share(event.data, event.content)
        if self._keeping == Keeping.ALL:
            self._out.append(StoreData(event.data, event.content))
        self._send(ShareData(self._declared.computation, event.data, event.content))

    def _data_dropped(self, event: DataDropped, now: float) -> None:
        self._unsettled.drop(event.ids, self._is_away and self._is_known and not self._is_closing)
        if self._keeping == Keeping.ALL:
            self._out.append(DropStored(event.ids))
        self._send(DropData(self._declared.computation, event.ids))

    def _cancel_asked(self, event: CancelAsked, now: float) -> None:
        ids = [job for job in event.ids if job in self._pending]
        if not ids:
            return
        self._send(CancelJobs(self._declared.computation, ids))
        self._end_cancelled(ids)

    def _end_cancelled(self, ids: list[int]) -> None:
        if self._is_away:
            self._end_unrun(ids, JobStatus.CANCELLED, 'cancelled while the scheduler was away')
        self._cancelled.update(ids)

    def _close_asked(self, event: CloseAsked, now: float) -> None:
        self._is_closing = True
        self._acknowledge()
        self._send(self._unsettled.closing(self._declared.computation))
        if self._is_away:
            self._end_unrun(sorted(self._pending), JobStatus.CANCELLED, _CLOSED)
            if self._is_known:
                self._out += self._missing.closing()
            else:  # no scheduler has anything of it
                self._computation_closed(ComputationClosed(self._declared.computation))

    # the scheduler's answers

    def _started(self, message: JobsStarted) -> None:
        moved = self._unsettled.elsewhere(message.node, message.ids)
        if moved:
            reason = 'the node that had it is gone, or has come back without it'
            self._out.append(MarkRequeued(moved, reason))
        fresh = self._unsettled.started(message.node, message.ids)
        if fresh:  # a scheduler that has taken over tells of each once more
            self._out.append(MarkStarted(message.node, fresh))

    def _requeued(self, message: JobsRequeued) -> None:
        self._unsettled.left(message.ids)
        self._out.append(MarkRequeued(message.ids, message.reason))

    def _retried(self, message: JobsRetried) -> None:
        self._unsettled.failed(message.ids)
        self._out.append(MarkRetried(message))

    def _done(self, message: JobsDone) -> None:
        """Settle what is pending; a letter that comes again finds nothing, and is acknowledged."""
        pending = [job in self._pending for job in message.ids]
        if any(pending):
            self._forget(message.ids)
            believed = message if all(pending) else part_of(message, pending)
            self._out += [*self._letters.believed(believed), SettleJobs(believed)]
        self._letters.took(message.node, message.letter, sum(map(len, message.outcomes)))

    def _output(self, message: JobsOutput) -> None:
        if message.ids:
            self._out.append(DeliverOutput(message))
        self._output_pace.took(message)

    def _settled(self, message: JobsSettled) -> None:
        ids = [job for job in message.ids if job in self._pending]
        self._unsettled.ended(message)
        self._end_unrun(ids, message.status, message.reason, message.kind)
        if message.letter:
            self._letters.took('', message.letter)

    def _end_unrun(self, ids: list[int], status: int, reason: str, kind: int = 0) -> None:
        """End jobs without an outcome: who takes the cluster over does not run them again."""
        self._forget(ids)
        if ids and self._keeping:
            self._out.append(StoreUnrun(ids, status, reason, kind))
        if ids:
            self._out.append(SettleUnrun(ids, status, reason, kind))

    def _forget(self, ids: list[int]) -> None:
        """These jobs have ended."""
        self._pending.difference_update(ids)
        self._unsettled.settled(ids)
        if self._cancelled:
            self._cancelled.difference_update(ids)

    def _of_files(self, message: FileMessage) -> None:
        self._asked.of_files(message)
        self._out.append(HearOfFiles(message))

    def _computation_closed(self, message: ComputationClosed) -> None:
        """Nothing of it is left anywhere: nodes keep no letters for which we could thank them."""
        self._out += self._letters.stored()
        self._letters.take(self._declared.computation)
        self._cancelled.clear()  # of those that were cancelled while the scheduler was away
        self._unsettled.take_dropped()
        self._out.append(SayClosed())
