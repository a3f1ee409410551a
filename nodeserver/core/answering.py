"""Answers of a scheduler to programs in which people ask how things stand (D12)."""

from collections.abc import Callable
from typing import Any

from nodeserver.core.askmessages import AskExplanation, AskNodeList, Explanation, NodeListing
from nodeserver.core.effects import Effect, Send
from nodeserver.core.listing import list_nodes
from nodeserver.core.recruiting import Recruiting

MOST_ROWS = 5000  # of nodes, in one answer


class Answering:
    """Says to each program what concerns its own computations, and nothing of others'."""

    def __init__(
        self,
        fleet: Recruiting,
        emit: Callable[[Effect], None],
        explain: Callable[[int, float], list[str]],
    ) -> None:
        self._fleet = fleet
        self._emit = emit
        self._explain = explain
        self.from_client: dict[type[Any], Callable[[str, Any, float], None]] = {
            AskExplanation: self._explained,
            AskNodeList: self._list_nodes,
        }

    def _explained(self, peer: str, message: AskExplanation, now: float) -> None:
        is_known = message.computation in self._fleet.computations
        lines = ['the scheduler does not know the cluster yet']
        if is_known:
            lines = self._explain(message.computation, now)
        self._emit(Send(peer, Explanation(message.computation, message.request, lines)))

    def _list_nodes(self, peer: str, message: AskNodeList, now: float) -> None:
        listed = list_nodes(self._fleet, now, peer)
        rows = list(listed.rows[:MOST_ROWS])
        self._emit(
            Send(peer, NodeListing(message.computation, message.request, rows, listed.places))
        )
