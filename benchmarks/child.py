"""One measurement, in a process of its own: `python -m benchmarks.child dispy-job lone 100`.

The last line of the output is JSON: `figures`, or `skipped` with the reason.  More pairs of
workload and count may follow, each answered by a line.
"""

import json
import sys

from benchmarks.plan import WORKLOADS
from benchmarks.systems.base import UnsupportedError
from benchmarks.workloads import Case


def main(system: str, *pairs: str) -> None:
    """Measure, and print a line for each workload."""
    for name, count in zip(pairs[::2], pairs[1::2], strict=True):
        answer: dict[str, object]
        try:
            answer = {'figures': WORKLOADS[name].measure(Case(system, int(count)))}
        except UnsupportedError as error:
            answer = {'skipped': str(error)}
        print(json.dumps({'workload': name} | answer), flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
