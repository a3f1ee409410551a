"""Clusters of several programs on the same nodes, through `dispyscheduler` (section B)."""

import contextlib
import logging
import os
import re
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob, DispyNode, PortBusy
from nodeserver.core.errors import SchedulerRefused
from tests.features.conftest import LIMIT, Pair, outcome
from tests.features.test_reach import FIREWALL
from tests.support.certificates import needs_openssl, self_signed
from tests.support.machines import machines
from tests.support.netns import Lan
from tests.support.programs import (
    client_program,
    eventually,
    free_port,
    node_program,
    program,
    scheduler_program,
)
from tests.support.sshd import forwarding, ssh_server

MakeShared = Callable[..., dispy.SharedJobCluster]


def double(number: int) -> int:
    return 2 * number


def hold(gate: str, number: int = 0) -> int:
    Path(f'{gate}.{number}').touch()
    while not Path(gate).exists():
        time.sleep(0.01)
    return number


def read(path: str) -> tuple[str, str]:
    return Path(path).read_text(), str(Path.cwd())


def tells() -> str:
    dispy_provisional_result('half')  # type: ignore[name-defined]  # noqa: F821
    return 'whole'


def sends(name: str) -> int:
    Path(name).write_text('from a job')
    return int(dispy_send_file(name))  # type: ignore[name-defined]  # noqa: F821


@pytest.fixture(scope='module')
def scheduler(shared_home: Path) -> Iterator[int]:
    """One for all tests that leave it alone; its port for programs."""
    port = free_port()
    with scheduler_program(port, '-i', '127.0.0.1'):
        yield port


@pytest.fixture
def shared(
    pair: Pair, scheduler: int, shared_home: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeShared]:
    """Make clusters on the pair of nodes through the scheduler; they end with the test."""
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))
    clusters = []

    def make(computation: Callable[..., Any], **options: Any) -> dispy.SharedJobCluster:
        place = {'scheduler_port': scheduler, 'ip_addr': '127.0.0.1', 'port': 0}
        nodes = {'nodes': list(pair.addresses), 'node_port': pair.port}
        cluster = dispy.SharedJobCluster(computation, **{**place, **nodes, **options})
        clusters.append(cluster)
        return cluster

    yield make
    for cluster in clusters:
        cluster.close(timeout=0, terminate=True)


def began(gate: Path, number: int = 0) -> Callable[[], bool]:
    return Path(f'{gate}.{number}').exists


# several programs

PROGRAM = """
import dispy_nb as dispy

def compute(factor, number):
    return factor * number

with dispy.SharedJobCluster(compute, {nodes}, node_port={port}, scheduler_port={scheduler},
                            port={own}) as cluster:
    jobs = [cluster.submit({factor}, number) for number in range(200)]
    print([job() for job in jobs] == [{factor} * number for number in range(200)])
"""


@pytest.mark.slow
@pytest.mark.row('B02', 'B05')
def test_several_programs_get_the_results_of_their_own_jobs(
    shared: MakeShared, pair: Pair, scheduler: int
) -> None:
    env = {name: os.environ[name] for name in ('HOME', 'XDG_CONFIG_HOME', 'XDG_RUNTIME_DIR')}

    def run(factor: int) -> str:
        values = {'nodes': list(pair.addresses), 'port': pair.port, 'scheduler': scheduler}
        return client_program(PROGRAM.format(**values, own=0, factor=factor), env=env).stdout

    ours = shared(double)
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(run, factor) for factor in (3, 5)]
        assert list(ours.map(range(300))) == [2 * n for n in range(300)]
        assert [each.result() for each in others] == ['True\n', 'True\n']


@pytest.mark.row('B05')
def test_a_port_that_another_program_has_is_named(shared: MakeShared) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=rf'port {port} at 127\.0\.0\.1 is in use'):
            shared(double, port=port)


@pytest.mark.row('B06')
@pytest.mark.parametrize('port', [None, 0])
def test_without_a_port_any_free_one_is_taken(shared: MakeShared, port: int | None) -> None:
    cluster = shared(double, port=port)
    assert outcome(cluster.submit(2)) == 4
    assert cluster._runtime._way._port not in (0, 51347)  # type: ignore[attr-defined]


