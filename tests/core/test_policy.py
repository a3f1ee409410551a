"""Which node gets the next jobs, and when it is filled up again."""

import pytest

from nodeserver.core.fleet import NodeRecord
from nodeserver.core.policy import Placement


def node_with(cpus: int, load: int, name: str = 'node') -> NodeRecord:
    node = NodeRecord(name, '10.0.0.1', 51348, '', 0.0)
    node.cpus, node.load = cpus, load
    return node


@pytest.mark.parametrize(
    ('cpus', 'rounds', 'least'),
    [
        (1, 1, 1),  # a job for each cpu: the next one only when a cpu is free
        (8, 1, 8),
        (1, 2, 2),  # each cpu has one ahead, but for a quarter of many
        (2, 2, 4),
        (4, 2, 7),
        (8, 2, 14),
        (8, 3, 16),  # then half of what lies ahead may be used up
        (2, 100, 101),
        (8, 1024, 4100),
    ],
)
def test_a_node_is_filled_up_when_part_of_what_lies_ahead_is_used_up(
    cpus: int, rounds: int, least: int
) -> None:
    for load in range(max(0, least - 3), least + 3):
        placement, node = Placement(), node_with(cpus, load)
        placement.put(node)
        wanted = node if load < least else None
        assert placement.first(rounds) is wanted
        assert list(placement.candidates(rounds)) == [node] * (wanted is node)
        assert placement.is_full(rounds) is (wanted is None)


def test_the_least_busy_node_is_first_and_equals_take_turns() -> None:
    placement, nodes = Placement(), [node_with(4, 0, f'node {n}') for n in range(3)]
    for node in nodes:
        placement.put(node)
    order = []
    for _ in range(6):
        node = placement.first(2)
        assert node is not None
        node.take(1, 1)
        placement.move(node)
        order.append(nodes.index(node))
    assert order == [0, 1, 2, 0, 1, 2]
    nodes[1].release(1, 2)
    placement.move(nodes[1])
    assert placement.first(1) is nodes[1]
    placement.discard(nodes[1])
    assert nodes[1] not in placement
    assert len(placement) == 2


def test_it_is_uneven_when_a_cpu_idles_while_jobs_wait_elsewhere() -> None:
    placement = Placement()
    busy, idle = node_with(2, 3, 'busy'), node_with(2, 2, 'idle')
    placement.put(busy)
    placement.put(idle)
    assert not placement.is_uneven()
    idle.load = 1
    placement.move(idle)
    assert placement.is_uneven()
    assert placement.idlest() is idle
    assert list(placement.fullest_first()) == [busy]
