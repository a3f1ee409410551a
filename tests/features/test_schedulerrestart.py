"""A dispyscheduler dies: its nodes go on, and the next one finds programs and nodes again."""

import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import joblib
import pytest

from tests.features.test_dispyscheduler import shared
from tests.support.programs import ROOT, Program, eventually, free_port, node_program, program
from tests.support.terminal import on_terminal


class Place:
    """Where a scheduler and the next ones after it run."""

    def __init__(self, home: Path) -> None:
        self.port, self.nodes_port, self.state = free_port(), free_port(), home / 'state'

    @contextmanager
    def scheduler(self, *options: object) -> Iterator[Program]:
        """Run one; it is killed at the end of the block."""
        command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1')
        ports = ('--scheduler_port', self.port, '--port', self.nodes_port)
        state = ('--dest_path_prefix', self.state)
        with program(*command, *ports, *state, *options, ready='serving') as running:
            yield running


def noted(directory: str, number: int, seconds: float) -> int:
    """Write down that it has begun, wait for a gate, and return the number."""
    with Path(directory, f'begun-{number}').open('a') as file:
        file.write('x')
    deadline = time.monotonic() + 40
    while not Path(directory, 'gate').exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    return number


def starts(directory: Path) -> Counter[int]:
    """How often each job was begun."""
    found = directory.glob('begun-*')
    return Counter({int(p.name.removeprefix('begun-')): len(p.read_text()) for p in found})


@pytest.fixture
def two_nodes() -> Iterator[int]:
    port = free_port()
    with ExitStack() as stack:
        for host in ('127.0.0.2', '127.0.0.3'):
            stack.enter_context(node_program('-i', host, '-p', port, '-c', 1))
        yield port


def test_jobs_go_on_when_a_scheduler_is_killed_and_started_again(
    own_home: Path, two_nodes: int
) -> None:
    place = Place(own_home)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler())
        cluster = stack.enter_context(shared(place.port, noted, **options))
        jobs = [cluster.submit(str(own_home), number, 0.05) for number in range(8)]
        eventually(lambda: len(starts(own_home)) == 2)
        first.kill()
        first.wait()
        later = cluster.submit(str(own_home), 8, 0.05)
        (own_home / 'gate').touch()  # they go on, and end while nobody is there to be told
        began = time.monotonic()
        second = stack.enter_context(place.scheduler())
        for job in [*jobs, later]:
            assert job.wait(30), job.explain()
        assert [job.result for job in [*jobs, later]] == [*range(9)]
        assert time.monotonic() - began < 20
        assert starts(own_home) == Counter(dict.fromkeys(range(9), 1))
        assert 'had 1 computation:' in second.log()
        assert 'Traceback' not in second.log()
        cluster.close()
        assert second.process.poll() is None
        second.signal(signal.SIGTERM)
        second.wait()
    assert list(place.state.iterdir()) == []


ALONE = """
import dispy_nb as dispy
from tests.features.test_schedulerrestart import noted

cluster = dispy.SharedJobCluster(
    noted, nodes=['127.0.0.2', '127.0.0.3'], ip_addr='127.0.0.1', port=0, node_port={nodes},
    scheduler_node='127.0.0.1', scheduler_port={port}, exclusive=True, name='alone',
)
jobs = [cluster.submit({home!r}, number, 0.05) for number in range(2)]
print('submitted', flush=True)
assert [job() for job in jobs] == [0, 1]
cluster.close()
"""


@pytest.mark.row('B08', 'B09')
def test_an_exclusive_cluster_is_alone_also_after_a_restart_of_the_scheduler(
    own_home: Path, two_nodes: int
) -> None:
    place = Place(own_home)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    text = ALONE.format(nodes=two_nodes, port=place.port, home=str(own_home))
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler())
        alone = stack.enter_context(program(sys.executable, '-c', text, ready='submitted'))
        eventually(lambda: len(starts(own_home)) == 2)
        alone.signal(signal.SIGSTOP)  # so that it cannot be the first to come back
        first.kill()
        first.wait()
        stack.enter_context(place.scheduler())
        cluster = stack.enter_context(shared(place.port, noted, **options))
        job = cluster.submit(str(own_home), 2, 0.0)
        eventually(lambda: 'clusters of before have 30 s to come back' in cluster.explain())
        alone.signal(signal.SIGCONT)
        eventually(lambda: 'all nodes are for another cluster' in cluster.explain())
        assert 2 not in starts(own_home)
        (own_home / 'gate').touch()
        assert job.wait(30), job.explain()
        assert alone.wait() == 0, alone.log()
        assert starts(own_home) == Counter(dict.fromkeys(range(3), 1))


