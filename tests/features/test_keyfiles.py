"""What is wrong with a key, or with where it should be: said in words, by every program (D7)."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.programs import at_once, client_program, eventually, free_port, node_program

ADDRESS = '127.0.0.2'
PASSPHRASE = 'a passphrase of the tests'
CLIENT = """
import dispy_nb as dispy

def compute():
    return 'done'

cluster = dispy.JobCluster(compute, ['{address}'], ip_addr='127.0.0.1', port=0, node_port={port})
job = cluster.submit()
print(job() if job.wait({seconds}) else cluster.explain())
cluster.close(timeout=0, terminate=True)
"""


class Home:
    """A user's home, and what is in it before a program starts."""

    def __init__(self, place: Path) -> None:
        self.key = place / '.config' / 'dispy-nb' / 'key'
        self.secret = place / 'secret'
        for name in ('.config', 'run', 'tmp'):
            (place / name).mkdir(mode=0o700, parents=True)
        self.env = {
            'HOME': str(place),
            'XDG_CONFIG_HOME': str(place / '.config'),
            'XDG_RUNTIME_DIR': str(place / 'run'),
            'TMPDIR': str(place / 'tmp'),
        }

    def write_key(self, text: str, mode: int = 0o600, owner: int = 0) -> None:
        self.key.parent.mkdir(mode=0o700)
        self.key.write_text(text)
        self.key.chmod(mode)
        if owner:
            os.chown(self.key, owner, -1)


