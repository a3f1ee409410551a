"""`JobCluster` and its methods, with real nodes on loopback."""

import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb.table import status_table
from nodeserver.core.errors import ClusterClosed, PicklingFailed
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import client_program, eventually, free_port, node_program

LIMIT = 15.0


# what runs on the nodes


def echo(*args, **kwargs):
    return args, kwargs


def where():
    return dispy_node_name  # noqa: F821 - every job finds it


def pause_and_say_where(seconds):
    import time

    time.sleep(seconds)
    return dispy_node_name  # noqa: F821


def hold(gate, mark=''):
    """Run until the file `gate` is there; `mark` tells that this has begun, and its process."""
    import os
    import pathlib
    import time

    if mark:
        pathlib.Path(mark).write_text(str(os.getpid()))
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return dispy_node_name  # noqa: F821


def beat(mark):
    """Say again and again that this process lives."""
    import os
    import pathlib
    import time

    path = pathlib.Path(mark)
    for number in range(3000):
        path.write_text(f'{os.getpid()} {number}')
        time.sleep(0.01)


def open_gate(gate: Path) -> None:
    gate.touch()


@pytest.fixture
def gate(own_home: Path) -> Path:
    return own_home / 'gate'


class InThread:
    """A call in a thread of its own, whose end can be looked for."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.value: Any = None
        self._thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], *args: Any) -> None:
        self.value = function(*args)

    def returns_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


# submitting


@pytest.mark.row('C01')
def test_submit_returns_a_job_without_waiting_for_it(make_cluster: MakeCluster, gate: Path) -> None:
    cluster = make_cluster(hold)
    jobs = [cluster.submit(str(gate)) for _ in range(10)]  # would never return if it waited
    assert all(isinstance(job, dispy.DispyJob) for job in jobs)
    assert all(job.status in (job.Created, job.Running) for job in jobs)
    open_gate(gate)
    assert cluster.wait(LIMIT)


@pytest.mark.row('C02')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_arguments_reach_the_function_unchanged(make_cluster: MakeCluster, isolation: str) -> None:
    cluster = make_cluster(echo, isolation=isolation)
    args = (1, 'zwei', [3.0, {'four': (5, None)}], b'\x00\xff', {6, 7}, 2**100, float('inf'))
    keywords = {'a': 1, 'self': 2, 'node': 3, 'args': 4, 'ünïcode': [5]}
    plain, both = cluster.submit(), cluster.submit(*args, **keywords)
    assert plain() == ((), {})
    assert both() == (args, keywords)
    big = bytes(range(256)) * 40_000  # 10 MB: travels in blocks
    assert cluster.submit(big)()[0][0] == big


class Counter:
    """Has a lock, which cannot be pickled, and leaves it out."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {'count': self.count}

    def double(self) -> int:
        return 2 * self.count


def doubled(counter):
    return counter.double(), hasattr(counter, 'lock')


