"""How nodes are found on a network and beyond it (section J)."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from nodeserver.io.multicast import IPV6_GROUP
from nodeserver.io.udp import NODE_PORT
from tests.support.capture import Capture
from tests.support.netns import Lan, TwoLans
from tests.support.programs import client_program, eventually, node_program, program

pytestmark = [pytest.mark.netns, pytest.mark.slow]

FOUND = """
import socket, time
import dispy_nb as dispy

def compute():
    import socket
    return socket.gethostname()

with dispy.JobCluster(compute, {elements!r}) as cluster:
    while len(cluster.snapshot().nodes) < {count}:
        time.sleep(0.01)
    print(cluster.submit()(), sorted(node.address for node in cluster.snapshot().nodes))
"""


@pytest.mark.row('J01')
def test_a_cluster_asks_the_local_network_by_broadcast_and_nodes_answer() -> None:
    with Lan(3) as lan, ExitStack() as stack:
        for host in (lan[0], lan[1]):
            stack.enter_context(node_program('-c', 1, within=host.command([])))
        seen = stack.enter_context(Capture(lan[0]))
        source = FOUND.format(elements=['*'], count=2)
        done = client_program(source, within=lan[2].command([]))
        asked = seen.datagrams(NODE_PORT)
        answers = [d for d in seen.datagrams() if d.source_port == NODE_PORT]
        client, node, ll6 = lan[2].ip, lan[0].ip, (lan[2].ll6, lan[0].ll6)
    assert done.stdout.endswith(f"['{node}', '{lan[1].ip}']\n")
    pairs = {(d.source, d.target) for d in asked if '.' in d.source}
    assert (client, lan.broadcast) in pairs
    # a node that is just announcing itself is asked back
    assert pairs <= {(client, lan.broadcast), (client, node)}
    assert {d.target for d in asked if d.source == ll6[0]} <= {IPV6_GROUP, ll6[1]}
    assert (node, client) in {(d.source, d.target) for d in answers}


@pytest.mark.row('J02')
def test_a_node_on_another_network_is_asked_by_its_address() -> None:
    with TwoLans(1, 1) as net, ExitStack() as stack:
        client, node = net.left[0], net.right[0]
        stack.enter_context(node_program(within=node.command([])))
        seen = stack.enter_context(Capture(net.router, 'eth1'))
        source = FOUND.format(elements=[node.ip], count=1)
        done = client_program(source, within=client.command([]))
        asked = {(d.source, d.target) for d in seen.datagrams(NODE_PORT)}
    assert done.stdout == f"r0 ['{node.ip}']\n"
    assert asked == {(client.ip, node.ip)}


WILDCARD = """
import pathlib, sys, time
import dispy_nb as dispy

def compute():
    import socket
    return socket.gethostname()

with dispy.JobCluster(compute, ['10.77.2.*']) as cluster:
    job = cluster.submit()
    while 'asked 4 times' not in cluster.explain():
        time.sleep(0.01)
    print('asked', flush=True)
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.01)
    with dispy.JobCluster(compute, [{address!r}]) as other:
        print('named', other.submit()(), flush=True)
        print('matched', job(), flush=True)
"""


@pytest.mark.row('J03')
def test_a_pattern_sends_nothing_to_its_network_and_only_filters(tmp_path: Path) -> None:
    with TwoLans(1, 1) as net, ExitStack() as stack:
        client, node = net.left[0], net.right[0]
        stack.enter_context(node_program(within=node.command([])))
        beyond = stack.enter_context(Capture(net.router, 'eth1'))
        local = stack.enter_context(Capture(net.router, 'eth0'))
        script, gate = tmp_path / 'script.py', tmp_path / 'gate'
        script.write_text(WILDCARD.format(address=node.ip))
        ran = stack.enter_context(program(*client.command([sys.executable, script, gate])))
        ran.wait_for_log('asked')
        assert client.ip in {d.source for d in local.datagrams(NODE_PORT)}
        assert not {pair for pair in beyond.addresses() if client.ip in pair}
        gate.touch()
        # found by other means it is taken
        assert 'named r0\nmatched r0' in ran.wait_for_log('matched')
        assert ran.wait() == 0


REPEATED = """
import time
import dispy_nb as dispy

def compute():
    import socket, time
    time.sleep(0.2)
    return socket.gethostname()

with dispy.JobCluster(compute, ping_interval=1) as cluster:
    print(cluster.submit()(), flush=True)
    while len(cluster.snapshot().nodes) < 2:
        time.sleep(0.01)
    jobs = [cluster.submit() for _ in range(4)]
    print(sorted({job() for job in jobs}), flush=True)
"""

# broadcasts after which those of the first seconds, and the announcements of a node, are over
MANY = 8


@pytest.mark.row('J04')
def test_a_node_that_missed_the_first_pings_is_found_by_a_later_one(tmp_path: Path) -> None:
    with Lan(3) as lan, ExitStack() as stack:
        near, far, client = lan
        far.cut()
        for host in (near, far):
            stack.enter_context(node_program('-c', 1, within=host.command([])))
        seen = stack.enter_context(Capture(client))
        script = tmp_path / 'script.py'
        script.write_text(REPEATED)
        ran = stack.enter_context(program(*client.command([sys.executable, script])))
        ran.wait_for_log('h0')
        eventually(lambda: [d.target for d in seen.datagrams()].count(lan.broadcast) >= MANY, 15)
        assert not {pair for pair in seen.addresses() if far.ip in pair}
        far.heal()
        ran.wait_for_log("['h0', 'h1']")
        assert ran.wait() == 0
