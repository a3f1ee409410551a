"""Files sent while jobs run: to a node by the program, to the program by jobs (section H)."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.features.conftest import MakeCluster, outcome
from tests.support.programs import client_program, eventually, free_port, node_program

LIMIT = 30.0


def send(names: list[str]) -> list[int]:
    """Write a file of each name, and send it."""
    import pathlib

    answers = []
    for number, name in enumerate(names):
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{number}: {name}')
        answers.append(dispy_send_file(name))  # type: ignore[name-defined]  # noqa: F821
    return answers


def look(name: str) -> tuple[str, str]:
    import pathlib

    return pathlib.Path(name).read_text(), str(pathlib.Path.cwd())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(here: Path) -> list[str]:
    """What lies there beside the journal of the program."""
    return sorted(path.name for path in here.iterdir() if not path.name.startswith('_dispy_'))


@pytest.mark.row('H01')
@pytest.mark.row('H02')
@pytest.mark.row('H05')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_files_of_jobs_land_below_the_clients_directory_at_the_same_path(
    here: Path, make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(send, isolation=isolation)
    names = ['out.txt', 'deep/er/out.txt', 'a b\nc', 'deep/more']
    assert outcome(cluster.submit(names)) == [0] * 4
    for number, name in enumerate(names):
        assert (here / name).read_text() == f'{number}: {name}'


@pytest.mark.row('H03')
@pytest.mark.row('H06')
def test_later_files_of_one_path_replace_earlier_ones(
    here: Path, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(send)
    for number in range(3):
        names = [f'other{n}' for n in range(number)] + ['same.txt']
        assert outcome(cluster.submit(names)) == [0] * (number + 1)
        assert (here / 'same.txt').read_text() == f'{number}: same.txt'
    assert files_in(here) == ['other0', 'other1', 'same.txt']


def rewrite(times: int) -> list[int]:
    answers = []
    for _ in range(times):
        Path('file.dat').write_text('x')
        answers.append(dispy_send_file('file.dat'))  # type: ignore[name-defined]  # noqa: F821
    return answers


@pytest.mark.row('H06')
def test_jobs_of_one_node_send_files_of_one_path_at_once(here: Path, own_home: Path) -> None:
    with (
        dispy.LocalNodes(1, cpus=2) as local,
        dispy.JobCluster(rewrite, local.nodes, ip_addr='127.0.0.1', port=0) as cluster,
    ):
        jobs = [cluster.submit(10) for _ in range(4)]
        assert [outcome(job) for job in jobs] == [[0] * 10] * 4
    assert (here / 'file.dat').read_text() in ('x', '')  # one may have begun to write anew


def test_a_file_that_leads_elsewhere_stays_below_the_clients_directory(
    here: Path, make_cluster: MakeCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp('outside')
    (here / 'way').symlink_to(outside)
    cluster = make_cluster(send)
    job = cluster.submit(['../escaped.txt', str(outside / 'absolute.txt'), 'way/out.txt'])
    assert outcome(job) == [0, 0, -1]
    assert 'way is a link, or no directory' in job.stderr
    assert (here / 'escaped.txt').exists()
    assert (here / 'absolute.txt').exists()
    assert not (here.parent / 'escaped.txt').exists()
    assert list(outside.iterdir()) == [outside / 'absolute.txt']  # that the job itself wrote


def test_what_is_no_file_is_not_sent_and_the_job_is_told(
    here: Path, make_cluster: MakeCluster
) -> None:
    def send_odd() -> list[int]:
        os.mkfifo('pipe')
        return [
            dispy_send_file(name)  # type: ignore[name-defined]  # noqa: F821
            for name in ('missing', '.', 'pipe', 7)
        ]

    job = make_cluster(send_odd).submit()
    assert outcome(job) == [-1] * 4
    assert "dispy_send_file('missing'): No such file" in job.stderr
    assert 'a path was expected, not int' in job.stderr
    assert files_in(here) == []


@pytest.mark.row('H04')
@pytest.mark.row('K11')
def test_no_part_of_a_file_above_the_limit_is_stored_on_either_side(
    here: Path, shared_home: Path, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def send_large(size: int) -> int:
        import pathlib

        pathlib.Path('large').write_bytes(bytes(size))
        answer: int = dispy_send_file('large')  # type: ignore[name-defined]  # noqa: F821
        return answer

    limit = 10 << 20  # of a node that was not told another
    port = free_port()
    Path('much').write_bytes(bytes(limit + 1))
    options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    with (
        node_program('-i', '127.0.0.2', '-p', port, '-c', 1),
        dispy.JobCluster(send_large, ['127.0.0.2'], **options) as cluster,
    ):
        job = cluster.submit(limit + 1)
        assert outcome(job) == -1
        assert 'it has 10,485,761 bytes and this node sends files of at most' in job.stderr
        assert not (here / 'large').exists()
        assert outcome(cluster.submit(limit)) == 0
        assert (here / 'large').stat().st_size == limit
        (node,) = cluster.wait_for_nodes(1)
        assert cluster.send_file('much', node) == -1
        assert 'start dispynode with a larger --max_file_size' in caplog.text
        job = cluster.submit(1, dispy_job_depends=['much'])
        assert job.wait(LIMIT)
        assert 'much has 10,485,761 bytes and this node takes files of at most' in job.exception
        where = Path(outcome_of_directory(cluster, node))
        assert [path.name for path in where.iterdir()] == ['large']
        with dispy.JobCluster(send_large, ['127.0.0.2'], ['much'], **options) as other:
            eventually(lambda: 'much has 10,485,761 bytes' in other.explain(), LIMIT)


def outcome_of_directory(cluster: dispy.JobCluster, node: dispy.DispyNode) -> str:
    """Where the jobs of a cluster are, found by the file that one of them has left there."""
    import psutil

    for process in psutil.process_iter():
        try:
            where = process.cwd()
        except psutil.Error:
            continue
        if where.rpartition('/')[2].startswith('send_large_'):
            return where
    raise AssertionError('no process is in a directory of the cluster')


@pytest.mark.row('H07')
@pytest.mark.row('H08')
def test_each_node_gets_a_file_of_its_own_when_it_is_ready(
    here: Path, make_cluster: MakeCluster
) -> None:
    jobs: list[dispy.DispyJob] = []
    answers: list[int] = []

    def status(status: int, node: dispy.DispyNode, job: dispy.DispyJob | None) -> None:
        if status == dispy.DispyNode.Initialized:
            path = Path('parts', node.name)
            path.mkdir(parents=True)
            (path / 'part.txt').write_text(f'for {node.name}')
            answers.append(clusters[0].send_file(path / 'part.txt', node))
            jobs.append(clusters[0].submit_node(node, 'part.txt'))

    clusters: list[dispy.JobCluster] = []
    clusters.append(make_cluster(look, cluster_status=status))
    eventually(lambda: len(jobs) == 2, LIMIT)
    assert {outcome(job)[0] for job in jobs} == {'for alpha', 'for beta'}
    assert answers == [0, 0]
    Path('other.txt').write_text('by address')
    assert clusters[0].send_file('other.txt', '127.0.0.2') == 0
    assert clusters[0].send_file(Path('other.txt'), 'beta') == 0
    assert outcome(clusters[0].submit_node('127.0.0.2', 'other.txt'))[0] == 'by address'


def test_send_file_tells_what_is_wrong(
    here: Path, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make_cluster(look)
    cluster.wait_for_nodes(1, LIMIT)
    for path in ('missing', 5, None):
        with pytest.raises(dispy.UsageError, match=f'path must be a file.*{path}'):
            cluster.send_file(path, '127.0.0.2')  # type: ignore[arg-type]
    with pytest.raises(dispy.UsageError, match='path must be a file'):
        cluster.send_file(here, '127.0.0.2')
    Path('file').write_text('x')
    with pytest.raises(dispy.UsageError, match='node must be'):
        cluster.send_file('file', 7)  # type: ignore[arg-type]
    assert cluster.send_file('file', '127.0.0.99') == -1
    assert '127.0.0.99 is not ready' in caplog.text
    cluster.close()
    with pytest.raises(dispy.ClusterClosed):
        cluster.send_file('file', '127.0.0.2')


@pytest.mark.row('U05')
def test_the_send_file_program_of_the_documents_delivers_its_file(
    here: Path, pair: Any, shared_home: Path, own_home: Path
) -> None:
    program = f"""
