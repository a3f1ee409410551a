"""A picture of a cluster's figures at one moment: what every display is made from."""

import time
from dataclasses import dataclass
from typing import Any

from dispy_nb.nodes import DispyNode
from dispy_nb.shell import ClusterShell
from nodeserver.core.status import JobStatus


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One node's share in a cluster."""

    name: str
    address: str
    cpus: int
    busy: int  # cpus that run jobs of this cluster
    jobs_done: int
    cpu_time: float  # seconds spent in jobs
    closed: bool


@dataclass(frozen=True, slots=True)
class FailureSnapshot:
    """One job that did not finish: its id, status, and the last line of what went wrong."""

    id: str
    status: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cluster at one moment; times in seconds."""

    name: str
    submitted: int
    waiting: int
    running: int
    finished: int
    failed: int  # terminated or abandoned
    cancelled: int
    provisional: int  # provisional results so far
    latest_provisional: Any
    elapsed: float  # since the first job was submitted, until the last one ended
    rate: float  # jobs ended per second
    nodes: tuple[NodeSnapshot, ...]
    failures: tuple[FailureSnapshot, ...]  # the latest ones
    notice: str  # why nothing happens, in words
    closed: bool

    @property
    def ended(self) -> int:
        """Jobs that are not pending any more."""
        return self.finished + self.failed + self.cancelled

    @property
    def pending(self) -> int:
        """Jobs that have not ended."""
        return self.submitted - self.ended


def take_snapshot(name: str, shell: ClusterShell, made_at: float, closed: bool) -> Snapshot:
    """Read a cluster's figures; from any thread."""
    counts = shell.counts
    ended = sum(counts.values())
    held_back = shell.feeder.held_back() if shell.feeder is not None else 0
    pending = max(0, shell.submitted - ended) + held_back
    began = shell.first_submit or made_at
    until = time.time() if pending or shell.last_settle is None else shell.last_settle
    elapsed = max(0.0, until - began) if shell.submitted else 0.0
    each = shell.cpus_per_job
    nodes = tuple(_node(node, each) for node in list(shell.nodes.values()))
    # a node holds more jobs than it runs, to be never idle: those wait as the others do
    running = min(sum(node.busy // each for node in nodes), pending)
    return Snapshot(
        name,
        ended + pending,
        pending - running,
        running,
        counts[JobStatus.FINISHED],
        counts[JobStatus.TERMINATED] + counts[JobStatus.ABANDONED],
        counts[JobStatus.CANCELLED],
        shell.provisional,
        shell.latest_provisional.open().result if shell.latest_provisional else None,
        elapsed,
        ended / elapsed if elapsed else 0.0,
        nodes,
        tuple(FailureSnapshot(*words) for words in list(shell.failures)),
        shell.notice,
        closed,
    )


def _node(node: DispyNode, cpus_per_job: int) -> NodeSnapshot:
    jobs = 0 if node.closed else min(max(0, node.busy), node.cpus // cpus_per_job)
    busy = jobs * cpus_per_job
    return NodeSnapshot(
        node.name, node.ip_addr, node.cpus, busy, node.jobs_done, node.cpu_time, node.closed
    )
