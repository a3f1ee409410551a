"""Which nodes a cluster uses, and how many of their cpus (sections A and E)."""

import inspect
import itertools
import os
import platform
import select
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb.nodes import DispyNode, PinNames, allocated, avail_info
from dispy_nb.options import as_allocation
from nodeserver.core.messages import NodeChanged
from nodeserver.core.status import NodeStatus
from nodeserver.io.udp import CLIENT_PORT
from tests.support.netns import Lan
from tests.support.programs import (
    client_program,
    eventually,
    free_port,
    node_program,
    program,
)

LIMIT = 20.0
ALPHA, BETA, GAMMA, DELTA = '127.0.0.1', '127.0.2.1', '127.0.2.2', '127.0.2.9'


@dataclass(frozen=True)
class Nodes:
    """Four nodes on loopback: three at one port, `DELTA` at another."""

    port: int
    other_port: int
    files: Path


@pytest.fixture(scope='module')
def nodes(shared_home: Path) -> Iterator[Nodes]:
    port, other_port, files = free_port(), free_port(), shared_home / 'nodes'
    wanted = {ALPHA: (port, 2), BETA: (port, 1), GAMMA: (port, 1), DELTA: (other_port, 1)}
    with ExitStack() as stack:
        for address, (at, cpus) in wanted.items():
            options = ['-i', address, '-p', at, '-c', cpus, '--name', f'node-{address}']
            options += ['--dest_path_prefix', files / address]
            stack.enter_context(node_program(*options))
        yield Nodes(port, other_port, files)


