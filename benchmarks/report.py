"""Findings as Markdown for people and JSON for programs."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plan import TARGETS, WORKLOADS, Target
from benchmarks.runner import Findings
from benchmarks.systems import TITLES


def as_json(facts: dict[str, str], found: dict[str, Findings]) -> str:
    """Everything that was measured, round by round."""
    body: dict[str, Any] = {'machine': facts, 'workloads': {}}
    for name, findings in found.items():
        body['workloads'][name] = {'unit': WORKLOADS[name].unit, **vars(findings)}
    return json.dumps(body, indent=1)


def as_markdown(facts: dict[str, str], found: dict[str, Findings]) -> str:
    """The machine, the targets, and a table for each workload."""
    lines = [f'- {name}: {text}' for name, text in facts.items()]
    if found:
        lines += ['', 'Median [min..max] of the rounds; ratios are taken within each round.', '']
    lines += _targets(found)
    for name, findings in found.items():
        lines += _table(name, findings)
    return '\n'.join(lines) + '\n'


def _targets(found: dict[str, Findings]) -> Iterator[str]:
    targets = [target for target in TARGETS if target.workload in found]
    if targets:
        yield '| workload | system | target | reached | met |'
        yield '| --- | --- | --- | --- | --- |'
        for target in targets:
            reached = reached_by(target, found[target.workload])
            text, met = _judged(target, reached) if reached else ('not measured', '-')
            title = WORKLOADS[target.workload].title
            yield f'| {title} | {target.system} | {target.words} | {text} | {met} |'
        yield ''


def reached_by(target: Target, findings: Findings) -> list[float]:
    """The figures, or ratios, that a target is judged by."""
    if target.against:
        return findings.ratios(target.system, target.against)
    return findings.values(target.system)


def _judged(target: Target, reached: Sequence[float]) -> tuple[str, str]:
    met = target.is_met(statistics.median(reached))
    digits = 2 if target.against else WORKLOADS[target.workload].digits
    return spread(reached, digits), 'yes' if met else '**no**'


def _table(name: str, findings: Findings) -> Iterator[str]:
    workload = WORKLOADS[name]
    yield f'### {name}: {workload.title}'
    yield ''
    yield f'| system | jobs | {workload.unit} | ratio to {workload.baseline} | besides |'
    yield '| --- | --- | --- | --- | --- |'
    for system, count in findings.counts.items():
        why = findings.skipped.get(system) or findings.failed.get(system, '')
        values = findings.values(system)
        text = spread(values, workload.digits) if values else '-'
        ratios = findings.ratios(system, workload.baseline)
        ratio = spread(ratios) if ratios and system != workload.baseline else ''
        besides = why or ', '.join(_besides(findings, system))
        yield f'| {TITLES[system]} | {count:,} | {text} | {ratio} | {besides} |'
    yield ''


def _besides(findings: Findings, system: str) -> Iterator[str]:
    last = next((figures for figures in findings.rounds[system] if figures), {})
    for name in last:
        if name != 'value':
            median = statistics.median(findings.values(system, name))
            yield f'{name} {median:,.3g}' if median < 1000 else f'{name} {median:,.0f}'


def record(document: Path, part: str, text: str) -> None:
    """Put a report into the place that a document keeps for it, between two comments."""
    old = document.read_text(encoding='utf-8')
    begin, end = (f'<!-- {edge} of {part} figures -->\n' for edge in ('begin', 'end'))
    before, found, rest = old.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f'{document} has no lines {begin.strip()} and {end.strip()}')
    document.write_text(f'{before}{begin}\n{text.strip()}\n\n{end}{after}', encoding='utf-8')


def spread(values: Sequence[float], digits: int | None = None) -> str:
    """Median, with the extremes where there are several; three figures unless told otherwise."""
    form = ',.3g' if digits is None else f',.{digits}f'
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f'{middle} [{min(values):{form}}..{max(values):{form}}]'
