"""Jobs that are told of again: where each of them was, and which attempt of it counts."""

from collections.abc import Iterator

from nodeserver.core.computation import ATTEMPTS_OF_AN_EPOCH, Computation
from nodeserver.core.jobrecord import Entry, JobRecord
from nodeserver.core.messages import ResubmitJobs
from nodeserver.core.takeover import Place, Takeover


def rows_of(comp: Computation, message: ResubmitJobs) -> Iterator[tuple[int, Entry, Place, int]]:
    """Each job with its entry, where it was, and how many retries it has used up."""
    none = [0] * len(message.ids)
    failures, attempts = message.failures or none, message.attempts or none
    places = zip(message.places, attempts, strict=True)
    return zip(message.ids, comp.entries(message), places, failures, strict=True)


def is_latest(comp: Computation, takeover: Takeover, job: int, attempt: int) -> bool:
    """Whether an attempt of a job in doubt is the one that went to its node last."""
    known = takeover.attempt_of(job)
    if known:
        return attempt == known
    entry = takeover.doubts[takeover.where[job]][job]
    failures = entry.failures if isinstance(entry, JobRecord) else 0  # as its client knows
    return failures < attempt <= comp.attempts_from + ATTEMPTS_OF_AN_EPOCH


def failed_before(comp: Computation, entry: Entry, failures: int) -> Entry:
    """A job that has used up some of its retries."""
    record = entry if isinstance(entry, JobRecord) else comp.new_record(entry)
    record.failures = max(0, failures)
    return record
