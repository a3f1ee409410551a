"""The programs of users in a world of one thread, with the clusters in them.

ClientProgram: ClusterCores ◀── LocalLink ──▶ SchedulerCore ◀──▶ nodes
SharedProgram: ClusterCores ◀── SimulatedDialer ──▶ a SchedulerProgram
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.core import recoveryeffects as keep
from nodeserver.core.closings import CLOSE_TIMEOUT
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.fleetmessages import RequestAnswered
from nodeserver.core.messages import (
    AllocateAnswer,
    DeclareComputation,
    Message,
    ResubmitJobs,
    SchedulerPulse,
    ShareData,
)
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus, Unrun
from nodeserver.core.values import CLIENT_ROLE
from nodeserver.io.locallink import LocalLink
from nodeserver.services.scheduler import SCHEDULER
from tests.support.disks import Journal
from tests.support.files import ClusterFiles
from tests.support.hosts import CALL_INTERVAL, LoopProgram, Performers, Surroundings
from tests.support.linkends import Around, Place, SimulatedDialer
from tests.support.network import End
from tests.support.promises import Promise, broken, left_in, shared_content
from tests.support.seats import Office, SchedulerSeat

_CLOSE_SLACK = 0.5
_OF_NODES = ('._unsettled.nodes', '._asked._nodes', '._asked.added')  # which there are, or were


class Cluster:
    """A cluster in a user's program: its core, and what its user has done with it."""

    def __init__(
        self,
        program: 'UserProgram',
        declared: DeclareComputation,
        around: Surroundings,
        journal: Journal,
        before: Sequence[ResubmitJobs | ShareData] = (),
    ) -> None:
        self.program, self.declared, self.journal = program, declared, journal
        self.files = ClusterFiles(
            (around.agenda, program, around.mishaps),
            declared.computation,
            around.manifests,
            lambda event: program.post(self.core, event),
        )
        if declared.manifest:
            around.manifests.own[declared.computation] = declared.manifest
        self.core = ClusterCore(SCHEDULER, declared, before, program.is_elsewhere, journal.keeping)
        self.submitted = journal.submitted
        self.is_closing = self.is_closed = False
        self.said: list[str] = []
        self._data_of: dict[int, int] = {}  # by job
        self._users: Counter[int] = Counter()  # jobs that name data and have not ended
        self._shared = 0
        self._requests = 0
        self._unanswered: set[int] = set()
        self.steers = False  # its nodes: it was asked to
        self.is_collecting = False  # the jobs of a cluster of before, and no others

    def inherit(self, before: 'Cluster', jobs: Iterable[int]) -> None:
        """Know what jobs of a cluster of before have besides their arguments."""
        self._shared, self._requests = before._shared, before._requests
        self._data_of = {job: before._data_of[job] for job in jobs if job in before._data_of}
        self._users = Counter(self._data_of.values())
        self.files.inherit(before.files, jobs)

    @property
    def id(self) -> int:
        """The id of its computation."""
        return self.declared.computation

    def share(self, size: int, jobs: list[int]) -> int:
        """Send data ahead of the jobs that name them, as `dispy_nb/shareddata.py` does."""
        self._shared += 1
        data = self._shared
        self._data_of.update(dict.fromkeys(jobs, data))
        self._users[data] = len(jobs)
        content = shared_content(self.id, data, size)
        self.program.post(self.core, seen.DataShared(data, content))
        return data

    def let_go(self, jobs: list[int]) -> None:
        """Drop the data that only these jobs have named, which have ended."""
        named = [self._data_of[job] for job in jobs if job in self._data_of]
        self._users.subtract(named)
        unused = [data for data in dict.fromkeys(named) if not self._users[data]]
        if unused:
            self.program.post(self.core, seen.DataDropped(unused))

    def request(self, kind: type[Any], *values: Any) -> None:
        """Ask the scheduler for something that it answers."""
        self.steers = True
        self._requests += 1
        self._unanswered.add(self._requests)
        message = kind(self.id, self._requests, *values)
        self.program.post(self.core, seen.RequestMade(message))

    def answered(self, answer: RequestAnswered) -> None:
        """An answer came, to a request that has none yet."""
        if answer.request not in self._unanswered:
            broken(Promise.PROTOCOL, f'request {answer.request} was answered again')
        if answer.value < 0 and not answer.reason:
            broken(Promise.TRUTH, f'request {answer.request} failed without a word')
        self._unanswered.remove(answer.request)

    @property
    def is_open(self) -> bool:
        """Whether its user may still use it."""
        return self.program.is_alive and not self.is_closing and not self.is_collecting


