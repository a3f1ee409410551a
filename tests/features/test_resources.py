"""`cpus`, `memory` and `gpus` of a cluster: what each of its jobs has for itself of its node."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from dispy_nb.options import bytes_of
from tests.support.programs import eventually, free_port, node_program

pytestmark = pytest.mark.row('Z12')

LIMIT = 20.0
NODE = '127.0.0.4'
GPUS = ('CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES')
THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


# what runs on the node


def look(names: tuple[str, ...], seconds: float = 0.0) -> tuple[list[str | None], float, float]:
    """What a job finds in its environment, and when."""
    started = time.monotonic()
    time.sleep(seconds)
    return [os.environ.get(name) for name in names], started, time.monotonic()


def meddle(names: tuple[str, ...]) -> list[str | None]:
    before = [os.environ.get(name) for name in names]
    os.environ['CUDA_VISIBLE_DEVICES'] = 'all of them'
    return before


def look_from_below(name: str) -> str:
    code = f'import os; print(os.environ[{name!r}])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def fill(mib: int, seconds: float, below: bool = False) -> int:
    """Have so much memory for a while, here or in a process below."""
    code = f'import time; block = b"x" * ({mib} << 20); time.sleep({seconds})'
    if below:
        subprocess.run([sys.executable, '-c', code], check=True)
    else:
        exec(code)
    return mib


@dataclass(frozen=True)
class Node:
    """A node with two cpus, and two gpus as far as it has been told."""

    port: int


@pytest.fixture(scope='module')
def node(shared_home: Path) -> Iterator[Node]:
    port = free_port()
    with node_program('-i', NODE, '-p', port, '-c', 2, '--gpus', 'GPU-a,MIG-b'):
        yield Node(port)


@pytest.fixture(autouse=True)
def home_of_the_node(own_home: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the key that the node of this file has."""
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))


