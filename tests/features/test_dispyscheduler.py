"""dispyscheduler as a program: whom it serves, what it says, and how it ends (section M)."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from nodeserver.core.errors import SchedulerRefused
from tests.features.test_reach import FIREWALL
from tests.support.certificates import in_two_files, needs_openssl, self_signed
from tests.support.machines import machines
from tests.support.netns import Lan
from tests.support.programs import Program, eventually, free_port, node_program, program
from tests.support.sharedclients import client
from tests.support.sshd import forwarding, ssh_server

SCRIPT = Path(sys.executable).with_name('dispyscheduler.py')
RUN = """
import dispy_nb as dispy

def where(x):
    import socket
    return x, socket.gethostname()

with dispy.SharedJobCluster(where, {options}) as cluster:
    jobs = [cluster.submit(x) for x in range(4)]
    for job in jobs:
        assert job.wait(20), job.explain()
    print(sorted(job.result[0] for job in jobs), sorted({{job.ip_addr for job in jobs}}))
"""


@contextmanager
def scheduler(*options: object, **more: Any) -> Iterator[tuple[Program, int]]:
    """Run dispyscheduler on ports of its own; answers with it and the port for programs."""
    port = free_port()
    command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1')
    ports = ('--scheduler_port', port, '--port', free_port())
    with program(*command, *ports, *options, ready='serving', **more) as running:
        yield running, port


@contextmanager
def shared(port: int, function: Callable[..., Any], /, **options: Any) -> Iterator[Any]:
    """Open a cluster there."""
    place = {'scheduler_node': '127.0.0.1', 'scheduler_port': port, 'port': 0}
    place |= {'ip_addr': '127.0.0.1', 'nodes': ['127.0.0.1']}
    cluster = dispy.SharedJobCluster(function, **{**place, **options})
    try:
        yield cluster
    finally:
        cluster.close(timeout=0, terminate=True)


def double(x: int) -> int:
    return 2 * x


def outcomes(cluster: Any, *args: Any) -> list[Any]:
    jobs = [cluster.submit(arg) for arg in args]
    for job in jobs:
        assert job.wait(20), job.explain()
    assert [job.exception for job in jobs] == [None] * len(jobs)
    return [job.result for job in jobs]


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.row('M01', 'M02')
def test_without_options_it_serves_programs_and_uses_the_nodes_of_its_network() -> None:
    """It is started by the documented name, `dispyscheduler.py`."""
    with Lan(3) as lan, machines(*lan) as (node, middle, user), ExitStack() as stack:
        stack.enter_context(node.node('-c', 2))
        running = stack.enter_context(middle.program(SCRIPT, ready='serving'))
        done = user.client(RUN.format(options=f'scheduler_node={middle.ip!r}'))
        assert done.stdout == f"[0, 1, 2, 3] ['{node.ip}']\n", done.stderr
        ports = middle.host.run(['ss', '-Hlntu']).stdout
        mine = {
            (line.split()[0], line.split()[4].rpartition(':')[2]) for line in ports.splitlines()
        }
        ours = {each for each in mine if each[1].startswith('5134')}
        assert ours == {('udp', '51347'), ('tcp', '51347'), ('tcp', '51349')}
        assert 'port 51349 for programs, 51347 for nodes' in running.log()


@pytest.mark.row('M03', 'B17')
def test_its_pulse_interval_rules_dead_node_detection_for_all_programs(own_home: Path) -> None:
    """A node that is stopped would be missed by programs themselves after 25 seconds."""
    node_port = free_port()
    hosts = ['127.0.0.2', '127.0.0.3']
    with ExitStack() as stack:
        nodes = {}
        for host in hosts:  # one is lost, and keeps for a while what nobody wants of it
            call = ('-i', host, '-p', node_port, '-c', 1, '--dest_path_prefix', own_home / host)
            nodes[host] = stack.enter_context(node_program(*call))
        # as the one that is lost is still to be told of the close, that is kept, too
        kept = ('--dest_path_prefix', own_home / 'state')
        _, port = stack.enter_context(scheduler('--pulse_interval', 0.2, *kept))
        options = {'node_port': node_port, 'nodes': hosts, 'reentrant': True}
        cluster = stack.enter_context(shared(port, sleep_and_say, **options))
        began = time.monotonic()
        job = cluster.submit(str(own_home / 'gate'))
        eventually(lambda: job.ip_addr)
        frozen = nodes[job.ip_addr]
        frozen.signal(signal.SIGSTOP)
        try:
            (own_home / 'gate').touch()
            assert job.wait(10), job.explain()
            assert job.ip_addr != hosts[list(nodes.values()).index(frozen)]
            assert time.monotonic() - began < 10
        finally:
            frozen.signal(signal.SIGCONT)


def sleep_and_say(gate: str) -> str:
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    return gate


@pytest.mark.row('M04', 'M05', 'B11')
def test_programs_and_nodes_have_secrets_of_their_own(own_home: Path) -> None:
    node_port = free_port()
    inside, outside = 'that of the nodes', 'that of programs'
    secret_file = own_home / 'secret'
    secret_file.write_text(inside)
    secret_file.chmod(0o600)
    sides = ('--clustersecret', outside, '--node_secret_file', secret_file)
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 1, '-s', inside),
        scheduler(*sides) as (server, port),
    ):
        with shared(port, double, node_port=node_port, secret=outside) as cluster:
            assert outcomes(cluster, 1, 2) == [2, 4]
        for wrong in (inside, '', 'some other one'):
            with pytest.raises(SchedulerRefused), shared(port, double, secret=wrong):
                pass
        assert 'can read the secret given by --cluster_secret' in server.log()
        for secret in (inside, outside):
            assert secret not in server.log()


@needs_openssl
@pytest.mark.row('M06', 'M07', 'B12')
def test_programs_and_nodes_have_certificates_of_their_own(own_home: Path) -> None:
    node_port = free_port()
    (inside, inside_key), (outside, outside_key) = (
        in_two_files(self_signed(own_home / f'{n}.pem', n)) for n in ('nodes', 'programs')
    )
    sides = ('--cluster_certfile', outside, '--cluster_keyfile', outside_key)
    sides += ('--node_certfile', inside, '--node_keyfile', inside_key)
    own = ('--certfile', inside, '--keyfile', inside_key)
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 1, *own),
        scheduler(*sides) as (server, port),
    ):
        server.wait_for_log('connections to programs use SSL; the certificate is of CN=programs')
        server.wait_for_log('connections to nodes use SSL; the certificate is of CN=nodes')
        theirs = {'certfile': outside, 'keyfile': outside_key}
        with shared(port, double, node_port=node_port, **theirs) as cluster:
            assert outcomes(cluster, 1, 2) == [2, 4]
        for wrong in ({'certfile': inside, 'keyfile': inside_key}, {}):
            with pytest.raises(SchedulerRefused), shared(port, double, **wrong):
                pass


@pytest.mark.row('M09')
def test_nodes_connect_to_the_port_that_it_was_given(own_home: Path) -> None:
    port, nodes_port = free_port(), free_port()
    command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1')
    call = ('--scheduler_node', '127.0.0.1', '--scheduler_port', nodes_port)
    with (
        program(*command, '-p', nodes_port, '--scheduler_port', port, ready='serving'),
        node_program('-i', '127.0.0.9', '-p', free_port(), '-c', 1, *call) as node,
        shared(port, double, nodes=['*'], node_port=free_port()) as cluster,
    ):
        assert outcomes(cluster, 3) == [6]
        assert f'connected to the program at 127.0.0.1:{nodes_port}' in node.log()


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('M08', 'N06')
def test_behind_a_gateway_nodes_reach_it_by_a_tunnel_and_programs_need_nothing() -> None:
    """The remote node lets nothing in but ssh and pings: it connects through the tunnel."""
    with Lan(3) as lan, machines(*lan) as (user, middle, node), ExitStack() as stack:
        node.host.filter_rules(FIREWALL.format('tcp dport 22 accept\nudp dport 51348 accept'))
        stack.enter_context(node.node('-c', 1))
        server = stack.enter_context(ssh_server(node, 22))
        stack.enter_context(forwarding(middle, server, 'R', '51347:127.0.0.1:51347'))
        ext = ('--ext_ip_addr', '127.0.0.1')
        stack.enter_context(middle.program(SCRIPT, *ext, ready='serving'))
        options = f'nodes=[{node.ip!r}], scheduler_node={middle.ip!r}'
        done = user.client(RUN.format(options=options))
        assert done.stdout == f"[0, 1, 2, 3] ['{node.ip}']\n", done.stderr


@pytest.mark.netns(nat=True)
@pytest.mark.slow
def test_nodes_that_it_was_told_of_are_used_by_programs_that_know_nothing_of_them() -> None:
    """The switch passes no broadcasts on, as routers do."""
    with Lan(3) as lan, machines(*lan) as (user, middle, node), ExitStack() as stack:
        node.host.filter_rules(FIREWALL.format(f'ip daddr {node.ip} accept'))
        stack.enter_context(node.node('-c', 1))
        stack.enter_context(middle.program(SCRIPT, '-n', node.ip, ready='serving'))
        done = user.client(RUN.format(options=f'scheduler_node={middle.ip!r}'))
        assert done.stdout == f"[0, 1, 2, 3] ['{node.ip}']\n", done.stderr


def test_a_host_for_nodes_whose_name_is_wrong_is_said(own_home: Path) -> None:
    with scheduler('-n', '127.0.0.1', '-n', 'no-such-host.invalid') as (server, _):
        told = server.wait_for_log('the address of no-such-host.invalid is not known')
    assert 'WARNING --nodes: the address of no-such-host.invalid' in told
    assert server.log().count('is not known') == 1


# its words


def test_it_says_what_it_does_in_words_and_as_json(own_home: Path) -> None:
    node_port, port = free_port(), free_port()
    command = [sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1']
    command += ['--scheduler_port', str(port), '-p', str(free_port()), '--name', 'middle']
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 2, '--name', 'alpha'),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert b'serving' in process.stdout.readline()
        with client(port, sleep_and_say, node_port=node_port, name='patient') as one:
            eventually(lambda: one.connected)
            jobs = [one.submit(str(own_home / 'gate')) for _ in range(3)]
            eventually(lambda: len(one.started) == 2)
            process.stdin.write(b'status\nstatus json\nnonsense\nhelp\n')
            process.stdin.flush()
            lines = [process.stdout.readline().decode()]
            while not lines[-1].startswith('{'):
                lines.append(process.stdout.readline().decode())
            (own_home / 'gate').touch()
            for job in jobs:
                one.result(job)
            one.close()
        process.stdin.write(b'quit\n')
        process.stdin.flush()
        rest = process.stdout.read()
        process.wait(20)
    told = ''.join(lines)
    assert 'middle: 1 program connected, 1 cluster open\n' in told
    assert 'patient of somebody at a test: 2 jobs running, 1 waiting, on 1 node\n' in told
    assert 'node alpha (127.0.0.1): 2 cpus, 2 in use' in told
    status = json.loads(next(line for line in lines if line.startswith('{')))
    assert (status['name'], status['state'], status['clients']) == ('middle', 'serving', 1)
    assert status['clusters'][0]['running'] == 2
    assert (status['nodes'][0]['cpus'], status['nodes'][0]['free']) == (2, 0)
    words = rest.decode()
    assert "'nonsense' is not understood" in words
    for command_word in ('status json', 'quit', 'terminate', 'help'):
        assert f'  {command_word}' in words
    assert 'ended: quit was entered' in words
    assert process.returncode == 0


def test_as_a_daemon_it_reads_no_commands_and_outlives_their_end(own_home: Path) -> None:
    port = free_port()
    command = [sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '--daemon']
    command += ['-i', '127.0.0.1', '--scheduler_port', str(port), '-p', str(free_port())]
    node_port = free_port()
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 1),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert b'serving' in process.stdout.readline()
        with suppress(BrokenPipeError):  # it has closed its end
            process.stdin.write(b'status\nquit\n')
            process.stdin.close()
        with shared(port, double, node_port=node_port) as cluster:
            assert outcomes(cluster, 1, 2) == [2, 4]
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read().decode()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert 'quit' not in rest
    assert 'programs connected' not in rest


def test_a_second_one_at_the_same_port_says_what_is_in_the_way(own_home: Path) -> None:
    with scheduler() as (_, port):
        second = run('-i', '127.0.0.1', '-p', '0', '--scheduler_port', str(port))
    assert second.returncode == 78
    assert f'port {port} at 127.0.0.1 is in use by another program' in second.stderr
    assert '--scheduler_port' in second.stderr


def run(*words: str) -> 'subprocess.CompletedProcess[str]':
    """Run dispyscheduler to its end."""
    command = [sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '--daemon', *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