def test_a_scheduler_at_another_port_finds_the_programs_of_the_one_before(
    own_home: Path, two_nodes: int
) -> None:
    place = Place(own_home)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler())
        cluster = stack.enter_context(shared(place.port, noted, port=free_port(), **options))
        jobs = [cluster.submit(str(own_home), number, 0.05) for number in range(4)]
        eventually(lambda: len(starts(own_home)) == 2)
        first.kill()
        first.wait()
        place.port, place.nodes_port = free_port(), free_port()
        stack.enter_context(place.scheduler())
        (own_home / 'gate').touch()
        for job in jobs:
            assert job.wait(30), job.explain()
        assert [job.result for job in jobs] == [*range(4)]
        assert starts(own_home) == Counter(dict.fromkeys(range(4), 1))
        cluster.close()


def sender(directory: str, name: str) -> int:
    """Send a file once there is a gate."""
    Path(directory, f'begun-{name}').touch()
    while not Path(directory, 'gate').exists():
        time.sleep(0.01)
    Path(name).write_text(name)
    return dispy_send_file(name)  # type: ignore[name-defined, no-any-return]  # noqa: F821


@pytest.mark.row('H03')
def test_a_file_that_a_job_sends_meanwhile_waits_for_the_next_scheduler(
    own_home: Path, two_nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, here = Place(own_home), own_home / 'here'
    here.mkdir()
    monkeypatch.chdir(here)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler())
        cluster = stack.enter_context(shared(place.port, sender, **options))
        jobs = [cluster.submit(str(own_home), name) for name in ('one', 'two')]
        eventually(lambda: len([*own_home.glob('begun-*')]) == 2)
        first.kill()
        first.wait()
        (own_home / 'gate').touch()
        stack.enter_context(place.scheduler())
        for job in jobs:
            assert job.wait(30), job.explain()
        assert [job.result for job in jobs] == [0, 0], [job.stderr for job in jobs]
        assert [Path(here, name).read_text() for name in ('one', 'two')] == ['one', 'two']
        cluster.close()


@pytest.mark.row('Z04')
def test_calls_of_joblib_go_on_over_a_restart(own_home: Path, two_nodes: int) -> None:
    place = Place(own_home)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler())
        cluster = stack.enter_context(shared(place.port, noted, **options))
        executor = stack.enter_context(cluster.executor())

        def calls() -> list[int]:
            with joblib.parallel_config(backend='dispy', executor=executor):
                each = (joblib.delayed(noted)(str(own_home), number, 0.01) for number in range(12))
                return list(joblib.Parallel(batch_size=1)(each))

        running = stack.enter_context(ThreadPoolExecutor(1)).submit(calls)
        eventually(lambda: len(starts(own_home)) == 2, 20)
        first.kill()
        first.wait()
        (own_home / 'gate').touch()
        stack.enter_context(place.scheduler())
        assert running.result(40) == [*range(12)]
        assert starts(own_home) == Counter(dict.fromkeys(range(12), 1))
        executor.shutdown()
        cluster.close()


WAITS = """
import os, sys
sys.path.insert(0, {tests!r})
import dispy_nb as dispy
from tests.features.test_schedulerrestart import noted

cluster = dispy.SharedJobCluster(
    noted, ['127.0.0.2', '127.0.0.3'], scheduler_node='127.0.0.1', scheduler_port={port}, port=0,
    ip_addr='127.0.0.1', node_port={node_port}, name='waits',
)
jobs = [cluster.submit({directory!r}, number, 0.02) for number in range(20)]
cluster.wait()
print('results', [job.result for job in jobs] == [*range(20)], flush=True)
cluster.close()
"""


