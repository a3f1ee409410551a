"""What clients ask for single nodes: more of them, none of this one, so many cpus of that one.

    READY ──▶ DEALLOCATED ──▶ READY                    no new jobs meanwhile
    READY, DEALLOCATED ──▶ DRAINING ──▶ CLOSING ──▶ DISMISSED, or offered again
                    jobs there have ended    ComputationClosed

Each request is answered at once; what a node takes time for goes on by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nodeserver.core.computation import Computation
from nodeserver.core.dispatch import Dispatch
from nodeserver.core.effects import Effect, Ping, Send
from nodeserver.core.endings import Endings
from nodeserver.core.fleet import NodeRecord, UseState, matching_spec, use_in
from nodeserver.core.fleetmessages import (
    AddNodes,
    CloseNode,
    DeallocateNode,
    FindNodes,
    LimitCpus,
    RequestAnswered,
    SetNodeCpus,
)
from nodeserver.core.messages import RecallJobs
from nodeserver.core.nodenames import NodeNames
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.status import JobStatus, NodeStatus

Answer = tuple[int, str]  # a value, and the reason in words where it is -1

CLOSED_BY_CLIENT = 'it was closed with close_node()'
SET_UP_ANEW = 'it is set up anew'
SHARED_CPUS = (
    'node {} keeps its cpus, of which this cluster may use {}: other programs share them; '
    'a `NodeAllocate` can claim fewer when the cluster is made'
)
DEALLOCATED_BY_CLIENT = 'it was deallocated with deallocate_node()'
_DONE: Answer = (0, '')
_OPEN = (UseState.READY, UseState.OPENING, UseState.DEALLOCATED)


@dataclass(slots=True)
class _Leave:
    """A computation leaves a node, as its client wishes."""

    again: bool  # and comes back
    terminate: bool = False
    recalls: int = 0  # to be answered before what is left there is ended


class Steering:
    """Answers what clients ask for single nodes, and brings to its end what takes time."""

    def __init__(
        self,
        fleet: Recruiting,
        dispatch: Dispatch,
        endings: Endings,
        emit: Callable[[Effect], None],
        is_shared: bool = False,
    ) -> None:
        self._is_shared = is_shared  # among several clients
        self._fleet = fleet
        self._dispatch = dispatch
        self._endings = endings
        self._emit = emit
        self._leaving: dict[tuple[str, int], _Leave] = {}  # by node and computation
        self.requests: dict[type[Any], Callable[[Computation, Any, float], Answer]] = {
            AddNodes: self._add,
            FindNodes: self._find,
            DeallocateNode: self._deallocate,
            CloseNode: self._close,
            SetNodeCpus: self._set_cpus,
        }

    def asked(self, peer: str, message: Any, now: float) -> None:
        """Do what a client asks for, and answer it."""
        comp = self._fleet.computations.get(message.computation)
        if comp is None or comp.closing:
            value, reason = -1, 'the cluster is closed'
        else:
            value, reason = self.requests[type(message)](comp, message, now)
        self._emit(Send(peer, RequestAnswered(message.computation, message.request, value, reason)))

    # more nodes

    def _add(self, comp: Computation, message: AddNodes, now: float) -> Answer:
        comp.specs[:0] = message.specs
        for node in list(self._fleet.nodes.values()):
            if node.details and matching_spec(message.specs, node) is not None:
                self._use_again(node, comp, now)
        self._fleet.discovery.look(comp, now)
        return _DONE

    def _find(self, comp: Computation, message: FindNodes, now: float) -> Answer:
        self._emit(Ping(message.targets, message.broadcast_port))
        return _DONE

    def _use_again(self, node: NodeRecord, comp: Computation, now: float) -> None:
        comp.dismissed.pop(node.id, None)
        use = node.uses.get(comp.id)
        leave = self._leaving.get((node.id, comp.id))
        if leave is not None:
            self._leave(node, comp, leave, again=True)
        elif use is None or use.state in (
            UseState.DISMISSED,
            UseState.UNWANTED,
            UseState.FAILED,
        ):
            node.leave(comp.id)
            self._fleet.offer(node, comp, now)
        elif use.state is UseState.DEALLOCATED:
            self._fleet.set_use(node, comp, UseState.READY, use.cpus)

    # fewer

    def _deallocate(self, comp: Computation, message: DeallocateNode, now: float) -> Answer:
        node = self._fleet.named(message.node, comp)
        if node is None:
            return _unknown(message.node)
        use = node.uses[comp.id]
        if use.state in (UseState.ASKING, UseState.BUSY):
            self._dismiss(node, comp, DEALLOCATED_BY_CLIENT)
        elif use.state in _OPEN or (node.id, comp.id) in self._leaving:
            # one that opens ends as such, one that is being closed does not come back
            comp.dismissed.setdefault(node.id, DEALLOCATED_BY_CLIENT)
            if use.state is UseState.READY:
                self._fleet.set_use(node, comp, UseState.DEALLOCATED, use.cpus)
                self._recall(node, comp)
        return _DONE

    def _dismiss(self, node: NodeRecord, comp: Computation, reason: str) -> None:
        comp.dismissed[node.id] = reason
        node.uses[comp.id] = use_in(UseState.DISMISSED, 0, reason)

    def _recall(self, node: NodeRecord, comp: Computation, keep: int = 0) -> bool:
        """Ask for the jobs there that have not begun; others can run them."""
        count = node.loads.get(comp.id, 0) - keep
        if count > 0:
            self._emit(Send(node.id, RecallJobs(comp.id, count)))
        return count > 0

    def _close(self, comp: Computation, message: CloseNode, now: float) -> Answer:
        node = self._fleet.named(message.node, comp)
        if node is None:
            return _unknown(message.node)
        if message.again:
            comp.dismissed.pop(node.id, None)
        else:
            comp.dismissed[node.id] = CLOSED_BY_CLIENT
            self._give_up_pinned(node, comp)
        leave = self._leaving.get((node.id, comp.id))
        if leave is not None:
            self._leave(node, comp, leave, message.again)
        elif node.uses[comp.id].state in _OPEN:
            leave = self._leaving[node.id, comp.id] = _Leave(message.again)
            self._drain(node, comp, leave)
        elif message.again:
            self._use_again(node, comp, now)
        else:
            self._dismiss(node, comp, CLOSED_BY_CLIENT)
        if leave is not None and message.terminate and not leave.terminate:
            leave.terminate = True
            self._end_if_recalled(node, comp, leave)
        return _DONE

    def _drain(self, node: NodeRecord, comp: Computation, leave: _Leave) -> None:
        use = node.uses[comp.id]
        self._fleet.set_use(node, comp, UseState.DRAINING, use.cpus)
        self._leave(node, comp, leave, leave.again)
        leave.recalls += self._dispatch.recalls.is_asked(node, comp.id)
        leave.recalls += self._recall(node, comp)

    def _leave(self, node: NodeRecord, comp: Computation, leave: _Leave, again: bool) -> None:
        """Note whether a computation comes back to a node that it leaves."""
        leave.again = again
        use = node.uses[comp.id]
        node.uses[comp.id] = use_in(use.state, use.cpus, SET_UP_ANEW if again else '')

    def _give_up_pinned(self, node: NodeRecord, comp: Computation) -> None:
        """End the jobs that wait for a node which is being closed, and could wait for ever."""
        names = NodeNames(self._fleet.nodes)
        for name in comp.pinned_nodes():
            if names.find(name, comp.id) is node:
                text = f'cancelled: it was for node {node.title} only, and {CLOSED_BY_CLIENT}'
                self._endings.settle(comp, comp.give_up_pinned(name), JobStatus.CANCELLED, text)

    def returned(self, node: NodeRecord, comp: Computation) -> None:
        """A node has given back what had not begun: what is left there may be ended."""
        leave = self._leaving.get((node.id, comp.id))
        if leave is not None and leave.recalls:
            leave.recalls -= 1
            self._end_if_recalled(node, comp, leave)

    def _end_if_recalled(self, node: NodeRecord, comp: Computation, leave: _Leave) -> None:
        if leave.terminate and not leave.recalls:
            self._endings.stop(comp, comp.on_node(node.id))

    def run(self, now: float) -> None:
        """Close computations on nodes where the last of their jobs has ended, and is told."""
        for (name, computation), leave in list(self._leaving.items()):
            node, comp = self._fleet.nodes.get(name), self._fleet.computations.get(computation)
            use = node.uses.get(computation) if node is not None else None
            if node is None or comp is None or use is None or comp.closing:
                del self._leaving[name, computation]
            elif use.state is UseState.DRAINING:
                # when it is closed it forgets also what a client that is away has not yet got
                if not (node.loads.get(computation) or comp.undelivered.has_letters_of(name)):
                    if not leave.again:
                        self._give_up_pinned(node, comp)  # also those that came back meanwhile
                    self._fleet.close_on(node, comp, leave.again)
            elif use.state is not UseState.CLOSING:  # the node itself has refused it meanwhile
                self.closed(node, comp, now)

    def closed(self, node: NodeRecord, comp: Computation, now: float) -> bool:
        """Nothing of a computation is left on a node; False if its client did not ask for that."""
        leave = self._leaving.pop((node.id, comp.id), None)
        if leave is None or comp.closing:
            return False
        if node.uses[comp.id].state is UseState.CLOSING:  # else that was told already
            reason = SET_UP_ANEW if leave.again else CLOSED_BY_CLIENT
            self._fleet.tell(node, comp, NodeStatus.CLOSED, reason)
        node.leave(comp.id)
        if leave.again:
            self._fleet.offer(node, comp, now)
        else:
            self._dismiss(node, comp, CLOSED_BY_CLIENT)
        return True

    # cpus

    def _set_cpus(self, comp: Computation, message: SetNodeCpus, now: float) -> Answer:
        node = self._fleet.named(message.node, comp)
        if node is None:
            return _unknown(message.node)
        use = node.uses[comp.id]
        if use.state not in _OPEN:
            return -1, f'node {node.title} is not used: {use.reason or use.state.value}'
        if self._is_shared:  # B14
            return use.cpus, SHARED_CPUS.format(node.title, use.cpus)
        node.wishes[comp.id] = message.cpus
        cpus = node.share_of(comp.id, comp.specs)
        self._fleet.set_use(node, comp, use.state, cpus, use.reason)
        self._emit(Send(node.id, LimitCpus(comp.id, cpus)))
        if cpus < use.cpus:
            self._recall(node, comp, keep=node.capacity_for(comp.id))
        if use.state is not UseState.OPENING:
            self._fleet.tell(node, comp, NodeStatus.AVAIL_INFO, '')
        return cpus, ''


def _unknown(node: str) -> Answer:
    names = node.split('\n')
    title = f'{names[0]} ({", ".join(names[1:])})' if names[1:] else node
    return -1, f'no node {title} is known to this cluster'
