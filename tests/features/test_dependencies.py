"""Files and modules that computations and jobs depend on (sections F and H of the promises)."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dispy_nb as dispy
from tests.features.conftest import MakeCluster, outcome
from tests.support.programs import eventually

LIMIT = 30.0
HERE = '/proc/self/cwd'  # means another directory at each node: nothing can be copied from there


def read(name: str) -> tuple[str, str]:
    """Answer a file's content, and the job's directory."""
    import pathlib

    return pathlib.Path(name).read_text(), str(pathlib.Path.cwd())


def see(name: str, gate: str) -> tuple[str, str]:
    """Answer a file's content once the gate is open."""
    import pathlib
    import time

    pathlib.Path(f'{gate}.{pathlib.Path(name).read_text()}').touch()
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return pathlib.Path(name).read_text(), str(pathlib.Path.cwd())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty directory, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def module(project: Path, name: str, text: str) -> ModuleType:
    """Write and import a module of the user's."""
    import importlib

    path = project / f'{name.replace(".", "/")}.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.row('F07')
@pytest.mark.row('F10')
@pytest.mark.row('F14')
def test_files_are_in_the_working_directory_of_every_job_and_apart_for_each_cluster(
    project: Path, make_cluster: MakeCluster
) -> None:
    (project / 'data.txt').write_text('first')
    first = make_cluster(read, depends=['data.txt'])
    (project / 'data.txt').write_text('second')
    second = make_cluster(read, depends=[project / 'data.txt'])
    seen: set[str] = set()
    for cluster, text in ((first, 'first'), (second, 'second')):
        nodes = cluster.wait_for_nodes(2, LIMIT)
        jobs = [cluster.submit_node(node, 'data.txt') for node in nodes for _ in range(2)]
        assert [outcome(job)[0] for job in jobs] == [text] * 4
        places = {job.result[1] for job in jobs}
        assert len(places) == 2
        assert not places & seen
        seen |= places


@pytest.mark.row('F06')
def test_a_module_or_package_is_imported_by_its_name(
    project: Path, make_cluster: MakeCluster
) -> None:
    def use() -> Any:
        import plain_one  # type: ignore[import-not-found]
        import shop.tills  # type: ignore[import-not-found]

        return plain_one.VALUE, shop.tills.total(), plain_one.__file__

    plain = module(project, 'plain_one', 'VALUE = 7\n')
    (project / 'shop').mkdir()
    (project / 'shop/__init__.py').write_text('')
    (project / 'shop/prices.txt').write_text('3 4')
    shop = module(
        project,
        'shop.tills',
        'from pathlib import Path\n'
        'def total(): return sum(map(int, (Path(__file__).parent / "prices.txt").read_text()'
        '.split()))\n',
    )
    import shop as package  # type: ignore[import-not-found]

    for depends in ([plain, package], [plain, shop, 'shop/prices.txt'], [plain, 'shop']):
        cluster = make_cluster(use, depends=depends)
        value, total, file = outcome(cluster.submit())
        assert (value, total) == (7, 7)
        assert not file.startswith(str(project))
        cluster.close()


@pytest.mark.row('F08')
def test_a_program_has_its_modules_and_files(project: Path, make_cluster: MakeCluster) -> None:
    aid = module(project, 'program_aid', 'def double(n): return 2 * n\n')
    (project / 'factor.txt').write_text('21')
    script = project / 'work.py'
    script.write_text(
        f'#!{sys.executable}\nimport program_aid\n'
        'print(program_aid.double(int(open("factor.txt").read())))\n'
    )
    script.chmod(0o755)
    cluster = make_cluster('work.py', depends=[aid, 'factor.txt'])
    job = cluster.submit()
    assert outcome(job) == 0
    assert job.stdout == '42\n'


@pytest.mark.row('F11')
@pytest.mark.row('F13')
def test_a_jobs_own_files_are_there_for_it_and_gone_afterwards(
    project: Path, make_cluster: MakeCluster, pair: Any
) -> None:
    (project / 'deep/er').mkdir(parents=True)
    (project / 'deep/er/own.txt').write_text('mine')
    (project / 'shared.txt').write_text('ours')
    cluster = make_cluster(
        read, depends=['shared.txt'], nodes=[pair.addresses[0]], cleanup=False, dest_path='kept'
    )
    job = cluster.submit('deep/er/own.txt', dispy_job_depends=['deep/er/own.txt'])
    text, where = outcome(job)
    assert text == 'mine'
    eventually(lambda: not Path(where, 'deep').exists(), LIMIT)
    late = cluster.submit('deep/er/own.txt')
    assert late.wait(LIMIT)
    assert 'FileNotFoundError' in str(late.exception)
    assert outcome(cluster.submit('shared.txt'))[0] == 'ours'
    cluster.close()
    assert Path(where, 'shared.txt').read_text() == 'ours'


