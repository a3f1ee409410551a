"""Programs that are killed, and others that recover their jobs: real programs (section I)."""

import inspect
import json
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from dispy_nb.local import DIRECTORY_START
from dispy_nb.recovery.places import state_directory
from nodeserver.core.errors import CertificateError, DatabaseBusy, UsageError
from nodeserver.io.leftovers import sweep_directories
from tests.features.conftest import Pair
from tests.support.certificates import needs_openssl, self_signed
from tests.support.programs import (
    Program,
    all_entered,
    eventually,
    free_port,
    node_program,
    program,
)

LIMIT = 30.0
SCHEDULER = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler')

SCRIPT = """
import os, sys, time
os.chdir({cwd!r})
import dispy_nb as dispy

def work(x, gate):
    print('job', x)
    print('told', x, file=sys.stderr)
    open(f'{{gate}}.{{x}}', 'w').close()
    while x > 1 and not os.path.exists(gate):
        time.sleep(0.01)
    if x == 3:
        raise ValueError('the third')
    return x * x

if __name__ == '__main__':
    def ready():
        time.sleep(0.3)  # a moment of its life: what it has received is acknowledged
        print('ready', flush=True)
        time.sleep(100)

    cluster = dispy.JobCluster(
        work, nodes={nodes!r}, ip_addr='127.0.0.1', port=0, node_port={port},
        depends=[os, sys, time], **{options!r},
    )
    jobs = []
    for x in range({count}):
        job = cluster.submit(x, {gate!r})
        job.id = f'square of {{x}}'
        jobs.append(job)
    assert [job() for job in jobs[:2]] == [0, 1]
    {then}
    ready()
"""


@pytest.fixture
def gate(own_home: Path) -> Path:
    """The file for which jobs wait."""
    return own_home / 'gate'


