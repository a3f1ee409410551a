"""The notebooks that teach run as they are, without a browser too, and their numbers are true."""

import ast
import copy
import functools
import math
import random
import re
import subprocess
import sys
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import nbclient
import nbformat
import pytest
from traitlets.config import Config

from tests.notebook.kernel import WIDGET, own_sockets

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

NOTEBOOKS = Path(__file__).resolve().parents[2] / 'notebooks'
NAMES = sorted(path.stem for path in NOTEBOOKS.glob('*.ipynb'))
LIBRARY = Path(sysconfig.get_path('stdlib'))
PICTURE = 'data:image/svg+xml;base64,'

# how far a notebook is run each time, if not once and as a whole; the last cell closes the cluster
RUNS = {'quickstart': (-1, None), 'files-and-dependencies': (None, None)}
BY_A_PROGRAM = 'data-in-memory'

Outputs = list[dict[str, Any]]


@functools.cache
def runs_of(name: str) -> list[Outputs]:
    """Run a notebook; answer for each time what all its cells have shown at the end."""
    notebook, shown = read(NOTEBOOKS, name), []
    client = nbclient.NotebookClient(
        notebook, timeout=50, store_widget_state=False, config=Config(KernelManager=own_sockets())
    )
    with client.setup_kernel(cwd=str(NOTEBOOKS)):
        for last in RUNS.get(name, (None,)):
            for place, cell in enumerate(notebook.cells[:last]):
                # an update of a display may come before the cell that is run again has shown any:
                # nbclient drops the outputs of before, and would look for the display among them
                client.clear_display_id_mapping(place)
                client.execute_cell(cell, place)
            shown.append(outputs(copy.deepcopy(notebook)))
    return shown


@functools.cache
def run_by_a_program(name: str) -> list[Outputs]:
    """Run a notebook as people do from a shell."""
    notebook = Path.home() / f'{name}.ipynb'
    notebook.write_bytes((NOTEBOOKS / notebook.name).read_bytes())
    command = [sys.executable, '-m', 'jupyter', 'execute', '--inplace', str(notebook)]
    subprocess.run(command, check=True, capture_output=True, timeout=50)
    return [outputs(read(notebook.parent, name))]


def shown_by(name: str) -> list[Outputs]:
    return run_by_a_program(name) if name == BY_A_PROGRAM else runs_of(name)


