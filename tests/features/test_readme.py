"""The examples of the README that need no network run as they stand, and print what is right."""

import re
from pathlib import Path

import pytest

from tests.support.programs import client_program

README = Path(__file__).resolve().parents[2] / 'README.md'

WANTED = {
    'cluster.map(': """\
2 nodes are ready
[1.0, 0.5, 0.3333333333333333, 0.25]
[1.0, ZeroDivisionError('division by zero'), 0.5]
1.0
0.5
0.3333333333333333
1.75 0
""",
    'dispy.Executor(': '1024 [1, 4, 9]\n',
    'joblib.Parallel(': '[0, 1, 4, 9, 16]\n',
    'cluster.share(': '[1000.0, 1000.0, 1000.0, 1000.0, 1000.0]\n',
}


def example(mark: str) -> str:
    """Find the one example that has these words, and keep it off the network."""
    blocks = re.findall(r'^```python\n(.*?)^```$', README.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if mark in block)
    return found.replace('nodes=local.nodes', "nodes=local.nodes, ip_addr='127.0.0.1'")


@pytest.mark.slow
@pytest.mark.row('Z01', 'Z03', 'Z04')  # and what stands beside them
@pytest.mark.parametrize('mark', WANTED)
def test_the_example_runs_as_it_stands(mark: str) -> None:
    done = client_program(example(mark), timeout=45)
    assert done.stdout == WANTED[mark]
    assert done.stderr == ''
