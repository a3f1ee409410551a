"""Nodes that go: with a farewell, with their connection, or in silence."""

from math import inf

from nodeserver.core import levels
from nodeserver.core.closings import Closings
from nodeserver.core.effects import Disconnect
from nodeserver.core.fleet import IN_USE, NodeRecord, UseState
from nodeserver.core.messages import Farewell, Notice, SchedulerPulse
from nodeserver.core.parts import Parts
from nodeserver.core.pulses import begin_pulse
from nodeserver.core.status import JobStatus, NodeStatus
from nodeserver.core.takeovers import Takeovers

MISSED_PULSES = 5
ANSWER_SECONDS = 1.0  # that a node has for the last of them, or a pulse interval if that is less


class Losses:
    """Tells which nodes are lost, and what that means for the jobs that they have."""

    def __init__(self, parts: Parts, closings: Closings, takeovers: Takeovers) -> None:
        self._parts = parts
        self._fleet = parts.fleet
        self._closings = closings
        self._takeovers = takeovers

    def farewell(self, node: NodeRecord, message: Farewell, now: float) -> None:
        """A node leaves: jobs that it never began wait again, whatever becomes of the others."""
        parts = self._parts
        for computation in node.uses:
            comp = self._fleet.computations[computation]
            begun = set(message.begun.get(computation, ()))
            unbegun = [job for job in comp.on_node(node.id) if job not in begun]
            parts.dispatch.unload(node, comp, len(unbegun))
            parts.endings.requeue(comp, unbegun, f'node {node.title} has left: {message.reason}')
        self.lose(node, message.reason, now)

    def lose(self, node: NodeRecord, reason: str, now: float, *, is_gone: bool = False) -> None:
        """A node is gone: its jobs go elsewhere or end, and its clients are told.

        A connection that the node has made itself is gone with it: by now there may be a new one.
        """
        parts = self._parts
        del self._fleet.nodes[node.id]
        self._fleet.discovery.lost(node, now)
        text = f'node {node.title} was lost: {reason}'
        for computation, use in node.uses.items():
            comp = self._fleet.computations[computation]
            self._takeovers.node_gone(node, comp, now)
            parts.endings.give_up(node, comp, text)
            parts.files.node_gone(node, comp, text)
            unrun = comp.give_up_pinned(node.id)
            parts.endings.settle(comp, unrun, JobStatus.CANCELLED, text)
            if use.state in IN_USE or (use.state is UseState.CLOSING and not comp.closing):
                self._fleet.tell(node, comp, NodeStatus.CLOSED, reason)
            if not comp.closing:
                parts.send(comp.client, Notice(comp.id, levels.WARNING, text))
            self._closings.finish_if_unused(comp, now)
        parts.dispatch.forget(node)
        if not is_gone:
            parts.emit(Disconnect(node.id))

    def pulse(self, now: float) -> None:
        """Ask each node for a sign of life, and find those that have left several of them out.

        Pulses are counted, not seconds: a program that was suspended has sent none (D17).
        """
        deadlines = self._parts.deadlines
        deadlines.pulse_at = begin_pulse(self._fleet.computations.values(), now)
        interval = deadlines.pulse_at - now
        for node in self._fleet.nodes.values():
            node.unanswered += 1
            node.owes_pulse = True
            if node.unanswered == MISSED_PULSES:
                whole = min(node.heard_at + MISSED_PULSES * interval, deadlines.pulse_at)
                node.silent_at = max(now + min(ANSWER_SECONDS, interval), whole)
                deadlines.silence_at = min(deadlines.silence_at, node.silent_at)
            if node.connected:
                self._parts.send(node.id, SchedulerPulse())
        if self._fleet.is_shared:
            self._pulse_clients()

    def lose_silent(self, now: float) -> None:
        """Lose the nodes that were silent for five pulses."""
        deadlines = self._parts.deadlines
        if now < deadlines.silence_at:
            return
        for node in [each for each in self._fleet.nodes.values() if each.silent_at <= now]:
            seconds = round(now - node.heard_at)
            self.lose(node, f'nothing was heard of it for {seconds} s', now)
        left = self._fleet.nodes.values()
        deadlines.silence_at = min((node.silent_at for node in left), default=inf)

    def _pulse_clients(self) -> None:
        """Say something to each client: of one that is gone without a word, its system says so."""
        away = self._parts.deadlines.absences
        comps = self._fleet.computations.values()
        for client in dict.fromkeys(c.client for c in comps if c.id not in away):
            self._parts.send(client, SchedulerPulse())