@pytest.fixture(autouse=True)
def home_of_the_nodes(own_home: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the key that the nodes of this file have."""
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))


def work(seconds: float = 0.0) -> float:
    time.sleep(seconds)
    return seconds


class Cluster(dispy.JobCluster):
    """A cluster that looks at the loopback interface only, and waits for its nodes."""

    def __init__(self, elements: list[Any], node_port: int, **options: Any) -> None:
        options = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': node_port, **options}
        super().__init__(work, elements, **options)

    def await_nodes(self, count: int) -> None:
        eventually(lambda: len(self.snapshot().nodes) >= count, message=self.explain)

    def addresses(self, nodes: int, jobs: int = 6, seconds: float = 0.1) -> set[str]:
        """Wait for nodes, run jobs that keep their cpus busy, and answer where they ran."""
        self.await_nodes(nodes)
        submitted = [self.submit(seconds) for _ in range(jobs)]
        assert self.wait(LIMIT), self.explain()
        assert [job.exception for job in submitted] == [None] * jobs
        return {str(job.ip_addr) for job in submitted}


# section A


@pytest.mark.row('A01')
@pytest.mark.netns
@pytest.mark.slow
def test_a_function_alone_makes_a_cluster_of_the_nodes_of_the_local_network() -> None:
    script = textwrap.dedent("""
        import time
        import dispy_nb as dispy

        def compute(number):
            import socket, time
            time.sleep(0.3)
            return socket.gethostname(), number * number

        cluster = dispy.JobCluster(compute)
        while len(cluster.snapshot().nodes) < 2:
            time.sleep(0.01)
        jobs = [cluster.submit(number) for number in range(4)]
        results = [job() for job in jobs]
        print(sorted({host for host, _ in results}), [number for _, number in results])
    """)
    with Lan(3) as lan, ExitStack() as stack:
        for host in (lan[0], lan[1]):
            stack.enter_context(node_program('-c', 1, within=host.command([])))
        done = client_program(script, within=lan[2].command([]))
    assert done.stdout == "['h0', 'h1'] [0, 1, 4, 9]\n"
    assert done.stderr == ''


@pytest.mark.row('A03')
def test_without_a_scheduler_program_all_jobs_finish(nodes: Nodes) -> None:
    with Cluster([ALPHA, BETA], nodes.port) as cluster:
        jobs = [cluster.submit(0.001 * number) for number in range(20)]
        assert [job() for job in jobs] == [0.001 * number for number in range(20)]
        assert {job.status for job in jobs} == {dispy.DispyJob.Finished}


@pytest.mark.row('A08')
@pytest.mark.parametrize(('element', 'address'), [(BETA, BETA), ('localhost', ALPHA)])
def test_an_element_is_an_address_or_a_host_name(nodes: Nodes, element: str, address: str) -> None:
    with Cluster([element], nodes.port) as cluster:
        assert cluster.addresses(1) == {address}


def test_an_unknown_host_name_is_told_at_once(nodes: Nodes) -> None:
    with pytest.raises(dispy.UsageError, match=r"'nowhere\.invalid' is unknown"):
        Cluster(['nowhere.invalid'], nodes.port)


class Half(dispy.NodeAllocate):
    """A subclass as users write them."""

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=None):  # type: ignore[no-untyped-def]
        return max(1, cpus // 2)


@pytest.mark.row('A09')
def test_an_element_is_a_node_allocate_or_becomes_one(nodes: Nodes) -> None:
    with Cluster([dispy.NodeAllocate(BETA), Half(ALPHA), GAMMA], nodes.port) as cluster:
        assert cluster.addresses(3) == {ALPHA, BETA, GAMMA}
        cpus = {node.address: node.cpus for node in cluster.snapshot().nodes}
    assert cpus == {ALPHA: 1, BETA: 1, GAMMA: 1}
    became = as_allocation(GAMMA)
    assert (type(became), became.host) == (dispy.NodeAllocate, GAMMA)
    with pytest.raises(dispy.UsageError, match='an element of nodes must be'):
        Cluster([5], nodes.port)


@pytest.mark.row('A10')
def test_a_pair_names_the_port_of_a_node_that_has_another_one(nodes: Nodes) -> None:
    with Cluster([(DELTA, nodes.other_port), BETA], nodes.port) as cluster:
        assert cluster.addresses(2) == {DELTA, BETA}
    with Cluster([DELTA, BETA], nodes.port) as cluster:
        assert cluster.addresses(1) == {BETA}
        assert 'no node' not in cluster.explain()


@pytest.mark.row('A11', 'A12')
def test_a_pattern_takes_found_nodes_that_match_and_no_others(nodes: Nodes) -> None:
    with Cluster(['127.0.2.*'], nodes.port) as cluster:
        assert cluster.addresses(2) == {BETA, GAMMA}
        eventually(
            lambda: f'node {ALPHA} port {nodes.port}: found, but it matches no' in cluster.explain()
        )
        assert list((nodes.files / BETA).glob('work_*'))
        assert not list((nodes.files / ALPHA).glob('work_*'))  # it never got the computation
        assert {node.address for node in cluster.snapshot().nodes} == {BETA, GAMMA}
    with Cluster(['*'], nodes.port) as cluster:
        assert cluster.addresses(3) == {ALPHA, BETA, GAMMA}


@pytest.mark.row('A13')
def test_a_node_that_is_named_is_asked_directly_and_at_once(nodes: Nodes) -> None:
    """A socket without broadcast stands in for the node whose network carries none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(('127.0.2.50', 0))
        silent = deaf.getsockname()[1]
        started = time.monotonic()
        with Cluster([('127.0.2.50', silent), (DELTA, nodes.other_port)], nodes.port) as cluster:
            assert select.select([deaf], [], [], 5.0)[0]
            assert time.monotonic() - started < 1.0
            # no broadcast goes to this node's port, so it was asked by name as well
            assert cluster.addresses(1) == {DELTA}
            (node,) = cluster.snapshot().nodes
            assert node.cpus == 1  # as it has told of itself


@pytest.mark.slow
@pytest.mark.row('A14')
def test_a_node_started_late_announces_itself_and_is_given_waiting_jobs(nodes: Nodes) -> None:
    port, early, late = free_port(), '127.0.3.1', '127.0.3.2'
    # the client's own port is where announcements are heard; once it has a node, it asks no more
    with ExitStack() as stack:
        stack.enter_context(node_program('-i', early, '-p', port, '-c', 1))
        cluster = stack.enter_context(Cluster(['127.0.3.*'], port, port=CLIENT_PORT))
        cluster.await_nodes(1)
        first = [cluster.submit(0.2) for _ in range(17)]
        first[16].wait(LIMIT)  # by now the questions of the first seconds are over
        lasting = cluster.submit(600.0)
        waiting = [cluster.submit() for _ in range(3)]
        stack.enter_context(node_program('-i', late, '-p', port, '-c', 1))
        assert all(job.wait(LIMIT) for job in waiting), cluster.explain()
        assert cluster.cancel(lasting) == 0  # so it was still the other node's
    assert {job.ip_addr for job in first} == {early}
    assert {job.ip_addr for job in waiting} == {late}


WAITING = """
import sys, time
import dispy_nb as dispy

def compute():
    return 'served'

cluster = dispy.JobCluster(compute, [{address!r}], ip_addr='127.0.0.1', port=0, node_port={port})
job = cluster.submit()
while 'busy: held by' not in cluster.explain():
    time.sleep(0.01)
print(cluster.explain(), flush=True)
print(job.status.name, flush=True)
print(job(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.row('A25')
def test_a_node_held_by_one_program_takes_no_job_of_another(nodes: Nodes, tmp_path: Path) -> None:
    script = tmp_path / 'second.py'
    script.write_text(WAITING.format(address=BETA, port=nodes.port))
    with ExitStack() as stack:
        with Cluster([BETA], nodes.port) as first:
            assert first.addresses(1) == {BETA}
            second = stack.enter_context(program(sys.executable, script, ready='CREATED'))
            assert f'process {os.getpid()}' in second.output()  # who holds it
            assert first.addresses(1) == {BETA}
            assert 'served' not in second.output()
        second.wait_for_log('served')
        assert second.wait() == 0


# section E


@pytest.mark.row('E01')
def test_the_host_of_an_allocation_is_a_name_an_address_or_a_pattern(nodes: Nodes) -> None:
    parameters = inspect.signature(dispy.NodeAllocate).parameters
    assert list(parameters) == ['host', 'port', 'cpus', 'depends', 'setup_args']
    defaults = [parameter.default for parameter in parameters.values()]
    assert defaults[1:] == [None, 0, [], ()]
    for host, found in (('localhost', {ALPHA}), (BETA, {BETA}), ('127.0.2.*', {BETA, GAMMA})):
        with Cluster([dispy.NodeAllocate(host)], nodes.port) as cluster:
            assert cluster.addresses(len(found)) == found


@pytest.mark.row('E02')
def test_the_port_of_an_allocation_is_51348_or_the_one_given(nodes: Nodes) -> None:
    worker = os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw')
    address = f'127.0.51.{int(worker) + 1}'
    with node_program('-i', address, '-p', 51348, '-c', 1):
        elements = [dispy.NodeAllocate(address), dispy.NodeAllocate(DELTA, nodes.other_port)]
        with dispy.JobCluster(work, elements, ip_addr='127.0.0.1', port=0) as cluster:
            eventually(lambda: len(cluster.snapshot().nodes) == 2, message=cluster.explain)
            assert f'node node-{DELTA} ({DELTA}) port {nodes.other_port}: ' in cluster.explain()
            assert f'({address}) port 51348: 0 of 1 cpu in use' in cluster.explain()
            jobs = [cluster.submit(0.1) for _ in range(4)]
            cluster.wait()
            assert {job.ip_addr for job in jobs} == {address, DELTA}


def most_at_once(jobs: list[dispy.DispyJob]) -> int:
    """Answer how many of the jobs ran at the same moment."""
    spans = [job() for job in jobs]
    moments = [(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans]
    return max(itertools.accumulate(step for _, step in sorted(moments)))


def span() -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(0.1)
    return start, time.monotonic()


@pytest.mark.row('E03', 'E07')
@pytest.mark.parametrize(('cpus', 'used'), [(0, 2), (1, 1), (2, 2), (9, 2)])
def test_an_allocation_uses_so_many_cpus_and_with_0_all(nodes: Nodes, cpus: int, used: int) -> None:
    allocation = dispy.NodeAllocate(ALPHA, cpus=cpus)
    assert allocation.allocate(None, ALPHA, 'a', 2) == used
    options = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': nodes.port}
    with dispy.JobCluster(span, [allocation], **options) as cluster:
        assert most_at_once([cluster.submit() for _ in range(6)]) == used
        assert [node.cpus for node in cluster.snapshot().nodes] == [used]


class Asked(dispy.NodeAllocate):
    """Remembers what it was asked; takes one cpu, and no node whose address ends with 2.2."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.calls: list[tuple[Any, ...]] = []

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=None):  # type: ignore[no-untyped-def]
        self.calls.append((cluster, ip_addr, name, cpus, avail_info, platform))
        return 0 if ip_addr == GAMMA else 1


