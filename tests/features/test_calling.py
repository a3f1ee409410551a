"""Where a client listens, and nodes that connect to it by themselves (A21, L17, L18)."""

import multiprocessing
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from nodeserver.core.errors import PortBusy
from tests.support.netns import Lan, TwoLans
from tests.support.programs import (
    client_program,
    eventually,
    free_port,
    node_program,
    program,
)

LIMIT = 20.0

LISTENING = """
import psutil, socket
import dispy_nb as dispy

def listening():
    used = psutil.Process().net_connections()
    tcp = {c.laddr.port for c in used if c.status == psutil.CONN_LISTEN}
    udp = {c.laddr.port for c in used if c.type == socket.SOCK_DGRAM and not c.raddr}
    return tcp, udp

with dispy.JobCluster(abs):
    tcp, udp = listening()
    assert tcp == {51347}, tcp
    assert 51347 in udp, udp
with dispy.JobCluster(abs, port=51600):
    tcp, udp = listening()
    assert tcp == {51600}, tcp
    assert 51600 in udp and 51347 not in udp, udp
with dispy.JobCluster(abs, port=0):
    tcp, udp = listening()
    assert len(tcp) == 1 and tcp < udp and not {51347, 51600} & (tcp | udp), (tcp, udp)
tcp, udp = listening()
assert not tcp and not udp, (tcp, udp)
with socket.create_server(('', 51347)):
    with dispy.JobCluster(abs, loglevel=dispy.logger.INFO):
        pass
"""


def compute(number: int) -> int:
    return 2 * number


def calling(port: int) -> list[object]:
    """Options of a node that connects to a client of this machine."""
    return ['-c', 1, '-p', 0, '--scheduler_node', '127.0.0.1', '--scheduler_port', port]


def open_at(port: int, node_port: int = 0, **options: Any) -> dispy.JobCluster:
    """Make a cluster, which finds no node if nobody listens where it asks."""
    place = {'ip_addr': '127.0.0.1', 'port': port, 'node_port': node_port or free_port()}
    return dispy.JobCluster(compute, nodes=['127.0.0.1'], **place, **options)


@pytest.mark.slow
@pytest.mark.row('A21')
def test_the_client_listens_at_51347_or_at_the_port_it_is_given(
    own_network: tuple[str, ...],
) -> None:
    ended = client_program(LISTENING, within=own_network)
    assert 'TCP port 51347 is in use: port ' in ended.stderr


@pytest.mark.row('A21')
def test_the_client_listens_at_its_own_addresses_alone(own_home: Path) -> None:
    port = free_port()
    places = ['127.0.0.1', '127.0.0.9']
    given = [*places, '127.0.0.1']
    with dispy.JobCluster(compute, ip_addr=given, port=port, node_port=free_port()):
        used = psutil.Process().net_connections('tcp')
        assert sorted((c.laddr.ip, c.laddr.port) for c in used if c.laddr) == [
            (place, port) for place in places
        ]


def test_clusters_of_two_secrets_have_a_port_each(own_home: Path) -> None:
    port = free_port()
    with open_at(port), open_at(port, secret='another secret'):
        used = psutil.Process().net_connections('tcp')
        assert len({c.laddr.port for c in used if c.status == psutil.CONN_LISTEN}) == 2


def test_a_fork_of_the_program_does_not_keep_its_port(own_home: Path) -> None:
    port = free_port()
    with open_at(port):
        fork = multiprocessing.get_context('fork').Process(target=signal.pause)
        fork.start()
    try:
        with open_at(port):
            pass
    finally:
        fork.kill()
        fork.join()


def test_a_given_port_that_is_busy_is_an_error_that_names_it(own_home: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortBusy, match=rf'port {port} at 127\.0\.0\.1 is in use .* with port,'):
            open_at(port)
    with open_at(port):  # nothing of the first try is left
        pass


@pytest.mark.row('A21', 'L18')
def test_a_node_that_connects_serves_one_program_after_the_other(own_home: Path) -> None:
    port = free_port()
    with node_program(*calling(port), '--name', 'caller') as node:
        node.wait_for_log(f'no scheduler answers at 127.0.0.1:{port}; it is tried until')
        for number in (1, 2):
            with open_at(port) as cluster:
                assert cluster.submit(number).wait(LIMIT), cluster.explain()
                text = cluster.explain()
                assert 'node caller (127.0.0.1), which connected to this program' in text
        assert node.log().count(f'connected to the program at 127.0.0.1:{port}') == 2


def test_a_node_that_connects_and_is_found_is_one_node(own_home: Path) -> None:
    port, node_port = free_port(), free_port()
    with (
        node_program(*calling(port)[:2], '-p', node_port, *calling(port)[4:]),
        open_at(port, node_port) as cluster,
    ):
        assert [job() for job in [cluster.submit(n) for n in range(20)]] == [*range(0, 40, 2)]
        assert len(cluster.snapshot().nodes) == 1


@pytest.mark.slow
def test_a_lost_connection_is_made_anew_and_reentrant_jobs_go_on(own_home: Path) -> None:
    """The client hears nothing for long enough, as the node is suspended, and gives it up."""
    port = free_port()
    options = {'reentrant': True, 'pulse_interval': 1.0}
    with node_program(*calling(port)) as node, open_at(port, **options) as cluster:
        assert cluster.submit(1).wait(LIMIT)
        psutil.Process(node.pid).suspend()
        job = cluster.submit(4)
        eventually(lambda: 'nothing was heard of it' in cluster.snapshot().notice, LIMIT)
        psutil.Process(node.pid).resume()
        assert job.wait(LIMIT), cluster.explain()
        assert job.result == 8


