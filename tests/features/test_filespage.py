"""The program of the page about files runs as it stands, and prints what is written there."""

import re

import pytest

from tests.support.pages import ROOT
from tests.support.programs import client_program

PAGE = ROOT / 'docs' / 'files.md'


@pytest.mark.row('F07', 'H01', 'H07')
def test_the_program_runs_as_it_stands() -> None:
    found = re.search(r'```python\n(.*?)```\n\n```text\n(.*?)```', PAGE.read_text(), re.DOTALL)
    assert found is not None
    source = found[1].replace('nodes=local.nodes', "nodes=local.nodes, ip_addr='127.0.0.1'")
    done = client_program(source, timeout=45)
    assert (done.stdout, done.stderr) == (found[2], '')
