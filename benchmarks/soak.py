"""Run no-op jobs over and over, and count every result: `python -m benchmarks.soak 50`."""

import argparse
import time

import dispy_nb


def same(value: int) -> int:
    """Return what was given."""
    return value


def main() -> None:
    """Run rounds of jobs in both isolations until one result is missing or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('rounds', type=int, nargs='?', default=50)
    parser.add_argument('--jobs', type=int, default=2000)
    arguments = parser.parse_args()
    with dispy_nb.LocalNodes(1, cpus=2) as local:
        for number in range(1, arguments.rounds + 1):
            rates = [run(local, kind, arguments.jobs) for kind in ('job', 'worker')]
            print(f'round {number}: {rates[0]:,.0f} and {rates[1]:,.0f} jobs/s', flush=True)


def run(local: dispy_nb.LocalNodes, isolation: str, count: int) -> float:
    """Run jobs on a new cluster; how many ended per second."""
    began = time.perf_counter()
    with dispy_nb.JobCluster(
        same, nodes=local.nodes, ip_addr='127.0.0.1', isolation=isolation
    ) as cluster:
        jobs = [cluster.submit(number) for number in range(count)]
        if not cluster.wait(120):
            raise SystemExit(f'{isolation}: jobs are missing\n{cluster.explain()}')
        seconds = time.perf_counter() - began
    wrong = [job for number, job in enumerate(jobs) if job.result != number]
    if wrong:
        raise SystemExit(f'{isolation}: {len(wrong)} wrong, such as {wrong[0].exception}')
    return count / seconds


if __name__ == '__main__':
    main()