OTHER = """
import dispy_nb as dispy

def hold(gate):
    import os, time
    open(gate + '.0', 'w').close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    return sorted(os.listdir('.'))

with dispy.SharedJobCluster(hold, [('127.0.0.4', {port})], scheduler_port={scheduler}, port=0,
                            depends=[{text!r}]) as cluster:
    print(cluster.submit({gate!r})(), flush=True)
"""


@pytest.mark.row('B07', 'B20')
def test_one_program_ends_while_the_other_goes_on(
    shared: MakeShared, scheduler: int, own_home: Path
) -> None:
    gate, text, port = own_home / 'gate', own_home / 'text', free_port()
    text.write_text('mine')
    script = own_home / 'other.py'
    values = {'port': port, 'scheduler': scheduler, 'text': str(text), 'gate': str(gate)}
    script.write_text(OTHER.format(**values))
    with (
        node_program('-i', '127.0.0.4', '-p', port, '-c', 2),
        program(sys.executable, script) as other,
    ):
        one = shared(read, nodes=[('127.0.0.4', port)], depends=[str(text)])
        eventually(began(gate))
        content, directory = outcome(one.submit('text'))  # beside it, on the same node
        assert content == 'mine'
        assert Path(directory, 'text').exists()
        one.close()
        eventually(lambda: not Path(directory).exists())
        assert other.process.poll() is None
        gate.touch()
        assert other.wait() == 0
        assert other.output() == "['text']\n"  # its own are there still


# where the scheduler is

DEFAULTS = """
import socket, time
import dispy_nb as dispy

def double(number):
    return 2 * number

while True:
    with socket.socket() as trial:
        if trial.connect_ex(('127.0.0.1', 51347)) == 0:
            break  # the scheduler has it
    time.sleep(0.05)
for place in ({{}}, {{'scheduler_node': 'localhost'}}, {{'scheduler_node': '127.0.0.1'}},
              {{'scheduler_port': 51349}}, {{'scheduler_port': None}}):
    with dispy.SharedJobCluster(double, loglevel=dispy.logger.INFO, **place) as cluster:
        print(cluster.submit(4)(), cluster._runtime.place.port)
"""


@pytest.mark.slow
@pytest.mark.row('B03', 'B04', 'B05')
def test_without_a_place_it_is_this_machine_and_the_usual_port(
    own_network: tuple[str, ...], own_home: Path
) -> None:
    client = own_home / 'client.py'
    client.write_text(DEFAULTS.format())
    script = own_home / 'script.sh'
    python = sys.executable
    script.write_text(
        textwrap.dedent(f"""\
        {python} -m nodeserver.cli.dispynode -c 1 >&2 & node=$!
        {python} -m nodeserver.cli.dispyscheduler >&2 & scheduler=$!
        {python} {client}
        status=$?
        kill $node $scheduler; wait
        exit $status
        """)
    )
    with program(*own_network, 'sh', script) as running:
        assert running.wait(LIMIT) == 0, running.log()
        assert running.output() == '8 51349\n' * 5, running.log()
        # the client's own, which the scheduler has here
        assert len(re.findall(r'TCP port 51347 is in use: port \d+ was', running.log())) == 5


@pytest.mark.row('B03')
def test_the_scheduler_is_the_one_at_the_given_address(shared: MakeShared, pair: Pair) -> None:
    port = free_port()
    with scheduler_program(port, '-i', '127.0.0.9') as elsewhere:
        with shared(double, scheduler_node='127.0.0.9', scheduler_port=port) as cluster:
            assert outcome(cluster.submit(4)) == 8
        assert 'Traceback' not in elsewhere.log()


@pytest.mark.row('B03', 'B10')
def test_wrong_places_and_what_is_the_schedulers_are_said(shared: MakeShared) -> None:
    for options, words in (
        ({'scheduler_node': 'no such host'}, "scheduler_node: host 'no such host' is unknown"),
        ({'scheduler_node': 5}, 'scheduler_node must be a host name or an IP address'),
        ({'scheduler_port': 'x'}, 'scheduler_port must be a number'),
        ({'scheduler_port': 0}, 'scheduler_port must be the port of dispyscheduler'),
        ({'exclusive': 1}, 'exclusive must be True or False'),
        ({'ip_addr': '203.0.113.9'}, "ip_addr='203.0.113.9' is not an address of this machine"),
    ):
        with pytest.raises(dispy.UsageError, match=words):
            shared(double, **options)
    with pytest.raises(TypeError, match='pulse_interval is no parameter of SharedJobCluster'):
        shared(double, pulse_interval=5)


