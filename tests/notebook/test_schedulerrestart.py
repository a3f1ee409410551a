"""The widget of a cluster whose shared scheduler is killed and started again."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.features.test_schedulerrestart import Place
from tests.notebook.kernel import running_kernel
from tests.notebook.widget import Shown
from tests.support.programs import eventually, free_port, node_program

MAKE = """
import time
from pathlib import Path
import dispy_nb

def noted(number):
    with Path({home!r}, f'begun-{{number}}').open('a') as file:
        file.write('x')
    while not Path({home!r}, 'gate').exists():
        time.sleep(0.01)
    return number

cluster = dispy_nb.SharedJobCluster(
    noted, ['127.0.8.1'], scheduler_node='127.0.0.1', scheduler_port={port}, port=0,
    ip_addr='127.0.0.1', node_port={node_port}, depends=[time, Path],
)
jobs = [cluster.submit(number) for number in range(8)]
cluster
"""


@pytest.mark.row('V07', 'Z16')
@pytest.mark.slow
def test_the_widget_goes_on_over_a_restart_of_the_scheduler(
    loop_of_the_jupyter_client: None, own_home: Path
) -> None:
    place, node_port, gate = Place(own_home), free_port(), own_home / 'gate'
    with ExitStack() as stack:
        stack.enter_context(node_program('-i', '127.0.8.1', '-p', node_port, '-c', 1))
        first = stack.enter_context(place.scheduler())
        kernel = stack.enter_context(running_kernel())
        words = {'home': str(own_home), 'port': place.port, 'node_port': node_port}
        kernel.run(MAKE.format(**words))
        widget = Shown(kernel)
        widget.hear_figures(created=8, running=1, finished=0)
        first.kill()
        first.wait()
        gate.touch()
        eventually(lambda: (own_home / 'begun-0').exists())
        kernel.hear_until(lambda: 'scheduler' in widget.figures['notice'])
        stack.enter_context(place.scheduler())
        widget.hear_figures(created=8, running=0, waiting=0, finished=8, failed=0)
        kernel.hear_until(lambda: not widget.figures['notice'])
        kernel.run('cluster.close()')
        assert not kernel.errors
    assert [Path(own_home, f'begun-{n}').read_text() for n in range(8)] == ['x'] * 8
