"""Waiting shows one line on a terminal, and nothing anywhere else unless asked (V19)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import client_program
from tests.support.terminal import COLUMNS, on_terminal

SCRIPT = """
import sys
import dispy_nb as dispy

def slow(number):
    import time
    time.sleep(0.06)
    assert number != 3

def tell(job):
    if job.id in (2, 5):
        print('callback of', job.id, flush=True)

with dispy.LocalNodes(2, cpus=1) as nodes:
    where = {'nodes': nodes.nodes, 'ip_addr': '127.0.0.1', 'port': 0}
    with dispy.JobCluster(slow, callback=tell, **where{more}) as cluster:
        jobs = [cluster.submit(number) for number in range(20)]
        cluster.wait()
    assert isinstance(sys.stdout, type(sys.__stdout__))
print('end')
"""
PLAIN = SCRIPT.replace('{more}', '')
ASKED = SCRIPT.replace('{more}', ', progress=True')
LINES = r'\r\x1b\[K(slow \|[^\r\n]*)'


@pytest.mark.slow
@pytest.mark.row('V19')
@pytest.mark.parametrize('shell', [[], ['-m', 'IPython', '--no-banner', '--simple-prompt']])
def test_waiting_shows_one_line_on_a_terminal(shell: list[str], tmp_path: Path):
    script = tmp_path / 'script.py'
    script.write_text(PLAIN, encoding='utf-8')
    said = on_terminal([sys.executable, *shell, str(script)])
    lines = re.findall(LINES, said)
    assert len(lines) > 2, said
    assert '| 20/20, 1 failed, ' in lines[-1]
    assert max(map(len, lines)) < COLUMNS
    # \x07 ends the title that IPython gives the window
    # what a callback prints meanwhile stands above, undisturbed, and the line comes back
    assert re.search(r'(^|\x1b\[K|\n|\x07)callback of 2\n', said)
    assert said.count('\nend\n') == 1
    # one line that moves: only the last one is followed by the next
    assert len(re.findall(r'\| \d+/20, [^\r]*\n', said)) == 1


@pytest.mark.slow
@pytest.mark.row('V19', 'Z13')
def test_waiting_says_nothing_without_a_terminal():
    done = client_program(PLAIN)
    assert done.stderr == ''
    assert done.stdout.splitlines()[-1] == 'end'
    assert 'slow' not in done.stdout


@pytest.mark.slow
@pytest.mark.row('V19')
def test_ipython_without_a_terminal_says_nothing_either(tmp_path: Path):
    script = tmp_path / 'script.py'
    script.write_text(PLAIN, encoding='utf-8')
    done = subprocess.run(
        [sys.executable, '-m', 'IPython', '--no-banner', str(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    assert done.stderr == ''
    assert 'slow' not in done.stdout


@pytest.mark.slow
def test_plain_lines_come_where_they_are_asked_for():
    done = client_program(ASKED)
    assert re.search(r'^slow: 20/20, 1 failed, .* jobs/s, 0:0\d, 2 nodes$', done.stderr, re.M)
    assert '\r' not in done.stderr


@pytest.mark.slow
def test_cluster_is_text_in_a_terminal_ipython(tmp_path: Path):
    script = tmp_path / 'script.py'
    script.write_text(PLAIN.replace("print('end')", 'display(cluster)'), encoding='utf-8')
    said = on_terminal([sys.executable, '-m', 'IPython', '--no-banner', str(script)])
    shown = said[said.rindex('slow |') :]
    assert '20 created, 0 waiting, 0 running, 19 finished, 1 failed, 0 cancelled' in shown
    assert 'local-1 (127.0.0.1)' in shown
