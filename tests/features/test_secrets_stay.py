"""Where a secret must not be: everything that programs write, start or leave behind (D7)."""

import base64
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nodeserver.io import keys
from tests.features.test_keys import forms
from tests.support.programs import Program, eventually, free_port, node_program, program

ADDRESS = '127.0.0.2'
SECRET = 'a passphrase that nobody repeats'
CLIENT = """
import logging, os, sys
import dispy_nb as dispy
from nodeserver.cli.console import set_up_logging

def setup():
    with open('made', 'w') as file:
        file.write('made by setup')
    return 0

def compute(n):
    import os, time
    held = []
    for fd in os.listdir('/proc/self/fd'):
        try:
            held.append(os.pread(int(fd), 1 << 20, 0))
        except OSError:
            continue
    print('environment', dict(os.environ))
    print('files', held)
    print('repr', globals())
    if n:
        raise ValueError('a traceback')
    dispy_provisional_result('begun')
    while not os.path.exists({go!r}):
        time.sleep(0.01)
    return dict(os.environ), held

set_up_logging(debug=True)
secret = sys.stdin.readline().strip() or os.environ.pop('DISPY_SECRET', '')
cluster = dispy.JobCluster(compute, [{address!r}], ip_addr='127.0.0.1', port=0, node_port={port},
                           secret=secret, setup=setup, loglevel=logging.DEBUG)
running, failing = cluster.submit(0), cluster.submit(1)
failing()
assert 'a traceback' in failing.exception, failing.exception
print(failing.exception, failing.stdout, cluster, vars(cluster), cluster.explain())
print('waiting', flush=True)
print(running(), running.stdout, running.stderr)
try:
    dispy.JobCluster(compute, secret=secret, node_port='wrong')
except Exception as error:
    print(repr(error), vars(error))
cluster.close()
"""


def hidden(secret: keys.Secret, text: str) -> list[bytes]:
    """Answer each form in which the secret, or a key made from it, might be written."""
    made = secret.link_keys()
    assert made is not None
    raw = [secret._root or b'', secret.beacon_key(), made.server_secret, made.client_secret]
    written = [form for each in raw for form in (each, each.hex().encode(), repr(each).encode())]
    written += [base64.b64encode(each).rstrip(b'=') for each in raw]
    return [*written, *forms(text.encode())]


def found_in(data: bytes, wanted: list[bytes]) -> bool:
    return any(form in data for form in wanted)


def memory_of(pid: int) -> Iterator[bytes]:
    """Read what a process can write to, which is where it would have it."""
    with Path(f'/proc/{pid}/mem').open('rb', buffering=0) as memory:
        for line in Path(f'/proc/{pid}/maps').read_text().splitlines():
            span = re.match(r'([0-9a-f]+)-([0-9a-f]+) rw', line)
            if span:
                start, end = (int(part, 16) for part in span.groups())
                try:
                    memory.seek(start)
                    yield memory.read(end - start)
                except OSError:  # nothing is there yet
                    continue


def below(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for file in Path(f'/proc/{each}/task').glob('*/children'):
            with suppress(OSError):  # it has ended
                found += map(int, file.read_text().split())
    return found[1:]


def files_below(*places: Path) -> Iterator[tuple[Path, bytes]]:
    for place in places:
        for path in place.rglob('*'):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def check_processes(node: Program, client: Program, wanted: list[bytes]) -> None:
    """Look at all that both have started, and at what was started of them."""
    seen = 0
    for pid in below(node.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # of a job that has ended
            for file in ('cmdline', 'environ'):
                assert not found_in(Path(f'/proc/{pid}/{file}').read_bytes(), wanted), (pid, file)
            assert not any(found_in(piece, wanted) for piece in memory_of(pid)), pid
            seen += 1
    assert seen >= 3  # zygote, template, the job that waits
    # the node was given the variable by whoever started it, and has wiped it out
    assert not found_in(Path(f'/proc/{node.pid}/environ').read_bytes(), wanted)
    for pid in (node.pid, client.pid, *below(client.pid)):
        assert not found_in(Path(f'/proc/{pid}/cmdline').read_bytes(), wanted)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['passphrase', 'own key'])
def test_a_secret_is_nowhere_but_where_it_was_given(
    kind: str, own_home: Path, tmp_path: Path
) -> None:
    """The client has DISPY_SECRET in its environment, as whoever started it has put it there."""
    go, script, port = tmp_path / 'go', tmp_path / 'script.py', free_port()
    script.write_text(CLIENT.format(address=ADDRESS, port=port, go=str(go)))
    prefix = tmp_path / 'node'
    if kind == 'passphrase':
        env, secret, text = {'DISPY_SECRET': SECRET}, keys.from_passphrase(SECRET), SECRET
    else:
        env, secret, text = {}, keys.own_key(), keys.export_key()
    wanted = hidden(secret, text)
    options = ('-i', ADDRESS, '-p', port, '--dest_path_prefix', prefix, '-d')
    with node_program(*options, env=env) as node:
        command = (sys.executable, script)
        with program(*command, env=env, ready='waiting') as client:
            try:
                check_processes(node, client, wanted)
            finally:
                go.touch()
            assert client.wait() == 0, client.log()
            said = client.log().encode()
        eventually(lambda: 'CloseTemplate' in node.log())
        for log in (said, node.log().encode()):
            assert b'setup' in log or b'NodeCore' in log
            assert not found_in(log, wanted)
        left = {path for path, data in files_below(own_home, tmp_path) if found_in(data, wanted)}
    assert left == (set() if kind == 'passphrase' else {keys.key_path()})
