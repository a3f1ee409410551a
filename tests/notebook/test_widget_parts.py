"""What the widget is told is plain, bounded and complete; what it sends back is checked."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dispy_nb import notebook
from dispy_nb.history import Failure, History
from dispy_nb.job import DispyJob
from dispy_nb.notebook.widget.outputs import MOST_BYTES, NOTHING, Watched, last_lines
from dispy_nb.notebook.widget.states import JOBS_SHOWN, NODES_SHOWN, remaining_text, state_of
from dispy_nb.notebook.widget.wishes import (
    CancelAll,
    CancelJobs,
    Close,
    SetCpus,
    Watch,
    understood,
)
from dispy_nb.snapshot import JobSnapshot, NodeSnapshot, ProvisionalSnapshot, Snapshot
from nodeserver.core.errors import UsageError
from nodeserver.core.status import JobStatus
from nodeserver.wire.outcome import encode_failure

NODE = NodeSnapshot(
    *('alpha', '10.0.0.1', 4, 3, 60, 30.0, False),
    *('id-alpha', 8, 37.4, 3_200_000_000, 16_000_000_000),
)
FAILURE = Failure('7', 'terminated', 'ValueError: 7', 'Traceback ...\nValueError: 7', 'n=7')
JOB = JobSnapshot(9, 'nine', 'waiting', '', 65.0, '9')
SNAPSHOT = Snapshot(
    *('render', 100, 27, 3, 60, 4, 6, 12, None),
    *(20.0, 3.5, (NODE,), (FAILURE,), 'why', False),
    *((180.0, 300.0), (JOB,), (ProvisionalSnapshot('5', 3, 1700000000.7, '0.25'),)),
)
FOLDER = Path(notebook.__file__).parent / 'widget'


@pytest.mark.row('V07', 'V11', 'V17')
def test_state_has_all_that_is_to_be_seen():
    state = state_of(SNAPSHOT)
    assert state['figures'] == {
        'name': 'render',
        'created': 100,
        'waiting': 27,
        'running': 3,
        'finished': 60,
        'failed': 4,
        'cancelled': 6,
        'rate': '3.5 jobs/s',
        'elapsed': '0:20',
        'remaining': '3 to 5 min left',
        'notice': 'why',
        'closed': False,
    }
    assert state['nodes'] == {
        'rows': [
            {
                'id': 'id-alpha',
                'name': 'alpha',
                'address': '10.0.0.1',
                'cpus': 4,
                'offered': 8,
                'busy': 3,
                'load': '37 %',
                'memory': '3.2 of 16.0 GB',
                'jobs': 60,
                'mean': '0.500',
                'share': '100%',
                'bar': 1.0,
                'gone': False,
            }
        ],
        'count': 1,
        'cpus': 4,
        'busy': 3,
    }
    (job,) = state['jobs']['rows']
    assert (job['number'], job['id'], job['status'], job['time']) == (9, 'nine', 'waiting', '1:05')
    (failure,) = state['failures']['rows']
    assert (failure['text'], failure['detail']) == (FAILURE.text, FAILURE.detail)
    assert state['results'] == {
        'rows': [{'id': '5', 'count': 3, 'at': 1700000000, 'text': '0.25'}],
        'count': 12,
    }
    assert json.loads(json.dumps(state)) == state


def test_running_jobs_come_first_in_their_order():
    jobs = tuple(
        replace(JOB, number=n, status='running' if n % 3 == 0 else 'waiting') for n in range(9)
    )
    rows = state_of(replace(SNAPSHOT, jobs=jobs))['jobs']['rows']
    assert [row['number'] for row in rows] == [0, 3, 6, 1, 2, 4, 5, 7, 8]


def test_busiest_nodes_are_chosen_and_stand_in_the_order_of_names():
    nodes = tuple(
        replace(NODE, id=f'{n}', name=f'n{n:03}', jobs_done=n, busy=0) for n in range(300)
    )
    told = state_of(replace(SNAPSHOT, nodes=nodes))['nodes']
    assert [row['jobs'] for row in told['rows']] == list(range(300 - NODES_SHOWN, 300))
    assert told['count'] == 300


def test_a_state_is_never_large():
    long = '\U0001f600' * 100_000
    failures = (Failure('x' * 80, 'terminated', long, long, 'y' * 80),) * 10
    nodes = tuple(replace(NODE, id=f'{n}', jobs_done=10**9) for n in range(1000))
    state = state_of(
        replace(SNAPSHOT, nodes=nodes, failures=failures, jobs=(JOB,) * JOBS_SHOWN * 2)
    )
    sizes = {
        name: len(json.dumps(part, ensure_ascii=False).encode()) for name, part in state.items()
    }
    assert sizes['failures'] < 100_000
    assert sizes['nodes'] < 20_000
    assert sizes['jobs'] < 20_000


def test_what_the_user_has_cancelled_is_no_failure():
    for text, count in (('cancelled', 0), ('cancelled before it started', 0), ('node x lost', 1)):
        failure = FAILURE._replace(status='cancelled', text=text)
        assert len(state_of(replace(SNAPSHOT, failures=(failure,)))['failures']['rows']) == count


def test_failures_take_the_place_of_cancelled_jobs_in_the_record():
    history = History(keeps_jobs=True)
    for number in range(30):
        history.ended(DispyJob(None, number), JobStatus.CANCELLED, b'', 'cancelled', 0.0)
    for number in range(30, 34):
        history.ended(DispyJob(None, number), JobStatus.TERMINATED, b'', 'its process died', 0.0)
    told = [(failure.id, failure.status) for failure in history.failures]
    assert told[:6] == [(str(number), 'cancelled') for number in range(6)]
    assert told[6:] == [(str(number), 'terminated') for number in range(30, 34)]


@pytest.mark.parametrize(
    ('remaining', 'text'),
    [
        (None, ''),
        ((180.0, 300.0), '3 to 5 min left'),
        ((175.0, 180.0), '2 to 3 min left'),
        ((3.0, 8.5), '3 to 9 s left'),
        ((0.1, 0.4), 'less than 1 s left'),
        ((40.0, 500.0), '40 s to 9 min left'),
        ((0.0, 300.0), 'less than 5 min left'),
        ((180.0, 180.0), 'about 3 min left'),
        ((190.0, float('inf')), 'at least 3 min left'),
        ((0.2, float('inf')), ''),
        ((3 * 3600.0, 30 * 3600.0), '3 to 30 h left'),
        ((4 * 86400.0, 10 * 86400.0), '4 to 10 days left'),
    ],
)
def test_remaining_time_is_a_range_as_wide_as_what_is_known(
    remaining: tuple[float, float] | None, text: str
):
    assert remaining_text(remaining) == text


@pytest.mark.row('V08')
def test_wishes_are_understood():
    assert understood({'wish': 'cancel_all'}) == CancelAll()
    assert understood({'wish': 'cancel', 'jobs': [3, 1, 3]}) == CancelJobs((3, 1))
    assert understood({'wish': 'cpus', 'node': 'n', 'cpus': 0}) == SetCpus('n', 0)
    assert understood({'wish': 'close', 'pending': 'wait'}) == Close(cancels=False)
    assert understood({'wish': 'close', 'pending': 'cancel'}) == Close(cancels=True)
    assert understood({'wish': 'watch', 'job': 4}) == Watch(4)
    assert understood({'wish': 'watch', 'job': None}) == Watch(None)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (None, 'a wish must be an object with a "wish", not None'),
        ([], 'not []'),
        ({}, 'a wish must be one of cancel_all, cancel, cpus, close, watch; not None'),
        ({'wish': ['cancel']}, "not ['cancel']"),
        ({'wish': 'rm'}, "not 'rm'"),
        ({'wish': 'cancel_all', 'jobs': [1]}, 'cancel_all goes with nothing else'),
        ({'wish': 'cancel'}, 'cancel goes with jobs; not with []'),
        ({'wish': 'cancel', 'jobs': []}, 'jobs must be a list of numbers of jobs, not []'),
        ({'wish': 'cancel', 'jobs': '12'}, "not '12'"),
        ({'wish': 'cancel', 'jobs': [True]}, 'not [True]'),
        ({'wish': 'cancel', 'jobs': [1.0]}, 'not [1.0]'),
        ({'wish': 'cancel', 'jobs': list(range(10_001))}, '10,000 at most, not 10,001'),
        ({'wish': 'cpus', 'node': 'n'}, 'cpus goes with node and cpus'),
        ({'wish': 'cpus', 'node': '', 'cpus': 1}, "node must be the id of a node, not ''"),
        ({'wish': 'cpus', 'node': 'n', 'cpus': -1}, 'whole number from 0 on, not -1'),
        ({'wish': 'cpus', 'node': 'n', 'cpus': 1.5}, 'not 1.5'),
        ({'wish': 'cpus', 'node': 'n', 'cpus': True}, 'not True'),
        ({'wish': 'close', 'pending': 'kill'}, 'pending must be "wait" or "cancel", not \'kill\''),
        ({'wish': 'close', 'pending': ['wait']}, "not ['wait']"),
        ({'wish': 'watch', 'job': '1'}, "job must be the number of a job, or null; not '1'"),
    ],
)
def test_what_is_no_wish_is_told_with_what_was_given(content: Any, words: str):
    with pytest.raises(UsageError, match=re.escape(words)):
        understood(content)


@pytest.mark.row('V18')
def test_last_lines_are_few_and_text():
    assert last_lines('a\nb\nc\n', 2, 100) == 'b\nc\n'
    assert last_lines('a\nb\nc', 2, 100) == 'b\nc'
    assert last_lines('x' * 1000, 5, 100) == 'x' * 100
    assert last_lines('\x1b[31mred\x1b[0m\r\nnext\x00', 9, 100) == 'red\nnext\ufffd'
    assert last_lines('1 %\r2 %\r3 %\r', 9, 100) == '3 %'
    assert last_lines('\x1b]8;;http://x\x07link\x1b]8;;\x07', 9, 100) == 'link'
    smiles = last_lines('\U0001f600' * 100, 9, 99)
    assert set(smiles) == {'\U0001f600'}
    assert len(smiles.encode()) <= 99


@pytest.mark.row('V18')
def test_a_watched_job_keeps_what_it_showed_and_is_let_go_at_its_end():
    watched, job = Watched(), DispyJob(None, 3)
    assert watched.look() == NOTHING
    watched.choose(job)
    assert (watched.look()['stdout'], watched.look()['status']) == ('', '')
    job._started(None, time.time())
    job._printed(1, 0, b'so far\n')
    assert watched.look()['stdout'] == 'so far\n'
    text = ''.join(f'line {n}\n' for n in range(10_000))
    job._settle(JobStatus.TERMINATED, encode_failure(text, 'oh\n', 'trace'), '', time.time())
    last = watched.look()
    assert last['status'] == 'terminated'
    assert last['stdout'].endswith('line 9999\n')
    assert last['stdout'].count('\n') == 100
    assert last['stderr'] == 'oh\n'
    assert len((last['stdout'] + last['stderr']).encode()) <= MOST_BYTES
    assert watched._job is None
    assert watched.look() == last
    watched.choose(None)
    assert watched.look() == NOTHING


@pytest.mark.row('V21')
def test_the_view_sets_texts_only_and_needs_no_network():
    sources = {path.name: path.read_text() for path in FOLDER.glob('*.js')}
    assert {'widget_elements.js', 'cluster_head.js', 'cluster_widget.js'} <= set(sources)
    acts = (
        r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|fetch\(|XMLHttp|import\(|https?:'
    )
    mine = [name for name in sources if name.startswith(('widget_', 'cluster_'))]
    for name in mine:
        assert re.findall(acts, sources[name]) == []
        assert sources[name].count('\n') < 400
    style = (FOLDER / 'cluster_widget.css').read_text()
    assert re.findall(r'url\(|@import', style) == []
    for need in ('--jp-layout-color1', '--vscode-editor-background', 'prefers-reduced-motion'):
        assert need in style
    assert ':focus-visible' in style
