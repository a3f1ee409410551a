"""What programs of a world in one thread keep on disks: it outlives them, and power cuts as well.

    NodeProgram ── KeepLetters ... ──▶ Spool ──▶ KeptFound      as `io/spool.py`
    SchedulerProgram ── Record... ──▶ State ──▶ PlacementsKnown, ClosingKnown
                                                                    as `io/schedulerstate.py`
    a cluster ── StoreJobs, RecordPlacements ... ──▶ Journal ──▶ ResubmitJobs      as `recovery/`

What an effect writes is there when the next one is performed: a program that dies in the middle of
its turn leaves what it has performed until then.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nodeserver.core import recoveryeffects as keep
from nodeserver.core.messages import (
    CloseComputation,
    DeclareComputation,
    JobsDone,
    KnownNode,
    Message,
    OpenComputation,
    ResubmitJobs,
    ShareData,
)
from nodeserver.core.nodeevents import KeptFound, KeptSent
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.core.recoveryevents import ClosingKnown, PlacementsKnown
from nodeserver.core.status import Unrun
from nodeserver.core.takeover import ALL_JOBS, ANYWHERE
from nodeserver.core.unsettled import Unsettled

Performers = dict[type[Any], Callable[[Any], None]]
AT_ONCE = 2  # letters that are sent before there is room for more


class NodeLink(Protocol):
    """A node, as its spool sees it."""

    def send(self, peer: str, message: Message) -> None:
        """Hand a letter to the link."""

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have this called when nothing waits to go out to this peer."""

    def tell(self, event: KeptSent) -> None:
        """Have the core told."""


@dataclass
class _Kept:
    opened: OpenComputation
    since: float
    nodes: list[str]
    letters: dict[int, JobsDone] = field(default_factory=dict)


class Spool:
    """The outcomes that the nodes of one machine keep, one after the other."""

    def __init__(self) -> None:
        self.computations: dict[int, _Kept] = {}

    def left(self) -> dict[int, int]:
        """How many letters there are of each computation; one without any is never written."""
        return {c: len(kept.letters) for c, kept in self.computations.items() if kept.letters}

    def found(self, node: str, now: float) -> list[KeptFound]:
        """What a node that starts finds; one without a letter was never written."""
        self.computations = {c: kept for c, kept in self.computations.items() if kept.letters}
        found = []
        for kept in self.computations.values():
            jobs = [len(letter.ids) for letter in kept.letters.values()]
            former = tuple(kept.nodes)
            found.append(KeptFound(kept.opened, [*kept.letters], jobs, now - kept.since, former))
            kept.nodes.append(node)
        return found

    def performers(self, node: str, clock: Any, link: 'NodeLink') -> Performers:
        """What is called for each effect of a node."""

        def keep_computation(effect: keep.KeepComputation) -> None:
            kept = _Kept(effect.opened, clock.now, [node])
            self.computations.setdefault(effect.opened.computation, kept)

        def keep_letters(effect: keep.KeepLetters) -> None:
            kept = self.computations[effect.computation]
            kept.letters.update((letter.letter, letter) for letter in effect.letters)

        def forget_letters(effect: keep.ForgetLetters) -> None:
            for letter in effect.letters:
                self.computations[effect.computation].letters.pop(letter, None)

        def send_kept(effect: keep.SendKept) -> None:
            kept = self.computations.get(effect.computation)
            letters = kept.letters if kept is not None else {}
            sent = effect.letters[:AT_ONCE]
            for number in sent:
                link.send(effect.peer, replace(letters[number], node=node))
            told = KeptSent(effect.peer, effect.computation, sent)
            link.when_sent(effect.peer, lambda: link.tell(told))

        return {
            keep.KeepComputation: keep_computation,
            keep.KeepLetters: keep_letters,
            keep.ForgetLetters: forget_letters,
            keep.ForgetKept: lambda effect: self.computations.pop(effect.computation, None),
            keep.SendKept: send_kept,
        }


@dataclass
class _Recorded:
    token: bytes
    epoch: int
    exclusive: bool = False
    nodes: dict[str, KnownNode] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    attempts: list[list[int]] = field(default_factory=list)


@dataclass
class _Closed:
    message: CloseComputation
    nodes: dict[str, KnownNode]  # that are yet to be told
    at: float