@pytest.fixture
def here(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, which the programs have too."""
    directory = own_home / 'here'
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def their_key(pair: Pair, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """The pair of nodes, for programs that have their key."""
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))
    return pair


def source(here: Path, gate: Path, port: int, nodes: Any, **more: Any) -> str:
    """Write a program with jobs that have ended, that run, and that wait."""
    words = {'count': 6, 'options': {'recover_file': 'file'}, 'then': 'pass', **more}
    return SCRIPT.format(cwd=str(here), gate=str(gate), port=port, nodes=list(nodes), **words)


def killed(text: str, gate: Path, running: int = 2) -> None:
    """Run a program until so many of its jobs run, and kill it."""
    with program(sys.executable, '-c', text, ready='ready') as victim:
        await_begun(gate, running)
        victim.kill()
        victim.wait()


def await_begun(gate: Path, running: int = 2) -> None:
    """Wait until so many jobs wait for the gate, beside the two that do not."""
    eventually(lambda: len([*gate.parent.glob(f'{gate.name}.*')]) >= 2 + running, LIMIT)


def check(jobs: list[DispyJob], least: int = 2) -> None:
    """See that so many jobs or more have come, no job twice, with what they should have."""
    ids = [job.id for job in jobs]
    assert {*ids} <= {f'square of {x}' for x in range(2, 6)}
    assert len({*ids}) == len(ids) >= least
    for job in jobs:
        x = int(job.id.removeprefix('square of '))
        assert (job.stdout, job.stderr) == (f'job {x}\n', f'told {x}\n')
        if x == 3:
            assert (job.status, job.result) == (DispyJob.Terminated, None)
            assert job.exception is not None
            assert job.exception.endswith('ValueError: the third')
        else:
            assert (job.status, job.result) == (DispyJob.Finished, x * x)


def answers(address: str, port: int, **more: Any) -> bool:
    """Whether a node serves another program now."""
    options = {'nodes': [address], 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port, **more}
    with dispy.JobCluster(abs, **options) as cluster:
        return bool(cluster.submit(-5)() == 5)


@pytest.mark.row('I05', 'I08', 'I11')
@pytest.mark.slow
def test_the_jobs_of_a_killed_program_are_returned_once_and_its_nodes_are_free_again(
    their_key: Pair, gate: Path, here: Path
) -> None:
    pair = their_key
    killed(source(here, gate, pair.port, pair.addresses), gate)
    assert (here / 'file').exists()
    gate.touch()
    jobs = dispy.recover_jobs('file')
    check(jobs)
    assert {job.ip_addr for job in jobs} == {*pair.addresses}
    for job in jobs:
        assert job.submit_time
        assert job.start_time
        assert job.end_time
        assert job.end_time >= job.start_time
    assert not any(here.iterdir())
    with pytest.raises(UsageError, match='there is no recovery file'):
        dispy.recover_jobs('file')
    for address in pair.addresses:
        assert answers(address, pair.port)


OF_A_CLASS = """
class Square:
    def __init__(self, x):
        self.x, self.padding = x * x, bytes(3_000_000)

"""


class Square:
    """What the same class is here, once there is one in `__main__`."""

    x: int
    padding: bytes


@pytest.mark.row('I11')
@pytest.mark.slow
def test_a_result_that_cannot_be_unpickled_here_stays_until_it_can_be(
    their_key: Pair,
    gate: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = source(here, gate, their_key.port, their_key.addresses)
    text = text.replace('return x * x', 'return Square(x) if x == 2 else x * x')
    killed(OF_A_CLASS + text.replace('depends=[', 'depends=[Square, '), gate)
    gate.touch()
    for _ in range(2):
        caplog.clear()
        jobs = dispy.recover_jobs('file')
        assert 'square of 2' not in {job.id for job in jobs}
        assert "1 result cannot be unpickled here, that of job 'square of 2'" in caplog.text
        assert 'the class __main__.Square is not defined here' in caplog.text
        assert (here / 'file').exists()
    assert jobs == []
    monkeypatch.setattr(sys.modules['__main__'], 'Square', Square, raising=False)
    (job,) = dispy.recover_jobs('file')
    assert (job.id, job.result.x, len(job.result.padding)) == ('square of 2', 4, 3_000_000)
    assert not any(here.iterdir())


@pytest.mark.row('I06')
@pytest.mark.slow
def test_with_a_timeout_the_others_go_on_and_are_returned_later(
    their_key: Pair, gate: Path, here: Path
) -> None:
    killed(source(here, gate, their_key.port, their_key.addresses), gate)
    assert dispy.recover_jobs('file', timeout=1) == []  # both run still
    gate.touch()
    check(dispy.recover_jobs('file'))


@pytest.mark.row('I01', 'I07')
@pytest.mark.slow
def test_with_a_timeout_the_others_are_terminated_where_that_is_asked_for(
    their_key: Pair, gate: Path, here: Path
) -> None:
    pair = their_key
    killed(source(here, gate, pair.port, pair.addresses, options={'recover_file': 'sub'}), gate)
    assert (here / 'sub').stat().st_mode & 0o777 == 0o600
    jobs = dispy.recover_jobs(str(here / 'sub'), timeout=1, terminate_pending=True)
    assert len(jobs) >= 2
    assert {(job.status, job.exception) for job in jobs} == {(DispyJob.Cancelled, 'Cancelled')}
    assert not any(here.iterdir())
    for address in pair.addresses:  # their only cpu is free, though the gate is shut
        assert answers(address, pair.port)


def signature_of(function: Callable[..., Any]) -> str:
    """Write down what a function takes, without types."""
    shown = inspect.signature(function).parameters.values()
    return str(inspect.Signature([each.replace(annotation=each.empty) for each in shown]))


@pytest.mark.row('I12', 'I13')
@pytest.mark.slow
def test_the_older_form_does_not_wait_for_running_jobs(
    their_key: Pair, gate: Path, here: Path
) -> None:
    pair = their_key
    text = source(here, gate, pair.port, pair.addresses, options={'fault_recover': True})
    killed(text, gate)
    (path,) = [path for path in here.iterdir() if not path.name.endswith('-wal')]
    assert re.fullmatch(r'_dispy_fault_recover_\d{14}', path.name)
    assert signature_of(dispy.fault_recover_jobs) == (
        "(fault_recover_file, ip_addr=None, secret='', node_port=51348, certfile=None, "
        'keyfile=None)'
    )
    jobs = dispy.fault_recover_jobs(str(path), None, '', 51348, None, None)
    assert {job.status for job in jobs} == {DispyJob.Running}
    gate.touch()
    collected: list[DispyJob] = []

    def fetched() -> bool:
        if path.exists():
            collected.extend(dispy.fault_recover_jobs(str(path)))
        return not path.exists()

    eventually(fetched, LIMIT)
    ended = [job for job in collected if job.status != DispyJob.Running]
    check(ended)


@pytest.mark.row('I12')
@pytest.mark.slow
def test_the_older_name_takes_a_path_too(their_key: Pair, here: Path) -> None:
    place: dict[str, Any] = {'nodes': [their_key.addresses[0]], 'node_port': their_key.port}
    place |= {'ip_addr': '127.0.0.1', 'port': 0}
    with dispy.JobCluster(abs, fault_recover='older', **place) as cluster:
        assert cluster.submit(-7)() == 7
        assert {path.name for path in here.iterdir()} <= {'older', 'older-wal', 'older-shm'}
        assert (here / 'older').exists()
    assert not any(here.iterdir())


SENDS = """
import os, time
import dispy_nb as dispy

def work(gate):
    open(gate + '.begun', 'w').close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    with open('late.txt', 'w') as file:
        file.write('late')
    return dispy_send_file('late.txt')

os.chdir({cwd!r})
cluster = dispy.JobCluster(work, nodes={nodes!r}, ip_addr='127.0.0.1', port=0, node_port={port},
                           depends=[os, time], recover_file='file')
job = cluster.submit({gate!r})
print('ready', flush=True)
job()
"""


@pytest.mark.row('I03', 'H03')
@pytest.mark.slow
def test_a_file_that_a_job_sends_meanwhile_waits_for_the_program_that_recovers_it(
    their_key: Pair, gate: Path, here: Path
) -> None:
    then = here / 'then'
    then.mkdir()
    words = {'cwd': str(then), 'nodes': ['127.0.0.2'], 'port': their_key.port, 'gate': str(gate)}
    with program(sys.executable, '-c', SENDS.format(**words), ready='ready') as victim:
        eventually(Path(f'{gate}.begun').exists, LIMIT)
        victim.kill()
        victim.wait()
    gate.touch()
    (job,) = dispy.recover_jobs(then / 'file', timeout=LIMIT)
    assert job.result == 0, job.stderr
    assert (here / 'late.txt').read_text() == 'late'
    assert not (then / 'late.txt').exists()  # the one who is there now gets it


@pytest.mark.row('I10')
@pytest.mark.slow
def test_a_program_that_runs_is_not_disturbed(their_key: Pair, gate: Path, here: Path) -> None:
    pair = their_key
    then = (
        "print('going on', flush=True);"
        "print('got', [job() for job in jobs if job is not jobs[3]]);"
        'sys.exit()'
    )
    text = source(here, gate, pair.port, pair.addresses, then=then)
    with program(sys.executable, '-c', text, ready='going on') as running:
        await_begun(gate)
        for recover in (dispy.recover_jobs, dispy.fault_recover_jobs):
            with pytest.raises(DatabaseBusy, match='its program runs still'):
                recover('file')
        gate.touch()
        assert running.wait(LIMIT) == 0, running.log()
        assert 'got [0, 1, 4, 16, 25]' in running.output()


CLEAN = """
import os, sys
os.chdir({cwd!r})
import dispy_nb as dispy
options = dict(nodes=[{address!r}], ip_addr='127.0.0.1', port=0, node_port={port})
for _ in range(2):  # C22
    cluster = dispy.JobCluster(abs, **options)
    assert os.listdir('.') == []  # nothing is scheduled yet
    assert cluster.submit(-7)() == 7
    print(*os.listdir('.'), flush=True)
    cluster.close()
    assert os.listdir('.') == []
dispy.JobCluster(abs, recover_file='given', **options).submit(-7)()  # closed at the end
print(*os.listdir('.'))
"""


@pytest.mark.row('I02', 'C22')
@pytest.mark.slow
def test_a_clean_end_leaves_no_file(their_key: Pair, here: Path) -> None:
    address, port = their_key.addresses[0], their_key.port
    text = CLEAN.format(cwd=str(here), address=address, port=port)
    with program(sys.executable, '-c', text) as running:
        assert running.wait(LIMIT) == 0, running.log()
    first, second, given = running.output().splitlines()
    for names in (first, second):
        assert all(name.startswith('_dispy_2') for name in names.split())
        assert names
    assert 'given' in given
    assert not any(here.iterdir())


RECOVERER = """
import json, os, sys, time
os.chdir({cwd!r})
import dispy_nb as dispy
print('ready', flush=True)
jobs = dispy.recover_jobs('file')
print(json.dumps([(job.id, job.result) for job in jobs]), flush=True)
"""


@pytest.mark.row('I11')
@pytest.mark.slow
def test_a_recovery_that_is_killed_loses_nothing_and_two_at_once_do_not_meet(
    their_key: Pair, gate: Path, here: Path
) -> None:
    pair = their_key
    killed(source(here, gate, pair.port, pair.addresses), gate)
    text = RECOVERER.format(cwd=str(here))
    with program(sys.executable, '-c', text, ready='ready') as recovering:
        eventually(lambda: has_taken(recovering.pid, here / 'file'), LIMIT)
        with pytest.raises(DatabaseBusy, match='another one recovers its jobs'):
            dispy.recover_jobs('file')
        recovering.kill()
        recovering.wait()
    gate.touch()
    with program(sys.executable, '-c', text) as last:
        assert last.wait(LIMIT) == 0, last.log()
    returned = json.loads(last.output().splitlines()[-1])
    assert len(dict(returned)) == len(returned) >= 2
    assert not any(here.iterdir())


def has_taken(pid: int, path: Path) -> bool:
    """Whether a program has read the file, and has it open once more to go on with it."""
    process = psutil.Process(pid)
    begun = any('ZMQbg' in each.read_text() for each in Path(f'/proc/{pid}/task').glob('*/comm'))
    return begun and str(path) in {file.path for file in process.open_files()}


@contextmanager
def nodes(*options: object, count: int = 2) -> Iterator[tuple[int, list[Program]]]:
    """Run nodes of the test's own, at 127.0.7.1 and so on."""
    port = free_port()
    with ExitStack() as stack:
        yield (
            port,
            all_entered(
                stack,
                *(
                    node_program('-i', f'127.0.7.{n}', '-p', port, '-c', 1, *options)
                    for n in range(1, count + 1)
                ),
            ),
        )


@pytest.mark.row('I09')
@pytest.mark.leaves('files')  # of the node that is killed
@pytest.mark.slow
def test_the_secret_is_not_needed_again_and_jobs_of_a_node_that_is_gone_stay_for_a_later_try(
    gate: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phrase = 'a passphrase of several words'
    secret = here.parent / 'secret'
    secret.touch(0o600)
    secret.write_text(phrase)
    with nodes('--secret_file', secret) as (port, (_, second)):
        options = {'recover_file': 'file', 'pulse_interval': 1, 'secret': phrase}
        addresses = ['127.0.7.1', '127.0.7.2']
        killed(source(here, gate, port, addresses, options=options), gate)
        assert phrase.encode() not in (here / 'file').read_bytes()
        gate.touch()
        second.kill()
        second.wait()
        jobs = dispy.recover_jobs('file')
        assert {job.ip_addr for job in jobs} == {'127.0.7.1'}
        check(jobs, 1)
        assert 'not recovered: node' in caplog.text
        assert '127.0.7.2' in caplog.text
        assert 'stays for a later try' in caplog.text
        assert answers('127.0.7.1', port, secret=phrase)
        assert dispy.recover_jobs('file', timeout=0.2) == []
        assert (here / 'file').exists()


@pytest.mark.row('V15')
@pytest.mark.slow
def test_a_named_cluster_of_a_killed_script_is_given_back_whole(
    their_key: Pair, gate: Path, here: Path
) -> None:
    pair = their_key
    options = {'name': 'squares'}
    killed(source(here, gate, pair.port, pair.addresses, options=options), gate)
    gate.touch()
    called: list[Any] = []
    with pytest.raises(
        UsageError, match=r"dispy_nb\.attach\('squares'\)   made .*2 results, 4 jobs"
    ):
        dispy.attach('cubes')
    with dispy.attach(callback=lambda job: called.append(job.id)) as cluster:
        jobs = cluster.attached_jobs
        assert [job.id for job in jobs] == [f'square of {x}' for x in range(6)]
        assert [job.result for job in jobs[:2]] == [0, 1]
        assert cluster.submit(9, str(gate))() == 81
        assert cluster.wait(LIMIT)
        assert [job.result for job in jobs] == [0, 1, 4, None, 16, 25]
        assert sorted(map(str, called)) == [
            *sorted(['7', *(f'square of {x}' for x in range(2, 6))])
        ]
        counts = cluster.snapshot()
        assert (counts.submitted, counts.finished, counts.failed) == (7, 6, 1)
        begun = [path for path in gate.parent.iterdir() if path.name.startswith('gate.')]
        assert len(begun) == 7
    assert not any(here.iterdir())
    assert not any(state_directory().iterdir())
    with pytest.raises(UsageError, match='there is no cluster to attach to'):
        dispy.attach()


OWN_NODES = """
import os, sys, time
os.chdir({cwd!r})
import dispy_nb as dispy

def hold(x):
    open(f'{gate}.{{x}}', 'x').close()  # never twice
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    return x * x

local = dispy.start_nodes(1, 1)
if sys.argv[1] == 'first':
    cluster = dispy.JobCluster(
        hold, ip_addr='127.0.0.1', port=0, node_port={port}, name='squares', depends=[os, time]
    )
    jobs = [cluster.submit(x) for x in range(5)]
    while not os.path.exists({gate!r} + '.0'):
        time.sleep(0.01)
    print('ready', flush=True)
    time.sleep(100)
cluster = dispy.attach('squares')
open({gate!r}, 'w').close()
assert cluster.wait(20), cluster.explain()
print([job.result for job in cluster.attached_jobs])
cluster.close()
"""


@pytest.mark.row('V15')
@pytest.mark.slow
def test_jobs_that_waited_for_nodes_of_the_killed_program_run_on_those_of_the_next_one(
    gate: Path, here: Path
) -> None:
    text = OWN_NODES.format(cwd=str(here), gate=str(gate), port=free_port())
    with program(sys.executable, '-c', text, 'first', ready='ready') as first:
        first.kill()
        first.wait()
    with program(sys.executable, '-c', text, 'next') as attached:
        assert attached.wait(LIMIT) == 0, attached.log()
    assert attached.output().strip() == '[0, 1, 4, 9, 16]'
    assert not any(here.iterdir())
    eventually(are_swept)


def are_swept() -> bool:
    """Whether nothing is left of nodes whose program was killed, once they have ended."""
    places = Path(tempfile.gettempdir())
    sweep_directories(places, DIRECTORY_START)  # as the next program that starts nodes does
    return not list(places.glob(f'{DIRECTORY_START}*'))


DOCUMENTED = """
import os
os.chdir({cwd!r})
import dispy_nb as dispy
jobs = dispy.recover_jobs('_dispy_20160126112746')
for job in jobs:
    print('Job result: %s' % job.result)
"""


@pytest.mark.row('I04', 'U07')
@pytest.mark.slow
def test_the_documented_recovery_program_works_for_a_shared_scheduler_too(
    their_key: Pair, gate: Path, here: Path
) -> None:
    signature = '(recover_file, timeout=None, terminate_pending=False)'
    assert signature_of(dispy.recover_jobs) == signature
    with shared_scheduler(their_key) as options:
        options = options | {'recover_file': '_dispy_20160126112746'}
        killed(shared_source(here, gate, their_key, options), gate, 1)
        gate.touch()
        with program(sys.executable, '-c', DOCUMENTED.format(cwd=str(here))) as recovering:
            assert recovering.wait(LIMIT) == 0, recovering.log()
        lines = [f'Job result: {x}' for x in (4, None, 16, 25)]  # what waited there went on
        assert sorted(recovering.output().splitlines()) == sorted(lines)
    assert not any(here.iterdir())


@contextmanager
def shared_scheduler(pair: Pair, *more: object) -> Iterator[dict[str, Any]]:
    """Run a scheduler of the first of the nodes; what clusters are told of it."""
    with scheduler_at(pair, (free_port(), free_port()), *more) as (_, options):
        yield options


@contextmanager
def scheduler_at(
    pair: Pair, ports: tuple[int, int], *more: object
) -> Iterator[tuple[Program, dict[str, Any]]]:
    """Run it at these ports, perhaps with what one before it has put on record."""
    words = '-i', '127.0.7.1', '--scheduler_port', ports[0], '-p', ports[1]
    words += '-n', pair.addresses[0], '--node_port', pair.port, '--pulse_interval', 1
    with program(*SCHEDULER, *words, *more, ready='serving at') as scheduler:
        yield scheduler, {'scheduler_node': '127.0.7.1', 'scheduler_port': ports[0]}


def shared_source(here: Path, gate: Path, pair: Pair, options: dict[str, Any]) -> str:
    """Write the program with a cluster of the shared scheduler."""
    text = source(here, gate, pair.port, ['*'], options=options)
    return text.replace('JobCluster', 'SharedJobCluster')


@pytest.mark.row('V15', 'I13')
@pytest.mark.slow
def test_jobs_of_a_shared_scheduler_are_attached_to_and_those_that_run_are_returned_as_such(
    their_key: Pair, gate: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with shared_scheduler(their_key) as options:
        options = options | {'name': 'squares', 'recover_file': 'file'}
        killed(shared_source(here, gate, their_key, options), gate, 1)
        statuses = [job.status for job in dispy.fault_recover_jobs('file')]
        assert statuses == [DispyJob.Finished] * 2 + [DispyJob.Running] * 4
        assert 'not been started' not in caplog.text  # the scheduler has them
        called: list[Any] = []
        with dispy.attach(Path('file'), callback=lambda job: called.append(job.id)) as cluster:
            assert isinstance(cluster, dispy.SharedJobCluster)
            gate.touch()
            assert cluster.wait(LIMIT), cluster.explain()
            attached = {job.id: job.result for job in cluster.attached_jobs}
            assert cluster.submit(9, str(gate))() == 81
        ended = [f'square of {x}' for x in range(2, 6)]
        assert [attached[each] for each in ended] == [4, None, 16, 25]
        assert sorted(map(str, called)) == sorted([*ended, '7'])
        assert len([*gate.parent.glob('gate.*')]) == 7  # each ran
    assert not any(here.iterdir())


@pytest.mark.row('I05')
@pytest.mark.slow
def test_jobs_of_a_shared_scheduler_that_are_not_reached_stay_for_a_later_try(
    their_key: Pair, gate: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ports = free_port(), free_port()
    with scheduler_at(their_key, ports) as (scheduler, options):
        options = options | {'recover_file': 'file'}
        killed(shared_source(here, gate, their_key, options), gate, 1)
        their_key.alpha.signal(signal.SIGSTOP)
        scheduler.kill()
        scheduler.wait()
    gate.touch()
    try:
        with scheduler_at(their_key, ports):
            jobs = dispy.recover_jobs('file')
            assert len(jobs) < 4 and 'stays for a later try' in caplog.text
            their_key.alpha.signal(signal.SIGCONT)
            check(jobs + dispy.recover_jobs('file'), 4)
    finally:
        their_key.alpha.signal(signal.SIGCONT)


@pytest.mark.row('V15', 'C23')
@pytest.mark.slow
def test_jobs_of_before_count_with_the_nodes_of_a_shared_scheduler_that_ran_them(
    their_key: Pair, gate: Path, here: Path
) -> None:
    with shared_scheduler(their_key) as options:
        options = options | {'name': 'squares', 'recover_file': 'file'}
        killed(shared_source(here, gate, their_key, options), gate, 1)
        gate.touch()
        with dispy.attach(Path('file')) as cluster:
            assert cluster.wait(LIMIT), cluster.explain()
            assert len(cluster.attached_jobs) == 6
            assert {job.ip_addr for job in cluster.attached_jobs} <= {*their_key.addresses}
            nodes = cluster.snapshot().nodes
            assert sum(node.jobs_done for node in nodes) == 6
            assert len({node.address for node in nodes}) == len(nodes)


@pytest.mark.row('I05', 'V15')
@pytest.mark.slow
def test_who_recovers_leaves_jobs_that_wait_at_a_shared_scheduler_to_who_attaches(
    their_key: Pair, gate: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = 200  # more than are handed out ahead of need
    with shared_scheduler(their_key) as options:
        options = options | {'name': 'squares', 'recover_file': 'file'}
        text = shared_source(here, gate, their_key, options).replace('range(6)', f'range({count})')
        killed(text, gate, 1)
        first = dispy.recover_jobs('file', timeout=1)
        assert [job.result for job in first] == [0, 1]
        assert 'had not been started: dispy_nb.attach(' in caplog.text
        gate.touch()
        collected = dispy.recover_jobs('file')
        with dispy.attach(Path('file')) as cluster:
            assert cluster.wait(LIMIT), cluster.explain()
            later = {job.id: job.result for job in cluster.attached_jobs}
        assert later
        assert {job.reason for job in collected if job.status == DispyJob.Cancelled} == set()
        results = {job.id: job.result for job in [*first, *collected]} | later
        assert results == {f'square of {x}': None if x == 3 else x * x for x in range(count)}
        assert len(first) + len(collected) + len(later) == count
    assert not any(here.iterdir())


@needs_openssl
@pytest.mark.row('I09')
@pytest.mark.slow
def test_certificates_are_not_needed_again_and_what_they_are_is_not_in_the_file(
    gate: Path, here: Path
) -> None:
    pair = self_signed(here.parent / 'pair.pem')
    with nodes('--certfile', pair) as (port, _):
        addresses = ['127.0.7.1', '127.0.7.2']
        options: dict[str, Any] = {'certfile': '../pair.pem', 'recover_file': 'file'}
        killed(source(here, gate, port, addresses, options=options), gate)
        key = b''.join(pair.read_bytes().partition(b'PRIVATE KEY-----')[2].split()[:2])
        assert key not in (here / 'file').read_bytes()
        moved = pair.rename(pair.with_name('elsewhere.pem'))
        with pytest.raises(CertificateError, match=r'pair\.pem'):
            dispy.recover_jobs('file')
        moved.rename(pair)
        gate.touch()
        check(dispy.recover_jobs('file'))
        assert not any(here.iterdir())
        for address in addresses:
            assert answers(address, port, certfile=str(pair))


@needs_openssl
@pytest.mark.row('I09', 'V15')
@pytest.mark.slow
def test_a_cluster_of_a_scheduler_with_a_certificate_is_attached_to_without_naming_it(
    their_key: Pair, gate: Path, here: Path
) -> None:
    pair = self_signed(here.parent / 'pair.pem')
    with shared_scheduler(their_key, '--cluster_certfile', pair) as options:
        options = options | {'name': 'squares', 'certfile': '../pair.pem'}
        killed(shared_source(here, gate, their_key, options), gate, 1)
        gate.touch()
        with dispy.attach('squares') as cluster:
            assert cluster.wait(LIMIT), cluster.explain()
            assert [job.result for job in cluster.attached_jobs] == [0, 1, 4, None, 16, 25]
    assert not any(here.iterdir())
