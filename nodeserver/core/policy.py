"""Which node gets the next job: the one with the fewest jobs per cpu, found without a search.

Nodes lie in buckets by `load // cpus`, the number of full rounds of jobs they hold.  Within a
bucket they take turns.  Moving a node is a deletion and an insertion, the best node is the first
of the lowest bucket that is not empty: the cost of a job is the same for 1 and for 1,000 nodes.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from nodeserver.core.fleet import NOWHERE, NodeRecord


class Placement:
    """The nodes that can take jobs, ordered by how busy they are."""

    def __init__(self) -> None:
        # a plain dict passes all that was deleted in front of its first key, each time
        self._buckets: list[OrderedDict[NodeRecord, None]] = [OrderedDict()]
        self._lowest = 0
        self._count = 0

    def put(self, node: NodeRecord) -> None:
        """Enter a node, or move it as `move` does."""
        if node.bucket != NOWHERE:
            self.move(node)
        else:
            self._count += 1
            self._insert(node, node.load // node.cpus)

    def move(self, node: NodeRecord) -> None:
        """Move a node to where its load belongs, behind its equals; no harm if it is not in."""
        rounds, before = node.load // node.cpus, node.bucket
        if rounds == before:
            self._buckets[rounds].move_to_end(node)
        elif before != NOWHERE:
            del self._buckets[before][node]
            self._insert(node, rounds)

    def _insert(self, node: NodeRecord, rounds: int) -> None:
        buckets = self._buckets
        while rounds >= len(buckets):
            buckets.append(OrderedDict())
        buckets[rounds][node] = None
        node.bucket = rounds
        if rounds < self._lowest:
            self._lowest = rounds

    def discard(self, node: NodeRecord) -> None:
        """Take a node out; no harm if it is not in."""
        if node.bucket != NOWHERE:
            del self._buckets[node.bucket][node]
            node.bucket = NOWHERE
            self._count -= 1

    def rounds(self) -> int:
        """How many full rounds of jobs each node holds, at the least."""
        buckets, lowest = self._buckets, self._lowest
        while not buckets[lowest] and lowest < len(buckets) - 1:
            lowest += 1
        self._lowest = lowest
        return lowest

    def first(self, rounds: int) -> NodeRecord | None:
        """The least busy node, if it holds fewer than `rounds` full rounds of jobs."""
        lowest = self.rounds()
        return next(iter(self._buckets[lowest]), None) if lowest < rounds else None

    def candidates(self, rounds: int) -> Iterator[NodeRecord]:
        """Nodes that hold fewer than `rounds` full rounds of jobs, the least busy first.

        The caller stops at the first one that suits it, and must not go on after a `put`.
        """
        return chain.from_iterable(self._buckets[self.rounds() : rounds])

    def idlest(self) -> NodeRecord | None:
        """A node with a free cpu, if there is one."""
        return self.first(1)

    def is_uneven(self) -> bool:
        """Whether a node holds a full round of jobs while another one may have a free cpu."""
        if self.rounds():
            return False
        buckets = self._buckets
        while len(buckets) > 1 and not buckets[-1]:
            buckets.pop()
        return len(buckets) > 1

    def fullest_first(self) -> Iterator[NodeRecord]:
        """Nodes that hold a full round of jobs or more, the busiest first.

        The caller must not go on after a `put`.
        """
        return chain.from_iterable(self._buckets[:0:-1])

    def __contains__(self, node: NodeRecord) -> bool:
        return node.bucket != NOWHERE

    def __len__(self) -> int:
        return self._count
