"""What real nodes keep when the program that used them is killed (I03, L23)."""

import asyncio
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb.local import DIRECTORY_START
from nodeserver.core.messages import JobsDone, Message
from nodeserver.core.recoveryeffects import KeepComputation, KeepLetters
from nodeserver.core.status import JobStatus
from nodeserver.io.leftovers import sweep_directories
from nodeserver.io.spool import DIRECTORY, Spool
from tests.support.nodebench import TOKEN, opening
from tests.support.programs import ROOT, Program, eventually, free_port, node_program, program
from tests.support.taker import taker

ADDRESS = '127.0.6.1'
LIMIT = 20.0

SEES_TESTS = {'PYTHONPATH': str(ROOT)}

# Says what takes its computation over, which a journal would know.
CLIENT = """
import sys
import time
import dispy_nb as dispy
from dispy_nb import runtime
from tests.features.test_nodekeeps import hold

gate, address, port = sys.argv[1:]
attach = runtime.Runtime.attach

def shown(self, declared, *rest):
    print('declared', declared.computation, declared.token.hex(), flush=True)
    return attach(self, declared, *rest)

runtime.Runtime.attach = shown
cluster = dispy.JobCluster(hold, [address], node_port=int(port), ip_addr='127.0.0.1', port=0,
                           pulse_interval=1)
for job in [cluster.submit('') for _ in range(50)]:
    job()  # the node gets more than one of such short ones at a time
jobs = [cluster.submit(gate) for _ in range(6)]
while sum(job.status == dispy.DispyJob.Running for job in jobs) < 3:
    time.sleep(0.01)
print('three are there', flush=True)
time.sleep(60)
"""


def hold(gate: str) -> str:
    """Run until the file is there."""
    import pathlib
    import time

    deadline = time.monotonic() + 60
    while gate and not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return 'opened'


@dataclass
class Killed:
    """The computation of a program that was killed, with jobs running and waiting on a node."""

    computation: int
    token: bytes


