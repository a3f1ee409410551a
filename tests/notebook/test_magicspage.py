"""The cells of the page about magics run as they stand, and print what stands below them."""

import re

import pytest

from dispy_nb.notebook.magics.table import SUBCOMMANDS
from tests.notebook.magiccells import cells_with_magics
from tests.support import pages

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

PAGE = pages.ROOT / 'docs' / 'magics.md'
_CELL = re.compile(r'^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?', re.MULTILINE | re.DOTALL)


def without_ports(text: str) -> str:
    return re.sub(r':\d{4,5} ', ':PORT ', text)


@pytest.mark.row('V01', 'V02', 'V04', 'V05', 'V06')
def test_the_cells_run_as_they_stand_and_print_what_is_said() -> None:
    cells = _CELL.findall(PAGE.read_text(encoding='utf-8'))
    assert len(cells) >= 6
    with cells_with_magics() as kernel:
        for source, wanted in cells:
            printed = kernel.cell(keep_off_the_network(source))
            assert without_ports(wanted) in without_ports(printed), source
        assert kernel.text['stdout'] == 'pi is about 3.14\n'
        assert kernel.of('job.result') == '[11, 13, 17, 19, 23, 29]'


def keep_off_the_network(source: str) -> str:
    return re.sub(
        r'(c primes|-o estimates)$', r'\1 --ip-addr 127.0.0.1', source, flags=re.MULTILINE
    )


def test_every_subcommand_is_there() -> None:
    table = pages.section(PAGE.read_text(encoding='utf-8'), 'Subcommands')
    there = {span.split()[0] for span in pages.spans(table)}
    assert set(SUBCOMMANDS) - there == set()
