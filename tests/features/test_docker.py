"""Nodes in containers (rows N11, N12, U12).

There is no Docker engine where tests run: `tests.support.containers` is a local stand-in that
follows the Dockerfile line by line, and has a `docker run`.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dispy_nb
from tests.support.containers import Docker, docker, why_not
from tests.support.netns import Host, Lan
from tests.support.programs import Program, client_program, eventually

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / 'docs' / 'docker.md').read_text(encoding='utf-8')
DOCKERFILE = Path(dispy_nb.__file__).parent / 'data' / 'Dockerfile'
SECRET = 'passphrase-of-the-containers'
needs_containers = pytest.mark.skipif(bool(why_not()), reason=why_not() or 'it can run')

CLIENT = """
import dispy_nb as dispy

{function}

cluster = dispy.JobCluster(work, [{address!r}], secret={secret!r})
job = cluster.submit()
print(job() if job.wait(40) else cluster.explain())
if job.exception:
    print(job.exception)
cluster.close()
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', str(target), '.']
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    (found,) = target.glob('dispy_nb-*.whl')
    return found


@pytest.fixture(scope='module')
def engine(wheel: Path) -> Iterator[Docker]:
    with docker(DOCKERFILE, wheel) as made:
        yield made


@pytest.mark.row('U12')
@pytest.mark.parametrize(
    'program',
    [
        'import os, dispy_nb as dispy\n'
        "print(os.path.join(os.path.dirname(dispy.__file__), 'examples', 'Dockerfile'))\n",
        # until tasks have a module of their own, the package stands for it
        'import os, dispy_nb as pycos\n'
        "print(os.path.join(os.path.dirname(pycos.__file__), 'data', 'Dockerfile'))\n",
    ],
)
def test_the_programs_of_the_documents_print_where_the_dockerfile_is(program: str) -> None:
    place = Path(client_program(program).stdout.strip())
    assert place.is_file()
    assert place.read_bytes() == DOCKERFILE.read_bytes()


