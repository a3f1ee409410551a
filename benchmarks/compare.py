"""Measure this tree beside another one: `python -m benchmarks.compare OTHER --pairs 8 submits map`.

OTHER is a checkout of another version with its own .venv (`make check` there makes one).  Each pair
runs a workload once in each tree, in turned order (A B, B A, ...): the machine's moods hit both.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.plan import WORKLOADS
from benchmarks.runner import ROOT

SYSTEMS = ('dispy-worker', 'dispy-job')
Figures = dict[str, float]  # by system


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    words = argparse.ArgumentParser('python -m benchmarks.compare', description=__doc__)
    words.add_argument('other', type=Path, help='the checkout of another version')
    words.add_argument('names', nargs='+', metavar='workload', choices=list(WORKLOADS))
    words.add_argument('--pairs', type=int, default=8, metavar='N', help='(default: %(default)s)')
    return words


def measure(tree: Path, name: str) -> Figures:
    """Run a workload once in a tree."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, 'found')
        command = ['.venv/bin/python', '-m', 'benchmarks', '--rounds', '1', '--output', str(output)]
        environ = {**os.environ, 'PYTHONPYCACHEPREFIX': str(tree / 'build' / 'compiled')}
        environ.pop('PYTHONDONTWRITEBYTECODE', None)  # users do not compile at each start either
        subprocess.run(
            [*command, '--systems', *SYSTEMS, '--', name],
            cwd=tree,
            env=environ,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rounds = json.loads(output.with_suffix('.json').read_text())['workloads'][name]['rounds']
    return {system: found[0]['value'] for system, found in rounds.items() if found[0]}


def compare(name: str, other: Path, pairs: int) -> None:
    """Print a line for each system: medians, and how the figures of a pair relate."""
    for tree in (ROOT, other):
        measure(tree, name)  # compiles what the tree has not compiled yet
    found: dict[Path, list[Figures]] = {ROOT: [], other: []}
    for pair in range(pairs):
        for tree in (ROOT, other) if pair % 2 else (other, ROOT):
            found[tree].append(measure(tree, name))
    for system in SYSTEMS:
        ours, theirs = ([row[system] for row in found[t] if system in row] for t in found)
        if not ours:
            continue
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        here, there = statistics.median(ours), statistics.median(theirs)
        better = 'more' if WORKLOADS[name].more_is_better else 'less'
        print(
            f'| `{name}` | {system} | {there:,.4g} | {here:,.4g} | {here / there:.2f} '
            f'| {middle:.2f} [{low:.2f}..{high:.2f}] | {better} |',
            flush=True,
        )


def main() -> None:
    """Print a table."""
    options = parser().parse_args()
    print('| workload | system | there | here | medians | within pairs, middle half | better |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for name in options.names:
        compare(name, options.other.resolve(), options.pairs)


if __name__ == '__main__':
    main()
