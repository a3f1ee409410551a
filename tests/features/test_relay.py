"""dispynetrelay: nodes of other networks, told of and reached through one machine (J05, M10)."""

import contextlib
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeserver.core.knocking import RELAY_PORT
from nodeserver.wire import beacon, carriage
from tests.support.capture import Capture
from tests.support.certificates import self_signed
from tests.support.machines import Machine, machines, subprocess_environment
from tests.support.netns import TwoLans
from tests.support.programs import Program, eventually, free_port, program

pytestmark = [pytest.mark.netns(nat=True), pytest.mark.slow]

RELAY = [sys.executable, '-m', 'nodeserver.cli.dispynetrelay']

CLIENT = """
import sys, time
import dispy_nb as dispy

def compute(seconds=0.0):
    import socket, time
    time.sleep(seconds)
    return socket.gethostname()

def wait_for(condition):
    while not condition():
        time.sleep(0.01)

def addresses():
    return sorted(node.address for node in cluster.snapshot().nodes)

cluster = dispy.JobCluster(compute, {nodes!r}, reentrant={reentrant!r})
with cluster:
    wait_for(lambda: len(cluster.snapshot().nodes) == {count})
    print(addresses(), cluster.submit()() in {{'l0', 'l1', 'l2', 'r0', 'r1', 'r2'}}, flush=True)
    {more}
"""


def client(nodes: list[Any], count: int, more: str = '', reentrant: bool = False) -> str:
    return CLIENT.format(nodes=nodes, count=count, more=more, reentrant=reentrant)


def relay_on(machine: Machine, *options: object) -> AbstractContextManager[Program]:
    return machine.program(*RELAY, *options, ready='serving')


@contextmanager
def running(machine: Machine, source: str, tmp_path: Path) -> Iterator[Program]:
    """Run a script on a machine while the block runs."""
    script = tmp_path / f'{machine.host.label}.py'
    script.write_text(source)
    with machine.program(sys.executable, script) as ran:
        yield ran


@pytest.mark.row('J05', 'M10')
def test_all_nodes_of_a_network_are_used_by_naming_the_machine_of_its_relay(
    tmp_path: Path,
) -> None:
    """A node on the same machine keeps its port; a late node is told of at once."""
    more = "wait_for(lambda: len(addresses()) == 3); print('late', addresses())"
    with TwoLans(1, 3) as net, machines(net.left[0], *net.right) as (c, *far), ExitStack() as stack:
        relay = stack.enter_context(relay_on(far[0]))
        for machine in far[:2]:
            stack.enter_context(machine.node('-c', 1))
        beyond = stack.enter_context(Capture(net.router, 'eth1'))
        source = client([far[0].ip, '10.77.2.*'], 2, more)
        ran = stack.enter_context(running(c, source, tmp_path))
        ran.wait_for_log(str([far[0].ip, far[1].ip]))
        stack.enter_context(far[2].node('-c', 1))
        ran.wait_for_log(f'late {[machine.ip for machine in far]}')
        assert ran.wait() == 0
        # only the machine that was named was asked from elsewhere
        asked = {(d.source, d.target) for d in beyond.datagrams() if d.source == c.ip}
        assert asked == {(c.ip, far[0].ip)}
        relay.wait_for_log(f'the program at {c.ip} is gone: it ended')
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 128 + signal.SIGTERM


@pytest.mark.row('J05')
def test_a_relay_alone_adds_nothing_that_does_not_match_and_that_is_explained() -> None:
    more = "wait_for(lambda: 'told of 2 nodes' in cluster.explain()); print(cluster.explain())"
    with TwoLans(1, 2) as net, machines(net.left[0], *net.right) as (c, a, b), ExitStack() as stack:
        stack.enter_context(relay_on(a, '--name', 'gate', '--relay_port', 7000))
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 1))
        said = c.client(client([a.ip, (a.ip, 7000)], 1, more)).stdout
    assert said.startswith(str([a.ip]))
    assert f'relay gate ({a.ip}): told of 2 nodes' in said
    assert f'({b.ip}) port 51348: found, but it matches no element of `nodes`' in said or (
        f'node {b.ip} port 51348: found, but it matches no element of `nodes`' in said
    )


