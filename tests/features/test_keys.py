"""Who works with whom: secrets, this user's own key, and none at all (rows K01-K03, D7)."""

import base64
import hashlib
import stat
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.support.capture import Capture
from tests.support.netns import Lan
from tests.support.programs import Program, client_program, eventually, free_port, node_program

RIGHT, WRONG = '127.0.0.2', '127.0.0.3'
SECRET, OTHER_SECRET = 'a passphrase of the tests', 'another passphrase of the tests'
LIMIT = 20.0


def where() -> str:
    return dispy_node_name  # type: ignore[name-defined]  # noqa: F821 - every job finds it


def open_cluster(elements: list[Any], port: int, **options: Any) -> dispy.JobCluster:
    options = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port, **options}
    return dispy.JobCluster(where, elements, **options)


def start_node(stack: ExitStack, address: str, port: int, secret: str = '') -> Program:
    """Start a node, named after its address, under a secret or under this user's own key."""
    options = ('-i', address, '-p', port, '--name', address)
    env = {'DISPY_SECRET': secret} if secret else None
    return stack.enter_context(node_program(*options, env=env))


@pytest.mark.row('K01')
@pytest.mark.parametrize('secret', ['', SECRET])
def test_equal_secrets_work_together(secret: str) -> None:
    port = free_port()
    with ExitStack() as stack:
        start_node(stack, RIGHT, port, secret)
        with open_cluster([RIGHT], port, secret=secret) as cluster:
            assert [cluster.submit()() for _ in range(3)] == [RIGHT] * 3


@pytest.mark.slow
@pytest.mark.row('K01', 'K02')
@pytest.mark.parametrize(
    ('ours', 'theirs'), [(SECRET, OTHER_SECRET), ('', OTHER_SECRET), (SECRET, '')]
)
def test_a_node_with_another_secret_is_never_used_and_neither_side_stops(
    ours: str, theirs: str
) -> None:
    port = free_port()
    with ExitStack() as stack:
        start_node(stack, RIGHT, port, ours)
        wrong = start_node(stack, WRONG, port, theirs)
        with open_cluster([RIGHT, WRONG], port, secret=ours) as cluster:
            jobs = [cluster.submit() for _ in range(20)]
            assert cluster.wait(LIMIT)
            assert {job() for job in jobs} == {RIGHT}
            told = f'{WRONG}: uses another key; give both the same key: run `dispy key export`'
            eventually(lambda: told in cluster.explain(), message=cluster.explain)
            assert [node.address for node in cluster.snapshot().nodes] == [RIGHT]
        wrong.wait_for_log('somebody at 127.0.0.1 uses another key and is not served')
        with open_cluster([WRONG], port, secret=theirs) as cluster:
            assert cluster.submit()() == WRONG


@pytest.mark.slow
def test_a_client_whose_only_node_has_another_key_is_told_within_seconds() -> None:
    port = free_port()
    script = textwrap.dedent(f"""
        import time
        import dispy_nb as dispy

        def compute():
            return 1

        cluster = dispy.JobCluster(compute, ['{WRONG}'], ip_addr='127.0.0.1', port=0,
                                   node_port={port}, secret='{SECRET}')
        job = cluster.submit()
        job.wait(3.5)
        print(job.status.name)
        cluster.close(timeout=0, terminate=True)
    """)
    with ExitStack() as stack:
        wrong = start_node(stack, WRONG, port, OTHER_SECRET)
        done = client_program(script)
        wrong.wait_for_log('uses another key')
        assert wrong.process.poll() is None
        for program_log in (done.stderr, wrong.log()):
            assert 'dispy key export' in program_log and 'dispy key import' in program_log
            assert SECRET not in program_log and OTHER_SECRET not in program_log
    assert done.stdout == 'CREATED\n'
    assert f'{WRONG}: uses another key' in done.stderr


# what travels

TRAVELLER = """
import dispy_nb as dispy

def compute(data):
    import pathlib
    pathlib.Path('back').write_bytes(pathlib.Path('sent').read_bytes()[::-1])
    dispy_send_file('back')
    return data[::-1]

with open('sent', 'wb') as file:
    file.write({content!r})
with dispy.JobCluster(compute, [{address!r}], depends=['sent'], {options}) as cluster:
    print(len(cluster.submit({argument!r})()))
with open('back', 'rb') as file:
    print(len(file.read()))
"""
ARGUMENT = b'plain bytes of an argument 0123456789'
CONTENT = b'plain bytes of a file 0123456789'
TRAVELS = (ARGUMENT, ARGUMENT[::-1], CONTENT, CONTENT[::-1], b'read_bytes')


@pytest.mark.row('K03')
@pytest.mark.netns
@pytest.mark.slow
def test_neither_the_secret_nor_a_hash_of_it_nor_code_data_or_files_can_be_read() -> None:
    traffic = captured(f'secret={SECRET!r}', {'DISPY_SECRET': SECRET})
    told = [form for form in forms(SECRET.encode()) if form in traffic]
    told += [form for form in forms(f'{SECRET}\n'.encode()) if form in traffic]
    assert told == []
    assert [data for data in TRAVELS if data in traffic] == []
    # the same look finds them where nothing is encrypted, so it looks at the right place
    open_traffic = captured('insecure=True', {}, '--insecure')
    assert [data for data in TRAVELS if data not in open_traffic] == []


