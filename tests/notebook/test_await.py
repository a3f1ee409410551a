"""Cells with `await` and `async for` at the top: what a notebook's event loop makes possible."""

import textwrap

import nbclient
import nbformat
import pytest
from traitlets.config import Config

from tests.notebook.kernel import own_sockets

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

CELLS = [
    """
    import dispy_nb as dispy

    def double(value):
        import time
        time.sleep(0.05)
        return 2 * value

    local = dispy.LocalNodes(1, cpus=2)
    cluster = dispy.JobCluster(double, nodes=local.nodes, ip_addr='127.0.0.1')
    """,
    """
    print('await job:', await cluster.submit(21))
    """,
    """
    jobs = [cluster.submit(number) for number in range(10)]
    print(await cluster.wait_async(timeout=0), await cluster.wait_async(), await cluster)
    print([job.result for job in jobs])
    """,
    """
    for number in range(10):
        cluster.submit(number)
    completed = cluster.as_completed()
    results, left = [], []
    async for job in completed:
        results.append(job.result)
        left.append(len(completed))
    print(sorted(results), left)
    """,
    """
    import asyncio

    ticks = 0

    async def tick():
        global ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    beside = asyncio.create_task(tick())
    await asyncio.gather(*[cluster.submit(number) for number in range(10)])
    print('the loop went on:', ticks > 10)
    beside.cancel()
    """,
    """
    with dispy.Executor(nodes=local.nodes, ip_addr='127.0.0.1') as executor:
        print(await asyncio.get_running_loop().run_in_executor(executor, double, 4))
    cluster.close()
    local.close()
    """,
]


@pytest.mark.row('V22', 'Z03')
def test_cells_may_await_jobs_clusters_and_completions() -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    )
    nbclient.NotebookClient(
        notebook, timeout=50, store_widget_state=False, config=Config(KernelManager=own_sockets())
    ).execute()
    printed = [
        ''.join(output['text'] for output in cell.outputs if output.get('name') == 'stdout')
        for cell in notebook.cells
    ]
    doubled = [2 * number for number in range(10)]
    assert printed == [
        '',
        'await job: 42\n',
        f'False True True\n{doubled}\n',
        f'{doubled} {list(range(9, -1, -1))}\n',
        'the loop went on: True\n',
        '8\n',
    ]