@pytest.mark.row('C03')
def test_getstate_decides_what_travels_of_an_argument(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(doubled)
    assert cluster.submit(Counter(21))() == (42, False)


@pytest.mark.row('C04')
def test_an_argument_that_cannot_be_pickled_is_refused_at_once(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(echo)
    before = cluster.submit(1)
    with pytest.raises(PicklingFailed, match=r'argument 2\[.lock.\].*lock'):
        cluster.submit(1, {'lock': threading.Lock()})
    with pytest.raises(PicklingFailed, match=r"argument 'thread'"):
        cluster.submit(thread=threading.current_thread())
    after = cluster.submit(2)
    assert (before(), after()) == (((1,), {}), ((2,), {}))
    assert cluster.snapshot().submitted == 2
    assert cluster.close(LIMIT)


@pytest.mark.row('C06')
def test_a_job_waits_for_a_node_and_runs_when_one_comes(
    open_clusters: list[dispy.JobCluster],
) -> None:
    port = free_port()
    cluster = dispy.JobCluster(
        where, nodes=['127.0.0.4'], ip_addr='127.0.0.1', port=0, node_port=port
    )
    open_clusters.append(cluster)
    job = cluster.submit()
    assert not job.wait(0.3)
    assert job.status == dispy.DispyJob.Created
    with node_program('-i', '127.0.0.4', '-p', port, '-c', 1, '--name', 'late'):
        assert job.wait(LIMIT), cluster.explain()
        assert job.result == 'late'
        assert cluster.close(LIMIT)


@pytest.mark.row('C07')
def test_jobs_are_spread_over_equal_nodes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(pause_and_say_where)
    eventually(lambda: len(cluster.snapshot().nodes) == 2)
    jobs = [cluster.submit(0.02) for _ in range(20)]
    names = [job() for job in jobs]
    assert 5 <= names.count('alpha') <= 15
    assert names.count('alpha') + names.count('beta') == 20


@pytest.mark.row('C08')
def test_submit_node_runs_the_job_on_that_node_only(make_cluster: MakeCluster) -> None:
    nodes: dict[str, dispy.DispyNode] = {}

    def note(status: int, node: dispy.DispyNode | None, job: dispy.DispyJob | None) -> None:
        if node is not None:
            nodes[node.name] = node

    cluster = make_cluster(pause_and_say_where, cluster_status=note)
    eventually(lambda: len(nodes) == 2)
    for node in (nodes['beta'], '127.0.0.3', 'beta'):
        jobs = [cluster.submit_node(node, 0.01) for _ in range(4)]  # alpha idles meanwhile
        assert [job() for job in jobs] == ['beta'] * 4
        assert {job.ip_addr for job in jobs} == {'127.0.0.3'}
    assert cluster.submit_node(nodes['alpha'], seconds=0)() == 'alpha'


@pytest.mark.row('C08')
def test_submit_node_takes_a_host_name_that_has_to_be_resolved(
    open_clusters: list[dispy.JobCluster],
) -> None:
    port = free_port()
    with (
        node_program('-i', '127.0.0.1', '-p', port, '-c', 1, '--name', 'first'),
        node_program('-i', '127.0.0.4', '-p', port, '-c', 1, '--name', 'second'),
    ):
        cluster = dispy.JobCluster(
            where,
            nodes=['localhost', '127.0.0.4'],
            ip_addr='127.0.0.1',
            port=0,
            node_port=port,
        )
        open_clusters.append(cluster)
        assert [cluster.submit_node('localhost')() for _ in range(3)] == ['first'] * 3
        assert cluster.submit_node('127.0.0.4')() == 'second'


# cancelling


@pytest.mark.row('C11')
def test_a_queued_job_that_is_cancelled_never_runs(
    make_cluster: MakeCluster, gate: Path, tmp_path: Path
) -> None:
    cluster = make_cluster(hold, nodes=['127.0.0.2'])
    running = cluster.submit(str(gate), str(tmp_path / 'first'))
    eventually((tmp_path / 'first').exists)
    queued = cluster.submit(str(gate), str(tmp_path / 'second'))
    third = cluster.submit(str(gate), str(tmp_path / 'third'))
    assert cluster.cancel(queued) == 0
    assert queued.wait(LIMIT)
    assert queued.status == dispy.DispyJob.Cancelled
    assert running.status == dispy.DispyJob.Running
    open_gate(gate)
    assert (running(), third()) == ('alpha', 'alpha')
    assert not (tmp_path / 'second').exists()
    assert cluster.cancel(queued) == -1


@pytest.mark.row('C12')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_a_running_job_that_is_cancelled_is_killed(
    make_cluster: MakeCluster, tmp_path: Path, isolation: str
) -> None:
    cluster = make_cluster(beat, isolation=isolation)
    mark = tmp_path / 'mark'
    job = cluster.submit(str(mark))
    pid = int(eventually(lambda: mark.exists() and mark.read_text()).split()[0])
    assert psutil.pid_exists(pid)
    cluster.cancel(job)
    assert job.wait(LIMIT)
    assert job.status == dispy.DispyJob.Cancelled
    if isolation == 'job':  # a lasting process may live on, without the job
        eventually(lambda: not psutil.pid_exists(pid))
    last = mark.read_text()
    time.sleep(0.05)  # five beats
    assert mark.read_text() == last


def pause(seconds):
    import time

    time.sleep(seconds)


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_cancelling_jobs_never_touches_others(make_cluster: MakeCluster, isolation: str) -> None:
    cluster = make_cluster(pause, isolation=isolation)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        jobs = [cluster.submit(0.002) for _ in range(40)]
        for job in jobs[::3]:  # at any moment of their lives
            eventually(lambda job=job: job.status != dispy.DispyJob.Created)
            cluster.cancel(job)
        assert cluster.wait(LIMIT), cluster.explain()
        left = [job for number, job in enumerate(jobs) if number % 3]
        assert {job.status for job in left} == {dispy.DispyJob.Finished}
        ended = {dispy.DispyJob.Finished, dispy.DispyJob.Cancelled}
        assert {job.status for job in jobs} <= ended


# waiting


@pytest.mark.row('C17')
@pytest.mark.parametrize('call', ['wait', '__call__'])
def test_wait_and_call_return_only_when_all_jobs_have_ended(
    make_cluster: MakeCluster, gate: Path, call: str
) -> None:
    cluster = make_cluster(hold)
    jobs = [cluster.submit(str(gate)) for _ in range(5)]
    waiting = InThread(cluster if call == '__call__' else cluster.wait)
    assert not waiting.returns_within(0.3)
    open_gate(gate)
    assert waiting.returns_within(LIMIT)
    assert [job.status for job in jobs] == [dispy.DispyJob.Finished] * 5


@pytest.mark.row('C18')
def test_wait_returns_after_its_timeout(make_cluster: MakeCluster, gate: Path) -> None:
    cluster = make_cluster(hold)
    assert cluster.wait(0) is True  # there are no jobs
    cluster.submit(str(gate))
    began = time.monotonic()
    assert cluster.wait(0.2) is False
    assert 0.2 <= time.monotonic() - began < 1.2
    assert cluster.wait(timeout=0) is False
    open_gate(gate)
    assert cluster.wait(LIMIT) is True


# closing


@pytest.mark.row('C19')
def test_close_waits_for_pending_jobs_and_lets_none_in_after(
    make_cluster: MakeCluster, gate: Path
) -> None:
    assert str(inspect.signature(dispy.JobCluster.close)).startswith(
        '(self, timeout: float | None = None, terminate: bool = False)'
    )
    cluster = make_cluster(hold)
    jobs = [cluster.submit(str(gate)) for _ in range(4)]
    closing = InThread(cluster.close)
    assert not closing.returns_within(0.3)
    open_gate(gate)
    assert closing.returns_within(LIMIT)
    assert [job.status for job in jobs] == [dispy.DispyJob.Finished] * 4
    assert [job.result for job in jobs] == [job() for job in jobs]
    with pytest.raises(ClusterClosed, match='hold is closed'):
        cluster.submit(str(gate))


@pytest.mark.row('C20')
def test_close_tells_whether_the_jobs_ended_in_time(make_cluster: MakeCluster, gate: Path) -> None:
    cluster = make_cluster(hold)
    early = cluster.submit(str(gate))
    assert cluster.close(0.1) is False
    late = cluster.submit(str(gate))  # it is still open
    open_gate(gate)
    assert cluster.close(LIMIT) is True
    assert [job.status for job in (early, late)] == [dispy.DispyJob.Finished] * 2
    with pytest.raises(ClusterClosed):
        cluster.submit(str(gate))
    assert cluster.close() is True  # once more does no harm


@pytest.mark.row('C21')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_close_with_terminate_ends_what_is_pending(
    make_cluster: MakeCluster, gate: Path, tmp_path: Path, isolation: str
) -> None:
    cluster = make_cluster(hold, nodes=['127.0.0.2'], isolation=isolation)
    jobs = [cluster.submit(str(gate), str(tmp_path / f'mark-{number}')) for number in range(6)]
    first = tmp_path / 'mark-0'
    pid = int(eventually(lambda: first.exists() and first.read_text()))
    began = time.monotonic()
    assert cluster.close(0.1, terminate=True) is True
    assert time.monotonic() - began < 8
    assert [job.status for job in jobs] == [dispy.DispyJob.Cancelled] * 6
    assert not psutil.pid_exists(pid)
    assert [path.name for path in tmp_path.glob('mark-*')] == ['mark-0']
    with pytest.raises(ClusterClosed):
        cluster.submit(str(gate))


@pytest.mark.row('C19')
def test_who_closes_too_returns_when_the_nodes_have_confirmed_it() -> None:
    with dispy.LocalNodes(1) as local:
        cluster = dispy.JobCluster(echo, nodes=local.nodes)
        cluster.submit()()
        os.kill(local.pids[0], signal.SIGSTOP)
        first = InThread(cluster.close)
        eventually(lambda: cluster.snapshot().closed)
        second = InThread(cluster.close)
        assert not second.returns_within(0.3)
        os.kill(local.pids[0], signal.SIGCONT)
        assert first.returns_within(LIMIT)
        assert second.returns_within(LIMIT)


@pytest.mark.row('C22')
def test_after_close_another_cluster_can_be_made(make_cluster: MakeCluster) -> None:
    for number in range(3):
        cluster = make_cluster(echo)
        assert cluster.submit(number)() == ((number,), {})
        assert cluster.close(LIMIT)


@pytest.mark.row('Z02')
def test_a_with_block_closes_the_cluster(make_cluster: MakeCluster) -> None:
    with make_cluster(pause_and_say_where) as cluster:
        jobs = [cluster.submit(0.01) for _ in range(4)]
    assert {job.status for job in jobs} == {dispy.DispyJob.Finished}
    with pytest.raises(ClusterClosed):
        cluster.submit(0)


@pytest.mark.row('Z02')
def test_a_with_block_that_fails_closes_at_once(make_cluster: MakeCluster, gate: Path) -> None:
    with pytest.raises(ZeroDivisionError), make_cluster(hold) as cluster:
        jobs = [cluster.submit(str(gate)) for _ in range(4)]  # would run for half a minute
        1 / 0  # noqa: B018
    assert {job.status for job in jobs} == {dispy.DispyJob.Cancelled}


# looking


@pytest.mark.parametrize(
    ('count', 'words'),
    [
        (1, ['1 job failed, 1 was cancelled', '1 job pending']),
        (2, ['2 jobs failed, 2 were cancelled', '2 jobs pending']),
    ],
)
def test_print_status_counts_in_words(
    make_cluster: MakeCluster, count: int, words: list[str]
) -> None:
    now = make_cluster(len).snapshot()
    counted = replace(now, submitted=3 * count, failed=count, cancelled=count)
    assert status_table(counted).splitlines()[-2:] == words


@pytest.mark.row('C23', 'C24')
def test_print_status_and_stats_print_each_node_and_its_time(
    make_cluster: MakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = make_cluster(pause_and_say_where)
    eventually(lambda: len(cluster.snapshot().nodes) == 2)
    for name in ('alpha', 'alpha', 'beta'):
        cluster.submit_node(name, 0.1)
    assert cluster.wait(LIMIT)
    for show in (cluster.print_status, cluster.stats):
        show()
        rows = {}
        for line in capsys.readouterr().out.splitlines():
            if '127.0.0.' in line:
                title, _, jobs, _, seconds = (cell.strip() for cell in line.split('|'))
                rows[title] = (int(jobs), float(seconds))
        assert rows.keys() == {'alpha (127.0.0.2)', 'beta (127.0.0.3)'}
        assert rows['alpha (127.0.0.2)'][0] == 2
        assert rows['beta (127.0.0.3)'][0] == 1
        assert 0.2 <= rows['alpha (127.0.0.2)'][1] < 0.6
        assert 0.1 <= rows['beta (127.0.0.3)'][1] < 0.4


# making

DOCUMENTED = {
    'computation': inspect.Parameter.empty,
    'nodes': ['*'],
    'depends': [],
    'callback': None,
    'cluster_status': None,
    'ip_addr': None,
    'ext_ip_addr': None,
    'port': 51347,
    'node_port': 51348,
    'recover_file': None,
    'dest_path': None,
    'loglevel': dispy.logger.WARNING,
    'setup': None,
    'cleanup': True,
    'pulse_interval': None,
    'ping_interval': None,
    'reentrant': False,
    'secret': '',
    'keyfile': None,
    'certfile': None,
}


@pytest.mark.row('A02')
def test_the_signature_is_the_documented_one(make_cluster: MakeCluster, pair: Pair) -> None:
    parameters = inspect.signature(dispy.JobCluster).parameters
    own = inspect.Parameter.POSITIONAL_OR_KEYWORD
    documented = {name: p.default for name, p in parameters.items() if p.kind is own}
    assert list(documented.items()) == list(DOCUMENTED.items())
    further = list(parameters.values())[len(DOCUMENTED) :]
    assert {parameter.kind for parameter in further} == {inspect.Parameter.KEYWORD_ONLY}

    values = {'computation': echo, 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': pair.port}
    values |= {'nodes': list(pair.addresses)}
    with make_cluster(echo) as cluster:  # the same by keyword, and below by position
        assert cluster.submit(1)() == ((1,), {})
    with dispy.JobCluster(*({**DOCUMENTED, **values}).values()) as cluster:
        assert cluster.submit(1)() == ((1,), {})


@pytest.mark.row('A22')
@pytest.mark.parametrize('port', [None, 0])
def test_without_a_fixed_port_any_free_one_is_taken(
    make_cluster: MakeCluster, port: int | None
) -> None:
    with make_cluster(echo, port=port) as cluster:
        assert cluster.submit(1)() == ((1,), {})
        used = {c.laddr.port for c in psutil.Process().net_connections('udp') if c.laddr}
        assert used
        assert 51347 not in used


@pytest.mark.row('A23')
def test_nodes_are_contacted_at_node_port(open_clusters: list[dispy.JobCluster]) -> None:
    assert DOCUMENTED['node_port'] == 51348
    one, other = free_port(), free_port()
    with (
        node_program('-i', '127.0.0.4', '-p', one, '-c', 1, '--name', 'one'),
        node_program('-i', '127.0.0.4', '-p', other, '-c', 1, '--name', 'other'),
    ):
        for port, name in ((one, 'one'), (other, 'other')):
            cluster = dispy.JobCluster(
                where, nodes=['127.0.0.4'], ip_addr='127.0.0.1', port=0, node_port=port
            )
            open_clusters.append(cluster)
            assert {cluster.submit()() for _ in range(4)} == {name}
            assert [node.name for node in cluster.snapshot().nodes] == [name]
            assert cluster.close(LIMIT)


@pytest.mark.row('A26')
def test_a_second_cluster_of_a_program_shares_the_nodes_with_the_first(
    make_cluster: MakeCluster, gate: Path, tmp_path: Path
) -> None:
    first = make_cluster(hold, nodes=['127.0.0.2'])
    second = make_cluster(echo, nodes=['127.0.0.2'])
    held = first.submit(str(gate), str(tmp_path / 'mark'))
    eventually((tmp_path / 'mark').exists)
    job = second.submit(2)  # waits: the node's only cpu is busy with the other's job
    assert not job.wait(0.2)
    open_gate(gate)
    assert held() == 'alpha'
    assert job() == ((2,), {})
    assert job.ip_addr == held.ip_addr
    assert first.submit(str(gate))() == 'alpha'
    assert first.close(LIMIT)
    assert second.submit(3)() == ((3,), {})  # which the end of the first does not touch


NAMES = """
import logging
import dispy_nb as dispy

for name in ('JobCluster', 'SharedJobCluster', 'DispyJob', 'DispyNode', 'NodeAllocate',
             'DispyNodeAvailInfo'):
    assert isinstance(getattr(dispy, name), type), name
    assert name in dispy.__all__, name
assert callable(dispy.recover_jobs)
assert isinstance(dispy.logger, logging.Logger)
for level in ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'):
    assert getattr(dispy.logger, level) == getattr(logging, level), level
node = dispy.NodeAllocate('127.0.0.5', port={port})
with dispy.JobCluster(abs, nodes=[node], ip_addr='127.0.0.1', port=0) as cluster:
    job = cluster.submit(-3)
    assert job() == 3
    assert isinstance(job, dispy.DispyJob)
    assert isinstance(job.node, dispy.DispyNode)
    assert isinstance(job.node.avail_info, dispy.DispyNodeAvailInfo)
"""


@pytest.mark.row('U01')
def test_the_package_has_the_documented_names() -> None:
    port = free_port()
    with node_program('-i', '127.0.0.5', '-p', port, '-c', 1):
        client_program(NAMES.replace('{port}', str(port)))
