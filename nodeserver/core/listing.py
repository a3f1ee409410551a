"""The nodes that a scheduler knows of, a row each, in the words by which it decides (V03)."""

from nodeserver.core.computation import Computation
from nodeserver.core.explain import KEY_ADVICE, places, standing
from nodeserver.core.fleet import NodeRecord, UseState, matches_address
from nodeserver.core.noderows import NodeList as NodeList
from nodeserver.core.noderows import NodeRow as NodeRow
from nodeserver.core.noderows import NodeUsage as NodeUsage
from nodeserver.core.recruiting import Recruiting


def list_nodes(fleet: Recruiting, now: float, client: str | None = None) -> NodeList:
    """List the nodes that were found, and then those that answered but can be of no use.

    Of the computations, all or those of one client are named.
    """
    computations = [
        comp
        for comp in fleet.computations.values()
        if not comp.closing and client in (None, comp.client)
    ]
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
