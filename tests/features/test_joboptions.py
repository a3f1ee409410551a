"""`cluster.options`: time limits that hold, further tries after failures, urgent jobs first."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob, JobFailed
from tests.features.conftest import MakeCluster
from tests.support.programs import eventually, free_port, node_program

pytestmark = pytest.mark.row('Z05')

LIMIT = 20.0
SOON = 5.0
DOOMED, STEADY = '127.0.6.1', '127.0.6.2'

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


# what runs on the nodes


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Several kinds of jobs in one cluster."""
    return function(*args)


def nap() -> None:
    print('napping', flush=True)
    time.sleep(60)


def spin() -> None:
    print('spinning', flush=True)
    while True:
        pass


def turn_a_deaf_ear(started: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('deaf', flush=True)
    Path(started).touch()
    while True:
        time.sleep(0.01)


def shrug_it_off(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            continue
    return 'at leisure'


def tell(path: str, number: int) -> int:
    with Path(path).open('a', encoding='ascii') as file:
        file.write(f'{number}\n')
    return number


def fail_twice(path: str) -> str:
    """Raise until this was called three times."""
    tell(path, os.getpid())
    tries = len(Path(path).read_text(encoding='ascii').split())
    if tries < 3:
        dispy_provisional_result(f'try {tries}')  # type: ignore[name-defined]  # noqa: F821
        raise ValueError(f'try {tries}')
    return f'try {tries}'


def always_fail(path: str) -> None:
    print('failing', flush=True)
    tell(path, 0)
    raise ValueError('as always')


def hold(gate: str) -> str:
    """Tell in a file of this process that it began, and run until the file `gate` is there."""
    Path(f'{gate}.{os.getpid()}').touch()
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return str(dispy_node_name)  # type: ignore[name-defined]  # noqa: F821


def fail_after(gate: str, log: str) -> None:
    hold(gate)
    time.sleep(0.25)  # jobs as long as this are not handed out ahead of a free cpu
    always_fail(log)


@pytest.fixture
def gate(own_home: Path) -> Path:
    """The file for which the jobs of `hold` wait."""
    return own_home / 'gate'


@pytest.fixture
def log(own_home: Path) -> Path:
    """Where jobs tell that they ran."""
    return own_home / 'log'


def begun(gate: Path) -> list[int]:
    return [int(path.suffix[1:]) for path in gate.parent.glob(f'{gate.name}.*')]


def told(log: Path) -> list[int]:
    return [int(word) for word in log.read_text(encoding='ascii').split()] if log.exists() else []


# timeout


@both
@pytest.mark.parametrize(('function', 'output'), [(nap, 'napping\n'), (spin, 'spinning\n')])
def test_a_job_over_its_time_is_ended_and_says_so(
    make_cluster: MakeCluster, isolation: str, function: Callable[[], None], output: str
) -> None:
    cluster = make_cluster(call, isolation=isolation)
    began = time.monotonic()
    job = cluster.options(timeout=0.5).submit(function)
    assert job.wait(LIMIT)
    assert 0.5 <= time.monotonic() - began < SOON
    assert (job.status, job.result) == (DispyJob.Terminated, None)
    assert job.reason == 'ran longer than its timeout of 0.5 s'
    first, *_, last = str(job.exception).splitlines()
    assert (first, last) == (job.reason, 'KeyboardInterrupt')  # and between them, where it was
    assert (job.stdout, job.attempts) == (output, 1)
    assert job.explain() == f'job 1: terminated: {job.reason}'


@pytest.mark.slow
@both
def test_a_job_deaf_to_signals_is_killed_and_the_next_ones_are_not_harmed(
    make_cluster: MakeCluster, isolation: str, gate: Path, log: Path
) -> None:
    cluster = make_cluster(call, isolation=isolation)
    # so short that the node puts several into a worker's pipe
    for _ in range(8 if isolation == 'worker' else 1):
        jobs = [cluster.submit(tell, str(log), 0) for _ in range(100)]
        assert cluster.wait(LIMIT)
    log.unlink()
    deaf = [cluster.options(timeout=1).submit(turn_a_deaf_ear, str(gate)) for _ in range(2)]
    jobs = [cluster.submit(tell, str(log), number) for number in range(200)]
    assert cluster.wait(LIMIT)
    for job in deaf:
        assert job.status == DispyJob.Terminated
        assert job.reason == 'ran longer than its timeout of 1 s'
        assert job.exception is not None
        assert job.exception.startswith(job.reason)
        assert job.stdout == 'deaf\n'
    assert [job() for job in jobs] == list(range(200))
    assert sorted(told(log)) == list(range(200))  # each ran once


@both
def test_a_job_that_shrugs_off_its_interrupt_has_run_too_long_all_the_same(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = make_cluster(shrug_it_off, isolation=isolation)
    late, early = (cluster.options(timeout=seconds).submit(0.8) for seconds in (0.3, 10))
    assert late() is None
    assert late.reason == late.exception == 'ran longer than its timeout of 0.3 s'
    assert (early(), early.exception, early.reason) == ('at leisure', None, '')


@both
def test_short_jobs_among_those_that_are_ended_all_run_once(
    make_cluster: MakeCluster, isolation: str, log: Path
) -> None:
    cluster = make_cluster(call, isolation=isolation)
    limited = cluster.options(timeout=0.05)
    jobs, doomed = [], []
    for number in range(60):
        jobs += [cluster.submit(tell, str(log), 2 * number + side) for side in (0, 1)]
        if number % 6 == 0:
            doomed.append(limited.submit(time.sleep, 60))
    assert cluster.wait(LIMIT), cluster.explain()
    assert [job() for job in jobs] == list(range(120))
    assert sorted(told(log)) == list(range(120))
    assert {job.reason for job in doomed} == {'ran longer than its timeout of 0.05 s'}


@both
def test_the_time_that_a_job_waits_does_not_count(
    make_cluster: MakeCluster, isolation: str, gate: Path
) -> None:
    cluster = make_cluster(call, isolation=isolation)
    for _ in range(2):  # one for each cpu
        cluster.submit(hold, str(gate))
    eventually(lambda: len(begun(gate)) == 2)
    job = cluster.options(timeout=0.7).submit(len, 'four')
    submitted = time.monotonic()
    eventually(lambda: time.monotonic() - submitted > 1.2)
    gate.touch()
    assert job() == 4


# retries


@both
def test_a_job_that_fails_twice_and_then_succeeds_has_succeeded(
    make_cluster: MakeCluster, isolation: str, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, 'dispy_nb')
    calls: list[tuple[int, Any]] = []
    moves: list[int] = []

    def note(status: int, node: Any, job: DispyJob | None) -> None:
        if job is not None:
            moves.append(status)

    cluster = make_cluster(
        fail_twice,
        isolation=isolation,
        callback=lambda job: calls.append((job.status, job.result)),
        cluster_status=note,
        loglevel=logging.INFO,
    )
    job = cluster.options(retries=5).submit(str(log))
    assert (job(), job.status) == ('try 3', DispyJob.Finished)
    assert (job.attempts, job.reason, job.exception) == (3, '', None)
    assert cluster.wait(LIMIT)
    again, shown = DispyJob.Created, DispyJob.ProvisionalResult
    assert calls == [(shown, 'try 1'), (shown, 'try 2'), (DispyJob.Finished, 'try 3')]
    tries = [again, DispyJob.Running, shown] * 2
    assert moves == [*tries, again, DispyJob.Running, DispyJob.Finished]
    for attempt in (1, 2):
        words = f'job 1 is run again, attempt {attempt} failed: ValueError: try {attempt}'
        assert words in caplog.text


def test_when_every_try_fails_the_job_says_how_many_there_were(
    make_cluster: MakeCluster, log: Path
) -> None:
    ended: list[DispyJob] = []
    cluster = make_cluster(always_fail, callback=ended.append)
    job = cluster.options(retries=2).submit(str(log))
    once = cluster.submit(str(log))
    assert cluster.wait(LIMIT)
    assert (job.status, job.attempts, len(told(log))) == (DispyJob.Terminated, 3, 4)
    assert job.reason == 'failed 3 times; last: ValueError: as always'
    assert str(job.exception).endswith('\nValueError: as always')
    assert job.stdout == 'failing\n'
    assert (once.attempts, once.reason) == (1, '')
    assert sorted(view.attempts for view in ended) == [1, 3]


def test_a_job_over_its_time_is_tried_again(make_cluster: MakeCluster, log: Path) -> None:
    def slow_at_first(path: str) -> str:
        tell(path, 0)
        if len(told(Path(path))) == 1:
            time.sleep(60)
        return 'in time'

    cluster = make_cluster(slow_at_first)
    assert cluster.options(timeout=0.5, retries=1).submit(str(log))() == 'in time'
    never = cluster.options(timeout=0.2).options(retries=1)
    log.unlink()
    job = make_cluster(call).options(timeout=0.2, retries=1).submit(nap)
    assert job() is None
    assert job.reason == 'failed 2 times; last: ran longer than its timeout of 0.2 s'
    assert (never.timeout, never.retries) == (0.2, 1)


@both
def test_a_job_whose_process_is_killed_is_run_again(
    make_cluster: MakeCluster, isolation: str, gate: Path
) -> None:
    cluster = make_cluster(hold, isolation=isolation)
    job = cluster.options(retries=2).submit(str(gate))
    for count in (1, 2):
        eventually(lambda: len(begun(gate)) == count)  # noqa: B023 - called at once
        ((pid, _),) = [(pid, 0) for pid in begun(gate) if _is_alive(pid)]
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(begun(gate)) == 3)
    gate.touch()
    assert job() in ('alpha', 'beta')
    assert job.attempts == 3


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_that_waits_to_be_run_again_says_so_and_can_be_cancelled(
    make_cluster: MakeCluster, gate: Path, log: Path
) -> None:
    cluster = make_cluster(call)
    job = cluster.options(retries=3).submit(fail_after, str(gate), str(log))
    eventually(lambda: len(begun(gate)) == 1)
    ahead = [cluster.options(priority=1).submit(hold, f'{gate}2') for _ in range(2)]
    eventually(lambda: len(begun(Path(f'{gate}2'))) == 1)
    gate.touch()  # now it fails, and finds all cpus taken by more urgent ones
    eventually(lambda: job.status == DispyJob.Created)
    first, *_ = job.explain().splitlines()
    assert first == 'job 1: waiting for a cpu to be run again: ValueError: as always'
    assert (job.attempts, job.reason) == (1, 'ValueError: as always')
    assert cluster.cancel(job) == 0
    assert job.wait(SOON)
    assert (job.status, job.exception) == (DispyJob.Cancelled, 'Cancelled')
    assert job.reason == 'cancelled while it waited to be run again'
    Path(f'{gate}2').touch()
    assert cluster.wait(LIMIT)
    assert {done.status for done in ahead} == {DispyJob.Finished}
    assert told(log) == [0]


def test_a_job_cancelled_in_a_later_try_is_not_tried_again(
    make_cluster: MakeCluster, gate: Path
) -> None:
    cluster = make_cluster(hold)
    job = cluster.options(retries=9).submit(str(gate))
    eventually(lambda: len(begun(gate)) == 1)
    os.kill(begun(gate)[0], signal.SIGKILL)
    eventually(lambda: len(begun(gate)) == 2)
    assert cluster.cancel(job) == 0
    assert job.wait(SOON)
    assert (job.status, job.attempts, job.reason) == (DispyJob.Cancelled, 2, 'cancelled')
    assert cluster.wait(LIMIT)
    assert len(begun(gate)) == 2


# nodes that die


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    """Close at the end whatever was entered."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.leaves('files')  # a killed node can remove neither its directory nor its socket
def test_a_job_whose_node_is_killed_runs_elsewhere_if_it_has_retries(
    keep: ExitStack, gate: Path
) -> None:
    port = free_port()
    nodes = [
        keep.enter_context(node_program('-i', address, '-p', port, '-c', 1, '--name', name))
        for address, name in ((DOOMED, 'doomed'), (STEADY, 'steady'))
    ]
    cluster = keep.enter_context(
        dispy.JobCluster(hold, [DOOMED, STEADY], ip_addr='127.0.0.1', port=0, node_port=port)
    )
    eventually(lambda: len(cluster.snapshot().nodes) == 2)
    jobs = [cluster.options(retries=1).submit(str(gate)) for _ in range(2)]
    eventually(lambda: len(begun(gate)) == 2)
    lost, kept = sorted(jobs, key=lambda job: str(job.ip_addr))
    nodes[0].kill()
    eventually(lambda: lost.status == DispyJob.Created)
    assert lost.reason.startswith(f'node doomed ({DOOMED}) was lost: ')
    gate.touch()
    assert (lost(), kept()) == ('steady', 'steady')
    assert (lost.attempts, kept.attempts) == (2, 1)


# priority


def test_jobs_of_a_higher_priority_run_first_and_equals_as_they_came(
    make_cluster: MakeCluster, gate: Path, log: Path
) -> None:
    cluster = make_cluster(call, nodes=['127.0.0.2'])
    first = cluster.submit(hold, str(gate))
    eventually(lambda: len(begun(gate)) == 1)
    views = {level: cluster.options(priority=level) for level in (0, -5, 7, 1000)}
    expected: dict[int, list[int]] = {level: [] for level in sorted(views, reverse=True)}
    for number in range(40):
        level = (0, 7, -5, 0, 1000)[number % 5]
        expected[level].append(number)
        if number % 2:
            views[level].submit(tell, str(log), number)
        else:
            views[level].submit_node('127.0.0.2', tell, str(log), number)
    by_kind = [
        [number for number in numbers if number % 2 == kind]
        for numbers in expected.values()
        for kind in (0, 1)
    ]
    gate.touch()
    assert cluster.wait(LIMIT)
    assert first() == 'alpha'
    # within a priority, jobs for the node and jobs for any each keep their order
    order = told(log)
    places = [sorted(order.index(number) for number in numbers) for numbers in expected.values()]
    assert [place for level in places for place in level] == list(range(40))
    for numbers in by_kind:
        assert [number for number in order if number in numbers] == numbers


# what is given


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        ({'timeout': 0}, 'timeout must be a number of seconds above 0, or None .* not 0'),
        ({'timeout': -1.5}, 'not -1.5'),
        ({'timeout': float('inf')}, 'not inf'),
        ({'timeout': float('nan')}, 'not nan'),
        ({'timeout': '2'}, "not '2'"),
        ({'timeout': True}, 'not True'),
        ({'retries': -1}, 'retries must be a whole number from 0 to 1000, not -1'),
        ({'retries': 1001}, 'not 1001'),
        ({'retries': 1.0}, 'not 1.0'),
        ({'retries': None}, 'not None'),
        ({'priority': 1001}, 'priority must be a whole number from -1000 to 1000, not 1001'),
        ({'priority': 'high'}, "not 'high'"),
    ],
)
def test_wrong_options_are_named_at_once(
    make_cluster: MakeCluster, wrong: dict[str, Any], words: str
) -> None:
    cluster = make_cluster(call)
    for view in (cluster, cluster.options(timeout=1)):
        with pytest.raises(dispy.UsageError, match=words):
            view.options(**wrong)


def test_options_of_a_view_change_only_what_is_given(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(call)
    view = cluster.options(timeout=2).options(retries=3, priority=-1).options(priority=4)
    assert (view.timeout, view.retries, view.priority) == (2.0, 3, 4)
    assert repr(view) == '<ClusterView of call: timeout=2.0, retries=3, priority=4>'
    freed = view.options(timeout=None, retries=0)
    assert (freed.timeout, freed.retries, freed.priority) == (None, 0, 4)
    assert (view.timeout, view.retries) == (2.0, 3)
    assert freed.cluster is cluster
    assert freed.submit(len, 'four')() == 4


@pytest.mark.row('Z05')
def test_a_view_maps_with_its_options(make_cluster: MakeCluster, gate: Path) -> None:
    cluster = make_cluster(time.sleep, isolation='worker')
    view = cluster.options(timeout=0.5, retries=1)
    assert view.map([0, 0, 0], chunksize=2) == [None] * 3
    assert list(view.imap([0, 0])) == [None] * 2
    failed, done = view.map([60, 0], chunksize=1, errors='return')
    assert (done, type(failed)) == (None, JobFailed)
    assert 'ran longer than its timeout of 0.5 s' in str(failed)
