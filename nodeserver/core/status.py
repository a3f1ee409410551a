"""The states of a job, and the moves between them that are allowed.

The table is the rule (D9): `DispyJob` refuses a move that it does not have.
"""

from enum import IntEnum


class JobStatus(IntEnum):
    """What became of a job so far; the numbers are dispy's own."""

    CREATED = 5
    RUNNING = 6
    PROVISIONAL = 7
    CANCELLED = 8
    TERMINATED = 9
    ABANDONED = 10
    FINISHED = 11


class Unrun(IntEnum):
    """What a later try has of a job that has ended without a node's word."""

    ENDED = 0  # nothing
    UNREACHED = 1  # who only collects did not reach its node, where it still may be
    UNSTARTED = 2  # it had not started, and who only collects did not want that: it may be run


STATUSES = {int(status): status for status in JobStatus}  # quicker than asking the enum


class NodeStatus(IntEnum):
    """What a `cluster_status` callback is told of a node; the numbers are dispy's own."""

    INITIALIZED = 4
    CLOSED = 16
    AVAIL_INFO = 17
    FIGURES = 18  # the same, for displays alone: no callback is told


SETTLED = frozenset(
    (JobStatus.CANCELLED, JobStatus.TERMINATED, JobStatus.ABANDONED, JobStatus.FINISHED)
)

ALLOWED_MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.CREATED: frozenset((JobStatus.RUNNING, *SETTLED)),
    # back to CREATED: the job came back unstarted, or failed and is run again
    JobStatus.RUNNING: frozenset((JobStatus.CREATED, JobStatus.PROVISIONAL, *SETTLED)),
    JobStatus.PROVISIONAL: frozenset((JobStatus.CREATED, JobStatus.PROVISIONAL, *SETTLED)),
    JobStatus.CANCELLED: frozenset(),
    JobStatus.TERMINATED: frozenset(),
    JobStatus.ABANDONED: frozenset(),
    JobStatus.FINISHED: frozenset(),
}