@pytest.mark.row('M10')
@pytest.mark.parametrize('forwards', [False, True])
def test_a_relay_connects_to_a_program_that_nobody_told_of_that_network(forwards: bool) -> None:
    with TwoLans(1, 2) as net, machines(net.left[0], *net.right) as (c, a, b), ExitStack() as stack:
        options = ['--forward'] if forwards else []
        relay = stack.enter_context(relay_on(a, '--scheduler_node', c.ip, *options))
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 1))
        seen = stack.enter_context(Capture(net.router, 'eth1'))
        more = 'print(cluster.explain())'
        said = c.client(client(['*'], 2, more)).stdout
        talked = {pair for pair in seen.addresses() if c.ip in pair}
        relay.wait_for_log(f'connected to the program at {c.ip}:51347')
    assert said.startswith(str([a.ip, b.ip]))
    assert ('carries the connections to them' in said) is forwards
    through = {(a.ip, c.ip), (c.ip, a.ip)}
    assert talked >= through
    assert (talked == through) is forwards


@pytest.mark.row('M10')
def test_nodes_behind_a_gateway_are_used_through_one_forwarded_port() -> None:
    """A stand-in for a cluster behind a gateway: a NAT that forwards TCP 51346 to the relay."""
    with (
        TwoLans(2, 1, nat=True) as net,
        machines(net.right[0], *net.left) as (c, a, b),
        ExitStack() as stack,
    ):
        net.forward_port('tcp', RELAY_PORT, a.host)
        stack.enter_context(relay_on(a, '--forward', '--scheduler_node', c.ip))
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 1))
        seen = stack.enter_context(Capture(net.right[0]))
        said = c.client(client(['10.77.1.*'], 2)).stdout
        assert said.startswith(str([a.ip, b.ip]))
        gate = net.router_ip['right']
        assert {pair for pair in seen.addresses() if c.ip in pair} <= {
            (c.ip, gate),
            (gate, c.ip),
            (c.ip, net.right.broadcast),
            (c.ip, '255.255.255.255'),
        }


@pytest.mark.row('M10')
def test_a_gateway_that_lets_one_tcp_port_through_and_no_udp_is_enough(tmp_path: Path) -> None:
    """A stand-in for a cluster behind a gateway, which is named; its relay is started anew."""
    more = "print('waits', flush=True); wait_for(lambda: 'lost' in cluster.explain())\n"
    more += "    wait_for(lambda: 'carries the connections' in cluster.explain())\n"
    more += "    print('again', [cluster.submit()() for _ in range(4)][0][0], flush=True)"
    with (
        TwoLans(2, 1, nat=True) as net,
        machines(net.right[0], *net.left) as (c, a, b),
        ExitStack() as stack,
    ):
        net.forward_port('tcp', RELAY_PORT, a.host)
        relay = stack.enter_context(relay_on(a, '--forward'))
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 1))
        nodes = [net.router_ip['right'], '10.77.1.*']
        ran = stack.enter_context(running(c, client(nodes, 2, more), tmp_path))
        ran.wait_for_log('waits')
        relay.kill()
        ran.wait_for_log('was lost')
        stack.enter_context(relay_on(a, '--forward'))
        ran.wait_for_log('again l', 20)
        assert ran.wait() == 0


