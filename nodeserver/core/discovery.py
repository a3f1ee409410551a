"""How nodes are found: asked for by pings, or calling by themselves; and who cannot be used.

Ping ──▶ NodeFound ──▶ Connect ──▶ PeerConnected        a node that calls: PeerConnected at once
"""

from collections.abc import Callable, Mapping
from typing import Any

from nodeserver.core.computation import Computation
from nodeserver.core.effects import Connect, Disconnect, Effect, Ping
from nodeserver.core.events import (
    KnockFailed,
    LinkBroken,
    LinkMended,
    NodeFound,
    OtherKeySeen,
    PeerConnected,
    PeerRefusedUs,
    RelayFound,
)
from nodeserver.core.fleet import NodeRecord, matching_spec
from nodeserver.core.knocking import RELAY_PORT, Knocking
from nodeserver.core.relays import Relays
from nodeserver.core.values import NODE_ROLE, RELAY_ROLE

FIRST_PINGS = (0.2, 0.4, 0.8, 1.6)  # pauses after the first ping: datagrams get lost
LONELY_PING_INTERVAL = 3.0  # as long as a computation has no node, or misses one
BROKEN_PING_DELAY = 0.5  # most links that break are back sooner
LOST_PING_DELAY = 1.0
MOST_NODES = 10_000
MOST_STRANGERS = 1_000
NODE_HAS_TLS = (
    'it uses SSL, and this side was given no certificate: give certfile (and keyfile), the same '
    'as there'
)
RELAY_LACKS_TLS = (
    'it does not use SSL, and this side was given a certificate: start it with --certfile (and '
    '--keyfile), as the nodes'
)
NODE_LACKS_TLS = (
    'it does not use SSL, and this side was given a certificate: start it with --certfile (and '
    '--keyfile), or give none here'
)


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
        self.is_tls = False  # whether we were given a certificate
        # whether a node is to be told something that no computation knows of
        self.is_awaited: Callable[[NodeRecord], bool] = lambda node: False
        self.relays = Relays(nodes, computations, emit, self.found)
        self.knocking = Knocking(nodes, computations, emit)
        self.other_keys: dict[str, float] = {}  # address -> when it was seen last
        self.refusals: dict[str, str] = {}  # address -> why no link could be made
        self.events: dict[type[Any], Callable[[Any, float], None]] = {
            NodeFound: self.found,
            RelayFound: self.relay_found,
            KnockFailed: self.knocking.failed,
            OtherKeySeen: self.other_key,
            PeerConnected: self.connected,
            PeerRefusedUs: self.refused,
            LinkBroken: self.broken,
            LinkMended: self.mended,
        }

    def look(self, comp: Computation, now: float) -> None:
        """Look for the nodes that a computation may use, as at its beginning."""
        for node in list(self._nodes.values()):
            if not node.details:
                self._connect_if_wanted(node, now)
        comp.pings, comp.ping_at = 0, now
        self.relays.look(now)
        self.due(comp, now)

    def due(self, comp: Computation, now: float) -> None:
        """Do what is due to find nodes for a computation."""
        self.knocking.due(comp, now)
        self.ping_due(comp, now)

    def ping_due(self, comp: Computation, now: float) -> None:
        """Ask for nodes if this computation's next ping is due, and set the one after."""
        if now < comp.ping_at or not comp.is_looking:
            return
        declared = comp.declared
        named = [spec for spec in comp.specs if '*' not in spec.pattern]
        targets = [(spec.pattern, spec.port) for spec in named]
        # a machine that is named may be a relay's, which listens beside a node of the machine
        targets += [(s.pattern, RELAY_PORT) for s in named if s.port == declared.node_port]
        if comp.takeover is not None:
            targets += [place for place in comp.takeover.places() if place not in targets]
        wild = any('*' in s.pattern for s in comp.specs)
        self._emit(Ping(targets, declared.node_port if wild else 0))
        comp.ping_at = now + self._ping_pause(comp)
        comp.pings += 1
        self.knocking.pinged(comp, now)

    def _ping_pause(self, comp: Computation) -> float:
        if comp.pings < len(FIRST_PINGS):
            return FIRST_PINGS[comp.pings]
        wanted = comp.declared.ping_interval or float('inf')
        is_content = self.ready_count(comp) and not self._misses_some(comp)
        return wanted if is_content else min(wanted, LONELY_PING_INTERVAL)

    def _misses_some(self, comp: Computation) -> bool:
        """Whether the link to one of its nodes is broken, which may have moved."""
        if comp.takeover is not None:
            return True
        return any(
            node.broken_at is not None and comp.id in node.uses for node in self._nodes.values()
        )

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
            self.knocking.found(event)  # it is known by its places
            self._place(node, event, now)
        elif self.relays.reroute(node, event, now):
            self._connect(node)
        elif not node.asked:
            self._place(node, event, now)
        elif node.broken_at is not None and not node.has_called and event.via == node.via:
            self._moved(node, event)
        self.knocking.found(event)

    def _place(self, node: NodeRecord, event: NodeFound, now: float) -> None:
        """Note where a node is, and connect to it there if some computation may want it."""
        node.address, node.port, node.local_path = event.address, event.port, event.local_path
        node.asked_port, node.asked_address = event.asked_port, event.asked
        node.via = event.via
        node.heard(now)  # whom nobody wants is remembered as long as it answers
        node.refusal = ''
        if event.is_tls is not self.is_tls:  # found out without asking for a connection
            node.refusal = NODE_HAS_TLS if event.is_tls else NODE_LACKS_TLS
        self._connect_if_wanted(node, now)

    def relay_found(self, event: RelayFound, now: float) -> None:
        """A relay answered: it is asked for nodes."""
        mismatch = ''
        if event.is_tls is not self.is_tls:
            mismatch = NODE_HAS_TLS if event.is_tls else RELAY_LACKS_TLS
        self.relays.found(event, mismatch)
        self.knocking.relay_found(event)

    def _moved(self, node: NodeRecord, event: NodeFound) -> None:
        """The link to a node broke, and it answers: from another address, it is linked to there."""
        place = event.address, event.port
        if place != (node.address, node.port):
            node.address, node.port = place
            node.asked_port, node.asked_address = event.asked_port, event.asked
            node.local_path = event.local_path
            self._connect(node)

    def broken(self, event: LinkBroken, now: float) -> None:
        """The link to a node broke: it makes itself anew, but the node may be elsewhere now."""
        node = self._nodes.get(event.peer)
        if node is None:
            return
        node.broken_at = now
        for computation in node.uses:
            comp = self._computations[computation]
            comp.ping_at = min(comp.ping_at, now + BROKEN_PING_DELAY)

    def lost(self, node: NodeRecord, now: float) -> None:
        """A node is gone: who uses it, or was about to, looks for it and for others."""
        for comp in self._computations.values():
            if comp.id in node.uses or matching_spec(comp.specs, node) is not None:
                comp.ping_at = min(comp.ping_at, now + LOST_PING_DELAY)

    def mended(self, event: LinkMended, now: float) -> None:
        """The link to a node stands again."""
        node = self._nodes.get(event.peer)
        if node is not None:
            node.broken_at = None

    def _connect_if_wanted(self, node: NodeRecord, now: float) -> None:
        wanted = any(
            matching_spec(comp.specs, node) is not None or comp.seeks(node)
            for comp in self._computations.values()
        )
        wanted = wanted or self.is_awaited(node)
        if wanted and not node.asked and not node.refusal:
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
        elif not event.peer and len(self.refusals) < MOST_STRANGERS:  # who had called, by address
            self.refusals[event.address] = event.reason

    def connected(self, event: PeerConnected, now: float) -> None:
        """The link stands; the node's details follow by themselves."""
        self.refusals.pop(event.address, None)
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
        if not node.places:
            node.address = event.address
        elif not node.asked_address:  # it answers elsewhere: this may be the address of a tunnel
            node.asked_address = event.address
        node.port = node.asked_port = 0
        self.knocking.connected(node)
