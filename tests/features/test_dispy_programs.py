"""Programs in the style of those that come with dispy 4.15 run under `sys.modules['dispy']`."""

from pathlib import Path

import pytest

import dispy_nb as dispy
from tests.features.conftest import Pair
from tests.support.programs import client_program

PROGRAMS = Path(__file__).with_name('programs')

# all that is added to a program: another package under the name, where the nodes are, their port
BEFORE = """\
import sys
import dispy_nb
sys.modules['dispy'] = dispy_nb
sys.argv[1:] = ['127.0.0.2', '127.0.0.3']
import dispy.config
dispy.config.NodePort = {port}
"""


@pytest.fixture
def at_home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give programs the key of the nodes."""
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))


def run(name: str, pair: Pair) -> list[str]:
    source = BEFORE.replace('{port}', str(pair.port)) + (PROGRAMS / name).read_text()
    done = client_program(source)
    assert done.stderr == ''
    return done.stdout.splitlines()


def test_a_program_with_job_status_and_the_newer_names(pair: Pair, at_home: None) -> None:
    lines = run('sample.py', pair)
    ended = sorted(lines[:5])
    for number, line in enumerate(ended[:4]):
        node, _, rest = line.removeprefix(f'job {number + 1} at ').partition(':')
        assert node in ('alpha', 'beta')
        assert rest == f' {number}; it has logged 1'
    assert ended[4] == 'job bad failed: ValueError: asked to fail'
    assert lines[5:7] == ['2 nodes, 0 pending, 5 ended', '[1, 2, 3, 4]']
    assert any(line.startswith('Total job time') and '10.000 sec' in line for line in lines)


def test_a_program_that_submits_as_jobs_end(pair: Pair, at_home: None) -> None:
    assert run('bounded.py', pair) == ['6 at a time', '40 halfway', 'True']


@pytest.mark.row('C10')
def test_a_program_that_does_its_own_scheduling(pair: Pair, at_home: None) -> None:
    lines = run('job_scheduler.py', pair)
    assert lines[0] == '2 nodes'
    assert set(lines[1:]) <= {f'node 127.0.0.{number} is closed' for number in (2, 3)}


def test_a_program_whose_objects_travel_and_whose_jobs_are_cancelled(
    pair: Pair, at_home: None
) -> None:
    assert run('objects.py', pair) == [
        *(f'sample {n}: {n * n}, module __main__ done' for n in range(5)),
        'False 0 None True',
        '-1',
        'True',
    ]


@pytest.mark.usefixtures('own_home')
def test_nodes_may_be_none_as_by_default_there() -> None:
    with (
        dispy.LocalNodes(1, cpus=1),
        dispy.JobCluster(abs, None, ip_addr='127.0.0.1', port=0) as cluster,  # type: ignore[arg-type]
    ):
        assert cluster.submit(-2)() == 2
