"""Nodes and clients that cannot reach each other freely: firewalls, gateways, tunnels, clouds.

The cloud, the gateways and the firewalls are stand-ins: hosts in network namespaces, with packet
filters and address translation of the kernel itself.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from nodeserver.core.errors import UsageError
from tests.support.machines import Machine, machines
from tests.support.netns import Lan, TwoLans
from tests.support.programs import client_program, eventually, free_port, node_program
from tests.support.sshd import forwarding, ssh_server

LIMIT = 20.0

# what a host lets in: answers, and these
FIREWALL = """
table inet t {{ chain i {{
  type filter hook input priority 0; policy drop;
  ct state established,related accept
  iifname "lo" accept
  meta l4proto ipv6-icmp accept
  {}
}}; }}
"""

USE = """
import time
import dispy_nb as dispy

def compute(number):
    import socket, time
    time.sleep(0.2)
    return socket.gethostname(), number

with dispy.JobCluster(compute, {nodes!r}, **{options!r}) as cluster:
    began = time.monotonic()
    while len(cluster.snapshot().nodes) < {count} and time.monotonic() - began < 15:
        time.sleep(0.01)
    jobs = [cluster.submit(n) for n in range(4 * {count})]
    cluster.wait(15) or print(cluster.explain())
    print(sorted({{job.result[0] for job in jobs}}), sum(job.result[1] for job in jobs))
    print(sorted(node.address for node in cluster.snapshot().nodes))
"""


def use(client: Machine, nodes: list[Any], count: int = 1, **options: Any) -> list[str]:
    """Run jobs on so many nodes; the names of their hosts, all results, and their addresses."""
    done = client.client(USE.format(nodes=nodes, options=options, count=count))
    return done.stdout.splitlines()


def used(names: list[str], addresses: list[str]) -> list[str]:
    """What `use` answers if each job ran once, on these hosts together."""
    jobs = 4 * len(addresses)
    return [f'{names} {sum(range(jobs))}', str(sorted(addresses))]


@contextmanager
def two_networks(left: int, right: int, nat: bool = False) -> Iterator[tuple[TwoLans, list[Any]]]:
    """Two networks with a router between them, and the machines of one user on both."""
    with (
        TwoLans(left, right, nat=nat) as net,
        machines(*net.left, *net.right) as made,
    ):
        yield net, made


# ports


PORTS = """
import dispy_nb as dispy

def listening(kind):
    import subprocess
    words = subprocess.run(['ss', '-H', '-n', '-l', kind], capture_output=True, text=True).stdout
    return sorted({{int(line.split()[3].rpartition(':')[2]) for line in words.splitlines()}})

with dispy.JobCluster(listening, {nodes!r}) as cluster:
    there = cluster.submit('-t')(), cluster.submit('-u')()
    print(there, listening('-t'), 51347 in listening('-u'))
"""


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('N01')
def test_no_other_ports_than_the_documented_ones_are_listened_at_or_needed() -> None:
    with Lan(2) as lan, machines(*lan) as (client, node), node.node('-c', 2):
        for machine, port in ((client, 51347), (node, 51348)):
            rules = f'tcp dport {port} accept\nudp dport {port} accept'
            machine.host.filter_rules(FIREWALL.format(rules))
        done = client.client(PORTS.format(nodes=[node.ip]))
    assert done.stdout == '([51348], [51348]) [51347] True\n'


@pytest.mark.row('N10')
def test_a_plain_connection_to_a_node_is_accepted_and_learns_nothing(own_home: Path) -> None:
    port, signature = free_port(), b'\xff\0\0\0\0\0\0\0\1\x7f'
    with node_program('-i', '127.0.0.1', '-p', port, '--name', 'confidential') as node:
        with socket.create_connection(('127.0.0.1', port), LIMIT) as sock:
            answer = sock.recv(1000)
            assert answer == signature
            sock.sendall(signature + b'\3\0CURVE'.ljust(54, b'\0'))
            while len(answer) < 64:
                answer += sock.recv(1000)
        assert answer == signature + b'\3\1CURVE'.ljust(54, b'\0')  # a protocol, and a kind of key
        with dispy.JobCluster(abs, ['127.0.0.1'], ip_addr='127.0.0.1', port=0, node_port=port) as c:
            assert c.submit(-3)() == 3
        assert 'confidential' in node.log()


# nodes that answer no ping


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('N08', 'N09', 'U11')
def test_a_cloud_node_with_three_tcp_ports_open_is_used_by_its_public_name_beside_local_ones() -> (
    None
):
    """The cloud is a host on another network with such a firewall."""
    with two_networks(2, 1) as (_, (client, local, cloud)), ExitStack() as stack:
        cloud.host.filter_rules(FIREWALL.format('tcp dport 51347-51349 accept'))
        name = 'ec2.example.com'
        stack.enter_context(local.node('-c', 1))
        stack.enter_context(cloud.node('-c', 1, '--ext_ip_addr', name))
        client.knows(**{name: cloud.ip})
        told = use(client, [name, '*'], count=2)
    assert told == used(['l1', 'r0'], [local.ip, cloud.ip])


REFUSED = """
import time
import dispy_nb as dispy

