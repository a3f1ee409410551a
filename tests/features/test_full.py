"""Memory, disk, descriptors or processes run out: said in words, and the node lives on."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from tests.support.programs import client_program, eventually, free_port, node_program, program

LIMIT = 30.0
SOON = 10.0
MB = 1 << 20


def size_of(data: Any) -> int:
    return len(data)


class Lonely:
    """One node of one cpu under limits, and clusters that use it."""

    def __init__(
        self,
        stack: ExitStack,
        *within: str,
        options: tuple[object, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._stack = stack
        self.port = free_port()
        options = ('-i', '127.0.0.1', '-p', self.port, '-c', 1, *options)
        self.node = stack.enter_context(node_program(*options, within=within, env=env))

    def open(self, function: Any, **options: Any) -> dispy.JobCluster:
        ours = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': self.port}
        cluster = dispy.JobCluster(function, ['127.0.0.1'], **{**ours, **options})
        self._stack.callback(cluster.close, timeout=0, terminate=True)
        return cluster


@pytest.fixture
def keep(own_home: Path) -> Iterator[ExitStack]:
    """Close at the end whatever was entered."""
    with ExitStack() as stack:
        yield stack


def limit(what: str, number: int) -> tuple[str, ...]:
    return ('prlimit', f'--{what}={number}:{number}')


# memory


@pytest.mark.slow
def test_arguments_for_which_a_node_has_no_memory_end_their_job_alone(keep: ExitStack) -> None:
    """Over a network: programs on its own machine pass large arguments as files."""
    secret = "not this user's own key"
    lonely = Lonely(keep, env={'DISPY_SECRET': secret})
    node = psutil.Process(lonely.node.pid)
    cluster = lonely.open(size_of, secret=secret)
    assert cluster.submit(b'1')() == 1
    most = node.memory_info().vms + 150 * MB
    # large arguments are gathered in memory files, whose size is what the second limit bounds
    limits = [f'--as={most}:{most}', f'--fsize={100 * MB}:{100 * MB}']
    subprocess.run(['prlimit', '--pid', str(node.pid), *limits], check=True)
    jobs = [cluster.submit(bytes(size)) for size in (1, 300 * MB, 2)]
    assert cluster.wait(LIMIT), cluster.explain()
    assert [job() for job in jobs] == [1, None, 2]
    words = 'its node had no memory left for its arguments'
    assert (jobs[1].status, jobs[1].exception) == (DispyJob.Terminated, words)
    assert cluster.submit(bytes(10 * MB))() == 10 * MB
    assert 'Traceback' not in lonely.node.log()
    assert lonely.node.process.poll() is None


# disk

TINY = 'mount -t tmpfs -o size=1m,nr_inodes=40,mode=0700 none "$0" && exec "$@"'


def can_mount() -> bool:
    probe = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /mnt']
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def on_tiny_disk(directory: Path) -> tuple[str, ...]:
    """Run a program that finds a disk of 1 MiB and few files at this place (Linux, root)."""
    if not can_mount():
        pytest.skip('mounting needs rights that this user does not have')
    directory.mkdir(mode=0o700)
    return ('unshare', '-m', 'sh', '-c', TINY, str(directory))


def fill(how: str) -> str:
    if how == 'bytes':
        with Path('much').open('wb') as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    number = 0
    while how == 'files':
        number += 1
        Path(f'file-{number}').touch()
    return 'nothing written'


@pytest.mark.parametrize('isolation', ['job', 'worker'])
@pytest.mark.parametrize('how', ['bytes', 'files'])
def test_a_job_that_fills_the_disk_fails_and_others_go_on(
    keep: ExitStack, own_home: Path, how: str, isolation: str
) -> None:
    disk = own_home / 'disk'
    lonely = Lonely(keep, *on_tiny_disk(disk), options=('--dest_path_prefix', disk))
    cluster = lonely.open(fill, isolation=isolation)
    job = cluster.submit(how)
    others = [cluster.submit('') for _ in range(10)]
    assert cluster.wait(LIMIT), cluster.explain()
    assert job.status == DispyJob.Terminated
    assert 'No space left on device' in str(job.exception)
    assert {other() for other in others} == {'nothing written'}
    if how == 'files':
        late = lonely.open(size_of)
        waiting = late.submit(b'1')
        eventually(lambda: 'no directory for it: ' in late.explain(), SOON)
        assert 'No space left on device' in late.explain()
        assert not waiting.wait(0.1)
        late.close(timeout=0, terminate=True)
    assert cluster.close()
    again = lonely.open(size_of)  # the files are gone with their cluster
    assert again.submit(b'12').wait(SOON), again.explain()
    assert 'Traceback' not in lonely.node.log()


FULL_LOG = 'exec "$@" >/dev/full 2>/dev/full'


def test_a_node_whose_log_cannot_be_written_serves(keep: ExitStack) -> None:
    port = free_port()
    command = ['sh', '-c', FULL_LOG, 'sh', sys.executable, '-m', 'nodeserver.cli.dispynode']
    node = keep.enter_context(program(*command, '-i', '127.0.0.1', '-p', port, '-c', 1))
    options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    with dispy.JobCluster(size_of, ['127.0.0.1'], ping_interval=1, **options) as cluster:
        jobs = [cluster.submit(bytes(size)) for size in range(20)]
        assert cluster.wait(LIMIT), cluster.explain()
        assert [job() for job in jobs] == list(range(20))
    node.terminate()
    assert node.wait() in (1, 128 + 15)


CLIENT = """
import sys, tempfile
import dispy_nb as dispy

