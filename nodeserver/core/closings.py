"""The end of a computation: its jobs are ended, and every node forgets it."""

from collections.abc import Callable

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import NodeRecord, UseState
from nodeserver.core.lateclosings import LateClosings
from nodeserver.core.messages import CloseComputation, ComputationClosed
from nodeserver.core.parts import Parts
from nodeserver.core.status import JobStatus

CLOSE_TIMEOUT = 10.0  # how long a node may take to tidy up before its client stops waiting


class Closings:
    """Closes computations, and forgets them once nothing of them is left."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._fleet = parts.fleet
        discovery = parts.fleet.discovery
        knock = discovery.knocking.once
        self.late = LateClosings(parts.emit, parts.records, parts.deadlines, knock)
        discovery.is_awaited = self.late.awaits
        # who only collected has closed a computation, and has not reached all of its nodes
        self.left_for_later: Callable[[Computation, float], None] = lambda comp, now: None

    def close(self, peer: str, message: CloseComputation, now: float) -> None:
        """A client closes its cluster."""
        comp = self._fleet.computations.get(message.computation)
        if comp is None:
            self._parts.send(peer, ComputationClosed(message.computation))
            return
        comp.keeps = comp.keeps or message.keeps
        parts = self._parts
        left = [*comp.waiting, *comp.jobs]
        if comp.takeover is not None:
            left += comp.takeover.close(self._fleet.nodes)
            is_over = comp.takeover.is_over or comp.keeps
            comp.takeover = None if is_over else comp.takeover
        comp.waiting.clear()
        parts.endings.settle(comp, left, JobStatus.CANCELLED, 'cancelled: its cluster was closed')
        self._withdraw(comp)
        is_unused = self._fleet.close(comp)
        if comp.takeover is not None:  # what its nodes keep goes as well, if they come
            for node in list(self._fleet.nodes.values()):
                self._fleet.offer(node, comp, now)
        elif is_unused:
            self._finish(comp, now)
            return
        parts.deadlines.closing[comp.id] = now + CLOSE_TIMEOUT

    def _withdraw(self, comp: Computation) -> None:
        """No job of it is with a node, or is to go to one."""
        parts = self._parts
        for node in self._fleet.nodes.values():
            parts.endings.unload_all(node, comp)
        comp.settle([*comp.jobs])
        parts.dispatch.withdraw(comp)
        parts.dispatch.recalls.closed(comp.id)

    def drop(self, comp: Computation) -> None:
        """Forget a computation whose client is gone; nodes may keep what they have of it."""
        self._withdraw(comp)
        comp.closing = True
        self._remove(comp)
        for node in self._fleet.nodes.values():  # that could run only its jobs can run none now
            self._parts.dispatch.place(node)

    def closed(self, node: NodeRecord, message: ComputationClosed, now: float) -> None:
        """Nothing of a computation is left on a node, or nothing will be."""
        if not message.waits:
            self.late.confirmed(node, message.computation)
        comp = self._fleet.computations.get(message.computation)
        use = node.uses.get(message.computation)
        if comp is None or use is None or use.state is not UseState.CLOSING:
            return
        if not comp.closing:
            reason = 'the cluster does not use this node any more'
            self._parts.files.node_gone(node, comp, reason)
        if not self._parts.steering.closed(node, comp, now):
            node.leave(message.computation)
            if comp.closing and not message.waits:
                comp.told_of_end.append(node)
            self.finish_if_unused(comp, now)

    def finish_if_unused(self, comp: Computation, now: float) -> None:
        """Forget a computation that is closed, if no node has anything of it."""
        if comp.closing and comp.takeover is None and self._fleet.is_unused(comp):
            self._finish(comp, now)

    def due(self, comp: Computation, now: float) -> None:
        """Wait no longer for nodes that do not answer."""
        if self._parts.deadlines.closing.get(comp.id, now + 1) <= now:
            self._finish(comp, now)

    def _finish(self, comp: Computation, now: float) -> None:
        self._remove(comp)
        if comp.keeps:  # what nodes keep stays for a later try, whatever their ids are then
            self.left_for_later(comp, now)
        else:
            here = (node for node in self._fleet.nodes.values() if node.connected)
            self.late.closed(comp.declared, comp.nodes.values(), comp.told_of_end, here, now)
        self._parts.send(comp.client, ComputationClosed(comp.id))

    def _remove(self, comp: Computation) -> None:
        self._parts.deadlines.closing.pop(comp.id, None)
        for node in self._fleet.nodes.values():
            node.leave(comp.id)
        del self._fleet.computations[comp.id]
        self._fleet.discovery.knocking.unwanted()
