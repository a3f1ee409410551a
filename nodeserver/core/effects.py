"""What is to be done: the values with which cores answer, named in the imperative."""

from dataclasses import field

from nodeserver.core.diagnosis import AskDiagnosis
from nodeserver.core.filemessages import FileMessage
from nodeserver.core.fleetmessages import RequestAnswered
from nodeserver.core.messages import (
    AllocateAsk,
    JobsDone,
    JobsOutput,
    JobsProvisional,
    JobsRetried,
    Message,
    NodeChanged,
)
from nodeserver.core.recoveryeffects import RecoveryEffect
from nodeserver.core.values import ONE_CPU, Resources, value

# any role


@value
class Send:
    """Hand this to the peer; it is kept and sent again until the peer has it."""

    peer: str
    message: Message


@value
class Report:
    """Tell the people who run this: `level` is a number of the logging module."""

    level: int
    text: str


@value
class Disconnect:
    """Forget the peer and close the connection to it."""

    peer: str


# files, of a node or a cluster


@value
class HearOfFiles:
    """Take in what the other side of a transfer says."""

    message: FileMessage


@value
class OpenFiles:
    """Make a computation's directory, and have its own files there."""

    computation: int
    name: str
    dest_path: str
    manifest: bytes


@value
class ReleaseFiles:
    """Jobs have ended (or left): what only they needed can go."""

    computation: int
    transfers: list[int]


@value
class EndTransfers:
    """Nobody is at the other end any more: what is under way ends, and what lies there stays.

    What jobs offer stays offered.
    """

    computation: int


@value
class CloseFiles:
    """End all transfers of a computation."""

    computation: int
    removes: bool = False  # also what was put there: no template will be made to use it


# scheduler


@value
class Ping:
    """Ask for nodes: at these addresses (with ports), and by broadcast to `broadcast_port`."""

    targets: list[tuple[str, int]]
    broadcast_port: int  # 0: no broadcast


@value
class Knock:
    """See by TCP whether a node is there, again and again, until one is or it is withdrawn."""

    address: str
    port: int


@value
class StopKnocking:
    """Withdraw a `Knock`; one that has been answered is over already."""

    address: str
    port: int


@value
class Connect:
    """Open a connection to a node that was found; `local_path` wins where it is given."""

    node: str
    address: str
    port: int
    local_path: str
    via: str = ''  # the relay that carries the connection, by peer id


@value
class UseRelay:
    """Connections that a relay carries are asked for at this host and TCP port of it.

    Port 0: it carries none any more.
    """

    relay: str
    host: str
    port: int


# relay


@value
class OpenWay:
    """Connections to this node may be carried, which go to this address and port."""

    node: str
    address: str
    port: int


@value
class CloseWay:
    """No more connections to this node are carried; those that stand go on."""

    node: str


@value
class AdmitProgram:
    """Connections of this program may be carried."""

    peer: str


@value
class DismissProgram:
    """No more connections of this program are carried; those that stand end with it."""

    peer: str


# node


@value
class OpenTemplate:
    """Make a directory and a template process, and unpack the computation in it."""

    computation: int
    name: str
    package: bytes
    isolation: str
    dest_path: str
    cleanup: bool
    resources: Resources = ONE_CPU  # of each job
    setup_args: bytes = b''  # pickled: those of `setup` and of the function `cleanup`


@value
class CloseTemplate:
    """Kill what is left of the computation's processes, and remove its files."""

    computation: int
    keeps_files: bool = False  # for the template that is to follow


@value
class ForkWorkers:
    """Fork so many fresh processes from the template."""

    computation: int
    count: int


@value
class GiveJobs:
    """Hand jobs to a worker: exactly one under `isolation='job'`."""

    computation: int
    worker: int
    ids: list[int]
    attempts: list[int]
    payloads: list[bytes]
    shared: list[list[bytes]] = field(default_factory=list)  # data of each job; empty: no job's
    gpus: list[str] = field(default_factory=list)  # the worker's from now on; empty: as before


@value
class SignalWorker:
    """Send a signal to the worker's whole process tree; an interrupt is for one job only."""

    computation: int
    worker: int
    signal: int
    number: int = 1  # of the job it is for, among those that the worker was given


@value
class RecallFromWorker:
    """Take back from a lasting worker what it has not begun; `JobsRecalled` may follow."""

    computation: int
    worker: int
    delay: float  # seconds that it may still have for what it holds


@value
class ReadOutput:
    """Tell once more, when there is something, what the computation's running jobs print."""

    computation: int


@value
class MeasureAvailability:
    """Somebody waits to be told what the machine has to spare: `AvailabilityMeasured` follows."""


@value
class Diagnose:
    """Answer a doctor: with what the core says of the node, and with what there is to measure."""

    peer: str
    address: str  # of the peer, as this side sees it
    ask: AskDiagnosis
    standing: list[str]


@value
class Stop:
    """The program can end now."""

    reason: str


# a cluster in the user's program


@value
class MarkStarted:
    """These jobs are with a node now."""

    node: str
    ids: list[int]


@value
class MarkRequeued:
    """These jobs wait again; `reason` is for people."""

    ids: list[int]
    reason: str


@value
class MarkRetried:
    """These jobs failed and wait to be run again."""

    retried: JobsRetried


@value
class SettleJobs:
    """Give these jobs their outcomes: columns of a letter that is believed."""

    done: JobsDone


@value
class SettleUnrun:
    """End these jobs, of which no node reports: all with one status and reason."""

    ids: list[int]
    status: int
    reason: str
    kind: int = 0  # an `Unrun`


@value
class DeliverProvisional:
    """Show these provisional results."""

    results: JobsProvisional


@value
class DeliverOutput:
    """Show what these running jobs print."""

    output: JobsOutput


@value
class TellNode:
    """A node joined, left, or told how it is."""

    change: NodeChanged


@value
class TakeBackNotice:
    """What was last said of a difficulty is over."""


@value
class AskAllocation:
    """Call the user's `NodeAllocate.allocate` for a node."""

    ask: AllocateAsk


@value
class SettleRequest:
    """Hand the scheduler's answer to whoever waits for it."""

    answer: RequestAnswered


@value
class SayClosed:
    """The cluster is closed: nothing of it is left anywhere."""


Effect = (
    Send
    | Report
    | Disconnect
    | HearOfFiles
    | OpenFiles
    | ReleaseFiles
    | EndTransfers
    | CloseFiles
    | Ping
    | Knock
    | StopKnocking
    | UseRelay
    | OpenWay
    | CloseWay
    | AdmitProgram
    | DismissProgram
    | Connect
    | OpenTemplate
    | CloseTemplate
    | ForkWorkers
    | GiveJobs
    | SignalWorker
    | RecallFromWorker
    | ReadOutput
    | MeasureAvailability
    | Diagnose
    | Stop
    | MarkStarted
    | MarkRequeued
    | MarkRetried
    | SettleJobs
    | SettleUnrun
    | DeliverProvisional
    | DeliverOutput
    | TellNode
    | AskAllocation
    | SayClosed
    | SettleRequest
    | TakeBackNotice
    | RecoveryEffect
)
