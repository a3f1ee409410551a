"""A cluster of a program that was killed, to be opened once more.

Recorded ──▶ options, declaration ──▶ JobCluster
             jobs, data, outcomes ──▶ its shell, and what is told to the scheduler
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dispy_nb.dependencies import NO_FILES, SourceFiles
from dispy_nb.job import DispyJob
from dispy_nb.local import with_local_nodes
from dispy_nb.nodes import DispyNode, NodeAllocate
from dispy_nb.options import ClusterOptions, as_allocation
from dispy_nb.packaging import node_spec, owner
from dispy_nb.prepared import Prepared
from dispy_nb.project import ByValue
from dispy_nb.recovery.journalfile import JournalPlan
from dispy_nb.recovery.planning import allocations_of, secret_of
from dispy_nb.recovery.recorded import Ended, Recorded
from dispy_nb.sharedoptions import SharedOptions
from nodeserver.core.errors import ProtocolError, UsageError
from nodeserver.core.messages import NodeChanged, ResubmitJobs, ShareData
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.core.status import STATUSES, JobStatus, NodeStatus


class Sent:
    """The function of a cluster that was attached to: it was sent by a program that has ended."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Say that it runs on nodes only."""
        raise UsageError(f'{self.__name__} was sent by another program: submit jobs to its cluster')


class Resumption:
    """What a new cluster takes over; `collects` when nothing is to run that did not before."""

    def __init__(self, recorded: Recorded, collects: bool) -> None:
        self.recorded = recorded
        self.alone = collects
        self.collects = collects
        self.jobs: list[DispyJob] = []  # all of them, in the order of their numbers
        named = {data for each in recorded.resubmissions for ids in each.shared for data in ids}
        self._data = [each for each in recorded.data if each.data in named]
        self.plan = JournalPlan(
            recorded.name,
            Keeping.ALL,  # outcomes stay until they are handed out
            {},
            recorded.path,
            epoch=recorded.epoch + 1,
            resumes=True,
        )

    @property
    def messages(self) -> list[ShareData | ResubmitJobs]:
        """What is told to a scheduler of the jobs that have not ended."""
        again = self.recorded.resubmissions
        if self.collects and self.recorded.setting.scheduler is None:
            again = [part for each in again if (part := _placed(each)).ids]
            return [*again]
        return [*self._data, *again]

    def prepared(self, callback: Any = None, cluster_status: Any = None) -> Prepared:
        """Have what a cluster is opened with."""
        recorded, setting = self.recorded, self.recorded.setting
        options = self._options(callback, cluster_status)
        own = [] if self.collects or setting.scheduler is not None else _own_nodes(options)
        options.allocations.extend(own)
        specs = [node_spec(each, recorded.declared.node_port) for each in own]
        declared = replace(
            recorded.declared,
            specs=[*recorded.declared.specs, *specs],
            owner=owner(),
            epoch=recorded.epoch + 1,
            resumes=True,
            collects=self.collects,
            resubmits=sum(len(m.ids) for m in self.messages if isinstance(m, ResubmitJobs)),
            nodes=recorded.nodes if setting.scheduler is None else [],  # else it has records
        )
        try:
            files = SourceFiles.found_again(declared.manifest, setting.files)
        except (ProtocolError, ValueError):
            files = NO_FILES
        if not setting.files:
            files = NO_FILES
        return Prepared(options, declared, files, ByValue(setting.by_value, setting.sent))

    def _options(self, callback: Any, cluster_status: Any) -> ClusterOptions:
        declared, setting = self.recorded.declared, self.recorded.setting
        allocations = allocations_of(self.recorded.allocations)
        if allocations is None:
            allocations = [NodeAllocate(s.pattern, s.port, s.cpus) for s in declared.specs]
        kind, shared = _kind(self.recorded)
        options: ClusterOptions = kind(
            setting.program or Sent(declared.name),
            allocations,
            **shared,
            callback=callback,
            cluster_status=cluster_status,
            ip_addr=setting.ip_addr,
            ext_ip_addr=setting.ext_ip_addr,
            port=setting.port,
            node_port=declared.node_port,
            dest_path=declared.dest_path or None,
            cleanup=declared.cleanup,
            pulse_interval=declared.pulse_interval,
            ping_interval=declared.ping_interval or None,
            reentrant=declared.reentrant,
            keyfile=setting.keyfile,
            certfile=setting.certfile,
            isolation=declared.isolation,
            insecure=setting.secret == 'insecure',
            name=declared.name,
            cpus=declared.resources.cpus,
            memory=declared.resources.memory or None,
            gpus=declared.resources.gpus,
            ipv4_udp_multicast=setting.ipv4_udp_multicast,
            allocations=allocations,
            trusted=secret_of(setting),
        )
        return options

    def take_up(self, cluster: Any) -> Sequence[ShareData | ResubmitJobs]:
        """Give a cluster its jobs back, before its core knows of them."""
        recorded, messages = self.recorded, self.messages
        cluster._journal.resume(recorded.batches, recorded.latest_batch)
        for node in recorded.nodes:
            cluster._shell.nodes[node.node] = _gone(recorded, node)
        pending = {j for m in messages if isinstance(m, ResubmitJobs) for j in m.ids}
        ended = {each.number: each for each in recorded.ended}
        numbers = sorted(pending | ended.keys())
        for number in numbers:
            job = made(recorded, cluster, number)
            self.jobs.append(job)
            if number in ended:
                _restore_end(cluster._shell, job, ended[number])
            else:
                _restore_pending(recorded, cluster, job)
        known = [*numbers, *recorded.jobs, *recorded.placed]
        cluster._next = max(known, default=0)
        if not self.collects:
            self._give_data(cluster, pending)
        return messages

    def _give_data(self, cluster: Any, pending: set[int]) -> None:
        """Hand over the data that jobs name; who had other shared values is gone."""
        contents = {each.data: each.content for each in self._data}
        of_jobs = {j: named for j in sorted(pending) if (named := _data_of(self.recorded, j))}
        cluster._data.resume(contents, of_jobs)
        spare = [each.data for each in self.recorded.data if each.data not in contents]
        cluster._journal.drop_data(spare)


