"""Programs as dispy's documents print them run, with the smallest corrections (X22)."""

import platform
import re
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.support.netns import Lan
from tests.support.programs import client_program, node_program

PROGRAMS = Path(__file__).with_name('programs')
IMPORTS = ('import random, dispy\n', 'import random, dispy_nb as dispy\n')
RANGE = ('xrange(', 'range(')

TELL_JOBS = """\
    for job in jobs:
        print(job.id, job.status.name, job.result)
"""
# a test has no time for the sleeps of the original, nor for a search by luck
SHORT = ('time.sleep(0.1)', 'time.sleep(0.01)')
FOUND = ('random.uniform(0, 1)', 'random.uniform(0, 0.004)')

LOST_LINES = [
    (
        'if j.status in [dispy.DispyJob.Created, dispy.DispyJob.Running,\n',
        'if j.status in [dispy.DispyJob.Created, dispy.DispyJob.Running,\n'
        '                                dispy.DispyJob.ProvisionalResult]:\n'
        '                    cluster.cancel(j)\n',
    ),
    (
        '        job.id = n\n',
        '            continue\n'
        '        job.id = n\n'
        '        jobs.append(job)\n'
        '    cluster.wait()\n'
        '    cluster.print_status()\n'
        '    cluster.close()\n',
    ),
]


def corrected(name: str, *changes: tuple[str, str]) -> str:
    """Read a program as it is printed, and change what stands in it once."""
    source = (PROGRAMS / name).read_text()
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def run(source: str) -> list[str]:
    """Run a program against two nodes of default ports, on a host that has nothing else."""
    with Lan(1) as lan, ExitStack() as stack:
        within = lan[0].command([])
        for number in (2, 3):
            options = ('-i', f'127.0.0.{number}', '-c', 1)
            stack.enter_context(node_program(*options, within=within))
        done = client_program(source, within=within)
    assert done.stderr == ''
    return done.stdout.splitlines()


def found(lines: list[str]) -> list[float]:
    """Return the values that the callback has printed."""
    return [float(line.removeprefix('h0 computed: ')) for line in lines if 'computed' in line]


@pytest.mark.row('U03')
@pytest.mark.netns
@pytest.mark.slow
def test_the_program_with_a_threshold_runs() -> None:
    lines = run(corrected('threshold.txt', IMPORTS, RANGE, SHORT) + TELL_JOBS)
    told = [line.split() for line in lines[-4:]]
    assert [words[0] for words in told] == ['0', '1', '2', '3']
    statuses = {words[1] for words in told}
    assert statuses <= ({'FINISHED', 'CANCELLED'} if found(lines) else {'FINISHED'})
    assert all(value < 0.005 for value in found(lines))
    assert any('Total job time' in line for line in lines)


@pytest.mark.row('U03')
@pytest.mark.netns
@pytest.mark.slow
def test_once_a_value_below_the_limit_is_found_the_remaining_jobs_are_cancelled() -> None:
    lines = run(corrected('threshold.txt', IMPORTS, RANGE, SHORT, FOUND) + TELL_JOBS)
    assert found(lines)
    assert all(value < 0.005 for value in found(lines))
    # a cancelled job has no result
    assert lines[-4:] == [f'{number} CANCELLED None' for number in range(4)]


@pytest.mark.row('U04')
@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize('changes', [(), (FOUND,)])
def test_the_program_with_the_best_value_so_far_runs(changes: tuple[tuple[str, str], ...]) -> None:
    lines = run(corrected('best_so_far.txt', IMPORTS, RANGE, *LOST_LINES, *changes) + TELL_JOBS)
    assert all(value < 0.005 for value in found(lines))
    if changes:
        assert found(lines)
    for number, line in enumerate(lines[-4:]):
        done = re.fullmatch(rf"{number} FINISHED \('h0', (\S+)\)", line)
        assert done or (found(lines) and line == f'{number} CANCELLED None'), line
        assert not done or float(done[1]) <= 1
    assert any('Total job time' in line for line in lines)


BEFORE_FILTER = """\
import re
import dispy_nb as dispy

def compute(n):
    return n * n

"""
# what became of the node, and of a job
AFTER_FILTER = """
import time
job = cluster.submit(12)
while not (job.status == job.Finished or 'allocate() returned 0' in cluster.explain()):
    time.sleep(0.01)
print(job.result)
print(cluster.explain())
cluster.close(timeout=0, terminate=True)
"""
MOVED_OUT = ("           return 0 # don't", "       return 0 # don't")
CLOSED_QUOTE = ("FilterNodeAllocate('*)", "FilterNodeAllocate('*')")
NO_DISK = ('(100 * GB)', '0')
TOO_MUCH_DISK = ('(100 * GB)', '(10**9 * GB)')


@pytest.mark.row('U06')
@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize('changes', [(), (NO_DISK,), (TOO_MUCH_DISK,)])
def test_the_class_that_filters_nodes_uses_those_that_have_what_it_wants(
    changes: tuple[tuple[str, str], ...], own_home: Path
) -> None:
    source = corrected('filter_nodes.txt', MOVED_OUT, CLOSED_QUOTE, *changes)
    gigabyte = 1024**3
    wanted = {(): 100 * gigabyte, (NO_DISK,): 0, (TOO_MUCH_DISK,): 10**9 * gigabyte}[changes]
    fits = (
        psutil.disk_usage(str(own_home)).free > wanted
        and psutil.virtual_memory().available > gigabyte
        and bool(re.match('Linux.*x86_64', platform.platform()))
    )
    lines = run(BEFORE_FILTER + source + AFTER_FILTER)
    assert lines[0] == ('144' if fits else 'None')
