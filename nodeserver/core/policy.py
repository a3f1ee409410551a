"""Which node gets the next job: the one with the fewest jobs per cpu, found without a search.

Nodes lie in buckets by `load // cpus`, the number of full rounds of jobs they hold.  Within a
bucket they take turns.  Moving a node is a deletion and an insertion, the best node is the first
of the lowest bucket that is not empty: the cost of a job is the same for 1 and for 1,000 nodes.
"""

from collections import OrderedDict
from collections.abc import Iterator


class Placement:
    """The nodes that can take jobs, ordered by how busy they are."""

    def __init__(self) -> None:
        # a plain dict passes all that was deleted in front of its first key, each time
        self._buckets: list[OrderedDict[str, None]] = [OrderedDict()]
        self._where: dict[str, int] = {}
        self._lowest = 0

    def put(self, node: str, load: int, cpus: int) -> None:
        """Enter a node, or move it to where its load belongs, behind its equals."""
        rounds, buckets = load // cpus, self._buckets
        before = self._where.get(node)
        if before is not None:
            del buckets[before][node]
        while rounds >= len(buckets):
            buckets.append(OrderedDict())
        buckets[rounds][node] = None
        if rounds != before:
            self._where[node] = rounds
        if rounds < self._lowest:
            self._lowest = rounds

    def discard(self, node: str) -> None:
        """Take a node out; no harm if it is not in."""
        before = self._where.pop(node, None)
        if before is not None:
            del self._buckets[before][node]

    def candidates(self, rounds: int) -> Iterator[str]:
        """Nodes that hold fewer than `rounds` full rounds of jobs, the least busy first.

        The caller stops at the first one that suits it, and must not go on after a `put`.
        """
        while self._lowest < len(self._buckets) - 1 and not self._buckets[self._lowest]:
            self._lowest += 1
        for bucket in self._buckets[self._lowest : rounds]:
            yield from bucket

    def idlest(self) -> str | None:
        """A node of the lowest bucket."""
        return next(self.candidates(len(self._buckets)), None)

    def fullest_first(self) -> Iterator[str]:
        """Nodes that hold a full round of jobs or more, the busiest first.

        The caller must not go on after a `put`.
        """
        while len(self._buckets) > 1 and not self._buckets[-1]:
            self._buckets.pop()
        self._lowest = min(self._lowest, len(self._buckets) - 1)
        for bucket in reversed(self._buckets[1:]):
            yield from bucket

    def __contains__(self, node: str) -> bool:
        return node in self._where

    def __len__(self) -> int:
        return len(self._where)
