"""Processes that die, freeze or leave: each is told in words within seconds, the rest goes on."""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import (
    Program,
    at_once,
    eventually,
    free_port,
    node_program,
    program,
)

LIMIT = 20.0
SOON = 5.0  # seconds within which people are told
DOOMED, STEADY = '127.0.5.1', '127.0.5.2'


# what runs on the nodes


def quick(number: int) -> int:
    time.sleep(0.02)
    return number


def hold(gate: str) -> str:
    """Tell in a file of this process that it began, and run until the file `gate` is there."""
    Path(f'{gate}.{os.getpid()}').touch()
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return str(dispy_node_name)  # type: ignore[name-defined]  # noqa: F821 - every job finds it


def either(function: Callable[..., Any] | None, *args: Any) -> Any:
    """Call the function, if there is one: several kinds of jobs in one cluster."""
    return function(*args) if function else None


@pytest.fixture
def gate(own_home: Path) -> Path:
    """The file for which the jobs of `hold` wait."""
    return own_home / 'gate'


def begun(gate: Path) -> list[int]:
    """Processes of the jobs that wait for the file, in the order of their beginning."""
    return [int(path.suffix[1:]) for path in gate.parent.glob(f'{gate.name}.*')]


def await_begun(gate: Path, count: int) -> list[int]:
    eventually(lambda: len(begun(gate)) >= count, SOON)
    return begun(gate)


# a job's process


