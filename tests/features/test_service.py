"""When a node serves, whom and how long: hours, clients, silence and patience (section L)."""

import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from tests.features.test_dispyscheduler import scheduler
from tests.support.programs import (
    Program,
    at_once,
    client_program,
    eventually,
    free_port,
    node_program,
    program,
)
from tests.support.wallclock import zone_where_it_is

ADDRESS, OTHER_ADDRESS = '127.0.0.2', '127.0.0.3'
LIMIT = 20.0
EVENING = ('--service_start', '17:00', '--service_stop', '6:00', '--service_end', '8:00')


def where() -> str:
    return str(dispy_node_name)  # type: ignore[name-defined]  # noqa: F821


def hold(gate: str) -> str:
    """Run until the file is there, and leave a trace at either end."""
    import pathlib
    import time

    pathlib.Path(gate + '.begun').write_text(str(os.getpid()))
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    pathlib.Path(gate + '.done').touch()
    return str(dispy_node_name)  # type: ignore[name-defined]  # noqa: F821


@contextmanager
def node(name: str, address: str, port: int, *options: object, at: str = '', later: float = 0.0):  # type: ignore[no-untyped-def]
    """Run a node with one cpu, where it will be that time of day in so many seconds."""
    words = ('-i', address, '-p', port, '-c', 1, '--name', name, *options)
    with node_program(*words, env=zone_where_it_is(at, later) if at else None) as running:
        yield running


def open_cluster(function: Any, port: int, *addresses: str, **options: Any) -> dispy.JobCluster:
    options = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port, **options}
    return dispy.JobCluster(function, list(addresses or (ADDRESS,)), **options)


def begun(gate: Path) -> bool:
    path = Path(f'{gate}.begun')
    return path.exists() and path.read_text() != ''


# service hours


@pytest.mark.slow
@pytest.mark.row('L25')
def test_jobs_run_only_between_start_and_end_also_across_midnight() -> None:
    port = free_port()
    hours = ('--service_start', '17:00', '--service_end', '08:00')
    with node('night', ADDRESS, port, *hours, at='17:00:00', later=3) as night:
        with open_cluster(where, port) as cluster:
            job = cluster.submit()
            eventually(lambda: 'serves from 17:00 to 08:00' in cluster.explain())
            assert job.status == dispy.DispyJob.Created
            assert job.wait(LIMIT), cluster.explain()
            assert job.result == 'night'
        log = night.output()
    assert log.index('taking no more jobs: serves from 17:00') < log.index('taking jobs again')
    for time_of_day, serves in (('23:59:59', True), ('00:30:00', True), ('12:00:00', False)):
        with (
            node('n', ADDRESS, port, *hours, at=time_of_day),
            open_cluster(where, port) as cluster,
        ):
            job = cluster.submit()
            if serves:
                assert job.wait(LIMIT), cluster.explain()
            else:
                eventually(lambda: 'serves from 17:00 to 08:00' in cluster.explain())
                assert not job.wait(0.3)
                cluster.close(timeout=0, terminate=True)


@pytest.mark.slow
@pytest.mark.row('L26')
def test_at_the_stop_no_more_jobs_are_taken_and_running_ones_go_on(tmp_path: Path) -> None:
    port, gate = free_port(), tmp_path / 'gate'
    with (
        node('first', ADDRESS, port, *EVENING, at='06:00:00', later=4) as first,
        open_cluster(hold, port, ADDRESS, OTHER_ADDRESS) as cluster,
    ):
        running, waiting = cluster.submit(str(gate)), cluster.submit(str(gate))
        eventually(lambda: begun(gate))
        assert 'taking no more' not in first.output()
        first.wait_for_log('taking no more jobs: serves from 17:00 to 08:00')
        eventually(lambda: 'takes no more jobs: serves from 17:00' in cluster.explain())
        gate.touch()
        assert running() == 'first'
        assert not waiting.wait(0.3)
        with node('second', OTHER_ADDRESS, port):
            assert waiting() == 'second'  # it went back, unrun


def test_a_stop_without_a_client_is_survived() -> None:
    port = free_port()
    with node('lonely', ADDRESS, port, *EVENING, at='06:00:00', later=1) as lonely:
        lonely.wait_for_log('taking no more jobs: serves from 17:00 to 08:00')
        with open_cluster(where, port) as cluster:
            eventually(lambda: 'serves from 17:00 to 08:00' in cluster.explain())
        assert lonely.process.poll() is None


