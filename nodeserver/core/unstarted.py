"""Jobs of a takeover that no node has: they are queued, or end where they cannot run."""

from math import inf

from nodeserver.core.computation import Computation
from nodeserver.core.jobrecord import Entry, JobRecord, payload_of
from nodeserver.core.parts import Parts
from nodeserver.core.status import JobStatus
from nodeserver.core.takeover import ANYWHERE, Takeover


def taken_back(comp: Computation, entry: Entry) -> JobRecord:
    """A job whose user does not want it any more, wherever it is."""
    record = entry if isinstance(entry, JobRecord) else comp.new_record(entry)
    record.stopping = True
    return record


def queue_unstarted(
    parts: Parts, comp: Computation, fresh: dict[int, Entry], where: tuple[str, int]
) -> None:
    """Queue jobs that were not started, for a node or for any, by their priority."""
    settle = parts.endings.settle
    unwanted = [job for job, e in fresh.items() if isinstance(e, JobRecord) and e.stopping]
    settle(comp, unwanted, JobStatus.CANCELLED, 'cancelled before it started')
    wanted = {j: e for j, e in fresh.items() if not (isinstance(e, JobRecord) and e.stopping)}
    if comp.declared.collects:
        parts.endings.settle_unstarted(comp, [*wanted])
        return
    gone = [job for job, entry in wanted.items() if not payload_of(entry)]
    text = 'it had not started, and its arguments are gone'
    settle(comp, gone, JobStatus.CANCELLED, text)
    rest = {job: entry for job, entry in wanted.items() if payload_of(entry)}
    if rest:
        comp.queue_entries(where[0], rest, where[1])
        parts.dispatch.enlist(comp)


def queue_unfound(parts: Parts, comp: Computation, takeover: Takeover) -> None:
    """Nobody knew where these jobs were, and all nodes that came in time were asked for them."""
    has_time = takeover.lost_at != inf or takeover.is_gathering
    if not takeover.asks_all or has_time or takeover.handovers:
        return
    takeover.asks_all = False
    parts.records.unknown(comp, False)
    alike: dict[tuple[str, int], dict[int, Entry]] = {}
    for job in [*takeover.doubts.get(ANYWHERE[0], ())]:
        entry = takeover.take(job)
        where = '', 0
        if isinstance(entry, JobRecord):
            where = entry.pinned, entry.options.priority
        alike.setdefault(where, {})[job] = entry
    for where, entries in alike.items():
        queue_unstarted(parts, comp, entries, where)
