"""What roles say to each other: one frozen value for many jobs, never one per job.

A message of jobs carries *columns*: parallel lists, the i-th entry of each belonging to the i-th
job.  It concerns one computation.  A computation's id is 63 random bits made by its client; a
job's id is that client's own small counter; nodes and clients are named by their peer id.

Large arguments are *shared data*: they travel apart from the jobs, to each node once, and jobs
name them by their ids, small counters of the cluster.  The column `shared` is empty when no job
of the message names any.

    cluster ── Declare, ShareData, SubmitJobs, CancelJobs, Acknowledge, Close ──▶ scheduler
    cluster ◀── JobsStarted, JobsDone, JobsProvisional, JobsSettled, NodeChanged ── scheduler
    scheduler ── OpenComputation, ShareData, RunJobs, StopJobs, Recall, Close ──▶ node
    cluster ── DropData, AcknowledgeOutcomes ──▶ scheduler ── the same ──▶ node
    (`recoverymessages` has what is said when somebody has died)
    scheduler ◀── NodeDetails, ComputationReady, JobsDone, JobsProvisional, NodePulse ── node

`JobsDone` and `JobsProvisional` pass through the scheduler unchanged; nobody between the job's
process and the client opens the payloads in them.
"""

from dataclasses import field

from nodeserver.core.askmessages import AskMessage
from nodeserver.core.clustermessages import AllocateAsk as AllocateAsk
from nodeserver.core.clustermessages import ComputationClosed as ComputationClosed
from nodeserver.core.clustermessages import JobsRequeued as JobsRequeued
from nodeserver.core.clustermessages import JobsRetried as JobsRetried
from nodeserver.core.clustermessages import JobsSettled as JobsSettled
from nodeserver.core.clustermessages import JobsStarted as JobsStarted
from nodeserver.core.clustermessages import NodeChanged as NodeChanged
from nodeserver.core.clustermessages import Notice as Notice
from nodeserver.core.diagnosis import AskDiagnosis as AskDiagnosis
from nodeserver.core.diagnosis import Diagnosis as Diagnosis
from nodeserver.core.filemessages import FileMessage
from nodeserver.core.fleetmessages import FleetMessage
from nodeserver.core.notices import NodeNotice as NodeNotice
from nodeserver.core.outputmessages import JobsOutput as JobsOutput
from nodeserver.core.outputmessages import OutputTaken as OutputTaken
from nodeserver.core.recoverymessages import HandoverBegun as HandoverBegun
from nodeserver.core.recoverymessages import JobsHeld as JobsHeld
from nodeserver.core.recoverymessages import KeepOutcomes as KeepOutcomes
from nodeserver.core.recoverymessages import KnownNode as KnownNode
from nodeserver.core.recoverymessages import RecoveryMessage
from nodeserver.core.recoverymessages import ResendLetters as ResendLetters
from nodeserver.core.recoverymessages import ResubmitJobs as ResubmitJobs
from nodeserver.core.relaymessages import RelayMessage
from nodeserver.core.values import ONE_CPU as ONE_CPU
from nodeserver.core.values import ORDINARY as ORDINARY
from nodeserver.core.values import Availability as Availability
from nodeserver.core.values import JobOptions as JobOptions
from nodeserver.core.values import NodeSpec as NodeSpec
from nodeserver.core.values import Resources as Resources
from nodeserver.core.values import value

# cluster -> scheduler


@value
class DeclareComputation:
    """A cluster was made: what to send to which nodes, and how to run its jobs."""

    computation: int
    name: str
    owner: str  # who holds a node, in words, for others who wait for it
    python: str  # '3.11': functions travel as this version's bytecode
    package: bytes
    specs: list[NodeSpec]
    node_port: int
    isolation: str  # 'job' or 'worker'
    reentrant: bool
    dest_path: str
    cleanup: bool
    pulse_interval: float
    ping_interval: float  # 0: no repeated pings beyond those at the start
    resources: Resources = ONE_CPU  # for each job
    manifest: bytes = b''  # of its own files
    token: bytes = b''  # who shows it may take the computation over
    epoch: int = 0  # how often that has been done
    resumes: bool = False  # it was declared before, by this program or by one that is gone
    collects: bool = False  # only what was scheduled then is wanted: nothing new is to run
    resubmits: int = 0  # jobs in the `ResubmitJobs` that follow
    exclusive: bool = False  # it wants all nodes for itself
    nodes: list[KnownNode] = field(default_factory=list)  # that may have something of it
    # where its program waits for a scheduler that looks for it; 0: nowhere
    port: int = 0
    hosts: list[str] = field(default_factory=list)  # empty: where its connection comes from


@value
class SubmitJobs:
    """Jobs to run, on any node (`node == ''`) or on one only: its id, or lines of its names."""

    computation: int
    node: str
    ids: list[int]
    payloads: list[bytes]
    options: JobOptions = ORDINARY
    shared: list[list[int]] = field(default_factory=list)
    manifests: list[bytes] = field(default_factory=list)  # of each job's files


@value
class ShareData:
    """Data that jobs name by its id (also to a node, before or after the first of them)."""

    computation: int
    data: int
    content: bytes


@value
class DropData:
    """No job names these data any more (also to a node)."""

    computation: int
    ids: list[int]


@value
class CancelJobs:
    """The user takes these jobs back, wherever they are."""

    computation: int
    ids: list[int]


@value
class CloseComputation:
    """The cluster is closed: jobs left are ended, files removed, nodes freed (also to a node)."""

    computation: int
    again: bool = False  # to a node: it is to be opened there anew
    # to a node: as if its scheduler were lost; of a client: some node was not reached.  What is
    keeps: bool = False  # at nodes goes on, and is kept for who comes later
    token: bytes = b''  # to a node that may keep it for whoever shows this,
    epoch: int = 0  # unless it was taken over since