class UserProgram(LoopProgram):
    """A user's program, which ends with the last of its clusters."""

    is_elsewhere = False  # the scheduler of its clusters

    def __init__(self, around: Surroundings, identity: tuple[str, str]) -> None:
        self.peer, name = identity
        super().__init__(around, name)
        self._around = around
        self._witness = around.witness
        self.end = End(name)
        self.clusters: list[Cluster] = []
        self.allocates: Callable[[int], int] = lambda cpus: cpus
        self.closed: Callable[[Cluster], None] = lambda cluster: None

    def _connect(self, cluster: Cluster) -> Callable[[Message], None]:
        """Link a cluster's core, which is told by events, with its scheduler."""
        raise NotImplementedError

    def _part(self, cluster: Cluster) -> None:
        """A cluster is gone."""

    def make_cluster(
        self, declared: DeclareComputation, keeping: Keeping = Keeping.NOTHING
    ) -> Cluster:
        """Make a cluster."""
        journal = Journal(declared, keeping, self.is_elsewhere)
        return self._seat(Cluster(self, declared, self._around, journal))

    def take_over(self, before: Cluster, collects: bool) -> Cluster:
        """Go on with the cluster of a program that was killed, or collect what it has run."""
        journal = before.journal
        declared, messages, places = journal.take_over(collects)
        is_told_late = journal.keeping == Keeping.ALL
        self._witness.taken_over(declared.computation, places, journal.ended, is_told_late)
        if collects:
            self._witness.collected(declared.computation)
            journal.keeping = Keeping.ALL
        cluster = Cluster(self, declared, self._around, journal, messages)
        cluster.is_collecting = collects
        cluster.inherit(before, places)
        return self._seat(cluster)

    def _seat(self, cluster: Cluster) -> Cluster:
        self.clusters.append(cluster)
        declared = cluster.declared
        send = self._connect(cluster)
        witness, computation = self._witness, declared.computation
        is_elsewhere = self.is_elsewhere
        self.seat(
            cluster.core,
            {
                do.Send: lambda e: send(e.message),
                do.MarkStarted: lambda e: witness.started(computation, e.node, e.ids, is_elsewhere),
                do.MarkRequeued: lambda e: witness.moved(computation, e.ids, JobStatus.CREATED),
                do.MarkRetried: lambda e: self._retried(cluster, e.retried.ids),
                do.SettleJobs: lambda e: self._settled(cluster, e),
                do.SettleUnrun: lambda e: self._settled_unrun(cluster, e),
                do.DeliverProvisional: lambda e: witness.shown(e.results),
                do.TellNode: lambda e: None,
                do.AskAllocation: lambda e: self._ask(cluster, send, e),
                do.Report: lambda e: cluster.said.append(e.text),
                do.TakeBackNotice: lambda e: None,
                do.SayClosed: lambda e: self._closed(cluster),
                do.HearOfFiles: cluster.files.perform,
                do.SettleRequest: lambda e: cluster.answered(e.answer),
                **cluster.journal.performers(),
            },
        )
        return cluster

    def _retried(self, cluster: Cluster, ids: list[int]) -> None:
        self._witness.moved(cluster.id, ids, JobStatus.CREATED)
        cluster.journal.failed(ids)

    def _settled(self, cluster: Cluster, effect: do.SettleJobs) -> None:
        self._witness.settled(effect.done)
        cluster.let_go(effect.done.ids)
        cluster.files.settle(effect.done.ids)

    def _settled_unrun(self, cluster: Cluster, effect: do.SettleUnrun) -> None:
        if effect.kind == Unrun.UNREACHED:
            self._witness.left_behind(cluster.id, effect.ids)
            cluster.files.leave(effect.ids)
        else:
            self._witness.settled_unrun(cluster.id, effect.ids, effect.status, effect.reason)
            cluster.files.settle(effect.ids)
        cluster.let_go(effect.ids)

    def close_cluster(self, cluster: Cluster) -> None:
        """Close a cluster: what is pending is cancelled."""
        if not cluster.is_closing:
            cluster.is_closing = True
            self.post(cluster.core, seen.CloseAsked())

    def _ask(
        self, cluster: Cluster, send: Callable[[Message], None], effect: do.AskAllocation
    ) -> None:
        ask = effect.ask
        more = cluster.files.assign_to_node(ask.node)
        answer = AllocateAnswer(ask.computation, ask.node, self.allocates(ask.cpus), manifest=more)
        self._agenda.later(0.01, self, send, answer)

    def _closed(self, cluster: Cluster) -> None:
        if self._witness.pending(cluster.id):
            broken(Promise.CLOSES, f'{self.name}: cluster {cluster.id} closed with jobs pending')
        cluster.is_closed = True
        cluster.files.close()
        self.closed(cluster)
        self._agenda.later(0.001, self, self._detach, cluster)

    def _detach(self, cluster: Cluster) -> None:
        if cluster not in self.clusters:
            return  # it was told twice that it is closed
        del self._seats[cluster.core]
        fresh = ClusterCore(SCHEDULER, cluster.declared, is_elsewhere=self.is_elsewhere)
        fresh.end_turn(0.0)
        left = left_in(cluster.core, fresh, _OF_NODES)
        if left:
            broken(Promise.NOTHING_KEPT, f'{self.name}: a closed cluster has {left}')
        on_disk = cluster.journal.left()
        if on_disk:
            broken(Promise.NOTHING_KEPT, f'{self.name}: the journal of a closed one has {on_disk}')
        self._part(cluster)
        self.clusters.remove(cluster)
        if not self.clusters:
            self.finish()

    def finish(self) -> None:
        """The program ends in order."""
        self.check()
        self.is_alive = False


