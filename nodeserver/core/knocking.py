"""Nodes that are named and answer no ping: asked by TCP, which firewalls open more often (N09).

    Ping ── a second without an answer ──▶ Knock ──▶ KnockFailed, whenever the reason is another
                                             └─────▶ NodeFound, as if a ping had been answered

It goes on until a node is found there, or nobody looks for one there any more.  Where a node is
only to be told something, it is tried once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf

from nodeserver.core.computation import Computation
from nodeserver.core.effects import Effect, Knock, StopKnocking
from nodeserver.core.events import KnockFailed, NodeFound, RelayFound
from nodeserver.core.fleet import NodeRecord

KNOCK_AFTER = 1.0  # seconds after a ping: an answer takes milliseconds
MOST_PLACES_OF_A_NODE = 8
MOST_RELAY_HOSTS = 100
RELAY_PORT = 51346  # UDP and TCP (D15)

Place = tuple[str, int]  # address and port


class Knocking:
    """Knows at which places nobody has answered yet, and what came of knocking there."""

    def __init__(
        self,
        nodes: Mapping[str, NodeRecord],
        computations: Mapping[int, Computation],
        emit: Callable[[Effect], None],
    ) -> None:
        self._nodes = nodes
        self._computations = computations
        self._emit = emit
        self._tried: dict[Place, str] = {}  # where it is knocked, and why the last try failed
        self._once: set[Place] = set()  # of these, where it is not tried again
        self._answering: set[Place] = set()  # where somebody is, who is of no use
        self._relay_hosts: set[str] = set()  # where a relay answered, and so perhaps nobody else

    def pinged(self, comp: Computation, now: float) -> None:
        """Nodes were asked by UDP; those that a computation names are missed from now on."""
        if comp.knock_at == inf and next(_named(comp), None) is not None:
            comp.knock_at = now + KNOCK_AFTER

    def due(self, comp: Computation, now: float) -> None:
        """Knock at the places from which no answer has come in time."""
        if now < comp.knock_at or not comp.is_looking:
            return
        comp.knock_at = inf
        known = {place for node in self._nodes.values() for place in node.places}
        called = {node.address for node in self._nodes.values() if node.has_called}
        for place in _named(comp):
            if place[0] in self._relay_hosts or place[0] in called or place in known:
                continue
            self._once.discard(place)
            if place not in self._tried:
                self._tried[place] = ''
                self._emit(Knock(*place))

    def once(self, places: Iterable[Place]) -> None:
        """See whether nodes are at places where no computation looks for one."""
        known = {place for node in self._nodes.values() for place in node.places}
        for place in places:
            if place not in known and place not in self._tried:
                self._tried[place] = ''
                self._once.add(place)
                self._emit(Knock(*place))

    def found(self, event: NodeFound) -> None:
        """A node is there: note where, and knock no more at these places."""
        node = self._nodes.get(event.node)
        for address in sorted({event.address, event.asked} - {''}):
            for port in sorted({event.port, event.asked_port} - {0}):
                place = address, port
                if node is not None and len(node.places) < MOST_PLACES_OF_A_NODE:
                    node.places |= {place}
                self._stop(place)
            self._stop((address, RELAY_PORT))

    def relay_found(self, event: RelayFound) -> None:
        """A relay is there: note where, and knock no more at this machine."""
        if len(self._relay_hosts) < MOST_RELAY_HOSTS:
            self._relay_hosts.add(event.address)
        for place in [place for place in self._tried if place[0] == event.address]:
            self._stop(place)

    def connected(self, node: NodeRecord) -> None:
        """A node has connected by itself, perhaps because nobody can connect to it."""
        for place in [place for place in self._tried if place[0] == node.address]:
            self._stop(place)

    def failed(self, event: KnockFailed, now: float) -> None:
        """Nobody there, or nobody of use: kept for `explain()`."""
        place = event.address, event.port
        if place in self._tried:
            self._tried[place] = event.reason
            (self._answering.add if event.has_answered else self._answering.discard)(place)
            self._look_for_relay(event.address)
            if place in self._once:
                self._stop(place)

    def _look_for_relay(self, address: str) -> None:
        """Where one was named without a port there is no node: it may be a relay's machine."""
        place = address, RELAY_PORT
        wanted = any(place in _relays(comp) for comp in self._computations.values())
        if (
            wanted
            and place not in self._tried
            and not any(
                there[0] == address for node in self._nodes.values() for there in node.places
            )
        ):
            self._tried[place] = ''
            self._emit(Knock(*place))

    def unwanted(self) -> None:
        """A computation is closed: knock no more where no other one looks for nodes."""
        open_ones = (comp for comp in self._computations.values() if comp.is_looking)
        wanted = {place for comp in open_ones for place in (*_named(comp), *_relays(comp))}
        wanted |= self._once  # these end by themselves
        for place in [place for place in self._tried if place not in wanted]:
            self._stop(place)

    def words(self, comp: Computation) -> list[str]:
        """Say what was tried in vain, a line for each place."""
        times = f'{comp.pings} time' if comp.pings == 1 else f'{comp.pings} times'
        lines = [
            f'{address} port {port}: asked by UDP {times} without an answer, and connected to by '
            f'TCP: {self._tried[address, port] or "no answer yet"}'
            for address, port in dict.fromkeys(_named(comp))
            if (address, port) in self._tried
        ]
        return lines + [
            f'{address} port {port} (that of relays): {self._tried[address, port]}'
            for address, port in dict.fromkeys(_relays(comp))
            if (address, port) in self._answering
        ]

    def _stop(self, place: Place) -> None:
        self._answering.discard(place)
        self._once.discard(place)
        if self._tried.pop(place, None) is not None:
            self._emit(StopKnocking(*place))


def _named(comp: Computation) -> Iterator[Place]:
    """Where a computation looks for one node each, and not for any that is there."""
    yield from ((spec.pattern, spec.port) for spec in comp.specs if '*' not in spec.pattern)
    if comp.takeover is not None:
        yield from comp.takeover.places()


def _relays(comp: Computation) -> Iterator[Place]:
    """Where a relay may be, beside a node or in its place: at machines named without a port."""
    default = comp.declared.node_port
    return ((address, RELAY_PORT) for address, port in _named(comp) if port == default)
