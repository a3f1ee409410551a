"""What a dispyscheduler costs beside the scheduler in a program: `python -m benchmarks.through`.

Both have a cluster open at the same time, each on a node of its own, and take turns: what else the
machine does meets both alike.  `--million` has a million jobs go through one scheduler instead,
and looks at its memory.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks import functions
from benchmarks.systems.base import Session
from benchmarks.systems.dispy import Dispy
from benchmarks.systems.shared import Shared

PAIRS = {'worker': 5_000, 'job': 500}  # jobs in one turn
TURNS = 7
LONE = 100


def main() -> None:
    """Measure, and print a line of JSON for each isolation."""
    words = argparse.ArgumentParser('python -m benchmarks.through', description=__doc__)
    words.add_argument('--million', type=int, nargs='?', const=1_000_000, metavar='JOBS')
    options = words.parse_args()
    if options.million:
        print(json.dumps(million(options.million)))
        return
    for isolation, count in PAIRS.items():
        print(json.dumps({'isolation': isolation} | compare(isolation, count)), flush=True)


def compare(isolation: str, count: int) -> dict[str, float]:
    """Have both do the same in turns."""
    embedded, shared = Dispy(isolation), Shared(isolation)
    embedded.start()
    shared.start()
    try:
        with embedded.open(functions.same) as one, shared.open(functions.same) as other:
            both = [one, other]
            for session in both:
                _burst(session, count)
            bursts = [[_burst(session, count) for session in both] for _ in range(TURNS)]
            lone = [[_lone(session) for session in both] for _ in range(TURNS)]
    finally:
        shared.stop()
        embedded.stop()
    ratios = [theirs / ours for ours, theirs in bursts]
    more = [theirs - ours for ours, theirs in lone]
    return {
        'jobs/s embedded': round(statistics.median(ours for ours, _ in bursts)),
        'jobs/s shared': round(statistics.median(theirs for _, theirs in bursts)),
        'ratio': round(statistics.median(ratios), 3),
        'lone us embedded': round(statistics.median(ours for ours, _ in lone)),
        'lone us shared': round(statistics.median(theirs for _, theirs in lone)),
        'lone us more': round(statistics.median(more)),
    }


def _burst(session: Session, count: int) -> float:
    began = time.perf_counter()
    session.results((number,) for number in range(count))
    return count / (time.perf_counter() - began)


def _lone(session: Session) -> float:
    """Microseconds of a lone job: of the quicker half the median, as others use the machine too."""
    times = []
    for number in range(LONE):
        began = time.perf_counter()
        session.result(session.submit(number))
        times.append(time.perf_counter() - began)
    return sorted(times)[LONE // 4] * 1e6


def million(count: int) -> dict[str, float]:
    """Send very many jobs through one scheduler, in ten parts; its memory after each."""
    shared = Shared('worker')
    shared.start()
    try:
        with shared.open(functions.same) as session:
            _burst(session, 10_000)
            sizes = [_resident(shared.server)]
            began = time.perf_counter()
            for _ in range(10):
                _burst(session, count // 10)
                sizes.append(_resident(shared.server))
            seconds = time.perf_counter() - began
    finally:
        shared.stop()
    return {
        'jobs': count,
        'seconds': round(seconds, 1),
        'MB before': round(sizes[0] / 1e6, 1),
        'MB after a tenth': round(sizes[1] / 1e6, 1),
        'MB after all': round(sizes[-1] / 1e6, 1),
    }


def _resident(pid: int) -> int:
    for line in Path(f'/proc/{pid}/status').read_text(encoding='ascii').splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == '__main__':
    main()