@pytest.mark.slow
def test_the_wheel_has_the_dockerfile_in_both_places(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for place in ('data', 'examples'):
            assert archive.read(f'dispy_nb/{place}/Dockerfile') == DOCKERFILE.read_bytes()


@contextmanager
def run(engine: Docker, host: Host, script: str) -> Iterator[Program]:
    """Run a shell's script on a host; all that it started is ended with it, as by Ctrl-C."""
    env = {'PATH': f'{engine.bin}:{os.environ["PATH"]}', 'DISPY_SECRET': SECRET}
    running = Program([*host.command([]), 'sh', '-c', script], env)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(running.pid, signal.SIGKILL)
        running.close()


def ask(host: Host, node: Host, function: str, secret: str = SECRET) -> str:
    source = CLIENT.format(function=function, address=str(node.ip), secret=secret)
    return client_program(source, timeout=60, within=host.command([])).stdout


def members(node: Program) -> dict[int, str]:
    """Processes of the container, by their pid out here, with their state and name."""
    found = {}
    for child in _below(node.pid):
        try:
            status = Path(f'/proc/{child}/status').read_text()
        except OSError:  # it has ended
            continue
        numbers = re.search(r'^NSpid:\t(.*)$', status, re.MULTILINE)
        if numbers and len(numbers[1].split()) > 1:
            state = re.search(r'^State:\t(\w)', status, re.MULTILINE)
            found[child] = f'{state[1] if state else "?"} {numbers[1].split()[-1]}'
    return found


def _below(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for file in Path(f'/proc/{each}/task').glob('*/children'):
            with suppress(OSError):  # it has ended
                found += map(int, file.read_text().split())
    return found


WHERE = """
def work():
    import os
    own = open('/proc/1/cmdline').read().split(chr(0))
    return [os.path.basename(own[1]), own[2:-1], os.getuid() != 0, os.environ.get('DISPY_SECRET'),
            os.path.exists('/proc/2000000'), dispy_node_name]
"""
ESCAPES = """
def work():
    # what it leaves has lost all parents that would have ended it but process 1
    import os, signal, time
    template = os.getppid()
    zygote = int(open(f'/proc/{template}/stat').read().rpartition(')')[2].split()[1])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.kill(zygote, signal.SIGKILL)
            time.sleep(600)
        os._exit(0)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.row('N11')
@needs_containers
def test_a_container_is_a_node_with_default_options_or_others_given_after_the_image(
    engine: Docker,
) -> None:
    """A local stand-in for Docker builds the image and runs it."""
    with Lan(2) as lan:
        here, there = lan
        with run(engine, there, 'exec docker run --net=host -it -e DISPY_SECRET dispy') as node:
            node.wait_for_log('serving at *:51348')
            assert ask(here, there, WHERE).startswith("['dispynode.py', [], True, None, False")
            ask(here, there, ESCAPES)
            eventually(lambda: not any(m.startswith('Z') for m in members(node).values()))
            # the node, and the process that jobs come from: nothing of the job is left
            eventually(lambda: len(members(node)) <= 2, message=lambda: str(members(node)))
            (first,) = (pid for pid, member in members(node).items() if member.endswith(' 1'))
            os.kill(first, signal.SIGTERM)  # as `docker stop` does
            assert node.wait() == 128 + signal.SIGTERM
            assert 'ended: SIGTERM received' in node.log()
        for options in ('dispynode.py --name given --cpus 1', '--name given --cpus 1'):
            script = f'exec docker run --net=host -it -e DISPY_SECRET dispy {options}'
            with run(engine, there, script) as node:
                node.wait_for_log('dispynode given serving at *:51348 with 1 cpu')


@pytest.mark.slow
@pytest.mark.netns
@needs_containers
def test_a_mounted_key_makes_a_container_serve_its_owner(engine: Docker, own_home: Path) -> None:
    """A local stand-in for Docker runs the image."""
    (command,) = re.findall(
        r'^  ```sh\n(  docker run [^`]*--user[^`]*)^  ```$', GUIDE, re.MULTILINE
    )
    exported = subprocess.run(
        [sys.executable, '-m', 'dispy_nb', 'key', 'export'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    with Lan(2) as lan, run(engine, lan[1], f'unset DISPY_SECRET; {command}') as node:
        node.wait_for_log('serving at *:51348')
        assert ask(lan[0], lan[1], 'def work():\n    return 1 + 1', secret='') == '2\n'
        assert exported not in node.log()


LEAVES = """
def work():
    import os
    before = sorted(name for name in os.listdir('/home/dispy') if not name.startswith('.'))
    before += [name for name in os.listdir('/tmp') if name.startswith('left')]
    open('/home/dispy/left by a client', 'w').close()
    open('/tmp/left by a client', 'w').close()
    return before
"""


@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.row('N12')
@needs_containers
def test_the_loop_of_the_guide_gives_each_client_a_new_container(engine: Docker) -> None:
    """A local stand-in for Docker runs the image."""
    (loop,) = re.findall(r'^```sh\n(while :; do\n.*?done\n)```$', GUIDE, re.MULTILINE | re.DOTALL)
    with Lan(2) as lan, run(engine, lan[1], loop) as node:
        for client in range(3):
            assert ask(lan[0], lan[1], LEAVES) == '[]\n'
            eventually(lambda: node.log().count('ended: ') > client)  # noqa: B023 - at once
        assert node.process.poll() is None


USERS = (ROOT / 'docs' / 'separate-users.md').read_text(encoding='utf-8')
WHO = """
def work():
    import grp, os, pwd
    ids = {*os.getresuid(), *os.getresgid()}
    return [pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name, len(ids)]
"""


@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.row('K08')
@needs_containers
def test_the_guide_to_separate_users_works_as_it_stands(engine: Docker) -> None:
    """A container of the local stand-in is the machine: accounts are made in there."""
    set_up, start = re.findall(r'^```sh\n(.*?)^```$', USERS, re.MULTILINE | re.DOTALL)[:2]
    # the package is there already, as nothing can be fetched
    made, installed, rest = set_up.split('\n', 2)
    assert 'python3 -m venv /opt/dispy-nb' in made
    assert '/opt/dispy-nb/bin/pip install dispy-nb' in installed
    script = (
        'set -e; sudo() { "$@"; }; ln -s python /opt/dispy-nb; userdel dispy; useradd -m user\n'
        f'{rest}\ncd / && exec setpriv --reuid=user --regid=user --init-groups env HOME=/home/user '
        f'{start}'
    )
    command = f'docker run --net=host --user 0:0 -e DISPY_SECRET dispy sh -c {shlex.quote(script)}'
    with Lan(2) as lan, run(engine, lan[1], f'exec {command}') as node:
        node.wait_for_log('serving at *:51348', 20)
        assert 'computations run as dispy, not as ' in node.output()
        assert ask(lan[0], lan[1], WHO).startswith("['dispy', 'hpc', ")
