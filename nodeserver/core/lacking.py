"""What a client that is back lacks, and what it does not want any more."""

from collections.abc import Iterator
from itertools import chain

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import UseState
from nodeserver.core.jobrecord import JobRecord
from nodeserver.core.messages import DropData, ResendLetters, StopJobs
from nodeserver.core.parts import Parts
from nodeserver.core.status import JobStatus
from nodeserver.core.takeover import Takeover

DATA_LOST = 'it had not started: its program ended before it had sent the data that the job names'
_NOTHING_THERE = (UseState.ASKING, UseState.UNWANTED, UseState.DISMISSED, UseState.CLOSING)


def end_without_data(parts: Parts, comp: Computation, takeover: Takeover) -> None:
    """End jobs at nodes that wait there for data which their program had not sent at its end.

    Whoever comes in its place with nothing but their ids does not have these data either.
    """
    bare, takeover.bare = takeover.bare, []
    if comp.data is None:
        return
    by_node: dict[str, list[int]] = {}
    for job in bare:
        entry = comp.jobs.get(job)
        if isinstance(entry, JobRecord) and comp.data.lacks_some(entry.shared):
            by_node.setdefault(comp.places[job], []).append(job)
    for node, ids in by_node.items():
        parts.send(node, StopJobs(comp.id, ids, [comp.attempt(job) for job in ids]))
        parts.dispatch.ended(parts.fleet.nodes[node], comp, len(ids))
        parts.records.note(comp, '', ids)
        comp.settle(ids)
        parts.endings.settle(comp, ids, JobStatus.CANCELLED, DATA_LOST)


def drop_data(parts: Parts, comp: Computation, takeover: Takeover) -> None:
    """Forget shared data that the client, while it was away, has found to be of no use."""
    if comp.data is None:
        return
    doubted = (entry for jobs in takeover.doubts.values() for entry in jobs.values())
    entries = chain(comp.waiting.values(), comp.jobs.values(), doubted)
    named = {data for e in entries if isinstance(e, JobRecord) for data in e.shared}
    gone = comp.data.take_doubted(named)
    if gone:
        parts.dispatch.drop(comp, DropData(comp.id, gone))


def have_resent(parts: Parts, comp: Computation) -> None:
    """Nodes are to send again what the client has not acknowledged; later letters as ever."""
    for node, letters in holders(parts, comp):
        parts.send(node, ResendLetters(comp.id, letters))


def holders(parts: Parts, comp: Computation) -> Iterator[tuple[str, list[int]]]:
    """Nodes that have something of a computation, and their letters that its client may lack.

    Also one that is not used any more: what it had handed over it keeps until it is thanked.
    """
    numbers = comp.undelivered.numbers_of()
    for node in parts.fleet.nodes.values():
        use = node.uses.get(comp.id)
        if node.id in numbers or (use is not None and use.state not in _NOTHING_THERE):
            yield node.id, numbers.get(node.id, [])
