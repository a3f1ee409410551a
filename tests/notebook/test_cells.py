"""What happens in threads appears in the cell that it belongs to, and speaks of cells."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernel import Kernel, running_kernel

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

START = """
    import pathlib, threading, time
    import dispy_nb as dispy

    nodes = dispy.LocalNodes(1, cpus=2)
    options = {'nodes': nodes.nodes, 'ip_addr': '127.0.0.1', 'port': 0}
"""
HOLD = """
    def hold(gate, number=0):
        import pathlib, time
        for count in range(number):
            dispy_provisional_result(count)
        while not pathlib.Path(gate).exists():
            time.sleep(0.02)
        return number
"""
CALLBACK = """
    def tell(job):
        if job.result == 13:
            raise ValueError('unlucky')
        print(f'job {job.id}: {job.status.name} {job.result}', flush=True)

    cluster = dispy.JobCluster(hold, callback=tell, **options)
"""
END = """
    for each in list(dispy.closing._kept.values()):
        each.close(timeout=0, terminate=True)
    nodes.close()
"""
OLDER = Path(sys.prefix) / 'ipykernel6'  # see Makefile


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with running_kernel() as kernel:
        kernel.run(START)
        yield kernel
        kernel.run(END)


@pytest.fixture(params=['ipykernel 7', 'ipykernel 6'])
def any_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    if request.param == 'ipykernel 6':
        assert (OLDER / 'ipykernel').is_dir(), 'make .venv/.ipykernel6'
        monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(OLDER), str(Path.cwd())]))
    with running_kernel() as kernel:
        kernel.run('import ipykernel; print("ipykernel", ipykernel.version_info[0])')
        assert kernel.text['stdout'] == request.param + '\n'
        kernel.run(START)
        yield kernel
        kernel.run(END)


@pytest.mark.row('V10', 'G02', 'G04')
def test_a_callback_prints_into_the_cell_of_its_cluster(any_kernel: Kernel, tmp_path: Path):
    kernel, gate = any_kernel, tmp_path / 'gate'
    kernel.run(HOLD)
    creating = kernel.run(CALLBACK)
    submitting = kernel.run(f'job = cluster.submit({str(gate)!r}, 2)')
    kernel.hear_until(lambda: 'PROVISIONAL 1' in kernel.text_of.get(creating, ''))
    gate.touch()
    other = kernel.run('cluster.wait(); print("waited")')
    kernel.hear_until(lambda: 'FINISHED' in kernel.text_of[creating])
    # each provisional result once, and the end once, in order
    assert kernel.text_of[creating].splitlines() == [
        'job 1: PROVISIONAL 0',
        'job 1: PROVISIONAL 1',
        'job 1: FINISHED 2',
    ]
    assert kernel.text_of[other] == 'waited\n'
    assert submitting not in kernel.text_of


@pytest.mark.row('V10')
def test_a_callback_prints_into_the_cell_that_last_showed_its_cluster(
    kernel: Kernel, tmp_path: Path
):
    gate = tmp_path / 'gate'
    kernel.run(HOLD)
    creating = kernel.run(CALLBACK)
    showing = kernel.run('cluster')
    gate.touch()
    other = kernel.run(f'cluster.submit({str(gate)!r}); cluster.wait()')
    kernel.hear_until(lambda: 'FINISHED 0' in kernel.text_of.get(showing, ''))
    assert {creating, other}.isdisjoint(kernel.text_of)


@pytest.mark.row('V10')
def test_an_exception_in_a_callback_is_shown_in_that_cell_with_its_traceback(
    any_kernel: Kernel, tmp_path: Path
):
    kernel, gate = any_kernel, tmp_path / 'gate'
    kernel.run(HOLD)
    creating = kernel.run(CALLBACK)
    gate.touch()
    other = kernel.run(f'cluster.submit({str(gate)!r}, 13); cluster.wait()')
    kernel.hear_until(lambda: 'unlucky' in kernel.text_of.get(creating, ''))
    text = kernel.text_of[creating]
    assert 'tell raised' in text
    assert "raise ValueError('unlucky')" in text
    assert re.search(r'in tell\b', text)
    assert other not in kernel.text_of


def test_thousands_of_exceptions_in_callbacks_are_counted_not_shown(kernel: Kernel):
    kernel.run("""
        def fail(job):
            raise RuntimeError('each time')

        cluster = dispy.JobCluster(abs, callback=fail, isolation='worker', **options)
        jobs = [cluster.submit(number) for number in range(2000)]
        cluster.wait()
    """)
    assert kernel.text['stderr'].count('Traceback') == 5
    assert 'fail has raised 1000 times by now' in kernel.text['stderr']
    assert len(kernel.text['stderr']) < 10_000


@pytest.mark.row('V17')
def test_a_remote_failure_speaks_of_the_notebooks_cells(kernel: Kernel):
    kernel.run("""
        def divide(a, b):
            return a / b
    """)
    kernel.run("""
        def work(n):
            try:
                return divide(1, n)
            except ZeroDivisionError as error:
                raise ValueError(n) from error

        cluster = dispy.JobCluster(work, **options)
        job = cluster.submit(0)
        cluster.wait()
        print(job.exception)
    """)
    lines = kernel.text['stdout'].splitlines()
    assert lines == [
        'Traceback (most recent call last):',
        '  Cell In[3], line 3, in work',
        '    return divide(1, n)',
        '           ^^^^^^^^^^^^',
        '  Cell In[2], line 2, in divide',
        '    return a / b',
        'ZeroDivisionError: division by zero',
        '',
        'The above exception was the direct cause of the following exception:',
        '',
        'Traceback (most recent call last):',
        '  Cell In[3], line 5, in work',
        '    raise ValueError(n) from error',
        'ValueError: 0',
    ]
    kernel.text['stdout'] = ''
    kernel.run("""
        print(cluster.snapshot().failures[0].detail == job.exception)
        try:
            cluster.map([0])
        except ValueError as error:
            print('Cell In[3], line 3, in work' in str(error.__cause__))
    """)
    assert kernel.text['stdout'] == 'True\nTrue\n'


WHEN_WAITING = """
    import sys, traceback

    def when_waiting(mark):
        main = threading.main_thread().ident

        def watch():
            waits = {'wait_idle', '_wait', '_next_ended', 'select'}
            while waits.isdisjoint(
                frame.name for frame in traceback.extract_stack(sys._current_frames()[main])
            ):
                time.sleep(0.01)
            pathlib.Path(mark).touch()

        threading.Thread(target=watch).start()