def cluster_on(node: Node, computation: Any, **options: Any) -> dispy.JobCluster:
    ours = {'nodes': [NODE], 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': node.port}
    return dispy.JobCluster(computation, **(ours | options))


def most_at_once(spans: list[tuple[float, float]]) -> int:
    moments = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


# gpus


@both
def test_each_job_sees_a_gpu_of_its_own(node: Node, isolation: str) -> None:
    with cluster_on(node, look, gpus=1, isolation=isolation) as cluster:
        jobs = [cluster.submit(GPUS, 0.2) for _ in range(4)]
        results = [job() for job in jobs]
    seen = {'GPU-a': [], 'MIG-b': []}  # type: dict[str, list[tuple[float, float]]]
    for (cuda, hip), start, end in results:
        assert cuda == hip
        seen[cuda].append((start, end))
    assert all(most_at_once(spans) == 1 for spans in seen.values())


@both
def test_a_job_may_have_several_gpus(node: Node, isolation: str) -> None:
    with cluster_on(node, look, gpus=2, isolation=isolation) as cluster:
        jobs = [cluster.submit(GPUS, 0.05) for _ in range(3)]
        results = [job() for job in jobs]
    assert {seen[0] for seen, _, _ in results} == {'GPU-a,MIG-b'}
    assert most_at_once([(start, end) for _, start, end in results]) == 1


@both
def test_who_asks_for_no_gpus_sees_none(node: Node, isolation: str) -> None:
    with cluster_on(node, look, isolation=isolation) as cluster:
        assert cluster.submit(GPUS)()[0] == ['', '-1']


def test_a_lasting_worker_keeps_its_gpu_whatever_a_job_does_to_the_variable(node: Node) -> None:
    with cluster_on(node, meddle, gpus=2, isolation='worker') as cluster:
        jobs = [cluster.submit(GPUS) for _ in range(3)]
        assert [job() for job in jobs] == [['GPU-a,MIG-b'] * 2] * 3


def test_idle_workers_give_their_gpus_to_another_cluster(node: Node) -> None:
    with (
        cluster_on(node, look, gpus=1, isolation='worker') as first,
        cluster_on(node, look, gpus=2, isolation='worker') as second,
    ):
        for cluster in (first, second, first):
            jobs = [cluster.submit(GPUS, 0.05) for _ in range(2)]
            assert all(',' in job()[0][0] for job in jobs) is (cluster is second)


def test_processes_of_a_job_see_what_it_sees(node: Node, tmp_path: Path) -> None:
    with cluster_on(node, look_from_below, gpus=2) as cluster:
        assert cluster.submit('CUDA_VISIBLE_DEVICES')() == 'GPU-a,MIG-b'
    program = tmp_path / 'tell'
    program.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with cluster_on(node, str(program), gpus=2, cpus=2) as cluster:
        job = cluster.submit()
        assert job() == 0
        assert job.stdout == 'GPU-a,MIG-b 2\n'


# cpus


@both
def test_jobs_of_two_cpus_do_not_share_them(node: Node, isolation: str) -> None:
    with (
        cluster_on(node, look, cpus=2, isolation=isolation, name='wide') as wide,
        cluster_on(node, look, isolation=isolation, name='narrow') as narrow,
    ):
        jobs = [cluster.submit(THREADS, 0.1) for _ in range(4) for cluster in (wide, narrow)]
        results = [(job._cluster is wide, *job()) for job in jobs]
    assert all(threads == ['2' if is_wide else '1'] * 3 for is_wide, threads, _, _ in results)
    spans = [(s, e) for is_wide, _, s, e in results for _ in range(2 if is_wide else 1)]
    assert most_at_once(spans) <= 2


def test_a_job_of_two_cpus_has_its_turn_among_many_of_one(node: Node) -> None:
    with cluster_on(node, look) as narrow, cluster_on(node, look, cpus=2) as wide:
        others = [narrow.submit((), 0.15) for _ in range(60)]
        eventually(lambda: others[0].status is DispyJob.Finished)
        job = wide.submit(())
        assert job.wait(LIMIT), wide.explain()
        assert any(other.status == DispyJob.Created for other in others)
        narrow.close(timeout=0, terminate=True)


# memory


@both
@pytest.mark.parametrize('below', [False, True])
def test_a_job_that_takes_more_memory_than_it_asked_for_is_ended(
    node: Node, isolation: str, below: bool
) -> None:
    with cluster_on(node, fill, memory='64m', isolation=isolation) as cluster:
        small, large = cluster.submit(10, 1.0), cluster.submit(100, 30.0, below)
        assert small() == 10
        assert large.wait(LIMIT)
        assert large.status == DispyJob.Terminated
        assert 'MiB of memory, and its cluster asks for 64 MiB per job' in large.reason
        assert cluster.submit(1, 0.0)() == 1  # the others go on


class Heavy:
    """Takes much memory for a while wherever it comes to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fill, (100, 1.3)


@pytest.fixture
def fresh_node(shared_home: Path) -> Iterator[Node]:
    """A node whose jobs are no forks of the process that setup ran in."""
    port = free_port()
    with node_program('-i', NODE, '-p', port, '-c', 1, env={'DISPY_NB_START': 'fresh'}):
        yield Node(port)


def make_heavy() -> int:
    global heavy
    heavy = Heavy()
    return 0


def use_heavy() -> object:
    return heavy


@pytest.mark.slow
@both
def test_what_setup_has_made_is_not_counted_where_each_process_gets_a_copy(
    fresh_node: Node, isolation: str
) -> None:
    ours = {'memory': '64m', 'isolation': isolation, 'setup': make_heavy}
    with cluster_on(fresh_node, use_heavy, **ours) as cluster:
        jobs = [cluster.submit() for _ in range(2)]
        assert cluster.wait(LIMIT)
        assert [(job.result, job.reason) for job in jobs] == [(100, ''), (100, '')]


def test_a_job_that_asks_for_none_may_take_any(node: Node) -> None:
    with cluster_on(node, fill) as cluster:
        assert cluster.submit(100, 1.2)() == 100


def test_memory_that_was_asked_for_is_promised_once(node: Node) -> None:
    total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    with cluster_on(node, look, memory=total // 2 + 1) as cluster:
        cluster.wait_for_nodes(timeout=LIMIT)
        if 'not used' in cluster.explain():
            pytest.skip('a control group allows less than half of the memory')
        jobs = [cluster.submit((), 0.1) for _ in range(3)]
        spans = [(start, end) for _, start, end in (job() for job in jobs)]
    assert most_at_once(spans) == 1


# what cannot be


@pytest.mark.parametrize(
    ('needs', 'words'),
    [
        ({'cpus': 3}, 'needs 3 cpus per job, the node gives it 2'),
        ({'gpus': 3}, 'needs 3 gpus per job, the node has 2'),
        ({'memory': '900t'}, 'needs 900 TiB per job, the node has'),
    ],
)
def test_where_no_node_fits_it_is_said(
    node: Node, needs: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster_on(node, look, **needs) as cluster:
        cluster.submit(())
        eventually(lambda: words in caplog.text, timeout=5.0)
        assert words in cluster.explain()
        cluster.close(timeout=0, terminate=True)


@pytest.mark.parametrize(
    ('name', 'wrong'),
    [
        *(('cpus', wrong) for wrong in (0, -1, 1.5, True, '2', None)),
        *(('gpus', wrong) for wrong in (-1, 0.5, False, '1', None)),
        *(('memory', wrong) for wrong in (0, -5, 1.5, True, '', 'much', '4x', '-1g', '0', [1])),
    ],
)
def test_wrong_values_are_errors_that_name_the_parameter(name: str, wrong: Any) -> None:
    with pytest.raises(dispy.UsageError, match=f'^{name} must be '):
        dispy.JobCluster(look, **{name: wrong})


@pytest.mark.parametrize(
    ('given', 'count'),
    [
        (None, 0),
        (1, 1),
        ('1', 1),
        ('4g', 4 << 30),
        (' 512M ', 512 << 20),
        ('1.5 GiB', 3 << 29),
        ('2kb', 2048),
        ('1T', 1 << 40),
    ],
)
def test_memory_is_a_number_of_bytes_or_text(given: Any, count: int) -> None:
    assert bytes_of(given) == count


def test_executors_take_them_too(node: Node) -> None:
    options = {'nodes': [NODE], 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': node.port}
    with dispy.Executor(gpus=1, cpus=2, **options) as executor:
        assert executor.submit(look, (*GPUS, *THREADS)).result()[0] == ['GPU-a'] * 2 + ['2'] * 3


# nodes


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which `nvidia-smi` lists two gpus."""
    program = tmp_path / 'nvidia-smi'
    lines = ''.join(f'GPU {n}: NVIDIA L4 (UUID: GPU-{n})\\n' for n in (0, 1))
    program.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)


