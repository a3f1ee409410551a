"""Runs workloads on systems in turn, A B C A B C, each measurement in a fresh process.

So the machine's moods hit all systems alike, nothing that one leaves behind touches the next, and
one that hangs or crashes costs only itself.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.plan import WORKLOADS
from benchmarks.workloads import Figures

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = 300.0


@dataclass
class Findings:
    """What all rounds of one workload gave, by system; a round without figures is None."""

    counts: dict[str, int] = field(default_factory=dict)
    rounds: dict[str, list[Figures | None]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def values(self, system: str, name: str = 'value') -> list[float]:
        """A figure of a system in all rounds that have it."""
        return [figures[name] for figures in self.rounds.get(system, ()) if figures is not None]

    def ratios(self, system: str, other: str) -> list[float]:
        """A system's figure through another's, round by round."""
        pairs = zip(self.rounds.get(system, ()), self.rounds.get(other, ()), strict=False)
        return [a['value'] / b['value'] for a, b in pairs if a and b and b['value']]


@dataclass(frozen=True)
class Scope:
    """What to run: how many rounds of which systems, and what part of the full counts."""

    systems: tuple[str, ...]
    rounds: int
    scale: float


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """An environment in which no measurement sees the user's own settings, nor leaves any."""
    with tempfile.TemporaryDirectory(prefix='bench', ignore_cleanup_errors=True) as home:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get('PATH', '')))
        own = {'HOME': home, 'XDG_RUNTIME_DIR': home, 'PYTHONPATH': path, 'PATH': programs}
        yield os.environ | own


def run_workload(name: str, scope: Scope, say: Callable[[str], None]) -> Findings:
    """Run a workload in rounds; a system that is skipped or has failed is not asked again."""
    workload, findings = WORKLOADS[name], Findings()
    chosen = [system for system in workload.systems if system in scope.systems]
    for number in range(1, min(scope.rounds, workload.rounds) + 1):
        for system in chosen:
            if system in findings.skipped or system in findings.failed:
                continue
            count = findings.counts[system] = workload.amount(system, scope.scale)
            outcome = measure(system, [(name, count)])[0]
            findings.rounds.setdefault(system, []).append(outcome.figures)
            if outcome.skipped:
                findings.skipped[system] = outcome.skipped
            if outcome.failed:
                findings.failed[system] = outcome.failed
            say(f'{name} {number} {system}: {outcome}')
    return findings


@dataclass(frozen=True)
class Outcome:
    """What one measurement gave: figures, or a reason why there are none."""

    figures: Figures | None = None
    skipped: str = ''
    failed: str = ''

    def __str__(self) -> str:
        if self.figures is None:
            return f'skipped: {self.skipped}' if self.skipped else f'FAILED: {self.failed}'
        return ', '.join(f'{name} {value:,.5g}' for name, value in self.figures.items())


def measure(
    system: str, amounts: Sequence[tuple[str, int]], limit: float = TIME_LIMIT
) -> list[Outcome]:
    """Measure workloads on a system, one after the other in one fresh process."""
    words = [str(word) for amount in amounts for word in amount]
    with surroundings() as environ:
        process = subprocess.Popen(
            [sys.executable, '-m', 'benchmarks.child', system, *words],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return [Outcome(failed=f'not done within {limit:.0f} s')] * len(amounts)
        finally:
            if process.poll() is None:  # also after Ctrl-C, which it does not get by itself
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    outcomes = list(_read(stdout.splitlines()))
    missing = len(amounts) - len(outcomes)
    last_words = (stderr.strip() or f'exit status {process.returncode}').splitlines()[-1]
    return outcomes + [Outcome(failed=last_words)] * missing


def _read(lines: Iterable[str]) -> Iterator[Outcome]:
    for line in lines:
        if line.startswith('{"workload"'):
            answer = json.loads(line)
            yield Outcome(answer.get('figures'), answer.get('skipped', ''))
