"""What happened: the values that shells hand to cores, named in the past tense."""

from dataclasses import field

from nodeserver.core.clientevents import SchedulerMissed as SchedulerMissed
from nodeserver.core.deaths import MemoryKill
from nodeserver.core.filemessages import FileMessage
from nodeserver.core.messages import ORDINARY, Availability, JobOptions, Message
from nodeserver.core.nodeevents import (
    ClockRead,
    CpusChosen,
    KeptFound,
    KeptSent,
    OwnerGone,
    PauseAsked,
    ReleaseAsked,
)
from nodeserver.core.recoveryevents import ClosingKnown as ClosingKnown
from nodeserver.core.recoveryevents import PlacementsKnown as PlacementsKnown
from nodeserver.core.values import value

# links


@value
class MessageArrived:
    """A peer said something; each numbered message arrives once and in its lane's order."""

    peer: str
    message: Message


@value
class PeerConnected:
    """A peer's greeting was accepted; a reconnect that loses nothing posts nothing."""

    peer: str
    address: str
    caller: str = ''  # what it is, if it connected to us


@value
class LinkBroken:
    """The connection to a node broke and is being made anew; nothing is lost so far."""

    peer: str


@value
class LinkMended:
    """The connection to a node stands again, and nothing was lost."""

    peer: str


@value
class PeerLost:
    """The peer is certainly gone: its port refuses, or it came back as another incarnation."""

    peer: str
    reason: str


@value
class PeerRefusedUs:
    """Talking to that peer is not possible: other key, other protocol version."""

    peer: str
    address: str
    reason: str


# discovery


@value
class NodeFound:
    """A node answered a ping or a knock; `local_path` is its ipc socket if we may use it."""

    node: str
    address: str
    port: int
    local_path: str
    asked_port: int = 0  # the UDP port that answered; not `port` where that was in use (D2)
    asked: str = ''  # the address that was asked, where the node wants another to be used (L10)
    is_tls: bool = False
    via: str = ''  # the relay that carries connections to it, by peer id


@value
class KnockFailed:
    """No node could be met by TCP at that place, which is tried again."""

    address: str
    port: int
    reason: str
    has_answered: bool = False  # somebody is there, who is of no use


@value
class OtherKeySeen:
    """Somebody at that address has another key than ours."""

    address: str


@value
class CertificateExpiring:
    """Our certificate ends soon, or has ended; `text` says when, and what to do."""

    text: str


@value
class RelayFound:
    """A relay answered a ping under our key."""

    relay: str
    address: str
    port: int
    is_tls: bool = False


# time


@value
class DeadlinePassed:
    """The moment that `next_deadline()` named has come."""


# processes on a node


@value
class TemplateReady:
    """The computation is unpacked: workers can be forked."""

    computation: int
    remarks: str = ''  # on packages that differ from the client's, a line each


@value
class TemplateFailed:
    """The computation could not be unpacked, or its template died, and all workers with it."""

    computation: int
    reason: str


@value
class TemplateNoted:
    """Something happened in a template that the user should know."""

    computation: int
    level: int
    text: str


@value
class TemplateClosed:
    """The template and all its workers are gone, and its files as asked for."""

    computation: int


@value
class WorkerForked:
    """A fresh process waits for work."""

    computation: int
    worker: int


@value
class JobsReported:
    """A worker wrote these outcomes, in the order in which it was given the jobs."""

    computation: int
    worker: int
    ids: list[int]
    raised: list[bool]
    outcomes: list[bytes]
    seconds: list[float]


@value
class JobsRecalled:
    """Of the jobs that a lasting worker was given, these are certainly not begun by it.

    They are told by their numbers, counted from 1 as the worker was given them.
    """

    computation: int
    worker: int
    first: int
    last: int


@value
class ProvisionalReported:
    """The job that a worker is in sent a provisional result."""

    computation: int
    worker: int
    id: int
    result: bytes


@value
class JobsPrinted:
    """What jobs that run have printed since the last time; a row for each stream of a job.

    Jobs are told by worker and number, counted from 1 as the worker was given them.
    """

    computation: int
    workers: list[int]
    numbers: list[int]
    streams: list[int]
    starts: list[int]
    texts: list[bytes]


@value
class WorkerEnded:
    """A worker's process is gone and reaped; `outcome` holds the output it left unreported."""

    computation: int
    worker: int
    exit_status: int | None  # negative: the signal that killed it; None: its template died too
    outcome: bytes
    peak_memory: int  # bytes above the template's own; 0: not known
    begun: bool = True  # False: of the jobs it was given and did not report, none has begun
    reason: str = ''  # why it left by itself
    memory_kill: MemoryKill = MemoryKill.UNKNOWN


@value
class MemoryExceeded:
    """A worker and what it started have more memory than its job asked for."""

    computation: int
    worker: int
    used: int  # bytes, without what it shares with its template


@value
class FileOffered:
    """The job that a worker is in sends a file to its client."""

    computation: int
    worker: int
    transfer: int
    manifest: bytes
    size: int


# files, of a node or a cluster


@value
class FilesToSay:
    """There is something to tell the other side of a transfer."""

    message: FileMessage


# a cluster in the user's program


@value
class JobsSubmitted:
    """The user's threads submitted these, for any node or (`node`) for one."""

    node: str
    ids: list[int]
    payloads: list[bytes]
    options: JobOptions = ORDINARY
    shared: list[list[int]] = field(default_factory=list)  # data of each; empty: none has any
    manifests: list[bytes] = field(default_factory=list)  # of each one's files; empty: none has any


@value
class DataShared:
    """There are data which jobs will name by this id."""

    data: int
    content: bytes


@value
class DataDropped:
    """No job names these data any more, and none will."""

    ids: list[int]


@value
class CancelAsked:
    """The user takes these jobs back."""

    ids: list[int]


@value
class RequestMade:
    """The user asks the scheduler for something that it answers."""

    message: Message


@value
class CloseAsked:
    """The user is done with the cluster, or whoever runs a node with the client that holds it.

    What is still pending is cancelled.
    """


# a relay


@value
class CarriedChanged:
    """So many connections are carried now."""

    count: int


# a node as a whole


@value
class AvailabilityMeasured:
    """What the machine has to spare; None where it cannot tell."""

    availability: Availability | None


@value
class StopAsked:
    """The program is to end: after telling everyone, or (`at_once`) with running jobs killed."""

    at_once: bool
    reason: str


Event = (
    MessageArrived
    | PeerConnected
    | LinkBroken
    | LinkMended
    | PeerLost
    | PeerRefusedUs
    | NodeFound
    | KnockFailed
    | RelayFound
    | CarriedChanged
    | OtherKeySeen
    | CertificateExpiring
    | DeadlinePassed
    | TemplateReady
    | TemplateFailed
    | TemplateClosed
    | TemplateNoted
    | WorkerForked
    | JobsReported
    | JobsRecalled
    | ProvisionalReported
    | JobsPrinted
    | WorkerEnded
    | FileOffered
    | FilesToSay
    | MemoryExceeded
    | JobsSubmitted
    | DataShared
    | DataDropped
    | CancelAsked
    | RequestMade
    | SchedulerMissed
    | CloseAsked
    | AvailabilityMeasured
    | StopAsked
    | OwnerGone
    | KeptFound
    | KeptSent
    | ClockRead
    | CpusChosen
    | PauseAsked
    | ReleaseAsked
    | PlacementsKnown
    | ClosingKnown
)
