"""Large arguments and results, against loky and ray if they are here.

`python -m benchmarks.payloads [ROUNDS]`

Each round runs every contender once, in turn.  *in and out*: jobs that get an array of 10 MB, one
of their own each, and give one back, both directions counted.  *shared*: one array of 100 MB for
20 jobs that read all of it; `again` gives the array itself each time, `share` a shared value.
"""

import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy

import dispy_nb

ROUNDS = 5
JOBS = 20
CPUS = 2
SMALL, LARGE = 10_000_000 // 8, 100_000_000 // 8


def doubled(array: Any) -> Any:
    """Give back an array of the same size."""
    return numpy.multiply(array, 2)  # names numpy: it is loaded before the first job


def length(array: Any) -> float:
    """Read every page."""
    return float(numpy.sum(array[::512]))


def in_and_out(start: Callable[[Any], Callable[[], Any]]) -> float:
    """MB/s, both directions together; the first job's start-up is not counted."""
    start(numpy.ones(10))()
    arrays = [numpy.full(SMALL, number, float) for number in range(JOBS)]
    began = time.perf_counter()
    results = [wait() for wait in [start(array) for array in arrays]]
    seconds = time.perf_counter() - began
    assert all(result[-1] == 2 * number for number, result in enumerate(results))
    return 2 * JOBS * SMALL * 8 / 1e6 / seconds


def shared(start: Callable[[Any], Callable[[], Any]], share: Callable[[Any], Any]) -> float:
    """Seconds for all jobs with one array."""
    start(numpy.ones(10))()
    array = numpy.ones(LARGE)
    began = time.perf_counter()
    value = share(array)
    for wait in [start(value) for _ in range(JOBS)]:
        assert wait() > 0
    return time.perf_counter() - began


@contextmanager
def cluster(function: Any, nodes: Any, isolation: str) -> Iterator[dispy_nb.JobCluster]:
    """Have a cluster whose node is ready."""
    with dispy_nb.JobCluster(
        function, nodes=nodes, ip_addr='127.0.0.1', isolation=isolation
    ) as made:
        made.submit(numpy.ones(10))()
        yield made


def with_dispy(nodes: Any, isolation: str, add: Callable[[str, float], None]) -> None:
    """Measure us."""
    with cluster(doubled, nodes, isolation) as made:
        add(f'in and out MB/s: {isolation}', in_and_out(made.submit))
    with cluster(length, nodes, isolation) as made:
        add(f'shared s: {isolation}, again', shared(made.submit, lambda array: array))
        add(f'shared s: {isolation}, share', shared(made.submit, made.share))


def with_joblib(add: Callable[[str, float], None]) -> None:
    """Measure joblib's reusable executor, which memory-maps nothing by itself."""
    loky = importlib.import_module('joblib.externals.loky')
    executor = loky.get_reusable_executor(CPUS)
    add('in and out MB/s: loky', in_and_out(lambda a: executor.submit(doubled, a).result))
    start = lambda a: executor.submit(length, a).result  # noqa: E731
    add('shared s: loky', shared(start, lambda array: array))


def with_ray(add: Callable[[str, float], None]) -> None:
    """Measure ray, with `ray.put` for what is shared."""
    ray = importlib.import_module('ray')
    double, total = ray.remote(doubled), ray.remote(length)

    def starter(task: Any) -> Callable[[Any], Callable[[], Any]]:
        def start(array: Any) -> Callable[[], Any]:
            reference = task.remote(array)
            return lambda: ray.get(reference)

        return start

    add('in and out MB/s: ray', in_and_out(starter(double)))
    add('shared s: ray', shared(starter(total), ray.put))


def main() -> None:
    """Print medians, least and most of all rounds."""
    print(f'{platform.platform()}, Python {platform.python_version()}, {CPUS} workers each')
    figures: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    have_ray = importlib.util.find_spec('ray') is not None
    have_joblib = importlib.util.find_spec('joblib') is not None
    if have_ray:
        importlib.import_module('ray').init(
            num_cpus=CPUS, log_to_driver=False, include_dashboard=False
        )
    with dispy_nb.LocalNodes(1, cpus=CPUS) as local:
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS):
            for isolation in ('job', 'worker'):
                with_dispy(local.nodes, isolation, add)
            if have_joblib:
                with_joblib(add)
            if have_ray:
                with_ray(add)
    for name, values in figures.items():
        middle = statistics.median(values)
        print(f'{name:32} {middle:9.3f}  [{min(values):.3f} .. {max(values):.3f}]')


if __name__ == '__main__':
    main()