@pytest.mark.row('V19')
def test_the_line_of_progress_goes_on_over_a_restart(own_home: Path, two_nodes: int) -> None:
    place = Place(own_home)
    words = {'port': place.port, 'node_port': two_nodes, 'directory': str(own_home)}
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler())
        command = [sys.executable, '-c', WAITS.format(**words, tests=str(ROOT))]
        shown = stack.enter_context(ThreadPoolExecutor(1)).submit(on_terminal, command)
        eventually(lambda: len(starts(own_home)) == 2, 20)
        first.kill()
        first.wait()
        (own_home / 'gate').touch()
        stack.enter_context(place.scheduler())
        said = shown.result(60)
    assert 'results True' in said
    lines = re.findall(r'waits \|[^\r\n]*', said)
    assert '| 20/20, ' in lines[-1]
    counts = [int(count) for line in lines for count in re.findall(r'(\d+)/20', line)]
    assert counts == sorted(counts)  # nothing is taken back
    assert starts(own_home) == Counter(dict.fromkeys(range(20), 1))


@pytest.mark.row('Z16')
def test_jobs_that_outlast_the_draining_go_on_without_their_scheduler(
    own_home: Path, two_nodes: int
) -> None:
    place = Place(own_home)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    with ExitStack() as stack:
        first = stack.enter_context(place.scheduler('--drain_timeout', 0.3))
        cluster = stack.enter_context(shared(place.port, noted, **options))
        jobs = [cluster.submit(str(own_home), number, 0.05) for number in range(4)]
        eventually(lambda: len(starts(own_home)) == 2)
        first.signal(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM
        assert 'jobs that have not ended go on without it' in first.log()
        stack.enter_context(place.scheduler())
        (own_home / 'gate').touch()
        for job in jobs:
            assert job.wait(30), job.explain()
        assert starts(own_home) == Counter(dict.fromkeys(range(4), 1))
        cluster.close()


@pytest.mark.slow
def test_a_scheduler_that_is_killed_again_and_again_loses_and_repeats_nothing(
    own_home: Path, two_nodes: int
) -> None:
    place = Place(own_home)
    options: dict[str, Any] = {'node_port': two_nodes, 'nodes': ['127.0.0.2', '127.0.0.3']}
    (own_home / 'gate').touch()
    with ExitStack() as stack:
        server = stack.enter_context(place.scheduler())
        cluster = stack.enter_context(shared(place.port, noted, **options))
        jobs = [cluster.submit(str(own_home), number, 0.02) for number in range(120)]
        for least in (5, 30, 60, 90):
            eventually(lambda least=least: len(starts(own_home)) >= least, 20)
            server.kill()
            server.wait()
            server = stack.enter_context(place.scheduler())
        for job in jobs:
            assert job.wait(30), job.explain()
        assert [job.result for job in jobs] == [*range(120)]
        assert starts(own_home) == Counter(dict.fromkeys(range(120), 1))
        cluster.close()
    assert list(place.state.iterdir()) == []


def test_a_state_that_others_can_read_is_refused_and_a_cleaned_one_is_gone(own_home: Path) -> None:
    place = Place(own_home)
    file = place.state / 'state.sqlite'
    place.state.mkdir(mode=0o700)
    file.write_text('torn')
    file.chmod(0o644)
    command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1', '-p', '0')
    ports = ('--scheduler_port', '0', '--dest_path_prefix', place.state)
    with program(*command, *ports) as refused:
        assert refused.wait() == 78
        assert f'chmod 600 {file}' in refused.errors()
        assert len(refused.errors().splitlines()) == 1
    file.chmod(0o600)
    with program(*command, *ports, ready='serving') as running:
        assert 'state.sqlite.unusable-1' in running.errors()
    with program(*command, *ports, '--clean', ready='serving'):
        assert [each.name for each in place.state.glob('*.unusable*')] == []
