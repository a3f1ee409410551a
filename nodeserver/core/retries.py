"""Which jobs are run again when they failed or lost their node, and what is said of the others."""

from nodeserver.core.computation import Computation
from nodeserver.core.jobrecord import Entry, JobRecord
from nodeserver.core.letters import part_of
from nodeserver.core.messages import JobsDone, JobsRetried
from nodeserver.core.status import JobStatus


def after_failures(attempts: int, last: str) -> str:
    """Say how a job failed that was begun so often."""
    return f'failed {attempts} times; last: {last}' if attempts > 1 else last


def split(comp: Computation, done: JobsDone) -> tuple[JobsDone, JobsRetried | None]:
    """Queue the failed jobs of a letter that have retries left; the letter without them."""
    if comp.declared.collects:
        return done, None  # nothing is to be run again
    columns = zip(done.ids, done.statuses, strict=True)
    again = [s == JobStatus.TERMINATED and _has_retry(comp.jobs[job]) for job, s in columns]
    if not any(again):
        return done, None
    failed = part_of(done, again)
    _use_retry(comp, failed.ids)
    comp.requeue(failed.ids)
    retried = JobsRetried(comp.id, failed.ids, failed.outcomes, failed.reasons)
    return part_of(done, [not each for each in again]), retried


def sort_lost(
    comp: Computation, ids: list[int], reason: str
) -> tuple[list[int], dict[str, list[int]]]:
    """Which jobs of a lost node are run again; the others are forgotten, by what is said of them.

    A reentrant job may be run again as often as it takes: that uses none of its retries.
    """
    collects = comp.declared.collects  # so nothing is to be run again
    if comp.declared.reentrant and not collects:
        return ids, {}
    again = [job for job in ids if not collects and _has_retry(comp.jobs[job])]
    _use_retry(comp, again)
    ended: dict[str, list[int]] = {}
    left = set(ids).difference(again)
    for job in filter(left.__contains__, ids):
        text = after_failures(comp.record(job).failures + 1, reason)
        ended.setdefault(text, []).append(job)
    comp.settle(left)
    return again, ended


def _has_retry(entry: Entry) -> bool:
    if not isinstance(entry, JobRecord):
        return False
    has_more = entry.failures < entry.options.retries and bool(entry.payload)
    return has_more and not entry.stopping


def _use_retry(comp: Computation, ids: list[int]) -> None:
    for job in ids:
        comp.record(job).failures += 1
