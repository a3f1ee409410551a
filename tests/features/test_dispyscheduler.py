"""dispyscheduler as a program: whom it serves, what it says, and how it ends (section M)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.programs import Program, eventually, free_port, node_program, program
from tests.support.sharedclients import client


@contextmanager
def scheduler(*options: object, **more: Any) -> Iterator[tuple[Program, int]]:
    """Run dispyscheduler on ports of its own; answers with it and the port for programs."""
    port, nodes_port = free_port(), free_port()
    command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1')
    ports = ('--scheduler_port', port, '--port', nodes_port)
    with program(*command, *ports, *options, ready='serving', **more) as running:
        yield running, port


def double(x: int) -> int:
    return 2 * x


@pytest.mark.row('M01')
def test_it_runs_jobs_of_programs_at_nodes(own_home: Any) -> None:
    node_port = free_port()
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 2),
        scheduler() as (_, port),
        client(port, double, node_port=node_port) as one,
    ):
        eventually(lambda: one.connected)
        assert [one.result(one.submit(n)) for n in range(5)] == [0, 2, 4, 6, 8]
        one.close()
