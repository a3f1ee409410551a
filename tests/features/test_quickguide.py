"""The program of the quick guide runs as it stands, but for its import line (row U02)."""

import re
from contextlib import ExitStack

import pytest

from tests.support.netns import Lan
from tests.support.programs import client_program, node_program

QUICK_GUIDE = """
# 'compute' is distributed to each node running 'dispynode'
def compute(n):
    import time, socket
    time.sleep(n)
    host = socket.gethostname()
    return (host, n)

if __name__ == '__main__':
    import dispy, random
    cluster = dispy.JobCluster(compute)
    jobs = []
    for i in range(10):
        # schedule execution of 'compute' on a node (running 'dispynode')
        # with a parameter (random number in this case)
        job = cluster.submit(random.randint(5,20))
        job.id = i # optionally associate an ID to job (if needed later)
        jobs.append(job)
    # cluster.wait() # waits for all scheduled jobs to finish
    for job in jobs:
        host, n = job() # waits for job to finish and returns results
        print('%s executed job %s at %s with %s' % (host, job.id, job.start_time, n))
        # other fields of 'job' that may be useful:
        # print(job.stdout, job.stderr, job.exception, job.ip_addr, job.start_time, job.end_time)
    cluster.stats()
"""
# the import line is this package's; a test has no minute to sleep away, so its unit is shorter
CHANGES = {
    'import dispy, random': 'import dispy_nb as dispy, random',
    'time.sleep(n)': 'time.sleep(n / 40)',
}


def changed() -> str:
    source = QUICK_GUIDE
    for old, new in CHANGES.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    return source


@pytest.mark.row('U02')
@pytest.mark.row('L01')
@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize('addresses', [('127.0.0.2', '127.0.0.3'), ('127.0.0.2',), ()])
def test_the_quick_guide_runs_against_nodes_started_by_hand(addresses: tuple[str, ...]) -> None:
    """Nodes with default ports, at addresses of one machine or (last case) without any option."""
    with Lan(1) as lan, ExitStack() as stack:
        within = lan[0].command([])
        for options in [('-i', address) for address in addresses] or [()]:
            stack.enter_context(node_program(*options, within=within))
        done = client_program(changed(), within=within)
    assert done.stderr == ''
    lines = done.stdout.splitlines()
    ran = [
        re.fullmatch(r'h0 executed job (\d) at \d+\.\d+ with (\d+)', line) for line in lines[:10]
    ]
    assert [match and match[1] for match in ran] == [str(number) for number in range(10)]
    assert all(5 <= int(match[2]) <= 20 for match in ran if match)
    # the statistics: a line for each node, with its jobs
    ran_on = dict(re.findall(r'^h0 \((\S+)\) +\| +\d+ \| +(\d+) \|', done.stdout, re.MULTILINE))
    assert ran_on.keys() == set(addresses or ('127.0.0.1',)), done.stdout
    assert sum(map(int, ran_on.values())) == 10
    assert min(map(int, ran_on.values())) > 0
    assert 'Total job time: ' in lines[-1]
