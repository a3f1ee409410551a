"""What is said when somebody has died: how jobs and outcomes are found again.

    client ── DeclareComputation(resumes), ResubmitJobs ──▶ scheduler
    scheduler ── OpenComputation(resumes) ──▶ node
    scheduler ◀── HandoverBegun, JobsDone again, JobsReturned, JobsHeld ── node       a *handover*
    scheduler ── KeepOutcomes, ResendLetters ──▶ node          its client is away, and is back

Every recovery is one and the same *takeover*: a scheduler (that was lost, was restarted, or is
embedded in a program that attaches or recovers) opens a computation once more.  Whoever shows its
token may do so; the *epoch* counts takeovers, and of two schedulers that claim a computation a
node follows the one with the higher epoch.
"""

from dataclasses import dataclass, field

from nodeserver.core.values import ORDINARY, JobOptions, value

# client -> scheduler


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node that has, or may have, something of a computation, and where it was."""

    node: str  # its peer id at that time
    address: str
    port: int  # 0: it connects by itself
    via: str = ''  # the relay that carries the connection, by peer id


@value
class ResubmitJobs:
    """Jobs that were submitted before and have not been heard of as ended.

    Those that the scheduler knows are left as they are.  Others without a place are queued; those
    with one are *in doubt*, until the node there has handed over what it has, or is lost.
    """

    computation: int
    node: str  # as in `SubmitJobs`: the one they must run on
    ids: list[int]
    payloads: list[bytes]  # b'': not at hand any more, so that it can be fetched but not run
    places: list[str]  # the node each was with, by peer id; '': none, as far as is known
    options: JobOptions = ORDINARY
    shared: list[list[int]] = field(default_factory=list)
    manifests: list[bytes] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)  # retries that are used up
    attempts: list[int] = field(default_factory=list)  # there, by number; 0: not known


# scheduler -> node


@value
class KeepOutcomes:
    """The client of a computation is away: what is not acknowledged is to survive on disk."""

    computation: int


@value
class ResendLetters:
    """The client of a computation is back: these letters are to be sent once more."""

    computation: int
    letters: list[int]


# node -> scheduler


@value
class HandoverBegun:
    """All that a node has of a computation follows, whatever of it was said before.

    Sent in answer to each `OpenComputation` that resumes, so that it is known for which jobs the
    node can answer before it does.
    """

    computation: int
    formerly: tuple[str, ...] = ()  # peer ids under which this node had the computation before


@value
class JobsHeld:
    """A handover is complete: these attempts wait or run here, all others were told before.

    Sent also when nothing is held.
    """

    computation: int
    ids: list[int]
    attempts: list[int]


RecoveryMessage = ResubmitJobs | KeepOutcomes | ResendLetters | HandoverBegun | JobsHeld