with dispy.JobCluster(abs, {nodes!r}, node_port={port}, loglevel=dispy.logger.INFO) as cluster:
    told = ''
    while not all(words in told for words in {words!r}):
        time.sleep(0.05)
        told = cluster.explain()
    print(told)
"""


@pytest.mark.netns(nat=True)
@pytest.mark.slow
def test_it_is_said_what_was_tried_where_nobody_answers_and_both_ways_end_in_one_node() -> None:
    with Lan(3) as lan, machines(*lan) as (client, node, other), node.node('-c', 1):
        other.host.filter_rules(FIREWALL.format(''))
        words = [
            f'{node.ip} port 40000: asked by UDP',
            'without an answer, and connected to by TCP: connection refused',
            f'{other.ip} port 40000: asked by UDP',
            'connected to by TCP: no answer\n',
        ]
        done = client.client(REFUSED.format(nodes=[node.ip, other.ip], words=words, port=40000))
        assert '40000 without' not in done.stderr
        told = use(client, [node.ip, '*'], ip_addr=client.ip)
    assert told == used(['h1'], [node.ip])


@pytest.mark.slow
def test_another_program_at_the_port_of_a_node_is_told_as_what_it_is(own_home: Path) -> None:
    port, other = free_port(), free_port()
    place = {'ip_addr': '127.0.0.1', 'node_port': free_port()}
    words = [
        f'port {port}: asked by UDP',
        'by TCP: somebody accepts connections there, and says nothing',
        f'port {other}: asked by UDP',
        'by TCP: it is a scheduler, and takes connections of a node or relay only',
    ]
    with socket.create_server(('127.0.0.1', port)), dispy.JobCluster(abs, port=other, **place):
        nodes = [('127.0.0.1', port), ('127.0.0.1', other)]
        client_program(REFUSED.format(nodes=nodes, port=port, words=words))


# nodes behind a gateway


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('U08', 'N03')
def test_two_nodes_behind_one_gateway_are_used_each_at_its_forwarded_port() -> None:
    with two_networks(2, 1, nat=True) as (net, (one, other, client)), ExitStack() as stack:
        gateway = net.router_ip['right']
        for node, port in ((one, 51348), (other, 51350)):
            for kind in ('tcp', 'udp'):
                net.forward_port(kind, port, node.host)
            call = ['-c', 1, '-i', node.ip, '--ext_ip_addr', gateway, '-p', port]
            stack.enter_context(node.node(*call))
        told = use(client, [(gateway, 51348), (gateway, 51350)], count=2)
    assert told == used(['l0', 'l1'], [gateway, gateway])


# clients behind a gateway


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('A20', 'N02')
def test_a_client_behind_a_gateway_is_connected_to_at_the_address_that_it_gives() -> None:
    """The node takes no TCP connection at all: it can only connect by itself."""
    with two_networks(1, 1, nat=True) as (net, (client, node)), ExitStack() as stack:
        gateway = net.router_ip['right']
        for kind in ('tcp', 'udp'):
            net.forward_port(kind, 51347, client.host)
        node.host.filter_rules(FIREWALL.format('udp dport 51348 accept'))
        node.knows(**{'gateway.example.com': gateway})
        running = stack.enter_context(node.node('-c', 1))
        by_address = use(client, [node.ip], ext_ip_addr=gateway)
        by_name = use(client, [node.ip], ext_ip_addr=['no.such.host', 'gateway.example.com'])
        assert running.log().count('connected to the program') == 0  # it was asked to
    assert by_address == by_name == used(['r0'], [node.ip])


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('N02', 'L18')
def test_a_client_behind_a_gateway_is_found_by_nodes_that_were_told_its_address() -> None:
    with two_networks(1, 1, nat=True) as (net, (client, node)):
        gateway = net.router_ip['right']
        net.forward_port('tcp', 51600, client.host)
        node.host.filter_rules(FIREWALL.format(''))
        with node.node('-c', 1, '--scheduler_node', gateway, '--scheduler_port', 51600):
            told = use(client, ['*'], port=51600)
            assert told[0] == used(['r0'], [node.ip])[0]


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('N04')
def test_a_tunnel_by_ssh_from_each_node_is_enough() -> None:
    """The client is behind a gateway that forwards nothing; a node lets ssh and pings in."""
    with two_networks(1, 1, nat=True) as (_, (client, node)), ExitStack() as stack:
        node.host.filter_rules(FIREWALL.format('tcp dport 22 accept\nudp dport 51348 accept'))
        stack.enter_context(node.node('-c', 1))
        server = stack.enter_context(ssh_server(node, 22))
        stack.enter_context(forwarding(client, server, 'R', '51347:127.0.0.1:51347'))
        told = use(client, [node.ip], ext_ip_addr='127.0.0.1')
    assert told == used(['r0'], [node.ip])


@pytest.mark.netns
@pytest.mark.slow
def test_a_node_that_is_asked_to_connect_to_nobody_says_so_and_is_used_as_ever() -> None:
    with Lan(2) as lan, machines(*lan) as (client, node), ExitStack() as stack:
        node.knows()
        running = stack.enter_context(node.node('-c', 1))
        told = use(client, [node.ip], ext_ip_addr='10.77.1.99')  # it can be connected to
        assert 'ext_ip_addr' not in running.log()
        node.host.filter_rules(FIREWALL.format('udp dport 51348 accept'))
        script = client.home / 'script.py'
        script.write_text(USE.format(nodes=[node.ip], options={'ext_ip_addr': 'nobody'}, count=1))
        with client.program(sys.executable, script):
            running.wait_for_log(
                'a client asks to be connected to at nobody port 51347, and does not answer', 20
            )
    assert told == used(['h1'], [node.ip])


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        (5, 'must be a string or a list of strings, not 5'),
        ([], 'ext_ip_addr is empty'),
        ('', "must be a host name or an IP address, .*, not ''"),
        ('two words', "not 'two words'"),
        (['10.0.0.1', 'bücher.example'], r"not \['10.0.0.1', 'bücher.example'\]"),
        (['x' * 100, 'y' * 100], 'up to 8 of them with 199 characters together'),
        ([f'gate{n}' for n in range(9)], 'up to 8 of them with 199 characters together'),
    ],
)
def test_wrong_addresses_of_a_client_are_refused(value: Any, words: str, own_home: Path) -> None:
    with pytest.raises(UsageError, match=words):
        dispy.JobCluster(abs, ip_addr='127.0.0.1', ext_ip_addr=value)


def test_clusters_of_one_program_have_one_address_for_nodes(own_home: Path) -> None:
    place = {'ip_addr': '127.0.0.1', 'port': free_port(), 'node_port': free_port()}
    with dispy.JobCluster(abs, ext_ip_addr='10.0.0.1', **place):
        with dispy.JobCluster(abs, **place):
            pass
        with pytest.raises(UsageError, match=r"ext_ip_addr=\('10.0.0.2',\): open clusters"):
            dispy.JobCluster(abs, ext_ip_addr='10.0.0.2', **place)


# names


LASTING = """
import dispy_nb as dispy

def compute(seconds):
    import time
    time.sleep(seconds)
    return 'done'

with dispy.JobCluster(compute, port={port}) as cluster:
    for _ in range({count}):
        print(cluster.submit(1)(), flush=True)
"""


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.row('L17')
def test_the_name_of_a_scheduler_may_be_known_later_and_may_mean_another_address() -> None:
    with two_networks(1, 1) as (_, (client, node)), ExitStack() as stack:
        node.knows()
        call = ['-c', 1, '--scheduler_node', 'head.example', '--scheduler_port', 51700]
        running = stack.enter_context(node.node(*call))
        running.wait_for_log('the address of head.example is not known; it is looked up until it')
        script = client.home / 'script.py'
        script.write_text(LASTING.format(port=51700, count=100))
        program = stack.enter_context(client.program(sys.executable, script))
        node.knows(**{'head.example': client.ip})
        eventually(lambda: program.output().count('done') > 1, LIMIT, running.log)
        client.host.move('10.77.1.44')
        node.knows(**{'head.example': client.ip})
        before = program.output().count('done')
        eventually(lambda: program.output().count('done') > before + 2, LIMIT, running.log)
        assert program.process.poll() is None
        assert 'lost' not in program.log()