def run(home: Home, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(str(word) for word in command)],
        env={**os.environ, **home.env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def key_text(home: Home) -> str:
    return run(home, '-m', 'dispy_nb', 'key', 'export').stdout.split()[-1]


def mistyped(home: Home) -> None:
    text = key_text(home)
    home.key.write_text(text[:-1] + ('a' if text[-1] != 'a' else 'b') + '\n')


def loose_directory(home: Home) -> None:
    key_text(home)
    home.key.parent.chmod(0o777)


def no_place(home: Home) -> None:
    home.key.parent.write_text('in the way')


def no_home(home: Home) -> None:
    home.env['XDG_CONFIG_HOME'] = '/proc/no/such'


CASES: dict[str, tuple[Callable[[Home], object], str]] = {
    'open to others': (lambda home: home.write_key('x', 0o644), r'mode 0644\): chmod 600 {key}'),
    'directory open': (loose_directory, r'written by other users \(mode 0777\): chmod 700'),
    "somebody else's": (
        lambda home: home.write_key('x', owner=61010),
        r'{key} belongs to user 61010, and this program runs as user \d+: .*chown',
    ),
    'malformed': (lambda home: home.write_key('hello\n'), r'malformed: it must begin.*rm {key}'),
    'mistyped': (mistyped, r'mistyped or damaged.*rm {key}'),
    'of two lines': (lambda home: home.write_key('a\nb\n'), r'{key} must hold one line'),
    'a pipe': (
        lambda home: (home.write_key(''), home.key.unlink(), os.mkfifo(home.key, 0o600)),
        r'{key} is not a regular file',
    ),
    'a file in the way': (no_place, r'{key} cannot be made \(.*dispy-nb: File exists\)'),
    'no place': (no_home, r'cannot be made.*set DISPY_SECRET, or give a --secret-file'),
    'empty variable': (
        lambda home: home.env.update(DISPY_SECRET=''),
        r'DISPY_SECRET is set, but empty: unset it',
    ),
    'short variable': (
        lambda home: home.env.update(DISPY_SECRET='sesame1'),
        r'DISPY_SECRET has 7 characters: give 8 or more',
    ),
    'malformed variable': (
        lambda home: home.env.update(DISPY_SECRET='dnk1-abc'),
        r'DISPY_SECRET is malformed: 3 characters after',
    ),
}
# what any program says: seen with a node, and for these with the others
ALSO_ELSEWHERE = ('open to others', 'malformed', 'no place', 'short variable')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can make the file of another user')
@pytest.mark.slow
def test_each_thing_that_is_wrong_with_a_key_is_said(
    tmp_path: Path,
) -> None:
    def check(name: str) -> None:
        prepare, words = CASES[name]
        home = Home(tmp_path / name.replace(' ', '-'))
        prepare(home)
        pattern = words.replace('{key}', re.escape(str(home.key)))
        node = run(home, '-m', 'nodeserver.cli.dispynode', '-i', ADDRESS, '-p', free_port())
        assert node.returncode == 78, (name, node)
        assert re.search(pattern, node.stderr), (name, node.stderr)
        assert 'Traceback' not in node.stderr
        assert 'sesame1' not in node.stderr
        if name not in ALSO_ELSEWHERE:
            return
        script = tmp_path / f'{name}.py'
        script.write_text(CLIENT.format(address=ADDRESS, port=1, seconds=1))
        client = run(home, script)
        last = ' '.join(client.stderr.splitlines()[-1:])
        assert client.returncode == 1, (name, client)
        assert re.search(pattern, last), (name, client.stderr)
        assert 'Error' in last
        if 'variable' not in name:
            command = run(home, '-m', 'dispy_nb', 'key', 'show')
            assert command.returncode == 78, (name, command)
            assert re.search(pattern, command.stderr), (name, command.stderr)

    at_once(check, *CASES)


@pytest.mark.parametrize(
    ('content', 'mode', 'words', 'status'),
    [
        (None, 0, r'{file} cannot be read: No such file', 78),
        (PASSPHRASE, 0o644, r'{file} is open to other users \(mode 0644\): chmod 600', 78),
        ('short', 0o600, r'the secret in {file} has 5 characters: give 8 or more', 78),
        ('', 0o600, r'{file} must hold one line', 78),
        ('dnk1-\n', 0o600, r'the secret in {file} is malformed', 78),
    ],
)
def test_each_thing_that_is_wrong_with_a_secret_file_is_said(
    tmp_path: Path, content: str | None, mode: int, words: str, status: int
) -> None:
    home = Home(tmp_path / 'home')
    if content is not None:
        home.secret.write_text(content)
        home.secret.chmod(mode)
    node = run(home, '-m', 'nodeserver.cli.dispynode', '--secret-file', home.secret)
    assert node.returncode == status
    assert re.search(words.replace('{file}', re.escape(str(home.secret))), node.stderr)
    assert not home.key.exists()


def test_a_short_secret_on_the_command_line_is_a_usage_error(tmp_path: Path) -> None:
    home = Home(tmp_path / 'home')
    node = run(home, '-m', 'nodeserver.cli.dispynode', '-s', 'sesame1')
    assert node.returncode == 2
    assert 'secret has 7 characters: give 8 or more' in node.stderr
    assert 'sesame1' not in node.stderr


@pytest.mark.slow
@pytest.mark.row('K01', 'K02')
def test_after_a_rotation_running_programs_keep_the_old_key_and_new_ones_have_the_new_one(
    tmp_path: Path,
) -> None:
    """Two homes stand in for two machines."""
    here, there = Home(tmp_path / 'here'), Home(tmp_path / 'there')
    port, other_port = free_port(), free_port()
    line = run(here, '-m', 'dispy_nb', 'key', 'export').stdout.split()
    assert run(there, '-m', *line[:1], *line[1:]).returncode in (0, 1)
    assert run(there, '-m', 'dispy_nb', *line[1:]).returncode == 0

    def client(home: Home, port: int, seconds: float = 20, **env: str) -> str:
        source = CLIENT.format(address=ADDRESS, port=port, seconds=seconds)
        return client_program(source, env={**home.env, **env}).stdout

    with ExitStack() as stack:
        old_node = stack.enter_context(node_program('-i', ADDRESS, '-p', port, env=there.env))
        assert client(here, port) == 'done\n'
        old = here.key.read_text()
        rotated = run(here, '-m', 'dispy_nb', 'key', 'rotate')
        assert rotated.returncode == 0, rotated
        kept = here.key.with_name('key.old')
        assert kept.read_text() == old != here.key.read_text()
        assert {path.stat().st_mode & 0o777 for path in (kept, here.key)} == {0o600}
        assert 'dispy key import --replace' in rotated.stdout
        assert str(kept) in rotated.stdout
        assert here.key.read_text().strip() not in rotated.stdout
        # the node of the other machine has the old key, and is told from one that is not there
        assert 'uses another key' in client(here, port, 1.5)
        old_node.wait_for_log('uses another key and is not served')
        # it can be used by the old key until its machine has the new one
        assert client(here, port, DISPY_SECRET=old.strip()) == 'done\n'
        line = run(here, '-m', 'dispy_nb', 'key', 'export').stdout.split()
        refused = run(there, '-m', 'dispy_nb', *line[1:])
        assert refused.returncode == 2
        assert '--replace' in refused.stderr
        assert run(there, '-m', 'dispy_nb', *line[1:], '--replace').returncode == 0
        stack.enter_context(node_program('-i', ADDRESS, '-p', other_port, env=there.env))
        assert client(here, other_port) == 'done\n'
        eventually(lambda: old_node.process.poll() is None)


def test_a_rotation_without_a_key_makes_one(tmp_path: Path) -> None:
    home = Home(tmp_path / 'home')
    done = run(home, '-m', 'dispy_nb', 'key', 'rotate')
    assert done.returncode == 0
    assert done.stdout.startswith('fingerprint: ')
    assert [path.name for path in home.key.parent.iterdir()] == ['key']
