"""Sending files: many small ones beside `tar`, a large one to two nodes, and jobs meanwhile.

    python -m benchmarks.files [rounds]

`sent` means that the nodes cannot reach the sender's files, so that all of it crosses the link;
`copied` means that they can, as on this machine, and copy them.  Trust the ratios.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import dispy_nb as dispy
from nodeserver.wire import session

SMALL, SMALL_SIZE = 1_000, 4_096
LARGE_SIZE = 1 << 30
HERE = Path('/proc/self/cwd')  # means another directory in each process
_MB = 1e6


def nothing() -> None:
    """Do nothing."""


class Traffic:
    """Counts the bytes that this program's sessions hand to their sockets."""

    def __init__(self) -> None:
        self.sent = 0
        self._due = session.Session.due

    def __enter__(self) -> 'Traffic':
        due, count = self._due, self._count

        def counting(session: session.Session) -> list[list[Any]]:
            return count(due(session))

        session.Session.due = counting  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        session.Session.due = self._due  # type: ignore[method-assign]

    def _count(self, envelopes: list[list[Any]]) -> list[list[Any]]:
        self.sent += sum(len(frame) for envelope in envelopes for frame in envelope)
        return envelopes


@contextmanager
def _in_directory() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix='bench') as directory:
        os.chdir(directory)
        try:
            yield Path(directory)
        finally:
            os.chdir(before)


# many small files


def _make_small() -> list[str]:
    Path('data').mkdir()
    names = [f'data/part-{number:04}.dat' for number in range(SMALL)]
    for name in names:
        Path(name).write_bytes(os.urandom(SMALL_SIZE))
    return names


def _tar_seconds() -> float:
    """One stream of `tar` over a loopback connection, from its start to the last file written."""
    with (
        tempfile.TemporaryDirectory(prefix='bench') as there,
        socket.create_server(('127.0.0.1', 0)) as server,
    ):
        started = time.perf_counter()
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        packing = subprocess.Popen(['tar', '-cf', '-', 'data'], stdout=near.fileno())
        unpacking = subprocess.Popen(['tar', '-xf', '-', '-C', there], stdin=far.fileno())
        near.close()
        far.close()
        if packing.wait() or unpacking.wait():
            raise SystemExit('tar has failed')
        seconds = time.perf_counter() - started
        if len(list(Path(there, 'data').iterdir())) != SMALL:
            raise SystemExit('files are missing after tar')
    return seconds


def _ready_seconds(nodes: list[Any], depends: list[Any], **options: Any) -> float:
    """Make a cluster and wait until its first node is ready."""
    started = time.perf_counter()
    with dispy.JobCluster(nothing, nodes=nodes, depends=depends, **options) as cluster:
        cluster.wait_for_nodes(1, timeout=60)
        return time.perf_counter() - started


def small(nodes: list[Any], say: Callable[[str, float, str], None]) -> None:
    """Measure 1,000 files of 4 kB."""
    with _in_directory():
        names = _make_small()
        tar = _tar_seconds()
        say('tar', tar * 1e3, 'ms')
        without = _ready_seconds(nodes, [])
        for words, depends in (
            ('sent', [HERE / 'data']),
            ('copied', ['data']),
        ):
            took = _ready_seconds(nodes, depends) - without
            say(f'{words}: longer until ready than without files', took * 1e3, 'ms')
            say(f'{words}: ratio to tar', took / tar, 'x')
        whole = SMALL * SMALL_SIZE
        kept: dict[str, Any] = {'dest_path': f'kept-{os.getpid()}', 'cleanup': False}
        cases: tuple[tuple[str, dict[str, Any]], ...] = (('kept', kept), ('open', {}))
        for words, options in cases:
            with Traffic() as traffic:
                first = dispy.JobCluster(nothing, nodes, depends=[HERE / 'data'], **options)
                first.wait_for_nodes(1, timeout=60)
                if words == 'kept':
                    first.close()
                before = traffic.sent
                _ready_seconds(nodes, [HERE / 'data'], **options)
                first.close()
            part = (traffic.sent - before) / whole
            say(f'second cluster, the first {words}: bytes sent', 100 * part, '%')
        if len(names) != SMALL:
            raise SystemExit('files are missing')


