"""Which node gets the next job: the one with the fewest jobs per cpu, found without a search.

Nodes lie in buckets by the number of quarter rounds of jobs they hold, a round being a job for each
cpu.  Within a bucket they take turns.  Moving a node is a deletion and an insertion, the best node
is the first of the lowest bucket that is not empty: the cost of a job is the same for 1 and for
1,000 nodes.

A node that may hold several rounds is filled up when part of what lies ahead of its cpus has been
used up, not after each job: it then gets many jobs in one message.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import NOWHERE, NodeRecord

ROUND = 4  # in quarters


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
            self._insert(node, ROUND * node.load // node.cpus)

    def move(self, node: NodeRecord, comp: Computation | None = None) -> None:
        """Move a node to where its load belongs, behind its equals; no harm if it is not in.

        It is said of which computation it has more or fewer jobs than before.
        """
        quarters, before = ROUND * node.load // node.cpus, node.bucket
        if quarters == before:
            self._buckets[quarters].move_to_end(node)
        elif before != NOWHERE:
            del self._buckets[before][node]
            self._insert(node, quarters)

    def _insert(self, node: NodeRecord, quarters: int) -> None:
        buckets = self._buckets
        while quarters >= len(buckets):
            buckets.append(OrderedDict())
        buckets[quarters][node] = None
        node.bucket = quarters
        if quarters < self._lowest:
            self._lowest = quarters

    def discard(self, node: NodeRecord) -> None:
        """Take a node out; no harm if it is not in."""
        if node.bucket != NOWHERE:
            del self._buckets[node.bucket][node]
            node.bucket = NOWHERE
            self._count -= 1

    def is_full(self, rounds: int) -> bool:
        """Whether no node is to be filled up that may hold so many rounds of jobs."""
        return self._find_lowest() >= _enough(rounds)

    def _find_lowest(self) -> int:
        buckets, lowest = self._buckets, self._lowest
        while not buckets[lowest] and lowest < len(buckets) - 1:
            lowest += 1
        self._lowest = lowest
        return lowest

    def first(self, rounds: int) -> NodeRecord | None:
        """The least busy node, if it is to be filled up to so many rounds of jobs."""
        lowest = self._find_lowest()
        return next(iter(self._buckets[lowest]), None) if lowest < _enough(rounds) else None

    def candidates(self, rounds: int) -> Iterator[NodeRecord]:
        """Nodes that are to be filled up to so many rounds of jobs, the least busy first.

        The caller stops at the first one that suits it, and must not go on after a `put`.
        """
        return chain.from_iterable(self._buckets[self._find_lowest() : _enough(rounds)])

    def least_busy_first(self) -> Iterator[NodeRecord]:
        """All nodes; the caller must not go on after a `put`."""
        return chain.from_iterable(self._buckets[self._find_lowest() :])

    def idlest(self) -> NodeRecord | None:
        """A node with a free cpu, if there is one."""
        return self.first(1)

    def is_uneven(self) -> bool:
        """Whether a node holds a full round of jobs while another one may have a free cpu."""
        if self._find_lowest() >= ROUND:
            return False
        buckets = self._buckets
        while len(buckets) > ROUND and not buckets[-1]:
            buckets.pop()
        return len(buckets) > ROUND

    def fullest_first(self) -> Iterator[NodeRecord]:
        """Nodes that hold a full round of jobs or more, the busiest first.

        The caller must not go on after a `put`.
        """
        return chain.from_iterable(self._buckets[: ROUND - 1 : -1])

    def __contains__(self, node: NodeRecord) -> bool:
        return node.bucket != NOWHERE

    def __len__(self) -> int:
        return self._count


def _enough(rounds: int) -> int:
    """How many quarter rounds are enough for a node that may hold so many rounds of jobs.

    Of two rounds a quarter may be missing, so that no cpu waits for a refill; of many, half.
    """
    if rounds == 1:
        return ROUND
    return max(2 * ROUND - 1, ROUND * (rounds + 1) // 2)
