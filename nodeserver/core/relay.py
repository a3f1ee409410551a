"""A relay's decisions: what is told of the nodes of its network, to whom, and how long.

    program ── AskNodes ──▶ pings by broadcast ──▶ NodeFound ──▶ NodesSeen ──▶ all who asked
                            silent for several pings ──────────▶ NodesGone

As long as nobody asks, the relay is silent itself.  It never connects to a node: where it carries
connections, it only says which ones may be carried, and for whom.
"""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from nodeserver.core import levels
from nodeserver.core.discovery import FIRST_PINGS, MOST_NODES
from nodeserver.core.effects import (
    AdmitProgram,
    CloseWay,
    Disconnect,
    DismissProgram,
    Effect,
    OpenWay,
    Ping,
    Report,
    Send,
    Stop,
)
from nodeserver.core.events import (
    CarriedChanged,
    DeadlinePassed,
    Event,
    MessageArrived,
    NodeFound,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
    StopAsked,
)
from nodeserver.core.messages import Message
from nodeserver.core.relaymessages import AskNodes, NodesGone, NodesSeen, RelayDetails
from nodeserver.core.values import value

MOST_PROGRAMS = 1_000
MOST_PORTS = 16  # at which nodes are asked, of all programs together
LEAST_PING_PAUSE = 0.2  # whatever programs ask for
MISSED_PINGS = 4
PLACE_MISSED = 2  # after which another address of a node with several is taken for it
MOST_TITLES = 5  # of nodes in one line
LEASE = 200.0  # seconds that a program may say nothing


@value
class RelayFacts:
    """What a relay is when it starts."""

    name: str
    node_ports: tuple[int, ...]  # at which nodes are asked in any case
    ping_interval: float
    carries: bool
    host: str  # where programs reach it, if that is not where they found it
    port: int


@dataclass(slots=True)
class Program:
    """A program that is told of nodes."""

    address: str
    heard_at: float
    has_asked: bool = False
    ports: tuple[int, ...] = ()


@dataclass(slots=True)
class SeenNode:
    """A node that answered, and how many pings it has left unanswered since."""

    found: NodeFound
    missed: int = 0


@dataclass(slots=True)
class _News:
    """What is to be told at the end of this turn, so that many nodes make one message."""

    nodes: dict[str, None] = field(default_factory=dict)
    askers: dict[str, None] = field(default_factory=dict)


