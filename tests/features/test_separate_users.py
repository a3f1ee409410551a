"""Computations of a user of their own: an interpreter with suid and sgid bits (rows K08-K10)."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.otherusers import (
    GROUP,
    JOB_GROUP,
    JOB_USER,
    OTHER_GROUP,
    USER,
    OtherUsers,
    other_users,
    why_not,
)
from tests.support.programs import Program, eventually, free_port

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or 'it can run')
ADDRESS = '127.0.0.2'

# what every client script begins with; CLUSTER makes the cluster of a script
BEGIN = """
import json, os, signal, subprocess, sys, time
import dispy_nb as dispy

PORT, CHECKOUT = {port}, {checkout!r}

def cluster_of(function, **options):
    options = {{'ip_addr': '127.0.0.1', 'port': 0, 'node_port': PORT, **options}}
    return dispy.JobCluster(function, ['{address}'], **options)

def result(cluster, *args):
    job = cluster.submit(*args)
    job()
    if job.exception:
        raise SystemExit(job.exception)
    return job.result
"""


@pytest.fixture(scope='module')
def machine() -> Iterator[OtherUsers]:
    with other_users() as made:
        yield made


class Place:
    """A node on such a machine, and scripts of its user."""

    def __init__(self, machine: OtherUsers, node: Program, port: int) -> None:
        self.machine, self.node, self.port = machine, node, port

    def script(self, source: str) -> Any:
        """Run a script, and answer what its last line of output says in JSON."""
        begin = BEGIN.format(port=self.port, address=ADDRESS, checkout=str(self.machine.root))
        done = self.machine.client(begin + source)
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


@pytest.fixture(scope='module')
def place(machine: OtherUsers) -> Iterator[Place]:
    port = free_port()
    with machine.node('-i', ADDRESS, '-p', port, '-c', 2, '-d') as node:
        yield Place(machine, node, port)
    assert [path.name for path in machine.prefix.iterdir()] == []


@pytest.fixture
def own_place(machine: OtherUsers) -> Iterator[Place]:
    """A node of the test's own, whose processes it may end."""
    port, prefix = free_port(), machine.prefix.with_name('own')
    with machine.node('-i', ADDRESS, '-p', port, '-c', 2, prefix=prefix) as node:
        yield Place(machine, node, port)


WHO = """
def setup():
    import os
    global of_setup
    of_setup = [os.getresuid(), os.getresgid()]
    return 0

def cleanup():
    import os
    with open('{out}', 'w') as file:
        json.dump([os.getresuid(), os.getresgid()], file)

def who():
    import getpass, os, tempfile
    back = []
    for change, number in ((os.setuid, {user}), (os.setgid, {group}), (os.setuid, 0)):
        try:
            change(number)
        except PermissionError:
            continue
        back.append(number)
    with tempfile.TemporaryFile():
        pass
    open(os.path.expanduser('~/mine'), 'w').close()
    ids = [os.getresuid(), os.getresgid()]
    return dict(setup=of_setup, job=ids, back=back, user=getpass.getuser(), groups=os.getgroups(),
                home=os.environ['HOME'] == os.getcwd(), environ=sorted(os.environ))

cluster = cluster_of(who, setup=setup, cleanup=cleanup, depends=[json])
answer = result(cluster)
cluster.close()
print(json.dumps(answer))
"""


@pytest.mark.row('K08')
def test_computations_run_with_the_user_and_group_of_the_interpreter(place: Place) -> None:
    out = place.machine.tmp / 'of_cleanup'
    out.touch()
    out.chmod(0o666)
    answer = place.script(WHO.format(user=USER, group=GROUP, out=out))
    ids = [[JOB_USER] * 3, [JOB_GROUP] * 3]
    assert answer['setup'] == answer['job'] == json.loads(out.read_text()) == ids
    assert answer['back'] == []
    assert answer['user'] == str(JOB_USER)
    assert answer['home']
    assert not {'XDG_CONFIG_HOME', 'XDG_RUNTIME_DIR', 'TMPDIR', 'MAIL'} & {*answer['environ']}
    # the kernel lets nobody but root take groups from a process: the log says which are left
    assert answer['groups'] == [JOB_GROUP, GROUP]
    assert f'computations also have your groups {GROUP}' in place.node.errors()
    facts = Path(f'/proc/{place.node.pid}/status').read_text()
    assert f'Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n' in facts


