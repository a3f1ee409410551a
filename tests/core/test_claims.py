"""Peers with the key that lie: what belongs to others stays theirs."""

import dataclasses
from math import nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.core import messages as m
from nodeserver.core.effects import Disconnect, Send
from nodeserver.core.events import NodeFound, PeerConnected
from nodeserver.core.filemessages import FetchFiles, PlaceFiles
from nodeserver.core.fleetmessages import CloseNode, LimitCpus, RequestAnswered, WatchFigures
from nodeserver.core.status import JobStatus
from tests.core.test_absurd import messages
from tests.support.desk import CLIENT, Desk
from tests.support.nodebench import Bench, opening

ONE_END = ([JobStatus.FINISHED], [b'forged'], [''], [1.0])
TWO_ENDS = ([JobStatus.FINISHED] * 2, [b'forged'] * 2, [''] * 2, [1.0] * 2)


def busy_desk() -> Desk:
    """Two nodes with two jobs each, of one client."""
    desk = Desk()
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    desk.submit(1, 2, 3, 4)
    desk.effects.clear()
    return desk


def jobs_of(desk: Desk, node: str) -> list[int]:
    """Which jobs are with a node."""
    return desk.core._fleet.computations[7].on_node(node)


def test_a_job_of_another_node_is_not_believed() -> None:
    desk = busy_desk()
    job = jobs_of(desk, 'b')[0]
    desk.done('a', job)
    desk.hears('a', m.JobsReturned(7, [job], [1], 'not mine'))
    desk.hears('a', m.JobsProvisional(7, 'a', [job], [1], [b'forged']))
    assert not desk.sent(m.JobsDone, CLIENT)
    assert not desk.sent(m.JobsProvisional, CLIENT)
    assert len(jobs_of(desk, 'b')) == 2
    desk.done('b', job)
    assert desk.sent(m.JobsDone, CLIENT)


@pytest.mark.parametrize(
    'ids_attempts',
    [([99], [1]), ([-1], [1]), ([1], [2]), ([1], [0]), ([1], [1 << 60])],
    ids=['unknown job', 'no id', 'future attempt', 'past attempt', 'far future'],
)
def test_unknown_jobs_and_other_attempts_are_not_believed(
    ids_attempts: tuple[list[int], list[int]],
) -> None:
    desk = busy_desk()
    for node in 'ab':
        desk.hears(node, m.JobsDone(7, node, 5, *ids_attempts, *ONE_END))
        desk.hears(node, m.JobsDone(8, node, 6, *ids_attempts, *ONE_END))
    assert not desk.sent(m.JobsDone)
    assert sorted(jobs_of(desk, 'a') + jobs_of(desk, 'b')) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    'message',
    [
        m.JobsDone(7, 'b', 1, [1], [1], *ONE_END),
        m.JobsProvisional(7, 'b', [1], [1], [b'forged']),
        m.JobsDone(7, 'a', 1, [1, 1], [1, 1], *TWO_ENDS),
        m.JobsReturned(7, [1, 1], [1, 1], 'twice'),
        m.JobsDone(7, 'a', 1, [1], [1], [99], [b'forged'], [''], [1.0]),
        m.JobsDone(7, 'a', 1, [1], [1], [JobStatus.RUNNING], [b'forged'], [''], [1.0]),
        m.JobsDone(7, 'a', 1, [1], [1], [JobStatus.FINISHED], [b'forged'], [''], [nan]),
        m.JobsDone(7, 'a', 1, [1], [1], [JobStatus.FINISHED], [b'forged'], [''], [-1.0]),
    ],
    ids=[
        'letter of another',
        'results of another',
        'one job twice',
        'returned twice',
        'unknown end',
        'no end',
        'no time',
        'less than no time',
    ],
)
def test_a_node_that_lies_is_let_go_and_its_jobs_go_elsewhere(message: Any) -> None:
    desk = Desk(reentrant=True)
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    desk.submit(1, 2)
    desk.effects.clear()
    desk.hears('a', message)
    assert Disconnect('a') in desk.effects
    assert not desk.sent(m.JobsDone)
    assert not desk.sent(m.AcknowledgeOutcomes)
    assert sorted(jobs_of(desk, 'b')) == [1, 2]
    (notice,) = desk.sent(m.Notice, CLIENT)
    assert 'it broke the protocol: it sent Jobs' in notice.text