@pytest.mark.slow
@pytest.mark.row('L27')
def test_at_the_end_running_jobs_are_killed_and_reentrant_ones_run_elsewhere(
    tmp_path: Path,
) -> None:
    port, gates = free_port(), [tmp_path / 'one', tmp_path / 'two']
    with ExitStack() as stack:
        for address in (ADDRESS, OTHER_ADDRESS):
            times = {'at': '08:00:00', 'later': 6}
            ends = node(f'ends-{address}', address, port, *EVENING[:2], *EVENING[4:], **times)
            stack.enter_context(ends)
        one = stack.enter_context(open_cluster(hold, port, ADDRESS))
        two = stack.enter_context(
            open_cluster(hold, port, OTHER_ADDRESS, '127.0.0.4', reentrant=True)
        )
        killed, moved = one.submit(str(gates[0])), two.submit(str(gates[1]))
        eventually(lambda: all(map(begun, gates)))
        pids = [int(Path(f'{gate}.begun').read_text()) for gate in gates]
        assert killed.wait(LIMIT)
        ended = f'node ends-{ADDRESS} ({ADDRESS}): its service hours ended at 08:00'
        assert (killed.status, killed.reason) == (dispy.DispyJob.Terminated, ended)
        eventually(lambda: moved.status == dispy.DispyJob.Created)
        eventually(lambda: not any(map(exists, pids)))
        gates[1].touch()
        stack.enter_context(node('day', '127.0.0.4', port))
        assert moved() == 'day'
        assert not Path(f'{gates[0]}.done').exists()


def exists(pid: int) -> bool:
    return Path(f'/proc/{pid}').exists()


# clients


@pytest.mark.slow
@pytest.mark.row('L28')
def test_a_node_ends_after_so_many_clients_and_without_a_number_never() -> None:
    port = free_port()
    script = textwrap.dedent(f"""
        import dispy_nb as dispy

        def compute():
            return dispy_node_name

        where = {{'node_port': {port}, 'ip_addr': '127.0.0.1', 'port': 0}}
        with dispy.JobCluster(compute, ['{ADDRESS}'], **where) as cluster:
            print(cluster.submit()())
    """)
    with node('two', ADDRESS, port, '--serve', 2) as two:
        assert client_program(script).stdout == 'two\n'
        assert two.process.poll() is None
        assert client_program(script).stdout == 'two\n'
        assert two.wait() == 0
        assert 'ended: it has served 2 clients' in two.output()
    with node('any', ADDRESS, port, '--serve=-1') as endless:
        for _ in range(3):
            with open_cluster(where, port) as cluster:
                assert cluster.submit()() == 'any'
        assert endless.process.poll() is None


def write(name: str) -> str:
    import pathlib

    pathlib.Path(name).write_text('shared')
    return str(pathlib.Path.cwd())


def read(name: str) -> str:
    import pathlib

    return pathlib.Path(name).read_text()


@pytest.mark.row('L29')
def test_a_client_counts_once_all_its_computations_are_closed(tmp_path: Path) -> None:
    port = free_port()
    prefix = ('--dest_path_prefix', tmp_path / 'files')
    with node('once', ADDRESS, port, '--serve', 1, *prefix) as once:
        first = open_cluster(write, port, dest_path='both')
        assert first.submit('file')() == str(tmp_path / 'files' / 'both')
        second = open_cluster(read, port, dest_path='both')
        assert second.submit('file')() == 'shared'
        first.close()
        assert second.submit('file')() == 'shared'
        assert once.process.poll() is None
        second.close()
        assert once.wait() == 0
        assert 'ended: it has served 1 client' in once.output()


@pytest.mark.row('L29')
def test_a_client_that_has_its_node_set_up_anew_counts_once() -> None:
    port = free_port()
    with node('once', ADDRESS, port, '--serve', 1) as once:
        with open_cluster(os.getppid, port) as cluster:
            first = cluster.submit()()
            assert cluster.resetup_node(ADDRESS) == 0
            job = cluster.submit_node(ADDRESS)
            assert cluster.wait(LIMIT)
            assert job.result != first
        assert once.wait() == 0


SHARING = """
import pathlib, sys, time
import dispy_nb as dispy
from tests.features.test_service import where

node, node_port, scheduler_port, gate = sys.argv[1:]
with dispy.SharedJobCluster(where, [node], node_port=int(node_port), ip_addr='127.0.0.1', port=0,
                            scheduler_node='127.0.0.1', scheduler_port=int(scheduler_port)) as own:
    print(own.submit()(), flush=True)
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    print(own.submit()(), 'again', flush=True)
"""