import os
import dispy_nb as dispy

def compute(n):
    import time, socket
    open("file.dat", "w").write("x" * n)
    result = n
    dispy_send_file("file.dat")
    return result

if __name__ == '__main__':
    os.chdir({str(here)!r})
    cluster = dispy.JobCluster(compute, nodes={list(pair.addresses)}, port=0,
                               ip_addr='127.0.0.1', node_port={pair.port})
    job = cluster.submit(5)
    print(job(), open('file.dat').read())
    cluster.close()
"""
    env = {'HOME': str(shared_home), 'XDG_CONFIG_HOME': str(shared_home / '.config')}
    env['XDG_RUNTIME_DIR'] = str(shared_home / 'run')
    done = client_program(program, env=env)
    assert done.stdout == '5 xxxxx\n'


@pytest.mark.slow
def test_a_job_that_sends_a_file_to_a_program_that_was_killed_goes_on(
    here: Path, pair: Any, shared_home: Path, own_home: Path, make_cluster: MakeCluster
) -> None:
    """It gets -1, and the node is free for the next program."""
    program = f"""
import dispy_nb as dispy

def compute(gate):
    import pathlib, time
    pathlib.Path(gate + '.begun').touch()
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)
    pathlib.Path('late.txt').write_text('late')
    pathlib.Path(gate + '.answer').write_text(str(dispy_send_file('late.txt')))

