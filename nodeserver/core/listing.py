"""The nodes that a scheduler knows of, a row each, in the words by which it decides (V03)."""

from dataclasses import dataclass

from nodeserver.core.computation import Computation
from nodeserver.core.explain import KEY_ADVICE, places, standing
from nodeserver.core.fleet import NodeRecord, UseState, matches_address
from nodeserver.core.recruiting import Recruiting


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """How a node stands with one computation."""

    computation: int
    name: str  # of the computation
    is_met: bool  # whether it is one that the computation wants, and that has told about itself
    is_used: bool  # whether its jobs can run there
    words: str  # why not, or how far its cpus are in use


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as people are told of it; None where it has not told, or nobody here can know."""

    name: str
    address: str
    cpus: int | None  # that it offers
    free: int | None  # of these, how many no job of this scheduler has
    memory: int | None  # bytes that jobs can have there in all
    memory_free: int | None
    usages: tuple[NodeUsage, ...]
    words: str = ''  # why it can be of no use to anybody here


@dataclass(frozen=True, slots=True)
class NodeList:
    """The nodes that were found, and where they were looked for, by computation."""

    rows: tuple[NodeRow, ...]
    places: dict[int, str]


def list_nodes(fleet: Recruiting, now: float) -> NodeList:
    """List the nodes that were found, and then those that answered but can be of no use."""
    computations = [comp for comp in fleet.computations.values() if not comp.closing]
    rows = [_row(node, computations, now) for node in fleet.nodes.values()]
    rows += _strangers(fleet, computations)
    return NodeList(tuple(rows), {comp.id: places(comp) for comp in computations})


def _row(node: NodeRecord, computations: list[Computation], now: float) -> NodeRow:
    usages = tuple(_usage(node, comp, now) for comp in computations)
    details, availability = node.details, node.availability
    is_held = any(use.state is UseState.BUSY for use in node.uses.values())
    return NodeRow(
        details.name if details else '',
        node.address,
        node.cpus if details else None,
        # of one that another program holds, only that one knows
        max(0, node.cpus - node.load) if details and not is_held else None,
        (details.memory or None) if details else None,
        availability.memory if availability else None,
        usages,
        node.refusal,
    )


def _usage(node: NodeRecord, comp: Computation, now: float) -> NodeUsage:
    return NodeUsage(
        comp.id,
        comp.declared.name,
        comp.id in node.uses,
        node.can_run(comp.id) and not node.ending,
        standing(node, comp, now),
    )


def _strangers(fleet: Recruiting, computations: list[Computation]) -> list[NodeRow]:
    """Who answered with another key, or cannot be connected to, where somebody looks for nodes."""
    known = {node.address for node in fleet.nodes.values()}
    specs = [spec for comp in computations for spec in comp.specs]
    told = {
        address: f'uses another key; {KEY_ADVICE}'
        for address in fleet.discovery.other_keys
        if any(matches_address(spec, address) for spec in specs)
    }
    told |= fleet.discovery.refusals
    return [
        NodeRow('', address, None, None, None, None, (), words)
        for address, words in told.items()
        if address not in known
    ]