def test_a_scheduler_that_is_not_there_is_waited_for_and_said(
    shared: MakeShared, caplog: pytest.LogCaptureFixture, pair: Pair, own_home: Path
) -> None:
    port = free_port()
    cluster = shared(double, scheduler_port=port)
    job = cluster.submit(21)
    words = f'no dispyscheduler answers at this machine, port {port}: connection refused'
    eventually(lambda: words in caplog.text)
    assert words in job.explain()
    assert '1 job pending' in cluster.explain()
    assert words in cluster.snapshot().notice
    assert cluster.close_node('127.0.0.2') == -1
    assert 'the scheduler cannot be reached now: connection refused' in caplog.text
    with scheduler_program(port, '-i', '127.0.0.1'):
        assert outcome(job) == 42
        assert cluster.snapshot().notice == ''
        cluster.close()


@pytest.mark.row('C21')
def test_a_cluster_that_never_had_a_scheduler_closes_at_once(shared: MakeShared) -> None:
    cluster = shared(double, scheduler_port=free_port())
    job = cluster.submit(1)
    started = time.monotonic()
    assert cluster.close(timeout=0) is False
    assert cluster.close(timeout=0, terminate=True) is True
    assert time.monotonic() - started < 5
    assert (job.status, job.exception) == (DispyJob.Cancelled, 'Cancelled')


@pytest.mark.row('B11')
def test_another_secret_is_refused_at_once_in_words(shared: MakeShared, scheduler: int) -> None:
    threads = threading.active_count()
    for options, words in (
        ({'secret': 'quite another one'}, 'another key'),
        ({'insecure': True}, 'this side runs insecure'),
    ):
        with pytest.raises(SchedulerRefused, match=words) as caught:
            shared(double, **options)
        assert 'quite' not in str(caught.value)
    assert threading.active_count() == threads


@needs_openssl
@pytest.mark.slow
@pytest.mark.row('B12')
def test_certificates_must_be_those_of_the_scheduler(shared: MakeShared, own_home: Path) -> None:
    ours, other = self_signed(own_home / 'ours.pem'), self_signed(own_home / 'other.pem')
    port = free_port()
    with scheduler_program(port, '-i', '127.0.0.1', '--cluster_certfile', ours):
        with shared(double, certfile=str(ours), scheduler_port=port) as cluster:
            assert outcome(cluster.submit(4)) == 8
        for options in ({'certfile': str(other)}, {}):
            with pytest.raises(SchedulerRefused, match=r'certificate|SSL'):
                shared(double, scheduler_port=port, **options)


# what it does


@pytest.mark.row('B15', 'B19', 'B18')
def test_callbacks_tell_of_jobs_and_nodes(shared: MakeShared, own_home: Path) -> None:
    gate, called, told = own_home / 'gate', [], []
    cluster = shared(
        hold,
        callback=lambda job: called.append((job.id, job.status)),
        cluster_status=lambda status, node, job: told.append((status, job and job.id)),
    )
    job = cluster.submit(str(gate))
    eventually(began(gate))
    eventually(lambda: job.status == DispyJob.Running)
    assert cluster.node_jobs(job.ip_addr or '') == [job]
    gate.touch()
    assert cluster.wait(LIMIT) is True
    assert called == [(1, DispyJob.Finished)]
    assert (DispyNode.Initialized, None) in told
    of_job = [status for status, number in told if number == 1]
    assert of_job == [DispyJob.Created, DispyJob.Running, DispyJob.Finished]