cluster = dispy.JobCluster(compute, nodes=['127.0.0.2'], port=0, ip_addr='127.0.0.1',
                           node_port={pair.port})
job = cluster.submit({str(here / 'gate')!r})
job()
"""
    import subprocess
    import sys

    env = {**os.environ, 'HOME': str(shared_home)}
    env['XDG_CONFIG_HOME'] = str(shared_home / '.config')
    env['XDG_RUNTIME_DIR'] = str(shared_home / 'run')
    client = subprocess.Popen([sys.executable, '-c', program], env=env, cwd=here)
    try:
        eventually((here / 'gate.begun').exists, LIMIT)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait(LIMIT)
    eventually(lambda: 'is gone' in pair.alpha.log(), LIMIT)
    (here / 'gate').touch()
    eventually(lambda: (here / 'gate.answer').exists(), LIMIT)
    eventually(lambda: (here / 'gate.answer').read_text() == '-1', LIMIT)
    assert not (here / 'late.txt').exists()
    assert outcome(make_cluster(send, nodes=['127.0.0.2']).submit([])) == []


def test_files_are_had_by_jobs_and_by_wish_after_a_job_has_sent_one(
    here: Path, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(send, nodes=['127.0.0.2'])
    assert outcome(cluster.submit(['first'])) == [0]
    (here / 'own').write_text('of the job')
    job = cluster.submit(['second'], dispy_job_depends=[here / 'own'])
    assert outcome(job) == [0]
    assert cluster.send_file(here / 'own', '127.0.0.2') == 0


def test_a_job_cannot_replace_a_file_that_was_sent_to_its_node_and_does_not_wait_for_ever(
    here: Path, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(look, nodes=['127.0.0.2'])
    (here / 'data').write_text('one')
    eventually(lambda: cluster.send_file(here / 'data', '127.0.0.2') == 0, LIMIT)
    (here / 'data').write_text('two')
    job = cluster.submit('data', dispy_job_depends=[here / 'data'])
    assert job.wait(LIMIT), job.explain()
    assert "data would replace the computation's own file" in str(job.exception)
    assert outcome(cluster.submit('data'))[0] == 'one'


def send_directory() -> int:
    import pathlib

    pathlib.Path('some').mkdir()
    return dispy_send_file('some')  # type: ignore[name-defined, no-any-return]  # noqa: F821


def test_a_directory_that_is_sent_is_refused_by_its_name(
    here: Path, make_cluster: MakeCluster
) -> None:
    job = make_cluster(send_directory).submit()
    assert (outcome(job), job.stderr) == (-1, "dispy_send_file('some'): it is no file\n")


def send_large() -> int:
    import pathlib

    with pathlib.Path('large').open('wb') as file:
        file.truncate(1 << 30)
    return dispy_send_file('large')  # type: ignore[name-defined, no-any-return]  # noqa: F821


@pytest.mark.row('C12')
@pytest.mark.usefixtures('own_home')
def test_a_file_that_a_cancelled_job_sends_does_not_appear_later(here: Path) -> None:
    def parts() -> list[str]:
        return [name for name in files_in(here) if name != 'home']

    with dispy.LocalNodes(1, cpus=1) as local, dispy.JobCluster(send_large, local.nodes) as cluster:
        job = cluster.submit()
        eventually(parts, LIMIT)
        cluster.cancel(job)
        assert job.wait(LIMIT)
        assert job.status == dispy.DispyJob.Cancelled
        eventually(lambda: not parts(), LIMIT, lambda: str(parts()))
