"""What a cluster keeps of its jobs, so that another scheduler can be told of them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nodeserver.core.events import JobsSubmitted
from nodeserver.core.messages import JobOptions, KnownNode, ResubmitJobs

MOST_NODES = 10_000
_NO_DATA: list[int] = []


class _Kept(NamedTuple):
    """One job as it was submitted."""

    payload: bytes
    node: str
    options: JobOptions
    shared: list[int]
    manifest: bytes


class Unsettled:
    """The jobs of one cluster that have not ended, the data that they share, and its nodes."""

    def __init__(self) -> None:
        self._jobs: dict[int, _Kept] = {}
        self._places: dict[int, str] = {}
        self._failures: dict[int, int] = {}
        self.data: dict[int, bytes] = {}  # by id
        self.nodes: dict[str, KnownNode] = {}  # that may have something of them; the latest last

    def __len__(self) -> int:
        return len(self._jobs)

    def know(self, nodes: Iterable[KnownNode]) -> None:
        """Keep in mind where nodes are."""
        for node in nodes:
            self.nodes.pop(node.node, None)
            self.nodes[node.node] = node
            if len(self.nodes) > MOST_NODES:
                del self.nodes[next(iter(self.nodes))]

    def submitted(self, event: JobsSubmitted) -> None:
        """Keep jobs that are submitted."""
        shared = event.shared or [_NO_DATA] * len(event.ids)
        manifests = event.manifests or [b''] * len(event.ids)
        rows = zip(event.ids, event.payloads, shared, manifests, strict=True)
        node, options = event.node, event.options
        self._jobs.update((job, _Kept(p, node, options, d, m)) for job, p, d, m in rows)

    def resubmitted(self, message: ResubmitJobs) -> None:
        """Keep jobs of which a cluster of before has left a record."""
        columns = (message.shared, message.manifests, message.failures)
        self.submitted(
            JobsSubmitted(
                message.node, message.ids, message.payloads, message.options, *columns[:2]
            )
        )
        self._places.update((j, n) for j, n in zip(message.ids, message.places, strict=True) if n)
        if message.failures:
            self._failures.update(zip(message.ids, message.failures, strict=True))

    def share(self, data: int, content: bytes) -> None:
        """Keep data that jobs share."""
        self.data[data] = content

    def started(self, node: str, ids: Iterable[int]) -> None:
        """Jobs are with a node."""
        self._places.update((job, node) for job in ids if job in self._jobs)

    def left(self, ids: Iterable[int]) -> None:
        """Jobs wait again."""
        for job in ids:
            self._places.pop(job, None)

    def failed(self, ids: Iterable[int]) -> None:
        """Jobs have used up one more of their retries, and wait again."""
        for job in ids:
            self._places.pop(job, None)
            self._failures[job] = self._failures.get(job, 0) + 1

    def settled(self, ids: Iterable[int]) -> None:
        """Jobs have ended."""
        for job in ids:
            self._jobs.pop(job, None)
            self._places.pop(job, None)
            self._failures.pop(job, None)

    def resubmissions(self, computation: int) -> Iterator[ResubmitJobs]:
        """What tells a scheduler of all of them, in the order in which they were submitted."""
        batch: ResubmitJobs | None = None
        for job, kept in self._jobs.items():
            if batch is None or (batch.node, batch.options) != (kept.node, kept.options):
                if batch is not None:
                    yield batch
                batch = ResubmitJobs(computation, kept.node, [], [], [], kept.options)
            batch.ids.append(job)
            batch.payloads.append(kept.payload)
            batch.places.append(self._places.get(job, ''))
            batch.shared.append(kept.shared)
            batch.manifests.append(kept.manifest)
            batch.failures.append(self._failures.get(job, 0))
        if batch is not None:
            yield batch


class NothingKept(Unsettled):
    """In the place of the other one where scheduler and cluster live and die together."""

    def know(self, nodes: Iterable[KnownNode]) -> None:
        """Keep nothing."""

    def submitted(self, event: JobsSubmitted) -> None:
        """Keep nothing."""

    def resubmitted(self, message: ResubmitJobs) -> None:
        """Keep nothing."""

    def share(self, data: int, content: bytes) -> None:
        """Keep nothing."""

    def started(self, node: str, ids: Iterable[int]) -> None:
        """Keep nothing."""

    def left(self, ids: Iterable[int]) -> None:
        """Keep nothing."""

    def failed(self, ids: Iterable[int]) -> None:
        """Keep nothing."""

    def settled(self, ids: Iterable[int]) -> None:
        """Nothing was kept."""