@pytest.mark.row('B18', 'C18', 'C19')
def test_jobs_are_placed_cancelled_and_waited_for(
    shared: MakeShared, pair: Pair, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = own_home / 'gate'
    cluster = shared(hold)
    first, second = (cluster.submit_node(a, str(gate), n) for n, a in enumerate(pair.addresses))
    eventually(lambda: began(gate, 0)() and began(gate, 1)())
    eventually(lambda: (first.ip_addr, second.ip_addr) == pair.addresses)
    waiting = cluster.submit(str(gate), 2)
    assert 'all cpus of the 2 usable nodes are busy' in cluster.explain()
    assert cluster.cancel(waiting) == 0
    eventually(lambda: waiting.status == DispyJob.Cancelled)
    assert cluster.cancel(second) == 0
    assert second.wait(LIMIT)
    assert second.status == DispyJob.Cancelled
    assert cluster.wait(0.1) is False
    gate.touch()
    assert cluster.close() is True
    assert first.result == 0
    cluster.print_status()
    assert 'alpha' in capsys.readouterr().out
    with pytest.raises(dispy.ClusterClosed):
        cluster.submit(str(gate))


@pytest.mark.row('C20', 'C21', 'C22')
def test_it_closes_in_time_or_not_and_another_one_follows(
    shared: MakeShared, own_home: Path
) -> None:
    gate = own_home / 'gate'
    cluster = shared(hold)
    jobs = [cluster.submit(str(gate), number) for number in range(3)]
    eventually(lambda: began(gate, 0)() and began(gate, 1)())
    assert cluster.close(timeout=0.1) is False
    assert cluster.close(timeout=0.1, terminate=True) is True
    assert [job.status for job in jobs] == [DispyJob.Cancelled] * 3
    with shared(double) as another:
        job = another.submit(3)
        assert another.close(timeout=LIMIT) is True
        assert job.result == 6


@pytest.mark.row('B18')
def test_files_data_and_provisional_results_go_both_ways(
    shared: MakeShared, pair: Pair, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_home)
    text = own_home / 'text'
    text.write_text('sent')
    cluster = shared(read)
    cluster.wait_for_nodes(2, LIMIT)
    assert cluster.send_file(str(text), pair.addresses[1]) == 0
    assert outcome(cluster.submit_node(pair.addresses[1], 'text'))[0] == 'sent'
    assert cluster.send_file(str(text), '127.0.0.9') == -1
    assert outcome(shared(sends).submit('back')) == 0
    assert (own_home / 'back').read_text() == 'from a job'
    seen: list[Any] = []
    assert outcome(shared(tells, callback=lambda job: seen.append(job.result)).submit()) == 'whole'
    eventually(lambda: seen == ['half', 'whole'])
    big = list(range(100_000))
    adding = shared(sum)
    data = adding.share(big)
    assert [outcome(adding.submit(data)) for _ in range(3)] == [sum(big)] * 3
    with adding.executor() as executor:
        assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]


