"""A node is away when its cluster is closed, and the scheduler dies before it can tell it."""

import shutil
import signal
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from nodeserver.io.schedulerstate import FILE
from nodeserver.io.spool import DIRECTORY
from tests.features.test_dispyscheduler import shared
from tests.features.test_schedulerrestart import Place, noted, starts
from tests.support.programs import eventually, free_port, node_program

pytestmark = pytest.mark.slow


def untold(state: Path, copy: Path) -> int:
    """How many closed computations are on record: of a copy, as a scheduler has it for itself."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    with closing(sqlite3.connect(copy / FILE)) as connection:
        return int(connection.execute('SELECT count(*) FROM closed').fetchone()[0])


@pytest.mark.row('I05')
def test_a_node_that_hung_at_the_close_is_told_by_the_scheduler_after_the_one_that_was_killed(
    own_home: Path, tmp_path: Path
) -> None:
    place, spool = Place(own_home), tmp_path / DIRECTORY
    nodes = free_port()
    options: dict[str, Any] = {'node_port': nodes, 'nodes': ['127.0.0.2']}
    with ExitStack() as stack:
        at = ('-i', '127.0.0.2', '-p', nodes, '-c', 1, '--dest_path_prefix', tmp_path)
        node = stack.enter_context(node_program(*at))
        first = stack.enter_context(place.scheduler('--pulse_interval', 1))
        with shared(place.port, noted, **options) as cluster:
            cluster.submit(str(own_home), 0, 0.0)
            eventually(lambda: starts(own_home)[0] == 1)
            node.signal(signal.SIGSTOP)
            (own_home / 'gate').touch()  # so that it has ended when the node looks again
        first.kill()
        first.wait()
        node.signal(signal.SIGCONT)
        eventually(lambda: list(spool.glob('*')), 30, node.log)
        assert untold(place.state, tmp_path / 'copy') == 1
        second = stack.enter_context(place.scheduler())
        eventually(lambda: not list(spool.glob('*')), 20, second.log)
        eventually(lambda: untold(place.state, tmp_path / 'copy') == 0)
        second.signal(signal.SIGTERM)
        second.wait()
        assert 'Traceback' not in first.log() + second.log() + node.log()
    assert not (place.state / FILE).exists()
