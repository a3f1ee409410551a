"""Memory, disk, descriptors or processes run out: said in words, and the node lives on."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from tests.support.programs import free_port, node_program

LIMIT = 30.0
SOON = 10.0
MB = 1 << 20


def size_of(data: Any) -> int:
    return len(data)


class Lonely:
    """One node of one cpu under limits, and clusters that use it."""

    def __init__(self, stack: ExitStack, *within: str, **env: str) -> None:
        self._stack = stack
        self.port = free_port()
        self.node = stack.enter_context(
            node_program('-i', '127.0.0.1', '-p', self.port, '-c', 1, within=within, env=env)
        )

    def open(self, function: Any, **options: Any) -> dispy.JobCluster:
        ours = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': self.port}
        cluster = dispy.JobCluster(function, ['127.0.0.1'], **{**ours, **options})
        self._stack.callback(cluster.close, timeout=0, terminate=True)
        return cluster


@pytest.fixture
def keep(own_home: Path) -> Iterator[ExitStack]:
    """Close at the end whatever was entered."""
    with ExitStack() as stack:
        yield stack


def limit(what: str, number: int) -> tuple[str, ...]:
    return ('prlimit', f'--{what}={number}:{number}')


# memory


def test_x(keep: ExitStack) -> None:
    lonely = Lonely(keep)
    p = psutil.Process(lonely.node.pid)
    print(p.memory_info())
    most = p.memory_info().vms + 300 * MB
    subprocess.run(['prlimit', '--pid', str(p.pid), f'--as={most}:{most}'], check=True)
    cluster = lonely.open(size_of)
    assert cluster.submit(b'1')() == 1
    job = cluster.submit(bytes(500 * MB))
    print(job.wait(15), job, job.exception, job.reason, cluster.explain())
    print(p.is_running(), p.status(), lonely.node.log()[-5000:])
    cluster.cancel(job)
    print(job.wait(5))
    print(cluster.submit(b'12')())
