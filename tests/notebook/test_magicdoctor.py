"""`%dispy doctor`: the same lines as `dispy doctor`, in a kernel."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.magiccells import Cells, cells_with_magics
from tests.support.programs import free_port

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]


@pytest.fixture(scope='module')
def cells(shared_home: Path, loop_of_the_jupyter_client: None) -> Iterator[Cells]:
    """Run a kernel with a node of its own."""
    with cells_with_magics() as cells:
        cells.cell('%dispy start -c 1')
        yield cells


@pytest.fixture(scope='module')
def node(cells: Cells) -> str:
    """Where that node listens."""
    cells.cell('from dispy_nb import local')
    return cells.of("'%s:%d' % local.running_nodes()[0].nodes[0]").strip("'")


def options() -> str:
    return f'--port {free_port()} --node-port {free_port()}'


@pytest.mark.row('V05', 'Z07')
def test_the_lines_and_the_object_are_those_of_the_command(cells: Cells, node: str) -> None:
    host, _, port = node.partition(':')
    shown = cells.cell(f'%dispy doctor {node} {options()}')
    lines = shown.splitlines()
    assert lines[0] == 'this machine'
    assert f'{host} port {port}' in lines
    assert f'  ok       UDP port {port}: answers' in lines
    assert '; held by nobody' in shown
    assert ' checks: ' in lines[-1]
    found = json.loads(cells.cell(f'%dispy doctor {node} {options()} --json'))
    assert found['status'] == 0
    bad = json.loads(cells.cell(f'%dispy doctor {node} {options()} --json --certfile nowhere'))
    assert bad['status'] == 78
    assert {each['where'] for each in found['findings']} == {
        *('this machine', f'{host} port {port}', 'the local network')
    }


def test_an_interrupted_cell_ends_it(cells: Cells) -> None:
    cells.begin(f'%dispy doctor 127.0.0.1:1 {options()} --timeout 30')
    cells.hear_until(lambda: 'this machine' in cells.text['stdout'])
    assert 'KeyboardInterrupt' in cells.interrupt()
    threads = cells.of('[each.name for each in __import__("threading").enumerate()]')
    assert 'dispy-doctor' not in threads
