"""Whose turn it is on a node: clients share its cpus fairly, however long their jobs are.

A computation of a program that has the node for itself stands for itself.  A scheduler of many
clients says which computations are of the same one: these share one part.
"""

from collections.abc import Iterable, Mapping, Sequence

from nodeserver.core.hosted import Hosted

PATIENCE = 30.0  # seconds after which a job with needs goes before all others
GPU_SECONDS = 10.0  # that a process is to have its gpus: the next one begins from nothing
Rank = tuple[int, float]  # cpus in use, and the time that was used
Client = tuple[str, int]  # its scheduler, and its number there


class Turns:
    """Gives the next cpu to the client with the fewest, among equals to the least served.

    Time is counted as in start-time fair queueing: one that had nothing to do for long begins
    where the others are, and does not catch up.
    """

    def __init__(self, hosted: Mapping[int, Hosted] | None = None) -> None:
        self._hosted = {} if hosted is None else hosted  # all computations on the node
        self._now = 0.0  # `used_seconds` of the one that was served last

    def next_of(self, hungry: Sequence[Hosted]) -> Hosted:
        """Choose among computations that have a job to give out."""
        hosted = hungry[0] if len(hungry) == 1 else self._least(hungry)
        self._now = hosted.used_seconds = max(hosted.used_seconds, self._now)
        return hosted

    def _least(self, hungry: Sequence[Hosted]) -> Hosted:
        if not any(hosted.opened.client for hosted in hungry):
            return min(hungry, key=self._rank)
        ranks = self._ranks()
        return min(hungry, key=lambda h: (self._rank_of_client(h, ranks), self._rank(h)))

    def charge(self, hosted: Hosted, seconds: float) -> None:
        """A computation has used so much cpu time: its client has."""
        used = max(each.used_seconds for each in self._of_client(hosted))
        hosted.used_seconds = used + seconds

    def _of_client(self, hosted: Hosted) -> list[Hosted]:
        if not hosted.opened.client:
            return [hosted]
        others = [each for each in self._hosted.values() if _are_of_one(each, hosted)]
        return others or [hosted]

    def goes_before(self, waiting: Hosted, other: Hosted, now: float) -> bool:
        """Whether one whose next job needs more than is free should have what becomes free.

        It should if it was served less: each job of the other's that runs meanwhile brings that
        nearer.  Many new computations, each with a few jobs, would stay ahead of it for ever.
        """
        if now >= waiting.denied_at + PATIENCE:
            return True
        ahead = GPU_SECONDS if other.lasting and other.opened.resources.gpus else 0.0
        if _are_of_one(waiting, other):
            return self._rank(waiting)[1] + ahead <= self._rank(other)[1]
        ranks = self._ranks()
        used = self._rank_of_client(waiting, ranks)[1] + ahead
        return used <= self._rank_of_client(other, ranks)[1]

    def must_yield(self, hosted: Hosted, waiting: Iterable[Hosted]) -> bool:
        """Whether a computation should let a worker run dry for one of those that want a cpu."""
        if not hosted.busy:
            return False
        ranks = self._ranks()
        own, of_client = self._rank(hosted), self._rank_of_client(hosted, ranks)
        for other in waiting:
            if other is hosted:
                continue
            if _are_of_one(other, hosted):
                (busy, used), rank = own, self._rank(other)
            else:
                (busy, used), rank = of_client, self._rank_of_client(other, ranks)
            if rank < (busy - 1, used):
                return True
        return False

    def _ranks(self) -> dict[Client, Rank]:
        """Of all clients, at once: there may be hundreds, each with some computations."""
        ranks = dict[Client, Rank]()
        for hosted in self._hosted.values():
            if client := hosted.opened.client:
                busy, used = ranks.get((hosted.scheduler, client), (0, self._now))
                rank = busy + hosted.busy, max(used, hosted.used_seconds)
                ranks[hosted.scheduler, client] = rank
        return ranks

    def _rank_of_client(self, hosted: Hosted, ranks: Mapping[Client, Rank]) -> Rank:
        rank = ranks.get((hosted.scheduler, hosted.opened.client))
        return self._rank(hosted) if rank is None else rank

    def _rank(self, hosted: Hosted) -> Rank:
        return hosted.busy, max(hosted.used_seconds, self._now)


def _are_of_one(one: Hosted, other: Hosted) -> bool:
    """Whether two computations are of the same client."""
    client = one.opened.client
    return bool(client) and client == other.opened.client and one.scheduler == other.scheduler
