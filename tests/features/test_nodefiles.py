"""Where a node keeps files, and which it takes (L15, L16, L20); what a client says (A07, A24)."""

from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.support.programs import client_program, eventually, free_port, node_program

ADDRESS = '127.0.0.2'
LIMIT = 30.0


def where(name: str = '') -> str:
    import pathlib

    if name:
        pathlib.Path('made').mkdir(exist_ok=True)
        pathlib.Path('made', name).write_text('by a job')
    return str(pathlib.Path.cwd())


def send(size: int) -> int:
    import pathlib

    pathlib.Path('sized').write_bytes(bytes(size))
    answer: int = dispy_send_file('sized')  # type: ignore[name-defined]  # noqa: F821
    return answer


def open_cluster(function: Any, port: int, **options: Any) -> dispy.JobCluster:
    here = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    return dispy.JobCluster(function, [ADDRESS], **here, **options)


@pytest.mark.row('L15')
@pytest.mark.row('L16')
def test_each_cluster_has_a_directory_below_the_nodes_own_and_nothing_stays_unless_it_is_to(
    tmp_path: Path, own_home: Path
) -> None:
    prefix, port = tmp_path / 'prefix', free_port()
    (tmp_path / 'sent').write_text('sent')
    with node_program('-i', ADDRESS, '-p', port, '--dest_path_prefix', prefix):
        before = set(prefix.rglob('*'))
        options: list[dict[str, Any]] = [{}, {}, {'dest_path': 'a/b'}]
        clusters = [
            open_cluster(where, port, depends=[tmp_path / 'sent'], **more) for more in options
        ]
        places = [Path(cluster.submit('file')()) for cluster in clusters]
        assert len(set(places)) == 3
        assert all(place.is_relative_to(prefix) for place in places)
        assert places[2] == prefix.resolve() / 'a/b'
        for cluster in clusters:
            cluster.close()
        eventually(lambda: set(prefix.rglob('*')) == before, LIMIT)
        with open_cluster(where, port, depends=[tmp_path / 'sent'], cleanup=False) as cluster:
            place = Path(cluster.submit('file')())
        assert (place / 'sent').read_text() == 'sent'
        assert (place / 'made/file').read_text() == 'by a job'


@pytest.mark.slow
@pytest.mark.row('L20')
def test_max_file_size_counts_in_units_of_1024_and_0_is_no_limit(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds without the option is in `test_sentfiles.py`."""
    monkeypatch.chdir(tmp_path)
    for given, limit in (('1000', 1000), ('2k', 2048), ('1M', 1 << 20), ('0', 0)):
        port = free_port()
        options = ('-i', ADDRESS, '-p', port, '-c', 1, '--max_file_size', given)
        with node_program(*options), open_cluster(send, port) as cluster:
            if not limit:
                assert cluster.submit(11 << 20)() == 0
                continue
            assert cluster.submit(limit)() == 0
            assert Path('sized').stat().st_size == limit
            (node,) = cluster.wait_for_nodes(1)
            assert cluster.send_file('sized', node) == 0
            with Path('sized').open('ab') as file:
                file.write(b'x')
            assert cluster.send_file('sized', node) == -1
            assert cluster.submit(limit + 1)() == -1


@pytest.mark.row('A07')
def test_globals_that_a_function_uses_travel_and_modules_are_imported_on_the_node(
    tmp_path: Path, own_home: Path
) -> None:
    """As decided: what the original could not do.  What the program itself has stays there."""
    port = free_port()
    program = f"""
import os
import dispy_nb as dispy

factor = 7
unused = open(os.devnull)  # cannot travel, and need not

def compute(n):
    global factor
    factor += n
    return factor, os.getpid(), 'unused' in globals()

with dispy.JobCluster(compute, [{ADDRESS!r}], ip_addr='127.0.0.1', port=0,
                      node_port={port}) as cluster:
    jobs = [cluster.submit(n) for n in (1, 2)]
    print([job()[0] for job in jobs], any(job()[1] == os.getpid() for job in jobs))
    print(factor, jobs[0]()[2])
"""
    with node_program('-i', ADDRESS, '-p', port, '-c', 1):
        assert client_program(program).stdout == '[8, 9] False\n7 False\n'


@pytest.mark.slow
@pytest.mark.row('A24')
def test_loglevel_says_how_much_is_told(own_home: Path) -> None:
    port = free_port()
    program = f"""
import logging, sys
import dispy_nb as dispy

def fail(n):
    raise ValueError(n)

def check(job):
    raise KeyError(job.id)

level = dict(debug=dispy.logger.DEBUG, info=dispy.logger.INFO, warning=dispy.logger.WARNING,
             error=dispy.logger.ERROR, critical=dispy.logger.CRITICAL)[LEVEL]
options = dict(ip_addr='127.0.0.1', port=0, node_port={port}, callback=check)
if LEVEL != 'warning':  # the default
    options['loglevel'] = level
with dispy.JobCluster(fail, [{ADDRESS!r}], **options) as cluster:
    cluster.wait_for_nodes(1)
    cluster.options(retries=1).submit(1).wait()
"""
    sizes = []
    with node_program('-i', ADDRESS, '-p', port, '-c', 1):
        for level in ('debug', 'info', 'error', 'critical'):
            done = client_program(f'LEVEL = {level!r}\n' + program)
            sizes.append(done.stderr.count('\n'))
            assert ('KeyError' in done.stderr) == (level != 'critical')
            assert ('is run again' in done.stderr) == (level in ('debug', 'info'))
            assert ('job 1 terminated' in done.stderr) == (level == 'debug')
        usual = client_program("LEVEL = 'warning'\n" + program).stderr
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > sizes[3] == 0
    assert 'is run again' not in usual
    assert 'KeyError' in usual
