"""What clusters and nodes say to each other of files, passed on by the scheduler."""

from collections.abc import Callable
from typing import Any

from nodeserver.core.computation import Computation
from nodeserver.core.effects import Effect, Send
from nodeserver.core.filemessages import (
    OWN_FILES,
    FetchFiles,
    FileBlocks,
    FilesFailed,
    FilesPlaced,
    OfferFile,
    PlaceFiles,
)
from nodeserver.core.fleet import IN_USE, NodeRecord, UseState
from nodeserver.core.recruiting import Recruiting

_BOTH_WAYS = (FetchFiles, FileBlocks, FilesPlaced, FilesFailed)
_REACHED = frozenset((UseState.OPENING, *IN_USE))


class FileRoutes:
    """Passes messages on, where both ends have to do with each other."""

    def __init__(self, fleet: Recruiting, emit: Callable[[Effect], None]) -> None:
        self._fleet = fleet
        self._emit = emit
        self.from_client: dict[type[Any], Callable[[str, Any, float], None]] = dict.fromkeys(
            (PlaceFiles, *_BOTH_WAYS), self._to_node
        )
        self.from_node: dict[type[Any], Callable[[NodeRecord, Any, float], None]] = {
            OfferFile: self._offer,
            **dict.fromkeys(_BOTH_WAYS, self._to_client),
        }

    def node_gone(self, node: NodeRecord, comp: Computation, reason: str) -> None:
        """Nothing goes on between a cluster and a node: whoever waits there is told."""
        if comp.talks_of_files:
            self._emit(Send(comp.client, FilesFailed(comp.id, node.id, OWN_FILES, reason)))

    def client_back(self, comp: Computation) -> None:
        """A client was away: what was sent to it meanwhile is lost."""
        for node in self._fleet.nodes.values():
            if comp.id in node.uses:
                self.node_gone(node, comp, 'the connection to the scheduler was lost')

    def _to_node(self, peer: str, message: Any, now: float) -> None:
        node = self._fleet.nodes.get(message.node)
        comp = self._fleet.computations.get(message.computation)
        if comp is None or comp.client != peer:
            return
        use = node.uses.get(comp.id) if node is not None else None
        if use is not None and use.state in _REACHED:
            comp.talks_of_files = True
            self._emit(Send(message.node, message))
        elif isinstance(message, PlaceFiles):
            reason = 'the cluster does not use this node'
            self._emit(
                Send(peer, FilesPlaced(comp.id, message.node, message.transfer, reason)),
            )

    def _to_client(self, node: NodeRecord, message: Any, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        if comp is not None and not comp.closing and message.node == node.id:
            comp.talks_of_files = True
            self._emit(Send(comp.client, message))

    def _offer(self, node: NodeRecord, message: OfferFile, now: float) -> None:
        """A job's file is wanted only of its current attempt (D4)."""
        comp = self._fleet.computations.get(message.computation)
        current = comp is not None and comp.are_current([message.job], [message.attempt], node.id)
        if current == [True]:
            self._to_client(node, message, now)
        else:
            reason = 'the job is not wanted any more'
            placed = FilesPlaced(message.computation, node.id, message.transfer, reason)
            self._emit(Send(node.id, placed))
