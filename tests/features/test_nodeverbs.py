"""What a user does with single nodes while a cluster runs (sections C and E)."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob, DispyNode
from tests.features.conftest import MakeCluster
from tests.support.programs import eventually, free_port, node_program

LIMIT = 20.0
ALPHA, BETA = '127.0.0.2', '127.0.0.3'
BIG = '127.0.0.4'


def where() -> int:
    return os.getppid()  # the template of the node, one for each computation there


def hold(gate: str, number: int = 0) -> int:
    Path(f'{gate}.{number}').touch()
    while not Path(gate).exists():
        time.sleep(0.01)
    return number


def span(seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


@pytest.fixture(scope='module')
def big_port(shared_home: Path) -> Iterator[int]:
    """One more node, with two cpus, at a port of its own."""
    port = free_port()
    with node_program('-i', BIG, '-p', port, '-c', 2, '--name', 'big'):
        yield port


@pytest.fixture
def gate(own_home: Path) -> Path:
    return own_home / 'gate'


def await_nodes(cluster: dispy.JobCluster, count: int) -> None:
    cluster.wait_for_nodes(count, timeout=LIMIT)


def has_begun(gate: Path, number: int = 0) -> Callable[[], bool]:
    return Path(f'{gate}.{number}').exists


# more nodes


@pytest.mark.row('C13')
def test_a_node_is_added_to_a_running_cluster(make_cluster: MakeCluster, big_port: int) -> None:
    cluster = make_cluster(span, nodes=[ALPHA])
    await_nodes(cluster, 1)
    assert cluster.allocate_node(BETA) == 0
    await_nodes(cluster, 2)
    assert cluster.allocate_node([(BIG, big_port)]) == 0
    await_nodes(cluster, 3)
    jobs = [cluster.submit(0.2) for _ in range(6)]
    assert cluster.wait(LIMIT)
    assert {job.ip_addr for job in jobs} == {ALPHA, BETA, BIG}


@pytest.mark.row('C13')
def test_a_node_is_added_with_its_own_allocation(make_cluster: MakeCluster, big_port: int) -> None:
    asked: list[Any] = []

    class One(dispy.NodeAllocate):
        def allocate(self, *given: Any, **more: Any) -> int:
            asked.append(given[:4])
            return 1

    cluster = make_cluster(span, nodes=['127.9.*'])
    assert cluster.allocate_node(One(BIG, big_port)) == 0
    (node,) = cluster.wait_for_nodes(1, timeout=LIMIT)
    assert asked == [(cluster, BIG, 'big', 2)]
    assert (node.cpus, node.avail_cpus, node.port) == (1, 2, big_port)


@pytest.mark.row('C13')
def test_what_is_no_node_is_told(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make_cluster(span, nodes=[ALPHA])
    assert cluster.allocate_node(['nowhere.invalid', BETA]) == -1
    assert "allocate_node(): host 'nowhere.invalid' is unknown" in caplog.text
    await_nodes(cluster, 2)
    for wrong in (5, [], None):
        with pytest.raises(dispy.UsageError):
            cluster.allocate_node(wrong)  # type: ignore[arg-type]
    cluster.close()
    for call in (cluster.allocate_node, cluster.discover_nodes, cluster.deallocate_node):
        with pytest.raises(dispy.ClusterClosed, match='is closed'):
            call(ALPHA)


def test_nodes_are_asked_for_again_when_that_is_wished(
    make_cluster: MakeCluster, big_port: int
) -> None:
    cluster = make_cluster(span, nodes=['127.0.0.*'])
    assert cluster.discover_nodes((BIG, big_port)) == 0
    eventually(lambda: any(n.address == BIG for n in cluster.snapshot().nodes))
    assert cluster.discover_nodes('*') == 0
    assert cluster.discover_nodes(['nowhere.invalid']) == -1


# fewer


def test_a_deallocated_node_gets_no_new_jobs_and_keeps_the_computation(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(where)
    await_nodes(cluster, 2)
    before = cluster.submit_node(ALPHA)()
    assert cluster.deallocate_node('alpha') == 0
    jobs = [cluster.submit() for _ in range(6)]
    assert cluster.wait(LIMIT)
    assert {job.ip_addr for job in jobs} == {BETA}
    assert cluster.allocate_node(ALPHA) == 0
    assert cluster.submit_node(ALPHA)() == before
    assert cluster.deallocate_node('127.0.0.99') == -1


def test_a_closed_node_ends_its_job_first_and_is_used_again_when_it_is_allocated(
    make_cluster: MakeCluster, gate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, DispyNode]] = []
    cluster = make_cluster(
        hold, cluster_status=lambda status, node, job: job or told.append((status, node))
    )
    await_nodes(cluster, 2)
    running = cluster.submit_node(ALPHA, str(gate))
    pinned = cluster.submit_node('alpha', str(gate), 1)
    eventually(has_begun(gate))
    assert cluster.close_node(ALPHA) == 0
    assert pinned() is None
    assert pinned.status == DispyJob.Cancelled
    assert 'was for node alpha (127.0.0.2) only, and it was closed' in str(pinned.reason)
    assert running.status == DispyJob.Running
    gate.touch()
    assert running() == 0
    eventually(lambda: told[-1][0] == DispyNode.Closed)
    assert told[-1][1].closed
    with pytest.raises(dispy.UsageError, match='lost or closed'):
        cluster.submit_node(told[-1][1], str(gate))
    late = cluster.submit_node(ALPHA, str(gate), 2)
    words = 'not used: it was closed with close_node(); `allocate_node()` uses it again'
    eventually(lambda: words in caplog.text)
    assert cluster.allocate_node(told[-1][1]) == 0
    assert late() == 2
    assert late.ip_addr == ALPHA


def test_a_node_is_closed_with_its_running_job_cancelled(
    make_cluster: MakeCluster, gate: Path
) -> None:
    cluster = make_cluster(hold)
    await_nodes(cluster, 2)
    job = cluster.submit_node(ALPHA, str(gate))
    eventually(has_begun(gate))
    assert cluster.close_node(ALPHA, terminate_pending=True) == 0
    assert job() is None
    assert job.status == DispyJob.Cancelled
    gate.touch()
    assert cluster.submit(str(gate), 3)() == 3
    with pytest.raises(dispy.UsageError, match='terminate_pending must be'):
        cluster.close_node(ALPHA, terminate_pending=1)  # type: ignore[arg-type]


def test_a_closed_node_is_free_for_other_programs(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(span, nodes=[ALPHA])
    await_nodes(cluster, 1)
    with dispy.JobCluster(
        span, [ALPHA], ip_addr='127.0.0.1', port=0, node_port=cluster._options.node_port or 0
    ) as other:
        await_nodes(other, 1)
        assert cluster.close_node(ALPHA) == 0
        assert other.submit(0.01)() is not None
        # the end of its computation reaches the first program while the other one is served
        eventually(lambda: 'closed with close_node()' in cluster.explain())


def test_a_node_is_set_up_anew(make_cluster: MakeCluster) -> None:
    told: list[int] = []
    cluster = make_cluster(
        where, nodes=[ALPHA], cluster_status=lambda status, node, job: job or told.append(status)
    )
    await_nodes(cluster, 1)
    before = cluster.submit()()
    assert cluster.resetup_node(ALPHA) == 0
    waiting = cluster.submit_node(ALPHA)
    assert waiting() != before  # it is another process that ran setup
    seen = [status for status in told if status != DispyNode.AvailInfo]
    assert seen == [DispyNode.Initialized, DispyNode.Closed, DispyNode.Initialized]


# cpus


def most_at_once(jobs: list[DispyJob]) -> int:
    spans = [job() for job in jobs]
    moments = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    return max(sum(step for _, step in moments[: end + 1]) for end in range(len(moments)))


@pytest.mark.row('C15', 'C16')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_so_many_cpus_of_a_node_are_used_as_was_set(
    make_cluster: MakeCluster, big_port: int, isolation: str
) -> None:
    told: list[tuple[int, int]] = []

    def note(status: int, node: DispyNode, job: Any) -> None:
        if status == DispyNode.AvailInfo:
            told.append((node.cpus, node.avail_cpus))

    options = {'isolation': isolation, 'cluster_status': note}
    cluster = make_cluster(span, nodes=[(BIG, big_port)], **options)
    (node,) = cluster.wait_for_nodes(1, timeout=LIMIT)
    for cpus, used in ((1, 1), (2, 2), (-1, 1), (9, 2)):
        assert cluster.set_node_cpus(BIG, cpus) == used
        assert most_at_once([cluster.submit(0.15) for _ in range(2 * used)]) == used
        assert (node.cpus, node.avail_cpus) == (used, 2)
    assert {(1, 2), (2, 2)} <= set(told)
    assert cluster.set_node_cpus('nobody', 1) == -1
    assert cluster.set_node_cpus(node, 0) == 0
    job = cluster.submit(0.01)
    assert not cluster.wait(0.3)
    assert '`set_node_cpus()` gives it some' in cluster.explain(job)
    assert cluster.set_node_cpus(node, 1) == 1
    assert job()
    with pytest.raises(dispy.UsageError, match='cpus must be a whole number'):
        cluster.set_node_cpus(BIG, 1.5)  # type: ignore[arg-type]


@pytest.mark.row('C15')
@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_running_jobs_may_end_when_their_cpus_are_taken(
    make_cluster: MakeCluster, big_port: int, gate: Path, isolation: str
) -> None:
    cluster = make_cluster(hold, nodes=[(BIG, big_port)], isolation=isolation)
    await_nodes(cluster, 1)
    jobs = [cluster.submit(str(gate), number) for number in range(4)]
    eventually(lambda: all(has_begun(gate, number)() for number in range(2)))
    assert cluster.set_node_cpus(BIG, 0) == 0
    gate.touch()
    eventually(lambda: cluster.snapshot().finished == 2)
    assert not cluster.wait(0.3)
    assert cluster.set_node_cpus(BIG, 1) == 1
    assert [job() for job in jobs] == list(range(4))


@pytest.mark.row('C14')
def test_the_jobs_of_a_node_are_listed(make_cluster: MakeCluster, gate: Path) -> None:
    cluster = make_cluster(hold)
    await_nodes(cluster, 2)
    here, there = (cluster.submit_node(node, str(gate), i) for i, node in enumerate((ALPHA, BETA)))
    eventually(lambda: has_begun(gate, 0)() and has_begun(gate, 1)())
    for node in (ALPHA, 'alpha', here.node):
        assert cluster.node_jobs(node) == [here]
        assert cluster.node_jobs(node, from_node=True) == [here]
    assert cluster.node_jobs(BETA) == [there]
    assert cluster.node_jobs('127.0.0.99') == []
    gate.touch()
    assert cluster.wait(LIMIT)
    assert cluster.node_jobs(ALPHA) == []


# section E


@pytest.mark.row('E03', 'E07')
def test_an_allocation_below_0_leaves_so_many_cpus(
    make_cluster: MakeCluster, big_port: int
) -> None:
    allocation = dispy.NodeAllocate(BIG, big_port, cpus=-1)
    assert allocation.allocate(None, BIG, 'big', 4) == 3
    assert allocation.allocate(None, BIG, 'big', 1) == 0
    cluster = make_cluster(span, nodes=[allocation])
    (node,) = cluster.wait_for_nodes(1, timeout=LIMIT)
    assert (node.cpus, node.avail_cpus) == (1, 2)


class Unsendable:
    def __reduce__(self) -> str:
        raise TypeError('cannot travel')


def test_setup_arguments_that_cannot_travel_are_named_at_once(make_cluster: MakeCluster) -> None:
    bad = dispy.NodeAllocate(ALPHA, setup_args=(1, Unsendable()))
    with pytest.raises(dispy.PicklingFailed, match='setup_args: argument 2'):
        make_cluster(span, nodes=[bad])
    cluster = make_cluster(span, nodes=[BETA])
    with pytest.raises(dispy.PicklingFailed, match='setup_args: argument 2'):
        cluster.allocate_node(bad)
    with pytest.raises(dispy.UsageError, match='setup_args must be a tuple'):
        dispy.NodeAllocate(ALPHA, setup_args=[1])  # type: ignore[arg-type]
    with pytest.raises(dispy.UsageError, match='depends must be a list'):
        dispy.NodeAllocate(ALPHA, depends='file.txt')


@pytest.mark.parametrize(
    ('attribute', 'value', 'words'),
    [
        ('setup_args', (Unsendable(),), 'its allocation cannot be used: setup_args: argument 1'),
        ('setup_args', 'ab', 'its allocation cannot be used: setup_args must be a tuple'),
        ('depends', 'file.txt', 'its allocation cannot be used: depends must be a list'),
    ],
)
def test_what_allocate_has_set_amiss_is_told(
    make_cluster: MakeCluster, attribute: str, value: object, words: str
) -> None:
    class Sets(dispy.NodeAllocate):
        def allocate(self, *given: Any, **more: Any) -> int:
            setattr(self, attribute, value)
            return 1

    cluster = make_cluster(span, nodes=[Sets(ALPHA)])
    eventually(lambda: f'not used: {words}' in cluster.explain(), message=cluster.explain)


# cluster_status, and scheduling by it


@pytest.mark.row('C10')
def test_a_program_schedules_all_jobs_itself_from_cluster_status(make_cluster: MakeCluster) -> None:
    """As dispy's example job_scheduler does: a job for a node whenever that has a cpu free."""
    left, jobs, lock = list(range(10)), [], threading.Lock()
    done = threading.Event()

    def status(code: int, node: DispyNode, job: DispyJob | None) -> None:
        if code == DispyNode.Initialized or code == DispyJob.Finished:
            with lock:
                if left:
                    jobs.append(cluster.submit_node(node, 0.001 * left.pop()))
                elif code == DispyJob.Finished and all(j.status == code for j in jobs):
                    done.set()

    cluster = make_cluster(span, cluster_status=status)
    assert done.wait(LIMIT), cluster.explain()
    assert len(jobs) == 10
    assert {job.status for job in jobs} == {DispyJob.Finished}
    assert {job.ip_addr for job in jobs} == {ALPHA, BETA}


