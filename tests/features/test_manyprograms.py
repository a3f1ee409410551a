"""Many programs at one dispyscheduler at once: real connections from a few processes."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.features.test_schedulerrestart import Place
from tests.support.programs import ROOT, all_entered, free_port, node_program, program

PROCESSES, SESSIONS, JOBS = 3, 40, 2

# Each session has a loop, a link and a cluster of its own, as one program has.
SOURCE = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from tests.support.sharedclients import client
from tests.features.test_dispyscheduler import double

place, port, node_port, count, jobs = sys.argv[1], *map(int, sys.argv[2:])
with ExitStack() as stack:
    options = {'node_port': node_port, 'nodes': ('127.0.0.2',)}
    clients = [stack.enter_context(client(port, double, **options)) for _ in range(count)]
    while not all(each.connected for each in clients):
        time.sleep(0.01)
    print('connected', flush=True)
    while not Path(place, 'go').exists():
        time.sleep(0.01)
    wanted = [[each.submit(job) for job in range(jobs)] for each in clients]
    for each, ids in zip(clients, wanted):
        assert [each.result(job, 60) for job in ids] == [2 * job for job in range(jobs)]
    for each in clients:
        each.close()
print('all have theirs', flush=True)
"""


@pytest.mark.slow
@pytest.mark.row('B02')
def test_a_hundred_and_twenty_programs_at_once_have_the_results_of_their_own_jobs(
    own_home: Path,
) -> None:
    place, node_port = Place(own_home), free_port()
    with ExitStack() as stack:
        stack.enter_context(node_program('-i', '127.0.0.2', '-p', node_port, '-c', 1))
        scheduler = stack.enter_context(place.scheduler())
        words = own_home, place.port, node_port, SESSIONS, JOBS
        command = sys.executable, '-c', SOURCE, *words
        blocks = [program(*command, env={'PYTHONPATH': str(ROOT)}) for _ in range(PROCESSES)]
        running = all_entered(stack, *blocks)
        for each in running:
            each.wait_for_log('connected', 60)
        (own_home / 'go').touch()
        for each in running:
            assert each.wait(120) == 0, each.log()
            assert 'all have theirs' in each.output()
        assert 'Traceback' not in scheduler.log()
    assert list(place.state.iterdir()) == []