@pytest.mark.row('K08')
def test_without_the_bits_computations_run_as_whoever_started_the_node(
    machine: OtherUsers,
) -> None:
    port = free_port()
    with machine.node('-i', ADDRESS, '-p', port, python=machine.plain) as node:
        answer = Place(machine, node, port).script(
            'def who():\n    import os\n    return [os.getresuid(), os.getresgid()]\n'
            'with cluster_of(who) as cluster:\n    answer = result(cluster)\n'
            'print(json.dumps(answer))\n'
        )
    assert answer == [[USER] * 3, [GROUP] * 3]


HOSTILE = """
def attack(node, places):
    import os, shutil, signal, socket
    done = []
    def attempt(what, act):
        try:
            act()
        except OSError:
            return
        done.append(what)
    for place in places:
        attempt(f'read {{place}}', lambda: open(place).read())
        attempt(f'change {{place}}', lambda: open(place, 'a').close())
        attempt(f'list {{place}}', lambda: os.listdir(place))
        attempt(f'open {{place}} to all', lambda: os.chmod(place, 0o777))
        attempt(f'rename {{place}}', lambda: os.rename(place, place + '.gone'))
        attempt(f'delete {{place}}', lambda: os.unlink(place))
        attempt(f'put a file into {{place}}', lambda: open(f'{{place}}/new', 'w').close())
        with socket.socket(socket.AF_UNIX) as sock:
            attempt(f'connect to {{place}}', lambda: sock.connect(place))
    for secret in ('environ', 'mem', 'fd', 'cwd/.dispynode', 'root/etc/passwd', 'maps'):
        path = f'/proc/{{node}}/{{secret}}'
        attempt(path, lambda: os.listdir(path) if secret == 'fd' else open(path).read(1))
    for number in (0, signal.SIGSTOP, signal.SIGKILL):
        attempt(f'signal {{number}}', lambda: os.kill(node, number))
    return done

with cluster_of(attack) as cluster:
    answer = result(cluster, {node}, {places!r})
print(json.dumps(answer))
"""


@pytest.mark.row('K09')
def test_computations_reach_nothing_of_the_nodes_own(place: Place) -> None:
    machine = place.machine
    key = machine.home / '.config' / 'dispy-nb' / 'key'
    sockets = list((machine.home / f'dispy-nb-{USER}').iterdir())
    assert sockets
    own = [machine.prefix / '.dispynode', machine.prefix, key, key.parent, machine.home, *sockets]
    before = [(path, path.stat().st_mode, path.stat().st_ino) for path in own]
    source = HOSTILE.format(node=place.node.pid, places=[str(path) for path in own])
    assert place.script(source) == []
    modes = {path: mode & ~0o010 for path, mode, _ in before}  # the prefix has its gate's bit
    assert {path: path.stat().st_mode & ~0o010 for path in own} == modes
    assert place.script('print(json.dumps("served"))') == 'served'


LEAVES = """
def leave():
    import os, signal, time
    with open('private', 'w') as file:
        file.write('of client A')
    os.chmod('private', 0o666)
    return os.getcwd()

def escape():
    # a process that outlives the job, its template and their zygote, if anything does
    import os, signal, time
    read, write = os.pipe()
    template, node = os.getppid(), {node}
    zygote = int(open(f'/proc/{{template}}/stat').read().rpartition(')')[2].split()[1])
    assert zygote != node
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            os.kill(zygote, signal.SIGKILL)
            time.sleep(600)
        os._exit(0)
    print(os.read(read, 100).decode(), file=open('{out}', 'w'), flush=True)
    time.sleep(600)
"""
OTHERS = """
def spy(paths):
    import os
    seen = {}
    for path in paths:
        for what, act in (('read', lambda: open(path).read()), ('list', lambda: os.listdir(path))):
            try:
                seen[f'{what} {path}'] = repr(act())
            except OSError:
                pass
    with open('mine', 'w') as file:
        file.write('of client B')
    seen['mine'] = open(os.path.join(os.getcwd(), 'mine')).read()
    return seen
"""