@pytest.mark.parametrize(
    'details',
    [
        m.NodeDetails('a', -1, 'Linux', '3.11', None),
        m.NodeDetails('a', 1 << 40, 'Linux', '3.11', None),
        m.NodeDetails('a' * 1_000_000, 1, 'Linux', '3.11', None),
    ],
    ids=['no cpus', 'too many cpus', 'a long name'],
)
def test_a_node_that_cannot_be_is_not_used(details: m.NodeDetails) -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.tell(PeerConnected('a', '10.0.0.1'))
    desk.hears('a', details)
    assert Disconnect('a') in desk.effects
    assert not desk.sent(m.OpenComputation)


def test_what_a_client_says_of_the_computation_of_another_is_not_heard() -> None:
    desk = busy_desk()
    for message in (
        m.CancelJobs(7, [1, 2, 3, 4]),
        m.CloseComputation(7),
        m.SubmitJobs(7, '', [5], [b'x']),
        m.ShareData(7, 1, b'data'),
        m.DropData(7, [1]),
        m.AcknowledgeOutcomes(7, 'a', [1]),
        m.AllocateAnswer(7, 'a', 0),
        CloseNode(7, 1, 'a', True, False),
        WatchFigures(7),
        desk.core._fleet.computations[7].declared,
    ):
        desk.hears('somebody', message)
    assert not desk.effects
    desk.hears('somebody', CloseNode(8, 2, 'a', True, False))
    assert desk.sent(RequestAnswered, 'somebody')
    desk.done('a', jobs_of(desk, 'a')[0])
    assert desk.sent(m.JobsDone, CLIENT)


def test_jobs_that_are_known_or_have_ended_are_not_submitted_again() -> None:
    desk = busy_desk()
    with_a = jobs_of(desk, 'a')
    desk.done('a', with_a[0])
    desk.effects.clear()
    desk.hears(CLIENT, m.SubmitJobs(7, '', [*with_a, 1001], [b'again'] * len(with_a) + [b'new']))
    desk.hears(CLIENT, m.SubmitJobs(7, 'elsewhere', [1001], [b'again']))
    runs = [run for run in desk.sent(m.RunJobs) if b'again' in run.payloads]
    assert not runs
    comp = desk.core._fleet.computations[7]
    assert 1001 in {*comp.waiting, *comp.jobs}


@given(st.lists(st.tuples(st.sampled_from(('a', 'a', 'stranger', CLIENT)), messages()), max_size=9))
def test_no_message_upsets_a_scheduler(those: list[tuple[str, Any]]) -> None:
    desk = busy_desk()
    for peer, message in those:
        if peer == 'a' and hasattr(message, 'node'):
            message = dataclasses.replace(message, node='a')
        if hasattr(message, 'computation'):
            message = dataclasses.replace(message, computation=7)
        desk.hears(peer, message)  # which checks the books
        desk.waits(1.0)


def test_what_another_program_says_of_a_computation_on_a_node_changes_nothing() -> None:
    bench = Bench()
    bench.open()
    bench.run(1, 2, 3)
    bench.tell(PeerConnected('thief', ''))
    bench.effects.clear()
    for message in (
        m.StopJobs(7, [1, 2, 3], [1, 1, 1]),
        m.RecallJobs(7, 3),
        m.CloseComputation(7),
        m.ShareData(7, 1, b'forged'),
        m.DropData(7, [1]),
        m.RunJobs(7, [4], [1], [b'forged']),
        m.OutputTaken(7, 'n'),
        LimitCpus(7, 0),
        PlaceFiles(7, 'n', 9, b''),
        FetchFiles(7, 'n', 1, [0], 1000),
        opening(),
        m.Farewell('the holder leaves'),
    ):
        bench.hears(message, 'thief')
    assert not [e for e in bench.effects if getattr(e, 'peer', 'thief') != 'thief']
    assert {type(e) for e in bench.effects} == {Send, Disconnect}
    bench.reported(1, 1)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [1]), 'thief')
    assert list(bench.core._hosted[7].letters) == [1]
    (letter,) = bench.take(m.JobsDone)
    assert letter.ids == [1]
    bench.reported(2, 2)
    assert [letter.ids for letter in bench.take(m.JobsDone)] == [[2]]