@pytest.mark.row('B14')
def test_a_shared_node_keeps_its_cpus(
    shared: MakeShared, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = shared(double)
    cluster.wait_for_nodes(2, LIMIT)
    assert cluster.set_node_cpus(pair.addresses[0], 0) == 1
    assert 'the node is shared: this cluster may use 1 cpu there as before' in caplog.text
    assert outcome(cluster.submit_node(pair.addresses[0], 4)) == 8
    assert cluster.set_node_cpus('127.0.0.9', 0) == -1


class Half(dispy.NodeAllocate):
    """Uses a node if its name is alpha."""

    def allocate(self, cluster: Any, ip: str, name: str, cpus: int, *more: Any) -> int:
        return cpus if name == 'alpha' else 0


def test_an_allocation_runs_in_its_program(shared: MakeShared, pair: Pair) -> None:
    cluster = shared(double, nodes=[Half(a, pair.port) for a in pair.addresses])
    assert [outcome(job) for job in [cluster.submit(n) for n in range(4)]] == [0, 2, 4, 6]
    assert {node.name for node in cluster.status().nodes} == {'alpha'}


def test_both_kinds_of_cluster_work_side_by_side(shared: MakeShared, pair: Pair) -> None:
    port = free_port()
    with (
        node_program('-i', '127.0.0.5', '-p', port, '-c', 1),
        dispy.JobCluster(double, [('127.0.0.5', port)], ip_addr='127.0.0.1', port=0) as own,
        contextlib.closing(shared(double)) as first,
        shared(double) as second,
    ):
        jobs = [each.submit(n) for n in range(20) for each in (own, first, second)]
        assert [outcome(job) for job in jobs] == [2 * n for n in range(20) for _ in range(3)]
        assert first._runtime is second._runtime is not own._runtime


# a scheduler that ends


@pytest.mark.slow
def test_a_scheduler_that_is_killed_and_started_again_loses_nothing(
    shared: MakeShared, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate, port = own_home / 'gate', free_port()
    caplog.set_level(logging.INFO)
    with scheduler_program(port, '-i', '127.0.0.1') as first:
        cluster = shared(hold, scheduler_port=port)
        jobs = [cluster.submit(str(gate), number) for number in range(4)]
        eventually(lambda: began(gate, 0)() and began(gate, 1)())
        first.kill()
        eventually(lambda: 'the scheduler is gone' in caplog.text)
    late = cluster.submit(str(gate), 4)
    assert cluster.cancel(jobs[3]) == 0
    assert '4 jobs pending, 2 of them with nodes' in cluster.explain()
    gate.touch()
    with scheduler_program(port, '-i', '127.0.0.1'):
        assert [outcome(job) for job in (*jobs[:3], late)] == [0, 1, 2, 4]
        assert jobs[3].status == DispyJob.Cancelled
        assert not began(gate, 3)()
        cluster.close()


# networks

REMOTE = """
import logging
import dispy_nb as dispy

def double(number):
    return 2 * number

cluster = dispy.SharedJobCluster(double, {nodes}, scheduler_node={scheduler!r}, **{options})
print([job() for job in [cluster.submit(n) for n in range(3)]], flush=True)
{more}
cluster.close()
"""


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.row('B13')
def test_only_the_scheduler_needs_to_be_reached() -> None:
    """Nodes let nothing of the program through, and the program nobody in."""
    with Lan(3) as lan, machines(*lan) as (user, middle, node), contextlib.ExitStack() as stack:
        node.host.filter_rules(FIREWALL.format(f'ip saddr {middle.ip} accept'))
        user.host.filter_rules(FIREWALL.format(''))
        stack.enter_context(node.node('-c', 1))
        command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler')
        stack.enter_context(middle.program(*command, ready='serving'))
        source = REMOTE.format(nodes=[node.ip], scheduler=middle.ip, options={}, more='')
        assert user.client(source).stdout == '[0, 2, 4]\n'


WAIT = """
import pathlib, time
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.05)
print(cluster.submit(21)(), flush=True)
"""


@pytest.mark.netns(nat=True)
@pytest.mark.slow
@pytest.mark.row('N05')
def test_a_remote_scheduler_that_has_moved_finds_a_program_through_a_tunnel() -> None:
    """A stand-in for networks far apart: the scheduler's machine can open no connection to the
    program's, but through `ssh -R`, and comes back at a port that the program does not know."""
    with Lan(2) as lan, machines(*lan) as (user, middle), contextlib.ExitStack() as stack:
        user.host.filter_rules(FIREWALL.format(''))
        stack.enter_context(middle.node('-c', 1))
        server = stack.enter_context(ssh_server(middle, 22))
        stack.enter_context(forwarding(user, server, 'R', '2345:127.0.0.1:2345'))
        command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler')
        command += ('--dest_path_prefix', middle.home / 'state', '--scheduler_port')
        script = user.home / 'script.py'
        options = {'port': 2345, 'ext_ip_addr': '127.0.0.1'}
        gate = user.home / 'gate'
        place = {'nodes': [middle.ip], 'scheduler': middle.ip}
        more = WAIT.format(gate=str(gate))
        script.write_text(REMOTE.format(**place, options=options, more=more))
        with middle.program(*command, 51349, ready='serving') as first:
            running = stack.enter_context(user.program(sys.executable, script))
            running.wait_for_log('[0, 2, 4]', LIMIT)
            first.kill()
            first.wait()
        gate.touch()
        with middle.program(*command, 51360, ready='serving'):
            running.wait_for_log('42', LIMIT)
            assert running.wait(LIMIT) == 0, running.log()
