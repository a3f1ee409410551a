"""What a cluster keeps of its jobs, so that another scheduler can be told of them.

Of most jobs these are only the bytes that were sent anyway: a million may wait.
"""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

from nodeserver.core.events import JobsSubmitted
from nodeserver.core.messages import (
    ORDINARY,
    CloseComputation,
    JobOptions,
    JobsSettled,
    KnownNode,
    NodeChanged,
    ResubmitJobs,
    ShareData,
    SubmitJobs,
)
from nodeserver.core.recoveryeffects import Keeping, RecordNode
from nodeserver.core.status import Unrun

MOST_NODES = 10_000
MOST_JOBS = 4096  # in one message
MOST_BYTES = 1 << 20  # in one message, with one job more
_NO_DATA: list[int] = []


class _Extras(NamedTuple):
    """What a job was submitted with, beside its bytes."""

    node: str
    options: JobOptions
    shared: list[int]
    manifest: bytes


_NONE = _Extras('', ORDINARY, _NO_DATA, b'')


class Unsettled:
    """The jobs of one cluster that have not ended, the data that they share, and its nodes."""

    def __init__(self) -> None:
        self._payloads: dict[int, bytes] = {}
        self._extras: dict[int, _Extras] = {}  # of jobs that have any
        self._places: dict[int, str] = {}
        self._failures: dict[int, int] = {}
        self.data: dict[int, bytes] = {}  # by id
        self.dropped: set[int] = set()  # data of which the scheduler is yet to be told so
        self.nodes: dict[str, KnownNode] = {}  # that may have something of them; the latest last
        self._has_unreached = False  # jobs, of which the next scheduler would not know

    def __len__(self) -> int:
        return len(self._payloads)

    @property
    def placed(self) -> int:
        """How many jobs are with nodes, as far as is known."""
        return len(self._places)

    def know(self, nodes: Iterable[KnownNode]) -> None:
        """Keep in mind where nodes are."""
        for node in nodes:
            self.nodes.pop(node.node, None)
            self.nodes[node.node] = node
            if len(self.nodes) > MOST_NODES:
                del self.nodes[next(iter(self.nodes))]

    def met(self, change: NodeChanged, keeping: Keeping) -> list[RecordNode]:
        """A node has changed; answers with what is stored, to be told later where jobs ran."""
        known = KnownNode(change.node, change.address, change.port)
        is_new = self.nodes.get(known.node) != known
        self.know([known])
        stores = is_new and keeping == Keeping.ALL
        return [RecordNode(change.computation, known)] if stores else []

    def submitted(self, event: JobsSubmitted) -> None:
        """Keep jobs that are submitted."""
        self._payloads.update(zip(event.ids, event.payloads, strict=True))
        node, options = event.node, event.options
        if node or event.shared or event.manifests or options != ORDINARY:
            shared = event.shared or repeat(_NO_DATA)
            manifests = event.manifests or repeat(b'')
            rows = zip(event.ids, shared, manifests, strict=False)
            self._extras.update((job, _Extras(node, options, d, m)) for job, d, m in rows)

    def taken_over(self, before: Iterable[ResubmitJobs | ShareData]) -> set[int]:
        """Keep what a cluster of before has left; answers with its jobs."""
        pending: set[int] = set()
        for message in before:
            if isinstance(message, ShareData):
                self.share(message.data, message.content)
            else:
                pending.update(message.ids)
                self.resubmitted(message)
        return pending

    def resubmitted(self, message: ResubmitJobs) -> None:
        """Keep jobs of which a cluster of before has left a record."""
        columns = (message.shared, message.manifests)
        self.submitted(
            JobsSubmitted(message.node, message.ids, message.payloads, message.options, *columns)
        )
        self._places.update((j, n) for j, n in zip(message.ids, message.places, strict=True) if n)
        failures = zip(message.ids, message.failures or repeat(0), strict=False)
        self._failures.update((job, count) for job, count in failures if count)

    def share(self, data: int, content: bytes) -> None:
        """Keep data that jobs share."""
        self.data[data] = content

    def ended(self, message: JobsSettled) -> None:
        """Jobs have ended, or were only not reached."""
        self._has_unreached |= message.kind == Unrun.UNREACHED

    def closing(self, computation: int) -> CloseComputation:
        """What the scheduler is told when the cluster is closed."""
        return CloseComputation(computation, keeps=self._has_unreached)

    def drop(self, ids: Iterable[int], is_away: bool) -> None:
        """No job names these data any more; a scheduler that is away may have them still."""
        for data in ids:
            self.data.pop(data, None)
        if is_away:
            self.dropped.update(ids)

    def take_dropped(self) -> list[int]:
        """The scheduler is told."""
        dropped, self.dropped = sorted(self.dropped), set()
        return dropped

    def started(self, node: str, ids: list[int]) -> list[int]:
        """Jobs are with a node; answers with those of which that was not known."""
        places, kept = self._places, self._payloads
        fresh = [job for job in ids if job in kept and places.get(job) != node]
        places.update(zip(fresh, repeat(node), strict=False))
        return fresh

    def elsewhere(self, node: str, ids: Iterable[int]) -> list[int]:
        """Those of these jobs that were with another node, as far as was known."""
        places = self._places
        return [job for job in ids if places.get(job, node) != node]

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
        for records in (self._payloads, self._extras, self._places, self._failures):
            if records:
                for job in ids:
                    records.pop(job, None)

    def submissions(self, computation: int) -> Iterator[SubmitJobs]:
        """What tells a scheduler of all of them that has never heard of any."""
        for batch, extras, columns in self._batches():
            payloads = [self._payloads[job] for job in batch]
            yield SubmitJobs(computation, extras.node, batch, payloads, extras.options, *columns)

    def resubmissions(self, computation: int) -> Iterator[ResubmitJobs]:
        """What tells a scheduler of all of them, in the order in which they were submitted."""
        for batch, extras, columns in self._batches():
            payloads = [self._payloads[job] for job in batch]
            places = [self._places.get(job, '') for job in batch]
            failures = [self._failures.get(job, 0) for job in batch] if self._failures else []
            options = extras.options
            known = batch, payloads, places
            yield ResubmitJobs(computation, extras.node, *known, options, *columns, failures)

    def _batches(self) -> Iterator[tuple[list[int], _Extras, tuple[list[list[int]], list[bytes]]]]:
        """Yield jobs that are alike, not too many at a time, with data and files of each."""
        batch: list[int] = []
        first, size = _NONE, 0
        for job, payload in self._payloads.items():
            extras = self._extras.get(job, _NONE) if self._extras else _NONE
            is_full = len(batch) >= MOST_JOBS or size > MOST_BYTES
            if batch and (is_full or extras[:2] != first[:2]):
                yield batch, first, self._columns(batch)
                batch, size = [], 0
            if not batch:
                first = extras
            batch.append(job)
            size += len(payload)
        if batch:
            yield batch, first, self._columns(batch)

    def _columns(self, batch: list[int]) -> tuple[list[list[int]], list[bytes]]:
        if not self._extras:
            return [], []
        rows = [self._extras.get(job, _NONE) for job in batch]
        shared = [row.shared for row in rows] if any(row.shared for row in rows) else []
        manifests = [row.manifest for row in rows] if any(row.manifest for row in rows) else []
        return shared, manifests


class NothingKept(Unsettled):
    """In the place of the other one where scheduler and cluster live and die together."""

    def know(self, nodes: Iterable[KnownNode]) -> None:
        """Keep nothing."""

    def met(self, change: NodeChanged, keeping: Keeping) -> list[RecordNode]:
        """Keep nothing: the scheduler says itself which nodes it tells of the computation."""
        return []

    def submitted(self, event: JobsSubmitted) -> None:
        """Keep nothing."""

    def resubmitted(self, message: ResubmitJobs) -> None:
        """Keep nothing."""

    def share(self, data: int, content: bytes) -> None:
        """Keep nothing."""

    def started(self, node: str, ids: list[int]) -> list[int]:
        """Keep nothing: none is told of twice."""
        return ids

    def elsewhere(self, node: str, ids: Iterable[int]) -> list[int]:
        """Nothing is known of any."""
        return []

    def left(self, ids: Iterable[int]) -> None:
        """Keep nothing."""

    def failed(self, ids: Iterable[int]) -> None:
        """Keep nothing."""

    def settled(self, ids: Iterable[int]) -> None:
        """Nothing was kept."""
