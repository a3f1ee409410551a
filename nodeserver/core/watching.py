"""Figures of nodes each second, while somebody looks at them: pulses bring them more seldom.

cluster ── WatchFigures, now and then ──▶ scheduler ── SchedulerPulse ──▶ node

What comes of it is no pulse: it is not counted for a node that does not answer, and
`cluster_status` is not told of it (E12).
"""

from collections.abc import Callable, Mapping
from math import inf

from nodeserver.core.computation import Computation
from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleet import IN_USE, NodeUse
from nodeserver.core.fleetmessages import WatchFigures
from nodeserver.core.messages import SchedulerPulse
from nodeserver.core.recruiting import Recruiting

INTERVAL = 1.0  # seconds
LEASE = 15.0  # for which somebody looks who has said so: a display that is gone says nothing


class Watching:
    """Which computations' nodes are looked at, and when they are asked."""

    def __init__(self, fleet: Recruiting, emit: Callable[[Effect], None]) -> None:
        self.due_at = inf
        self._fleet = fleet
        self._emit = emit

    def watch(self, peer: str, message: WatchFigures, now: float) -> None:
        """Somebody looks at the nodes of a computation."""
        comp = self._fleet.computations.get(message.computation)
        if comp is not None:
            comp.watched_until = now + LEASE
            self.due_at = min(self.due_at, now)

    def ask(self, now: float) -> None:
        """Ask the nodes that are looked at for their figures, if it is time."""
        if now < self.due_at:
            return
        watched = [c for c in self._fleet.computations.values() if c.watched_until > now]
        for node in self._fleet.nodes.values():
            if node.connected and any(_uses(comp, node.uses) for comp in watched):
                self._emit(Send(node.id, SchedulerPulse()))
        self.due_at = now + INTERVAL if watched else inf


def _uses(comp: Computation, uses: Mapping[int, NodeUse]) -> bool:
    return comp.id in uses and uses[comp.id].state in IN_USE