class ClientProgram(UserProgram):
    """A user's program with a scheduler of its own; its nodes are free at its end."""

    def __init__(
        self,
        around: Surroundings,
        identity: tuple[str, str],
        place_of: Callable[[str], Place | None],
    ) -> None:
        super().__init__(around, identity)
        where, core = (self.peer, self.end), SchedulerCore()
        records = self._records()
        self.scheduling = SchedulerSeat(self, around, where, place_of, core, records)
        self.scheduling.to_client = self._to_client
        self._local: dict[str, LocalLink] = {}

    def _records(self) -> Performers:
        """What the scheduler puts on record goes into the journals of its clusters."""

        def journal(computation: int) -> Journal | None:
            found = [c.journal for c in self.clusters if c.id == computation]
            return found[0] if found and found[0].keeping else None

        def node(effect: keep.RecordNode) -> None:
            if (found := journal(effect.computation)) is not None:
                found.node(effect)

        def placed(effect: keep.RecordPlacements) -> None:
            columns = effect.computations, effect.nodes, effect.ids, effect.attempts
            for computation, where, *jobs in zip(*columns, strict=True):
                if (found := journal(computation)) is not None:
                    found.place(where, *jobs)

        def rewritten(effect: keep.RewritePlacements) -> None:
            if (found := journal(effect.computation)) is not None:
                found.rewrite(effect)

        return {
            keep.RecordComputation: lambda effect: None,
            keep.RecordNode: node,
            keep.RecordPlacements: placed,
            keep.RewritePlacements: rewritten,
            keep.ForgetComputation: lambda effect: None,
            keep.RecordClosed: lambda effect: None,
            keep.ForgetUntold: lambda effect: None,
        }

    def _connect(self, cluster: Cluster) -> Callable[[Message], None]:
        name = f'cluster-{cluster.id:x}'
        near, far = LocalLink.pair(
            self.scheduling.tell, lambda event: self.post(cluster.core, event), SCHEDULER, name
        )
        self._local[name] = near
        return lambda message: far.send(SCHEDULER, message)

    def _part(self, cluster: Cluster) -> None:
        del self._local[f'cluster-{cluster.id:x}']

    def _to_client(self, peer: str, message: Message) -> bool:
        local = self._local.get(peer)
        if local is not None:
            local.send(peer, message)
        return local is not None

    def close_cluster(self, cluster: Cluster) -> None:
        """Close a cluster, which is done in time whatever happens to nodes."""
        if not cluster.is_closing:
            hangs = max(0.0, self.stalled_until - self._agenda.now)
            seconds = hangs + CLOSE_TIMEOUT + _CLOSE_SLACK
            self._expect_closed(cluster, self.stalled_seconds, seconds)
        super().close_cluster(cluster)

    def _expect_closed(self, cluster: Cluster, stalled: float, seconds: float) -> None:
        """The scheduler gives its nodes so long, but for the time that the program itself hung."""

        def look() -> None:
            extra = self.stalled_seconds - stalled
            if extra and not cluster.is_closed:
                self._expect_closed(cluster, self.stalled_seconds, extra)
            elif not cluster.is_closed:
                broken(Promise.CLOSES, f'{self.name}: cluster {cluster.id} is still not closed')

        self._agenda.later(seconds, self, look)

    def finish(self) -> None:
        """The program ends in order: nodes are told."""
        self.check()
        self.scheduling.say_good_bye('the program has closed its clusters')
        self.is_alive = False


