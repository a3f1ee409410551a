"""A picture of a cluster's figures at one moment: what every display is made from."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

from dispy_nb.history import Failure, History, Provisional
from dispy_nb.job import DispyJob
from dispy_nb.nodes import DispyNode
from dispy_nb.shell import ClusterShell
from dispy_nb.shortened import arguments_text, id_text, value_text
from nodeserver.core.status import JobStatus

_LOOK_AT = 4  # pending jobs for each that is wanted, to find those that run


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
    id: str = ''
    offered: int = 0  # cpus that it has; `cpus` are those to use
    cpu_in_use: float | None = None  # per cent of its processors, whoever uses them
    memory_in_use: int | None = None  # bytes
    memory: int = 0  # bytes in all; 0: not known


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """One job that has not ended."""

    number: int  # by which a wish names it
    id: str
    status: str
    node: str  # its name; '' while it waits
    seconds: float  # since it was started, or submitted if it waits
    arguments: str


@dataclass(frozen=True, slots=True)
class ProvisionalSnapshot:
    """What one job has sent ahead: how many provisional results, when the last one, and that."""

    id: str
    count: int
    at: float  # seconds since the epoch
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
    failures: tuple[Failure, ...]  # the first ones
    notice: str  # why nothing happens, in words
    closed: bool
    remaining: tuple[float, float] | None = None  # at least, at most; None: nobody can say
    jobs: tuple[JobSnapshot, ...] = ()  # the first pending ones, if they were asked for
    provisionals: tuple[ProvisionalSnapshot, ...] = ()  # the latest ones, the very latest first

    @property
    def ended(self) -> int:
        """Jobs that are not pending any more."""
        return self.finished + self.failed + self.cancelled

    @property
    def pending(self) -> int:
        """Jobs that have not ended."""
        return self.submitted - self.ended


def take_snapshot(
    name: str, shell: ClusterShell, made_at: float, closed: bool, jobs: int = 0
) -> Snapshot:
    """Read a cluster's figures, and up to so many of its pending jobs; from any thread."""
    counts, history, now = shell.counts, shell.history, time.time()
    ended = sum(counts.values())
    held_back = shell.feeder.held_back() if shell.feeder is not None else 0
    pending = max(0, shell.submitted - ended) + held_back
    began = shell.first_submit or made_at
    until = now if pending or shell.last_settle is None else shell.last_settle
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
        tuple(history.failures),
        shell.notice,
        closed,
        history.throughput.remaining(pending, now),
        tuple(_job(job, now) for job in first_pending(shell, jobs)) if jobs else (),
        _provisionals(history),
    )


def first_pending(shell: ClusterShell, most: int) -> list[DispyJob]:
    """Return jobs that have not ended, if many then of the first ones; those with a node first."""
    while True:
        try:
            looked_at = list(itertools.islice(shell.jobs.values(), _LOOK_AT * most))
        except RuntimeError:  # a job was added or has ended meanwhile
            continue
        return sorted(looked_at, key=lambda job: job._status is JobStatus.CREATED)[:most]


def _node(node: DispyNode, cpus_per_job: int) -> NodeSnapshot:
    jobs = 0 if node.closed else min(max(0, node.busy), node._cpus_at_work() // cpus_per_job)
    busy = jobs * cpus_per_job
    info = None if node.closed else node.avail_info
    return NodeSnapshot(
        node.name,
        node.ip_addr,
        node.cpus,
        busy,
        node.jobs_done,
        node.cpu_time,
        node.closed,
        node.node_id,
        node.avail_cpus,
        None if info is None else max(0.0, 100.0 - info.cpu),
        None if info is None or not node.memory else max(0, node.memory - info.memory),
        node.memory,
    )


def _job(job: DispyJob, now: float) -> JobSnapshot:
    node, status = job._node, job._status
    began = job._start_time if node is not None and job._start_time else job._submit_time
    return JobSnapshot(
        job._number,
        id_text(job),
        'waiting' if status == JobStatus.CREATED else 'running',
        node.name if node is not None else '',
        max(0.0, now - began),
        arguments_text(job._arguments),
    )


def _provisionals(history: History) -> tuple[ProvisionalSnapshot, ...]:
    rows: list[Provisional] = list(history.provisionals.values())
    return tuple(
        ProvisionalSnapshot(row.id, row.number, row.at, value_text(row.outcome.open().result))
        for row in reversed(rows)
    )
