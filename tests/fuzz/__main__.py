"""Fuzz each reader for long: guided by coverage where atheris is installed, else by mutation.

    python -m tests.fuzz [--runs 1000000] [--seed 1] [--plain] [target ...]

Each target runs in a process of its own, in which it may take little memory.  An input that
crashes it is written to a file that is named.  Exit status 1: some input did.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

from tests.fuzz.engine import fuzz, little_memory, peak_memory
from tests.fuzz.targets import targets

HAS_ATHERIS = find_spec('atheris') is not None  # an extra: it is there for few systems


def main(words: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz')
    parser.add_argument('--runs', type=int, default=1_000_000, help='inputs of each target')
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--plain', action='store_true', help='mutation only, without atheris')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('names', nargs='*', metavar='target', help=', '.join(targets()))
    options = parser.parse_args(words)
    unknown = [name for name in options.names if name not in targets()]
    if unknown:
        parser.error(f'no target {", ".join(unknown)}: there are {", ".join(targets())}')
    names = options.names or [*targets()]
    if options.here:
        run_here(names[0], options.runs, options.seed)
        return 0
    guided = HAS_ATHERIS and not options.plain
    how = 'guided by coverage' if guided else 'by mutation'
    print(f'{options.runs:,} inputs each, {how}, seed {options.seed}', flush=True)
    print(f'{"target":<14}{"seconds":>8}{"crashes":>9}{"memory":>9}', flush=True)
    return max(run_apart(name, options.runs, options.seed, guided) for name in names)


def run_apart(name: str, runs: int, seed: int, guided: bool) -> int:
    """Fuzz a target in a process of its own, and print its line; 1 if it crashed."""
    module = ['tests.fuzz.guided'] if guided else ['tests.fuzz', '--here']
    command = [sys.executable, '-m', *module, '--runs', str(runs), '--seed', str(seed), '--', name]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    memory = next((line for line in done.stdout.splitlines() if line.endswith(' MB')), '')
    crashed = not memory  # it is written after the last input
    print(f'{name:<14}{seconds:>8.0f}{int(crashed):>9}{memory:>9}', flush=True)
    if done.returncode:
        print(f'exit status {done.returncode}')
        print(done.stdout[-3000:] + done.stderr[-3000:], flush=True)
    return int(done.returncode != 0)


def run_here(name: str, runs: int, seed: int) -> None:
    """Fuzz a target in this process by mutation; the last line says what memory it took."""
    before = peak_memory()
    with little_memory():
        fuzz(targets()[name], runs, seed)
    print(f'{(peak_memory() - before) >> 20} MB')


if __name__ == '__main__':
    sys.exit(main())
