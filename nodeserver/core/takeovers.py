"""Taking computations over: jobs are told of again, and nodes hand over what they have of them.

A job in doubt can be answered for by the node alone that the latest record of it names.
"""

from collections.abc import Iterable
from math import inf

from nodeserver.core.answers import Answers
from nodeserver.core.computation import Computation
from nodeserver.core.endings import End
from nodeserver.core.fleet import NodeRecord, UseState
from nodeserver.core.jobrecord import Entry, JobRecord, payload_of
from nodeserver.core.lacking import drop_data, end_without_data, have_resent
from nodeserver.core.messages import (
    ComputationReady,
    ComputationRefused,
    HandoverBegun,
    JobsDone,
    JobsHeld,
    JobsReturned,
    JobsStarted,
    ResubmitJobs,
    StopJobs,
)
from nodeserver.core.notcome import LOST_AFTER_PULSES, why_missing
from nodeserver.core.parts import Parts
from nodeserver.core.resubmitted import failed_before, is_latest, rows_of
from nodeserver.core.retries import sort_lost
from nodeserver.core.status import JobStatus, Unrun
from nodeserver.core.takeover import ALL_JOBS, ANYWHERE, Handover, Takeover
from nodeserver.core.undelivered import ids_before
from nodeserver.core.unstarted import queue_unfound, queue_unstarted, taken_back

OUTCOME_LOST = 'it had ended, and its outcome was lost with its node'
BUSY_SECONDS = 30.0  # after which a node is given up that serves another program still


