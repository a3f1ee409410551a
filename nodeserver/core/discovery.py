"""How nodes are found: asked for by pings, or calling by themselves; and who cannot be used.

Ping ──▶ NodeFound ──▶ Connect ──▶ PeerConnected        a node that calls: PeerConnected at once
"""

from collections.abc import Callable, Mapping
from typing import Any

from nodeserver.core.computation import Computation
from nodeserver.core.effects import Connect, Disconnect, Effect, Ping
from nodeserver.core.events import NodeFound, OtherKeySeen, PeerConnected, PeerRefusedUs, RelayFound
from nodeserver.core.fleet import NodeRecord, matching_spec
from nodeserver.core.relays import Relays
from nodeserver.core.values import NODE_ROLE, RELAY_ROLE

FIRST_PINGS = (0.2, 0.4, 0.8, 1.6)  # pauses after the first ping: datagrams get lost
RELAY_PORT = 51346  # UDP and TCP (D15)
LONELY_PING_INTERVAL = 3.0  # as long as a computation has no node
MOST_NODES = 10_000
MOST_STRANGERS = 1_000


class Discovery:
    """Enters nodes into the fleet, without knowing more of them than where they are."""

    def __init__(
        self,
        nodes: dict[str, NodeRecord],
        computations: Mapping[int, Computation],
        emit: Callable[[Effect], None],
    ) -> None:
        self._nodes = nodes
        self._computations = computations
        self._emit = emit
        self.relays = Relays(nodes, computations, emit, self.found)
        self.other_keys: dict[str, float] = {}  # address -> when it was seen last
        self.refusals: dict[str, str] = {}  # address -> why no link could be made
        self.events: dict[type[Any], Callable[[Any, float], None]] = {
            NodeFound: self.found,
            RelayFound: self.relays.found,
            OtherKeySeen: self.other_key,
            PeerConnected: self.connected,
            PeerRefusedUs: self.refused,
        }

    def look(self, comp: Computation, now: float) -> None:
        """Look for the nodes that a computation may use, as at its beginning."""
        for node in list(self._nodes.values()):
            if not node.details:
                self._connect_if_wanted(node, now)
        comp.pings, comp.ping_at = 0, now
        self.relays.look(now)
        self.ping_due(comp, now)

    def ping_due(self, comp: Computation, now: float) -> None:
        """Ask for nodes if this computation's next ping is due, and set the one after."""
        if now < comp.ping_at or comp.closing:
            return
        declared = comp.declared
        named = [spec for spec in comp.specs if '*' not in spec.pattern]
        targets = [(spec.pattern, spec.port) for spec in named]
        # a machine that is named may be a relay's, which listens beside a node of the machine
        targets += [(s.pattern, RELAY_PORT) for s in named if s.port == declared.node_port]
        wild = any('*' in s.pattern for s in comp.specs)
        self._emit(Ping(targets, declared.node_port if wild else 0))
        comp.ping_at = now + self._ping_pause(comp)
        comp.pings += 1

    def _ping_pause(self, comp: Computation) -> float:
        if comp.pings < len(FIRST_PINGS):
            return FIRST_PINGS[comp.pings]
        wanted = comp.declared.ping_interval or float('inf')
        return wanted if self.ready_count(comp) else min(wanted, LONELY_PING_INTERVAL)

    def ready_count(self, comp: Computation) -> int:
        """How many nodes can run this computation's jobs now."""
        return sum(not node.ending and node.can_run(comp.id) for node in self._nodes.values())

    def found(self, event: NodeFound, now: float) -> None:
        """A node answered: connect to it if some computation may want it."""
        node = self._nodes.get(event.node)
        if node is None:
            if len(self._nodes) >= MOST_NODES:
                return
            node = NodeRecord(event.node, event.address, event.port, event.local_path, now)
            self._nodes[event.node] = node
        elif self.relays.reroute(node, event, now):
            self._connect(node)
            return
        elif node.asked:
            return
        node.address, node.port, node.local_path = event.address, event.port, event.local_path
        node.asked_port, node.asked_address = event.asked_port, event.asked
        node.via = event.via
        self._connect_if_wanted(node, now)

    def _connect_if_wanted(self, node: NodeRecord, now: float) -> None:
        wanted = any(
            matching_spec(comp.specs, node) is not None for comp in self._computations.values()
        )
        if wanted and not node.asked:
            node.asked = True
            node.heard(now)
            self._connect(node)

    def _connect(self, node: NodeRecord) -> None:
        self._emit(Connect(node.id, node.address, node.port, node.local_path, node.via))

    def other_key(self, event: OtherKeySeen, now: float) -> None:
        """Somebody there has another key: remembered for `explain()`."""
        if len(self.other_keys) < MOST_STRANGERS or event.address in self.other_keys:
            self.other_keys[event.address] = now

    def refused(self, event: PeerRefusedUs, now: float) -> None:
        """No link can be made to that address, for a reason that people should read."""
        node = self._nodes.get(event.peer)
        if event.peer in self.relays:
            self.relays.refused(event.peer, event.reason)
        elif node is not None:
            node.refusal = event.reason
        elif len(self.refusals) < MOST_STRANGERS:
            self.refusals[event.address] = event.reason

    def connected(self, event: PeerConnected, now: float) -> None:
        """The link stands; the node's details follow by themselves."""
        if event.caller == RELAY_ROLE:
            self.relays.called(event, now)
            return
        if event.peer in self.relays:
            self.relays.connected(event, now)
            return
        if event.caller == NODE_ROLE:
            self._called(event, now)
        node = self._nodes.get(event.peer)
        if node is not None:
            node.connected = True
            node.refusal = ''
            node.heard(now)

    def _called(self, event: PeerConnected, now: float) -> None:
        """A node connected that may be unknown, unwanted, or out of our reach (D2)."""
        node = self._nodes.get(event.peer)
        if node is None and len(self._nodes) >= MOST_NODES:
            self._emit(Disconnect(event.peer))
            return
        if node is None:
            node = self._nodes[event.peer] = NodeRecord(event.peer, event.address, 0, '', now)
        node.asked = True
        node.address, node.port, node.asked_port = event.address, 0, 0
