"""Large arguments that travel apart from the jobs, to each node once (Z11).

    scheduler   ShareData ──▶ DataStock ── with the first job that names it ──▶ ShareData ──▶ node
    node        ShareData ──▶ HeldData ── the jobs that waited for it ──▶ queue

A `RunJobs` is small and may overtake the data that its jobs name, on either link.
"""

from collections.abc import Container, Iterable
from typing import Generic, Protocol, TypeVar


class DataStock:
    """The shared data of one computation, as its scheduler has them."""

    __slots__ = ('_awaited', '_contents', '_doubted')

    def __init__(self) -> None:
        self._doubted: set[int] = set()  # their client may have dropped them while it was away
        self._contents: dict[int, bytes] = {}
        self._awaited: dict[int, list[str]] = {}  # not here yet -> nodes whose jobs name it

    def add(self, data: int, content: bytes) -> list[str]:
        """Keep data for the nodes that will need it; those that need it now are answered."""
        self._contents[data] = content
        self._doubted.discard(data)
        return self._awaited.pop(data, [])

    def drop(self, ids: Iterable[int]) -> None:
        """Forget data that no job names any more."""
        for data in ids:
            self._contents.pop(data, None)
            self._awaited.pop(data, None)
            self._doubted.discard(data)

    def lacks_some(self, ids: Iterable[int]) -> bool:
        """Whether any of these are yet to come."""
        return any(data not in self._contents for data in ids)

    def doubt_all(self) -> None:
        """Their client was away: those that it still has come once more."""
        self._doubted = {*self._contents, *self._awaited}

    def take_doubted(self, named: Container[int]) -> list[int]:
        """Data that did not come once more, and that none of the jobs that there are names."""
        gone = [data for data in self._doubted if data not in named]
        self._doubted.clear()
        return gone

    def take_along(self, node: str, ids: Iterable[int]) -> list[tuple[int, bytes]]:
        """Data to send to a node that has none of these; what is not here yet is to follow."""
        here = []
        for data in ids:
            content = self._contents.get(data)
            if content is None:
                self._awaited.setdefault(data, []).append(node)
            else:
                here.append((data, content))
        return here


class NamesData(Protocol):
    """A job, as far as its shared data go."""

    id: int
    awaits_files: bool
    shared: list[int]
    contents: list[bytes]


Job = TypeVar('Job', bound=NamesData)


class HeldData(Generic[Job]):
    """The shared data of one computation on a node, and the jobs that wait for some of them."""

    __slots__ = ('_held', 'lacking')

    def __init__(self) -> None:
        self._held: dict[int, bytes] = {}
        self.lacking: dict[int, Job] = {}  # jobs, by their id

    @property
    def size(self) -> int:
        """Bytes of all data that are held."""
        return sum(map(len, self._held.values()))

    def is_ready(self, job: Job) -> bool:
        """Give a job its data if they and its files are here; else it is kept until they are."""
        if not job.awaits_files and all(data in self._held for data in job.shared):
            job.contents = [self._held[data] for data in job.shared]
            return True
        self.lacking[job.id] = job
        return False

    def add(self, data: int, content: bytes) -> list[Job]:
        """Keep data; the jobs that lacked only these are ready now."""
        self._held[data] = content
        waiting = [job for job in self.lacking.values() if data in job.shared]
        for job in waiting:
            del self.lacking[job.id]
        return [job for job in waiting if self.is_ready(job)]

    def drop(self, ids: Iterable[int]) -> None:
        """Forget data; the processes of jobs that use them have them still."""
        for data in ids:
            self._held.pop(data, None)

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.lacking.clear()