def close_all() -> None:
    os.closerange(0, 65536)


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_a_job_that_closes_the_channel_to_its_node_is_told_so(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(either, isolation=isolation)
    job, other = cluster.submit(close_all), cluster.submit(quick, 1)
    assert cluster.wait(LIMIT)
    words = 'its result could not be reported: it closed the channel to its node'
    assert (job.status, job.exception) == (DispyJob.Terminated, words)
    assert other() == 1


def remove_directory() -> None:
    shutil.rmtree(Path.cwd())


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_a_job_that_removes_its_directory_harms_no_other(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(either, isolation=isolation)
    removing = [cluster.submit(remove_directory) for _ in range(2)]
    jobs = [cluster.submit(quick, number) for number in range(20)]
    assert cluster.wait(LIMIT)
    assert [job() for job in jobs] == list(range(20))
    assert {job.status for job in removing} == {DispyJob.Finished}


def parent(started: str) -> int:
    """Leave a file for each start, and tell which process the job was forked from."""
    descriptor, _ = tempfile.mkstemp(dir=started)
    os.close(descriptor)
    time.sleep(0.02)
    return os.getppid()


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_jobs_go_on_when_the_process_they_are_forked_from_is_killed(
    make_cluster: MakeCluster, isolation: str, tmp_path: Path, pair: Pair
) -> None:
    cluster = make_cluster(parent, isolation=isolation, nodes=[pair.addresses[0]])
    template = cluster.submit(str(tmp_path))()
    jobs = [cluster.submit(str(tmp_path)) for _ in range(50)]
    eventually(lambda: jobs[5].status == DispyJob.Finished)
    os.kill(template, signal.SIGKILL)
    assert cluster.wait(LIMIT), cluster.explain()
    broken = [job for job in jobs if job.status != DispyJob.Finished]
    # only the one that ran then, if any; it is not started a second time
    assert len(broken) <= 1
    assert len(list(tmp_path.iterdir())) <= 51
    assert len({job.result for job in jobs} - {None}) == 2


# a node


class TwoNodes:
    """A node that will come to harm and one that goes on, and a cluster that uses both."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        self.port = free_port()
        self._stack = stack
        self.doomed = self.start(DOOMED, 'doomed')
        self.steady = self.start(STEADY, 'steady')
        self.cluster = self.open(either, **options)
        eventually(lambda: len(self.cluster.snapshot().nodes) == 2, SOON)

    def start(self, address: str, name: str) -> Program:
        options = ('-i', address, '-p', self.port, '-c', 1, '--name', name)
        return self._stack.enter_context(node_program(*options))

    def open(self, function: Callable[..., Any], **options: Any) -> dispy.JobCluster:
        ours = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': self.port}
        options = {'nodes': [DOOMED, STEADY], **ours, **options}
        cluster = dispy.JobCluster(function, **options)
        return self._stack.enter_context(cluster)

    def hold_both(self, gate: Path) -> tuple[DispyJob, DispyJob]:
        """Have a job run on each node; the one on the doomed node comes first."""
        jobs = [self.cluster.submit(hold, str(gate)) for _ in range(2)]
        await_begun(gate, 2)
        eventually(lambda: all(job.ip_addr for job in jobs))  # that they run is told a bit later
        first, second = sorted(jobs, key=lambda job: str(job.ip_addr))
        assert (first.ip_addr, second.ip_addr) == (DOOMED, STEADY)
        return first, second


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    """Close at the end whatever was entered."""
    with ExitStack() as stack:
        yield stack


# a killed node can remove neither its directory nor its socket
@pytest.mark.leaves('files')
@pytest.mark.row('I16')
def test_a_killed_node_ends_its_jobs_in_words_and_others_run_elsewhere(
    keep: ExitStack, gate: Path
) -> None:
    nodes = TwoNodes(keep)
    lost, kept = nodes.hold_both(gate)
    waiting = [nodes.cluster.submit(quick, number) for number in range(10)]
    nodes.doomed.kill()
    assert lost.wait(SOON)
    assert (lost.status, lost.exception) == (DispyJob.Cancelled, 'Cancelled')
    assert (lost.result, lost.stdout, lost.stderr) == (None, None, None)
    assert lost.reason.startswith(f'node doomed ({DOOMED}) was lost: ')
    assert lost.explain() == f'job 1: cancelled: {lost.reason}'
    gate.touch()
    assert nodes.cluster.wait(LIMIT)
    assert kept() == 'steady'
    assert [job() for job in waiting] == list(range(10))
    assert {job.ip_addr for job in waiting} == {STEADY}


@pytest.mark.leaves('files')  # as above
@pytest.mark.row('I17', 'I18')
def test_reentrant_jobs_of_a_killed_node_finish_elsewhere(keep: ExitStack, gate: Path) -> None:
    ended: list[DispyJob] = []
    nodes = TwoNodes(keep, reentrant=True, callback=ended.append)  # no pulse_interval is needed
    lost, kept = nodes.hold_both(gate)
    nodes.doomed.kill()
    eventually(lambda: lost.status == DispyJob.Created, SOON)
    assert lost.reason.startswith(f'node doomed ({DOOMED}) was lost: ')
    gate.touch()
    assert nodes.cluster.wait(LIMIT)
    assert (lost(), kept()) == ('steady', 'steady')
    assert lost.ip_addr == STEADY
    assert {lost.status, kept.status} == {DispyJob.Finished}
    assert sorted(job.id for job in ended) == sorted((lost.id, kept.id))


@pytest.mark.slow
@pytest.mark.row('I15', 'I17')
def test_a_frozen_node_is_given_up_and_its_thaw_harms_nothing(keep: ExitStack, gate: Path) -> None:
    at_once(partial(freeze_and_thaw, keep, gate), False, True)


def freeze_and_thaw(keep: ExitStack, gates: Path, reentrant: bool) -> None:
    gate = gates.with_name(f'gate-{reentrant}')
    ended: list[DispyJob] = []
    nodes = TwoNodes(keep, reentrant=reentrant, pulse_interval=1, callback=ended.append)
    frozen, kept = nodes.hold_both(gate)
    nodes.doomed.signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    eventually(lambda: frozen.status in (DispyJob.Cancelled, DispyJob.Created), 10)
    assert time.monotonic() - stopped_at > 3.9  # five pulses, the last of them just before
    told = rf'node doomed \({DOOMED}\) was lost: nothing was heard of it for (\d+) s'
    found = re.search(told, frozen.reason)
    assert found
    assert 5 <= int(found[1]) <= 7  # by the scheduler's clock, which a busy machine holds up
    gate.touch()
    assert nodes.cluster.wait(LIMIT)
    expected = 'steady' if reentrant else None
    assert (frozen(), kept()) == (expected, 'steady')
    nodes.doomed.signal(signal.SIGCONT)
    later = [nodes.cluster.submit(quick, number) for number in range(20)]
    assert nodes.cluster.wait(LIMIT)
    assert [job() for job in later] == list(range(20))
    # the late answer of the thawed node changed nothing, and it serves whoever comes next
    assert (frozen(), len(ended)) == (expected, 22)
    nodes.cluster.close()
    other = nodes.open(hold, nodes=[DOOMED])
    job = other.submit(str(gate))
    assert job.wait(LIMIT), other.explain()
    assert job() == 'doomed'


@pytest.mark.slow
def test_jobs_of_a_node_that_is_asked_to_end_are_finished_there_or_elsewhere(
    keep: ExitStack,
) -> None:
    nodes = TwoNodes(keep)
    jobs = [nodes.cluster.submit(quick, number) for number in range(100)]
    eventually(lambda: sum(job.status == DispyJob.Finished for job in jobs) > 10)
    nodes.doomed.terminate()
    assert nodes.cluster.wait(LIMIT)
    assert [job() for job in jobs] == list(range(100))
    assert {job.status for job in jobs} == {DispyJob.Finished}
    assert {job.ip_addr for job in jobs} == {DOOMED, STEADY}
    assert nodes.doomed.wait() == 128 + signal.SIGTERM


# a client

HOLDING = """
import pathlib, sys, time
import dispy_nb as dispy

def hold(gate):
    import os, pathlib, time
    pathlib.Path(f'{gate}.{os.getpid()}').touch()
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)

cluster = dispy.JobCluster(hold, ['127.0.5.1'], ip_addr='127.0.0.1', port=0,
                           node_port=int(sys.argv[1]))
jobs = [cluster.submit(gate) for gate in sys.argv[2:]]
while not cluster.snapshot().nodes:
    time.sleep(0.01)
print('holding', flush=True)
cluster.wait()
print('done', flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_node_whose_client_was_killed_frees_itself_within_seconds(
    keep: ExitStack, own_home: Path, gate: Path
) -> None:
    script, port = own_home / 'client.py', free_port()
    script.write_text(HOLDING)
    # what it keeps of the dead program's job is left behind: that is a promise
    prefix = ('--dest_path_prefix', own_home / 'node')
    place = ('-i', DOOMED, '-p', port, '-c', 1, '--name', 'doomed')
    node = keep.enter_context(node_program(*place, *prefix))
    for jobs in ((), (gate,)):
        with program(sys.executable, script, port, *jobs, ready='holding') as client:
            await_begun(gate, len(jobs))
            client.kill()
            client.wait()
        node.wait_for_log('the program that used this node is gone', SOON)
        options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
        with dispy.JobCluster(quick, [DOOMED], **options) as cluster:
            job = cluster.submit(7)
            if jobs:
                # what ran for the dead program may end first
                eventually(lambda: ', which is gone: its jobs end' in cluster.explain(), SOON)
                gate.touch()
            assert job.wait(SOON), cluster.explain()
            assert job() == 7


# nodes of a program

OWNER = """
import os, pathlib, sys, time
import dispy_nb as dispy

def hold(gate):
    import os, pathlib, time
    pathlib.Path(f'{gate}.{os.getpid()}').touch()
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    pathlib.Path(f'{gate}.end').touch()

local = dispy.LocalNodes(2, cpus=1)
for gate in sys.argv[2:]:
    cluster = dispy.JobCluster(hold, local.nodes, ip_addr='127.0.0.1', port=0)
    job = cluster.submit(gate)
print('pids', *local.pids, flush=True)
if sys.argv[1] == 'error':
    raise ValueError('of the program')
if sys.argv[1] == 'wait':
    time.sleep(60)
"""


@pytest.fixture
def owner(own_home: Path) -> Path:
    """A program that starts two nodes for itself."""
    script = own_home / 'owner.py'
    script.write_text(OWNER)
    return script


def node_processes(owner: Program) -> list[psutil.Process]:
    words = owner.wait_for_log('pids', LIMIT).split('pids')[1].split('\n')[0]
    return [psutil.Process(int(pid)) for pid in words.split()]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


@pytest.mark.slow
@pytest.mark.parametrize(('end', 'status'), [('normal', 0), ('error', 1)])
def test_nodes_of_a_program_end_with_it(owner: Path, end: str, status: int) -> None:
    with program(sys.executable, owner, end, ready='pids') as running:
        nodes = node_processes(running) if running.process.poll() is None else []
        assert running.wait() == status
        assert all_gone(nodes)
        assert ('ValueError: of the program' in running.errors()) is (end == 'error')


# the killed program can no longer remove the directory of its nodes
@pytest.mark.slow
@pytest.mark.leaves('files')
def test_idle_nodes_of_a_killed_program_are_gone_within_seconds(owner: Path) -> None:
    with program(sys.executable, owner, 'wait', ready='pids') as running:
        nodes = node_processes(running)
        running.kill()
        running.wait()
        eventually(lambda: all_gone(nodes), SOON)


@pytest.mark.slow
@pytest.mark.leaves('files')  # as above
def test_nodes_of_a_killed_program_finish_jobs_and_end_when_told_to(
    owner: Path, gate: Path
) -> None:
    """What one keeps of these jobs it keeps for a recovery: tests/features/test_nodekeeps.py."""
    with program(sys.executable, owner, 'wait', gate, ready='pids') as running:
        nodes = node_processes(running)
        await_begun(gate, 1)
        running.kill()
        running.wait()
        eventually(lambda: any(all_gone([node]) for node in nodes), SOON)  # the idle one ends
        assert not Path(f'{gate}.end').exists()
        gate.touch()
        eventually(lambda: Path(f'{gate}.end').exists(), SOON)
        (left,) = (node for node in nodes if not all_gone([node]))
        left.terminate()
        eventually(lambda: all_gone(nodes), SOON)


# why nothing happens


@pytest.mark.row('Z06')
def test_explain_says_that_no_node_was_found(caplog: pytest.LogCaptureFixture) -> None:
    port, words = free_port(), []
    options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    with dispy.JobCluster(quick, ['127.0.5.9', ('127.0.5.8', 7)], **options) as cluster:
        job = cluster.submit(1)
        text = cluster.explain()
        words = [
            'quick: 1 job waiting, 0 on nodes; no node can be used',
            f'looked for nodes at: 127.0.5.9 (port {port}), 127.0.5.8 (port 7); asked',
            'nobody answered: start `dispynode` on each machine',
            'firewall',
            '`dispy key export`',
        ]
        assert [word for word in words if word not in text] == []
        assert job.explain().startswith('job 1: waiting for a cpu\n')
        eventually(lambda: words[0] in caplog.text, SOON)  # told without being asked
        cluster.close(timeout=0, terminate=True)
        assert 'closed' in cluster.explain()


@pytest.mark.row('Z06')
def test_explain_says_that_all_cpus_are_busy(
    make_cluster: MakeCluster, pair: Pair, gate: Path
) -> None:
    cluster = make_cluster(either)
    running = [cluster.submit(hold, str(gate)) for _ in range(2)]
    await_begun(gate, 2)
    waiting = cluster.submit(quick, 3)
    eventually(lambda: '1 job waiting' in cluster.explain())
    text = cluster.explain()
    assert 'either: 1 job waiting, 2 on nodes; all cpus of the 2 usable nodes are busy' in text
    for name, address in zip(('alpha', 'beta'), pair.addresses, strict=True):
        assert f'node {name} ({address}) port {pair.port}: all cpus busy: 1 of 1 cpu in use' in text
    assert waiting.explain().startswith(f'job {waiting.id}: waiting for a cpu\n')
    assert running[0].explain().startswith(f'job 1: with node {running[0].ip_addr}\n')
    gate.touch()
    assert cluster.wait(LIMIT)
    assert waiting.explain() == 'job 3: finished'
