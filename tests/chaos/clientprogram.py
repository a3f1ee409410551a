"""A client that is killed again and again: each time it goes on where the one before was.

Run as a program: `clientprogram.py LEDGER NAME KIND JOBS PLACE ...`, where KIND is `shared` or
`embedded`, with `+reentrant` where its jobs are, and PLACE the scheduler's or the nodes' address.
"""

import itertools
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import dispy_nb as dispy
from dispy_nb.recovery.attaching import candidates
from nodeserver.core.status import SETTLED

LEDGER, NAME, KIND, COUNT = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
PLACES = sys.argv[5:]
MOST_PENDING = 40
PULSE = 1.0


def work(number: int, seconds: float, ledger: str, name: str) -> int:
    """Write down that it began, and take some time."""
    line = f'{name} {number}\n'.encode()
    descriptor = os.open(f'{ledger}/starts', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line)
    os.close(descriptor)
    time.sleep(seconds)
    return number


def note(line: str) -> None:
    """Write a line of this client's account."""
    descriptor = os.open(LEDGER / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f'{line}\n'.encode())
    os.close(descriptor)


def ended(job: Any) -> None:
    """Write down how a job has ended; its callback."""
    if job.status in SETTLED:
        if job.status == dispy.DispyJob.Finished and job.result != job.id:
            note(f'S {job.id} WRONG-{job.result}')
        note(f'S {job.id} {job.status.name}')


def is_left() -> bool:
    """Whether there is a cluster of before to attach to."""
    found, problems = candidates()
    for problem in problems:
        print('PROBLEM', problem, flush=True)
    return NAME in [each.name for each in found]


def open_cluster() -> Any:
    """The cluster of before, or at the very beginning a new one."""
    if is_left():
        cluster = dispy.attach(NAME, callback=ended)
        for job in cluster.attached_jobs:
            if job.status in SETTLED:
                ended(job)
        return cluster
    common: dict[str, Any] = {
        'name': NAME,
        'callback': ended,
        'reentrant': KIND.endswith('+reentrant'),
        'progress': False,
    }
    if KIND.startswith('shared'):
        return dispy.SharedJobCluster(work, scheduler_node=PLACES[0], port=0, **common)
    return dispy.JobCluster(work, nodes=PLACES, pulse_interval=PULSE, **common)


def accepted() -> int:
    """The last job that this client was told is accepted, in all of its lives."""
    account = LEDGER / NAME
    lines = account.read_text(encoding='ascii').splitlines() if account.exists() else []
    return max((int(line[2:]) for line in lines if line.startswith('A ')), default=0)


def main() -> None:
    """Submit the jobs that are left, and wait for all of them."""
    before = accepted()
    if before >= COUNT and not is_left():  # it was killed while it closed
        note('DONE')
        return
    cluster = open_cluster()
    rng = random.Random()
    while cluster._next < COUNT:
        if cluster.snapshot().pending >= MOST_PENDING:
            time.sleep(0.05)
            continue
        first = cluster._next + 1
        for number in range(first, min(first + rng.randint(1, 8), COUNT + 1)):
            seconds = rng.choice((0.01, 0.1, 0.3, 1.0))
            cluster.submit(number, seconds, str(LEDGER), NAME)
        settle_outbox(cluster)
        for number in range(first, cluster._next + 1):
            note(f'A {number}')
        time.sleep(rng.random() * 0.3)
    cluster.wait()
    cluster.close()
    note('DONE')


def settle_outbox(cluster: Any) -> None:
    """Return when what was submitted has been written down: until then a kill takes it back."""
    for _ in itertools.repeat(None, 2):
        cluster._runtime.call(cluster._runtime._drain_whole_outbox)


if __name__ == '__main__':
    main()