def test_nodes_can_be_controlled_from_within_a_callback(make_cluster: MakeCluster) -> None:
    answers: list[int] = []

    def status(code: int, node: DispyNode, job: DispyJob | None) -> None:
        if code == DispyNode.Initialized and node.ip_addr == ALPHA:
            answers.append(cluster.set_node_cpus(node, 1))
            answers.append(cluster.deallocate_node(node))

    cluster = make_cluster(span, cluster_status=status)
    await_nodes(cluster, 2)
    eventually(lambda: answers == [1, 0])
    jobs = [cluster.submit(0.01) for _ in range(4)]
    assert cluster.wait(LIMIT)
    assert {job.ip_addr for job in jobs} == {BETA}


@pytest.mark.row('A16', 'A17')
@pytest.mark.slow
@pytest.mark.leaves('files')  # of the node that is killed
def test_every_change_is_told_also_when_a_job_goes_to_another_node(
    open_clusters: list[dispy.JobCluster], gate: Path
) -> None:
    told: list[tuple[int, str, Any]] = []
    port = free_port()

    def note(status: int, node: DispyNode | None, job: DispyJob | None) -> None:
        told.append((status, node.ip_addr if node else '', job))

    with node_program('-i', '127.0.0.9', '-p', port, '-c', 1, '--name', 'second'):
        with node_program('-i', '127.0.0.8', '-p', port, '-c', 1, '--name', 'first') as first:
            cluster = dispy.JobCluster(
                hold,
                nodes=['127.0.0.8', '127.0.0.9'],
                ip_addr='127.0.0.1',
                port=0,
                node_port=port,
                reentrant=True,
                pulse_interval=1,
                cluster_status=note,
            )
            open_clusters.append(cluster)
            await_nodes(cluster, 2)
            cluster.deallocate_node('127.0.0.9')
            job = cluster.submit(str(gate))
            eventually(has_begun(gate))
            cluster.allocate_node('127.0.0.9')
            eventually(lambda: any(status == DispyNode.AvailInfo for status, _, _ in told))
            first.kill()
            gate.touch()
            assert job() == 0
        assert cluster.wait(LIMIT)
    assert [(status, node) for status, node, j in told if j == job] == [
        (DispyJob.Created, ''),
        (DispyJob.Running, '127.0.0.8'),
        (DispyJob.Created, ''),
        (DispyJob.Running, '127.0.0.9'),
        (DispyJob.Finished, '127.0.0.9'),
    ]
    of_nodes = {(status, node) for status, node, j in told if j is None}
    assert {
        (DispyNode.Initialized, '127.0.0.8'),
        (DispyNode.Initialized, '127.0.0.9'),
        (DispyNode.Closed, '127.0.0.8'),
    } <= of_nodes