class State:
    """What a scheduler has put on record of its computations."""

    def __init__(self) -> None:
        self.computations: dict[int, _Recorded] = {}
        self._closed: dict[int, _Closed] = {}

    def untold(self) -> dict[int, set[str]]:
        """The nodes that are yet to be told of a close, by computation."""
        return {computation: set(closed.nodes) for computation, closed in self._closed.items()}

    def left(self) -> dict[int, int]:
        """How many placements there are of each computation, or nodes to be told where they are."""
        left = {computation: len(known.ids) for computation, known in self.computations.items()}
        for computation, closed in self._closed.items():
            if any(node.port for node in closed.nodes.values()):  # who calls has another id now
                left[computation] = len(closed.nodes)
        return left

    def found(self) -> list[PlacementsKnown]:
        """What a scheduler that starts finds: the epoch is counted up before it opens anything."""
        found = []
        for computation, known in self.computations.items():
            known.epoch += 1
            nodes = [*known.nodes.values()]
            columns = [*known.places], [[*x] for x in known.ids], [[*x] for x in known.attempts]
            of = computation, known.token, known.epoch
            found.append(PlacementsKnown(*of, nodes, *columns, known.exclusive))
        return found

    def closings(self, now: float) -> list[ClosingKnown]:
        """What a scheduler that starts finds of computations that were closed."""
        found = self._closed.values()
        return [ClosingKnown(c.message, [*c.nodes.values()], now - c.at) for c in found]

    def performers(self, clock: Any) -> Performers:
        """What is called for each effect of a scheduler."""

        def declared(effect: keep.RecordComputation) -> None:
            new = effect.declared
            self._closed.pop(new.computation, None)
            known = self.computations.setdefault(new.computation, _Recorded(new.token, new.epoch))
            known.token, known.epoch = new.token, max(known.epoch, new.epoch)
            known.exclusive = new.exclusive
            if effect.is_unknown:
                where, ids, attempts = ANYWHERE[0], [ALL_JOBS], list[int]()
                placed(keep.RecordPlacements([new.computation], [where], [ids], [attempts]))

        def node(effect: keep.RecordNode) -> None:
            self.computations[effect.computation].nodes[effect.node.node] = effect.node

        def placed(effect: keep.RecordPlacements) -> None:
            columns = effect.computations, effect.nodes, effect.ids, effect.attempts
            for computation, where, ids, attempts in zip(*columns, strict=True):
                known = self.computations[computation]
                known.places.append(where)
                known.ids.append([*ids])
                known.attempts.append([*attempts])

        def rewritten(effect: keep.RewritePlacements) -> None:
            known = self.computations[effect.computation]
            known.places, known.ids = [*effect.nodes], [[*ids] for ids in effect.ids]
            known.attempts = [[*attempts] for attempts in effect.attempts]

        def forget(effect: keep.ForgetComputation) -> None:
            self.computations.pop(effect.computation, None)
            self._closed.pop(effect.computation, None)

        def closed(effect: keep.RecordClosed) -> None:
            forget(keep.ForgetComputation(effect.message.computation))
            nodes = {node.node: node for node in effect.nodes}
            self._closed[effect.message.computation] = _Closed(effect.message, nodes, clock.now)

        def told(effect: keep.ForgetUntold) -> None:
            for computation, nodes in zip(effect.computations, effect.nodes, strict=True):
                known = self._closed[computation]
                for node in nodes:
                    del known.nodes[node]
                if not known.nodes:
                    del self._closed[computation]

        return {
            keep.RecordComputation: declared,
            keep.RecordNode: node,
            keep.RecordPlacements: placed,
            keep.RewritePlacements: rewritten,
            keep.ForgetComputation: forget,
            keep.RecordClosed: closed,
            keep.ForgetUntold: told,
        }


