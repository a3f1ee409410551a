"""A cluster in a notebook is shown, moves by itself, and ends as a picture that can be saved."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernel import WIDGET, Kernel, only_display, quiet_kernel, running_kernel
from tests.notebook.widget import END, START, Shown

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with quiet_kernel(START, END) as kernel:
        yield kernel


@pytest.mark.row('V07', 'V13', 'V17')
def test_bar_moves_by_itself_after_its_cell_has_ended(kernel: Kernel, tmp_path: Path):
    gates = [tmp_path / f'gate-{number}' for number in range(5)]
    submits = [f'cluster.submit({str(gate)!r}, fail={n == 4})' for n, gate in enumerate(gates)]
    kernel.run(f'jobs = [{", ".join(submits)}]\ncluster')
    assert {WIDGET, 'text/html', 'text/plain'} <= set(only_display(kernel))
    widget = Shown(kernel)

    # no cell runs from here on
    widget.hear_figures(name='hold', created=5, running=2, waiting=3, finished=0)
    gates[0].touch()
    widget.hear_figures(running=2, waiting=2, finished=1, failed=0, cancelled=0)
    assert widget.figures['rate'].endswith(' jobs/s')
    assert widget.figures['elapsed'].startswith('0:')
    kernel.hear_until(
        lambda: [row['name'] for row in widget.nodes['rows']] == ['local-1', 'local-2']
    )
    kernel.hear_until(lambda: sum(row['jobs'] for row in widget.nodes['rows']) == 1)

    for gate in gates[1:]:
        gate.touch()
    widget.hear_figures(finished=4, failed=1, running=0, waiting=0)
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    picture = only_display(kernel)
    for text in picture['text/html'], picture['text/plain']:
        assert '5 created, 0 waiting, 0 running, 4 finished, 1 failed, 0 cancelled' in text
        assert 'AssertionError: on purpose' in text
        assert 'local-1' in text


def test_picture_comes_alive_again_with_new_jobs(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    kernel.run('cluster')
    assert WIDGET in only_display(kernel)
    gate.touch()
    kernel.run(f'cluster.submit({str(gate)!r}); cluster.wait()')
    # the end of the cell is the end of the jobs: nothing more needs to happen
    assert WIDGET not in only_display(kernel)
    assert '1 created, 0 waiting, 0 running, 1 finished' in only_display(kernel)['text/plain']
    updates = len(kernel.updates)
    kernel.run('pass')  # what was saved is not saved again by each cell
    assert len(kernel.updates) == updates
    gate.unlink()
    kernel.run(f'cluster.submit({str(gate)!r});')
    kernel.hear_until(lambda: WIDGET in only_display(kernel))
    Shown(kernel).hear_figures(created=2)
    gate.touch()
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    assert '2 finished' in only_display(kernel)['text/html']


@pytest.mark.row('V13')
def test_two_cells_show_one_widget_and_the_same_picture(kernel: Kernel, tmp_path: Path):
    kernel.run('cluster')
    kernel.run('display(cluster)')
    first, second = kernel.displays.values()
    assert first[WIDGET] == second[WIDGET]
    gate = tmp_path / 'gate'
    gate.touch()
    kernel.run(f'cluster.submit({str(gate)!r}); cluster.close(); cluster')
    first, second, third = kernel.displays.values()
    assert first == second == third
    assert WIDGET not in first
    assert '1 finished' in first['text/plain']


def test_jobs_that_wait_say_why(kernel: Kernel):
    kernel.run("""
        quiet = {'ip_addr': '127.0.0.1', 'port': 0, 'loglevel': dispy.logger.CRITICAL}
        lonely = dispy.JobCluster(hold, nodes=[('127.0.0.1', 9)], **quiet)
        lonely.submit('nowhere')
        lonely
    """)
    widget = Shown(kernel)
    kernel.hear_until(lambda: 'no node can be used' in widget.figures['notice'])
    kernel.run('lonely.close(timeout=0, terminate=True)')
    assert '1 cancelled' in only_display(kernel)['text/plain']


def test_a_cell_that_runs_again_shows_the_cluster_in_its_new_output_only(kernel: Kernel):
    again = """
        from dispy_nb.notebook.livedisplay import Places

        class Cell:
            def __init__(self, cell, run):
                self.parent = {'metadata': {'cellId': cell}, 'header': {'msg_id': run}}
                self.display_pub = self

            def get_parent(self):
                return self.parent

            def publish(self, bundle, transient, update):
                ids.append(transient['display_id'])

        ids = []
        places = Places(Cell('a', '1'))
        places.add({}), places.add({})
        places._shell = Cell('b', '2')
        places.add({})
        places._shell = Cell('a', '3')
        places.add({})
        first, second, other, third = ids
        places.update({})
        print(len(set(ids)), ids[4:] == [other, third])
    """
    kernel.run(again)
    assert kernel.text['stdout'] == '4 True\n'


@pytest.mark.row('V07')
def test_a_display_takes_no_time_that_is_noticed(kernel: Kernel):
    kernel.run("""
        import time
        taken = []
        for again in range(4):
            begin = time.perf_counter()
            display(cluster)
            taken.append(time.perf_counter() - begin)
        print(taken[0] < 0.3 * 4, min(taken[1:]) < 0.05)  # a busy machine may be slower
    """)
    assert kernel.text['stdout'] == 'True True\n'


@pytest.mark.row('V20')
@pytest.mark.parametrize('package', ['ipywidgets', 'anywidget'])
def test_without_packages_for_widgets_one_line_says_what_to_install(tmp_path: Path, package: str):
    gate = tmp_path / 'gate'
    with running_kernel() as kernel:
        kernel.run(f'import sys; sys.modules[{package!r}] = None')
        kernel.run(START)
        kernel.run(f'job = cluster.submit({str(gate)!r})\ncluster')
        kernel.run('cluster')
        assert kernel.text['stdout'].count('pip install') == 1
        assert kernel.text['stdout'].count('\n') == 1
        assert package in kernel.text['stdout']
        assert all(WIDGET not in bundle for bundle in kernel.displays.values())
        # the text moves as well, if less often
        kernel.hear_until(
            lambda: all('local-1' in bundle['text/plain'] for bundle in kernel.displays.values())
        )
        gate.touch()
        kernel.hear_until(
            lambda: all('1 finished' in bundle['text/html'] for bundle in kernel.displays.values())
        )
        kernel.run(END)
        assert kernel.text['stderr'] == ''