class RelayCore:
    """Programs that ask, and nodes that answer."""

    def __init__(self, facts: RelayFacts) -> None:
        self._facts = facts
        self._programs: dict[str, Program] = {}
        self._nodes: dict[str, SeenNode] = {}
        self._places: dict[tuple[str, int], str] = {}  # address and port -> node
        self._news = _News()
        self._out: list[Effect] = []
        self._pings = 0  # since somebody began to ask
        self._pinged_at, self._ping_at = -inf, inf
        self._is_full = False
        self._ending = ''  # why, once it is to end
        self._carried = 0
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            PeerConnected: self._connected,
            PeerLost: lambda event, now: self._leave(event.peer, event.reason),
            PeerRefusedUs: self._refused,
            MessageArrived: self._arrived,
            NodeFound: self._found,
            DeadlinePassed: self._deadline_passed,
            CarriedChanged: self._carried_changed,
            StopAsked: self._stop_asked,
        }

    # the doors

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened and answer what is to be done."""
        hear = self._events.get(type(event))  # other relays, other keys: nothing to do
        if hear is not None:
            hear(event, now)
        return self._take()

    def end_turn(self, now: float) -> list[Effect]:
        """Tell of the nodes that were found in this turn."""
        news, self._news = self._news, _News()
        fresh = [node for node in news.nodes if node in self._nodes]
        if fresh:
            self._say(f'found {_titles([self._nodes[node].found for node in fresh])}')
        for peer, program in self._programs.items():
            told = self._nodes if peer in news.askers else fresh
            if program.has_asked and told:
                self._send(peer, self._seen(told))
        return self._take()

    def next_deadline(self) -> float | None:
        """When the core wants a `DeadlinePassed`, or None."""
        leases = (program.heard_at + LEASE for program in self._programs.values())
        due = min(self._ping_at, *leases, inf)
        return due if due < inf else None

    def status(self) -> list[str]:
        """Say in words whom the relay serves, and of which nodes it knows."""
        lines = [f'{self._facts.name}: {_count(len(self._nodes), "node")} known']
        lines += [f'  {_title(seen.found)}' for seen in self._nodes.values()]
        askers = [p.address or 'this machine' for p in self._programs.values() if p.has_asked]
        lines.append(f'{_count(len(askers), "program")} told of them')
        lines += [f'  {address}' for address in sorted(askers)]
        if self._facts.carries:
            lines.append(f'{_count(self._carried, "connection")} carried')
        if self._ending:
            lines.append(f'ends once no connection is carried: {self._ending}')
        return lines

    def _take(self) -> list[Effect]:
        effects, self._out = self._out, []
        return effects

    def _send(self, peer: str, message: Message) -> None:
        self._out.append(Send(peer, message))

    def _say(self, text: str, level: int = levels.INFO) -> None:
        self._out.append(Report(level, text))

    # programs

    def _connected(self, event: PeerConnected, now: float) -> None:
        if event.peer not in self._programs and len(self._programs) >= MOST_PROGRAMS:
            self._out.append(Disconnect(event.peer))
            return
        known = self._programs.get(event.peer)
        self._programs[event.peer] = Program(event.address, now)
        if known is None:
            self._say(f'the program at {event.address or "this machine"} is told of nodes')
        facts = self._facts
        port = facts.port if facts.carries else 0
        self._send(event.peer, RelayDetails(facts.name, facts.host, port))
        if facts.carries:
            self._out.append(AdmitProgram(event.peer))

    def _refused(self, event: PeerRefusedUs, now: float) -> None:
        self._say(f'the program at {event.address} cannot be told of nodes: {event.reason}', _WARN)

    def _arrived(self, event: MessageArrived, now: float) -> None:
        program, message = self._programs.get(event.peer), event.message
        if program is None or not isinstance(message, AskNodes):
            return
        before, was_asked = self._ports(), program.has_asked
        program.heard_at, program.has_asked = now, True
        program.ports = _ports_of(message)
        if not was_asked:
            self._news.askers[event.peer] = None
        if not was_asked or self._ports() != before:
            self._pings = 0
            self._ping_at = max(now, self._pinged_at + LEAST_PING_PAUSE)

    def _leave(self, peer: str, reason: str) -> None:
        program = self._programs.pop(peer, None)
        if program is None:
            return
        self._news.askers.pop(peer, None)
        self._say(f'the program at {program.address or "this machine"} is gone: {reason}')
        if self._facts.carries:
            self._out.append(DismissProgram(peer))
        if not any(p.has_asked for p in self._programs.values()):
            self._ping_at = inf

    # nodes

    def _found(self, event: NodeFound, now: float) -> None:
        seen = self._nodes.get(event.node)
        if seen is not None and seen.found == event:
            seen.missed = 0
            return
        if not _is_of_use(event) or (seen is not None and seen.missed < PLACE_MISSED):
            return
        other = self._places.get((event.address, event.port))
        if other is not None and other != event.node:  # its successor answers in its place
            self._gone([other])
        if seen is None and len(self._nodes) >= MOST_NODES:
            if not self._is_full:
                self._is_full = True
                self._say(f'more than {MOST_NODES} nodes answer: the others are not told of', _WARN)
            return
        if seen is not None:
            self._places.pop((seen.found.address, seen.found.port), None)
        self._nodes[event.node] = SeenNode(event)
        self._places[event.address, event.port] = event.node
        self._news.nodes[event.node] = None
        if self._facts.carries:
            self._out.append(OpenWay(event.node, event.address, event.port))

    def _gone(self, nodes: list[str]) -> None:
        gone = [self._nodes.pop(node).found for node in nodes]
        self._say(f'no answer any more of {_titles(gone)}')
        for found in gone:
            self._places.pop((found.address, found.port), None)
            if self._facts.carries:
                self._out.append(CloseWay(found.node))
        for peer, program in self._programs.items():
            if program.has_asked:
                self._send(peer, NodesGone(nodes))

    def _seen(self, nodes: Iterable[str]) -> NodesSeen:
        rows = [self._nodes[node].found for node in nodes]
        return NodesSeen(
            [row.node for row in rows],
            [row.address for row in rows],
            [row.port for row in rows],
            [row.asked_port for row in rows],
            [row.asked for row in rows],
            [row.is_tls for row in rows],
        )

    # time

    def _deadline_passed(self, event: DeadlinePassed, now: float) -> None:
        silent = [peer for peer, p in self._programs.items() if now >= p.heard_at + LEASE]
        for peer in silent:
            self._out.append(Disconnect(peer))
            self._leave(peer, f'it has said nothing for {LEASE:.0f} s')
        if now >= self._ping_at:
            self._ping(now)

    def _ping(self, now: float) -> None:
        """Ask for nodes; those that have answered none of the last steady pings are gone."""
        if self._pings < len(FIRST_PINGS):
            pause = FIRST_PINGS[self._pings]
        else:
            pause = self._facts.ping_interval
            gone = [node for node, seen in self._nodes.items() if seen.missed >= MISSED_PINGS]
            if gone:
                self._gone(gone)
            for seen in self._nodes.values():
                seen.missed += 1
        for port in self._ports():
            self._out.append(Ping([], port))
        self._pings += 1
        self._pinged_at, self._ping_at = now, now + pause

    def _ports(self) -> list[int]:
        ports = dict.fromkeys(self._facts.node_ports)
        for program in self._programs.values():
            ports |= dict.fromkeys(program.ports)
        return list(ports)[:MOST_PORTS]

    # the end

    def _carried_changed(self, event: CarriedChanged, now: float) -> None:
        self._carried = event.count
        if self._ending and not event.count:
            self._out.append(Stop(self._ending))

    def _stop_asked(self, event: StopAsked, now: float) -> None:
        if event.at_once or not self._carried:
            self._out.append(Stop(event.reason))
        elif not self._ending:
            self._say(f'{_count(self._carried, "connection")} carried: it ends after these')
        self._ending = event.reason


_WARN = levels.WARNING


def _ports_of(message: AskNodes) -> tuple[int, ...]:
    return tuple(port for port in message.ports[:MOST_PORTS] if 0 < port < 65536)


def _is_of_use(found: NodeFound) -> bool:
    """Whether programs on other machines can do anything with this address."""
    try:
        address = ipaddress.ip_address(found.address.partition('%')[0])
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _title(found: NodeFound) -> str:
    return f'{found.address} port {found.port}'


def _titles(nodes: list[NodeFound]) -> str:
    titles = [_title(node) for node in nodes[:MOST_TITLES]]
    others = f' and {len(nodes) - MOST_TITLES} more' if nodes[MOST_TITLES:] else ''
    return f'{"node" if len(nodes) == 1 else "nodes"} {", ".join(titles)}{others}'


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