@pytest.mark.row('K10')
def test_what_an_earlier_client_has_left_cannot_be_reached(place: Place) -> None:
    leaves = LEAVES.format(node=place.node.pid, out='')
    kept = place.script(
        f'{leaves}\nwith cluster_of(leave, cleanup=False) as c:\n    here = result(c)\n'
        "with cluster_of(leave, dest_path='kept/of/A', cleanup=False) as c:\n"
        '    there = result(c)\nprint(json.dumps([here, there]))\n'
    )
    assert [Path(path, 'private').read_text() for path in kept] == ['of client A'] * 2
    paths = [*(f'{path}/private' for path in kept), *kept, str(place.machine.prefix)]
    seen = place.script(
        f'{OTHERS}\nwith cluster_of(spy) as c:\n    print(json.dumps(result(c, {paths!r})))\n'
    )
    assert seen == {'mine': 'of client B'}
    # who names the directory works in it, as the documents say of `dest_path`
    again = place.script(
        "def look():\n    return open('private').read()\n"
        "with cluster_of(look, dest_path='kept/of/A') as c:\n    print(json.dumps(result(c)))\n"
    )
    assert again == 'of client A'
    for path in kept:
        top = place.machine.prefix / Path(path).relative_to(place.machine.prefix).parts[0]
        assert not top.exists() or top.stat().st_mode & 0o777 == 0o700
        subprocess.run(['rm', '-rf', str(top)], check=True)


@pytest.mark.row('K10')
def test_a_process_that_an_earlier_client_has_left_is_killed(own_place: Place) -> None:
    out = own_place.machine.tmp / 'escaped'
    out.touch()
    out.chmod(0o666)
    leaves = LEAVES.format(node=own_place.node.pid, out=out)
    own_place.script(f'{leaves}\ncluster = cluster_of(escape)\njob = cluster.submit()\njob()\n')
    escaped = int(out.read_text())
    eventually(lambda: not Path(f'/proc/{escaped}').exists())
    here = own_place.script(
        f'{leaves}\nwith cluster_of(leave) as c:\n    print(json.dumps(result(c)))\n'
    )
    assert here  # another process has taken the place of the one that was killed


WORKS = """
def work(name):
    import dispy_nb, os, sys, time
    sent = os.stat(name)
    with open(name, 'a') as file:
        file.write(' and changed')
    os.mkdir('mine', 0o700)
    with open('mine/secret', 'w') as file:
        file.write('x')
    os.chmod('mine/secret', 0o000)
    os.chmod('mine', 0o000)
    with open('result.txt', 'w') as file:
        file.write(open(name).read())
    dispy_provisional_result('half')
    return dispy_send_file('result.txt'), os.access(name, os.X_OK), b'x' * 5_000_000

def stubborn():
    import signal, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('begun', flush=True)
    dispy_provisional_result('begun')
    time.sleep(600)

os.chdir('{here}')
with open('input.txt', 'w') as file:
    file.write('sent')
os.chmod('input.txt', 0o755)
halves = []
def told(job):
    if job.status == dispy.DispyJob.ProvisionalResult:
        halves.append(job.result)

for isolation in ('job', 'worker'):
    with cluster_of(work, callback=told, depends=['input.txt'], isolation=isolation) as cluster:
        status, executable, large = result(cluster, 'input.txt')
    assert (status, executable, len(large)) == (0, True, 5_000_000), (status, executable)
    assert open('result.txt').read() == 'sent and changed', open('result.txt').read()
assert halves == ['half', 'half'], halves

with cluster_of(stubborn, callback=told) as cluster:
    job = cluster.submit()
    while 'begun' not in halves:
        time.sleep(0.01)
    cluster.cancel(job)
    job()
    assert job.status == dispy.DispyJob.Cancelled, job.status
print(json.dumps('done'))
"""


@pytest.mark.slow
@pytest.mark.row('K08')
def test_files_cancelling_and_large_results_work_for_two_users(place: Place) -> None:
    here = place.machine.home / 'work'
    here.mkdir(0o700)
    os.chown(here, USER, GROUP)
    assert place.script(WORKS.format(here=here)) == 'done'
    eventually(lambda: [path.name for path in place.machine.prefix.iterdir()] == ['.dispynode'])