@pytest.mark.row('E04', 'E05', 'E06')
def test_allocate_is_asked_for_each_node_and_its_answer_holds(nodes: Nodes) -> None:
    asked = Asked('*')
    with Cluster([asked], nodes.port) as cluster:
        assert cluster.addresses(2, jobs=8) == {ALPHA, BETA}
        eventually(lambda: len(asked.calls) == 3)
        told = {call[1]: call for call in asked.calls}
        assert told.keys() == {ALPHA, BETA, GAMMA}
        for address, cpus in ((ALPHA, 2), (BETA, 1), (GAMMA, 1)):
            first, _, name, offered, info, system = told[address]
            assert first is cluster
            assert (name, offered, system) == (f'node-{address}', cpus, platform.platform())
            assert isinstance(info, dispy.DispyNodeAvailInfo)
            assert info.memory > 0 and info.disk > 0
        assert {n.address: n.cpus for n in cluster.snapshot().nodes} == {ALPHA: 1, BETA: 1}
        eventually(lambda: 'not used: allocate() returned 0 for it' in cluster.explain())
    assert avail_info(None) is None


class Answers(dispy.NodeAllocate):
    """Says of every node what it was told to say, or raises it."""

    def __init__(self, host: str, answer: object) -> None:
        super().__init__(host)
        self.answer = answer

    def allocate(self, *args: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ('answer', 'words'),
    [
        ('many', "allocate() returned 'many', not a number of cpus"),
        (True, 'allocate() returned True, not a number of cpus'),
        (None, 'allocate() returned None, not a number of cpus'),
        (-2, 'allocate() returned -2, less than 0'),
        (ValueError('no idea'), 'allocate() raised ValueError: no idea'),
    ],
)
def test_what_allocate_answered_amiss_is_told(nodes: Nodes, answer: object, words: str) -> None:
    with Cluster([Answers(ALPHA, answer)], nodes.port) as cluster:
        eventually(lambda: f'not used: {words}' in cluster.explain(), message=cluster.explain)


