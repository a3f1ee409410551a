"""A new program beside a node that runs: seconds from its first import to its first result.

python -m benchmarks.newcomer dispy-job 127.0.0.1 51348
"""

import sys
import time

BEGAN = time.perf_counter()

from dispy_nb import JobCluster  # noqa: E402 - the import is part of what is measured


def same(value: int) -> int:
    """Return what was given."""
    return value


def main() -> None:
    """Print the seconds."""
    system, address, port = sys.argv[1:]
    with JobCluster(
        same,
        nodes=[(address, int(port))],
        ip_addr=address,
        isolation=system.removeprefix('dispy-'),
        progress=False,
    ) as cluster:
        result = cluster.submit(7)()
        seconds = time.perf_counter() - BEGAN
    if result != 7:
        raise SystemExit(f'the result is {result!r}')
    print(seconds)


if __name__ == '__main__':
    main()
