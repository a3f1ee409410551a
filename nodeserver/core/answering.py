"""Answers of a scheduler to programs in which people ask how things stand (D12)."""

from collections.abc import Callable
from typing import Any

from nodeserver.core.askmessages import AskExplanation, AskNodeList, Explanation, NodeListing
from nodeserver.core.effects import Effect, Send
from nodeserver.core.explain import explain
from nodeserver.core.listing import list_nodes
from nodeserver.core.recruiting import Recruiting

MOST_ROWS = 5000  # of nodes, in one answer


class Answering:
    """Says to each program what concerns its own computations, and nothing of others'."""

    def __init__(self, fleet: Recruiting, emit: Callable[[Effect], None]) -> None:
        self._fleet = fleet
        self._emit = emit
        self.from_client: dict[type[Any], Callable[[str, Any, float], None]] = {
            AskExplanation: self._explain,
            AskNodeList: self._list_nodes,
        }

    def _explain(self, peer: str, message: AskExplanation, now: float) -> None:
        comp = self._fleet.computations.get(message.computation)
        lines = explain(self._fleet, comp, now) if comp else ['the cluster is not known here']
        self._emit(Send(peer, Explanation(message.computation, message.request, lines)))

    def _list_nodes(self, peer: str, message: AskNodeList, now: float) -> None:
        listed = list_nodes(self._fleet, now, peer)
        rows = list(listed.rows[:MOST_ROWS])
        self._emit(
            Send(peer, NodeListing(message.computation, message.request, rows, listed.places))
        )
