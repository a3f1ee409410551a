"""A cluster in a notebook is shown, moves by itself, and ends as a picture that can be saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.kernel import WIDGET, Kernel, running_kernel

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

START = """
    import dispy_nb as dispy

    def hold(gate, fail=False):
        import pathlib, time
        end = time.monotonic() + 20
        while not pathlib.Path(gate).exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert not fail, 'on purpose'

    nodes = dispy.LocalNodes(2, cpus=1)
    cluster = dispy.JobCluster(hold, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0)
"""
END = 'cluster.close(timeout=0, terminate=True); nodes.close()'


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with running_kernel() as kernel:
        kernel.run(START)
        yield kernel
        kernel.run(END)
        assert kernel.text['stderr'] == ''


def only_display(kernel: Kernel) -> dict[str, Any]:
    (bundle,) = kernel.displays.values()
    return bundle


def words_of(kernel: Kernel, model_id: str) -> str:
    """Answer all text that a widget shows."""
    widgets = kernel.widgets_below(model_id)
    return ' '.join(str(state['value']) for state in widgets if 'value' in state)


def bar_of(kernel: Kernel, model_id: str) -> dict[str, Any]:
    (bar,) = (
        state
        for state in kernel.widgets_below(model_id)
        if state.get('_model_name') == 'IntProgressModel'
    )
    return bar


@pytest.mark.row('V07')
def test_bar_moves_by_itself_after_its_cell_has_ended(kernel: Kernel, tmp_path: Path):
    gates = [tmp_path / f'gate-{number}' for number in range(5)]
    submits = [f'cluster.submit({str(gate)!r}, fail={n == 4})' for n, gate in enumerate(gates)]
    kernel.run(f'jobs = [{", ".join(submits)}]\ncluster')
    shown = only_display(kernel)
    assert {WIDGET, 'text/html', 'text/plain'} <= set(shown)
    model_id = shown[WIDGET]['model_id']
    bar = bar_of(kernel, model_id)
    assert bar['max'] == 5

    # no cell runs from here on
    kernel.hear_until(lambda: '<td' in words_of(kernel, model_id))
    assert bar['value'] == 0
    gates[0].touch()
    kernel.hear_until(lambda: bar['value'] == 1)
    kernel.hear_until(lambda: '1 finished' in words_of(kernel, model_id))
    words = words_of(kernel, model_id)
    for part in ('5 created', ' waiting', ' running', '0 failed', '0 cancelled', 'jobs/s'):
        assert part in words
    kernel.hear_until(lambda: 'local-2' in words_of(kernel, model_id))
    assert bar['bar_style'] == 'info'

    for gate in gates[1:]:
        gate.touch()
    kernel.hear_until(lambda: bar['value'] == 5)
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    assert bar['bar_style'] == 'danger'
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
    gate.unlink()
    kernel.run(f'cluster.submit({str(gate)!r});')
    kernel.hear_until(lambda: WIDGET in only_display(kernel))
    model_id = only_display(kernel)[WIDGET]['model_id']
    kernel.hear_until(lambda: '2 created' in words_of(kernel, model_id))
    gate.touch()
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    assert '2 finished' in only_display(kernel)['text/html']


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
    model_id = only_display(kernel)[WIDGET]['model_id']
    kernel.hear_until(lambda: 'no node can be used' in words_of(kernel, model_id))
    kernel.run('lonely.close(timeout=0, terminate=True)')
    assert '1 cancelled' in only_display(kernel)['text/plain']


def test_without_ipywidgets_one_line_says_what_to_install(tmp_path: Path):
    gate = tmp_path / 'gate'
    with running_kernel() as kernel:
        kernel.run("import sys; sys.modules['ipywidgets'] = None")
        kernel.run(START)
        kernel.run(f'job = cluster.submit({str(gate)!r})\ncluster')
        kernel.run('cluster')
        assert kernel.text['stdout'].count('pip install') == 1
        assert kernel.text['stdout'].count('\n') == 1
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