@pytest.mark.slow
@pytest.mark.row('L30')
def test_programs_that_share_a_scheduler_are_one_client(tmp_path: Path) -> None:
    port, gate, opened = free_port(), tmp_path / 'gate', tmp_path / 'opened'
    opened.touch()
    command = (sys.executable, '-c', SHARING, ADDRESS, port)
    with node('once', ADDRESS, port, '--serve', 1) as once, scheduler() as (_, scheduler_port):
        with program(*command, scheduler_port, gate, ready='once') as first:
            with program(*command, scheduler_port, opened, ready='once') as second:
                assert second.wait() == 0
                assert second.output() == 'once\nonce again\n'
            assert once.process.poll() is None
            gate.touch()
            assert first.wait() == 0
            assert first.output() == 'once\nonce again\n'
        assert once.wait() == 0
        assert 'ended: it has served 1 client' in once.output()


@pytest.mark.slow
def test_serving_nobody_is_only_the_cleaning(tmp_path: Path) -> None:
    port, prefix = free_port(), tmp_path / 'files'
    with (
        node('before', ADDRESS, port, '--dest_path_prefix', prefix),
        open_cluster(write, port, cleanup=False) as cluster,
    ):
        left = Path(cluster.submit('file')())
    assert left.exists()
    command = (sys.executable, '-m', 'nodeserver.cli.dispynode', '--serve', 0)
    with program(*command, '-i', ADDRESS, '-p', port, '--dest_path_prefix', prefix) as cleaner:
        assert cleaner.wait() == 0
    assert not left.exists()


# silence


SILENT = """
import sys
import dispy_nb as dispy
from tests.features.test_service import hold

gate, port, *addresses = sys.argv[1:]
clusters = [
    dispy.JobCluster(hold, [address], node_port=int(port), ip_addr='127.0.0.1', port=0,
                     pulse_interval=1)
    for address in addresses
]
jobs = [cluster.submit(f'{gate}-{n}') for n, cluster in enumerate(clusters)]
for job in jobs:
    job.wait()
    print(job.status, job.result, job.reason, flush=True)
"""


@contextmanager
def silent_client(gate: Path, port: int, *addresses: str) -> Iterator[Program]:
    """Run a program that has a job on each of these nodes, and is suspended then."""
    with program(sys.executable, '-c', SILENT, gate, port, *addresses) as client:
        for number in range(len(addresses)):
            eventually(lambda number=number: begun(Path(f'{gate}-{number}')))
        client.signal(signal.SIGSTOP)
        try:
            yield client
        finally:
            client.signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.row('I19', 'L21')
def test_a_silent_client_keeps_its_running_jobs_and_loses_the_node(tmp_path: Path) -> None:
    port, gate = free_port(), tmp_path / 'gate'
    minutes = 0.05  # 3 seconds
    with (
        node('short', ADDRESS, port, '--zombie_interval', minutes) as short,
        node('long', OTHER_ADDRESS, port, '--zombie_interval', 1) as patient,
        silent_client(gate, port, ADDRESS, OTHER_ADDRESS) as client,
        open_cluster(where, port, ADDRESS, pulse_interval=1) as cluster,
        open_cluster(where, port, OTHER_ADDRESS, pulse_interval=1) as other,
    ):
        silent_since = time.monotonic()
        job = cluster.submit()
        eventually(lambda: 'busy: held by' in cluster.explain())
        short.wait_for_log('nothing was heard of it for 0.05 minutes')
        assert (
            time.monotonic() - silent_since > minutes * 60 - 1.5
        )  # it may have pulsed just before
        assert exists(int(Path(f'{gate}-0.begun').read_text()))  # its job runs on
        assert job.status == dispy.DispyJob.Created
        Path(f'{gate}-0').touch()
        assert job() == 'short'
        assert Path(f'{gate}-0.done').exists()
        # a node that counts a whole minute still waits for its client
        waiting = other.submit()
        eventually(lambda: 'busy: held by' in other.explain())
        assert 'nothing was heard' not in patient.log()
        client.signal(signal.SIGCONT)
        Path(f'{gate}-1').touch()
        client.wait_for_log(f'{int(dispy.DispyJob.Finished)} long')
        assert client.wait() == 0
        assert 'nothing was heard of it for 0.05 minutes' in client.output()
        assert waiting() == 'long'


# patience


def seconds_until_closed(port: int) -> float:
    """Connect, say nothing, and measure how long the node bears it."""
    with socket.create_connection((ADDRESS, port), timeout=LIMIT) as sock:
        began = time.monotonic()
        while sock.recv(4096):
            pass
        return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.row('L24')
def test_msg_timeout_is_how_long_a_silent_connection_is_borne() -> None:
    short, usual = free_port(), free_port()
    with node('s', ADDRESS, short, '--msg_timeout', 0.5), node('u', ADDRESS, usual):
        took = {}

        def measure(port: int) -> None:
            took[port] = seconds_until_closed(port)

        at_once(measure, short, usual)
    assert 0.4 < took[short] < 3 < 4.8 < took[usual] < 8