def test_allocate_may_answer_more_than_there_is() -> None:
    assert allocated(10**30, 4) == (4, '')
    assert allocated(0, 4) == (0, '')


@pytest.mark.row('C08')
def test_jobs_for_a_node_that_is_not_found_are_told_of(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    words = '2 jobs wait for node 127.0.9.9, which was not found'
    with Cluster([ALPHA], nodes.port) as cluster:
        cluster.await_nodes(1)
        jobs = [cluster.submit_node('127.0.9.9', 0) for _ in range(2)]
        eventually(lambda: words in cluster.explain())
        assert 'busy' not in cluster.explain()
        eventually(lambda: words in caplog.text)  # told without being asked
        assert {cluster.cancel(job) for job in jobs} == {0}


def test_a_host_name_is_resolved_once_and_addresses_and_known_nodes_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        if host.startswith('unknown'):
            raise OSError('no such host')
        return [(None, None, None, '', ('10.0.0.5', 0))]

    monkeypatch.setattr(socket, 'getaddrinfo', look_up)
    pins = PinNames(seconds=60.0, most=3)
    known = [
        DispyNode(NodeChanged(1, NodeStatus.INITIALIZED, 'id', '10.0.0.9', 'near', 1, '', None, ''))
    ]
    for _ in range(5):
        assert pins.of('bigbox', known, 0.0) == 'bigbox\n10.0.0.5'
        assert pins.of('unknown', known, 0.0) == 'unknown'
        assert pins.of('near', known, 0.0) == 'near'
        assert pins.of('10.0.0.1', known, 0.0) == '10.0.0.1'
        assert pins.of('fe80::1', known, 0.0) == 'fe80::1'
        assert pins.of(known[0], known, 0.0) == 'id'
    assert asked == ['bigbox', 'unknown']
    pins.of('bigbox', known, 61.0)
    assert asked == ['bigbox', 'unknown', 'bigbox']
    for number in range(10):
        pins.of(f'box{number}', known, 62.0)
    assert len(pins) <= 3


def test_a_node_has_its_figures_in_cluster_status(nodes: Nodes) -> None:
    seen = []

    def note(status: int, node: dispy.DispyNode, job: dispy.DispyJob | None) -> None:
        if status == dispy.DispyNode.Initialized:
            seen.append(node.avail_info)

    with Cluster([BETA], nodes.port, cluster_status=note) as cluster:
        assert cluster.addresses(1) == {BETA}
    assert [type(info) for info in seen] == [dispy.DispyNodeAvailInfo]
