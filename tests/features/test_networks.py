"""Nodes are found on IPv6, by multicast, on several networks, and on those that come later."""

import re
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.discovery import measure_start
from nodeserver.io.multicast import IPV4_GROUP, IPV6_GROUP
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT
from tests.support.capture import Capture
from tests.support.netns import Host, Lan, TwoLans
from tests.support.programs import client_program, eventually, node_program, program

pytestmark = [pytest.mark.netns, pytest.mark.slow]

FIRST_GAPS = 2.5  # seconds; a node's announcements are closer to each other at first

FOUND = """
import time
import dispy_nb as dispy

def compute():
    import socket
    return socket.gethostname()

with dispy.JobCluster(compute, {elements!r}, **{options!r}) as cluster:
    print('looking', flush=True)
    while len(cluster.snapshot().nodes) < {count}:
        time.sleep(0.01)
    print(cluster.submit()(), sorted(node.address for node in cluster.snapshot().nodes))
"""


def find(host: Host, count: int, elements: tuple[object, ...] = ('*',), **options: object) -> str:
    """Run a client on a host until it has found so many nodes, and answer what it wrote."""
    source = FOUND.format(elements=list(elements), options=options, count=count)
    done = client_program(source, within=host.command([]))
    return done.stdout.removeprefix('looking\n').strip()


def without_ipv4(*hosts: Host) -> None:
    for host in hosts:
        host.run(['ip', '-4', 'addr', 'flush', 'dev', 'eth0'])


def without_ipv6(*hosts: Host) -> None:
    for host in hosts:
        host.sysctl('net.ipv6.conf.all.disable_ipv6', 1)


def asked(seen: Capture, host: str) -> set[str]:
    return {d.target for d in seen.datagrams(NODE_PORT) if d.source == host}


@pytest.mark.row('J07')
def test_where_there_is_no_ipv4_nodes_are_asked_and_announce_themselves_by_multicast(
    tmp_path: Path,
) -> None:
    script = tmp_path / 'script.py'
    script.write_text(FOUND.format(elements=['*'], options={}, count=2))
    with Lan(3) as lan, ExitStack() as stack:
        early, late, client = lan
        without_ipv4(*lan)
        seen = stack.enter_context(Capture(client))
        stack.enter_context(node_program('-c', 1, within=early.command([])))
        ran = stack.enter_context(program(*client.command([sys.executable, script])))
        ran.wait_for_log('looking')
        stack.enter_context(node_program('-c', 1, within=late.command([])))
        there = sorted(f'{host.ll6}%eth0' for host in (early, late))
        assert str(there) in ran.wait_for_log('fe80')
        assert ran.wait() == 0
        datagrams = seen.datagrams()
        announced = {d.source for d in datagrams if d.target_port == CLIENT_PORT}
        ours = [d for d in datagrams if d.source == client.ll6]
        assert announced == {early.ll6, late.ll6}
        assert IPV6_GROUP in {d.target for d in ours}
        assert {d.target for d in datagrams if d.target_port == CLIENT_PORT} == {IPV6_GROUP}


@pytest.mark.row('J07')
def test_machines_with_both_are_asked_both_ways_and_known_by_their_ipv4_address() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        node, client = lan
        stack.enter_context(node_program('-c', 1, within=node.command([])))
        seen = stack.enter_context(Capture(client))
        assert find(client, 1) == f"h0 ['{node.ip}']"
        targets = {d.target for d in seen.datagrams(NODE_PORT)}
        assert {lan.broadcast, IPV6_GROUP} <= targets


def test_machines_without_ipv6_find_each_other_and_say_nothing_of_it() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        node, client = lan
        without_ipv6(*lan)
        serving = stack.enter_context(node_program('-c', 1, within=node.command([])))
        assert find(client, 1) == f"h0 ['{node.ip}']"
        assert not re.search('WARNING|ERROR', serving.log())


def test_by_multicast_where_asked_and_then_not_by_broadcast() -> None:
    with Lan(3) as lan, ExitStack() as stack:
        plain, announcing, client = lan
        without_ipv6(*lan)
        seen = stack.enter_context(Capture(client))
        stack.enter_context(node_program('-c', 1, within=plain.command([])))
        stack.enter_context(
            node_program('-c', 1, '--ipv4_udp_multicast', within=announcing.command([]))
        )
        found = find(client, 2, ipv4_udp_multicast=True)
        assert found.endswith(f"['{plain.ip}', '{announcing.ip}']")
        everybody = {IPV4_GROUP, lan.broadcast}
        assert asked(seen, client.ip) & everybody == {IPV4_GROUP}
        announced = [d for d in seen.datagrams(CLIENT_PORT) if d.source == announcing.ip]
        assert {d.target for d in announced} == {IPV4_GROUP}


