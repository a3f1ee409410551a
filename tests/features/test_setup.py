"""`setup`, cleanup functions, and Python objects as dependencies of clusters and of jobs."""

import functools
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob
from nodeserver.core.errors import UsageError
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import client_program, eventually, free_port, node_program

LIMIT = 15.0
ISOLATIONS = pytest.mark.parametrize('isolation', ['job', 'worker'])


def one_node(make: MakeCluster, computation: Callable[..., Any], **options: Any) -> Any:
    return make(computation, nodes=['127.0.0.2'], **options)


# what runs on the nodes


def fill(path, number=5):
    """Make globals, and leave a line for each call."""
    global table, owner
    import pathlib

    table, owner = [number] * 1000, os.getpid()
    with pathlib.Path(path).open('a') as file:
        file.write(f'setup {owner} {pathlib.Path.cwd()}\n')
    return 0


def empty(path):
    """Leave a line with what is there, and delete a global."""
    global table
    import pathlib

    with pathlib.Path(path).open('a') as file:
        here = sorted(entry.name for entry in pathlib.Path.cwd().iterdir())
        file.write(f'cleanup {os.getpid()} {len(table)} {here}\n')
    del table


def look():
    import pathlib

    pathlib.Path('left by a job').touch()
    found = sum(table) if 'table' in globals() else None
    return found, os.getppid(), str(pathlib.Path.cwd())


# setup and cleanup


@pytest.mark.row('F18', 'F20', 'F22')
@ISOLATIONS
def test_setup_runs_once_on_a_node_and_all_jobs_there_have_its_globals(
    make_cluster: MakeCluster, own_home: Path, isolation: str
) -> None:
    told = own_home / 'told'
    cluster = one_node(
        make_cluster, look, setup=functools.partial(fill, str(told), number=3), isolation=isolation
    )
    jobs = [cluster.submit() for _ in range(6)]
    assert {job()[0] for job in jobs} == {3000}
    (line,) = told.read_text().splitlines()
    assert {f'setup {parent} {directory}' for _, parent, directory in (j() for j in jobs)} == {line}


@pytest.mark.row('F17', 'F16', 'F23')
def test_cleanup_runs_where_setup_did_before_the_files_go(
    make_cluster: MakeCluster, own_home: Path, pair: Pair
) -> None:
    told = own_home / 'told'
    with one_node(
        make_cluster,
        look,
        setup=functools.partial(fill, str(told)),
        cleanup=functools.partial(empty, str(told)),
    ) as cluster:
        _, parent, directory = cluster.submit()()
        assert Path(directory).exists()
    setup, cleanup = told.read_text().splitlines()
    assert setup == f'setup {parent} {directory}'
    assert cleanup == f"cleanup {parent} 1000 ['left by a job']"
    assert not Path(directory).exists()
    with one_node(make_cluster, look) as after:  # another computation has none of it
        found, other_parent, _ = after.submit()()
    assert found is None
    assert other_parent != parent


def prepare():
    """Tell what is there when setup runs."""
    global seen
    import pathlib

    seen = double(4), Pair3().third, prepared_first, str(pathlib.Path.cwd())
    return 0


def double(number):
    return 2 * number


class Pair3:
    third = 3


def init_depends():
    global prepared_first
    prepared_first = 'yes'


def report():
    import pathlib

    return seen, str(pathlib.Path.cwd())


@pytest.mark.row('F19')
def test_dependencies_and_directory_are_there_when_setup_runs(make_cluster: MakeCluster) -> None:
    cluster = one_node(make_cluster, report, setup=prepare, depends=[double, Pair3, init_depends])
    seen, directory = cluster.submit()()
    assert seen == (8, 3, 'yes', directory)


def refusing(answer: Any) -> Callable[[], Any]:
    def setup():
        print('about to answer')
        return answer

    return setup


def raising():
    return 1 // 0


def dying():

    print('last words', flush=True)
    os._exit(4)


BAD_SETUPS = [
    (refusing(3), 'setup returned 3 instead of 0\nIt printed:\nabout to answer'),
    (refusing(None), 'setup returned None instead of 0: end it with "return 0"'),
    (refusing(True), 'setup returned True instead of 0: end it with "return 0"'),
    (raising, 'setup failed: Traceback'),
    (dying, 'by os._exit(4), or by exit in C code, while it ran setup\nIt printed:\nlast words'),
]