def test_jobs_with_different_files_of_one_name_do_not_meet(
    project: Path, make_cluster: MakeCluster, pair: Any
) -> None:
    """The node has one cpu: the second job waits with its file until the first one is done."""
    gate = project / 'gate'
    cluster = make_cluster(see, nodes=[pair.addresses[0]])
    jobs = []
    for text in ('one', 'two', 'three'):
        (project / text).mkdir()
        os.chdir(project / text)
        Path('input.txt').write_text(text)
        jobs.append(cluster.submit('input.txt', str(gate), dispy_job_depends=['input.txt']))
    eventually(Path(f'{gate}.one').exists, LIMIT)
    gate.touch()
    assert [outcome(job)[0] for job in jobs] == ['one', 'two', 'three']


def test_a_jobs_file_never_replaces_one_of_the_computation(
    project: Path, make_cluster: MakeCluster
) -> None:
    Path('input.txt').write_text('everybody')
    cluster = make_cluster(read, depends=['input.txt'])
    assert outcome(cluster.submit('input.txt', dispy_job_depends=['input.txt']))[0] == 'everybody'
    Path('input.txt').write_text('mine alone')
    job = cluster.submit('input.txt', dispy_job_depends=['input.txt'])
    assert job.wait(LIMIT)
    assert job.status == dispy.DispyJob.Terminated
    assert "input.txt would replace the computation's own file" in str(job.exception)
    assert outcome(cluster.submit('input.txt'))[0] == 'everybody'


