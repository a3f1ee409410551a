"""What nodes have to spare: true, fresh with each pulse, and not told without psutil."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from nodeserver.io.sysinfo import processor_count
from tests.support.programs import eventually, free_port, node_program

LIMIT = 30.0
ADDRESS = '127.0.4.7'
MIB = 1 << 20


# what runs on the nodes


def compute_until(gate):
    import pathlib
    import time

    deadline = time.monotonic() + 60
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        sum(range(200_000))


def find_psutil():
    try:
        import psutil
    except ImportError:
        return None
    return psutil.__file__


# what the client sees


class Told:
    """What `cluster_status` was told of a node, and when; `beside` says what we measured then."""

    def __init__(self) -> None:
        self.infos: list[Any] = []
        self.times: list[float] = []
        self.beside: list[float] = []
        self.joined: list[Any] = []

    def __call__(self, status: int, node: Any, job: Any) -> None:
        if status == dispy.DispyNode.AvailInfo:
            assert job is None
            self.beside.append(100 - psutil.cpu_percent())
            self.times.append(time.monotonic())
            self.infos.append(node.avail_info)
        elif status == dispy.DispyNode.Initialized:
            self.joined.append(node.avail_info)

    def wait_for(self, count: int) -> None:
        """Wait until that many were told."""
        eventually(lambda: len(self.infos) >= count, LIMIT)


class Asked(dispy.NodeAllocate):
    """Notes the figures with which it was asked."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.infos: list[Any] = []

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=None):  # type: ignore[no-untyped-def]
        self.infos.append(avail_info)
        return cpus


@contextmanager
def cluster_of(port: int, computation: Any, told: Told, **options: Any) -> Iterator[Any]:
    """A cluster on the node at this port that has its figures told."""
    options = {'nodes': [ADDRESS], 'pulse_interval': 1, **options}
    cluster = dispy.JobCluster(
        computation,
        ip_addr='127.0.0.1',
        port=0,
        node_port=port,
        cluster_status=told,
        **options,
    )
    try:
        yield cluster
    finally:
        cluster.close(timeout=0, terminate=True)


@pytest.fixture
def prefix() -> Iterator[Path]:
    """A directory on a partition other than that of the temporary files."""
    with tempfile.TemporaryDirectory(dir='/dev/shm') as directory:
        yield Path(directory)


@pytest.fixture
def port(prefix: Path) -> Iterator[int]:
    """The port of a node that offers all cpus, and keeps its files below `prefix`."""
    port = free_port()
    with node_program('-i', ADDRESS, '-p', port, '--dest_path_prefix', prefix / 'node'):
        yield port


def without_psutil(directory: Path) -> dict[str, str]:
    """An environment in which psutil is there, and cannot be imported."""
    (directory / 'psutil.py').write_text("raise ImportError('there is none here')\n")
    before = os.environ.get('PYTHONPATH')
    return {'PYTHONPATH': os.pathsep.join(filter(None, (str(directory), before)))}


@pytest.mark.row('E08', 'E10', 'E11')
def test_a_node_tells_four_figures_that_cannot_be_changed(port: int, prefix: Path) -> None:
    told = Told()
    with cluster_of(port, find_psutil, told):
        told.wait_for(2)
    info = told.infos[-1]
    assert type(info) is dispy.DispyNodeAvailInfo
    assert [name for name in dir(info) if name[0] != '_'] == ['cpu', 'disk', 'memory', 'swap']
    for name in ('cpu', 'disk', 'memory', 'swap', 'else'):
        with pytest.raises(AttributeError):
            setattr(info, name, 1)
    free = shutil.disk_usage(prefix).free
    assert abs(info.disk - free) < 0.2 * free
    assert prefix.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev
    swap = psutil.swap_memory()
    assert abs(info.swap - (100 * swap.used / swap.total if swap.total else 0)) < 10


@pytest.mark.slow
@pytest.mark.row('E09')
def test_cpu_and_memory_are_what_jobs_can_have(port: int, tmp_path: Path) -> None:
    told, gate = Told(), tmp_path / 'gate'
    with cluster_of(port, compute_until, told) as cluster:
        told.wait_for(4)
        # others may load this machine: what is measured beside it says what is expected
        idle = list(zip(told.infos, told.beside, strict=True))[1:]
        assert min(abs(info.cpu - beside) for info, beside in idle) < 30
        available = psutil.virtual_memory().available
        assert (
            available / 2 < idle[-1][0].memory < min(2 * available, psutil.virtual_memory().total)
        )
        jobs = [cluster.submit(str(gate)) for _ in range(processor_count())]
        eventually(lambda: told.infos[-1].cpu < 10, LIMIT, lambda: str(told.infos[-5:]))
        gate.touch()
        assert [job() for job in jobs] == [None] * len(jobs)


@pytest.mark.slow
@pytest.mark.row('E12')
def test_figures_are_told_once_a_pulse_and_are_fresh(port: int, prefix: Path) -> None:
    told = Told()
    with cluster_of(port, find_psutil, told):
        told.wait_for(5)
        assert 3.0 < told.times[4] - told.times[0] < 8.0  # four intervals of 1 s
        before, count = told.infos[-1].disk, len(told.infos)
        (prefix / 'file').write_bytes(bytes(64 * MIB))
        told.wait_for(count + 2)  # the first may be of a moment before
        assert told.infos[count + 1].disk < before - 32 * MIB


@pytest.mark.row('E05')
def test_a_node_without_psutil_runs_jobs_and_tells_no_figures(tmp_path: Path) -> None:
    told, asked, port = Told(), Asked(ADDRESS), free_port()
    with (
        node_program('-i', ADDRESS, '-p', port, env=without_psutil(tmp_path)) as node,
        cluster_of(port, find_psutil, told, nodes=[asked]) as cluster,
    ):
        assert cluster.submit()() is None
        told.wait_for(1)
        assert [told.joined, set(told.infos), asked.infos] == [[None], {None}, [None]]
        assert 'Error' not in node.log()


@pytest.mark.slow
@pytest.mark.row('E05')
def test_a_node_without_psutil_is_found_and_serves_all_addresses(tmp_path: Path) -> None:
    told, port = Told(), free_port()
    with (
        node_program('-p', port, env=without_psutil(tmp_path)),
        cluster_of(port, find_psutil, told, nodes=['*'], pulse_interval=None) as cluster,
    ):
        assert cluster.submit()() is None
        eventually(lambda: told.joined, LIMIT)
        assert told.joined == [None]