def double(number):
    return 2 * number

try:
    with open(tempfile.gettempdir() + '/filling', 'wb') as file:
        while True:
            file.write(bytes(4096))
            file.flush()
except OSError as error:
    print(error.strerror)
with dispy.JobCluster(double, ['127.0.0.1'], ip_addr='127.0.0.1', port=0,
                      node_port=int({port})) as cluster:
    print([cluster.submit(number)() for number in range(20)] == list(range(0, 40, 2)))
"""


def test_a_client_whose_temporary_directory_is_full_runs_jobs(
    keep: ExitStack, own_home: Path
) -> None:
    lonely = Lonely(keep)
    within = on_tiny_disk(own_home / 'disk')
    env = {'TMPDIR': str(own_home / 'disk')}
    ended = client_program(CLIENT.format(port=lonely.port), within=within, env=env)
    assert ended.stdout == 'No space left on device\nTrue\n'
    assert ended.stderr == ''


# descriptors


@pytest.mark.slow
def test_a_node_whose_descriptors_are_used_up_by_strangers_goes_on(keep: ExitStack) -> None:
    lonely = Lonely(keep, *limit('nofile', 300))
    cluster = lonely.open(size_of)
    assert cluster.submit(b'1')() == 1
    with ExitStack() as strangers:
        for _ in range(400):
            strangers.enter_context(socket.create_connection(('127.0.0.1', lonely.port)))
        jobs = [cluster.submit(bytes(size)) for size in range(50)]
        assert cluster.wait(LIMIT), cluster.explain()
        assert [job() for job in jobs] == list(range(50))
    again = lonely.open(size_of)
    job = again.submit(b'12')
    assert job.wait(LIMIT), again.explain()
    assert 'Traceback' not in lonely.node.log()


def test_a_node_that_may_hold_too_few_descriptors_says_so() -> None:
    command = [*limit('nofile', 100), sys.executable, '-m', 'nodeserver.cli.dispynode', '-p', '0']
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    words = 'this process may open 100 files (`ulimit -Hn`): a node needs 256 or more\n'
    assert (ended.returncode, ended.stdout) == (2, '')
    assert ended.stderr.endswith(f': {words}')


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_a_node_started_with_few_descriptors_takes_what_it_needs(
    keep: ExitStack, isolation: str
) -> None:
    lonely = Lonely(keep, 'prlimit', '--nofile=50:4096')
    cluster = lonely.open(soft_limit, isolation=isolation)
    assert cluster.submit()() == 256


# processes

STRANGER = 61_234  # a user of whom nobody else has processes


def as_stranger(home: Path, processes: int) -> tuple[str, ...]:
    """Run as a user who may have so many processes; root's are not counted (Linux, root)."""
    if os.getuid() != 0:
        pytest.skip('becoming another user needs root')
    os.chown(home, STRANGER, STRANGER)
    for directory in ('tmp', 'run', '.config'):
        os.chown(home / directory, STRANGER, STRANGER)
    # this user's files, such as the interpreter, may be nobody else's to read
    rights = ('--inh-caps=+dac_override', '--ambient-caps=+dac_override')
    become = ('setpriv', f'--reuid={STRANGER}', f'--regid={STRANGER}', '--clear-groups', *rights)
    return (*become, 'prlimit', f'--nproc={processes}:{processes}')


def fork_all(_: Any) -> str:
    """Fork until the system refuses, and leave the children."""
    while True:
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        except BlockingIOError:
            return 'refused'


def either(function: Any, argument: Any) -> Any:
    return function(argument)


@pytest.mark.slow
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_jobs_that_use_up_all_processes_hold_others_up_and_no_longer(
    keep: ExitStack, own_home: Path, isolation: str
) -> None:
    secret = 'shared by both users'
    within = as_stranger(own_home, 40)
    lonely = Lonely(keep, *within, env={'DISPY_SECRET': secret})
    cluster = lonely.open(either, secret=secret, isolation=isolation)
    greedy = [cluster.submit(fork_all, None) for _ in range(3)]
    jobs = [cluster.submit(size_of, bytes(size)) for size in range(20)]
    assert cluster.wait(LIMIT), cluster.explain()
    assert [job() for job in greedy] == ['refused'] * 3
    assert [job() for job in jobs] == list(range(20))
    log = lonely.node.log()
    assert 'Traceback' not in log
    assert log.count('\n') < 20
