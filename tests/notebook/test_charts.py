"""Charts of a cluster move while jobs run, cost little, and stay as a picture."""

import json
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import bokeh
import pytest

import dispy_nb as dispy
from dispy_nb.notebook import refresher
from dispy_nb.notebook.charts import livechart
from tests.notebook.kernel import WIDGET, Kernel, only_display, quiet_kernel, running_kernel
from tests.notebook.widget import END, START

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with quiet_kernel(START, END) as kernel:
        yield kernel


def chart_of(kernel: Kernel, bundle: dict[str, Any]) -> dict[str, Any]:
    """Answer the state of the widget that a display shows."""
    return kernel.states[bundle[WIDGET]['model_id']]


def column(chart: dict[str, Any], source: str, name: str) -> list[Any]:
    """Answer a column as a browser puts it together."""
    whole, tail = chart['data'].get(source, {}), chart['tail'].get(source, {})
    return [*whole.get(name, ()), *tail.get(name, ())]


def loaders(kernel: Kernel) -> list[str]:
    return [state['js'] for state in kernel.states.values() if 'js' in state]


@pytest.mark.row('V09')
def test_charts_show_nodes_and_jobs_while_they_run(kernel: Kernel, tmp_path: Path):
    gates = [tmp_path / f'gate-{number}' for number in range(4)]
    submits = [f'cluster.submit({str(gate)!r}, fail={n == 1})' for n, gate in enumerate(gates)]
    kernel.run(f'jobs = [{", ".join(submits)}]\njobs[0].id = "<b>first</b>"\ncluster.charts()')
    chart = chart_of(kernel, only_display(kernel))

    # no cell runs from here on
    running = chart['live']
    kernel.hear_until(lambda: len(chart['live']['running']['id']) == 2)
    running = chart['live']['running']
    assert running['status'] == ['running', 'running']
    assert '<b>first</b>' in running['id']
    assert any('gate-0' in text for text in running['arguments'])
    before = running['right']
    kernel.hear_until(lambda: chart['live']['running']['right'][0] > before[0])  # it grows

    gates[0].touch()
    gates[1].touch()
    kernel.hear_until(lambda: len(column(chart, 'ended', 'id')) == 2)
    ended = dict(zip(column(chart, 'ended', 'id'), column(chart, 'ended', 'status'), strict=True))
    assert ended == {'<b>first</b>': 'finished', '2': 'failed'}
    for left, right in zip(
        column(chart, 'ended', 'left'), column(chart, 'ended', 'right'), strict=True
    ):
        assert 0 <= left < right
    assert set(column(chart, 'ended', 'node')) == {'local-1', 'local-2'}

    legend = {item['name'] for group in chart['legend'] for item in group['items']}
    assert {'local-1', 'local-2', 'finished', 'failed', 'running'} <= legend
    for place in 0, 1:
        kernel.hear_until(lambda place=place: known(column(chart, 'nodes', f'cpu{place}')))
        assert known(column(chart, 'nodes', f'memory{place}'))
        assert max(known(column(chart, 'nodes', f'running{place}'))) == 1
        kernel.hear_until(lambda place=place: any(known(column(chart, 'nodes', f'rate{place}'))))
    times = column(chart, 'nodes', 't')
    assert times == sorted(times)
    assert chart['settings']['rows']['factors'] == ['local-2', 'local-1']  # from the bottom up
    assert chart['settings']['time']['end'] >= times[-1]


def known(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None]


@pytest.mark.row('V09')
def test_a_change_is_on_the_screen_within_a_second():
    assert livechart.INTERVAL + refresher.INTERVAL <= 1.0


@pytest.mark.row('V09')
def test_the_kernel_sends_the_drawing_program_once(kernel: Kernel):
    kernel.run('cluster.charts()')
    kernel.run('cluster.charts()')
    kernel.run('other = dispy.JobCluster(hold, nodes=nodes.nodes, ip_addr="127.0.0.1", port=0)')
    kernel.run('other.charts()')
    kernel.run('other.plot()')
    path = Path(bokeh.__file__).parent / 'server' / 'static' / 'js' / 'bokeh.min.js'
    assert loaders(kernel) == [path.read_text(encoding='utf-8')]
    first, second, third, fourth = kernel.displays.values()
    assert first[WIDGET] == second[WIDGET]
    charts = [chart_of(kernel, bundle) for bundle in (first, third, fourth)]
    assert len({chart['loader'] for chart in charts}) == 1
    assert {chart['version'] for chart in charts} == {bokeh.__version__}
    assert charts[0]['bundle'] == charts[1]['bundle'] != charts[2]['bundle']
    kernel.run('other.close()')


@pytest.mark.row('V09')
@pytest.mark.parametrize('show', ['cluster.charts()', 'cluster.plot()'])
def test_it_is_shown_once_however_it_is_asked_for(kernel: Kernel, show: str):
    for count, cell in enumerate([show, f'display({show})', f'chart = {show}', 'chart'], start=1):
        kernel.run(cell)
        assert len(kernel.displays) == count
    kernel.run(f'{show}\nprint("after")')
    assert len(kernel.displays) == 5
    kernel.run('display(chart)\ndisplay(chart)')
    assert len(kernel.displays) == 7
    assert kernel.text['stdout'] == 'after\n'  # and no repr below it