def _own_nodes(options: ClusterOptions) -> list[NodeAllocate]:
    """The nodes that this program has started, where any may be used: those of before end."""
    if not any(each.host == '*' for each in options.allocations):
        return []
    return [as_allocation(each) for each in with_local_nodes(['*']) if each != '*']


def _kind(recorded: Recorded) -> tuple[Any, dict[str, Any]]:
    """Which options there are, and those that only clusters of a shared scheduler have."""
    if recorded.setting.scheduler is None:
        return ClusterOptions, {}
    host, port = recorded.setting.scheduler
    place = {'scheduler_node': host or None, 'scheduler_port': port}
    return SharedOptions, {**place, 'exclusive': recorded.declared.exclusive}


def _placed(message: ResubmitJobs) -> ResubmitJobs:
    """Those of a message's jobs that were with a node."""
    columns = zip(message.ids, message.places, message.failures, message.attempts, strict=True)
    rows = [row for row in columns if row[1]]
    ids, places, failures, attempts = (
        (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 4
    )
    return replace(
        message,
        ids=ids,
        places=places,
        failures=failures,
        attempts=attempts,
        payloads=[b''] * len(ids),
        shared=[[] for _ in ids],
        manifests=[b''] * len(ids),
    )


def _data_of(recorded: Recorded, number: int) -> list[int]:
    """The shared data that a job names."""
    submitted = recorded.jobs.get(number)
    there = {each.data for each in recorded.data}
    return [d for d in submitted.shared if d in there] if submitted is not None else []


def made(recorded: Recorded, cluster: Any, number: int) -> DispyJob:
    """Make the handle of a job of before."""
    submitted = recorded.jobs.get(number)
    job = DispyJob(cluster, number, submitted.size if submitted is not None else 0)
    job._id = recorded.ids.get(number, number)
    if submitted is not None:
        job._submit_time = submitted.at
        job._arguments = submitted.shown or None
    return job


def settle(job: DispyJob, end: Ended) -> JobStatus:
    """Have a job ended as it did."""
    status = STATUSES[end.status]
    if end.node:
        job._start_time = end.at - end.seconds
        job._attempts = 1
    job._settle(status, end.outcome, end.reason, end.at)
    return status


def _restore_end(shell: Any, job: DispyJob, end: Ended) -> None:
    job._node = shell.nodes.get(end.node)
    status = settle(job, end)
    shell.submitted += 1
    shell.counts[status] += 1
    shell.first_submit = min(shell.first_submit or job._submit_time, job._submit_time)
    shell.last_settle = max(shell.last_settle or end.at, end.at)
    if job._node is not None:
        job._node.jobs_done += 1
        job._node.cpu_time += end.seconds
    shell.history.ended(job, status, end.outcome, end.reason, end.seconds)
    job._arguments = None


def _restore_pending(recorded: Recorded, cluster: Any, job: DispyJob) -> None:
    submitted = recorded.jobs.get(job._number)
    cluster._shell.add(job, job._number)
    if submitted is not None and submitted.files:
        files = SourceFiles.found_again(submitted.manifest, submitted.files)
        cluster._files.assign(job._number, files)


def _gone(recorded: Recorded, node: Any) -> DispyNode:
    """A node as it is shown before it has been met again."""
    return DispyNode(
        NodeChanged(
            recorded.declared.computation,
            NodeStatus.CLOSED,
            node.node,
            node.address,
            node.address,
            0,
            '',
            None,
            'of a program that has ended',
            node.port,
        )
    )


def age(recorded: Recorded) -> str:
    """Say when a cluster was made."""
    return time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(recorded.setting.made_at))
