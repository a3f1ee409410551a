"""Parts of the network together: SSL, IPv6, firewalls, gateways, relays and no key at all.

Gateways and firewalls are stand-ins: network namespaces with the kernel's own packet filters and
address translation.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.features.test_reach import FIREWALL, use, used
from tests.features.test_relay import relay_on
from tests.support.certificates import needs_openssl, self_signed
from tests.support.machines import machines
from tests.support.netns import Lan, TwoLans

pytestmark = [pytest.mark.netns(nat=True), pytest.mark.slow]

NO_UDP = FIREWALL.format('tcp dport 51348 accept')
NO_TCP = FIREWALL.format('udp dport 51348 accept')


@needs_openssl
@pytest.mark.row('N09', 'L19', 'A19')
def test_a_node_with_a_certificate_is_reached_over_ipv6_by_tcp_alone(tmp_path: Path) -> None:
    pair = str(self_signed(tmp_path / 'pair.pem'))
    with Lan(2) as lan, machines(*lan) as (client, node), ExitStack() as stack:
        node.host.filter_rules(NO_UDP)
        stack.enter_context(node.node('-c', 1, '--certfile', pair))
        six = node.host.ip6
        assert use(client, [six], certfile=pair) == used(['h1'], [six])


@needs_openssl
@pytest.mark.row('A20', 'L19')
@pytest.mark.parametrize('over_ipv6', [False, True])
def test_a_node_with_a_certificate_calls_a_client_back(tmp_path: Path, over_ipv6: bool) -> None:
    """The node takes no TCP connection at all: it can only connect by itself."""
    pair = str(self_signed(tmp_path / 'pair.pem'))
    with Lan(2) as lan, machines(*lan) as (client, node), ExitStack() as stack:
        node.host.filter_rules(NO_TCP)
        stack.enter_context(node.node('-c', 1, '--certfile', pair))
        there, back = (node.host.ip6, client.host.ip6) if over_ipv6 else (node.ip, client.ip)
        told = use(client, [there], ext_ip_addr=back, certfile=pair)
        assert told[0] == used(['h1'], [there])[0]


@pytest.mark.row('N09', 'A20')
def test_without_a_key_nodes_are_knocked_at_and_call_back_as_well() -> None:
    with Lan(3) as lan, machines(*lan) as (client, one, other), ExitStack() as stack:
        one.host.filter_rules(NO_UDP)
        other.host.filter_rules(NO_TCP)
        for node in (one, other):
            stack.enter_context(node.node('-c', 1, '--insecure'))
        nodes = [one.ip, other.ip]
        told = use(client, nodes, 2, ext_ip_addr=client.ip, insecure=True)
        assert told == used(['h1', 'h2'], nodes)


@pytest.mark.row('M10')
@pytest.mark.parametrize('options', [(), ('--insecure',)])
def test_a_relay_carries_for_programs_that_name_it_by_ipv6_and_without_a_key(
    options: tuple[str, ...],
) -> None:
    with TwoLans(2, 1) as net, machines(*net.left, *net.right) as (a, b, c), ExitStack() as stack:
        stack.enter_context(relay_on(a, '--forward', *options))
        stack.enter_context(b.node('-c', 1, *options))
        given = {'insecure': True} if options else {}
        assert use(c, [a.host.ip6, '10.77.1.*'], **given) == used(['l1'], [b.ip])


@needs_openssl
@pytest.mark.row('L19')
def test_a_node_with_a_certificate_that_hangs_goes_on_where_it_was(tmp_path: Path) -> None:
    pair = str(self_signed(tmp_path / 'pair.pem'))
    source = """
import os, signal, sys, threading, time
import dispy_nb as dispy

def compute(number):
    import time
    time.sleep(0.3)
    return number, bytes(3_000_000)

with dispy.JobCluster(compute, [{node!r}], certfile={pair!r}) as cluster:
    cluster.submit(0)()
    jobs = [cluster.submit(n) for n in range(20)]
    os.kill({pid}, signal.SIGSTOP)
    time.sleep(6)
    os.kill({pid}, signal.SIGCONT)
    print(cluster.wait(30), sorted(job.result[0] for job in jobs) == list(range(20)))
"""
    with Lan(2) as lan, machines(*lan) as (client, node), ExitStack() as stack:
        running = stack.enter_context(node.node('-c', 2, '--certfile', pair))
        pid = running.process.pid
        told = client.client(source.format(node=node.ip, pair=pair, pid=pid), 60)
        assert told.stdout == 'True True\n', told.stderr + running.log()
        assert 'Traceback' not in running.log() + told.stderr


@needs_openssl
@pytest.mark.row('L19')
def test_a_node_with_a_certificate_goes_on_at_another_address(tmp_path: Path) -> None:
    pair = str(self_signed(tmp_path / 'pair.pem'))
    script = tmp_path / 'work.py'
    script.write_text(f"""
import time
import dispy_nb as dispy

def compute(number):
    import time
    time.sleep(0.2)
    return number

with dispy.JobCluster(compute, ['*'], certfile={pair!r}) as cluster:
    cluster.submit(0)()
    jobs = [cluster.submit(n) for n in range(40)]
    print('begun', flush=True)
    print(cluster.wait(40), [job.result for job in jobs] == list(range(40)), flush=True)
""")
    with Lan(2) as lan, machines(*lan) as (client, node), ExitStack() as stack:
        stack.enter_context(node.node('-c', 1, '--certfile', pair))
        working = stack.enter_context(client.program(sys.executable, script, ready='begun'))
        new = '.'.join([*node.ip.split('.')[:3], '77'])
        node.host.run(['ip', 'addr', 'add', f'{new}/24', 'brd', '+', 'dev', 'eth0'])
        node.host.run(['ip', 'addr', 'del', f'{node.ip}/24', 'dev', 'eth0'])
        assert working.wait(45) == 0
        assert 'True True' in working.output(), working.log()


SHARED = """
import dispy_nb as dispy

def late(number):
    import time
    time.sleep(0.3)
    return dispy_node_ip_addr

with dispy.SharedJobCluster(late, {nodes!r}) as cluster:
    jobs = [cluster.submit(number) for number in range(6)]
    print({{(job(), job.ip_addr) for job in jobs}})
"""


@pytest.mark.row('M10')
@pytest.mark.parametrize('calls', [False, True])
def test_a_relay_tells_a_shared_scheduler_of_the_nodes_of_its_network(calls: bool) -> None:
    """Programs name the relay's machine, or the relay connects to the scheduler by itself."""
    with TwoLans(1, 2) as net, machines(net.left[0], *net.right) as (c, a, b), ExitStack() as stack:
        command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler')
        stack.enter_context(c.program(*command, ready='serving'))
        options = ('--forward', '--scheduler_node', c.ip) if calls else ()
        stack.enter_context(relay_on(a, *options))
        stack.enter_context(b.node('-c', 1))
        source = SHARED.format(nodes=['*'] if calls else [a.ip, '10.77.2.*'])
        assert c.client(source).stdout == f'{{({b.ip!r}, {b.ip!r})}}\n'
