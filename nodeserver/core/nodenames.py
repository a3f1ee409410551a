"""Nodes by what users call them: an id, or an address or name."""

from collections.abc import Mapping

from nodeserver.core.fleet import NodeRecord

_Place = tuple[int, NodeRecord]


class NodeNames:
    """Finds nodes by names, as they stand at one moment: who asks for many has one of these."""

    def __init__(self, nodes: Mapping[str, NodeRecord]) -> None:
        self._nodes = nodes
        self._places: dict[str, list[_Place]] | None = None  # until one is named that is no id

    def find(self, name: str, computation: int) -> NodeRecord | None:
        """The node with this id; else the first with one of these lines that is used by it."""
        if name in self._nodes:
            return self._nodes[name]
        if self._places is None:
            self._places = self._index()
        places = self._places
        found = [
            place
            for text in name.split('\n')
            for place in places.get(text, ())
            if computation in place[1].uses
        ]
        return min(found, key=_order)[1] if found else None

    def _index(self) -> dict[str, list[_Place]]:
        places: dict[str, list[_Place]] = {}
        for place in enumerate(self._nodes.values()):
            node = place[1]
            if node.details is not None:
                for text in {node.address, node.asked_address, node.details.name}:
                    places.setdefault(text, []).append(place)
        return places


def _order(place: _Place) -> int:
    return place[0]
