"""Jobs that do not end by themselves: taken back, given up with their node, or sent round again."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nodeserver.core.computation import Computation
from nodeserver.core.dispatch import Dispatch
from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import JobsRequeued, JobsRetried, JobsSettled, Message, StopJobs
from nodeserver.core.records import Records
from nodeserver.core.retries import sort_lost
from nodeserver.core.status import JobStatus, Unrun

UNSTARTED = 'it had not started, and only what had was asked for'


class End(NamedTuple):
    """How jobs end that nobody will answer for, unless they may run again."""

    reason: str
    status: JobStatus
    kind: Unrun = Unrun.ENDED


class Endings:
    """Ends jobs, or has them wait again, and tells their client."""

    def __init__(
        self,
        dispatch: Dispatch,
        records: Records,
        emit: Callable[[Effect], None],
        is_shared: bool = False,
    ) -> None:
        self._dispatch = dispatch
        self._records = records
        self._emit = emit
        self._is_shared = is_shared  # clients may be away, and are told when they are back

    def _send(self, peer: str, message: Any) -> None:
        self._emit(Send(peer, message))

    def settle(
        self,
        comp: Computation,
        ids: list[int],
        status: JobStatus,
        reason: str,
        kind: Unrun = Unrun.ENDED,
    ) -> None:
        """Tell the client of jobs that ended without an outcome."""
        if not ids:
            return
        message = JobsSettled(comp.id, ids, int(status), reason, kind=int(kind))
        if self._is_shared:
            message = comp.undelivered.numbered(message)
        if comp.takeover is not None:
            comp.takeover.settled.update(ids)
        self._send(comp.client, message)

    def settle_unstarted(self, comp: Computation, ids: list[int]) -> None:
        """Tell who only collects that these had not started: who comes next may have them run."""
        self.settle(comp, ids, JobStatus.CANCELLED, UNSTARTED, Unrun.UNSTARTED)

    def cancel(self, comp: Computation, jobs: list[int]) -> None:
        """The user takes jobs back, wherever they are."""
        for reason, ids in comp.take_back(jobs).items():
            self.settle(comp, ids, JobStatus.CANCELLED, reason)
        self.stop(comp, [job for job in jobs if job in comp.jobs])

    def stop(self, comp: Computation, jobs: list[int]) -> None:
        """Have nodes end jobs that are with them."""
        by_node: dict[str, list[int]] = {}
        for job in jobs:
            record = comp.record(job)
            if not record.stopping:
                record.stopping = True
                by_node.setdefault(comp.places[job], []).append(job)
        for node, ids in by_node.items():
            attempts = [comp.record(job).attempt for job in ids]
            self._send(node, StopJobs(comp.id, ids, attempts))

    def requeue(self, comp: Computation, ids: list[int], reason: str, begun: bool = False) -> None:
        """Let jobs wait again, but for those that the user has taken back meanwhile."""
        stopped = [job for job in ids if comp.is_stopping(job)]
        comp.settle(stopped)
        text = 'cancelled' if begun else 'cancelled before it started'
        self.settle(comp, stopped, JobStatus.CANCELLED, text)
        again = self._without_unfit(comp, [j for j in ids if j in comp.jobs], reason, begun)
        if again:
            self._records.note(comp, '', again)
            comp.requeue(again)
            self._dispatch.enlist(comp)
            requeued: Message = JobsRequeued(comp.id, again, reason)
            if begun:
                outcomes, reasons = [b''] * len(again), [reason] * len(again)
                requeued = JobsRetried(comp.id, again, outcomes, reasons)
            self._send(comp.client, requeued)

    def _without_unfit(
        self, comp: Computation, ids: list[int], reason: str, begun: bool
    ) -> list[int]:
        """End jobs that cannot be run again, or are not to be: only what had begun is wanted."""
        if comp.takes_all_again:
            return ids
        lacking = [job for job in ids if not comp.payload_of(job)]
        rest = [job for job in ids if comp.payload_of(job)]
        unwanted, again = (rest, []) if comp.declared.collects else ([], rest)
        comp.settle(lacking + unwanted)
        text = f'{reason}; its arguments are gone'
        self.settle(comp, lacking, JobStatus.CANCELLED, text)
        if begun:
            text = f'{reason}; only what had been started was asked for'
            self.settle(comp, unwanted, JobStatus.CANCELLED, text)
        else:
            self._records.note(comp, '', unwanted)
            self.settle_unstarted(comp, unwanted)
        return again

    def give_up(
        self,
        node: NodeRecord,
        comp: Computation,
        reason: str,
        status: JobStatus = JobStatus.CANCELLED,
    ) -> None:
        """Jobs that a node will not answer any more: again elsewhere if they may, else ended."""
        again, ended = sort_lost(comp, comp.on_node(node.id), reason)
        self.unload_all(node, comp)
        self.requeue(comp, again, reason, begun=True)
        for text, ids in ended.items():
            self.settle(comp, ids, status, text)

    def unload_all(self, node: NodeRecord, comp: Computation) -> None:
        """No job of a computation is with a node any more."""
        self._dispatch.unload(node, comp, node.loads.get(comp.id, 0))
