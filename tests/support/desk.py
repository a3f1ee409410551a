"""A scheduler core at a desk: told one thing a turn, and asked what it has sent."""

from typing import Any

from nodeserver.core import messages as m
from nodeserver.core.effects import Effect, Send
from nodeserver.core.events import DeadlinePassed, MessageArrived, NodeFound, PeerConnected
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus
from nodeserver.services.scheduler import RECORDS
from tests.support.world import declaration

CLIENT = 'client'


class Desk:
    """A scheduler core, its clock, and what it has sent to whom since the last look."""

    def __init__(self, core: SchedulerCore | None = None, **changes: Any) -> None:
        self.core = core or SchedulerCore()
        self.now = 50.0
        self.effects: list[Effect] = []
        self.records: list[Any] = []  # what was put on record
        self.hears(CLIENT, declaration(**changes))

    def tell(self, event: Any) -> None:
        """One turn with one event."""
        effects = self.core.handle(event, self.now)
        effects += self.core.end_turn(self.now)
        self.records += [effect for effect in effects if isinstance(effect, RECORDS)]
        self.effects += [effect for effect in effects if not isinstance(effect, RECORDS)]
        self.core.check()

    def hears(self, peer: str, message: Any) -> None:
        """One turn with one message."""
        self.tell(MessageArrived(peer, message))

    def join(self, node: str, cpus: int = 2, address: str = '10.0.0.1') -> None:
        """A node comes and is ready."""
        self.tell(NodeFound(node, address, 51348, ''))
        self.tell(PeerConnected(node, address))
        self.hears(node, m.NodeDetails(node, cpus, 'Linux', '3.11', None))
        self.hears(node, m.HandoverBegun(7))  # which only a scheduler that has asked looks at
        self.hears(node, m.ComputationReady(7))

    def submit(self, *ids: int, node: str = '', options: m.JobOptions = m.ORDINARY) -> None:
        """Jobs come from the client."""
        self.hears(CLIENT, m.SubmitJobs(7, node, list(ids), [b'x'] * len(ids), options))

    def done(self, node: str, job: int, attempt: int = 1, seconds: float = 1.0) -> None:
        """A node reports a job's end."""
        columns = ([JobStatus.FINISHED], [b'out'], [''], [seconds])
        self.hears(node, m.JobsDone(7, node, 1, [job], [attempt], *columns))

    def sent(self, kind: type[Any], peer: str | None = None) -> list[Any]:
        """Messages of a kind since the last look, which are then forgotten."""
        found = [
            e
            for e in self.effects
            if isinstance(e, Send) and isinstance(e.message, kind) and peer in (None, e.peer)
        ]
        gone = {id(e) for e in found}
        self.effects = [e for e in self.effects if id(e) not in gone]
        return [e.message for e in found]

    def waits(self, seconds: float) -> None:
        """Time goes by, and the core is woken."""
        self.now += seconds
        self.tell(DeadlinePassed())

    def explained(self) -> str:
        """What the user is told of the computation."""
        return '\n'.join(self.core.explain(7, self.now))
