"""When the scheduler's core is to be woken: asked for in each turn, and seldom changed."""

from math import inf

from nodeserver.core.errors import InvariantBroken
from nodeserver.core.events import Event, MessageArrived
from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    JobsDone,
    JobsOutput,
    JobsProvisional,
    JobsReturned,
    NodePulse,
    OutputTaken,
    SubmitJobs,
)
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.watching import Watching

# a sign of life, and what comes with jobs, move no deadline, but for jobs that are for one node
_TIMELESS = frozenset(
    (
        *(JobsDone, JobsProvisional, JobsOutput, JobsReturned),
        *(AcknowledgeOutcomes, OutputTaken, NodePulse),
    )
)


class Deadlines:
    """The moments at which something is due, and the earliest of them, kept until one may move."""

    def __init__(self, fleet: Recruiting, watching: Watching) -> None:
        self.pulse_at = 0.0
        self.silence_at = inf  # when nodes may be lost that leave pulses unanswered
        # computations whose clients are away -> when they are not waited for any more
        self.absences: dict[int, float] = {}
        self.reunion_at = inf  # when those that are expected after a restart are so no more
        self.closing: dict[int, float] = {}  # computation -> when its client stops waiting
        self.late_at = inf  # when nodes are asked for again that are to be told of a close
        self._fleet = fleet
        self._nodes, self._computations = fleet.nodes, fleet.computations
        self._watching, self._relays = watching, fleet.discovery.relays
        self._next: float | None = None
        self._is_known = False

    def has_peers(self) -> bool:
        """Whether there is somebody to send pulses to."""
        return bool(self._nodes or (self._fleet.is_shared and self._computations))

    def pulse_by(self, moment: float) -> None:
        """Somebody wants nodes asked for a sign of life by then."""
        self.pulse_at = min(self.pulse_at, moment)

    def happened(self, event: Event) -> None:
        """Take note of an event; those that come with jobs leave all moments as they are."""
        if type(event) is MessageArrived:
            message = event.message
            if type(message) in _TIMELESS or (type(message) is SubmitJobs and not message.node):
                return
        self.moved()

    def moved(self) -> None:
        """Some moment has changed."""
        self._is_known = False

    def next(self) -> float | None:
        """The earliest moment, or None."""
        if not self._is_known:
            self._next, self._is_known = self._earliest(), True
        return self._next

    def check(self) -> None:
        """Raise `InvariantBroken` if the moment that is kept is not the earliest."""
        if self.next() != self._earliest():
            raise InvariantBroken(f'due at {self._next}, or rather at {self._earliest()}')

    def _earliest(self) -> float | None:
        comps = [comp for comp in self._computations.values() if comp.is_looking]
        times = [at for comp in comps for at in (comp.ping_at, comp.knock_at)]
        times += [comp.notice_at for comp in comps if not comp.closing]
        times += [comp.takeover.lost_at for comp in comps if comp.takeover is not None]
        times += self.closing.values()
        times += self.absences.values()
        times += (self._relays.due_at, self.reunion_at, self.late_at, self.silence_at)
        if self.has_peers():
            times.append(self.pulse_at)
        if self._nodes:
            times.append(self._watching.due_at)
        return min((t for t in times if t != inf), default=None)
