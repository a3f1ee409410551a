"""The programs of the page about files run as they stand, and print what it says."""

import re
from pathlib import Path

import pytest

from tests.support.programs import client_program

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'files.md'


def examples() -> list[tuple[str, str]]:
    """Find the programs, each with what it prints, and keep them off the network."""
    pairs = re.findall(
        r'^```python\n(.*?)^```$\n\n^```text\n(.*?)^```$',
        PAGE.read_text(encoding='utf-8'),
        re.MULTILINE | re.DOTALL,
    )
    return [(p.replace('local.nodes', "local.nodes, ip_addr='127.0.0.1'"), t) for p, t in pairs]


@pytest.mark.slow
@pytest.mark.parametrize('place', [0, 1])
def test_the_program_runs_as_it_stands(own_home: Path, place: int) -> None:
    program, printed = examples()[place]
    assert client_program(program, timeout=45).stdout == printed