@pytest.mark.row('M10')
def test_a_relay_that_is_killed_and_started_anew_costs_no_job(tmp_path: Path) -> None:
    """Jobs are not reentrant: none starts twice, and each one's outcome arrives."""
    more = "jobs = [cluster.submit(2) for _ in range(6)]; print('submitted', flush=True)\n"
    more += "    print('done', len([job() for job in jobs]), {job.status.name for job in jobs})\n"
    more += "    print(*(f'{job.exception}' for job in jobs))"
    with TwoLans(1, 2) as net, machines(net.left[0], *net.right) as (c, a, b), ExitStack() as stack:
        relay = stack.enter_context(relay_on(a, '--forward'))
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 2))
        ran = stack.enter_context(running(c, client([a.ip, '10.77.2.*'], 2, more), tmp_path))
        ran.wait_for_log('submitted')
        relay.kill()
        ran.wait_for_log('was lost')
        again = stack.enter_context(relay_on(a, '--forward'))
        again.wait_for_log(f'the program at {c.ip} is told of nodes')
        assert "done 6 {'FINISHED'}" in ran.wait_for_log('done', 30)
        assert ran.wait() == 0


@pytest.mark.row('M10')
def test_of_two_relays_one_carries_what_the_other_carried_and_ends_after_that(
    tmp_path: Path,
) -> None:
    more = "jobs = [cluster.submit(1.5) for _ in range(4)]; print('submitted', flush=True)\n"
    more += "    print('done', len([job() for job in jobs]), {job.status.name for job in jobs})"
    with (
        TwoLans(1, 3) as net,
        machines(net.left[0], *net.right) as (c, a, b, n),
        ExitStack() as stack,
    ):
        relays = {m.ip: stack.enter_context(relay_on(m, '--forward')) for m in (a, b)}
        stack.enter_context(n.node('-c', 2))
        ran = stack.enter_context(running(c, client([a.ip, b.ip, '10.77.2.*'], 1, more), tmp_path))
        ran.wait_for_log('submitted')
        for relay in relays.values():
            relay.wait_for_log(f'the program at {c.ip} is told of nodes')
        used, other = (a, b) if _is_connected(a, n) else (b, a)
        relays[used.ip].kill()
        eventually(lambda: _is_connected(other, n), 10)
        second = relays[other.ip]
        second.signal(signal.SIGTERM)
        second.wait_for_log('1 connection carried: it ends after these')
        assert "done 4 {'FINISHED'}" in ran.wait_for_log('done', 30)
        assert ran.wait() == 0
        assert second.wait() == 128 + signal.SIGTERM


def _is_connected(relay: Machine, node: Machine) -> bool:
    """Whether a relay holds a connection to a node."""
    lines = relay.host.run(['cat', '/proc/net/tcp']).stdout.splitlines()[1:]
    where = bytes(map(int, reversed(node.ip.split('.')))).hex().upper()
    return any(line.split()[2].startswith(where) and line.split()[3] == '01' for line in lines)


def test_a_relay_of_another_key_is_told_apart_from_silence() -> None:
    more_key = {'DISPY_SECRET': 'another secret'}
    source = """
import time
import dispy_nb as dispy

with dispy.JobCluster(abs, {nodes!r}) as cluster:
    while 'uses another key' not in cluster.explain():
        time.sleep(0.01)
    print(cluster.explain())
"""
    with TwoLans(1, 1) as net, machines(net.left[0], net.right[0]) as (c, a), ExitStack() as stack:
        relay = stack.enter_context(relay_on(a, '--forward'))
        said = c.client(source.format(nodes=[a.ip]), env=more_key).stdout
        assert f'{a.ip}: uses another key' in said
        relay.wait_for_log(f'somebody at {c.ip} uses another key and is not served')


def test_a_relay_needs_its_port_and_says_what_is_wrong_with_its_options(own_home: Path) -> None:
    port = free_port()
    with program(*RELAY, '--relay_port', port, ready='serving') as relay:
        with program(*RELAY, '--relay_port', port) as second:
            assert second.wait() == 78
            assert f'port {port} at every address is in use' in second.errors()
            assert '--relay_port' in second.errors()
        relay.signal(signal.SIGINT)
        assert relay.wait() == 128 + signal.SIGINT
    for options, words in (
        (['--scheduler_port', 5], '--scheduler_port is that of --scheduler_node, which is missing'),
        (['--ext_ip_addr', 'a.b'], '--ext_ip_addr is where connections are forwarded'),
        (['-i', '203.0.113.7'], 'not an address of this machine'),
        (['--relay_port', 70000], "'70000' is not a whole number from 0 to 65535"),
    ):
        with program(*RELAY, *options) as wrong:
            assert wrong.wait() == 2
            assert words in wrong.errors()


