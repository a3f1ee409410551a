"""What passes through the scheduler between a node and a client, and is not opened there."""

from collections.abc import Callable

from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.letters import part_of
from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    JobsOutput,
    JobsProvisional,
    OutputTaken,
)
from nodeserver.core.recruiting import Recruiting


class Passing:
    """Hands on what is told of attempts that are current, and what nodes are answered."""

    def __init__(self, fleet: Recruiting, emit: Callable[[Effect], None]) -> None:
        self._fleet = fleet
        self._emit = emit

    def to_client(
        self, node: NodeRecord, message: JobsProvisional | JobsOutput, now: float
    ) -> None:
        """Hand on what running jobs tell; output in any case, as its node waits for the answer."""
        comp = self._fleet.computations.get(message.computation)
        if comp is None:
            return
        current = comp.are_current(message.ids, message.attempts, node.id)
        if any(current) or isinstance(message, JobsOutput):
            believed = message if all(current) else part_of(message, current)
            self._emit(Send(comp.client, believed))

    def to_node(self, peer: str, message: AcknowledgeOutcomes | OutputTaken, now: float) -> None:
        """Hand on what a client says to one node."""
        comp = self._fleet.computations.get(message.computation)
        if comp is not None and isinstance(message, AcknowledgeOutcomes):
            comp.undelivered.acknowledged(message.node, message.letters)
        if message.node in self._fleet.nodes:
            self._emit(Send(message.node, message))
