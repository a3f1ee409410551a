"""Nodes whose disk is full or cannot be written: whoever waits is told, and nothing is left."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispy_nb as dispy
from tests.support.programs import eventually, free_port, node_program

LIMIT = 30.0
ADDRESS = '127.0.0.2'
HERE = Path('/proc/self/cwd')


def size(name: str) -> int:
    import pathlib

    return pathlib.Path(name).stat().st_size


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, with room for no more."""
    place = tmp_path / 'disk'
    place.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', place], check=True)
    try:
        yield place
    finally:
        subprocess.run(['umount', '-l', place], check=True)


@pytest.mark.netns  # it needs root as well, to mount a small disk
def test_a_full_disk_is_told_and_the_node_goes_on(
    small_disk: Path,
    own_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('large').write_bytes(bytes(6_000_000))
    Path('small').write_bytes(bytes(100_000))
    port = free_port()

    def make(**options: object) -> dispy.JobCluster:
        where = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
        return dispy.JobCluster(size, [ADDRESS], **where, **options)  # type: ignore[arg-type]

    words = 'a file could not be stored: No space left on device'
    with node_program('-i', ADDRESS, '-p', port, '-c', 1, '--dest_path_prefix', small_disk):
        for path in (HERE / 'large', Path('large').resolve()):  # that is sent, or copied
            with make(depends=[path]) as cluster:
                eventually(lambda: words in cluster.explain(), LIMIT)
        with make(depends=[HERE / 'small']) as cluster:
            (node,) = cluster.wait_for_nodes(1, LIMIT)
            assert cluster.submit('small')() == 100_000
            assert cluster.send_file(HERE / 'large', node) == -1
            assert words in caplog.text
            job = cluster.submit('large', dispy_job_depends=[HERE / 'large'])
            assert job.wait(LIMIT)
            assert words in str(job.exception)
            assert cluster.submit('small')() == 100_000
            left = [path.name for path in small_disk.rglob('*') if path.is_file()]
            assert left.count('small') == 1
            assert not [name for name in left if 'large' in name or 'part' in name]


def test_a_directory_that_cannot_be_made_is_told(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('small').write_bytes(b'x')
    prefix = tmp_path / 'prefix'
    prefix.mkdir()
    (prefix / 'taken').write_text('a file is in the way')
    port = free_port()

    def is_told(cluster: dispy.JobCluster) -> bool:
        words = cluster.explain()
        return 'no directory for it' in words and 'taken is in the way' in words

    with node_program('-i', ADDRESS, '-p', port, '-c', 1, '--dest_path_prefix', prefix):
        where = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
        for depends in ([], ['small']):
            with dispy.JobCluster(
                size,
                [ADDRESS],
                depends,
                dest_path='taken/inside',
                **where,  # type: ignore[arg-type]
            ) as cluster:
                eventually(lambda cluster=cluster: is_told(cluster), LIMIT)  # type: ignore[misc]
        with dispy.JobCluster(size, [ADDRESS], ['small'], **where) as cluster:  # type: ignore[arg-type]
            assert cluster.submit('small')() == 1
