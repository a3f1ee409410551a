"""The benchmarks run: each local system does each of its workloads, with a few jobs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import systems
from benchmarks.plan import TARGETS, WORKLOADS, Target
from benchmarks.report import as_json, as_markdown, record, spread
from benchmarks.runner import ROOT, Findings, measure, surroundings
from benchmarks.scheduling import Simulation
from benchmarks.workloads import expect, greedy

# Each workload is done by somebody, each system does some.
FEW = {
    'dispy-worker': {'submits': 20, 'map': 20, 'lone': 10, 'beside': 6, 'million': 20, 'killed': 8},
    'dispy-job': {'short': 6, 'mixed': 10, 'setup': 2, 'program': 1, 'start': 1},
    'shared-worker': {'submits': 20, 'map': 20, 'lone': 10, 'shared': 2},
    'shared-job': {'short': 6, 'setup': 2},
    'pool': {'submits': 20, 'map': 20, 'lone': 10, 'beside': 6, 'short': 6, 'queued': 20},
    'pool-fresh': {'submits': 4},
    'executor': {'lone': 10, 'mixed': 10, 'arrays': 2, 'repeated': 1, 'killed': 8, 'start': 1},
    'fork': {'short': 6},
    'joblib': {'map': 20, 'shared': 2},
}


@pytest.mark.slow
@pytest.mark.parametrize('system', FEW)
def test_each_local_system_does_its_workloads(system: str) -> None:
    amounts = list(FEW[system].items())
    outcomes = measure(system, amounts, limit=50)
    assert [outcome.failed for outcome in outcomes] == [''] * len(amounts)
    assert all(outcome.figures or outcome.skipped for outcome in outcomes)


def test_no_workload_and_no_system_is_left_out() -> None:
    assert FEW.keys() == systems.LOCAL.keys()
    assert {name for few in FEW.values() for name in few} == WORKLOADS.keys()


def test_a_wrong_result_fails_the_measurement() -> None:
    with pytest.raises(AssertionError, match=r'wrong results: \[1\] instead of \[2\]'):
        expect([1], [2])
    (outcome,) = measure('executor', [('no such workload', 1)])
    assert outcome.figures is None and 'no such workload' in outcome.failed


def test_targets_name_systems_that_do_their_workload() -> None:
    for target in TARGETS:
        doing = WORKLOADS[target.workload].systems
        assert target.system in doing and (not target.against or target.against in doing)
    for workload in WORKLOADS.values():
        assert set(workload.systems) <= systems.LOCAL.keys() | systems.PEERS.keys()


def test_ratios_are_taken_within_rounds() -> None:
    findings = Findings(rounds={'a': [{'value': 2.0}, None, {'value': 9.0}], 'b': [{'value': 1.0}]})
    assert findings.ratios('a', 'b') == [2.0]


def test_a_target_is_met_from_its_bound_on() -> None:
    more, less = Target('submits', 'dispy-worker', 2.5, 'pool'), Target('lone', 'dispy-job', 2.5)
    assert [more.is_met(value) for value in (2.4, 2.5, 2.6)] == [False, True, True]
    assert [less.is_met(value) for value in (2.4, 2.5, 2.6)] == [True, True, False]


def test_the_report_says_what_was_reached_and_what_was_not_measured() -> None:
    rounds = {'dispy-worker': [{'value': 50.0}], 'pool': [{'value': 20.0}]}
    findings = Findings(counts={'dispy-worker': 10, 'pool': 10}, rounds=rounds)
    text = as_markdown({'cpu': 'some'}, {'submits': findings})
    assert '| dispy-worker | >= 2.5 x pool | 2.50 | yes |' in text
    assert '| dispy-job | >= 2 x pool-fresh | not measured | - |' in text
    data = json.loads(as_json({'cpu': 'some'}, {'submits': findings}))
    assert data['workloads']['submits']['rounds'] == rounds


def test_figures_are_given_with_their_extremes() -> None:
    assert spread([3.0, 1.0, 2.0], 1) == '2.0 [1.0..3.0]'
    assert spread([0.000123456]) == '0.000123'


def test_a_report_is_put_into_its_place_in_a_document(tmp_path: Path) -> None:
    document = tmp_path / 'performance.md'
    document.write_text(
        'a\n<!-- begin of local figures -->\nold\n<!-- end of local figures -->\nb\n'
    )
    record(document, 'local', 'new\n')
    record(document, 'local', 'newer')
    text = document.read_text()
    assert 'newer' in text and 'old' not in text and text.startswith('a\n') and text.endswith('b\n')
    with pytest.raises(SystemExit, match='peer figures'):
        record(document, 'peer', 'new')


def test_greedy_placement_gives_the_next_job_to_who_is_free_first() -> None:
    assert greedy([5, 1, 1, 1, 4]) == 7


def test_the_core_alone_is_measured() -> None:
    cost = Simulation(nodes=4, jobs=400).run()
    assert cost.microseconds > 0
    assert cost.row().startswith('| 4 | 400 |')


@pytest.mark.slow
def test_the_stages_are_measured() -> None:
    with surroundings() as environ:
        ended = subprocess.run(
            [sys.executable, '-m', 'benchmarks.stages', '--quick'],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert "| node's core |" in ended.stdout and '| node: workers |' in ended.stdout
