"""`dispy demo`: the main job on this machine alone, with real input, and nothing left of it."""

import ast
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import psutil
import pytest

from dispy_nb import demo
from tests.support.programs import Program, eventually, program
from tests.support.terminal import on_terminal

LIMIT = 60
DEMO = (sys.executable, '-m', 'dispy_nb', 'demo', '--nodes', '2', '--cpus', '1')
SOON = 8.0  # seconds; it is less than one when the machine has nothing else to do


def run_demo(*options: object) -> subprocess.CompletedProcess[str]:
    command = [*DEMO, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def number_of(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f'{pattern!r} in\n{text}'
    return int(found[1].replace(',', ''))


def parsed(file: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return ast.parse((demo.LIBRARY / file).read_bytes())
        except (SyntaxError, ValueError):
            return None


@pytest.mark.slow
@pytest.mark.row('Z14', 'Z13')
def test_demo_tells_what_nodes_have_found_in_the_library():
    began = time.monotonic()
    done = run_demo('--limit', LIMIT)
    assert (done.returncode, done.stderr) == (0, ''), done.stdout
    assert time.monotonic() - began < 60

    trees = {file: parsed(file) for file in demo.library_files(LIMIT)}
    assert len(trees) == LIMIT
    good = {file: tree for file, tree in trees.items() if tree is not None}
    functions = sum(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for tree in good.values()
        for node in ast.walk(tree)
    )
    assert number_of(r'([\d,]+) functions', done.stdout) == functions
    assert number_of(r'functions in ([\d,]+) files', done.stdout) == len(good)
    assert number_of(r'files that failed: (\d+)', done.stdout) == LIMIT - len(good)
    assert [file for file in trees if file not in good and file not in done.stdout] == []

    best = max(found for file, tree in good.items() for found in demo.functions_of(tree, file))
    assert f'{best.complexity:6}  {best.name}  {best.file}:{best.line}' in done.stdout
    assert done.stdout.count('most complex so far') > 1
    shares = re.findall(r'^local-[12] .*\| +(\d+) \| +[\d.]+ \| +[\d.]+$', done.stdout, re.M)
    assert len(shares) == 2
    assert sum(map(int, shares)) == LIMIT
    assert 'the same results' in done.stdout
    assert re.search(r'times as fast', done.stdout)


@pytest.mark.slow
def test_demo_shows_one_line_of_progress_on_a_terminal():
    done = on_terminal([*DEMO, '--limit', '40'])
    assert re.search(r'\r\x1b\[Kmeasure \|█*·*\| \d+/40, ', done)
    # what the callback prints stands on lines of its own
    assert re.findall(r'[^\n\r\x1b\[K]most complex so far', done) == []
    last = [line for line in done.splitlines() if 'measure |' in line][-1]
    assert '| 40/40, ' in last.rpartition('\r')[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_demo_ends_soon_and_takes_its_nodes_along(
    number: signal.Signals, status: int, own_home: Path
):
    with program(*DEMO) as running:
        running.wait_for_log('most complex so far', 30)
        nodes = psutil.Process(running.pid).children(recursive=True)
        assert len(nodes) >= 2
        running.signal(number)
        assert running.wait(SOON) == status
        assert_nothing_left(nodes, own_home)
    assert running.errors() == ''


@pytest.mark.slow
def test_demo_interrupted_while_nodes_start_leaves_none(own_home: Path):
    with program(*DEMO) as running:
        nodes = eventually(lambda: node_servers(running), 20)
        running.signal(signal.SIGINT)
        assert running.wait(SOON) == 130
        assert_nothing_left(nodes, own_home)
    assert 'Traceback' not in running.log()


def node_servers(running: Program) -> list[psutil.Process]:
    return psutil.Process(running.pid).children()


def assert_nothing_left(processes: list[psutil.Process], home: Path) -> None:
    _, alive = psutil.wait_procs(processes, timeout=SOON)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert [str(path) for path in (home / 'tmp').rglob('*') if not path.is_dir()] == []


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--nodes', '0'], 'from 1 on'),
        (['--limit', 'few'], "'few' is not a whole number"),
        (['--cpus', '100000'], 'cpus must be from 1 to'),
    ],
)
def test_demo_refuses_senseless_numbers_in_one_line(options: list[str], words: str):
    done = run_demo(*options)
    assert done.returncode == 2
    assert done.stdout == ''
    assert words in done.stderr
    assert done.stderr.count('\n') == 1


def test_complexity_counts_the_ways_through_a_function():
    source = textwrap.dedent("""
        if True: pass
        def straight(): return 1
        async def forked(a, b):
            async for x in a:
                while b or x and a: b = 1 if x else 2
            try: pass
            except ValueError: pass
            def inner():
                if a: return [y for y in b if y if not y]
            match a:
                case 1: pass
                case _: pass
    """)
    found = {f.name: (f.complexity, f.line) for f in demo.functions_of(ast.parse(source), 'x.py')}
    assert found == {'straight': (1, 3), 'forked': (9, 4), 'inner': (5, 9)}