@pytest.mark.row('V13')
def test_a_picture_stays_when_the_jobs_have_ended_and_comes_alive_again(
    kernel: Kernel, tmp_path: Path
):
    gate = tmp_path / 'gate'
    kernel.run(f'cluster.charts()\njobs = [cluster.submit({str(gate)!r}) for _ in range(3)]')
    assert WIDGET in only_display(kernel)
    gate.touch()
    kernel.hear_until(lambda: WIDGET not in only_display(kernel))  # no cell runs
    kept = only_display(kernel)
    words = '3 created, 0 waiting, 0 running, 3 finished, 0 failed, 0 cancelled'
    assert words in kept['text/plain']
    assert words in unescape(kept['text/html'])
    assert kept['text/html'].startswith('<img src="data:image/svg+xml;base64,')
    assert len(kept['text/html']) <= 60_000

    gate.unlink()
    kernel.run(f'cluster.submit({str(gate)!r});')
    kernel.hear_until(lambda: WIDGET in only_display(kernel))
    chart = chart_of(kernel, only_display(kernel))
    kernel.hear_until(lambda: chart['live']['running']['id'] == ['4'])
    gate.touch()
    # the end of the cell is the end of the jobs: nothing more needs to happen
    kernel.run('cluster.wait()')
    assert WIDGET not in only_display(kernel)
    assert '4 finished' in only_display(kernel)['text/plain']


@pytest.mark.row('V21')
def test_charts_have_words_for_who_cannot_see_them(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    kernel.run(f'job = cluster.submit({str(gate)!r})\nc = cluster.charts()')
    chart = chart_of(kernel, only_display(kernel))
    kernel.hear_until(lambda: '1 running' in chart['words'] and 'memory' in chart['words'])
    assert '1 created, 0 waiting, 1 running' in chart['words']
    assert 'local-1: ' in chart['words']
    program = chart['_esm']
    for part in ('"role", "img"', 'tabIndex = 0', '"aria-label"', '"aria-pressed"'):
        assert part in program
    kernel.run('print(c)')
    assert 'charts of cluster hold: 1 created' in kernel.text['stdout']
    gate.touch()
    kernel.hear_until(lambda: '1 finished' in chart['words'])


@pytest.mark.row('V12')
@pytest.mark.slow
def test_charts_cost_few_messages_and_little_traffic(kernel: Kernel):
    heard: list[tuple[float, int]] = []
    take = kernel._take

    def taking(message: dict[str, Any]) -> None:
        if message['msg_type'] in ('comm_msg', 'update_display_data'):
            heard.append((time.monotonic(), len(json.dumps(message['content']))))
        take(message)

    kernel._take = taking  # type: ignore[method-assign]
    kernel.run("""
        def quick(number, text):
            import time
            time.sleep(0.002)
        fast = dispy.JobCluster(quick, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0,
                                isolation='worker', progress=False)
        fast.charts()
        ended = [fast.submit(n, 'some text that is an argument') for n in range(3000)]
        began = fast.wait()
    """)
    kernel.run('fast.close()')
    seconds = heard[-1][0] - heard[0][0]
    assert seconds > 2
    # one in 0.8 s; and at the end of the jobs, and again of the cluster, the last and the picture
    assert len(heard) <= seconds / 0.8 + 4
    for begin, _ in heard:
        assert sum(size for at, size in heard if begin <= at < begin + 1.0) <= 100_000


@pytest.mark.row('V20')
@pytest.mark.parametrize('missing', ['bokeh', 'anywidget'])
def test_without_what_draws_there_is_a_picture_and_one_line_says_what_to_install(
    tmp_path: Path, missing: str
):
    gate = tmp_path / 'gate'
    with running_kernel() as kernel:
        kernel.run(f"import sys; sys.modules['{missing}'] = None")
        kernel.run(START)
        kernel.run(f'job = cluster.submit({str(gate)!r})\ncluster.charts()')
        kernel.run('cluster.charts()')
        kernel.run('cluster.plot()')
        assert kernel.text['stdout'].count('pip install') == 1
        assert kernel.text['stdout'].count('\n') == 1
        charts = list(kernel.displays)[:2]
        assert all(WIDGET not in bundle for bundle in kernel.displays.values())

        def all_say(words: str) -> bool:
            return all(words in kernel.displays[name]['text/html'] for name in charts)

        kernel.hear_until(lambda: all_say('1 running'))  # it moves as well, if less often
        gate.touch()
        kernel.hear_until(lambda: all_say('1 finished'))
        assert all_say('<img src="data:image/svg+xml;base64,')
        kernel.run(END)
        assert kernel.text['stderr'] == ''


@pytest.mark.row('V20')
def test_outside_of_notebooks_charts_are_words(local_nodes_of_one: dispy.LocalNodes):
    nodes = local_nodes_of_one.nodes
    with dispy.JobCluster(len, nodes=nodes, ip_addr='127.0.0.1', port=0) as cluster:
        cluster.submit('abc')
        cluster.wait()
        charts, plot = cluster.charts(), cluster.plot(x=lambda result: result)
        assert '1 created, 0 waiting, 0 running, 1 finished' in repr(charts)
        assert 'local-1: ' in repr(charts)
        assert '0 provisional results of cluster len' in repr(plot)
        assert cluster.charts() is charts


@pytest.fixture
def local_nodes_of_one() -> Iterator[dispy.LocalNodes]:
    with dispy.LocalNodes(1, cpus=1) as nodes:
        yield nodes
