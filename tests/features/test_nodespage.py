"""The programs of the page about nodes run as they stand, and print what is right."""

import re
from pathlib import Path

import pytest

from tests.support.programs import client_program

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'nodes.md'

WANTED = {
    'FilterNodeAllocate': '[1, 1]\n[0, 1, 4, 9, 16]\n',
    'close_node(': """\
2 of 2
1 0
none of its cpus are to be used; `set_node_cpus()` gives it some
2 True
0
0
False
0 True
0 -1
""",
    'done.wait': '[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n',
}
SAID = {'close_node(': 'where: close_node(): no node 10.99.99.99 is known to this cluster'}


def example(mark: str) -> str:
    """Find the one program that has these words, and keep it off the network."""
    blocks = re.findall(r'^```python\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if mark in block)
    return re.sub(r'nodes=(local\.nodes|nodes|\[first\])', r"nodes=\1, ip_addr='127.0.0.1'", found)


@pytest.mark.slow
@pytest.mark.row('E06', 'C10', 'C15')
@pytest.mark.parametrize('mark', WANTED)
def test_the_program_runs_as_it_stands(mark: str) -> None:
    done = client_program(example(mark), timeout=45)
    assert done.stdout == WANTED[mark], done.stderr
    assert SAID.get(mark, '') in done.stderr
