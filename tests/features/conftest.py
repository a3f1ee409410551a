"""Two real nodes of one cpu each for the tests of a file, and clusters that use them."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.support.programs import Program, free_port, node_program

MakeCluster = Callable[..., dispy.JobCluster]
LIMIT = 30.0
_ALONE = ('unshare', '-n', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh')


@dataclass(frozen=True)
class Pair:
    """Nodes `alpha` and `beta`: two machines, as far as their addresses go."""

    port: int
    alpha: Program
    beta: Program
    addresses: tuple[str, str] = ('127.0.0.2', '127.0.0.3')


@pytest.fixture(scope='module')
def pair(shared_home: Path) -> Iterator[Pair]:
    """Run the two nodes for all tests of a file; their key is that of the shared home."""
    port = free_port()
    with (
        node_program('-i', '127.0.0.2', '-p', port, '-c', 1, '--name', 'alpha') as alpha,
        node_program('-i', '127.0.0.3', '-p', port, '-c', 1, '--name', 'beta') as beta,
    ):
        yield Pair(port, alpha, beta)


@pytest.fixture
def open_clusters(own_home: Path) -> Iterator[list[dispy.JobCluster]]:
    """Clusters of the test, closed at its end whatever became of their jobs."""
    clusters: list[dispy.JobCluster] = []
    yield clusters
    for cluster in clusters:
        cluster.close(timeout=0, terminate=True)


@pytest.fixture
def make_cluster(
    pair: Pair,
    open_clusters: list[dispy.JobCluster],
    shared_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> MakeCluster:
    """Make clusters on the pair of nodes, whose key this test's process has then too."""
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))

    def make(computation: Callable[..., Any], **options: Any) -> dispy.JobCluster:
        ours = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': pair.port}
        options = {'nodes': list(pair.addresses), **ours, **options}
        cluster = dispy.JobCluster(computation, **options)
        open_clusters.append(cluster)
        return cluster

    return make


@pytest.fixture
def own_network() -> tuple[str, ...]:
    """Words that run a command in a network that has this machine alone, and every port free."""
    if subprocess.run([*_ALONE, 'true'], capture_output=True, check=False).returncode:
        pytest.skip('a network of its own needs rights that this user does not have')
    return _ALONE


def outcome(job: dispy.DispyJob) -> Any:
    """What a job has returned, which must have gone well."""
    assert job.wait(LIMIT), job.explain()
    assert job.exception is None, job.exception
    return job.result
