"""`dispynode` as a program: its options, messages, signals and exit statuses (section L, D13)."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from nodeserver.io.sysinfo import processor_count
from nodeserver.io.udp import NODE_PORT
from tests.support.netns import Lan
from tests.support.programs import (
    Program,
    client_program,
    eventually,
    free_port,
    node_program,
    program,
)

DISPYNODE = (sys.executable, '-m', 'nodeserver.cli.dispynode')
ADDRESS, OTHER_ADDRESS = '127.0.0.2', '127.0.0.3'
SECRET = 'a passphrase of the tests'
LIMIT = 20.0


def facts() -> tuple[str, str]:
    return dispy_node_name, str(Path.cwd())  # type: ignore[name-defined]  # noqa: F821


def hold(gate: str) -> str:
    """Run until the file is there."""
    import pathlib
    import time

    print('it has begun')
    pathlib.Path(gate + '.begun').touch()
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return 'opened'


def here(cluster: dispy.JobCluster) -> tuple[str, str]:
    """Run one job, and answer the node's name and the job's directory."""
    job = cluster.submit()
    assert job.wait(LIMIT), cluster.explain()
    assert job.exception is None, job.exception
    found: tuple[str, str] = job.result
    return found


def open_cluster(function: Any, port: int, **options: Any) -> dispy.JobCluster:
    options = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port, **options}
    return dispy.JobCluster(function, options.pop('nodes', [ADDRESS]), **options)


def cpus_seen(port: int) -> int:
    """Answer how many cpus the node offers to a cluster."""
    with open_cluster(facts, port) as cluster:
        here(cluster)
        (node,) = cluster.snapshot().nodes
        return node.cpus


def refused(*options: object, status: int = 2) -> str:
    """Start a node that must not start, and answer its one line of explanation."""
    done = subprocess.run(
        [*DISPYNODE, *map(str, options)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout) == (status, ''), done.stderr
    assert done.stderr.count('\n') == 1
    return done.stderr


# options


@pytest.mark.row('L05')
def test_d_prints_debug_messages_that_trace_execution() -> None:
    port = free_port()
    for options, traced in (((), False), (('-d',), True)):
        with node_program('-i', ADDRESS, '-p', port, *options) as node:
            assert cpus_seen(port)
            if traced:
                node.wait_for_log('TemplateClosed')
            for step in ('DEBUG NodeCore <- MessageArrived', 'RunJobs', 'GiveJobs', 'JobsDone'):
                assert (step in node.log()) is traced


@pytest.mark.row('L06')
def test_without_c_all_processors_are_offered() -> None:
    port = free_port()
    with node_program('-i', ADDRESS, '-p', port):
        assert cpus_seen(port) == processor_count() == len(os.sched_getaffinity(0))


@pytest.mark.row('L07')
@pytest.mark.parametrize('option', ['-c 1', '--cpus=1'])
def test_c_is_the_most_processors_that_are_used(option: str) -> None:
    port = free_port()
    with node_program('-i', ADDRESS, '-p', port, *option.split()):
        assert cpus_seen(port) == 1
    text = refused('-c', processor_count() + 1)
    assert f'--cpus {processor_count() + 1}: this machine has {processor_count()} proc' in text


@pytest.mark.slow
@pytest.mark.row('L08')
@pytest.mark.skipif(processor_count() < 2, reason='needs two processors')
@pytest.mark.parametrize('option', ['-c -1', '--cpus=-1'])
def test_negative_c_leaves_processors_unused(option: str) -> None:
    port = free_port()
    with node_program('-i', ADDRESS, '-p', port, *option.split()):
        assert cpus_seen(port) == processor_count() - 1
    assert 'leaves none of the' in refused('-c', -processor_count())


@pytest.mark.slow
@pytest.mark.row('L09', 'L11')
@pytest.mark.parametrize(('i', 'p'), [('-i', '-p'), ('--ip_addr', '--node_port')])
def test_address_and_port_are_those_given(i: str, p: str) -> None:
    port = free_port()
    with node_program(f'{i}={ADDRESS}' if i[1] == '-' else f'{i}{ADDRESS}', p, port) as node:
        assert f'serving at {ADDRESS}:{port} ' in node.output()
        socket.create_connection((ADDRESS, port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((OTHER_ADDRESS, port), timeout=5)
        with open_cluster(facts, port, nodes=['*']) as cluster:
            job = cluster.submit()
            assert job() is not None
            assert job.ip_addr == ADDRESS
    assert "ip_addr='192.0.2.250' is not an address of this machine" in refused('-i', '192.0.2.250')


@pytest.mark.slow
@pytest.mark.row('L12')
def test_name_is_the_one_given_or_the_host_name() -> None:
    port = free_port()
    for options, name in (((), socket.gethostname()), (('--name', 'rack 7'), 'rack 7')):
        with (
            node_program('-i', ADDRESS, '-p', port, *options),
            open_cluster(facts, port) as cluster,
        ):
            assert here(cluster)[0] == name
            assert [node.name for node in cluster.snapshot().nodes] == [name]


@pytest.mark.row('L13')
@pytest.mark.parametrize('options', [('-s', SECRET), (f'--secret={SECRET}',)])
def test_secret_restricts_the_node_to_those_who_have_it(options: tuple[str, ...]) -> None:
    port = free_port()
    with node_program('-i', ADDRESS, '-p', port, *options) as node:
        node.wait_for_log('--secret_file, or set DISPY_SECRET')  # nobody else can read those
        with open_cluster(facts, port, secret=SECRET) as cluster:
            assert here(cluster)
        with open_cluster(facts, port) as other:
            job = other.submit()
            eventually(lambda: f'{ADDRESS}: uses another key' in other.explain())
            assert job.status == dispy.DispyJob.Created
            other.close(timeout=0, terminate=True)
        assert SECRET not in node.log()


@pytest.mark.row('L14')
def test_files_are_stored_below_the_directory_given(tmp_path: Path) -> None:
    port, prefix = free_port(), tmp_path / 'deep' / 'files'
    with node_program('-i', ADDRESS, '-p', port, f'--dest_path_prefix={prefix}'):
        with open_cluster(facts, port) as cluster:
            directory = Path(here(cluster)[1])
            assert prefix in directory.parents
            assert directory.is_dir()
        eventually(lambda: not directory.exists())
    file = tmp_path / 'file'
    file.touch()
    assert f'--dest_path_prefix {file}: ' in refused('--dest_path_prefix', file)


@pytest.mark.slow
@pytest.mark.row('L22')
def test_clean_removes_once_what_earlier_runs_have_left(tmp_path: Path) -> None:
    port, prefix = free_port(), tmp_path / 'files'
    options = ('-i', ADDRESS, '-p', port, '--dest_path_prefix', prefix)
    with node_program(*options), open_cluster(facts, port, cleanup=False) as cluster:
        left = Path(here(cluster)[1])
        (left / 'result').write_text('unsent')
        (left / 'link').symlink_to(tmp_path)
    with node_program(*options):
        assert (left / 'result').exists()
    mine = tmp_path / 'mine'
    mine.write_text('no file of a node')
    with node_program(*options, '--clean'):
        assert not left.exists()
        assert mine.exists()  # links are not followed
        with open_cluster(facts, port, cleanup=False) as cluster:
            fresh = Path(here(cluster)[1])
        assert fresh.exists()  # once, at the start
        # another node is using it
        assert 'nothing was removed' in refused(
            '-i', OTHER_ADDRESS, '--dest_path_prefix', prefix, '--clean'
        )
        assert fresh.exists()


def test_clean_never_removes_what_no_node_has_made(tmp_path: Path) -> None:
    (tmp_path / 'thesis').write_text('years of work')
    text = refused('-i', ADDRESS, '--clean', '--dest_path_prefix', tmp_path)
    assert f'{tmp_path} was not made by dispynode' in text
    assert (tmp_path / 'thesis').exists()


def test_daemon_reads_no_standard_input() -> None:
    command = [*DISPYNODE, '-i', ADDRESS, '-p', str(free_port()), '--daemon']
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as node:
        assert node.stdout
        assert b' serving at ' in node.stdout.readline()
        assert Path(f'/proc/{node.pid}/fd/0').readlink() == Path(os.devnull)
        node.terminate()
        assert node.wait(LIMIT) == 128 + signal.SIGTERM


@pytest.mark.parametrize('way', ['dispynode', 'dispynode.py', 'module'])
def test_version_and_help_by_every_name(way: str) -> None:
    command = DISPYNODE if way == 'module' else (str(Path(sys.executable).with_name(way)),)
    for option, expected in (('--version', r'dispynode \(dispy-nb\) \S+\n'), ('-h', 'usage: ')):
        done = subprocess.run(
            [*command, option], capture_output=True, text=True, timeout=LIMIT, check=True
        )
        assert re.match(expected, done.stdout)
        assert done.stderr == ''


@pytest.mark.slow
def test_usage_errors_are_one_line_and_exit_with_2() -> None:
    assert 'unrecognized arguments: --bogus' in refused('--bogus')
    assert "'70000' is not a whole number from 0 to 65535" in refused('-p', '70000')
    assert 'contradict each other' in refused('--insecure', '--secret-file', '/nowhere')
    assert '/nowhere cannot be read' in refused('--secret-file', '/nowhere', status=78)
    assert 'at most 255 printable characters' in refused('--name', 'a\nb')
    assert '--save_config /no/such: No such file' in refused('--save_config', '/no/such')


# ports


def taken_address() -> str:
    """Answer an address whose default port no other test takes."""
    worker = os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw')
    return f'127.0.61.{int(worker) + 1}'


def test_a_given_port_that_is_busy_is_an_error_that_names_it() -> None:
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        text = refused('-i', ADDRESS, '-p', port, status=78)
    assert f'port {port} at {ADDRESS} is in use by another program' in text
    assert '--node_port' in text


def test_the_default_port_being_busy_a_free_one_is_taken_and_told() -> None:
    address = taken_address()
    with ExitStack() as stack:
        stack.enter_context(socket.create_server((address, NODE_PORT)))
        node = stack.enter_context(node_program('-i', address))
        told = re.search(rf'INFO port {NODE_PORT} is in use: port (\d+) was taken', node.output())
        assert told
        assert f'serving at {address}:{told[1]} ' in node.output()
        # it is found at the default port all the same
        with open_cluster(facts, NODE_PORT, nodes=[address]) as cluster:
            assert here(cluster)
            assert [node.address for node in cluster.snapshot().nodes] == [address]


# messages


QUIET = """
import dispy_nb as dispy