@pytest.mark.row('F21')
@pytest.mark.parametrize(('setup', 'text'), BAD_SETUPS)
def test_a_node_whose_setup_fails_gets_no_job_and_says_why(
    make_cluster: MakeCluster,
    caplog: pytest.LogCaptureFixture,
    setup: Callable[[], Any],
    text: str,
) -> None:
    cluster = one_node(make_cluster, look, setup=setup)
    job = cluster.submit()
    eventually(lambda: text in caplog.text)
    (record,) = [each for each in caplog.records if text in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert 'node alpha (127.0.0.2) cannot run look: ' in record.getMessage()
    assert text in cluster.explain()
    assert job.status == DispyJob.Created
    assert cluster.close(timeout=0, terminate=True)
    assert job.status == DispyJob.Cancelled


@pytest.mark.parametrize('answer', [0, 1, 2])
def test_the_three_answers_of_upstream_are_all_well(make_cluster: MakeCluster, answer: int) -> None:
    cluster = one_node(make_cluster, len, setup=refusing(answer))
    assert cluster.submit('abc')() == 3


def hang(path):
    import pathlib
    import time

    pathlib.Path(path).touch()
    time.sleep(600)


def test_a_setup_that_hangs_does_not_hold_up_the_end_nor_the_node(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    started = own_home / 'started'
    cluster = one_node(make_cluster, look, setup=functools.partial(hang, str(started)))
    job = cluster.submit()
    eventually(started.exists)
    began = time.monotonic()
    assert cluster.close(timeout=0, terminate=True)
    assert time.monotonic() - began < 3
    assert job.status == DispyJob.Cancelled
    assert one_node(make_cluster, len).submit('abc')() == 3


def killed():

    print('last words', flush=True)
    os.kill(os.getpid(), 9)


BAD_CLEANUPS = [
    (raising, 'look on node alpha (127.0.0.2): cleanup failed: Traceback'),
    (raising, 'ZeroDivisionError'),
    (dying, 'by os._exit(4), or by exit in C code, while it ran cleanup\nIt printed:\nlast words'),
    (killed, 'SIGKILL'),
]


@pytest.mark.parametrize(('cleanup', 'text'), BAD_CLEANUPS)
def test_the_failure_of_a_cleanup_is_told(
    make_cluster: MakeCluster,
    caplog: pytest.LogCaptureFixture,
    cleanup: Callable[[], Any],
    text: str,
) -> None:
    with one_node(make_cluster, look, cleanup=cleanup) as cluster:
        directory = Path(cluster.submit()()[2])
    assert text in caplog.text
    assert not directory.exists()


@pytest.mark.slow
def test_a_cleanup_that_takes_too_long_is_ended_and_told(
    make_cluster: MakeCluster, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cleanup = functools.partial(hang, str(own_home / 'started'))
    with one_node(make_cluster, look, cleanup=cleanup) as cluster:
        directory = Path(cluster.submit()()[2])
    assert 'cleanup was ended, as it took longer than 9 s' in caplog.text
    assert not directory.exists()


def test_a_program_has_setup_and_cleanup_too(make_cluster: MakeCluster, own_home: Path) -> None:
    program = own_home / 'program'
    program.write_text('#!/bin/sh\necho "$1"\n')
    program.chmod(0o755)
    told = own_home / 'told'
    with one_node(
        make_cluster,
        str(program),
        setup=functools.partial(fill, str(told)),
        cleanup=functools.partial(empty, str(told)),
    ) as cluster:
        job = cluster.submit('spoken')
        assert job() == 0
        assert job.stdout == b'spoken\n' or job.stdout == 'spoken\n'
    assert told.read_text().splitlines()[1].endswith("['program']")


# dependencies


class Account:
    """A class whose methods use what `setup` has made."""

    def __init__(self, sum_: int) -> None:
        self.sum = sum_

    def with_interest(self) -> int:
        return self.sum * rate


class Customer:
    name = 'somebody'


rate = 1


def set_rate():
    global rate
    rate = 7
    return 0


def open_account(account):
    kind = globals()['Customer']
    return isinstance(account, Account), account.with_interest(), Account(double(5)), kind.__name__


@pytest.mark.row('F03', 'F04', 'F09')
@ISOLATIONS
def test_functions_and_classes_are_found_by_name_and_keep_their_identity(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = one_node(
        make_cluster,
        open_account,
        setup=set_rate,
        depends=[double, Account, Customer()],
        isolation=isolation,
    )
    for _ in range(3):
        is_one, interest, made, name = cluster.submit(Account(100))()
        assert (is_one, interest, name) == (True, 700, 'Customer')
        assert isinstance(made, Account)
        assert (made.sum, made.with_interest()) == (10, 10)  # the rate here is 1


@pytest.mark.row('F05', 'F10')
def test_all_dependencies_are_there_for_each_job_on_each_node(make_cluster: MakeCluster) -> None:
    def use() -> tuple[str, int, str]:
        found = globals()
        return found['Customer'].name, found['double'](2), dispy_node_name  # type: ignore[name-defined]  # noqa: F821

    with make_cluster(use, depends=[Customer(), functools.partial(double, 1)]) as cluster:
        cluster.wait_for_nodes(2, LIMIT)
        jobs = [cluster.submit_node(node, *()) for node in ('alpha', 'beta') for _ in range(3)]
        found = [job() for job in jobs]
    assert found == [('somebody', 4, name) for name in ('alpha', 'beta') for _ in range(3)]


SCRIPT = """
import dispy_nb as dispy

class Point:
    def __init__(self, x):
        self.x = x

    def moved(self):
        return Point(self.x + step)

def setup():
    global step
    step = 10
    return 0

def move(point):
    assert isinstance(point, Point), type(point)
    return point.moved()

options = {'nodes': [('127.0.0.6', PORT)], 'ip_addr': '127.0.0.1', 'port': 0}
for isolation in ('job', 'worker'):
    cluster = dispy.JobCluster(move, depends=[Point], setup=setup, isolation=isolation, **options)
    for job in [cluster.submit(Point(number)) for number in range(5)]:
        assert isinstance(job(), Point), job.exception
        assert job().x >= 10
    step = 1
    assert job().moved().x == 15
    cluster.close()
"""


@pytest.mark.row('F09')
def test_classes_of_a_script_travel_both_ways() -> None:
    port = free_port()
    with node_program('-i', '127.0.0.6', '-p', port, '-c', 1):
        client_program(SCRIPT.replace('PORT', str(port)))


# dependencies of one job


def late():
    return 'late', rate


def call_late(**given):
    if 'late' in globals():
        return globals()['late'](), rate, given
    return None, rate, given


@pytest.mark.row('F12')
@ISOLATIONS
def test_what_one_job_depends_on_is_no_argument_and_gone_for_the_next(
    make_cluster: MakeCluster, isolation: str
) -> None:
    cluster = one_node(make_cluster, call_late, setup=set_rate, isolation=isolation)
    with_it = [cluster.submit(n=n, dispy_job_depends=[late]) for n in range(2)]
    without = cluster.submit(n=2)
    again = cluster.options(priority=-1).submit(n=3, dispy_job_depends=[late, Customer])
    pinned = cluster.submit_node('127.0.0.2', dispy_job_depends=[late])
    # a late function carries the client's globals, which must not undo what `setup` did
    assert [job() for job in with_it] == [(('late', 7), 7, {'n': n}) for n in range(2)]
    assert without() == (None, 7, {'n': 2})
    assert again() == (('late', 7), 7, {'n': 3})
    assert pinned() == (('late', 7), 7, {})


# what is wrong


def test_wrong_dependencies_of_a_job_are_named(make_cluster: MakeCluster, own_home: Path) -> None:
    cluster = one_node(make_cluster, double)
    with pytest.raises(UsageError, match=r'dispy_job_depends\[0\] must be .*, not 4'):
        cluster.submit(1, dispy_job_depends=[4])
    with pytest.raises(dispy.PicklingFailed, match=r'dispy_job_depends\[0\]: global variable'):
        cluster.submit(1, dispy_job_depends=[uses_lock])
    assert cluster.submit(1)() == 2


lock = __import__('threading').Lock()


def uses_lock():
    return lock


def test_default_lists_are_not_changed(make_cluster: MakeCluster) -> None:
    given = [double]
    one_node(make_cluster, look, depends=given).submit()()
    assert given == [double]


# the manual

MANUAL = Path(__file__).resolve().parents[2] / 'docs' / 'setup.md'
EXAMPLES = re.findall(r'```python\n(.*?)```\s+```text\n(.*?)```', MANUAL.read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(3))
def test_examples_of_the_manual_print_what_it_says(number: int) -> None:
    source, wanted = EXAMPLES[number]
    source = source.replace('nodes=local.nodes', "nodes=local.nodes, ip_addr='127.0.0.1'")
    done = client_program(source, timeout=45)
    assert (done.stdout, done.stderr) == (wanted, '')