PRIVATE = """
def leave():
    import os
    os.makedirs('closed/in', 0o700)
    open('closed/in/file', 'w').close()
    os.chmod('closed', 0)
    big = bytearray(300_000_000)
    return len(big)

with cluster_of(leave, cleanup=False) as cluster:
    print(json.dumps(result(cluster)))
with cluster_of(leave, memory='100 MB') as cluster:
    job = cluster.submit()
    job()
    assert job.status == dispy.DispyJob.Terminated or job.result, job.status
"""


@pytest.mark.slow
def test_clean_removes_what_computations_of_another_user_have_left(machine: OtherUsers) -> None:
    port, prefix = free_port(), machine.prefix.with_name('own')
    with machine.node('-i', ADDRESS, '-p', port, '-c', 2, prefix=prefix) as node:
        assert Place(machine, node, port).script(PRIVATE) == 300_000_000
    assert [path.name[:5] for path in prefix.iterdir() if path.is_dir()] == ['leave']
    command = machine.node_command('--clean', '--serve', 0, prefix=prefix)
    env = {**os.environ, **machine.env}
    words = [str(word) for word in command]
    done = subprocess.run(words, env=env, check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count('Error')) == (0, 0), done.stderr
    assert [path.name for path in prefix.iterdir()] == []


STOPS = """
def stop_all():
    import os, signal, time
    me = os.getpid()
    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
        try:
            if pid != me and os.stat(f'/proc/{pid}').st_uid == os.getuid():
                os.kill(pid, signal.SIGSTOP)
        except OSError:
            pass
    time.sleep(600)

cluster = cluster_of(stop_all)
job = cluster.submit()
while job.status != dispy.DispyJob.Running:
    time.sleep(0.01)
time.sleep(0.5)
cluster.cancel(job)
job()
cluster.close()
print(json.dumps('closed'))
"""


@pytest.mark.slow
def test_a_job_that_stops_all_of_its_user_does_not_hold_the_node(own_place: Place) -> None:
    assert own_place.script(STOPS) == 'closed'
    leave = LEAVES.format(node=0, out='')
    source = f'{leave}\nwith cluster_of(leave) as c:\n    print(json.dumps(result(c)))\n'
    assert own_place.script(source)


def refused(machine: OtherUsers, **options: Any) -> str:
    command = machine.node_command('-p', free_port(), **options)
    node = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **machine.env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert node.returncode == 78, node
    return node.stderr


@pytest.mark.parametrize(
    ('owner', 'mode', 'words'),
    [
        ((JOB_USER, JOB_GROUP), 0o4755, 'is suid but not sgid'),
        ((JOB_USER, OTHER_GROUP), 0o2755, 'is sgid but not suid'),
        ((0, JOB_GROUP), 0o6755, 'belongs to root'),
    ],
)
def test_bits_by_half_or_of_root_are_refused_saying_what_to_do(
    machine: OtherUsers, owner: tuple[int, int], mode: int, words: str
) -> None:
    python = machine.interpreter(f'odd{mode:o}{owner[0]}')
    os.chown(python, *owner)
    python.chmod(mode)
    said = refused(machine, python=python)
    assert words in said
    assert f'chmod ug+s {python}' in said


def test_bits_without_effect_are_refused(machine: OtherUsers) -> None:
    command = machine.node_command('-p', free_port())
    place = command.index('sh')
    no_new = [*command[: place + 4], 'setpriv', '--no-new-privs', *command[place + 4 :]]
    node = subprocess.run(
        [str(word) for word in no_new],
        env={**os.environ, **machine.env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert node.returncode == 78
    assert 'has the suid bit, but it has no effect' in node.stderr


def test_a_prefix_that_computations_cannot_pass_through_is_refused(machine: OtherUsers) -> None:
    hidden = machine.home / 'below'
    said = refused(machine, prefix=hidden)
    assert f'computations cannot run as {JOB_USER}' in said
    assert str(hidden) in said
    assert '--dest_path_prefix' in said
