"""Measure dispy-nb beside what one would use instead: `python -m benchmarks [workload ...]`."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import facts, load
from benchmarks.plan import WORKLOADS
from benchmarks.report import as_json, as_markdown, record
from benchmarks.runner import ROOT, Findings, Scope, run_workload
from benchmarks.systems import LOCAL, PEERS

ALONE = ('scheduler', 'stages')  # programs of their own, which measure parts of dispy-nb
DOCUMENT = ROOT / 'docs' / 'performance.md'
MODULES = {'scheduler': 'benchmarks.scheduling', 'stages': 'benchmarks.stages'}


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    names = ', '.join((*WORKLOADS, *ALONE))
    words = argparse.ArgumentParser('python -m benchmarks', description=__doc__)
    words.add_argument('names', nargs='*', metavar='workload', help=f'some of: {names}')
    words.add_argument('--quick', action='store_true', help='a tenth of the jobs, one round')
    words.add_argument('--rounds', type=int, help='3, or 1 with --quick')
    words.add_argument('--systems', nargs='+', choices=[*LOCAL, *PEERS], metavar='system')
    words.add_argument('--peers', action='store_true', help='also ' + ', '.join(PEERS))
    words.add_argument('--record', action='store_true', help=f'also write to {DOCUMENT.name}')
    words.add_argument('--output', type=Path, default=ROOT / 'build' / 'benchmarks')
    return words


def main() -> int:
    """Run what was asked for; 1 if a measurement failed."""
    words = parser()
    options = words.parse_args()
    unknown = set(options.names) - {*WORKLOADS, *ALONE}
    if unknown:
        words.error(f'no such workload: {", ".join(sorted(unknown))}; see --help')
    names = options.names or [*WORKLOADS, *(() if options.peers else ALONE)]
    systems = tuple(options.systems or (LOCAL | (PEERS if options.peers else {})))
    scope = Scope(systems, options.rounds or (1 if options.quick else 3), _scale(options))
    found: dict[str, Findings | str] = {}
    machine = facts()
    for name in names:
        if name in WORKLOADS:
            found[name] = run_workload(name, scope, lambda text: print(text, flush=True))
        else:
            found[name] = _alone(name, options.quick)
        machine['load after'] = load()
        text = _write(options.output, machine, found)  # each time: who breaks off keeps the rest
    print(f'\n{text}\nwritten to {options.output}.md and {options.output}.json')
    if options.record:
        record(DOCUMENT, 'peer' if options.peers else 'local', text)
    return 1 if any(isinstance(part, Findings) and part.failed for part in found.values()) else 0


def _scale(options: argparse.Namespace) -> float:
    return 0.1 if options.quick else 1.0


def _alone(name: str, quick: bool) -> str:
    command = [sys.executable, '-m', MODULES[name], *(['--quick'] if quick else [])]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return ended.stdout


def _write(output: Path, machine: dict[str, str], found: dict[str, Findings | str]) -> str:
    measured = {name: part for name, part in found.items() if isinstance(part, Findings)}
    alone = [part for part in found.values() if isinstance(part, str)]
    text = '\n'.join([as_markdown(machine, measured), *alone])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix('.md').write_text(text, encoding='utf-8')
    output.with_suffix('.json').write_text(as_json(machine, measured), encoding='utf-8')
    return text


if __name__ == '__main__':
    sys.exit(main())