class SharedProgram(UserProgram):
    """A user's program whose clusters use a scheduler elsewhere."""

    is_elsewhere = True

    def __init__(self, around: Surroundings, identity: tuple[str, str], office: Office) -> None:
        super().__init__(around, identity)
        self.office = office
        self._link = Around(
            self, self.end, around.network, (self.peer, CLIENT_ROLE), around.limits, self._hear
        )
        self.dialer: SimulatedDialer | None = None
        self._is_linked = False
        self._call()

    def _call(self) -> None:
        """Connect to the scheduler, and again whenever there is another one."""
        self._agenda.later(CALL_INTERVAL, self, self._call)
        office, dialer = self.office, self.dialer
        if dialer is not None and not dialer.is_up and dialer.place is not office:
            dialer.supersede()
        if self.dialer is None and office.program is not None:
            self.dialer = SimulatedDialer(self._link, office.program.peer, office, self._gone)

    def _gone(self, peer: str) -> None:
        self.dialer = None

    def _hear(self, event: seen.Event) -> None:
        """Tell the cluster that is meant, or all of them."""
        match event:
            case seen.MessageArrived(message=SchedulerPulse() as pulse):
                self._link.later(0.0, self._send, pulse)  # once all that has come is read
                meant = []
            case seen.MessageArrived(message=message):
                meant = [c for c in self.clusters if c.id == getattr(message, 'computation', 0)]
            case seen.PeerConnected():
                self._is_linked, meant = True, self.clusters
            case seen.PeerLost():
                self._is_linked, meant = False, self.clusters
                for cluster in self.clusters:
                    self._witness.lost_sight(cluster.id)
            case seen.LinkMended():
                meant = self.clusters
            case _:
                meant = []  # that it cannot be reached is not new to them
        for cluster in meant:
            self.post(cluster.core, event)

    def _connect(self, cluster: Cluster) -> Callable[[Message], None]:
        if self._is_linked:
            self.post(cluster.core, seen.PeerConnected(SCHEDULER, ''))
        return self._send

    def _send(self, message: Message) -> None:
        if self.dialer is not None:
            self.dialer.send(message)

    def finish(self) -> None:
        """The program ends in order: the scheduler is told."""
        if self.dialer is not None:
            self.dialer.close('it ended')
        super().finish()
