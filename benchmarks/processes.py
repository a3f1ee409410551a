"""No-op jobs per second on the processes of one node, beside `multiprocessing.Pool`.

    python -m benchmarks.processes [rounds]

Each round measures both in turn; trust the ratios, not the figures.
"""

import asyncio
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeserver.core.effects import ForkWorkers, GiveJobs, OpenTemplate
from nodeserver.core.events import Event, JobsReported, TemplateReady, WorkerForked
from nodeserver.io.procs import Processes
from nodeserver.payload import dump_call, dump_package

CPUS = 2
BATCH = 64
IN_FLIGHT = 2  # batches that a lasting worker has at most


def nothing(x: int) -> int:
    """Do what a no-op job does."""
    return x


class Driver:
    """Keeps two cpus busy, as the core of a node does."""

    def __init__(self, isolation: str, jobs: int) -> None:
        self._isolation = isolation
        self._left = deque(range(1, jobs + 1))
        self._payload = dump_call((1,), {})
        self._due = jobs
        self._held: dict[int, int] = {}
        self._idle: deque[int] = deque()
        self._ready = asyncio.Event()
        self._done = asyncio.Event()
        self._prefix = tempfile.TemporaryDirectory()
        loop = asyncio.get_running_loop()
        self._processes = Processes(loop, self._post, Path(self._prefix.name), 'bench', '')

    async def measure(self) -> float:
        """Answer jobs per second."""
        self._processes.start()
        package = dump_package(nothing)
        self._processes.open_template(OpenTemplate(1, 'bench', package, self._isolation, '', True))
        await self._ready.wait()
        jobs, started = self._due, time.perf_counter()
        self._processes.fork_workers(ForkWorkers(1, CPUS * (2 if self._isolation == 'job' else 1)))
        await self._done.wait()
        seconds = time.perf_counter() - started
        await self._processes.aclose()
        self._prefix.cleanup()
        return jobs / seconds

    def _post(self, event: Event) -> None:
        if isinstance(event, TemplateReady):
            self._ready.set()
        elif isinstance(event, WorkerForked):
            self._idle.append(event.worker)
            self._give_idle()
        elif isinstance(event, JobsReported):
            self._reported(event)

    def _reported(self, event: JobsReported) -> None:
        self._due -= len(event.ids)
        self._held[event.worker] -= len(event.ids)
        if not self._due:
            self._done.set()
        elif self._isolation == 'worker':
            while self._left and self._held[event.worker] <= BATCH * (IN_FLIGHT - 1):
                self._give(event.worker, BATCH)
        else:
            del self._held[event.worker]
            self._give_idle()

    def _give_idle(self) -> None:
        if self._isolation == 'worker':
            worker = self._idle.popleft()
            self._held[worker] = 0
            for _ in range(IN_FLIGHT):
                self._give(worker, BATCH)
            return
        while self._idle and self._left and len(self._held) < CPUS:
            self._give(self._idle.popleft(), 1)
            self._processes.fork_workers(ForkWorkers(1, 1))

    def _give(self, worker: int, count: int) -> None:
        ids = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        if ids:
            self._held[worker] = self._held.get(worker, 0) + len(ids)
            order = GiveJobs(1, worker, ids, [1] * len(ids), [self._payload] * len(ids))
            self._processes.give_jobs(order)


async def ours(isolation: str, jobs: int) -> float:
    """Answer the jobs per second of `Processes`."""
    return await Driver(isolation, jobs).measure()


def pool(jobs: int, tasks: int | None) -> float:
    """Answer the jobs per second of a pool, each submitted by `apply_async`."""
    workers = multiprocessing.get_context('fork').Pool(CPUS, maxtasksperchild=tasks)
    workers.apply(nothing, (1,))
    started = time.perf_counter()
    for answer in [workers.apply_async(nothing, (1,)) for _ in range(jobs)]:
        answer.get()
    seconds = time.perf_counter() - started
    workers.close()
    workers.join()
    return jobs / seconds


@dataclass
class Figures:
    """What one measurement gave; CPU time is that of all processes, user and system."""

    jobs_per_second: float
    cpu_us_per_job: float


def measured(run: Callable[[int], float], jobs: int) -> Figures:
    """Measure one of the two."""
    before = cpu_seconds()
    rate = run(jobs)
    return Figures(rate, (cpu_seconds() - before) / jobs * 1e6)


def cpu_seconds() -> float:
    """Answer what this process and its ended children have used."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def rounds(count: int) -> Iterator[tuple[str, Figures, Figures]]:
    """Measure in turn: (isolation, ours, pool's)."""
    for _ in range(count):
        yield (
            'job',
            measured(lambda jobs: asyncio.run(ours('job', jobs)), 1000),
            measured(lambda jobs: pool(jobs, 1), 500),
        )
        yield (
            'worker',
            measured(lambda jobs: asyncio.run(ours('worker', jobs)), 50_000),
            measured(lambda jobs: pool(jobs, None), 20_000),
        )


def main() -> None:
    """Print each round, and the median of the ratios."""
    ratios: dict[str, list[tuple[float, float]]] = {'job': [], 'worker': []}
    for isolation, mine, theirs in rounds(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        rate = mine.jobs_per_second / theirs.jobs_per_second
        cpu = mine.cpu_us_per_job / theirs.cpu_us_per_job
        ratios[isolation].append((rate, cpu))
        print(f'{isolation:7}{_line(mine)}   Pool{_line(theirs)}   {rate:5.2f} / {cpu:4.2f}')
    for isolation, found in ratios.items():
        rate, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        print(f'{isolation:7} median: {rate:.2f} times the jobs/s, {cpu:.2f} of the CPU per job')


def _line(figures: Figures) -> str:
    return f'{figures.jobs_per_second:9,.0f} jobs/s {figures.cpu_us_per_job:7,.1f} us'


if __name__ == '__main__':
    main()