def compute(number):
    return number

with dispy.JobCluster(compute) as cluster:
    assert sum(cluster.submit(number)() for number in range(3)) == 3
    assert cluster.wait()
with dispy.LocalNodes(1) as local, dispy.JobCluster(compute, local.nodes) as cluster:
    assert cluster.submit(3)() == 3
cluster = dispy.JobCluster(compute)
job = cluster.submit(4)  # the end of the program waits for it
"""


@pytest.mark.slow
@pytest.mark.row('Z13')
@pytest.mark.netns
def test_a_normal_run_writes_nothing_to_standard_error() -> None:
    """On a host of its own: elsewhere, programs with another key may make themselves heard."""
    with Lan(1) as lan:
        within = lan[0].command([])
        for number in (signal.SIGINT, signal.SIGTERM):
            with node_program(within=within) as node:
                done = client_program(QUIET, within=within)
                assert (done.stdout, done.stderr) == ('', '')
                node.signal(number)
                assert node.wait() == 128 + number
                assert node.errors() == ''
                assert f'INFO dispynode h0 serving at *:{NODE_PORT} with' in node.output()
    with program(sys.executable, '-m', 'dispy_nb', 'key', 'show') as key:
        assert key.wait() == 0
        assert key.errors() == ''


@pytest.mark.slow
def test_warnings_and_errors_go_to_standard_error_alone() -> None:
    with node_program('-i', ADDRESS, '-p', free_port(), '--insecure') as node:
        eventually(lambda: 'WARNING INSECURE' in node.errors())
        assert 'INSECURE' not in node.output()
        assert 'INFO' not in node.errors()
    with node_program('-i', ADDRESS, '-p', free_port(), '--log-format', 'json') as node:
        assert node.output().startswith('{"time": ')
    port = free_port()
    quiet = (*DISPYNODE, '-i', ADDRESS, '-p', port, '--log-level', 'error')
    with program(*quiet) as node, open_cluster(facts, port) as cluster:
        assert here(cluster)
        assert node.log() == ''


# signals


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_running_jobs_and_says_so(
    number: signal.Signals, tmp_path: Path
) -> None:
    port, gate = free_port(), tmp_path / 'gate'
    with (
        node_program('-i', ADDRESS, '-p', port, '-c', 1) as node,
        open_cluster(hold, port, cleanup=True) as cluster,
    ):
        running, waiting = cluster.submit(str(gate)), cluster.submit(str(gate))
        eventually(Path(f'{gate}.begun').exists)
        node.signal(number)
        node.wait_for_log('ending after 1 running job; interrupt again to end at once')
        assert node.process.poll() is None
        assert not running.wait(0.3)
        gate.touch()
        assert running() == 'opened'
        assert node.wait() == 128 + number
        assert f'ended: {number.name} received' in node.output()
        eventually(lambda: not cluster.node_jobs(ADDRESS))
        assert waiting.status == dispy.DispyJob.Created  # it waits for another node
        with node_program('-i', ADDRESS, '-p', port, '-c', 1):
            assert waiting() == 'opened'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    port, gate = free_port(), tmp_path / 'gate'
    with (
        node_program('-i', ADDRESS, '-p', port, '--name', 'short') as node,
        open_cluster(hold, port) as cluster,
    ):
        job = cluster.submit(str(gate))
        eventually(Path(f'{gate}.begun').exists)
        node.signal(number)
        node.wait_for_log('interrupt again to end at once')
        node.signal(number)
        assert node.wait(5) == 128 + number
        assert job.wait(5)
        assert (job.status, job.exception) == (dispy.DispyJob.Cancelled, 'Cancelled')
        assert job.reason == f'node short ({ADDRESS}) was lost: {number.name} received'


def test_the_second_signal_ends_even_a_node_whose_core_has_a_bug() -> None:
    text = (
        'import sys\n'
        'from nodeserver.cli.dispynode import main\n'
        'from nodeserver.core.node import NodeCore\n'
        'from nodeserver.services import node\n'
        'def broken(*_): raise RuntimeError("a bug")\n'
        'NodeCore.handle, node.END_PATIENCE = broken, 0.1\n'
        'sys.exit(main(sys.argv[1:]))\n'
    )
    with Program([sys.executable, '-c', text, '-i', ADDRESS, '-p', str(free_port())]) as node:
        node.wait_for_log('serving at')
        node.signal(signal.SIGTERM)
        node.wait_for_log('a second one stops at once')
        node.signal(signal.SIGTERM)
        assert node.wait(5) == 128 + signal.SIGTERM
        assert 'the node does not end by itself, and is ended' in node.errors()