def read(directory: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(directory / f'{name}.ipynb', as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> Outputs:
    return [output for cell in notebook.cells for output in cell.get('outputs', ())]


def printed(shown: Outputs) -> str:
    return ''.join(output['text'] for output in shown if output.get('name') == 'stdout')


def complaints(shown: Outputs) -> list[str]:
    """Answer what stands in red, but for why jobs wait: a busy machine says so after 2 s."""
    texts = [output['text'] for output in shown if output.get('name') == 'stderr']
    why = re.compile(r'dispy: .*: \d+ jobs waiting, 0 on nodes')
    return [text for text in texts if not why.match(text)]


def displayed(shown: Outputs, text: str) -> list[dict[str, str]]:
    """Answer the displays that have this among their text."""
    bundles = [output.get('data', {}) for output in shown]
    return [bundle for bundle in bundles if text in bundle.get('text/plain', '')]


def counts(created: int, finished: int, failed: int = 0, cancelled: int = 0) -> str:
    return (
        f'{created} created, 0 waiting, 0 running, {finished} finished, '
        f'{failed} failed, {cancelled} cancelled'
    )


# all of them


@pytest.mark.parametrize('name', NAMES)
def test_every_cell_runs_and_none_complains(name: str):
    for shown in shown_by(name):
        assert [output for output in shown if output['output_type'] == 'error'] == []
        assert complaints(shown) == []


@pytest.mark.row('V13')
@pytest.mark.parametrize('name', NAMES)
def test_what_is_saved_has_numbers_and_no_widget_that_needs_a_kernel(name: str):
    for shown in shown_by(name):
        assert [output for output in shown if WIDGET in output.get('data', {})] == []
        assert displayed(shown, ' created, 0 waiting, 0 running, ')


@pytest.mark.parametrize('name', NAMES)
def test_notebook_is_short_and_kept_without_outputs(name: str):
    # outputs hold times, ports and paths of one machine; whoever opens it makes their own
    notebook = read(NOTEBOOKS, name)
    assert len(notebook.cells) < 15
    assert notebook.cells[0].cell_type == 'markdown'
    assert outputs(notebook) == []
    assert {cell.get('execution_count') for cell in notebook.cells} == {None}


def test_index_has_all_notebooks_and_no_other_one():
    links = re.findall(r'\(([\w-]+)\.ipynb\)', (NOTEBOOKS / 'README.md').read_text())
    assert sorted(links) == NAMES


# quickstart


@functools.cache
def library_counts() -> tuple[int, int, int]:
    """Answer how many files the notebook takes, how many are no Python, and their functions."""
    files = sorted(path for path in LIBRARY.rglob('*.py') if 'site-packages' not in path.parts)
    bad = functions = 0
    for path in files[::8]:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                bad += 1
                continue
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        functions += sum(isinstance(node, kinds) for node in ast.walk(tree))
    return len(files[::8]), bad, functions


@pytest.mark.row('V19')
def test_numbers_without_a_browser_are_the_true_ones():
    files, bad, functions = library_counts()
    shown, _ = shown_by('quickstart')
    text = printed(shown)
    assert f'with {functions:,} functions in {files - bad} files' in text
    assert text.count('SyntaxError') == bad
    (bundle,) = displayed(shown, ' created, ')
    assert counts(files, files - bad, bad) in bundle['text/plain']
    assert counts(files, files - bad, bad) in bundle['text/html']
    assert f'| {files}/{files}, ' in bundle['text/plain']  # the progress of a terminal, as text


def test_each_node_is_listed_with_its_share():
    files, _, _ = library_counts()
    shown, _ = shown_by('quickstart')
    shares = re.findall(r'^local-[12] .*?\| +\d+ \| +(\d+) \|', printed(shown), re.MULTILINE)
    assert len(shares) == 2
    assert sum(map(int, shares)) == files


@pytest.mark.row('V16')
def test_notebook_run_again_goes_on_with_its_cluster_and_gives_the_same_results():
    files, bad, _ = library_counts()
    first, again = shown_by('quickstart')
    (bundle,) = displayed(again, ' created, ')
    assert counts(2 * files, 2 * (files - bad), 2 * bad) in bundle['text/plain']
    assert printed(again).startswith(printed(first)[: printed(first).index('\nNode ')])
    assert 'the same results: True' in printed(again)


# live-charts


@pytest.mark.row('V13', 'V19')
def test_jobs_of_the_charts_are_counted_in_words_and_pictures():
    own = {path for path in LIBRARY.rglob('*.py') if 'site-packages' not in path.parts}
    own = {path for path in own if not {'test', 'tests'} & set(path.parts)}
    directories = len({path.parent for path in own})
    (shown,) = shown_by('live-charts')
    (charts,) = displayed(shown, 'charts of cluster compress')
    assert PICTURE in charts['text/html']
    for bundle in displayed(shown, ' created, '):
        assert counts(2 * directories, 2 * directories) in bundle['text/plain']
    text = printed(shown)
    assert 'all cpus of the 2 usable nodes are busy' in text
    assert f'{sum(path.stat().st_size for path in own):,} bytes become ' in text
    assert 'the same results: True' in text


@pytest.mark.row('V22')
def test_cell_that_awaits_goes_on_when_all_jobs_have_ended():
    (shown,) = shown_by('live-charts')
    smallest, largest = re.findall(r'^\w+ first: (\d+\.\d) s$', printed(shown), re.MULTILINE)
    assert float(smallest) > 0
    assert float(largest) > 0


# provisional-results


@pytest.mark.row('V10')
def test_callback_prints_records_below_its_cell_until_one_is_good_enough():
    (shown,) = shown_by('provisional-results')
    text = printed(shown)
    records = [int(found) for found in re.findall(r'^start .*: (\d+)$', text, re.MULTILINE)]
    assert records == sorted(set(records), reverse=True)
    assert records[-1] == int(re.findall(r'best tour (\d+)', text)[0])
    assert 7542 <= records[-1] <= 1.01 * 7542


def test_others_are_cancelled_once_one_is_good_enough():
    (shown,) = shown_by('provisional-results')
    told = re.search(r'(\d+) starts ended by themselves, (\d+) were cancelled', printed(shown))
    assert told is not None
    finished, cancelled = map(int, told.groups())
    assert finished + cancelled == 30
    assert finished >= 1
    assert cancelled >= 10
    assert displayed(shown, counts(30, finished, 0, cancelled))


@pytest.mark.row('V11')
def test_plot_of_the_starts_stays_as_a_picture():
    (shown,) = shown_by('provisional-results')
    (plot,) = displayed(shown, 'chart of length by step')
    assert PICTURE in plot['text/html']


# files-and-dependencies


@functools.cache
def words_of_topics() -> dict[str, Counter[str]]:
    """Count the words of each text but for those that are in more than a third of them."""
    words = {name: re.findall('[a-z]{3,}', text.lower()) for name, text in topics.items()}
    in_how_many = Counter(word for found in words.values() for word in set(found))
    usual = {word for word, times in in_how_many.items() if times > len(words) / 3}
    return {
        name: Counter(word for word in found if word not in usual) for name, found in words.items()
    }


def test_each_time_all_files_arrive_at_jobs_and_back():
    words = words_of_topics()
    for shown in shown_by('files-and-dependencies'):
        text = printed(shown)
        total = sum(count.total() for count in words.values())
        assert f'{total} words in {len(words)} topics' in text
        assert 'files that did not arrive: 0' in text
        assert f'{len(words)} reports' in text
        (line,) = re.findall('^numbers .*$', text, re.MULTILINE)
        assert line.split()[1:] == [word for word, _ in words['numbers'].most_common(8)]


# data-in-memory


def most_like(modules: list[str]) -> dict[str, tuple[str, float]]:
    """Compute without arrays which module is most like each of these."""
    files = sorted(path for path in LIBRARY.glob('*.py') if path.stat().st_size > 2000)
    words = {
        path.stem: Counter(re.findall(rb'[a-z]{3,}', path.read_bytes().lower())) for path in files
    }
    in_modules = Counter(word for count in words.values() for word in count)
    rarity = {word: math.log(len(files) / times) for word, times in in_modules.most_common(2000)}
    rows = {
        name: {word: math.log1p(n) * rarity[word] for word, n in count.items() if word in rarity}
        for name, count in words.items()
    }
    norms = {name: math.hypot(*row.values()) for name, row in rows.items()}

    def likeness(a: str, b: str) -> float:
        dot = sum(value * rows[b].get(word, 0) for word, value in rows[a].items())
        return dot / norms[a] / norms[b]

    best = {a: max((b for b in rows if b != a), key=lambda b: likeness(a, b)) for a in modules}
    return {a: (b, likeness(a, b)) for a, b in best.items()}


@pytest.mark.row('V19')
def test_data_loaded_by_setup_give_the_true_neighbours_under_jupyter_execute():
    (shown,) = shown_by('data-in-memory')
    text = printed(shown)
    rows = re.findall(r'^(\w+) +(\w+) +(\d\.\d\d)$', text, re.MULTILINE)
    assert len(rows) == 9
    true = most_like([name for name, _, _ in rows])
    for name, other, likeness in rows:
        assert (name, other) == (name, true[name][0])
        assert float(likeness) == pytest.approx(true[name][1], abs=0.006)
    assert 'the same results: True' in text


def test_setup_saves_time_and_cleanup_runs_on_each_node():
    (shown,) = shown_by('data-in-memory')
    text = printed(shown)
    times = re.search(r'a job takes (\d+) ms, without setup (\d+) ms', text)
    assert times is not None
    assert int(times[1]) < int(times[2])
    nodes = re.findall(r'^(local-\d) had \d+ modules in [\d,]+ bytes$', text, re.MULTILINE)
    assert sorted(nodes) == ['local-1', 'local-2']


# parameter-sweep

SIZES, DENSITIES, TRIALS = (8, 16, 32), [n / 100 for n in range(48, 73, 2)], 300


def gets_through(size: int, density: float, seed: int) -> bool:
    """Join open places into groups, and see whether one of them has both ends."""
    chance = random.Random(f'{size} {density} {seed}')
    places = {(x, y) for x in range(size) for y in range(size) if chance.random() < density}
    leader: dict[Any, Any] = {place: place for place in places}
    leader |= {end: end for end in ('top', 'bottom')}

    def group(place: Any) -> Any:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for x, y in places:
        ends = {0: 'top', size - 1: 'bottom'}
        for other in ((x + 1, y), (x, y + 1), ends.get(y)):
            if other in leader:
                leader[group((x, y))] = group(other)
    return group('top') == group('bottom')


@pytest.mark.row('V06', 'V19')
def test_shares_of_the_sweep_are_the_true_ones_in_order():
    (shown,) = shown_by('parameter-sweep')
    rows = re.findall(r'^ *(\d+): ([\d. ]+)$', printed(shown), re.MULTILINE)
    shares = {int(size): list(map(float, row.split())) for size, row in rows}
    assert sorted(shares) == list(SIZES)
    small = [
        sum(gets_through(8, density, seed) for seed in range(TRIALS)) / TRIALS
        for density in DENSITIES
    ]
    assert shares[8] == pytest.approx(small, abs=0.006)
    below, above = (next(n for n, p in enumerate(DENSITIES) if p > limit) for limit in (0.56, 0.62))
    assert shares[32][below - 1] < 0.5 < shares[32][above]
    assert 'the same results: True' in printed(shown)


def test_sweep_says_what_is_sent_and_its_plot_needs_no_network():
    (shown,) = shown_by('parameter-sweep')
    assert re.search(r'^sends .*gets_through \(function\)', printed(shown), re.MULTILINE)
    scripts = [o['data'].get('application/javascript', '') for o in shown if 'data' in o]
    assert any('gets through' in script for script in scripts)
    assert not any('cdn.bokeh.org/bokeh/release' in script for script in scripts)