def test_a_node_with_another_key_is_told_so(own_home: Path, tmp_path: Path) -> None:
    port, secret = free_port(), tmp_path / 'secret'
    secret.write_text('another secret of ours')
    secret.chmod(0o600)
    with (
        open_at(port) as cluster,
        node_program(*calling(port), '--secret_file', secret) as node,
    ):
        node.wait_for_log(
            f'the scheduler at 127.0.0.1:{port} cannot be used: it has another key, or none'
        )
        assert not cluster.snapshot().nodes
        eventually(lambda: '127.0.0.1: uses another key' in cluster.explain())
    assert 'no scheduler answers' not in node.log()  # it does


SLOW = """
import time
import dispy_nb as dispy

def compute():
    return 5

def cleanup():
    time.sleep(6)

with dispy.JobCluster(compute, ['127.0.0.1'], ip_addr='127.0.0.1', port={port}, node_port=1,
                      cleanup=cleanup) as cluster:
    print(cluster.submit()(), flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_node_that_ends_does_not_connect_again(own_home: Path, tmp_path: Path) -> None:
    port, script = free_port(), tmp_path / 'script.py'
    script.write_text(SLOW.format(port=port))
    with node_program(*calling(port)) as node, program(sys.executable, script) as client:
        client.wait_for_log('5')
        node.terminate()
        node.wait(LIMIT)
        assert node.log().count('connected to the program') == 1
        assert 'cannot run' not in client.log()


def test_a_node_that_is_to_connect_to_a_node_is_told_what_that_is(own_home: Path) -> None:
    port = free_port()
    with (
        node_program('-i', '127.0.0.1', '-p', port),
        node_program(*calling(port)) as node,
    ):
        node.wait_for_log('it is a node, and takes connections of a scheduler only')


@pytest.mark.parametrize(
    ('options', 'status', 'words'),
    [
        (['--scheduler_node', 'no such host'], 2, "--scheduler_node: host 'no such host' is"),
        (['--scheduler_port', '5'], 2, 'is that of --scheduler_node, which is missing'),
        (['--scheduler_port', '0'], 2, "'0' is not a whole number from 1 to 65535"),
        (['--scheduler-port', 'x'], 2, "--scheduler_port: 'x' is not a whole number"),
    ],
)
def test_wrong_places_to_connect_to_are_refused(
    options: list[str], status: int, words: str, own_home: Path
) -> None:
    command = [sys.executable, '-m', 'nodeserver.cli.dispynode', *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert ended.returncode == status
    assert words in ended.stdout + ended.stderr


EVERYWHERE = """
import dispy_nb as dispy

def compute():
    return 'done'

with dispy.JobCluster(compute, ['127.0.0.1']) as cluster:
    job = cluster.submit()
    job.wait(10) or print(cluster.explain())
    print(job.result)
"""


@pytest.mark.netns
@pytest.mark.slow
def test_a_node_that_announces_itself_at_another_port_and_connects_is_used() -> None:
    call = ['-c', 1, '-p', 40001, '--scheduler_node', '127.0.0.1']
    with Lan(1) as lan, node_program(*call, within=lan[0].command([])):
        done = client_program(EVERYWHERE, within=lan[0].command([]))
    assert done.stdout == 'done\n'


FAR = """
import dispy_nb as dispy

def compute():
    import socket
    return socket.gethostname()

with dispy.JobCluster(compute{nodes}) as cluster:
    jobs = [cluster.submit() for _ in range(3)]
    print('scheduled', flush=True)
    cluster.wait(20) or print(cluster.explain())
    print({{job.result for job in jobs}}, [node.address for node in cluster.snapshot().nodes])
"""


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.row('L17')
def test_a_late_node_of_another_network_contacts_the_scheduler_and_is_used(
    tmp_path: Path,
) -> None:
    script = tmp_path / 'script.py'
    script.write_text(FAR.format(nodes=''))
    with TwoLans(1, 1) as net, ExitStack() as stack:
        client, node = net.left[0], net.right[0]
        words = client.command([sys.executable, script])
        running = stack.enter_context(program(*words, ready='nobody answered'))
        assert running.output() == 'scheduled\n'
        call = ['-c', 1, '--scheduler_node', client.ip]
        stack.enter_context(node_program(*call, within=node.command([])))
        assert running.wait(LIMIT) == 0
        assert running.output() == f"scheduled\n{{'r0'}} ['{node.ip}']\n"


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('L17')
def test_a_node_behind_a_nat_is_used_by_a_program_that_cannot_connect_to_it() -> None:
    with TwoLans(1, 1, nat=True) as net, ExitStack() as stack:
        client, node = net.right[0], net.left[0]
        call = ['-c', 1, '--scheduler_node', client.ip]
        stack.enter_context(node_program(*call, within=node.command([])))
        done = client_program(FAR.format(nodes=''), within=client.command([]))
        gateway = done.stdout.partition("['")[2].partition("'")[0]
        assert gateway not in (node.ip, '')
        named = client_program(FAR.format(nodes=f', [{gateway!r}]'), within=client.command([]))
    assert done.stdout == named.stdout == f"scheduled\n{{'l0'}} ['{gateway}']\n"