"""
WAITS = ['cluster.wait()', 'job()', 'job.wait()', 'next(cluster.as_completed())', 'await job']
WAITS += ['await cluster', 'async for job in cluster.as_completed(): pass']


@pytest.mark.row('V14')
def test_an_interrupt_ends_the_waiting_and_leaves_jobs_and_cluster(kernel: Kernel, tmp_path: Path):
    gate, began = tmp_path / 'gate', tmp_path / 'began'
    kernel.run(HOLD)
    kernel.run(f"""
        cluster = dispy.JobCluster(hold, **options)
        job = cluster.submit({str(gate)!r})
    """)
    kernel.run(WHEN_WAITING)
    for number, wait in enumerate(WAITS):
        mark = began.with_suffix(f'.{number}')
        kernel.text['stderr'] = ''
        kernel.start(f'when_waiting({str(mark)!r})\n{wait}')
        kernel.hear_until(mark.exists)
        error = kernel.interrupt()
        assert 'KeyboardInterrupt' in error or 'CancelledError' in error, wait
        assert kernel.text['stderr'].startswith(
            'interrupted: only the waiting has ended, 1 job goes on. cluster.wait() waits again'
        ), wait
        assert '`%dispy cancel hold --all` cancels all' in kernel.text['stderr']
    kernel.run(f'{gate.name} = pathlib.Path({str(gate)!r}); gate.touch(); print(job(), cluster())')
    assert kernel.text['stdout'] == '0 True\n'  # the very job, to its end
    kernel.run('print(cluster.submit(gate, 3)())')
    assert kernel.text['stdout'].endswith('3\n')


@pytest.mark.row('V14')
def test_an_interrupted_map_cancels_its_calls_and_says_so(kernel: Kernel, tmp_path: Path):
    mark = tmp_path / 'began'
    kernel.run(HOLD)
    kernel.run('cluster = dispy.JobCluster(hold, **options)')
    kernel.run(WHEN_WAITING)
    kernel.start(f'when_waiting({str(mark)!r}); cluster.map(["nowhere"] * 3, chunksize=1)')
    kernel.hear_until(mark.exists)
    assert 'KeyboardInterrupt' in kernel.interrupt()
    told = 'interrupted: calls of map() that had not ended were cancelled\n'
    assert kernel.text['stderr'] == told
    kernel.run('cluster.wait(); print(cluster.snapshot().cancelled)')
    assert kernel.text['stdout'] == '3\n'


def test_a_variable_that_cannot_travel_is_named_with_its_type_and_cell(kernel: Kernel):
    kernel.run('table = {"key": [1, threading.Lock()]}')
    kernel.run("""
        def look(key):
            return table[key]

        try:
            dispy.JobCluster(look, **options)
        except dispy.PicklingFailed as error:
            print(error)
    """)
    assert kernel.text['stdout'].startswith("computation: global variable 'table' of look()")
    for words in ('type _thread.lock', 'cannot be pickled', '(table was set in Cell In[2])'):
        assert words in kernel.text['stdout']


def test_jobs_run_whatever_their_arguments_look_like(kernel: Kernel):
    kernel.run("""
        class Remote:
            def __getattr__(self, name):
                if name == 'shape':
                    raise OSError('no connection')
                raise AttributeError(name)

        def kind(value):
            return type(value).__name__

        cluster = dispy.JobCluster(kind, **options)
        odd = Remote(), 10**5000, [10**5000], b'x' * 10**7
        jobs = [cluster.submit(value) for value in odd]
        spans = cluster._shell.history.spans
        print(cluster.wait(20), [job.result for job in jobs], len(spans.items))
    """)
    assert kernel.text['stdout'] == "True ['Remote', 'int', 'list', 'bytes'] 4\n"


def test_the_time_left_is_that_of_the_jobs_since_the_pause(kernel: Kernel):
    kernel.run("""
        cluster = dispy.JobCluster(abs, isolation='worker', **options)
        cluster.map(range(100), chunksize=1)
        print(cluster._shell.history.throughput._ended)
    """)
    assert kernel.text['stdout'] == '0\n'
