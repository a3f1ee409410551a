"""The notebook that newcomers open first runs as it is, without a browser as well."""

import ast
import functools
import re
import sysconfig
import warnings
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.notebook.kernel import WIDGET

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

NOTEBOOKS = Path(__file__).resolve().parents[2] / 'notebooks'


@pytest.fixture(scope='module')
def outputs(shared_home: Path, loop_of_the_jupyter_client: None) -> list[dict[str, Any]]:
    """Run the notebook; answer what its cells have shown, in order."""
    notebook = nbformat.read(NOTEBOOKS / 'quickstart.ipynb', as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=50, store_widget_state=False)
    client.execute(cwd=str(NOTEBOOKS))
    return [output for cell in notebook.cells for output in cell.get('outputs', ())]


@functools.cache
def library_counts() -> tuple[int, int, int]:
    """Answer how many files the notebook takes, how many are no Python, and their functions."""
    library = Path(sysconfig.get_path('stdlib'))
    files = sorted(path for path in library.rglob('*.py') if 'site-packages' not in path.parts)
    bad = functions = 0
    for path in files[::5]:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                bad += 1
                continue
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        functions += sum(isinstance(node, kinds) for node in ast.walk(tree))
    return len(files[::5]), bad, functions


def printed(outputs: list[dict[str, Any]]) -> str:
    return ''.join(output['text'] for output in outputs if output.get('name') == 'stdout')


def test_every_cell_runs_and_none_complains(outputs: list[dict[str, Any]]):
    assert [output for output in outputs if output['output_type'] == 'error'] == []
    assert [output for output in outputs if output.get('name') == 'stderr'] == []
    assert 'the same results: True' in printed(outputs)


@pytest.mark.row('V19')
def test_numbers_without_a_browser_are_the_true_ones(outputs: list[dict[str, Any]]):
    files, bad, functions = library_counts()
    text = printed(outputs)
    assert f'with {functions:,} functions in {files - bad} files' in text
    assert re.search(rf'\b{bad} jobs? failed', text)
    (shown,) = (o['data'] for o in outputs if 'jobs' in o.get('data', {}).get('text/html', ''))
    numbers = f'{files} created, 0 waiting, 0 running, {files - bad} finished, {bad} failed'
    assert numbers in shown['text/plain']
    assert numbers in shown['text/html']
    assert f'| {files}/{files}, ' in shown['text/plain']  # the progress of a terminal, as text
    assert WIDGET not in shown  # a reader without a kernel would see an error in its place


def test_each_node_is_listed_with_its_share(outputs: list[dict[str, Any]]):
    files, _, _ = library_counts()
    shares = re.findall(r'^local-[12] .*?\| +\d+ \| +(\d+) \|', printed(outputs), re.MULTILINE)
    assert len(shares) == 2
    assert sum(map(int, shares)) == files


def test_notebook_is_kept_without_outputs():
    # they hold times, ports and paths of one machine; whoever opens it makes their own
    notebook = nbformat.read(NOTEBOOKS / 'quickstart.ipynb', as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get('outputs')] == []
