"""Nodes and clients at the addresses they were given, on one machine and beside others."""

import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import dispy_nb as dispy
from nodeserver.core.errors import UsageError
from nodeserver.io import netif
from nodeserver.io.udp import NODE_PORT
from tests.features.test_networks import find
from tests.support.capture import Capture
from tests.support.netns import Host, Lan
from tests.support.programs import client_program, free_port, node_program, program

LIMIT = 30.0
FOREIGN = '203.0.113.9'


def host_name() -> str:
    import socket

    return socket.gethostname()


@pytest.mark.slow
@pytest.mark.row('A19')
def test_a_cluster_over_the_ipv6_loopback_address_completes_jobs(own_home: Path) -> None:
    if not netif.is_local_address('::1'):
        pytest.skip('no IPv6 on this machine')
    port = free_port()
    with (
        node_program('-i', '::1', '-p', port, '-c', 1) as node,
        dispy.JobCluster(host_name, ['::1'], ip_addr='::1', port=0, node_port=port) as cluster,
    ):
        job = cluster.submit()
        assert job.wait(LIMIT), cluster.explain()
        assert job.ip_addr == '::1'
        assert f'serving at ::1:{port} ' in node.log()


@pytest.mark.slow
@pytest.mark.row('A18')
@pytest.mark.parametrize('given', ['localhost', ['localhost', '127.0.0.9']])
def test_a_host_name_stands_for_all_its_addresses(given: str | list[str], own_home: Path) -> None:
    port = free_port()
    with (
        node_program('-i', '127.0.0.7', '-p', port, '-c', 1),
        dispy.JobCluster(host_name, ['127.0.0.7'], ip_addr=given, port=0, node_port=port) as it,
    ):
        job = it.submit()
        assert job.wait(LIMIT), it.explain()
        assert job.ip_addr == '127.0.0.7'


@pytest.mark.row('N07')
def test_an_address_of_another_machine_is_refused_in_words(own_home: Path) -> None:
    words = rf"ip_addr='{re.escape(FOREIGN)}' is not an address of this machine.*--ext_ip_addr"
    with program(sys.executable, '-m', 'nodeserver.cli.dispynode', '-i', FOREIGN) as node:
        assert node.wait() == 2
        assert re.search(words, node.errors())
        assert 'Traceback' not in node.errors()
    for given in (FOREIGN, ['127.0.0.1', FOREIGN]):
        with pytest.raises(UsageError, match=words):
            dispy.JobCluster(host_name, ip_addr=given, port=0)


def with_alias(host: Host, address: str) -> None:
    host.run(['ip', 'addr', 'add', f'{address}/24', 'dev', 'eth0'])


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.row('L10')
@pytest.mark.parametrize('element', ['*', '10.77.1.99', '10.77.1.10'])
def test_a_node_is_used_at_the_address_that_it_announces(element: str) -> None:
    with Lan(2) as lan, ExitStack() as stack:
        node, client = lan
        with_alias(node, '10.77.1.99')
        options = ('-c', 1, '-i', node.ip, '--ext_ip_addr', '10.77.1.99')
        # stands in for a gateway that forwards the node's port
        node.filter_rules(
            f'table ip n {{ chain i {{ type nat hook prerouting priority -100; '
            f'ip daddr 10.77.1.99 dnat to {node.ip}; }}; }}'
        )
        stack.enter_context(node_program(*options, within=node.command([])))
        assert find(client, 1, (element,)) == "h0 ['10.77.1.99']"


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.row('L10')
@pytest.mark.parametrize('outside', ['10.77.1.99', 'no-such-name.invalid'])
def test_where_the_announced_address_leads_nowhere_the_one_that_answers_is_used(
    outside: str,
) -> None:
    with Lan(2) as lan, ExitStack() as stack:
        node, client = lan
        options = ('-c', 1, '--ext_ip_addr', outside)
        stack.enter_context(node_program(*options, within=node.command([])))
        elements = ('*',) if 'name' in outside else (outside,)
        assert find(client, 1, elements) == f"h0 ['{node.ip}']"


@pytest.mark.netns
@pytest.mark.slow
def test_nodes_of_one_machine_are_all_found_and_each_at_its_own_port() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        host, client = lan
        within = host.command([])
        first = stack.enter_context(node_program('-c', 1, '--name', 'first', within=within))
        second = stack.enter_context(node_program('-c', 1, '--name', 'second', within=within))
        stack.enter_context(node_program('-c', 1, '--name', 'third', '-p', 51350, within=within))
        assert f':{NODE_PORT} ' in first.log()
        (port,) = re.findall(r'serving at \*:(\d+) ', second.log())
        find(client, 3)
        for name, element in (('second', (host.ip, int(port))), ('third', (host.ip, 51350))):
            with Capture(client) as seen:
                source = ONE.format(element=element)
                assert client_program(source, within=client.command([])).stdout == f'{name}\n'
                ports = {d.target_port for d in seen.datagrams() if d.target == host.ip}
            assert element[1] in ports


ONE = """
import dispy_nb as dispy

def compute():
    return dispy_node_name

with dispy.JobCluster(compute, [{element!r}]) as cluster:
    print(cluster.submit()())
"""

RESTARTED = """
import time
import dispy_nb as dispy

def compute():
    return dispy_node_name

with dispy.JobCluster(compute) as cluster:
    print(cluster.submit()(), flush=True)
    while 'second' not in [node.name for node in cluster.snapshot().nodes]:
        time.sleep(0.01)
    print(cluster.submit()(), flush=True)
"""


@pytest.mark.netns
@pytest.mark.slow
def test_a_restarted_node_replaces_the_one_before_at_once(tmp_path: Path) -> None:
    script = tmp_path / 'script.py'
    script.write_text(RESTARTED)
    with Lan(2) as lan, ExitStack() as stack:
        host, client = lan
        before = stack.enter_context(
            node_program('-c', 1, '--name', 'first', within=host.command([]))
        )
        ran = stack.enter_context(program(*client.command([sys.executable, script])))
        ran.wait_for_log('first')
        before.signal(signal.SIGKILL)
        before.wait()
        stack.enter_context(node_program('-c', 1, '--name', 'second', within=host.command([])))
        ran.wait_for_log('second', 3)
        assert ran.wait() == 0


@pytest.mark.netns
@pytest.mark.slow
def test_two_clusters_with_different_secrets_do_not_disturb_each_other() -> None:
    with Lan(3) as lan, ExitStack() as stack:
        left, right, client = lan
        nodes = []
        for secret in ('secret of one', 'secret of two'):
            for host in (left, right):
                options = ('-c', 1, '--secret', secret, '--name', f'{secret}:{host.label}')
                nodes.append(stack.enter_context(node_program(*options, within=host.command([]))))
        for secret in ('secret of one', 'secret of two'):
            source = NAMES.format(secret=secret)
            done = client_program(source, within=client.command([]))
            assert done.stdout == f"['{secret}:h0', '{secret}:h1']\n"
        for node in nodes:
            assert node.log().count('WARNING') <= 4, node.log()


NAMES = """
import time
import dispy_nb as dispy

def compute():
    return dispy_node_name

with dispy.JobCluster(compute, secret={secret!r}) as cluster:
    while len(cluster.snapshot().nodes) < 2:
        time.sleep(0.01)
    jobs = [cluster.submit() for _ in range(2)]
    print(sorted(node.name for node in cluster.snapshot().nodes))
"""
