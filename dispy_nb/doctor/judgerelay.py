"""What the facts of a place mean where a relay answers, or may be: pure."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from dispy_nb.doctor.facts import NodeFacts
from dispy_nb.doctor.findings import Fault, Finding, Level, fine
from nodeserver.core.diagnosis import Reach
from nodeserver.core.knocking import RELAY_PORT
from nodeserver.io.udp import NODE_PORT

_MOST_NAMED: Final = 5  # of the nodes that a relay knows
_MOST_PATTERNS: Final = 3


def is_ours(facts: NodeFacts) -> bool:
    """Whether a program of ours has answered there in one way or the other."""
    return bool(facts.udp.port) or facts.udp.other_key or facts.tcp.is_zeromq or facts.tcp.is_tls


def is_relay(facts: NodeFacts) -> bool:
    """Whether who answers there is a relay, and no node."""
    return facts.udp.is_relay or (facts.link is not None and facts.link.relay is not None)


def no_node(facts: NodeFacts) -> Finding:
    """Say that the machine of a relay has no node beside it, which it need not have."""
    words = f'no node answers at port {facts.port}; beside a relay none has to'
    if facts.tcp.reach is Reach.OPEN:
        words = f'at port {facts.port} another program listens; beside a relay no node has to'
    return fine('dispynode', words, facts.where)


def judge_relay(facts: NodeFacts) -> Finding:
    """Say what a relay does, and how its nodes are named in a program."""
    told = facts.link.relay if facts.link is not None else None
    if told is None:  # it has answered a ping, and what keeps us from it is said elsewhere
        return fine('relay', 'it is a relay (dispynetrelay), and no node', facts.where)
    how = (
        'carries connections to its nodes (--forward)'
        if told.carries
        else 'tells of its nodes, to which programs connect themselves'
    )
    found = f'{told.name} is a relay (dispynetrelay), which {how}'
    if told.ext_reach not in (Reach.UNTRIED, Reach.OPEN):
        host, port = told.ext_place
        found += f' at {host} port {port}, where this machine cannot connect ({told.ext_reach})'
        advice = f'correct its --ext_ip_addr, or have {host} forward TCP port {port} to it'
        return Finding('relay', Level.PROBLEM, Fault.FIREWALL, found, advice, facts.where)
    if not told.nodes:
        option = '' if facts.node_port == NODE_PORT else f' with --node_port {facts.node_port}'
        advice = f'start `dispynode`{option} on its network; run `dispy doctor` on its machine'
        found += '; no node answers it'
        return Finding('relay', Level.WARNING, Fault.REACH, found, advice, facts.where)
    addresses = list(dict.fromkeys(address for address, _ in told.nodes))
    names = ', '.join(addresses[:_MOST_NAMED]) + ' and others' * (len(addresses) > _MOST_NAMED)
    count = '1 node' if len(told.nodes) == 1 else f'{len(told.nodes)} nodes'
    found += f'; it tells of {count}: {names}'
    advice = f'in a program: JobCluster(f, nodes=[{_elements(facts, told.nodes)}])'
    if not told.carries:
        advice += f'; whether this machine can connect to them: `dispy doctor {addresses[0]}`'
    return Finding('relay', Level.OK, Fault.REACH, found, advice, facts.where)


def _elements(facts: NodeFacts, nodes: Sequence[tuple[str, int]]) -> str:
    """Write the elements of `nodes` for a relay and the networks of its nodes."""
    port = facts.tcp.port
    relay = repr(facts.host) if port == RELAY_PORT else repr((facts.host, port))
    patterns = list(dict.fromkeys((_pattern(address), port) for address, port in nodes))
    if len(patterns) > _MOST_PATTERNS:
        patterns = list(dict.fromkeys(('*', port) for _, port in patterns[:_MOST_NAMED]))
    others = [repr(each if each[1] != NODE_PORT else each[0]) for each in patterns]
    return ', '.join([relay, *others])


def _pattern(address: str) -> str:
    """Return the wildcard of the network that an address is likely to be in."""
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return address
    return address.rpartition('.')[0] + '.*'