@pytest.mark.row('D02')
def test_the_id_is_written_as_its_class_writes_it_where_a_job_waits_again(
    make_cluster: MakeCluster, gate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Name:
        def __str__(self) -> str:
            return '<mine>'

    with caplog.at_level(logging.DEBUG, 'dispy_nb'):
        cluster = make_cluster(hold, loglevel=dispy.logger.DEBUG)
        await_nodes(cluster, 2)
        job = cluster.submit_node(ALPHA, str(gate))
        job.id = Name()
        eventually(has_begun(gate))
        cluster.cancel(job)
        assert job() is None
        told = 'hold: job <mine> cancelled'  # a moment after whoever waits for the job goes on
        eventually(lambda: told in [record.getMessage() for record in caplog.records])
    assert cluster.explain(job).startswith('job <mine>: cancelled')


# why nothing happens


class Slow:
    """Data that a node takes its time to load."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def __setstate__(self, state: dict[str, Any]) -> None:
        while not Path(state['gate']).exists():
            time.sleep(0.02)
        self.__dict__ = state


@pytest.mark.row('Z06')
def test_a_node_that_sets_up_for_long_is_told_of(
    make_cluster: MakeCluster, gate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(str(gate))
    cluster = make_cluster(lambda: slow.gate, nodes=[ALPHA])
    words = ': setting up for 2 s: it receives the computation and runs `setup`'
    eventually(lambda: words in caplog.text)
    assert 'node alpha (127.0.0.2) port ' in caplog.text
    gate.touch()
    assert cluster.submit()() == str(gate)
    assert 'setting up' not in cluster.explain()


@pytest.mark.parametrize('wrong', [None, 5, b'a', '', ' ', []])
def test_what_is_no_node_is_refused_by_every_verb(make_cluster: MakeCluster, wrong: Any) -> None:
    cluster = make_cluster(span, nodes=[ALPHA])
    verbs = (cluster.deallocate_node, cluster.close_node, cluster.resetup_node, cluster.node_jobs)
    for verb in (*verbs, lambda node: cluster.set_node_cpus(node, 1)):
        with pytest.raises(dispy.UsageError, match='node must be'):
            verb(wrong)
    for cpus in (None, True, 1.0, '1'):
        with pytest.raises(dispy.UsageError, match='cpus must be'):
            cluster.set_node_cpus(ALPHA, cpus)  # type: ignore[arg-type]
    assert cluster.set_node_cpus('127.9.9.9', 10**400) == -1
