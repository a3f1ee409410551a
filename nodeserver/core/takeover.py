"""A computation that is taken over: which of its jobs are in doubt, and who can tell of them.

ResubmitJobs ──▶ in doubt ── HandoverBegun, JobsDone ..., JobsHeld of the node ──▶ known again
                        └── the node came back without it, or did not come ──▶ again, or ended
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from nodeserver.core.errors import InvariantBroken
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.jobrecord import Entry, JobRecord
from nodeserver.core.messages import KnownNode

MOST_NAMES = 10  # of nodes, in one text
Place = tuple[str, int]  # a node, and the number of the attempt there; 0: not known
NOWHERE: Place = '', 0
ANYWHERE: Place = '?', 0  # nobody knows where it is, or if it has begun
ALL_JOBS = 0  # no job has this number: on record as anywhere, it means all that are not there


@dataclass(slots=True)
class Handover:
    """What a node that was asked for it hands over."""

    has_begun: bool = False  # what had been under way before comes once more
    formerly: tuple[str, ...] = ()  # ids under which the node had the computation before
    before: frozenset[str] = frozenset()  # those, and of nodes that were where it is
    letters: set[int] = field(default_factory=set)  # that have come, by number


class Takeover:
    """The jobs in doubt of one computation, and the nodes that may have something of it."""

    __slots__ = (
        '_asked_nodes',
        '_attempts',
        '_by_address',
        '_renamed',
        'asks_all',
        'bare',
        'begun_at',
        'cancelled',
        'doubts',
        'handovers',
        'is_on_record',
        'known',
        'lost_at',
        'missing',
        'overrides',
        'resends',
        'settled',
        'where',
    )

    def __init__(
        self,
        nodes: Iterable[KnownNode] = (),
        missing: int = 0,
        overrides: Mapping[int, Place] | None = None,  # all that there are on record
    ) -> None:
        self.missing = missing  # jobs that are yet to be resubmitted
        self.begun_at = inf  # when all jobs were told of
        self.lost_at = inf  # when nodes that have not come are given up
        # by id: nodes that have not handed over what they may have
        self.known: dict[str, KnownNode] = {}
        self._by_address: dict[tuple[str, int], set[str]] = {}
        self.handovers: dict[str, Handover] = {}  # of nodes, by id, that were asked for theirs
        self.doubts: dict[str, dict[int, Entry]] = {}  # by node
        self.where: dict[int, str] = {}  # the node of each of them
        self._attempts: dict[int, int] = {}  # the attempt there, of those of which it is known
        # where jobs are, whatever the client takes them for
        self.overrides: dict[int, Place] = dict(overrides or {})
        self._asked_nodes: set[str] = set()  # nodes that were, by id
        self._renamed: dict[str, str] = {}  # nodes that have another id now
        # there are no records, and the client need not have been told where jobs are
        self.asks_all = self.overrides.pop(ALL_JOBS, NOWHERE) == ANYWHERE
        # so all others are with no node
        self.is_on_record = overrides is not None and not self.asks_all
        self.resends = False  # nodes are to send again what the client has not acknowledged
        self.bare: list[int] = []  # known here, and its client has nothing of them but their ids
        self.settled: set[int] = set()  # ended, and the client is told so
        self.cancelled: set[int] = set()  # before they were resubmitted
        for node in nodes:
            self.know(node)

    @property
    def is_gathering(self) -> bool:
        """Whether jobs are yet to come: what nodes say of them would not be understood."""
        return self.missing > 0

    @property
    def is_over(self) -> bool:
        """Whether nobody is waited for any more."""
        return not (self.is_gathering or self.known or self.handovers or self.where)

    # nodes

    def know(self, node: KnownNode) -> None:
        """A node may have something."""
        self.forget(node.node)
        self.known[node.node] = node
        if node.port:
            self._by_address.setdefault((node.address, node.port), set()).add(node.node)

    def forget(self, name: str) -> None:
        """A node has handed over what it has, or is given up."""
        known = self.known.pop(name, None)
        if known is not None and known.port:
            place = known.address, known.port
            self._by_address[place].discard(name)
            if not self._by_address[place]:
                del self._by_address[place]

    def rename(self, before: str, node: str) -> None:
        """A node has another id now: jobs that are yet to be told of are with it."""
        self._renamed.update({old: node for old, now in self._renamed.items() if now == before})
        self._renamed[before] = node

    def names_of(self, node: NodeRecord) -> set[str]:
        """The ids under which a node may have something: its own, and those at its place."""
        handover = self.handovers.get(node.id)
        names = {node.id, *(handover.formerly if handover is not None else ())}
        for place in node.places:
            names |= self._by_address.get(place, set())
        return {name for name in names if name in self.known or name in self.doubts}

    def is_known(self, node: NodeRecord) -> bool:
        """Whether a node may have something that it has not handed over."""
        return node.id in self.handovers or bool(self.names_of(node)) or self._may_be(node)

    def _may_be(self, node: NodeRecord) -> bool:
        """Whether a node that is not known is to be asked, once: it alone knows what it has.

        Any node is, where nobody knows where jobs are.  Else one that calls may have called before,
        under an id that it had then, and has no place by which it is known.
        """
        if node.id in self._asked_nodes:
            return False
        if self.asks_all:
            return True
        return node.has_called and any(not known.port for known in self.known.values())

    def places(self) -> Iterable[tuple[str, int]]:
        """Where to look for nodes that have not come."""
        return self._by_address.keys()

    def asked(self, node: NodeRecord) -> None:
        """A node was asked to hand over what it has."""
        self.handovers[node.id] = Handover()
        self._asked_nodes.add(node.id)

    def unasked(self, node: str) -> bool:
        """A node is lost or has refused, and may be asked again; whether it had been asked."""
        was_asked = self.handovers.pop(node, None) is not None
        if was_asked:
            self._asked_nodes.discard(node)
        return was_asked

    # jobs

    def await_jobs(self, count: int) -> None:
        """A client that may have missed much tells of its jobs: it begins anew after that."""
        self.missing, self.lost_at = count, inf
        self.settled, self.cancelled, self.bare = set(), set(), []

    def place_of(self, job: int, told: Place) -> Place:
        """The node that a job may be with, of which the client says this."""
        node, attempt = self.overrides.get(job, NOWHERE if self.is_on_record else told)
        if not node and self.asks_all:
            return ANYWHERE
        return self._renamed.get(node, node), attempt

    def doubt(self, job: int, entry: Entry, place: Place) -> None:
        """A job may be with a node, or may have ended there."""
        node, attempt = place
        self.where[job] = node
        self.doubts.setdefault(node, {})[job] = entry
        if attempt:
            self._attempts[job] = attempt

    def attempt_of(self, job: int) -> int:
        """The one attempt of a job in doubt that is to be believed; 0: that is not known."""
        return self._attempts.get(job, 0)

    def repin(self, before: str, node: str) -> None:
        """Jobs in doubt that are for one node only are for it under the id that it has now."""
        for place in (before, ANYWHERE[0]):
            for entry in self.doubts.get(place, {}).values():
                if isinstance(entry, JobRecord) and entry.pinned == before:
                    entry.pinned = node

    def take(self, job: int) -> Entry:
        """A job is in doubt no longer."""
        place = self.where.pop(job)
        self._attempts.pop(job, None)
        entry = self.doubts[place].pop(job)
        if not self.doubts[place]:
            del self.doubts[place]
        return entry

    def close(self, nodes: Mapping[str, NodeRecord]) -> list[int]:
        """No job is wanted any more: those in doubt; nodes that have not come are waited for."""
        ids = [*self.where]
        for node in self.handovers:
            for name in self.names_of(nodes[node]):
                self.forget(name)
        self.handovers.clear()
        self.where.clear()
        self._attempts.clear()
        self.doubts.clear()
        self.missing, self.asks_all = 0, False
        return ids

    def check(self) -> None:
        """Raise `InvariantBroken` if nodes or attempts are known of which nothing is waited for."""
        if not self._attempts.keys() <= self.where.keys():
            raise InvariantBroken('attempts are known of jobs that are not in doubt')
        names = {name for names in self._by_address.values() for name in names}
        if names != {name for name, known in self.known.items() if known.port}:
            raise InvariantBroken(f'nodes at {self._by_address}, but {self.known}')

    def words(self, now: float) -> list[str]:
        """Say who is waited for, and for what."""
        if self.is_gathering:
            return [f'taking over: {_jobs(self.missing)} yet to be told of by the program']
        names = [*dict.fromkeys((*self.known, *self.doubts))]
        lines = [self._line(name, now) for name in names[:MOST_NAMES]]
        if names[MOST_NAMES:]:
            doubts = sum(len(self.doubts.get(name, ())) for name in names[MOST_NAMES:])
            rest = len(names) - MOST_NAMES
            lines.append(f'and for {rest} more nodes, {_jobs(doubts)} in doubt')
        return lines

    def _line(self, name: str, now: float) -> str:
        if name == ANYWHERE[0]:
            return self._unknown(now)
        known = self.known.get(name)
        place = f'{known.address} port {known.port}' if known and known.port else ''
        title = place or (known.address if known else name)
        text = f'taking over: waiting for node {title}'
        doubts = len(self.doubts.get(name, ()))
        if doubts:
            text += f', {_jobs(doubts)} in doubt'
        left = max(0, round(self.lost_at - now)) if self.lost_at != inf else 0
        return f'{text}, lost in {left} s' if left else text

    def _unknown(self, now: float) -> str:
        jobs = _jobs(len(self.doubts[ANYWHERE[0]]))
        text = f'taking over without records: nodes are asked for {jobs} that may have begun'
        left = max(0, round(self.lost_at - now)) if self.lost_at != inf else 0
        return f'{text}, for {left} s' if left else text


def _jobs(count: int) -> str:
    return f'{count} job' if count == 1 else f'{count} jobs'