class Journal:
    """What is kept of one cluster, in whichever programs it has been."""

    def __init__(self, declared: DeclareComputation, keeping: Keeping, is_elsewhere: bool) -> None:
        self.declared, self.keeping, self.is_elsewhere = declared, keeping, is_elsewhere
        self.epoch = declared.epoch
        self.submitted = 0
        self.keeps_all = keeping == Keeping.ALL  # from the first job on
        self.ended: dict[int, int] = {}  # job -> its status
        self.unreached: set[int] = set()  # jobs that a later try may find at their nodes
        self._jobs = Unsettled()
        self._placed: dict[int, str] = {}
        self._attempts: dict[int, int] = {}

    def performers(self) -> Performers:
        """What is called for each effect of the cluster's core."""
        return {
            keep.StoreJobs: lambda e: self._store(e),
            keep.StoreOutcomes: lambda e: self._end(zip(e.done.ids, e.done.statuses, strict=True)),
            keep.StoreUnrun: self._end_unrun,
            keep.StoreData: lambda e: self._jobs.share(e.data, e.content),
            keep.DropStored: self._drop_data,
            keep.StoreEpoch: self._count_up,
            keep.RecordNode: self.node,
        }

    def left(self) -> dict[str, int]:
        """What there is of jobs that have ended, and of what they share."""
        left = {'places': len(self._placed.keys() - self.unreached)}
        left['jobs'] = len(self._jobs._payloads.keys() - self.unreached)
        left['data'] = len(self._jobs.data.keys() - self._named())
        return {what: count for what, count in left.items() if count}

    def node(self, effect: keep.RecordNode) -> None:
        """A node may have something of it from now on."""
        self._jobs.know([effect.node])

    def place(self, node: str, ids: list[int], attempts: list[int]) -> None:
        """Jobs are about to go to a node."""
        for job, attempt in zip(ids, attempts or [0] * len(ids), strict=True):
            if job not in self.ended:
                self._placed[job], self._attempts[job] = node, attempt
                self.submitted = max(self.submitted, job)

    def rewrite(self, effect: keep.RewritePlacements) -> None:
        """These are all placements that matter."""
        self._placed.clear()
        for row in zip(effect.nodes, effect.ids, effect.attempts, strict=True):
            self.place(*row)

    def failed(self, ids: list[int]) -> None:
        """Jobs have used up one more of their retries."""
        self._jobs.failed(ids)

    def _store(self, effect: keep.StoreJobs) -> None:
        event = effect.submitted
        self.submitted = max(self.submitted, *event.ids)
        if self.keeping == Keeping.ALL:
            self._jobs.submitted(event)
        else:
            self._placed.update(dict.fromkeys(event.ids, ''))

    def _end(self, rows: Iterable[tuple[int, int]]) -> None:
        ended = dict(rows)
        self.ended |= ended
        self._jobs.settled([*ended])
        for job in ended:
            self._placed.pop(job, None)

    def _end_unrun(self, effect: keep.StoreUnrun) -> None:
        if effect.kind == Unrun.UNREACHED:
            self.unreached.update(effect.ids)
        else:
            self._end((job, effect.status) for job in effect.ids)

    def _named(self) -> set[int]:
        """Data that jobs name which were not reached."""
        extras = [self._jobs._extras.get(job) for job in self.unreached]
        return {data for each in extras if each is not None for data in each.shared}

    def _drop_data(self, effect: keep.DropStored) -> None:
        for data in set(effect.ids) - self._named():
            self._jobs.data.pop(data, None)

    def _count_up(self, effect: keep.StoreEpoch) -> None:
        self.epoch = effect.epoch

    def take_over(
        self, collects: bool
    ) -> tuple[DeclareComputation, list[ResubmitJobs | ShareData], dict[int, str]]:
        """What another program declares, what it tells of the jobs, and where these are."""
        computation = self.declared.computation
        self.unreached.clear()
        again: list[ResubmitJobs] = []
        for message in self._jobs.resubmissions(computation):
            places = [self._placed.get(job, '') for job in message.ids]
            attempts = [self._attempts.get(job, 0) for job in message.ids]
            again.append(replace(message, places=places, attempts=attempts))
        bare = [job for job in self._placed if job not in self._jobs._payloads]
        if bare:
            places = [self._placed[job] for job in bare]
            attempts = [self._attempts.get(job, 0) for job in bare]
            columns = bare, [b''] * len(bare), places
            again.append(ResubmitJobs(computation, '', *columns, attempts=attempts))
        if collects and not self.is_elsewhere:
            again = [_placed_part(message) for message in again]
            again = [message for message in again if message.ids]
            kept = {job for message in again for job in message.ids}
            dropped = [j for j in (*self._placed, *self._jobs._payloads) if j not in kept]
            self._jobs.settled(dropped)
            for job in dropped:
                self._placed.pop(job, None)
        located = {j: p for m in again for j, p in zip(m.ids, m.places, strict=True)}
        self.epoch += 1
        declared = replace(
            self.declared,
            epoch=self.epoch,
            resumes=True,
            collects=collects,
            resubmits=len(located),
            nodes=[] if self.is_elsewhere else [*self._jobs.nodes.values()],
        )
        named = {data for message in again for ids in message.shared for data in ids}
        self._jobs.data = {data: c for data, c in self._jobs.data.items() if data in named}
        data = {} if collects and not self.is_elsewhere else self._jobs.data
        shared = [ShareData(computation, number, content) for number, content in data.items()]
        return declared, [*shared, *again], located


def _placed_part(message: ResubmitJobs) -> ResubmitJobs:
    """Only the jobs that were with a node."""
    keeps = [bool(place) for place in message.places]
    columns = {
        name: [entry for entry, is_kept in zip(column, keeps, strict=True) if is_kept]
        for name in ('ids', 'payloads', 'places', 'shared', 'manifests', 'failures', 'attempts')
        if (column := getattr(message, name))
    }
    return replace(message, **columns)