class Takeovers:
    """Brings the jobs of computations that are taken over out of their doubt."""

    def __init__(self, parts: Parts, answers: Answers) -> None:
        self._parts = parts
        self._answers = answers
        self._computations = parts.fleet.computations
        answers.comes_again = self.comes_again

    # jobs that are told of again

    def resubmit(self, peer: str, message: ResubmitJobs, now: float) -> None:
        """Take in jobs of before: known, to be queued, or in doubt."""
        comp = self._computations.get(message.computation)
        takeover = comp.takeover if comp is not None else None
        if comp is None or comp.closing or takeover is None:
            return
        comp.latest = max(comp.latest, max(message.ids, default=0))
        fresh: dict[int, Entry] = {}
        doubts: dict[str, tuple[list[int], list[int]]] = {}
        for job, entry, told, failed in rows_of(comp, message):
            is_known = job in comp.jobs or job in comp.waiting
            if is_known and not payload_of(entry):
                takeover.bare.append(job)
            if not (is_known or job in takeover.where or job in takeover.settled):
                place = takeover.place_of(job, told)
                if failed:
                    entry = failed_before(comp, entry, failed)
                if job in takeover.cancelled:
                    entry = taken_back(comp, entry)
                if place[0]:
                    takeover.doubt(job, entry, place)
                    ids, attempts = doubts.setdefault(place[0], ([], []))
                    ids.append(job)
                    attempts.append(place[1])
                else:
                    fresh[job] = entry
        doubts.pop(ANYWHERE[0], None)  # that is on record for all of them
        for node, columns in doubts.items():
            self._parts.records.note(comp, node, *columns)
        queue_unstarted(self._parts, comp, fresh, (message.node, message.options.priority))
        takeover.missing -= len(message.ids)
        if takeover.lost_at == inf and not takeover.is_gathering:
            self.begin(comp, now)

    def cancel(self, comp: Computation, jobs: Iterable[int]) -> None:
        """The user takes jobs back that are in doubt, or are yet to be told of."""
        takeover = comp.takeover
        if takeover is None:
            return
        for job in jobs:
            if job in takeover.where:
                entry = takeover.doubts[takeover.where[job]][job]
                record = entry if isinstance(entry, JobRecord) else comp.new_record(entry)
                record.stopping = True
                takeover.doubts[takeover.where[job]][job] = record
            elif takeover.is_gathering and job not in comp.jobs:
                takeover.cancelled.add(job)

    # nodes that are waited for

    def begin(self, comp: Computation, now: float) -> None:
        """All jobs are told of: nodes are opened, and those that do not come have some time."""
        takeover = comp.takeover
        if takeover is None:
            return
        takeover.cancelled.clear()
        takeover.begun_at = now
        takeover.lost_at = now + LOST_AFTER_PULSES * comp.declared.pulse_interval
        comp.notice_soon(now)
        if comp.unreached:
            told = takeover.where.keys() | comp.jobs.keys() | comp.waiting.keys()
            comp.told_of(told | takeover.settled | {ALL_JOBS})
        if comp.declared.collects:
            _leave_untold(comp, takeover)
            unstarted = [*comp.waiting]
            comp.waiting.clear()
            self._parts.endings.settle_unstarted(comp, unstarted)
        if takeover.resends:
            takeover.resends = False
            lacked = takeover.where.keys() | takeover.settled  # these may be under way to it
            comp.undelivered.lacked(lacked, self._parts.fleet.nodes)
            self._give_up_gone(comp, takeover)
            have_resent(self._parts, comp)
            end_without_data(self._parts, comp, takeover)
            drop_data(self._parts, comp, takeover)
        for node in list(self._parts.fleet.nodes.values()):
            if comp.id not in node.uses:
                self._parts.fleet.offer(node, comp, now)
        self._parts.fleet.discovery.look(comp, now)
        self.end_if_over(comp)

    def _give_up_gone(self, comp: Computation, takeover: Takeover) -> None:
        """Jobs had ended, and their outcomes were lost before the client had them."""
        by_place: dict[str, list[int]] = {}
        for job in comp.undelivered.take_gone():
            if job in takeover.where:
                by_place.setdefault(takeover.where[job], []).append(job)
        for place, ids in by_place.items():
            self._give_up(comp, place, ids, End(OUTCOME_LOST, JobStatus.ABANDONED))

    def due(self, comp: Computation, now: float) -> None:
        """Give up the nodes that have not come in time, unless they are handing over."""
        takeover = comp.takeover
        if takeover is None or now < takeover.lost_at:
            return
        takeover.lost_at = inf
        queue_unfound(self._parts, comp, takeover)
        nodes = self._parts.fleet.nodes
        coming = {name for node in takeover.handovers for name in takeover.names_of(nodes[node])}
        coming |= self._yet_busy(comp, takeover, now)
        for name in [*dict.fromkeys((*takeover.known, *takeover.doubts))]:
            if name not in coming and name != ANYWHERE[0]:
                self._never_came(comp, takeover, name)
        self.end_if_over(comp)

    def _yet_busy(self, comp: Computation, takeover: Takeover, now: float) -> set[str]:
        """Nodes that are there, and have not yet noticed that the program before us is gone.

        Who only collects does not wait for ever for a program that may run, after all.
        """
        patience = takeover.begun_at + BUSY_SECONDS if comp.declared.collects else inf
        busy = [
            node
            for node in self._parts.fleet.nodes.values()
            if (use := node.uses.get(comp.id)) is not None and use.state is UseState.BUSY
        ]
        names = {name for node in busy for name in takeover.names_of(node)}
        if not names or now >= patience:
            return set()
        takeover.lost_at = patience
        return names

    def _never_came(self, comp: Computation, takeover: Takeover, name: str) -> None:
        title, why = why_missing(self._parts.fleet.nodes, comp, takeover, name)
        takeover.forget(name)
        comp.undelivered.forget(name)
        ids = [*takeover.doubts.get(name, ())]
        if comp.declared.collects:
            reason = f'node {title} cannot be reached: {why}'
            end = End(reason, JobStatus.ABANDONED, Unrun.UNREACHED)
            if ids:
                comp.keeps = True
                comp.leave_at(name, ids, map(takeover.attempt_of, ids))
        else:
            end = End(f'node {title} was lost: {why}', JobStatus.CANCELLED)
        self._give_up(comp, name, ids, end)
        unrun = comp.give_up_pinned(name)
        self._parts.endings.settle(comp, unrun, JobStatus.CANCELLED, end.reason)

    def node_gone(self, node: NodeRecord, comp: Computation, now: float) -> None:
        """A node is lost that may have been handing over: it is to begin anew."""
        comp.undelivered.node_gone(node.id)
        takeover = comp.takeover
        if takeover is None:
            return
        was_asked = takeover.unasked(node.id)
        if node.id in takeover.doubts and node.id in comp.nodes:
            takeover.know(comp.nodes[node.id])
        if was_asked or node.id in takeover.doubts:
            self._hurry(takeover, now)

    def _hurry(self, takeover: Takeover, now: float) -> None:
        """The time in which nodes could come is over, if it was before."""
        if takeover.lost_at == inf and not takeover.is_gathering:
            takeover.lost_at = now

    # nodes that came

    def comes_again(
        self, node: NodeRecord, comp: Computation, message: JobsDone | JobsReturned
    ) -> bool:
        """Whether a message is to be dropped; jobs that it takes out of doubt are noted."""
        takeover = comp.takeover
        if takeover is None or comp.closing:
            return False
        names, handover = {node.id}, takeover.handovers.get(node.id)
        if handover is not None and not handover.has_begun:
            return True
        if handover is not None:
            names = takeover.names_of(node) | {ANYWHERE[0]}
            if isinstance(message, JobsDone):
                handover.letters.add(message.letter)
                comp.undelivered.came_again(handover.before, node.id, message.letter)
        if not names.isdisjoint(takeover.doubts):
            self._adopt_answered(comp, node, names, message)
            self.end_if_over(comp)
        return False

    def refused(self, node: NodeRecord, message: ComputationRefused, now: float) -> None:
        """A node cannot run a computation; it has handed over all that it has, or nothing."""
        comp = self._computations.get(message.computation)
        takeover = comp.takeover if comp is not None else None
        if comp is not None and takeover is not None and node.id in takeover.handovers:
            if message.kind == 'empty':
                self.held(node, JobsHeld(comp.id, [], []), now)
            else:
                takeover.unasked(node.id)
                self._hurry(takeover, now)
                self._parts.deadlines.moved()
        self._answers.refused(node, message, now)

    def ready(self, node: NodeRecord, message: ComputationReady, now: float) -> None:
        """A node can run a computation; so it has nothing more to hand over."""
        comp = self._computations.get(message.computation)
        if comp is not None and comp.takeover is not None and node.id in comp.takeover.handovers:
            self.held(node, JobsHeld(comp.id, [], []), now)
        self._parts.fleet.ready(node, message)

    def begun(self, node: NodeRecord, message: HandoverBegun, now: float) -> None:
        """A node is about to hand over what it has: it is known now for whom it can answer."""
        comp = self._computations.get(message.computation)
        takeover = comp.takeover if comp is not None else None
        if comp is None or takeover is None or node.id not in takeover.handovers:
            return
        before = {*message.formerly}.union(ids_before(node, comp.nodes), takeover.names_of(node))
        handover = Handover(True, message.formerly, frozenset(before - {node.id}))
        takeover.handovers[node.id] = handover

    def held(self, node: NodeRecord, message: JobsHeld, now: float) -> None:
        """A node has handed over what it has: all that was in doubt there is in doubt no longer."""
        comp = self._computations.get(message.computation)
        takeover = comp.takeover if comp is not None else None
        handover = takeover.handovers.get(node.id) if takeover is not None else None
        if comp is None or takeover is None or handover is None or not handover.has_begun:
            return  # the end of an earlier one, which was still under way, says nothing of this one
        names = takeover.names_of(node)
        del takeover.handovers[node.id]
        for name in names:
            takeover.forget(name)
        for name in (*handover.before, node.id):
            comp.undelivered.lose(name, handover.letters)
        for name in names.union(handover.formerly) - {node.id}:
            comp.repin(name, node.id)
            takeover.rename(name, node.id)
        self._take_up(comp, node, names | {ANYWHERE[0]}, message)
        told = comp.undelivered.jobs_at(node.id)  # and asked for again, if its client is back since
        for name in sorted(names):
            missing = [job for job in takeover.doubts.get(name, ()) if job not in told]
            self._came_without(comp, node, name, missing)
        self.end_if_over(comp)

    def _adopt_answered(
        self,
        comp: Computation,
        node: NodeRecord,
        names: set[str],
        message: JobsDone | JobsReturned,
    ) -> None:
        adopted = self._adopt(comp, node, names, message.ids, message.attempts)
        if adopted and (comp.has_retries or isinstance(message, JobsReturned)):
            # its client may take them for waiting, and is told next that they wait again
            self._parts.send(comp.client, JobsStarted(comp.id, node.id, adopted))
        if isinstance(message, JobsDone) and comp.has_retries:
            passed = {*comp.undelivered.believed_in(node.id, message.letter)}
            for job in passed.intersection(adopted):  # it was the last try, as was known then
                record = comp.record(job)
                record.failures = max(record.failures, record.options.retries)

    def _take_up(
        self, comp: Computation, node: NodeRecord, names: set[str], message: JobsHeld
    ) -> None:
        """Jobs wait or run at a node: those that it was asked for go on."""
        adopted = self._adopt(comp, node, names, message.ids, message.attempts)
        if adopted:
            self._parts.send(comp.client, JobsStarted(comp.id, node.id, adopted))
        taken_back = [job for job in adopted if comp.is_stopping(job)]
        for job in taken_back:
            comp.record(job).stopping = False
        self._parts.endings.stop(comp, taken_back)
        unasked = [
            (job, attempt)
            for job, attempt in zip(message.ids, message.attempts, strict=True)
            if comp.places.get(job) != node.id
        ]
        if unasked:
            ids, attempts = [job for job, _ in unasked], [attempt for _, attempt in unasked]
            self._parts.send(node.id, StopJobs(comp.id, ids, attempts))

    def _adopt(
        self,
        comp: Computation,
        node: NodeRecord,
        names: set[str],
        ids: list[int],
        attempts: list[int],
    ) -> list[int]:
        """Attempts of jobs in doubt that a node may answer for are current ones from now on."""
        takeover, adopted, numbers = comp.takeover, [], []
        assert takeover is not None
        for job, attempt in zip(ids, attempts, strict=True):
            if takeover.where.get(job) in names and is_latest(comp, takeover, job, attempt):
                entry = takeover.take(job)
                record = entry if isinstance(entry, JobRecord) else comp.new_record(entry)
                record.attempt = attempt
                if record.pinned in names:
                    record.pinned = node.id
                comp.jobs[job], comp.places[job] = record, node.id
                adopted.append(job)
                numbers.append(attempt)
        if adopted:
            self._parts.dispatch.found(node, comp, len(adopted))
            self._parts.records.note(comp, node.id, adopted, numbers)
        return adopted

    def _came_without(self, comp: Computation, node: NodeRecord, name: str, ids: list[int]) -> None:
        if comp.takeover is not None and name != node.id:
            comp.takeover.repin(name, node.id)
        if name != node.id:
            end = End(f'node {node.title} came back without it', JobStatus.ABANDONED)
        else:
            end = End(f'node {node.title} has it no more', JobStatus.CANCELLED)
        self._give_up(comp, name, ids, end)

    def _give_up(self, comp: Computation, place: str, ids: list[int], end: End) -> None:
        """Nobody will answer for jobs in doubt: again if they may, else ended."""
        takeover, endings = comp.takeover, self._parts.endings
        if takeover is None or not ids:
            return
        comp.undelivered.give_up({*ids})
        for job in ids:
            attempt = takeover.attempt_of(job)
            comp.jobs[job], comp.places[job] = takeover.take(job), place
            if attempt:  # the next one has another number
                comp.record(job).attempt = attempt
        again, ended = sort_lost(comp, ids, end.reason)
        if comp.declared.collects:
            comp.settle(again)
            again, ended = [], {end.reason: ids}
        if again:  # its client may take them for waiting, and is told next that they wait again
            self._parts.send(comp.client, JobsStarted(comp.id, place, again))
        endings.requeue(comp, again, end.reason, begun=True)
        for text, jobs in ended.items():
            endings.settle(comp, jobs, end.status, text, end.kind)

    def end_if_over(self, comp: Computation) -> None:
        """Nobody is waited for any more."""
        takeover = comp.takeover
        if takeover is None:
            return
        queue_unfound(self._parts, comp, takeover)
        if takeover.is_over:
            comp.takeover = None
            if takeover.asks_all:
                self._parts.records.unknown(comp, False)
            self._parts.fleet.discovery.knocking.unwanted()


def _leave_untold(comp: Computation, takeover: Takeover) -> None:
    """Jobs on record that who only collects does not name may be such as were not reached."""
    if takeover.asks_all:
        comp.leave_at(ANYWHERE[0], (ALL_JOBS,), ANYWHERE[1:])
    elif takeover.is_on_record:
        known = takeover.where.keys() | comp.jobs.keys() | takeover.settled
        known |= {job for ids, _ in comp.unreached.values() for job in ids}
        for job, (node, attempt) in takeover.overrides.items():
            if job not in known:
                comp.leave_at(node, (job,), (attempt,))