class Nowhere:
    """A link that nothing is sent over."""

    def send(self, peer: str, message: Message) -> None:
        """Take a letter."""

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Nothing is."""


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody reaps has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def killed_client(gate: Path, port: int, address: str = ADDRESS) -> Iterator[Killed]:
    with program(sys.executable, '-c', CLIENT, gate, address, port, env=SEES_TESTS) as client:
        client.wait_for_log('three are there', LIMIT)
        found = re.search(r'declared (\d+) (\w+)', client.output())
        assert found
        client.kill()
        client.wait()
    yield Killed(int(found[1]), bytes.fromhex(found[2]))


@contextmanager
def node(port: int, prefix: Path, *options: object) -> Iterator[Program]:
    words = ('-i', ADDRESS, '-p', port, '-c', 1, '--name', 'keeper', '--dest_path_prefix', prefix)
    with node_program(*words, *options) as running:
        yield running


def runs_a_job(port: int) -> bool:
    """Whether a program that knows nothing of the other one can use the node."""
    cluster = dispy.JobCluster(hold, [ADDRESS], node_port=port, ip_addr='127.0.0.1', port=0)
    with cluster:
        return cluster.submit('')() == 'opened'


@pytest.mark.slow
@pytest.mark.row('I03', 'I08')
def test_jobs_of_a_killed_client_go_on_and_their_outcomes_are_handed_out_once(
    tmp_path: Path,
) -> None:
    port, gate, prefix = free_port(), tmp_path / 'gate', tmp_path / 'files'
    with node(port, prefix) as keeper, killed_client(gate, port) as client:
        keeper.wait_for_log('the program that used this node is gone')
        with taker(ADDRESS, port) as stranger:
            stranger.claim(client.computation, b'another token...', epoch=99)
            assert stranger.refusal() == 'another program has a computation of that number here'
        gate.touch()
        assert runs_a_job(port)  # nobody has fetched anything
        keeper.wait_for_log('whose program is gone')
        assert list((prefix / DIRECTORY).iterdir())
        with taker(ADDRESS, port) as first:
            first.claim(client.computation, client.token)
            assert first.held() == []
            fetched = first.outcomes()
            assert len(fetched) >= 3  # also those that were waiting
            assert first.refusal() == 'nothing of it runs here'
            first.acknowledge(client.computation)
            eventually(lambda: not (prefix / DIRECTORY).exists())
            first.farewell()
        with taker(ADDRESS, port) as second:
            second.claim(client.computation, client.token, epoch=2)
            assert second.held() == []
            assert second.outcomes() == []
        assert runs_a_job(port)


@pytest.mark.slow
@pytest.mark.row('I03')
def test_who_comes_while_jobs_run_has_them_and_the_client_that_lives_keeps_its_own(
    tmp_path: Path,
) -> None:
    port, gate, prefix = free_port(), tmp_path / 'gate', tmp_path / 'files'
    with node(port, prefix), killed_client(gate, port) as client, taker(ADDRESS, port) as first:
        first.claim(client.computation, client.token)
        held = first.held()
        assert len(held) >= 3
        with taker(ADDRESS, port) as second:  # two recoveries at once
            second.claim(client.computation, client.token, yields=True)
            assert 'it is used by a program that runs' in second.refusal()
        gate.touch()
        first.await_outcomes(held)
        first.acknowledge(client.computation)
        first.close_computation(client.computation)
        assert not (prefix / DIRECTORY).exists()
        assert runs_a_job(port)


@pytest.mark.slow
@pytest.mark.row('L23', 'L22')
def test_outcomes_outlive_restarts_of_the_node_until_it_is_cleaned(tmp_path: Path) -> None:
    port, gate, prefix = free_port(), tmp_path / 'gate', tmp_path / 'files'
    with node(port, prefix) as keeper, killed_client(gate, port) as client:
        gate.touch()
        assert runs_a_job(port)
        keeper.wait_for_log('whose program is gone', LIMIT)
        keeper.signal(signal.SIGKILL)
        keeper.wait()
    said = r'keeps (\d+) outcomes of hold for .*, first kept less than a minute ago'
    for _ in range(2):
        with node(port, prefix) as keeper:
            keeper.wait_for_log('outcomes of hold for')
            found = re.search(said, keeper.log())
            assert found
            with taker(ADDRESS, port) as reader:
                reader.claim(client.computation, client.token)
                assert reader.held() == []
                assert len(reader.outcomes()) == int(found[1]) >= 3
    with node(port, prefix, '--clean') as keeper, taker(ADDRESS, port) as reader:
        assert not (prefix / DIRECTORY).exists()
        reader.claim(client.computation, client.token)
        assert reader.refusal() == 'nothing of it runs here'
        assert reader.outcomes() == []
        assert 'keeps' not in keeper.log()


def peak_memory(pid: int) -> int:
    """Most bytes that a process has had in memory so far."""
    status = Path(f'/proc/{pid}/status').read_text()
    found = re.search(r'VmHWM:\s+(\d+) kB', status)
    assert found
    return int(found[1]) * 1024


def kept_letters(prefix: Path, count: int, size: int) -> None:
    """Keep letters of computation 7 as a node does that runs there."""
    loop = asyncio.new_event_loop()
    prefix.mkdir()
    spool = Spool(loop, prefix, 'then', Nowhere(), lambda event: None)
    spool.keep_computation(KeepComputation(opening()))
    for number in range(1, count + 1):
        columns = [1], [int(JobStatus.FINISHED)], [bytes(size)], [''], [1.0]
        spool.keep_letters(KeepLetters(7, [JobsDone(7, 'then', number, [number], *columns)]))
    spool.close()
    loop.close()


@pytest.mark.slow
@pytest.mark.row('I03')
def test_a_node_that_keeps_more_than_it_has_memory_for_hands_it_over_in_pieces(
    tmp_path: Path, own_home: Path
) -> None:
    port, prefix, count, size = free_port(), tmp_path / 'files', 64, 8_000_000
    kept_letters(prefix, count, size)
    with node(port, prefix) as keeper:
        keeper.wait_for_log('keeps 64 outcomes')
        before = peak_memory(keeper.pid)
        with taker(ADDRESS, port) as reader:
            reader.claim(7, TOKEN)
            assert reader.held() == []
            assert sorted(reader.outcomes()) == [*range(1, count + 1)]
            # credit of the link, what is read at once, and a letter more, each twice for a while
            assert peak_memory(keeper.pid) - before < 150_000_000 < count * size / 3
            reader.acknowledge(7)
            eventually(lambda: not (prefix / DIRECTORY).exists())


OWNER = """
import dispy_nb as dispy

nodes = dispy.start_nodes(1, 1)
(address, port), = nodes.nodes
print('node', *nodes.pids, port, flush=True)
sys.argv += [address, port]
"""


@pytest.mark.slow
@pytest.mark.row('I03')
def test_a_node_of_a_killed_program_ends_its_jobs_and_once_their_outcomes_are_fetched(
    tmp_path: Path, own_home: Path
) -> None:
    gate = tmp_path / 'gate'
    start = 'import sys' + OWNER + CLIENT
    with program(sys.executable, '-c', start, gate, env=SEES_TESTS) as client:
        client.wait_for_log('three are there', LIMIT)
        node = re.search(r'node (\d+) (\d+)', client.output())
        declared = re.search(r'declared (\d+) (\w+)', client.output())
        assert node
        assert declared
        client.kill()
        client.wait()
    pid, port = int(node[1]), int(node[2])
    computation, token = int(declared[1]), bytes.fromhex(declared[2])
    with taker('127.0.0.1', port) as reader:
        reader.claim(computation, token)
        held = reader.held()
        assert len(held) >= 3
        gate.touch()
        reader.await_outcomes(held)
        assert not is_gone(pid)
        reader.acknowledge(computation)
        eventually(lambda: is_gone(pid))
    places = Path(tempfile.gettempdir())
    sweep_directories(places, DIRECTORY_START)  # as the next program that starts nodes does
    assert not list(places.glob(f'{DIRECTORY_START}*'))
