"""`cluster.plot(x, y)` grows with the provisional results, and is kept."""

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dispy_nb.notebook.charts.figures import MOST_JOBS
from dispy_nb.notebook.charts.plots import MOST_POINTS
from tests.notebook.kernel import WIDGET, Kernel, only_display, quiet_kernel
from tests.notebook.test_charts import chart_of, column

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

START = """
    import dispy_nb as dispy

    def steps(gate, results):
        import pathlib, time
        for number, result in enumerate(results):
            if number == len(results) - 1:
                end = time.monotonic() + 20
                while not pathlib.Path(gate).exists() and time.monotonic() < end:
                    time.sleep(0.02)
            dispy_provisional_result(result)

    nodes = dispy.LocalNodes(1, cpus=2)
    cluster = dispy.JobCluster(steps, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0,
                               isolation='worker')
"""
END = 'cluster.close(timeout=0, terminate=True); nodes.close()'


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with quiet_kernel(START, END) as kernel:
        yield kernel


def lines(chart: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Answer the points of each job as a browser shows them, by the name that hovering shows."""
    result = {}
    for place in range(MOST_JOBS):
        xs = column(chart, f'job{place}', 'x')
        if xs:
            name = chart['settings'][f'marks{place}']['name']
            result[name] = list(zip(xs, column(chart, f'job{place}', 'y'), strict=True))
    return result


@pytest.mark.row('V11')
def test_the_chart_grows_with_the_results_and_stays_as_a_picture(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    results = "[{'step': n, 'loss': 1 / (n + 1)} for n in range(4)]"
    kernel.run(f"""
        jobs = [cluster.submit({str(gate)!r}, {results}) for _ in range(2)]
        jobs[1].id = '<i>second</i>'
        cluster.plot('step', 'loss')
    """)
    chart = chart_of(kernel, only_display(kernel))
    points = [(n, 1 / (n + 1)) for n in range(4)]
    # no cell runs from here on
    kernel.hear_until(lambda: lines(chart) == dict.fromkeys(('1', '<i>second</i>'), points[:3]))
    names = [item['name'] for group in chart['legend'] for item in group['items']]
    assert names == ['job 1', 'job <i>second</i>'] or names == ['job <i>second</i>', 'job 1']
    assert chart['settings']['x']['axis_label'] == 'step'
    assert chart['settings']['x.axis']['end'] > 2
    assert '6 provisional results of 2 jobs' in chart['words']
    assert chart['note'] == ''

    gate.touch()
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    assert lines(chart) == dict.fromkeys(('1', '<i>second</i>'), points)
    kept = only_display(kernel)
    assert '8 provisional results of 2 jobs' in kept['text/plain']
    assert 'job <i>second</i>: 4 points, the last one at x 3, y 0.25' in kept['text/plain']
    assert '<i>' not in kept['text/html']
    assert 'job <i>second</i>' in unescape(kept['text/html'])
    assert len(kept['text/html']) <= 60_000


@pytest.mark.row('V11')
def test_results_that_were_there_before_are_drawn_over_time(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    gate.touch()
    kernel.run(f'job = cluster.submit({str(gate)!r}, [5, 6.5, 8]); cluster.wait()')
    # the end of the cell that asks for it is enough
    kernel.run('cluster.plot()')
    (kept,) = kernel.displays.values()
    assert WIDGET not in kept
    assert '3 provisional results of 1 jobs' in kept['text/plain']
    assert 'seconds since the first job was submitted' in kept['text/plain']
    kernel.run('cluster.plot(y=lambda result: -result)')
    _, other = kernel.displays.values()
    assert 'y -8' in other['text/plain']


@pytest.mark.row('V11')
def test_what_cannot_be_drawn_is_said_and_breaks_nothing(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    results = "[{'loss': 1}, {'loss': 'much'}, {'other': 3}, {'loss': float('nan')}, {'loss': 2}]"
    kernel.run(f'job = cluster.submit({str(gate)!r}, {results})\ncluster.plot(y="loss")')
    chart = chart_of(kernel, only_display(kernel))
    kernel.hear_until(lambda: '2 provisional results are not drawn' in chart['note'])
    assert "the first: y: 'much' is no number for job 1" in chart['note']
    assert [y for _, y in lines(chart)['1']] == [1, None]
    gate.touch()
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    assert 'is no number for job 1' in only_display(kernel)['text/plain']
    assert 'is no number for job 1' in only_display(kernel)['text/html']


def test_a_function_that_does_not_return_stops_nothing_else(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    kernel.run(f"""
        import threading
        let_go = threading.Event()
        def stuck(result):
            let_go.wait(25)
            return result
        job = cluster.submit({str(gate)!r}, [1, 2])
        cluster.charts()
        cluster.plot(y=stuck)
    """)
    charts, _ = (chart_of(kernel, bundle) for bundle in kernel.displays.values())
    gate.touch()
    kernel.hear_until(lambda: '1 finished' in charts['words'])
    kernel.run('let_go.set()')
    kernel.hear_until(lambda: all(WIDGET not in bundle for bundle in kernel.displays.values()))
    kernel.run('pass')
    _, kept = kernel.displays.values()
    assert '2 provisional results of 1 jobs' in kept['text/plain']


def test_wrong_arguments_are_refused_at_once(kernel: Kernel):
    kernel.run("""
        try:
            cluster.plot(y=[1])
        except dispy.UsageError as error:
            print(error)
    """)
    assert 'y must be a key, an index, the name of an attribute' in kernel.text['stdout']
    assert 'not [1]' in kernel.text['stdout']
    assert kernel.displays == {}


@pytest.mark.row('V12')
@pytest.mark.slow
def test_many_jobs_and_results_are_a_bounded_choice(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    kernel.run(f"""
        jobs = [cluster.submit({str(tmp_path)!r}, list(range(60))) for _ in range(23)]
        jobs.append(cluster.submit({str(gate)!r}, [1, 2]))
        cluster.plot()
    """)
    chart = chart_of(kernel, only_display(kernel))
    kernel.hear_until(lambda: 'the latest 20 of 24 jobs' in chart['settings']['plot.title']['text'])
    shown = lines(chart)
    assert len(shown) == MOST_JOBS
    assert '24' in shown
    assert sum(map(len, shown.values())) <= 1.1 * MOST_POINTS
    assert '1 of ' in chart['settings']['plot.title']['text']
    assert chart['legend'] == []  # nobody could tell so many apart
    gate.touch()
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))
    assert len(only_display(kernel)['text/html']) <= 60_000


@pytest.mark.row('V11', 'V12')
def test_a_plot_whose_cell_is_run_again_takes_the_place_of_the_one_before(kernel: Kernel):
    for _ in range(3):
        kernel.run('first = cluster.plot("a", "b")', cell_id='first')
    for _ in range(2):
        kernel.run('two = cluster.plot("a", "b"), cluster.plot("a", "c")', cell_id='second')
    kernel.run("""
        from dispy_nb.notebook.refresher import refresher_of
        kept = refresher_of(get_ipython())._displays
        print(kept == [first, *two])
    """)
    assert kernel.text['stdout'] == 'True\n'
