"""What programs make is for their user alone, and goes nowhere else, whatever names are given."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import client_program, free_port, node_program

ADDRESS = '127.0.0.2'
UMASK = ('sh', '-c', 'umask 0; exec "$@"', 'sh')  # whatever is private is so by itself

NAMES = [
    'of two\nlines',
    '-rf',
    '--',
    '\x1b]0;a title\x07',
    os.fsdecode(b'\xff\xfe'),
    'n' * 255,
    '$(touch pwned)',
    '; touch pwned',
    '\'"`',
    ' ',
    '...',
    '\u202egpj',
]
HOSTILE = """
import os
import dispy_nb as dispy

NAMES = {names!r}

def work(names):
    import os
    here = sorted(os.listdir('.'))
    answers = []
    for name in names:
        with open(name, 'a') as file:
            file.write(' and back')
        answers.append(dispy_send_file(name))
    return here, answers

for name in NAMES:
    with open(name, 'w') as file:
        file.write('sent')
with dispy.JobCluster(work, [{address!r}], ip_addr='127.0.0.1', port=0, node_port={port},
                      depends=NAMES) as cluster:
    job = cluster.submit(NAMES)
    job()
    assert not job.exception, job.exception
    here, answers = job.result
    assert here == sorted(NAMES), here
    assert answers == [0] * len(NAMES), answers
    for name in NAMES:
        with open(name) as file:
            assert file.read() == 'sent and back', name
    mine = [name for name in os.listdir('.') if not name.startswith('_dispy_')]  # its journal
    assert sorted(mine) == sorted([*NAMES, 'script.py'])
    refused = cluster.submit(['../out', '/tmp/' + 'n' * 256, 'a/../../b'])
    refused()
    print(ascii((refused.exception or refused.result[1])))
"""


def test_files_of_any_name_come_and_go_and_do_nothing_else(tmp_path: Path) -> None:
    port, prefix = free_port(), tmp_path / 'node'
    options = ('-i', ADDRESS, '-p', port, '--dest_path_prefix', prefix, '-d')
    with node_program(*options) as node:
        source = HOSTILE.format(names=NAMES, address=ADDRESS, port=port)
        client_program(source)
        log = node.log()
    assert '\x1b' not in log
    assert not list(prefix.rglob('pwned'))
    assert [path.name for path in tmp_path.iterdir()] == ['node']


def files_below(*places: Path) -> Iterator[Path]:
    for place in places:
        yield place
        yield from place.rglob('*')


WATCHED = """
import os, time
import dispy_nb as dispy

def work():
    import time
    dispy_provisional_result(1)
    while not os.path.exists({go!r}):
        time.sleep(0.01)

with open('sent', 'w') as file:
    file.write('x')
os.chmod('sent', 0o600)
with dispy.JobCluster(work, [{address!r}], ip_addr='127.0.0.1', port=0, node_port={port},
                      depends=['sent', os]) as cluster:
    job = cluster.submit()
    while job.status != dispy.DispyJob.ProvisionalResult:
        time.sleep(0.01)
    open({there!r}, 'w').close()
    job()
"""


def test_directories_files_and_sockets_are_for_their_user_alone(
    own_home: Path, tmp_path: Path
) -> None:
    port, go, there = free_port(), tmp_path / 'go', tmp_path / 'there'
    source = WATCHED.format(go=str(go), there=str(there), address=ADDRESS, port=port)
    with node_program('-i', ADDRESS, '-p', port, within=UMASK):
        script = tmp_path / 'script.py'
        script.write_text(source)
        client = subprocess.Popen([*UMASK, sys.executable, str(script)], cwd=tmp_path)
        try:
            while client.poll() is None and not there.exists():
                os.sched_yield()
            made = [path for path in files_below(own_home) if path != own_home]
            modes = {path: path.lstat().st_mode for path in made}
        finally:
            go.touch()
            assert client.wait(20) == 0
    kinds = {stat.S_IFMT(mode) for mode in modes.values()}
    assert {stat.S_IFDIR, stat.S_IFREG, stat.S_IFSOCK} <= kinds
    behind = {path for path, mode in modes.items() if not mode & 0o077 and stat.S_ISDIR(mode)}
    for path, mode in modes.items():
        # what lies in a directory that nobody else may enter needs no mode of its own
        assert not mode & 0o077 or behind & {*path.parents}, (path, oct(mode))
    assert own_home / '.config' / 'dispy-nb' in behind


def link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def of_another_user(place: Path, elsewhere: Path) -> None:
    place.mkdir(0o700)
    os.chown(place, 61010, 61010)


def open_to_others(place: Path, elsewhere: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a directory away')
@pytest.mark.parametrize('make', [link, of_another_user, open_to_others])
@pytest.mark.parametrize('variable', ['TMPDIR', 'XDG_RUNTIME_DIR'])
def test_a_place_that_somebody_else_has_prepared_is_refused(
    own_home: Path, variable: str, make: object
) -> None:
    # short names: a place whose sockets would have too long ones is not used
    names = {'TMPDIR': 't', 'XDG_RUNTIME_DIR': 'r', 'elsewhere': 'e'}
    places = {name: own_home / short for name, short in names.items()}
    for path in places.values():
        path.mkdir(0o700)
    elsewhere = places.pop('elsewhere')
    prepared = places[variable] / f'dispy-nb-{os.getuid()}'
    make(prepared, elsewhere)  # type: ignore[operator]
    done = subprocess.run(
        [sys.executable, '-m', 'nodeserver.cli.dispynode', '-i', ADDRESS, '-p', str(free_port())],
        env={**os.environ, **{name: str(path) for name, path in places.items()}},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode in (2, 78)
    assert str(prepared) in done.stderr
    assert 'Traceback' not in done.stderr
    assert list(elsewhere.iterdir()) == []
