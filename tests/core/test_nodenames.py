"""Nodes are found by their id, or by what users call them."""

from nodeserver.core.fleet import NodeRecord, UseState, use_in
from nodeserver.core.messages import NodeDetails
from nodeserver.core.nodenames import NodeNames


def node(name: str, address: str, *used_by: int) -> NodeRecord:
    record = NodeRecord(name, address, 51348, '', 0.0)
    record.details = NodeDetails(f'host of {name}', 2, 'Linux', '3.11', None)
    record.uses = {computation: use_in(UseState.READY, 2) for computation in used_by}
    return record


def test_of_nodes_with_one_address_the_first_that_is_used_is_meant() -> None:
    nodes = [node('a', '10.0.0.1', 2), node('b', '10.0.0.1', 1, 2), node('c', '10.0.0.1', 1, 2)]
    names = NodeNames({each.id: each for each in nodes})
    assert names.find('10.0.0.1', 1) is nodes[1]
    assert names.find('10.0.0.1', 2) is nodes[0]
    assert names.find('10.0.0.1', 3) is None


def test_a_node_has_each_of_its_names_and_each_line_may_be_one() -> None:
    there, other = node('a', '10.0.0.1', 1), node('b', '10.0.0.2', 1)
    other.asked_address = '192.168.0.2'
    names = NodeNames({'a': there, 'b': other})
    assert names.find('a', 5) is there  # by its id, whoever asks
    assert names.find('host of a', 1) is there
    assert names.find('nobody\n192.168.0.2', 1) is other
    assert names.find('host of b\n10.0.0.1', 1) is there  # the first one of both
    there.details = None  # it has not told about itself
    assert NodeNames({'a': there}).find('10.0.0.1', 1) is None
