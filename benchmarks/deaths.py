"""How soon jobs go on after a death: `python -m benchmarks.deaths [--rounds 5] [--pulse 1]`.

    scheduler   dispyscheduler is killed, and started again at once at the same place: seconds until
                it serves, and until the first job begins that it has given out
    node        one of two nodes is killed (-9), or frozen with all that it runs: seconds until its
                job, which is reentrant, begins at the other one

Programs are real, on this machine, over local sockets.  Jobs write the moments at which they begin
into a file, in the clock that all processes of a machine share.
"""

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

import dispy_nb
from benchmarks.runner import ROOT
from benchmarks.systems.shared import Shared

LIMIT = 60.0  # seconds; then something is wrong
PULSE = 1.0  # seconds, unless others are asked for
SHORT = 0.05  # seconds that jobs take while the scheduler is killed


def marked(path: str, seconds: float) -> None:
    """Write down that a job begins, and take some time."""
    mark = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(mark, f'{time.monotonic()}\n'.encode())
    os.close(mark)
    time.sleep(seconds)


def marks(path: Path) -> list[float]:
    """When jobs began."""
    return sorted(map(float, path.read_text().split())) if path.exists() else []


def first_after(path: Path, moment: float) -> float:
    """Wait for a job that begins after a moment; how long after it."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        late = [mark for mark in marks(path) if mark > moment]
        if late:
            return late[0] - moment
        time.sleep(0.01)
    raise SystemExit(f'no job has begun within {LIMIT:g} s')


class Restarted(Shared):
    """A scheduler that is killed and started again."""

    def again(self) -> float:
        """Kill it, start another one where it was, and wait until that serves; how long it took."""
        began = time.monotonic()
        self._server.kill()
        self._server.wait()
        self.start_server(self.port, self.node_port)
        return time.monotonic() - began


def scheduler(path: Path) -> tuple[float, ...]:
    """Kill the scheduler while it has jobs to give out."""
    with Restarted('worker') as system, system.open(marked) as session:
        jobs = [session.submit(str(path), SHORT) for _ in range(400)]
        first_after(path, 0.0)
        time.sleep(1.0)  # what is handed out ahead is little by now
        killed = time.monotonic()
        served = system.again()
        # a node works off what it was given, within two jobs' time: what comes later is new
        going_on = served + first_after(path, killed + served)
        for job in jobs:
            session.result(job, LIMIT)
    return served, going_on


def node(path: Path, pulse: float, sign: signal.Signals) -> tuple[float, ...]:
    """Kill, or freeze, a node that has one of two jobs."""
    with (
        dispy_nb.LocalNodes(2, cpus=2) as local,
        dispy_nb.JobCluster(
            marked,
            nodes=local.nodes,
            ip_addr='127.0.0.1',
            isolation='worker',
            progress=False,
            pulse_interval=pulse,
            reentrant=True,
            recover_file=str(path.with_name('recover')),
        ) as cluster,
    ):
        cluster.wait_for_nodes(2, LIMIT)
        for _ in local.nodes:  # the first one at the first node, the other one at the other
            cluster.submit(str(path), LIMIT)
        while len(marks(path)) < len(local.nodes):
            time.sleep(0.01)
        time.sleep(pulse * (1 + random.random()))  # at any moment between two of them
        first = psutil.Process(local.pids[0])
        tree = [first, *first.children(recursive=True)]
        struck = time.monotonic()
        for process in tree if sign == signal.SIGSTOP else [first]:
            process.send_signal(sign)
        took = first_after(path, struck)
        for process in tree if sign == signal.SIGSTOP else ():
            process.kill()
        cluster.close(0.1, terminate=True)
    return (took,)


WHAT: Mapping[str, tuple[str, Callable[[Path, float], tuple[float, ...]]]] = {
    'scheduler': (
        'scheduler killed: until it serves, until a job begins',
        lambda path, pulse: scheduler(path),
    ),
    'killed': ('node killed: until its job begins elsewhere', partial(node, sign=signal.SIGKILL)),
    'frozen': ('node frozen: until its job begins elsewhere', partial(node, sign=signal.SIGSTOP)),
}


def rows(names: Sequence[str], rounds: int, pulse: float) -> Iterator[str]:
    """Rows of a table."""
    for name in names:
        title, measure = WHAT[name]
        found = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as directory:
                found.append(measure(Path(directory, 'marks'), pulse))
        middles = [f'{statistics.median(column):.2f}' for column in zip(*found, strict=True)]
        longest = [f'{max(column):.2f}' for column in zip(*found, strict=True)]
        yield f'| {title} | {", ".join(middles)} | {", ".join(longest)} |'


def main() -> None:
    """Print a table."""
    words = argparse.ArgumentParser('python -m benchmarks.deaths', description=__doc__)
    words.add_argument('names', nargs='*', metavar='what', help=f'of {", ".join(WHAT)}')
    words.add_argument('--rounds', type=int, default=5)
    words.add_argument('--pulse', type=float, default=PULSE, metavar='SECONDS')
    options = words.parse_args()
    os.environ.pop('PYTHONDONTWRITEBYTECODE', None)  # users do not compile at each start either
    os.environ['PYTHONPYCACHEPREFIX'] = str(ROOT / 'build' / 'compiled')
    print(f'Seconds, with pulses each {options.pulse:g} s.\n')
    print('| | median | longest |\n| --- | --- | --- |')
    for line in rows(options.names or list(WHAT), options.rounds, options.pulse):
        print(line, flush=True)


if __name__ == '__main__':
    main()
