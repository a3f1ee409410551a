"""Whole clusters against `multiprocessing.Pool`, side by side: `python -m benchmarks.cluster`.

Each round runs every contender once, in turn, so that the machine's moods hit all of them; the
last column is the ratio to the pool of the same round, the median of all rounds.
"""

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from multiprocessing.pool import Pool

import dispy_nb

ROUNDS = 3
CPUS = 2


def same(value: int) -> int:
    """Return what was given."""
    return value


def through_cluster(local: dispy_nb.LocalNodes, isolation: str, count: int) -> float:
    """Submit jobs one by one and wait for all; how many a second."""
    with dispy_nb.JobCluster(
        same, nodes=local.nodes, ip_addr='127.0.0.1', isolation=isolation
    ) as cluster:
        cluster.submit(0)()
        began = time.perf_counter()
        jobs = [cluster.submit(number) for number in range(count)]
        cluster.wait()
        seconds = time.perf_counter() - began
    assert [job.result for job in jobs] == list(range(count))
    return count / seconds


def through_pool(pool: Pool, count: int) -> float:
    """Do the same with a pool."""
    pool.apply(same, (0,))
    began = time.perf_counter()
    calls = [pool.apply_async(same, (number,)) for number in range(count)]
    assert [call.get() for call in calls] == list(range(count))
    return count / (time.perf_counter() - began)


def map_through_cluster(local: dispy_nb.LocalNodes, isolation: str, count: int) -> float:
    """Map over many numbers; how many calls a second."""
    with dispy_nb.JobCluster(
        same, nodes=local.nodes, ip_addr='127.0.0.1', isolation=isolation
    ) as cluster:
        cluster.submit(0)()
        began = time.perf_counter()
        results = cluster.map(range(count))
        seconds = time.perf_counter() - began
    assert results == list(range(count))
    return count / seconds


def map_through_pool(pool: Pool, count: int) -> float:
    """Do the same with a pool."""
    began = time.perf_counter()
    assert pool.map(same, range(count)) == list(range(count))
    return count / (time.perf_counter() - began)


def latency(submit: Callable[[int], Callable[[], int]], count: int = 200) -> float:
    """Median seconds of one lone job, there and back."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        submit(number)()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Print a table of jobs per second, and of the latency of one job alone."""
    print(f'{platform.platform()}, Python {platform.python_version()}, {CPUS} workers each')
    rows: dict[str, list[tuple[float, float]]] = {}
    alone: dict[str, list[float]] = {}
    context = multiprocessing.get_context('fork')
    with dispy_nb.LocalNodes(1, cpus=CPUS) as local:
        for _ in range(ROUNDS):
            with context.Pool(CPUS) as pool, context.Pool(CPUS, maxtasksperchild=1) as fresh:
                lasting = through_pool(pool, 20_000), through_cluster(local, 'worker', 20_000)
                single = through_pool(fresh, 1_000), through_cluster(local, 'job', 1_000)
                for isolation in ('worker', 'job'):
                    mapped = (
                        map_through_pool(pool, 100_000),
                        map_through_cluster(local, isolation, 100_000),
                    )
                    rows.setdefault(f"map, isolation='{isolation}' : Pool.map", []).append(mapped)
                alone.setdefault('Pool', []).append(
                    latency(lambda number: pool.apply_async(same, (number,)).get)
                )
            rows.setdefault("isolation='worker' : Pool", []).append(lasting)
            rows.setdefault("isolation='job' : Pool(maxtasksperchild=1)", []).append(single)
            for isolation in ('worker', 'job'):
                with dispy_nb.JobCluster(
                    same, nodes=local.nodes, ip_addr='127.0.0.1', isolation=isolation
                ) as cluster:
                    cluster.submit(0)()
                    alone.setdefault(isolation, []).append(latency(cluster.submit))
    for name, rates in rows.items():
        pools, ours = zip(*rates, strict=True)
        ratio = statistics.median(b / a for a, b in rates)
        print(
            f'{name:45} {statistics.median(ours):9,.0f} : {statistics.median(pools):9,.0f} jobs/s, '
            f'ratio {ratio:.2f}'
        )
    for name, times in alone.items():
        print(f'one job alone, {name:30} {statistics.median(times) * 1e6:9,.0f} µs')


if __name__ == '__main__':
    main()