@pytest.mark.row('F15')
def test_files_that_are_there_already_are_not_sent_again(
    project: Path, make_cluster: MakeCluster, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, other = Path(HERE, 'same.txt'), Path(HERE, 'other.txt')
    Path('same.txt').write_text('unchanged')
    Path('other.txt').write_text('before')
    options = {'nodes': [pair.addresses[0]], 'dest_path': 'again', 'cleanup': False}
    first = make_cluster(read, depends=[same, other], **options)
    where = outcome(first.submit('same.txt'))[1]
    kept = Path(where, 'same.txt').stat()
    first.close()
    Path('other.txt').write_text('afterwards')
    second = make_cluster(read, depends=[same, other], **options)
    assert outcome(second.submit('other.txt'))[0] == 'afterwards'
    now = Path(where, 'same.txt').stat()
    assert (now.st_ino, now.st_ctime_ns >= kept.st_ctime_ns) == (kept.st_ino, True)


@pytest.mark.row('F16')
@pytest.mark.row('H09')
def test_files_keep_their_times_and_go_with_the_cluster_unless_they_are_to_stay(
    project: Path, make_cluster: MakeCluster, pair: Any
) -> None:
    path = project / 'old.txt'
    path.write_text('old')
    os.utime(path, ns=(1_000_000_000_123_456_789, 1_000_000_000_123_456_789))
    path.chmod(0o640)
    for cleanup in (True, False):
        cluster = make_cluster(read, depends=[str(path)], cleanup=cleanup)
        where = Path(outcome(cluster.submit('old.txt'))[1])
        found = (where / 'old.txt').stat()
        assert (found.st_mtime_ns, found.st_mode & 0o777) == (1_000_000_000_123_456_789, 0o640)
        cluster.close()
        assert (where / 'old.txt').exists() == (not cleanup)
        assert where.exists() == (not cleanup)


def test_files_of_any_size_and_name_arrive_whole(project: Path, make_cluster: MakeCluster) -> None:
    def digests(names: list[bytes]) -> list[tuple[int, str]]:
        import hashlib
        import pathlib

        contents = [pathlib.Path(os.fsdecode(name)).read_bytes() for name in names]
        return [(len(content), hashlib.sha256(content).hexdigest()) for content in contents]

    names = [b'a b', b'line\nfeed', b'x' * 255, b'\xff\xfe', 'ümläut'.encode(), b'-rf', b'empty']
    sizes = [1, 4096, 983_040, 983_041, 5_000_000, 65_536, 0]
    for name, size in zip(names, sizes, strict=True):
        Path(os.fsdecode(name)).write_bytes(os.urandom(size))
    cluster = make_cluster(digests, depends=[Path(HERE, os.fsdecode(name)) for name in names])
    assert outcome(cluster.submit(names)) == digests(names)


@pytest.mark.parametrize(
    ('depends', 'words'),
    [
        (['missing.txt'], r"depends\[0\]: 'missing.txt' cannot be sent: No such file"),
        (['.', '/dev/null'], r"depends\[1\]: '/dev/null' is neither a file nor a directory"),
        (['tree'], r'depends\[0\]: .*tree/out is a link that leads out of'),
        (['around'], r'depends\[0\]: .*around/link is a link to a directory'),
        (['a/same', '/proc/self/cwd/b/same', '/proc/self/cwd/a/same'], r'would both be same'),
    ],
)
def test_what_cannot_be_sent_is_an_error_before_anything_is_sent(
    project: Path, depends: list[str], words: str
) -> None:
    for name in ('tree', 'around', 'a', 'b', 'around/inside'):
        Path(name).mkdir()
    Path('tree/out').symlink_to('/etc/hostname')
    Path('around/link').symlink_to('inside')
    for name in 'ab':
        Path(name, 'same').write_text(name)
    if depends[0] == '.':
        depends = ['a', *depends[1:]]
    with pytest.raises(dispy.UsageError, match=words):
        dispy.JobCluster(read, ['127.0.0.1'], depends, ip_addr='127.0.0.1', port=0)


def test_a_missing_file_of_a_job_is_an_error_at_once(
    project: Path, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(read)
    with pytest.raises(dispy.UsageError, match=r'dispy_job_depends\[1\]: .*missing'):
        cluster.submit('x', dispy_job_depends=[project / '.', 'missing'])


def test_a_file_that_changes_while_it_is_sent_is_told(
    project: Path, make_cluster: MakeCluster, pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is digested when the job is submitted, and sent when a cpu is free for it."""
    gate = project / 'gate'
    Path('hold').write_text('held')
    cluster = make_cluster(see, nodes=[pair.addresses[0]])
    first = [cluster.submit('hold', str(gate), dispy_job_depends=['hold'])]
    eventually(Path(f'{gate}.held').exists, LIMIT)
    first += [cluster.submit('hold', str(gate), dispy_job_depends=['hold']) for _ in range(8)]
    Path('late.txt').write_text('before' * 20_000)  # small ones are kept from the beginning
    Path('before').write_text('is there when the other one fails')
    depends = ['before', Path(HERE, 'late.txt')]
    job = cluster.submit('late.txt', str(gate), dispy_job_depends=depends)
    Path('late.txt').write_text('changed')
    gate.touch()
    assert job.wait(LIMIT)
    assert 'late.txt was changed before it was sent' in str(job.exception)
    ends = [outcome(each) for each in first]
    assert [text for text, _ in ends] == ['held'] * 9
    eventually(lambda: list(Path(ends[0][1]).iterdir()) == [], LIMIT)


@pytest.mark.row('C09')
def test_a_job_for_one_node_has_its_files_there(
    project: Path, make_cluster: MakeCluster, pair: Any
) -> None:
    (project / 'own.txt').write_text('mine')
    cluster = make_cluster(read)
    for address in pair.addresses:
        job = cluster.submit_node(address, 'own.txt', dispy_job_depends=['own.txt'])
        assert outcome(job)[0] == 'mine'
        assert job.ip_addr == address


def answer_of(name: str) -> int:
    import importlib

    answer: int = importlib.import_module(name).ANSWER
    return answer


@pytest.mark.row('F13')
def test_a_module_of_one_job_is_no_module_of_the_next_in_the_same_process(
    project: Path, make_cluster: MakeCluster
) -> None:
    import importlib

    cluster = make_cluster(answer_of, nodes=['127.0.0.2'], isolation='worker')
    changing = module(project, 'changing', 'ANSWER = 1\n')
    assert outcome(cluster.submit('changing', dispy_job_depends=[changing])) == 1
    (project / 'changing.py').write_text('ANSWER = 1000\n')
    importlib.reload(changing)
    assert outcome(cluster.submit('changing', dispy_job_depends=[changing])) == 1000


def leave(name: str) -> str:
    """Remove the directory of all jobs."""
    import os
    import pathlib
    import shutil

    text = pathlib.Path(name).read_text()
    shutil.rmtree(os.getcwd())  # noqa: PTH109
    return text


def test_a_job_that_removes_its_directory_harms_no_job_that_brings_files(
    project: Path, make_cluster: MakeCluster, pair: Any
) -> None:
    Path('own.txt').write_text('mine')
    cluster = make_cluster(leave, nodes=[pair.addresses[0]])
    for _ in range(3):
        assert outcome(cluster.submit('own.txt', dispy_job_depends=['own.txt'])) == 'mine'
