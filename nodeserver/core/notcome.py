"""Nodes that are waited for in a takeover and have not come: why, in words."""

from collections.abc import Mapping

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.takeover import Takeover

LOST_AFTER_PULSES = 5  # after which a node that does not come is given up


def why_missing(
    nodes: Mapping[str, NodeRecord], comp: Computation, takeover: Takeover, name: str
) -> tuple[str, str]:
    """How people are told of a node that is given up, and why it is."""
    for node in nodes.values():
        use = node.uses.get(comp.id)
        if name == node.id or name in takeover.names_of(node):
            reason = use.reason if use is not None else ''
            return node.title, reason or node.refusal or 'it did not hand over what it has'
    known = takeover.known.get(name)
    title = known.address if known is not None else name
    seconds = round(LOST_AFTER_PULSES * comp.declared.pulse_interval)
    return title, f'it was not found again within {seconds} s'
