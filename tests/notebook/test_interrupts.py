"""Interrupts at odd moments, and the end of a kernel: what is said of jobs is true (V14, V02)."""

import time
from collections.abc import Iterator

import psutil
import pytest

from tests.notebook.kernel import Kernel, running_kernel

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

START = """
    import asyncio, pathlib, time
    import dispy_nb as dispy

    def hold(gate):
        while not pathlib.Path(gate).exists():
            time.sleep(0.02)

    nodes = dispy.LocalNodes(1, cpus=2)
    options = {'ip_addr': '127.0.0.1', 'port': 0}
"""
CLUSTER = 'cluster = dispy.JobCluster(hold, nodes=nodes.nodes, **options)'


@pytest.fixture(scope='module')
def started(loop_of_the_jupyter_client: None, shared_home: object) -> Iterator[Kernel]:
    with running_kernel() as kernel:
        kernel.run(START)
        yield kernel
        kernel.run('nodes.close()')


@pytest.fixture
def kernel(started: Kernel) -> Iterator[Kernel]:
    started.text['stdout'] = started.text['stderr'] = ''
    started.run(CLUSTER)
    yield started
    started.run('cluster.close(timeout=0, terminate=True)')


def interrupted(kernel: Kernel, cell: str) -> str:
    """Interrupt a cell once it runs, and answer what it has said."""
    kernel.start(cell.replace('# now', 'print("runs", flush=True)'))
    kernel.hear_until(lambda: 'runs' in kernel.text['stdout'])
    kernel.hear_for(0.3)
    kernel.interrupt()
    return kernel.text['stderr']


@pytest.mark.row('V14')
def test_a_timeout_of_the_users_is_no_interrupt(kernel: Kernel):
    kernel.run("""
        try:
            async with asyncio.timeout(0.2):
                await cluster.submit('/never')
        except TimeoutError:
            print('timeout')
    """)
    assert kernel.text == {'stdout': 'timeout\n', 'stderr': ''}


@pytest.mark.row('V14')
def test_jobs_that_are_awaited_together_are_told_of_once(kernel: Kernel):
    cell = '# now\nawait asyncio.gather(*[cluster.submit("/never") for _ in "abc"])'
    said = interrupted(kernel, cell)
    assert said.startswith('interrupted: only the waiting has ended, 3 jobs go on. ')
    assert said.count('interrupted') == 1


@pytest.mark.row('V14')
def test_calls_of_an_iteration_are_cancelled_and_that_is_said(kernel: Kernel):
    said = interrupted(kernel, '# now\nfor value in cluster.imap(["/never"] * 9): pass')
    assert said == 'interrupted: calls of imap() that had not ended were cancelled\n'
    kernel.run('assert cluster.wait(5)')


@pytest.mark.row('V14')
def test_a_block_that_is_left_cancels_its_jobs_and_says_so_alone(kernel: Kernel):
    cell = """
with dispy.JobCluster(hold, name='within', nodes=nodes.nodes, **options) as within:
    jobs = [within.submit('/never') for _ in 'abc']
    # now
    within.wait()
"""
    assert interrupted(kernel, cell) == (
        'interrupted: the `with` block has ended, so cluster within is closed; '
        '3 pending jobs were cancelled\n'
    )


@pytest.mark.row('V14')
def test_nodes_that_end_with_their_block_cancel_jobs_and_say_so(kernel: Kernel):
    cell = """
with dispy.start_nodes(1, cpus=1) as own:
    with dispy.JobCluster(hold, name='within', nodes=own.nodes, **options) as within:
        job = within.submit('/never')
        # now
"""
    said = interrupted(kernel, cell)
    assert said.endswith('cluster within is closed; 1 pending job was cancelled\n')


@pytest.mark.row('V02')
@pytest.mark.parametrize('use', ['job = cluster.submit("/never")', 'cluster.submit("/dev/null")()'])
def test_the_end_of_a_kernel_waits_neither_for_jobs_nor_for_callbacks(
    shared_home: object, use: str
):
    with running_kernel() as kernel:
        kernel.run(START)
        kernel.run("""
            def never(job):
                print('called', flush=True)
                while True:
                    time.sleep(1)

            cluster = dispy.JobCluster(hold, callback=never, nodes=nodes.nodes, **options)
        """)
        kernel.run(use)
        kernel.text['stdout'] = ''
        kernel.run('time.sleep(0.3); print(*nodes.pids)')
        servers = [int(word) for word in kernel.text['stdout'].split() if word.isdigit()]
        began = time.monotonic()
    assert time.monotonic() - began < 2.0
    assert not any(map(psutil.pid_exists, servers))
