"""Ports that are taken; programs frozen or killed with much at hand, and what is left of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob, PortBusy
from nodeserver.io.spool import DIRECTORY
from tests.support.programs import (
    Program,
    at_once,
    client_program,
    eventually,
    free_port,
    node_program,
    program,
)

LIMIT = 30.0
SOON = 10.0
HOST = '127.0.5.7'


def quick(number: int) -> int:
    time.sleep(0.002)
    return number


def hold(gate: str) -> str:
    """Tell in a file that it began, and run until the file `gate` is there."""
    Path(f'{gate}.{os.getpid()}').touch()
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return 'held'


def either(function: Any, argument: Any) -> Any:
    return function(argument)


@pytest.fixture
def keep(own_home: Path) -> Iterator[ExitStack]:
    """Close at the end whatever was entered."""
    with ExitStack() as stack:
        yield stack


def start(keep: ExitStack, port: int, cpus: int = 1, *more: object) -> Program:
    options = ('-i', HOST, '-p', port, '-c', cpus, '--name', 'node', *more)
    return keep.enter_context(node_program(*options))


def open_cluster(keep: ExitStack, node_port: int, **options: Any) -> dispy.JobCluster:
    ours = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': node_port}
    cluster = dispy.JobCluster(either, [HOST], **{**ours, **options})
    keep.callback(cluster.close, timeout=0, terminate=True)
    return cluster


# ports


@pytest.mark.parametrize('kind', [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_that_a_node_was_given_is_an_error_of_one_line(kind: int) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((HOST, port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        command = [sys.executable, '-m', 'nodeserver.cli.dispynode', '-i', HOST, '-p', str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 78
    assert f'port {port} at {HOST} is in use by another program' in ended.stderr
    assert 'choose another with --node_port' in ended.stderr
    assert ended.stderr.count('\n') == 1


def test_a_port_in_use_that_a_cluster_was_given_is_an_error_that_names_it(keep: ExitStack) -> None:
    port = free_port()
    start(keep, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('127.0.0.1', 0))
        taken = sock.getsockname()[1]
        with pytest.raises(PortBusy, match=f'port {taken} .* is in use by another program'):
            open_cluster(keep, port, port=taken)
        cluster = open_cluster(keep, port)  # nothing is left of the attempt
        assert cluster.submit(quick, 3)() == 3


DEFAULT = """
import socket
import dispy_nb as dispy

def double(number):
    return 2 * number

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(('', 51347))
    with dispy.LocalNodes(1, cpus=1) as local:
        with dispy.JobCluster(double, local.nodes, loglevel=dispy.logger.INFO) as cluster:
            print(cluster.submit(21)())
