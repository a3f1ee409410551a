"""Strangers at the ports of a real node and a real program: a healthy job goes on."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

import dispy_nb as dispy
from tests.features.test_floods import CURVE, HOST, LIMIT, NULL, SOON, ZMTP, flood
from tests.support.programs import Program, eventually, free_port, node_program

FILES = 256  # the fewest that a node starts with
GREETINGS = [
    b'',
    b'GET / HTTP/1.1\r\nHost: node\r\n\r\n',
    b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + bytes(100),
    b'\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18',
    b'SSH-2.0-OpenSSH_9.2\r\n',
    ZMTP,
    NULL,
    CURVE + b'\x04\xc8\x05HELLO\x01\0' + bytes(192),
]


def slow(seconds: float) -> str:
    time.sleep(seconds)
    return 'done'


def knock(port: int, source: str, words: bytes = b'') -> socket.socket:
    """Connect to a port of this machine from an address of it."""
    sock = socket.create_connection((HOST, port), 5.0, (source, 0))
    if words:
        sock.sendall(words)
    return sock


Join = Callable[[Program, int], dispy.JobCluster]


@pytest.fixture
def join(own_home: Path) -> Iterator[Join]:
    """Make clusters on a node, which listen at a port of their own."""
    with ExitStack() as stack:

        def make(node: Program, port: int) -> dispy.JobCluster:
            cluster = dispy.JobCluster(slow, [HOST], ip_addr=HOST, port=free_port(), node_port=port)
            stack.callback(cluster.close, timeout=0, terminate=True)
            assert cluster.submit(0).wait(LIMIT), cluster.explain() + node.log()
            return cluster

        yield make


@pytest.mark.slow
def test_strangers_of_all_kinds_are_told_of_in_few_lines_while_a_job_goes_on(join: Join) -> None:
    port = free_port()
    with node_program('-i', HOST, '-p', port, '-c', 1) as node, ExitStack() as held:
        cluster = join(node, port)
        before = psutil.Process(node.pid).num_fds()
        job = cluster.submit(7.5)
        for number, words in enumerate(GREETINGS * 5):
            held.enter_context(knock(port, f'127.0.0.{2 + number % 8}', words))
        loris = [held.enter_context(knock(port, '127.0.0.10')) for _ in range(5)]
        for byte in CURVE[:7]:  # a byte a second
            for sock in loris:
                with suppress(OSError):
                    sock.sendall(bytes((byte,)))
            time.sleep(1.0)
        assert psutil.Process(node.pid).num_fds() < before + 10  # all were shut out meanwhile
        assert job.wait(LIMIT)
        assert job.result == 'done'
        lines = [line for line in node.log().splitlines() if 'WARNING' in line]
        assert len(lines) <= 12, lines
        assert 'Traceback' not in node.log()


@pytest.mark.slow
def test_a_port_scan_stops_nothing(join: Join) -> None:
    port = free_port()
    with node_program('-i', HOST, '-p', port, '-c', 1) as node:
        cluster = join(node, port)

        def scan(choice: object) -> None:
            knock(port, '127.0.0.2').close()

        with flood(scan):
            jobs = [cluster.submit(0.001) for _ in range(50)]
            assert cluster.wait(LIMIT), cluster.explain()
        assert all(job.result == 'done' for job in jobs)
        assert node.log().count('WARNING') <= 3, node.log()


@pytest.mark.slow
def test_a_node_keeps_descriptors_for_its_work_whoever_comes(join: Join) -> None:
    port, limit = free_port(), ('prlimit', f'--nofile={FILES}:{FILES}')
    with node_program('-i', HOST, '-p', port, '-c', 1, within=limit) as node, ExitStack() as held:
        cluster = join(node, port)
        process = psutil.Process(node.pid)
        before = process.num_fds()
        for number in range(500):
            with suppress(OSError):
                held.enter_context(knock(port, f'127.0.0.{2 + number % 5}'))
        assert process.num_fds() <= FILES
        job = cluster.submit(0)
        assert job.wait(LIMIT), cluster.explain() + node.log()
        assert job.result == 'done'
        eventually(lambda: process.num_fds() < before + 10, SOON)
        cluster.close()
        join(node, port)  # a newcomer
        assert 'Traceback' not in node.log()
        assert node.log().count('WARNING') < 15, node.log()
