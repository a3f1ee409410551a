"""What a client is asked about a node, where its `allocate` decides how much of it is used."""

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import NodeRecord, matching_spec
from nodeserver.core.messages import AllocateAsk


def is_to_be_asked(node: NodeRecord, comp: Computation) -> bool:
    """Whether the client says how much of this node it wants."""
    index = matching_spec(comp.specs, node)
    return index is not None and comp.specs[index].asks_client


def allocate_ask(node: NodeRecord, comp: Computation) -> AllocateAsk | None:
    """The question; none if the computation wants nothing of the node."""
    index, details = matching_spec(comp.specs, node), node.details
    if index is None or details is None:
        return None
    return AllocateAsk(
        comp.id,
        node.id,
        index - len(comp.specs),
        node.address,
        details.name,
        details.cpus,
        node.availability,
        details.platform,
    )