def captured(client_options: str, env: dict[str, str], *node_options: str) -> bytes:
    """Run a job on another host, and answer all that came and went there."""
    with Lan(2) as lan, ExitStack() as stack:
        seen = stack.enter_context(Capture(lan[1]))
        within = lan[1].command([])
        stack.enter_context(node_program(*node_options, env=env, within=within))
        source = TRAVELLER.format(
            address=lan[1].ip, options=client_options, argument=ARGUMENT, content=CONTENT
        )
        done = client_program(source, within=lan[0].command([]))
        assert done.stdout == f'{len(ARGUMENT)}\n{len(CONTENT)}\n'
        assert len(seen.datagrams()) > 1
        return b''.join(seen.frames())


def forms(secret: bytes) -> list[bytes]:
    """Answer a secret and its hashes as they might be written."""
    names = (
        'md5',
        'sha1',
        'sha224',
        'sha256',
        'sha384',
        'sha512',
        'sha3_256',
        'blake2b',
        'blake2s',
    )
    raw = [secret, *(hashlib.new(name, secret).digest() for name in names)]
    written = [base64.b64encode(data).rstrip(b'=') for data in raw]
    written += [base64.urlsafe_b64encode(data).rstrip(b'=') for data in raw]
    written += [data.hex().encode() for data in raw] + [data.hex().upper().encode() for data in raw]
    return [*raw, *written]


# two machines of one user


def dispy_command(home: Path, *words: str, text: str = '') -> str:
    done = subprocess.run(
        [sys.executable, '-m', 'dispy_nb', *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=home_env(home),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def home_env(home: Path) -> dict[str, str]:
    """Environment of a program on the machine whose home this is."""
    for name in ('.config', 'run', 'tmp'):
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        'HOME': str(home),
        'XDG_CONFIG_HOME': str(home / '.config'),
        'XDG_RUNTIME_DIR': str(home / 'run'),
        'TMPDIR': str(home / 'tmp'),
        'PATH': '/usr/bin:/bin',
    }


JOINED = """
import dispy_nb as dispy

def compute():
    return dispy_node_name

cluster = dispy.JobCluster(compute, [{address!r}], ip_addr='127.0.0.1', port=0, node_port={port})
job = cluster.submit()
print(job() if job.wait({seconds}) else cluster.explain())
cluster.close(timeout=0, terminate=True)
"""


@pytest.mark.slow
def test_another_machine_joins_with_one_exported_line(own_home: Path) -> None:
    """Two homes stand in for two machines."""
    here, there, port = own_home / 'a', own_home / 'b', free_port()
    options = ('-i', RIGHT, '-p', port, '--name', 'there')
    source = JOINED.format(address=RIGHT, port=port, seconds=1.5)
    with node_program(*options, env=home_env(there)):
        done = client_program(source, env=home_env(here))
        assert f'{RIGHT}: uses another key' in done.stdout
    line = dispy_command(here, 'key', 'export')
    assert line.startswith('dispy key import dnk1-')
    dispy_command(there, 'key', 'import', '--replace', text=line)
    assert dispy_command(there, 'key', 'export') == line
    with node_program(*options, env=home_env(there)):
        done = client_program(
            JOINED.format(address=RIGHT, port=port, seconds=LIMIT), env=home_env(here)
        )
    assert (done.stdout, done.stderr) == ('there\n', '')


@pytest.mark.slow
def test_the_own_key_is_made_on_first_use_for_its_owner_alone(own_home: Path) -> None:
    key = own_home / '.config' / 'dispy-nb' / 'key'
    assert not key.exists()
    with node_program('-i', RIGHT, '-p', free_port()) as node:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        node.wait_for_log('`dispy key export`')
        made = key.read_text()
        assert made.strip() not in node.log()
    with node_program('-i', RIGHT, '-p', free_port()):
        assert key.read_text() == made
    key.chmod(0o644)
    with Program([sys.executable, '-m', 'nodeserver.cli.dispynode', '-i', RIGHT]) as node:
        assert node.wait() == 78
        assert f'{key} is open to other users (mode 0644): chmod 600 {key}' in node.errors()


def test_insecure_says_so_loudly_on_both_sides_at_every_start() -> None:
    port = free_port()
    options = ('-i', RIGHT, '-p', port, '--name', 'open', '--insecure')
    source = JOINED.format(address=RIGHT, port=port, seconds=LIMIT)
    source = source.replace('port=0,', 'port=0, insecure=True,')
    with node_program(*options) as node:
        for _ in range(2):
            done = client_program(source)
            assert done.stdout == 'open\n'
            assert 'INSECURE' in done.stderr
        eventually(lambda: 'WARNING INSECURE: whoever reaches this port can run' in node.errors())


@pytest.mark.parametrize(
    ('node_options', 'client_options'), [((), {'insecure': True}), (('--insecure',), {})]
)
def test_a_program_without_a_key_and_one_with_a_key_never_work_together(
    node_options: tuple[str, ...], client_options: dict[str, bool]
) -> None:
    port = free_port()
    with (
        node_program('-i', RIGHT, '-p', port, *node_options) as node,
        open_cluster([RIGHT], port, **client_options) as cluster,
    ):
        job = cluster.submit()
        eventually(lambda: f'{RIGHT}: uses another key' in cluster.explain())
        node.wait_for_log('somebody at 127.0.0.1 uses another key and is not served')
        assert job.status == dispy.DispyJob.Created
        cluster.close(timeout=0, terminate=True)
