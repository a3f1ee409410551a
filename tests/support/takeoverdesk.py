"""A desk at which a computation of before is taken over."""

from typing import Any

from nodeserver.core import messages as m
from nodeserver.core.events import DeadlinePassed, NodeFound, PeerConnected
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.core.status import JobStatus
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration

TOKEN = b'sixteen bytes  .'
PATIENCE = 25.0  # five pulses


def known(node: str, address: str, port: int = 51348) -> m.KnownNode:
    """A node that may have something."""
    return m.KnownNode(node, address, port)


class TakeoverDesk(Desk):
    """A scheduler core that has been told of a computation of before, and of its jobs."""

    def __init__(
        self,
        places: dict[int, str],
        *,
        is_shared: bool = False,
        before: list[Any] | None = None,
        resubmission: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        names = dict.fromkeys(place for place in places.values() if place)
        nodes = [known(name, f'10.0.0.{number}') for number, name in enumerate(names, 1)]
        values = {'resumes': True, 'token': TOKEN, 'epoch': 1, 'nodes': nodes}
        values['resubmits'] = len(places)
        core = SchedulerCore(is_shared=is_shared)
        for event in before or []:
            core.handle(event, 50.0)
        super().__init__(core, **(values | changes))
        if places:
            self.resubmit(places, **(resubmission or {}))

    def resubmit(self, places: dict[int, str], peer: str = CLIENT, **changes: Any) -> None:
        """The client tells of jobs once more."""
        values: dict[str, Any] = {
            'node': '',
            'ids': list(places),
            'payloads': [b'x'] * len(places),
            'places': list(places.values()),
        }
        self.hears(peer, m.ResubmitJobs(7, **(values | changes)))

    def meets(
        self, node: str, address: str = '10.0.0.1', cpus: int = 2, formerly: tuple[str, ...] = ()
    ) -> m.OpenComputation:
        """A node comes, is asked to open the computation, and begins to hand over what it has."""
        self.tell(NodeFound(node, address, 51348, ''))
        self.tell(PeerConnected(node, address))
        self.hears(node, m.NodeDetails(node, cpus, 'Linux', '3.11', None))
        (opened,) = self.sent(m.OpenComputation, node)
        if opened.resumes:
            self.begins(node, *formerly)
        return opened  # type: ignore[no-any-return]

    def begins(self, node: str, *formerly: str) -> None:
        """A node is about to hand over what it has."""
        self.hears(node, m.HandoverBegun(7, formerly))

    def letter(self, node: str, number: int, *ids: int, attempt: int = 1) -> None:
        """A node tells of jobs that have ended."""
        count = len(ids)
        columns = ([JobStatus.FINISHED] * count, [b'out'] * count, [''] * count, [1.0] * count)
        self.hears(node, m.JobsDone(7, node, number, list(ids), [attempt] * count, *columns))

    def fails(self, node: str, number: int, *ids: int, attempt: int = 1) -> None:
        """A node tells of jobs that have failed."""
        count = len(ids)
        columns = ([JobStatus.TERMINATED] * count, [b''] * count, ['no'] * count, [1.0] * count)
        self.hears(node, m.JobsDone(7, node, number, list(ids), [attempt] * count, *columns))

    def holds(self, node: str, *ids: int, attempt: int = 1) -> None:
        """A node says which jobs it has: its handover is complete."""
        self.hears(node, m.JobsHeld(7, list(ids), [attempt] * len(ids)))

    def comes_back(self, peer: str = CLIENT, **changes: Any) -> None:
        """The client is here again."""
        values = {'resumes': True, 'token': TOKEN, 'epoch': 1}
        self.hears(peer, declaration(**(values | changes)))

    def lets_time_pass(self, seconds: float) -> None:
        """Wake the core whenever it wants; nodes answer each pulse."""
        end = self.now + seconds
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.tell(DeadlinePassed())
            for node in list(self.core._fleet.nodes):
                if self.sent(m.SchedulerPulse, node):
                    self.hears(node, m.NodePulse(None))
        self.now = end

    def settled(self) -> dict[int, tuple[JobStatus, str]]:
        """Jobs that were ended without an outcome since the last look, and how."""
        return {
            job: (JobStatus(message.status), message.reason)
            for message in self.sent(m.JobsSettled)
            for job in message.ids
        }
