"""The relays that tell a program of nodes on other networks: the program's half (M10, J05).

    RelayFound ──▶ Connect ──▶ PeerConnected ──▶ AskNodes ──▶ NodesSeen ──▶ as if found by itself
    a relay connects by itself: PeerConnected ──▶ AskNodes

A relay is no node.  Where it carries connections, its nodes are connected to through it.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from nodeserver.core import levels
from nodeserver.core.computation import Computation
from nodeserver.core.effects import (
    Connect,
    Disconnect,
    Effect,
    Knock,
    Ping,
    Send,
    StopKnocking,
    UseRelay,
)
from nodeserver.core.events import MessageArrived, NodeFound, PeerConnected, PeerLost, RelayFound
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import Notice
from nodeserver.core.relaymessages import (
    AskNodes,
    NodesGone,
    NodesSeen,
    RelayDetails,
)

MOST_RELAYS = 100
MOST_TOLD = 10_000  # nodes, by one relay
RENEWAL = 60.0  # seconds after which a relay is told that we are still there
SEARCH_INTERVAL = 3.0  # of pings to where a relay was, at first
_LONGEST_NAME = 255
_LONGEST_LABEL = 63  # of the parts of a name, which looking it up would choke on
_HOST_MARKS = str.maketrans('', '', '.-_:%')
_ID_SIZE = 32


@dataclass(slots=True)
class RelayRecord:
    """A relay that was found, or that connected."""

    id: str
    address: str
    port: int  # 0: it connected to us
    is_connected: bool = False
    name: str = ''
    carries: bool = False
    refusal: str = ''
    mismatch: str = ''  # why it will refuse, as its answer to a ping has it
    nodes: dict[str, NodeFound] = field(default_factory=dict)  # what it has told

    @property
    def title(self) -> str:
        """How people are told of it."""
        return f'{self.name} ({self.address})' if self.name else self.address


class Relays:
    """Which relays there are, and what each of them has told."""

    def __init__(
        self,
        nodes: dict[str, NodeRecord],
        computations: Mapping[int, Computation],
        emit: Callable[[Effect], None],
        found: Callable[[NodeFound, float], None],
    ) -> None:
        self.due_at = inf
        self._nodes, self._computations = nodes, computations
        self._emit, self._node_found = emit, found
        self._relays: dict[str, RelayRecord] = {}
        self._missed: dict[tuple[str, int], None] = {}  # where a relay was that is lost
        self._searches = 0  # for these
        self._asked_ports: list[int] = []

    def __contains__(self, peer: str) -> bool:
        """Whether this peer is a relay."""
        return peer in self._relays

    # relays that come and go

    def found(self, event: RelayFound, mismatch: str = '') -> None:
        """A relay answered: connect to it, also if it will refuse: it says so on its side."""
        if event.relay in self._relays:
            return
        place = event.address, event.port
        self._forget_predecessors(place)
        if len(self._relays) >= MOST_RELAYS:
            return
        if place in self._missed:
            del self._missed[place]
            self._emit(StopKnocking(*place))
        relay = RelayRecord(event.relay, event.address, event.port, mismatch=mismatch)
        self._relays[event.relay] = relay
        self._emit(Connect(event.relay, event.address, event.port, ''))

    def _forget_predecessors(self, place: tuple[str, int]) -> None:
        """Relays that never took our connection, and were started anew, perhaps to do so."""
        for relay in list(self._relays.values()):
            if (relay.address, relay.port) == place and not relay.is_connected:
                del self._relays[relay.id]
                self._emit(Disconnect(relay.id))

    def called(self, event: PeerConnected, now: float) -> None:
        """A relay connected to us by itself."""
        if event.peer not in self._relays:
            if len(self._relays) >= MOST_RELAYS:
                self._emit(Disconnect(event.peer))
                return
            self._relays[event.peer] = RelayRecord(event.peer, event.address, 0)
        self.connected(event, now)

    def connected(self, event: PeerConnected, now: float) -> None:
        """The link to a relay stands: ask it."""
        relay = self._relays[event.peer]
        relay.is_connected, relay.refusal, relay.mismatch = True, '', ''
        self._ask(relay)
        self.due_at = min(self.due_at, now + RENEWAL)

    def refused(self, relay: str, reason: str) -> None:
        """No link can be made to a relay, for a reason that people should read."""
        self._relays[relay].refusal = reason

    def lost(self, event: PeerLost, now: float) -> None:
        """A relay is gone: its nodes stay as long as they answer, and it is looked for again."""
        relay = self._relays.pop(event.peer)
        if relay.carries:
            self._emit(UseRelay(relay.id, '', 0))
        if relay.port and len(self._missed) < MOST_RELAYS:
            self._missed[relay.address, relay.port] = None
            self._emit(Knock(relay.address, relay.port))
            self._searches = 0
            self.due_at = min(self.due_at, now)
        text = f'relay {relay.title} was lost: {event.reason}; it tells of no more nodes'
        text += ', and carries no connections to those it told of' if relay.carries else ''
        for comp in self._computations.values():
            if not comp.closing:
                self._emit(Send(comp.client, Notice(comp.id, levels.WARNING, text)))
        self._reroute_all(relay.id, now)

    def _reroute_all(self, lost: str, now: float) -> None:
        """Have another relay carry what this one carried, where one has told of the node."""
        for node in self._nodes.values():
            if node.via == lost:
                told = (other.nodes.get(node.id) for other in self._relays.values())
                found = next((each for each in told if each is not None and each.via), None)
                if found is not None:
                    self._node_found(found, now)

    # what is asked

    def look(self, now: float) -> None:
        """A computation begins: it may want nodes that answer at other ports."""
        if self._relays and self._ports() != self._asked_ports:
            for relay in self._relays.values():
                self._ask(relay)

    def due(self, now: float) -> None:
        """Give signs of life, and look for relays that were lost."""
        if now < self.due_at:
            return
        for relay in self._relays.values():
            self._ask(relay)
        if self._missed:
            self._emit(Ping(list(self._missed), 0))
            self._searches += 1
        pause = min(SEARCH_INTERVAL + self._searches, RENEWAL) if self._missed else RENEWAL
        self.due_at = now + pause if self._missed or self._relays else inf

    def _ask(self, relay: RelayRecord) -> None:
        if relay.is_connected:
            self._asked_ports = self._ports()
            self._emit(Send(relay.id, AskNodes(self._asked_ports)))

    def _ports(self) -> list[int]:
        return sorted({comp.declared.node_port for comp in self._computations.values()})

    # what is told

    def hear(self, event: MessageArrived, now: float) -> None:
        """Take in what a relay tells; what a relay does not tell is not listened to."""
        relay, message = self._relays[event.peer], event.message
        if isinstance(message, NodesSeen):
            self._seen(relay, message, now)
        elif isinstance(message, NodesGone):
            self._gone(relay, message)
        elif isinstance(message, RelayDetails):
            self._details(relay, message)

    def _details(self, relay: RelayRecord, message: RelayDetails) -> None:
        name = message.name[:_LONGEST_NAME]
        relay.name = name if name.isprintable() else ''
        relay.carries = 0 < message.port < 65536 and _is_host(message.host)
        if relay.carries:
            host, port = message.host, message.port
            if not host:  # where it was reached, which may be a gateway's address
                host, port = relay.address, relay.port or port
            self._emit(UseRelay(relay.id, host, port))

    def _seen(self, relay: RelayRecord, message: NodesSeen, now: float) -> None:
        columns = (message.addresses, message.ports, message.asked_ports, message.asked)
        for node, address, port, asked_port, asked, tls in zip(
            message.ids, *columns, message.tls, strict=True
        ):
            is_known = node in relay.nodes or len(relay.nodes) < MOST_TOLD
            is_sound = _is_node(node, address, port) and _is_place(asked, asked_port)
            if is_known and is_sound and node not in self._relays:
                via = relay.id if relay.carries else ''
                found = NodeFound(node, address, port, '', asked_port, asked, tls, via)
                relay.nodes[node] = found
                self._node_found(found, now)

    def _gone(self, relay: RelayRecord, message: NodesGone) -> None:
        """Forget nodes to which no connection stands; of the others we know better."""
        for node in message.ids:
            if node not in relay.nodes:
                continue
            del relay.nodes[node]
            record = self._nodes.get(node)
            told = any(node in other.nodes for other in self._relays.values())
            if record is None or record.connected or record.uses or told:
                continue
            del self._nodes[node]
            if record.asked:
                self._emit(Disconnect(node))

    def reroute(self, node: NodeRecord, event: NodeFound, now: float) -> bool:
        """Whether a node that was found again is to be connected to in another way than so far."""
        if node.via == event.via:
            return False
        if event.via and (not node.via or node.via in self._relays):
            return False  # it is reached directly, or through a relay that lives
        if not event.via and node.connected:
            return False
        node.via, node.address, node.port = event.via, event.address, event.port
        return node.asked

    # words

    def words(self) -> list[str]:
        """Say of each relay how it stands with it."""
        lines = []
        for relay in self._relays.values():
            how = f'told of {len(relay.nodes)} {"node" if len(relay.nodes) == 1 else "nodes"}'
            if relay.carries:
                how += ', and carries the connections to them'
            if not relay.is_connected:
                how = relay.mismatch or relay.refusal or 'connecting'
            elif not relay.nodes:
                how = 'has found no node on its network yet'
            lines.append(f'relay {relay.title}: {how}')
        lines += [f'relay at {host} port {port}: lost, asked again' for host, port in self._missed]
        return lines


def _is_host(host: str) -> bool:
    """Whether a text can be a host's name or address, or is ''."""
    if not host:
        return True
    short = len(host) <= _LONGEST_NAME and max(map(len, host.split('.'))) <= _LONGEST_LABEL
    return short and host.isascii() and host.translate(_HOST_MARKS).isalnum()


def _is_place(asked: str, asked_port: int) -> bool:
    """Whether that can be where a node answered: '' is the address that it is used at."""
    return _is_host(asked) and 0 <= asked_port < 65536


def _is_node(node: str, address: str, port: int) -> bool:
    """Whether a row can be one of a node: it comes from a peer."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    is_id = len(node) == _ID_SIZE and all(char in '0123456789abcdef' for char in node)
    return is_id and 0 < port < 65536