"""


@pytest.mark.slow
def test_a_default_port_in_use_is_replaced_and_that_is_said(
    own_network: tuple[str, ...],
) -> None:
    ended = client_program(DEFAULT, within=own_network)
    assert ended.stdout == '42\n'
    assert 'port 51347 is in use' in ended.stderr


# a node is frozen


@pytest.mark.slow
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_a_node_frozen_for_a_moment_is_late_and_nothing_else(
    keep: ExitStack, own_home: Path, isolation: str
) -> None:
    port, gate = free_port(), own_home / 'gate'
    node = start(keep, port)
    ended: list[DispyJob] = []
    cluster = open_cluster(keep, port, isolation=isolation, callback=ended.append)
    held = cluster.submit(hold, str(gate))
    eventually(lambda: list(own_home.glob('gate.*')), SOON)
    node.signal(signal.SIGSTOP)
    jobs = [cluster.submit(quick, number) for number in range(200)]
    gate.touch()  # the job ends while its node is frozen
    assert not held.wait(1.0)
    assert cluster.cancel(jobs[-1]) == 0
    node.signal(signal.SIGCONT)
    assert cluster.wait(LIMIT), cluster.explain()
    assert held() == 'held'
    assert [job() for job in jobs[:-1]] == list(range(199))
    assert jobs[-1].status in (DispyJob.Cancelled, DispyJob.Finished)
    assert len(ended) == 201
    assert {job.reason for job in jobs[:-1]} == {''}


@pytest.mark.slow
def test_a_node_frozen_for_long_is_lost_and_used_again_after_its_thaw(
    keep: ExitStack, own_home: Path
) -> None:
    at_once(partial(freeze_for_long, keep, own_home), 'job', 'worker')


def freeze_for_long(keep: ExitStack, own_home: Path, isolation: str) -> None:
    port, gate = free_port(), own_home / isolation
    node = start(keep, port)
    ended: list[DispyJob] = []
    options: dict[str, Any] = {'pulse_interval': 1, 'callback': ended.append}
    cluster = open_cluster(keep, port, isolation=isolation, **options)
    held = cluster.submit(hold, str(gate))
    eventually(lambda: list(own_home.glob(f'{isolation}.*')), SOON)
    node.signal(signal.SIGSTOP)
    assert held.wait(LIMIT)
    assert held.status == DispyJob.Cancelled
    assert 'was lost: nothing was heard of it for' in held.reason
    jobs = [cluster.submit(quick, number) for number in range(50)]
    assert not jobs[0].wait(0.2)
    gate.touch()
    node.signal(signal.SIGCONT)
    assert cluster.wait(LIMIT), cluster.explain()
    assert [job() for job in jobs] == list(range(50))
    assert (held.status, len(ended)) == (DispyJob.Cancelled, 51)
    assert cluster.close()
    again = open_cluster(keep, port)
    assert again.submit(quick, 5).wait(SOON), again.explain()


# a client is killed

CLIENT = """
import sys, time
import dispy_nb as dispy

def work(number, payload):
    import os, pathlib, subprocess, time
    child = subprocess.Popen(['sleep', '0.05'])
    time.sleep(0.05)
    child.wait()
    pathlib.Path(f'file-{number}').touch()
    return number

cluster = dispy.JobCluster(work, [sys.argv[1]], ip_addr='127.0.0.1', port=0,
                           node_port=int(sys.argv[2]), isolation=sys.argv[3])
jobs = [cluster.submit(number, bytes(1000)) for number in range(10_000)]
jobs[4]()
print('some have run', flush=True)
cluster.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_only_outcomes_stay_of_a_client_killed_with_ten_thousand_jobs(
    keep: ExitStack, own_home: Path, tmp_path: Path, isolation: str
) -> None:
    port, script = free_port(), own_home / 'client.py'
    script.write_text(CLIENT)
    prefix = tmp_path / 'files'
    node = start(keep, port, 2, '--dest_path_prefix', prefix)
    process = psutil.Process(node.pid)
    idle = len(process.children(recursive=True))
    sockets = len(process.net_connections('tcp'))
    with program(sys.executable, script, HOST, port, isolation, ready='some have run') as client:
        before = process.memory_info().rss
        client.kill()
        client.wait()
    node.wait_for_log('the program that used this node is gone', SOON)
    killed_at = time.monotonic()
    cluster = open_cluster(keep, port)
    job = cluster.submit(quick, 7)
    assert job.wait(SOON), cluster.explain()
    assert time.monotonic() - killed_at < SOON
    assert cluster.close()
    eventually(lambda: len(process.children(recursive=True)) == idle, SOON)
    eventually(lambda: len(process.net_connections('tcp')) == sockets, SOON)
    eventually(lambda: not list(prefix.rglob('file-*')), SOON)
    assert [each.name for each in prefix.iterdir() if each.is_dir()] == [DIRECTORY]  # outcomes
    assert process.memory_info().rss < before + (20 << 20)
    sockets_left = [path for path in (own_home / 'run').rglob('*') if path.is_socket()]
    assert len(sockets_left) == 1  # the node's own
    assert 'Traceback' not in node.log()
