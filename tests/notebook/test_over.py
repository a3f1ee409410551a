"""`%%dispy --over`: the body of a cell runs once for each value, on the nodes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError

from dispy_nb.notebook.over.cellmagic import _combinations, _factor
from nodeserver.worker import helpers
from tests.notebook.kernel import WIDGET
from tests.notebook.magiccells import Cells, cells_with_magics

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

HERE = '--ip-addr 127.0.0.1 --port 0'


@pytest.fixture(scope='module')
def kernel(shared_home: Path, loop_of_the_jupyter_client: None) -> Iterator[Cells]:
    """Run a kernel with two nodes of its own, of a cpu each."""
    with cells_with_magics() as cells:
        cells.cell('%dispy start -n 2 -c 1')
        yield cells


@pytest.fixture
def cells(kernel: Cells) -> Iterator[Cells]:
    """Answer that kernel, in which no cluster may be left open."""
    yield kernel
    kernel.cell('from dispy_nb import closing')
    assert kernel.of('closing.open_clusters()') == '[]'


def plain(text: str) -> str:
    """Take the colours away."""
    return re.sub(r'\x1b\[[\d;]*m', '', text)


# what it does


@pytest.mark.row('V06')
def test_values_are_bound_in_order_and_what_is_sent_is_said(cells: Cells) -> None:
    cells.cell(
        """
        import math
        import numpy
        data = numpy.arange(950_000.0)
        scale, factor = 3, 2

        class Kind:
            def name(self):
                return word

        word = 'kind'

        def step(n):
            return n * factor
        """
    )
    said = cells.cell(
        f"""
        %%dispy --over x=range(5) -o found {HERE}
        import os
        y = step(x) * scale
        assert math.sqrt(4) == 2 and data.sum() > 0 and Kind().name() == 'kind'
        (y, os.getpid())
        """
    )
    first = said.splitlines()[0]
    assert first.startswith('sends ')
    for part in (
        *('step (function)', 'scale (5 B, int)', 'math (module)', 'data (7.6 MB, ndarray)'),
        *('Kind (class)', 'factor (5 B, int)'),
    ):
        assert part in first
    assert cells.of('[y for y, _ in found]') == '[0, 6, 12, 18, 24]'
    assert cells.of('len({pid for _, pid in found})') == '5'  # a process each
    assert cells.of("{'x', 'y'} & set(globals())") == 'set()'


@pytest.mark.row('V06')
def test_without_a_variable_the_values_are_the_value_of_the_cell(cells: Cells) -> None:
    assert 'sends no variables' in cells.cell(f'%%dispy --over n=[3, 1] {HERE}\nn + 1')
    assert cells.value == '[4, 2]'
    cells.cell(f'%%dispy --over n=[3, 1] {HERE}\nm = n')
    assert cells.value == '[None, None]'
    cells.cell(f'%%dispy --over n=(i * i for i in range(3)) {HERE}\n# nothing but words\n')
    assert cells.value == '[None, None, None]'
    cells.cell(f'%%dispy --over "n=range(1, 3)" --isolation worker --cpus 1 {HERE}\nn;')
    assert cells.value == '[1, 2]'


@pytest.mark.row('V06')
def test_variables_of_the_body_are_local_to_each_run(cells: Cells) -> None:
    cells.cell('total, items = 100, [1]')
    cells.cell(
        f"""
        %%dispy --over x=[1, 2] -o sums --isolation worker {HERE}
        total += x
        items.append(x)
        def helper():
            return total
        helper(), [total for _ in items]
        """
    )
    assert cells.of('[total for total, _ in sums], total, items') == '([101, 102], 100, [1])'


@pytest.mark.row('V06')
def test_several_overs_make_all_combinations_and_names_together_go_along(cells: Cells) -> None:
    cells.cell(f'%%dispy --over a=[1, 2] --over b="xy" -o pairs {HERE}\n(a, b)')
    assert cells.of('pairs') == "[(1, 'x'), (1, 'y'), (2, 'x'), (2, 'y')]"
    cells.cell(f'%%dispy --over a,b=zip([1, 2], "xy") -o pairs {HERE}\n(a, b)')
    assert cells.of('pairs') == "[(1, 'x'), (2, 'y')]"


@pytest.mark.row('V06')
def test_a_live_display_is_shown_and_ends_as_a_picture(cells: Cells) -> None:
    cells.displays.clear()
    cells.cell(f'%%dispy --over x=[1, 2] -o out --name "my sweep" {HERE}\nprint("run", x)\nx')
    assert cells.text['stdout'].endswith('run 1\nrun 2\n')
    (shown,) = [each for each in cells.displays.values() if 'my sweep' in each['text/plain']]
    assert WIDGET not in shown
    assert '2 created, 0 waiting, 0 running, 2 finished, 0 failed' in shown['text/plain']


# what goes wrong


@pytest.mark.row('V06', 'V17')
def test_failures_stop_no_other_run_and_show_the_line_of_the_cell(cells: Cells) -> None:
    said = cells.cell(
        f"""
        %%dispy --over x=[2, 0, 1, 0] -o out {HERE}

        def inverse(n):
            return 1 / n
        inverse(x)
        """,
        fails=True,
    )
    number = int(cells.of('len(In) - 2'))
    assert said.startswith('RunsFailed: 2 of 4 runs failed, the first with x=0:')
    assert f'Cell In[{number}], line 5, in cell_{number}\n    inverse(x)' in said
    assert f'Cell In[{number}], line 4, in inverse\n    return 1 / n' in said
    assert 'ZeroDivisionError: division by zero' in said
    assert 'out has the values of the others, and exceptions in the places of these' in said
    assert cells.of('out') == (
        "[0.5, ZeroDivisionError('division by zero'), 1.0, ZeroDivisionError('division by zero')]"
    )


@pytest.mark.row('V17')
def test_a_failure_in_a_function_of_another_cell_shows_its_line(cells: Cells) -> None:
    cells.cell('def other(n):\n\n    return [][n]')
    number = int(cells.of('len(In) - 2'))
    said = cells.cell(f'%%dispy --over x=[7] {HERE}\nother(x)', fails=True)
    assert f'  Cell In[{number}], line 3, in other\n    return [][n]\n' in said
    assert f'  Cell In[{number + 2}], line 2, in cell_{number + 2}\n    other(x)\n' in said


def test_without_a_variable_the_error_has_the_other_values(cells: Cells) -> None:
    said = cells.cell(f'%%dispy --over x=[1, 0] {HERE}\n1 / x', fails=True)
    assert 'sys.last_value.results has the values of the others' in said
    assert cells.of('__import__("sys").last_value.results') == (
        "[1.0, ZeroDivisionError('division by zero')]"
    )
    assert cells.of('__import__("sys").last_value.failures[0][0]') == "{'x': 0}"


def test_a_process_that_dies_is_a_failure_too(cells: Cells) -> None:
    said = cells.cell(
        f'%%dispy --over x=[1, 9] -o out {HERE}\nimport os\nif x > 1: os.kill(os.getpid(), x)\nx',
        fails=True,
    )
    assert '1 of 2 runs failed, the first with x=9:' in said
    assert 'SIGKILL' in said
    assert cells.of('out[0], type(out[1]).__name__') == "(1, 'JobFailed')"


@pytest.mark.row('V06')
def test_a_body_that_is_no_python_is_shown_at_its_line_and_nothing_is_sent(cells: Cells) -> None:
    for body, line, said in (
        ('x\nx +\n', 3, 'SyntaxError: invalid syntax'),
        ('\n\nreturn x', 4, "SyntaxError: 'return' outside function"),
        ('x\nawait x', 3, "SyntaxError: 'await' outside function"),
        ('if x:\nx', 3, 'IndentationError: expected an indented block'),
        ('from math import *\nx', 2, 'SyntaxError: import * only allowed at module level'),
    ):
        shown = plain(cells.cell(f'%%dispy --over x=undefined -o out\n{body}', fails=True))
        number = int(cells.of('len(In) - 2'))
        assert f'Cell In[{number}], line {line}\n' in shown
        assert said in shown
        assert 'Traceback' not in shown
        assert 'magics' not in shown


@pytest.mark.row('V06')
def test_names_that_jobs_would_not_find_are_told_before_anything_runs(cells: Cells) -> None:
    cells.cell('length = 1')
    shown = cells.cell('%%dispy --over x=[1]\nx\nprint(lenght + x)', fails=True)
    assert shown.startswith("NameError: name 'lenght' is not defined: did you mean length? (line 3")
    shown = cells.cell('%%dispy --over x=[1]\nf = lambda: display(x)', fails=True)
    assert shown.startswith("NameError: 'display' is of this notebook, and not on nodes (line 2")
    shown = cells.cell('%%dispy --over x=[1]\nget_ipython()', fails=True)
    assert "'get_ipython' is of this notebook" in shown
    cells.cell(
        f"""
        %%dispy --over x=[1] -o out {HERE}
        dispy_provisional_result(x)
        with open('/dev/null') as file:
            (os.getpid() > 0, dispy_node_name[:6], file.read())
        out = (os.getpid() > 0, dispy_node_name[:6])
        out
        """
    )
    assert cells.of('out') == "[(True, 'local-')]"


def test_the_names_that_every_job_finds_are_those_that_are_installed() -> None:
    text = Path(helpers.__file__).read_text()
    block = text[text.index('vars(builtins).update(') :]
    names = re.findall(r'^        (\w+)=', block[: block.index('\n    )')], re.MULTILINE)
    assert sorted(names) == sorted(helpers.NAMES)


@pytest.mark.row('V06')
def test_a_variable_that_cannot_be_sent_is_named_with_its_type_and_cell(cells: Cells) -> None:
    cells.cell('import threading\nconfig = {"a": [1, threading.Lock()]}')
    number = int(cells.of('len(In) - 2'))
    cells.cell('def use():\n    return config')
    shown = cells.cell('%%dispy --over x=[1]\nuse()', fails=True)
    assert shown.startswith(
        f'PicklingFailed: variable config (set in In[{number}]) cannot be sent to nodes: '
        "config['a'][1] of type _thread.lock cannot be pickled"
    )
    shown = cells.cell(f'%%dispy --over x=[1, config] {HERE}\nx', fails=True)
    assert shown.startswith("PicklingFailed: argument 'x'['a'][1] of type _thread.lock")


@pytest.mark.row('V06')
def test_an_empty_over_binds_an_empty_list_and_says_so(cells: Cells) -> None:
    said = cells.cell('%%dispy --over x=[] -o out\nx')
    assert said.startswith('x=[]: no values, and nothing was run')
    assert cells.of('out') == '[]'


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('', '%%dispy needs --over: %%dispy --over NAME=EXPR'),
        ('--over x', '--over takes NAME=EXPR, not x'),
        ('--over x=', '--over takes NAME=EXPR, not x='),
        ('--over 2x=[1]', 'NAME of --over must be the name of a variable, not 2x'),
        ('--over x=5', '--over x=5: a value of type int has no items'),
        ('--over x=nothing', 'nothing is no name of this notebook'),
        ('--over x = [1]', 'write NAME=EXPR without spaces, and an expression that has some in'),
        ('--over x=[1] --over x=[2]', '--over sets x twice'),
        ('--over x,y=[1]', '--over x,y=[1]: item 0 has 1 parts, not 2'),
        ('--over x=[1] -o 1a', '-o must be the name of a variable, not 1a'),
        ('--over x=[1', '] is missing at the end of'),
        ('--over x=[1] --nonblock', 'there is no option --nonblock: did you mean --noblock?'),
    ],
)
def test_wrong_lines_are_answered_in_one_line(cells: Cells, line: str, said: str) -> None:
    shown = cells.cell(f'%%dispy {line}\nx', fails=True)
    assert shown.startswith('UsageError: ')
    assert said in shown
    assert shown.rstrip('\n').count('\n') == 0


def test_what_the_expression_raises_is_shown_whole(cells: Cells) -> None:
    cells.cell('def values():\n    yield 1\n    raise KeyError("mine")')
    shown = plain(cells.cell('%%dispy --over x=values()\nx', fails=True))
    assert "KeyError: 'mine'" in shown
    assert 'in values()' in shown


def test_on_a_terminal_the_same_cells_run_and_tell_in_text(own_home: Path) -> None:
    path = own_home / 'cells.py'
    cells = (
        '%load_ext dispy_nb',
        '%dispy start -c 1',
        f'%%dispy --over x=[1, 2] -o out {HERE}\nx * 2',
        'print(out)',
        f'%%dispy --over x=[0] {HERE}\n1 / x',
        '%dispy nodes',
        '%dispy stop',
    )
    path.write_text('\n'.join(f'get_ipython().run_cell({cell!r}, True)' for cell in cells))
    command = [sys.executable, '-m', 'IPython', '--no-banner', '--colors=NoColor', str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert '[2, 4]\n' in done.stdout, done.stderr
    assert re.search(r'  Cell In\[\d+\], line 2, in cell_\d+\n    1 / x\n', done.stdout)
    assert 'answers; no cluster of this program uses it' in done.stdout
    assert 'ended local-1' in done.stdout
    assert done.stderr == ''


def test_endless_values_are_refused() -> None:
    shell: Any = SimpleNamespace(user_ns={}, user_global_ns={})
    with pytest.raises(UsageError, match='at most 1,000,000 runs'):
        _combinations(shell, [_factor("x=__import__('itertools').count()")])
    with pytest.raises(UsageError, match='at most 1,000,000 runs'):
        _combinations(shell, [_factor('x=range(2000)'), _factor('y=range(2000)')])


# going on meanwhile


@pytest.mark.row('V06')
def test_noblock_binds_a_handle_whose_cluster_closes_itself(cells: Cells, tmp_path: Path) -> None:
    gate = tmp_path / 'gate'
    cells.cell(f'gate = {str(gate)!r}')
    cells.cell(
        f"""
        %%dispy --over x=[0, 1, 2] -o run --noblock --name sweep {HERE}
        import pathlib, time
        while not pathlib.Path(gate).exists():
            time.sleep(0.02)
        1 // x if x < 2 else x
        """
    )
    assert cells.of('run, len(run)') == (
        '(<OverRun sweep: 3 runs, 3 pending, 0 finished, 0 failed, 0 cancelled>, 3)'
    )
    cells.cell('try: run.results(timeout=0.1)\nexcept TimeoutError as error: print(error)')
    assert cells.text['stdout'] == '3 of 3 runs have not ended\n'
    cells.cell('run.cluster.cancel(run.jobs[2])')
    gate.touch()
    shown = cells.cell('await run', fails=True)
    assert shown.startswith('RunsFailed: 2 of 3 runs failed, the first with x=0:')
    cells.cell('run.cluster._shell.closed.wait(20);')
    assert cells.of('run') == (
        '<OverRun sweep: 3 runs, 0 pending, 1 finished, 1 failed, 1 cancelled>'
    )
    cells.cell(f'%%dispy --over x=[1, 2] -o run --noblock {HERE}\nx')
    assert cells.of('await run, run.results()') == '([1, 2], [1, 2])'
    cells.cell(f'%%dispy --over x=[1, 2] --noblock {HERE}\nx')
    assert cells.value.startswith('<OverRun over x: 2 runs, ')
    cells.cell('_.cancel(); _.cluster._shell.closed.wait(20);')
    cells.cell('run.cluster._shell.closed.wait(20);')


@pytest.mark.row('V06', 'V14')
def test_an_interrupt_cancels_the_rest_and_binds_what_is_there(
    cells: Cells, tmp_path: Path
) -> None:
    began = tmp_path / 'began'
    pid = int(cells.of('__import__("os").getpid()'))
    cells.cell(f'began = {str(began)!r}')
    cells.begin(
        f"""
        %%dispy --over x=[1, 2, 3] -o out {HERE}
        import pathlib, time
        if x > 1:
            pathlib.Path(began).touch()
            time.sleep(60)
        x
        """
    )
    cells.hear_until(began.exists)
    cells.hear_until(lambda: cells.finished_of_open_clusters() == [1])
    os.kill(pid, signal.SIGINT)
    said = cells.end(fails=True)
    assert said.startswith(
        'KeyboardInterrupt: 1 of 3 runs have finished, the others were cancelled; out has the'
    )
    assert cells.of('out[0], [type(each).__name__ for each in out[1:]]') == (
        "(1, ['JobFailed', 'JobFailed'])"
    )


def test_where_there_is_no_node_it_says_what_to_do_and_goes_on_waiting(cells: Cells) -> None:
    pid = int(cells.of('__import__("os").getpid()'))
    cells.begin(f'%%dispy --over x=[1] -o out --nodes 127.0.0.9 {HERE}\nx')
    cells.hear_until(lambda: '`%dispy start` starts node servers' in cells.text['stdout'])
    said = cells.text['stdout'] + cells.text['stderr']
    assert said.count('no node can be used') == 1  # by the log, or by the magic
    assert 'looked for nodes at: 127.0.0.9 (port 51348)' in said
    os.kill(pid, signal.SIGINT)
    assert 'KeyboardInterrupt: 0 of 1 runs have finished' in cells.end(fails=True)