@value
class AcknowledgeOutcomes:
    """These letters of this node have been settled and need not be kept (also to the node).

    Without a node, they are numbers of `JobsSettled`, which the scheduler keeps.
    """

    computation: int
    node: str
    letters: list[int]


@value
class AllocateAnswer:
    """How many cpus of a node a `NodeAllocate` subclass wants; 0 leaves the node unused."""

    computation: int
    node: str
    cpus: int
    reason: str = ''  # why 0, in words, if that is not what it answered
    setup_args: bytes = b''  # pickled, for `setup` on that node
    manifest: bytes = b''  # of the computation's own files there; b'': the same as elsewhere


# scheduler -> node


@value
class OpenComputation:
    """Unpack this and be ready to run its jobs, if the node is free for this scheduler."""

    computation: int
    name: str
    owner: str
    python: str
    package: bytes
    isolation: str
    dest_path: str
    cleanup: bool
    pulse_interval: float
    cpus: int  # how many of the node's to use at most (E03)
    resources: Resources = ONE_CPU  # for each job
    setup_args: bytes = b''  # pickled: those of `setup` and of the function `cleanup`
    manifest: bytes = b''  # of its own files
    token: bytes = b''  # as in `DeclareComputation`, and what follows
    epoch: int = 0
    resumes: bool = False  # what is here of it is to be handed over
    collects: bool = False  # if nothing is, it is not to be opened
    yields: bool = False  # to the scheduler that has it, if that gives signs of life
    client: int = 0  # computations with the same number share one part; 0: each has its own


@value
class RunJobs:
    """Run these; `attempts` tells a late answer from the current one."""

    computation: int
    ids: list[int]
    attempts: list[int]
    payloads: list[bytes]
    timeouts: list[float] = field(default_factory=list)  # empty: none of them has one
    shared: list[list[int]] = field(default_factory=list)
    manifests: list[bytes] = field(default_factory=list)


@value
class StopJobs:
    """End these attempts: forget them when they wait, interrupt and then kill when they run."""

    computation: int
    ids: list[int]
    attempts: list[int]


@value
class RecallJobs:
    """Give back up to `count` jobs that have not begun; another node is idle."""

    computation: int
    count: int


@value
class SchedulerPulse:
    """The scheduler lives."""


@value
class Farewell:
    """The sender leaves for good (both directions); `reason` is for people."""

    reason: str
    begun: dict[int, list[int]] = field(default_factory=dict)  # by computation: jobs it broke off


# node -> scheduler


@value
class NodeEnding:
    """The node takes no more jobs; those that run may end, then its farewell follows."""

    reason: str


@value
class NodePaused:
    """The node takes no jobs for now, for this reason, or ('') it takes them again."""

    reason: str


@value
class NodeDetails:
    """What the node is; sent first on every connection and again when something changed."""

    name: str
    cpus: int
    platform: str
    python: str  # '3.11'
    availability: Availability | None
    memory: int = 0  # bytes that jobs can have in all; 0: not known
    gpus: int = 0


@value
class ComputationReady:
    """The node can run this computation's jobs now."""

    computation: int
    remarks: str = ''  # on packages that differ from the client's, a line each


@value
class ComputationRefused:
    """The node cannot: `kind` is 'busy' (it tells when it is free), 'empty' or 'failed'.

    One that could until now, and whose service hours have ended, says 'over', and is 'busy' then.
    'empty' answers who only collects: nothing of the computation is left there.
    """

    computation: int
    kind: str
    reason: str


@value
class NodeFree:
    """The node, refused as busy before, can be asked again."""


@value
class JobsDone:
    """Jobs that ended on a node, a *letter* the node keeps until the client acknowledges it.

    `outcomes` holds what the job's process wrote (`wire.codec.Outcome`, b'' when it died before),
    `reasons` what the node has to say of it ('' for an ordinary end).
    """

    computation: int
    node: str
    letter: int
    ids: list[int]
    attempts: list[int]
    statuses: list[int]
    outcomes: list[bytes]
    reasons: list[str]
    seconds: list[float]


@value
class JobsProvisional:
    """Provisional results, in the order in which the jobs sent them."""

    computation: int
    node: str
    ids: list[int]
    attempts: list[int]
    results: list[bytes]


@value
class JobsReturned:
    """Jobs that the node has not begun and will not run."""

    computation: int
    ids: list[int]
    attempts: list[int]
    reason: str


@value
class NodePulse:
    """The node lives, and has this to spare."""

    availability: Availability | None


Message = (
    DeclareComputation
    | SubmitJobs
    | CancelJobs
    | CloseComputation
    | AcknowledgeOutcomes
    | AllocateAnswer
    | AllocateAsk
    | JobsStarted
    | JobsRequeued
    | JobsRetried
    | JobsSettled
    | NodeChanged
    | Notice
    | OpenComputation
    | RunJobs
    | StopJobs
    | RecallJobs
    | SchedulerPulse
    | Farewell
    | NodeDetails
    | ComputationReady
    | ComputationRefused
    | NodeFree
    | JobsDone
    | JobsProvisional
    | JobsReturned
    | ComputationClosed
    | NodePulse
    | NodeEnding
    | NodePaused
    | NodeNotice
    | ShareData
    | DropData
    | FileMessage
    | FleetMessage
    | RelayMessage
    | RecoveryMessage
    | JobsOutput
    | OutputTaken
    | AskDiagnosis
    | Diagnosis
    | AskMessage
)