@pytest.mark.usefixtures('two_gpus')
def test_nodes_of_a_program_share_the_gpus_that_are_found() -> None:
    with (
        dispy.LocalNodes(2, cpus=1) as local,
        dispy.JobCluster(look, nodes=local.nodes, gpus=1) as cluster,
    ):
        cluster.wait_for_nodes(2, LIMIT)
        jobs = [cluster.submit(GPUS, 0.3) for _ in range(2)]
        assert sorted(job()[0][0] for job in jobs) == ['GPU-0', 'GPU-1']


@pytest.mark.usefixtures('two_gpus')
@pytest.mark.parametrize(
    ('options', 'seen'), [((), 'GPU-0'), (('--gpus', '1'), 'GPU-0'), (('--gpus', '1,'), '1')]
)
def test_a_node_offers_all_gpus_or_some(options: tuple[str, ...], seen: str) -> None:
    port = free_port()
    with (
        node_program('-i', NODE, '-p', port, '-c', 1, *options),
        cluster_on(Node(port), look, gpus=1) as cluster,
    ):
        assert cluster.submit(GPUS)()[0][0] == seen


@pytest.mark.usefixtures('two_gpus')
def test_a_node_that_offers_no_gpus_shows_none() -> None:
    port = free_port()
    with (
        node_program('-i', NODE, '-p', port, '-c', 1, '--gpus', '0'),
        cluster_on(Node(port), look) as cluster,
    ):
        assert cluster.submit(GPUS)()[0] == ['', '-1']


@pytest.mark.usefixtures('two_gpus')
def test_gpus_that_are_not_there_cannot_be_offered() -> None:
    command = [sys.executable, '-m', 'nodeserver.cli.dispynode', '-p', '0', '--gpus', '3']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert '--gpus 3: this machine has 2 gpus' in done.stderr
    assert 'Traceback' not in done.stderr