def test_a_relay_reads_its_options_from_a_file_and_commands_from_its_input(tmp_path: Path) -> None:
    with TwoLans(1, 1) as net, machines(net.right[0]) as (a,), ExitStack() as stack:
        file = tmp_path / 'relay.cfg'
        nodes = ['--scheduler_node', '10.77.1.10', '--scheduler_node', '10.77.1.11']
        save = stack.enter_context(a.program(*RELAY, '--forward', *nodes, '--save_config', file))
        assert save.wait() == 0
        assert 'scheduler_node = 10.77.1.10, 10.77.1.11' in file.read_text()
        command = [*RELAY, '--config', str(file), '--log_format', 'json']
        with a.host.popen(
            command,
            env={**subprocess_environment(), **a.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as ran:
            said = ran.stdout.readline()
            assert '"message": "dispynetrelay r0 serving at *:51346, carrying' in said
            ran.stdin.write('status\nwhat\n\nquit\n')
            ran.stdin.flush()
            said = ran.communicate(timeout=20)[0]
        assert '\n0 connections carried\n' in said
        assert "\n'what' is not understood\n" in said
        assert 'dispynetrelay r0 ended: quit was entered' in said
        assert ran.returncode == 0


@pytest.mark.parametrize('is_tls', [False, True], ids=['CURVE', 'TLS'])
def test_a_relay_bears_what_strangers_send_to_its_ports(
    is_tls: bool, own_home: Path, tmp_path: Path
) -> None:
    """20,000 datagrams and 2,000 connections of random and damaged bytes, then it still works."""
    port, chance = free_port(), random.Random(7)
    options = ['--certfile', self_signed(tmp_path / 'pair.pem')] if is_tls else []
    with program(*RELAY, '--forward', '--relay_port', port, *options, ready='serving') as relay:
        process = psutil.Process(relay.pid)
        _annoy(port, chance, 200)
        descriptors, memory = process.num_fds(), process.memory_info().rss
        before = relay.log_from_now()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(20_000):
                sock.sendto(_damaged(chance), ('127.0.0.1', port))
        _annoy(port, chance, 1800)
        eventually(lambda: process.num_fds() <= descriptors, 20)
        assert process.memory_info().rss - memory < 20 << 20
        assert len(before().splitlines()) <= 5, before()
        hello = carriage.write_hello('a' * 32, bytes(16))
        with socket.create_connection(('127.0.0.1', port), 10) as sock:
            sock.sendall(hello + bytes(carriage.REQUEST_SIZE))
            assert len(_all_of(sock)) == carriage.NONCE_SIZE + 1
        relay.terminate()
        assert relay.wait() == 128 + signal.SIGTERM


def _damaged(chance: random.Random) -> bytes:
    """Random bytes, or something of ours that is not whole."""
    ours = beacon.encode_ping(
        chance.randbytes(16), beacon.Asker('a' * 32, beacon.Role.CLIENT), chance.randbytes(32)
    )
    data = bytearray(ours if chance.random() < 0.5 else chance.randbytes(chance.randrange(300)))
    for _ in range(chance.randrange(4)):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data)


def _annoy(port: int, chance: random.Random, count: int) -> None:
    """Connect so often, say something wrong, and leave."""
    for _ in range(count):
        starts = b'', carriage.MAGIC, carriage.MAGIC + bytes(32), b'\xff', b'\x16', b'\x16\x03\x01'
        with socket.create_connection(('127.0.0.1', port), 10) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(chance.choice(starts) + chance.randbytes(chance.randrange(100)))
            if chance.random() < 0.5:  # at once, with what is on its way
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


def _all_of(sock: socket.socket) -> bytes:
    data = b''
    while more := sock.recv(100):
        data += more
    return data