@pytest.mark.row('A19')
def test_link_local_addresses_name_node_and_client() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        node, client = lan
        there, here = f'{node.ll6}%eth0', f'{client.ll6}%eth0'
        stack.enter_context(node_program('-c', 1, '-i', there, within=node.command([])))
        seen = stack.enter_context(Capture(client))
        assert find(client, 1, (there,), ip_addr=here) == f"h0 ['{there}']"
        assert asked(seen, client.ll6) == {node.ll6}
        assert not [pair for pair in seen.addresses() if client.ip in pair]


@pytest.mark.row('A19')
def test_ipv6_addresses_beyond_a_router_name_nodes() -> None:
    with TwoLans(1, 1) as net, ExitStack() as stack:
        client, node = net.left[0], net.right[0]
        stack.enter_context(node_program('-c', 1, within=node.command([])))
        assert find(client, 1, (node.ip6,)) == f"r0 ['{node.ip6}']"


@pytest.mark.netns(nat=True)
@pytest.mark.parametrize('is_client_first', [True, False])
def test_where_a_third_of_the_datagrams_is_lost_all_nodes_are_found(is_client_first: bool) -> None:
    found, _ = measure_start(30, is_client_first, nodes=3)
    assert found < 10


@pytest.mark.row('A18')
@pytest.mark.parametrize(
    ('ip_addr', 'names'), [(None, 'lr'), ('10.77.1.1', 'l'), (['10.77.1.1', '10.77.2.1'], 'lr')]
)
def test_a_client_uses_all_its_networks_or_those_of_the_addresses_it_is_given(
    ip_addr: str | list[str] | None, names: str
) -> None:
    with TwoLans(1, 1) as net, ExitStack() as stack:
        client, nodes = net.router, {'l': net.left[0], 'r': net.right[0]}
        for node in nodes.values():
            stack.enter_context(node_program('-c', 1, within=node.command([])))
        sides = {'l': Capture(client, 'eth0'), 'r': Capture(client, 'eth1')}
        for seen in sides.values():
            stack.enter_context(seen)
        found = find(client, len(names), ip_addr=ip_addr, ping_interval=1)
        assert found.endswith(str([nodes[name].ip for name in names]))
        own = {d.source for d in sides['l'].datagrams(NODE_PORT) if d.source != nodes['l'].ip}
        for name, seen in sides.items():
            said = [pair for pair in seen.addresses() if pair[0] in ('10.77.1.1', '10.77.2.1')]
            assert bool(said) == (name in names), said
        if ip_addr is not None:  # neither IPv6 from there
            assert own == {'10.77.1.1'}


def test_a_network_that_is_joined_later_is_heard(tmp_path: Path) -> None:
    script = tmp_path / 'script.py'
    script.write_text(FOUND.format(elements=['*'], options={}, count=2))
    with Lan(2, 1, 'l') as near, Lan(1, 2, 'r') as far, ExitStack() as stack:
        client = near[0]
        stack.enter_context(node_program('-c', 1, within=near[1].command([])))
        stack.enter_context(node_program('-c', 1, within=far[0].command([])))
        ran = stack.enter_context(program(*client.command([sys.executable, script])))
        ran.wait_for_log('looking')
        far._attach([(client, 'eth1', 99)])
        assert far[0].ip in ran.wait_for_log('10.77.2', 20)
        assert ran.wait() == 0


def test_a_node_that_was_cut_off_is_found_and_one_in_use_is_not_asked_again(
    tmp_path: Path,
) -> None:
    script = tmp_path / 'script.py'
    script.write_text(FOUND.format(elements=['*'], options={}, count=2))
    with Lan(3) as lan, ExitStack() as stack:
        near, far, client = lan
        far.cut()
        stack.enter_context(node_program('-c', 1, within=near.command([])))
        missing = stack.enter_context(node_program('-c', 1, within=far.command([])))
        ran = stack.enter_context(program(*client.command([sys.executable, script])))
        ran.wait_for_log('looking')
        with Capture(near) as seen:
            heard: list[float] = []

            def is_calm() -> bool:
                """Whether its first announcements, close to each other, are over."""
                said = [d for d in seen.datagrams(CLIENT_PORT) if d.source == near.ip]
                heard.extend([time.monotonic()] * (len(said) - len(heard)))
                return any(later - sooner > FIRST_GAPS for sooner, later in pairwise(heard))

            eventually(is_calm, 20)
            assert ran.process.poll() is None
            before = seen.datagrams(NODE_PORT)
            far.heal()
            assert far.ip in ran.wait_for_log(far.ip, 10)
            later = seen.datagrams(NODE_PORT)[len(before) :]
            assert client.ip in {d.source for d in before}
        assert not [d for d in later if d.source == client.ip and d.target == near.ip]
        assert ran.wait() == 0
        assert 'WARNING' not in missing.log()
