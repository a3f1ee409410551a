"""A shared scheduler's core at a desk: several clients, and nodes that open and close at once."""

from typing import Any

from nodeserver.core import messages as m
from nodeserver.core.effects import Effect, Send
from nodeserver.core.events import (
    DeadlinePassed,
    MessageArrived,
    NodeFound,
    PeerConnected,
    PeerLost,
)
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus
from tests.support.world import declaration


class SharedDesk:
    """The core, its clock, and where jobs and clusters are by what it has sent."""

    def __init__(self, most_cpus: int = 0, zombie_seconds: float = 3600.0) -> None:
        self.core = SchedulerCore(
            is_shared=True, most_cpus_per_client=most_cpus, zombie_seconds=zombie_seconds
        )
        self.now = 50.0
        self.owners: dict[int, str] = {}  # of computations
        self.given: list[tuple[str, int, list[int]]] = []  # node, computation, jobs; in order
        self.open: dict[str, set[int]] = {}  # computations by node
        self.said: dict[str, list[Any]] = {}  # messages to each client
        self._letters = 0

    def tell(self, *events: Any) -> None:
        """One turn with some events; nodes answer in turns that follow."""
        effects = [effect for event in events for effect in self.core.handle(event, self.now)]
        effects += self.core.end_turn(self.now)
        self.core.check()
        answers = [answer for effect in effects for answer in self._answers(effect)]
        if answers:
            self.tell(*answers)

    def _answers(self, effect: Effect) -> list[MessageArrived]:
        if not isinstance(effect, Send):
            return []
        peer, message = effect.peer, effect.message
        if peer not in self.open:
            self.said.setdefault(peer, []).append(message)
        elif isinstance(message, m.RunJobs):
            self.given.append((peer, message.computation, list(message.ids)))
        elif isinstance(message, m.OpenComputation):
            self.open[peer].add(message.computation)
            return [MessageArrived(peer, m.ComputationReady(message.computation))]
        elif isinstance(message, m.CloseComputation):
            self.open[peer].discard(message.computation)
            return [MessageArrived(peer, m.ComputationClosed(message.computation))]
        return []

    def hears(self, peer: str, *messages: Any) -> None:
        """One turn with messages of one peer."""
        self.tell(*(MessageArrived(peer, message) for message in messages))

    def join(self, node: str, cpus: int = 2, address: str = '10.0.0.1', **details: int) -> None:
        """A node comes."""
        self.open[node] = set()
        self.tell(NodeFound(node, address, 51348, ''))
        self.tell(PeerConnected(node, address))
        self.hears(node, m.NodeDetails(node, cpus, 'Linux', '3.11', None, **details))

    def declare(self, client: str, computation: int, **changes: Any) -> None:
        """A client makes a cluster."""
        self.owners[computation] = client
        changes = {'owner': client, 'name': f'f{computation}', 'token': b't' * 16} | changes
        self.hears(client, declaration(computation, **changes))

    def submit(self, computation: int, *ids: int, node: str = '', **options: float) -> None:
        """Jobs come from the client."""
        values = m.JobOptions(**options) if options else m.ORDINARY  # type: ignore[arg-type]
        jobs = m.SubmitJobs(computation, node, list(ids), [b'x'] * len(ids), values)
        self.hears(self.owners[computation], jobs)

    def submit_at_once(self, *messages: m.SubmitJobs) -> None:
        """Jobs of several clusters come in one turn."""
        self.tell(*(MessageArrived(self.owners[each.computation], each) for each in messages))

    def done(self, *jobs: tuple[str, int, int], seconds: float = 1.0) -> None:
        """Nodes report ends of jobs, in one turn: node, computation and job of each."""
        letters = []
        for node, computation, job in jobs:
            self._letters += 1
            columns = ([int(JobStatus.FINISHED)], [b'out'], [''], [seconds])
            letter = m.JobsDone(computation, node, self._letters, [job], [1], *columns)
            letters.append(MessageArrived(node, letter))
        self.tell(*letters)

    def close(self, computation: int) -> None:
        """A client closes a cluster."""
        self.hears(self.owners[computation], m.CloseComputation(computation))

    def dies(self, client: str) -> None:
        """A client's connection is gone."""
        self.tell(PeerLost(client, 'connection reset'))

    def waits(self, seconds: float) -> None:
        """Time goes by, and the core is woken."""
        self.now += seconds
        self.tell(DeadlinePassed())

    def taken(self) -> list[tuple[int, int]]:
        """Jobs that were handed out since the last look: computation and job, in order."""
        rows = [(computation, job) for _, computation, ids in self.given for job in ids]
        self.given.clear()
        return rows

    def running(self) -> dict[int, int]:
        """How many jobs of each computation are with nodes."""
        comps = self.core._fleet.computations.values()
        return {comp.id: len(comp.jobs) for comp in comps if comp.jobs}

    def opened(self) -> set[int]:
        """Computations that are open on some node."""
        return set[int]().union(*self.open.values())

    def explained(self, computation: int) -> str:
        """What the user is told of a computation."""
        return '\n'.join(self.core.explain(computation, self.now))