# one large file


class Growth:
    """The most resident memory that processes have while something happens, above the beginning."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self._before = [process.memory_info().rss for process in processes]
        self.most = [0] * len(processes)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._done.wait(0.02):
            for place, process in enumerate(self._processes):
                grown = process.memory_info().rss - self._before[place]
                self.most[place] = max(self.most[place], grown)

    def __enter__(self) -> 'Growth':
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def _make_large() -> None:
    block = os.urandom(1 << 20)
    with Path('large.bin').open('wb') as file:
        for number in range(LARGE_SIZE >> 20):
            file.write(number.to_bytes(8, 'little') + block[8:])


def _send_to_all(cluster: dispy.JobCluster, path: Path, nodes: list[dispy.DispyNode]) -> float:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda node=node: answers.append(cluster.send_file(path, node)))
        for node in nodes
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if answers != [0] * len(nodes):
        raise SystemExit(f'the file was not sent: {answers}')
    return seconds


def large(
    nodes: list[Any], processes: list[psutil.Process], say: Callable[[str, float, str], None]
) -> None:
    """Measure 1 GB to two nodes, and how long a job takes meanwhile."""
    with _in_directory():
        _make_large()
        for words, path in (('sent', HERE / 'large.bin'), ('copied', Path('large.bin'))):
            with dispy.JobCluster(nothing, nodes=nodes) as cluster:
                used = cluster.wait_for_nodes(2, timeout=60)
                cluster.send_file(path.parent / _small_file(), used[0])  # what is made once
                lone = _job_seconds(cluster, 20)
                meanwhile: list[float] = []
                with Growth([psutil.Process(), *processes]) as growth:
                    done = threading.Event()
                    watching = threading.Thread(target=_watch, args=(cluster, done, meanwhile))
                    seconds = _send_to_all(cluster, path, used)
                    done.set()
                say(f'{words}: in total', 2 * LARGE_SIZE / seconds / _MB, 'MB/s')
                say(f'{words}: most memory that the program has grown', growth.most[0] / _MB, 'MB')
                say(f'{words}: the same of a node', max(growth.most[1:]) / _MB, 'MB')
                done = threading.Event()
                watching = threading.Thread(target=_watch, args=(cluster, done, meanwhile))
                watching.start()
                _send_to_all(cluster, path, used)
                done.set()
                watching.join()
                say(f'{words}: a job alone', lone * 1e3, 'ms')
                if meanwhile:
                    say(f'{words}: a job meanwhile', statistics.median(meanwhile) * 1e3, 'ms')
                    say(f'{words}: the slowest of them', max(meanwhile) * 1e3, 'ms')


def _small_file() -> str:
    Path('small.bin').write_bytes(b'x')
    return 'small.bin'


def _job_seconds(cluster: dispy.JobCluster, count: int) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        cluster.submit()()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _watch(cluster: dispy.JobCluster, done: threading.Event, times: list[float]) -> None:
    while not done.wait(0.05):
        times.append(_job_seconds(cluster, 1))


def main() -> None:
    """Measure in rounds, and print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, tuple[list[float], str]] = {}

    def say(what: str, figure: float, unit: str) -> None:
        found.setdefault(what, ([], unit))[0].append(figure)
        print(f'  {what}: {figure:.1f} {unit}', file=sys.stderr)

    with dispy.LocalNodes(2, cpus=1) as local:
        processes = psutil.Process().children()
        for number in range(1, rounds + 1):
            print(f'round {number}', file=sys.stderr)
            small(local.nodes[:1], say)
            large(local.nodes, processes, say)
    print(f'| | median of {rounds} | least | most |\n|---|---|---|---|')
    for what, (figures, unit) in found.items():
        middle = statistics.median(figures)
        print(f'| {what} | {middle:.1f} {unit} | {min(figures):.1f} | {max(figures):.1f} |')


if __name__ == '__main__':
    main()
