"""A computation of before is taken over: how each of its jobs is found again, or is not."""

from typing import Any

import pytest

from nodeserver.core import messages as m
from nodeserver.core.effects import Knock, Ping, StopKnocking
from nodeserver.core.endings import UNSTARTED
from nodeserver.core.events import MessageArrived, NodeFound, PeerConnected, PeerLost
from nodeserver.core.records import SPARE, placements
from nodeserver.core.recoveryeffects import RecordNode, RecordPlacements, RewritePlacements
from nodeserver.core.recoveryevents import PlacementsKnown
from nodeserver.core.status import JobStatus, Unrun
from tests.support.desk import CLIENT, Desk
from tests.support.promises import jobs_left_in
from tests.support.takeoverdesk import PATIENCE, TOKEN, TakeoverDesk, known


def test_nodes_of_before_are_looked_for_at_their_places_whatever_nodes_says() -> None:
    desk = TakeoverDesk({1: 'a'}, specs=[m.NodeSpec('10.9.*', 51348, 0, False)])
    assert any(('10.0.0.1', 51348) in e.targets for e in desk.effects if isinstance(e, Ping))
    desk.waits(1.5)
    assert Knock('10.0.0.1', 51348) in desk.effects
    opened = desk.meets('a')
    assert (opened.resumes, opened.token, opened.epoch) == (True, TOKEN, 1)
    assert StopKnocking('10.0.0.1', 51348) in desk.effects
    desk.holds('a', 1)
    assert 'taking over' not in desk.explained()


def test_nothing_is_opened_before_all_jobs_are_told_of() -> None:
    desk = TakeoverDesk({}, resubmits=3, nodes=[known('a', '10.0.0.1')])
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.tell(PeerConnected('a', '10.0.0.1'))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    desk.resubmit({1: 'a', 2: 'a'})
    assert not desk.sent(m.OpenComputation)
    assert 'taking over: 1 job yet to be told of by the program' in desk.explained()
    desk.resubmit({3: 'a'})
    assert desk.sent(m.OpenComputation, 'a')
    assert 'waiting for node 10.0.0.1 port 51348, 3 jobs in doubt, lost in 25 s' in desk.explained()


def test_a_takeover_without_jobs_begins_at_once() -> None:
    desk = TakeoverDesk({}, nodes=[known('a', '10.0.0.1')])
    assert desk.meets('a').resumes
    desk.holds('a')
    desk.hears('a', m.ComputationReady(7))
    desk.submit(5)
    assert desk.sent(m.RunJobs, 'a')[0].attempts == [1025]  # no attempt of before has that number


def test_jobs_that_run_at_their_node_go_on() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'})
    desk.meets('a')
    desk.holds('a', 1, 2)
    desk.hears('a', m.ComputationReady(7))
    assert [(each.node, each.ids) for each in desk.sent(m.JobsStarted)] == [('a', [1, 2])]
    assert not desk.sent(m.RunJobs)
    desk.letter('a', 9, 1, 2)
    assert [(each.letter, each.ids) for each in desk.sent(m.JobsDone, CLIENT)] == [(9, [1, 2])]
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [9]))
    assert desk.sent(m.AcknowledgeOutcomes, 'a')
    assert jobs_left_in(desk.core) == {}


def test_outcomes_that_the_node_kept_are_passed_on_as_they_come() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a', 3: 'a'})
    desk.meets('a')
    desk.letter('a', 4, 1, 2)  # however many follow, none of them stays in memory
    assert [(each.letter, each.ids) for each in desk.sent(m.JobsDone, CLIENT)] == [(4, [1, 2])]
    desk.holds('a', 3)
    assert [each.ids for each in desk.sent(m.JobsStarted)] == [[3]]
    assert not desk.settled()


def test_what_was_under_way_before_a_handover_comes_once_more() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'old'}, nodes=[known('a', '10.0.0.1')])
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.tell(PeerConnected('a', '10.0.0.1'))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    desk.letter('a', 4, 1, 2)
    assert not desk.sent(m.JobsDone)  # who the node was before, it has yet to say
    assert not desk.sent(m.AcknowledgeOutcomes)  # and it is not to forget anything
    desk.begins('a', 'old')
    desk.letter('a', 4, 1, 2)
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1, 2]]


def test_a_node_that_hands_over_is_waited_for_under_the_ids_that_it_had() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'old'})
    desk.meets('a', formerly=('old',))
    desk.lets_time_pass(3 * PATIENCE)
    desk.letter('a', 4, 2)
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[2]]
    assert not desk.settled()


def test_what_the_node_has_not_begun_waits_again() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'})
    desk.meets('a')
    desk.hears('a', m.JobsReturned(7, [1], [1], 'its data had not come'))
    desk.holds('a', 2)
    assert [each.ids for each in desk.sent(m.JobsRequeued)] == [[1]]
    desk.hears('a', m.ComputationReady(7))
    (run,) = desk.sent(m.RunJobs, 'a')
    assert (run.ids, run.attempts) == ([1], [1025])


def test_a_job_without_a_place_is_queued_and_its_earlier_attempts_are_stopped() -> None:
    desk = TakeoverDesk({1: '', 2: 'a'})
    desk.meets('a')
    desk.holds('a', 1, 2)  # the first one is somebody else's by the latest record
    assert [(each.ids, each.attempts) for each in desk.sent(m.StopJobs, 'a')] == [([1], [1])]
    desk.hears('a', m.ComputationReady(7))
    (run,) = desk.sent(m.RunJobs, 'a')
    assert run.ids == [1]
    desk.letter('a', 5, 1, attempt=1)
    assert not desk.sent(m.JobsDone, CLIENT)
    desk.letter('a', 6, 1, attempt=run.attempts[0])
    assert desk.sent(m.JobsDone, CLIENT)


@pytest.mark.parametrize(
    ('reentrant', 'retries', 'again'),
    [(False, 0, False), (True, 0, True), (False, 1, True)],
    ids=['neither', 'reentrant', 'retries'],
)
@pytest.mark.parametrize(
    ('node', 'status', 'words'),
    [
        ('a', JobStatus.CANCELLED, 'node a (10.0.0.1) has it no more'),
        ('a again', JobStatus.ABANDONED, 'node a again (10.0.0.1) came back without it'),
    ],
    ids=['the same', 'restarted'],
)
def test_a_node_that_comes_without_a_job(
    reentrant: bool, retries: int, again: bool, node: str, status: JobStatus, words: str
) -> None:
    options = {'options': m.JobOptions(retries=retries)}
    desk = TakeoverDesk({1: 'a'}, reentrant=reentrant, resubmission=options)
    desk.meets(node)
    desk.holds(node)
    if again:
        assert [each.ids for each in desk.sent(m.JobsRetried)] == [[1]]
        desk.hears(node, m.ComputationReady(7))
        assert desk.sent(m.RunJobs, node)[0].attempts[0] > 1024  # and so is no attempt of before
    else:
        assert desk.settled() == {1: (status, words)}


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, (JobStatus.CANCELLED, 'node 10.0.0.1 was lost: it was not found again within 25 s')),
        (
            {'collects': True},
            (
                JobStatus.ABANDONED,
                'node 10.0.0.1 cannot be reached: it was not found again within 25 s',
            ),
        ),
        (
            {'collects': True, 'reentrant': True},
            (
                JobStatus.ABANDONED,
                'node 10.0.0.1 cannot be reached: it was not found again within 25 s',
            ),
        ),
    ],
    ids=['goes on', 'collects', 'collects reentrant'],
)
def test_a_node_that_does_not_come_in_time_is_lost(
    changes: dict[str, Any], expected: tuple[JobStatus, str]
) -> None:
    desk = TakeoverDesk({1: 'a'}, **changes)
    desk.lets_time_pass(PATIENCE - 0.1)
    assert not desk.settled()
    desk.lets_time_pass(0.2)
    assert desk.settled() == {1: expected}
    assert 'taking over' not in desk.explained()
    assert StopKnocking('10.0.0.1', 51348) in desk.effects


def test_reentrant_jobs_of_a_node_that_does_not_come_run_elsewhere() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'b'}, reentrant=True, is_shared=True)
    desk.meets('b', '10.0.0.2')
    desk.holds('b', 2)
    desk.hears('b', m.ComputationReady(7))
    desk.lets_time_pass(PATIENCE + 0.1)
    (run,) = desk.sent(m.RunJobs, 'b')
    assert run.ids == [1]


def test_who_comes_after_it_was_given_up_is_used_anew_and_not_believed() -> None:
    desk = TakeoverDesk({1: 'a'})
    desk.lets_time_pass(PATIENCE + 0.1)
    assert list(desk.settled()) == [1]
    opened = desk.meets('a')
    assert not opened.resumes
    desk.letter('a', 4, 1)
    assert not desk.sent(m.JobsDone, CLIENT)
    assert desk.sent(m.AcknowledgeOutcomes, 'a')


def test_a_restarted_node_is_known_by_the_ids_that_it_had() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'})
    opened = desk.meets('a again', '10.0.0.77')  # it is elsewhere now
    assert not opened.resumes  # nobody can know
    desk = TakeoverDesk({1: 'a', 2: 'b'})
    # at the place of `a`, and it was `b` once
    assert desk.meets('c', formerly=('a', 'b')).resumes
    desk.letter('c', 4, 1)
    desk.letter('c', 5, 2)
    desk.holds('c')
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1], [2]]
    assert 'taking over' not in desk.explained()


def test_only_the_node_of_the_latest_record_can_answer() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'b'})
    desk.meets('b', '10.0.0.2')
    desk.letter('b', 4, 1)
    desk.hears('b', m.JobsReturned(7, [1], [1], 'mine'))
    desk.holds('b', 1, 2)
    assert not desk.sent(m.JobsDone, CLIENT)
    assert [each.ids for each in desk.sent(m.StopJobs, 'b')] == [[1]]
    assert [each.ids for each in desk.sent(m.JobsStarted)] == [[2]]
    assert desk.sent(m.AcknowledgeOutcomes, 'b')  # it need not keep what is not believed
    assert '1 job in doubt' in desk.explained()


def test_an_attempt_that_cannot_be_is_not_believed() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a', 3: 'a'})
    desk.meets('a')
    desk.letter('a', 4, 1, attempt=1 << 60)
    desk.holds('a', 2, attempt=0)
    assert not desk.sent(m.JobsDone, CLIENT)
    assert sorted(desk.settled()) == [1, 2, 3]


def test_what_a_node_says_without_being_asked_is_no_handover() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'b'})
    desk.meets('a')
    desk.holds('a', 1)
    desk.begins('a', 'b')
    desk.holds('a', 2)
    assert '1 job in doubt' in desk.explained()


def test_a_node_lost_in_the_middle_may_come_back_in_time() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'})
    desk.meets('a')
    desk.letter('a', 4, 1)
    desk.tell(PeerLost('a', 'its connection was lost'))
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    assert '1 job in doubt' in desk.explained()
    assert desk.meets('a').resumes
    desk.letter('a', 4, 1)
    desk.holds('a', 2)
    assert [each.ids for each in desk.sent(m.JobsStarted)] == [[2]]
    assert not desk.settled()


def test_a_handover_that_takes_long_is_waited_for_but_not_for_a_node_that_is_lost_in_it() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'})
    desk.meets('a')
    desk.letter('a', 4, 1)
    desk.lets_time_pass(3 * PATIENCE)
    assert not desk.settled()
    desk.tell(PeerLost('a', 'its connection was lost'))
    desk.lets_time_pass(0.0)
    assert sorted(desk.settled()) == [2]


def test_a_node_without_anything_may_say_so_by_being_ready() -> None:
    desk = TakeoverDesk({1: 'a'}, reentrant=True)
    desk.meets('a')
    desk.hears('a', m.ComputationReady(7))
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[1]]


@pytest.mark.parametrize('kind', ['busy', 'failed'])
def test_a_node_that_refuses_before_it_has_handed_over_is_waited_for(kind: str) -> None:
    desk = TakeoverDesk({1: 'a'})
    desk.meets('a')
    desk.hears('a', m.ComputationRefused(7, kind, 'it is used by Ann'))
    assert not desk.settled()
    if kind == 'busy':
        desk.hears('a', m.NodeFree())
        assert desk.sent(m.OpenComputation, 'a')[0].resumes
    desk.lets_time_pass(PATIENCE)
    if kind == 'busy':  # it is handing over
        assert not desk.settled()
    else:
        (text,) = [words for _, words in desk.settled().values()]
        assert text == 'node a (10.0.0.1) was lost: it is used by Ann'


def test_a_node_that_somebody_else_uses_hands_over_what_it_kept() -> None:
    desk = TakeoverDesk({1: 'a'})
    desk.meets('a')
    desk.letter('a', 4, 1)
    desk.holds('a')
    desk.hears('a', m.ComputationRefused(7, 'busy', 'Ann has it'))
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [4]))
    assert desk.sent(m.AcknowledgeOutcomes, 'a')


# collecting


def test_jobs_that_a_node_had_not_begun_are_left_to_whoever_comes_next() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'}, collects=True)
    desk.meets('a')
    desk.hears('a', m.JobsReturned(7, [2], [1], 'another node is idle'))
    desk.holds('a', 1)
    turns = [each for each in desk.records if isinstance(each, RecordPlacements)]
    assert ([2], '') in [row for each in turns for row in zip(each.ids, each.nodes, strict=True)]
    (end,) = desk.sent(m.JobsSettled)
    assert (end.ids, end.status, end.reason) == ([2], JobStatus.CANCELLED, UNSTARTED)
    assert end.kind == Unrun.UNSTARTED


def test_who_collects_opens_only_nodes_that_may_have_something() -> None:
    desk = TakeoverDesk({1: 'a', 2: ''}, collects=True)
    assert desk.settled() == {
        2: (JobStatus.CANCELLED, 'it had not started, and only what had was asked for')
    }
    desk.tell(NodeFound('z', '10.0.0.9', 51348, ''))
    desk.tell(PeerConnected('z', '10.0.0.9'))
    desk.hears('z', m.NodeDetails('z', 2, 'Linux', '3.11', None))
    assert not desk.sent(m.OpenComputation)
    opened = desk.meets('a')
    assert (opened.resumes, opened.collects, opened.yields) == (True, True, True)
    desk.letter('a', 4, 1)
    desk.holds('a')
    desk.hears('a', m.ComputationRefused(7, 'empty', 'nothing of it is here'))
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    assert 'what it had was collected' in desk.explained()
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [4]))
    desk.hears(CLIENT, m.CloseComputation(7))
    assert desk.sent(m.CloseComputation, 'a')
    desk.hears('a', m.ComputationClosed(7))
    assert desk.sent(m.ComputationClosed, CLIENT)


def test_who_collects_has_nothing_run_again() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'}, collects=True, reentrant=True)
    desk.meets('a')
    desk.hears('a', m.JobsReturned(7, [1], [1], 'its data had not come'))
    desk.holds('a', 2)
    assert list(desk.settled()) == [1]
    desk.hears('a', m.ComputationReady(7))
    desk.tell(PeerLost('a', 'it was shot'))
    assert list(desk.settled()) == [2]
    assert not desk.sent(m.RunJobs)


def test_a_failure_is_final_for_who_collects() -> None:
    wishes = {'options': m.JobOptions(retries=3)}
    desk = TakeoverDesk({1: 'a'}, collects=True, resubmission=wishes)
    desk.meets('a')
    desk.hears('a', m.JobsDone(7, 'a', 4, [1], [1], [JobStatus.TERMINATED], [b''], ['x'], [1.0]))
    desk.holds('a')
    assert [each.statuses for each in desk.sent(m.JobsDone, CLIENT)] == [[JobStatus.TERMINATED]]


def test_a_job_whose_arguments_are_gone_can_be_fetched_but_not_run() -> None:
    gone = {'payloads': [b''] * 3}
    desk = TakeoverDesk({1: '', 2: 'a', 3: 'a'}, resubmission=gone)
    (reason,) = [words for _, words in desk.settled().values()]
    assert reason == 'it had not started, and its arguments are gone'
    desk.meets('a')
    desk.letter('a', 4, 2)
    desk.hears('a', m.JobsReturned(7, [3], [1], 'its data had not come'))
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[2]]
    assert desk.settled() == {
        3: (JobStatus.CANCELLED, 'its data had not come; its arguments are gone')
    }


def test_a_node_that_its_client_is_asked_about_first_hands_over() -> None:
    desk = TakeoverDesk({1: 'a'}, specs=[m.NodeSpec('*', 51348, 0, True)])
    opened = desk.meets('a')
    assert (opened.resumes, opened.collects) == (True, True)
    desk.letter('a', 4, 1)
    desk.holds('a')
    desk.hears('a', m.ComputationRefused(7, 'empty', ''))
    assert desk.sent(m.AllocateAsk)
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 1))
    (opened,) = desk.sent(m.OpenComputation, 'a')
    assert (opened.resumes, opened.collects, opened.cpus) == (False, False, 1)


# the user's wishes meanwhile


def test_jobs_taken_back_while_in_doubt() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a', 3: 'b'}, reentrant=True)
    desk.hears(CLIENT, m.CancelJobs(7, [1, 2, 3]))
    assert not desk.settled()  # they may have ended
    desk.meets('a')
    desk.letter('a', 4, 1)
    desk.holds('a', 2)
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    assert [each.ids for each in desk.sent(m.StopJobs, 'a')] == [[2]]
    desk.lets_time_pass(PATIENCE + 0.1)
    assert desk.settled() == {3: (JobStatus.CANCELLED, 'cancelled')}


def test_jobs_taken_back_before_they_are_told_of() -> None:
    desk = TakeoverDesk({}, resubmits=2, nodes=[known('a', '10.0.0.1')])
    desk.hears(CLIENT, m.CancelJobs(7, [1, 2]))
    desk.resubmit({1: '', 2: 'a'})
    assert desk.settled() == {1: (JobStatus.CANCELLED, 'cancelled before it started')}
    desk.meets('a')
    desk.holds('a', 2)
    assert [each.ids for each in desk.sent(m.StopJobs, 'a')] == [[2]]


def test_a_close_while_jobs_are_in_doubt_has_nodes_drop_what_they_have() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'b'})
    desk.meets('a')
    desk.hears(CLIENT, m.CloseComputation(7))
    assert sorted(desk.settled()) == [1, 2]
    assert desk.sent(m.CloseComputation, 'a')
    desk.letter('a', 4, 1)
    assert desk.sent(m.AcknowledgeOutcomes, 'a')
    desk.hears('a', m.ComputationClosed(7))
    assert not desk.sent(m.ComputationClosed, CLIENT)  # the other one may come yet
    opened = desk.meets('b', '10.0.0.2')
    assert (opened.resumes, opened.collects) == (True, True)
    assert desk.sent(m.CloseComputation, 'b')
    desk.hears('b', m.ComputationClosed(7))
    assert desk.sent(m.ComputationClosed, CLIENT)
    assert not desk.core._fleet.computations


def test_a_close_does_not_wait_for_ever_for_nodes_that_do_not_come() -> None:
    desk = TakeoverDesk({1: 'a'})
    desk.hears(CLIENT, m.CloseComputation(7))
    assert not desk.sent(m.ComputationClosed, CLIENT)
    desk.lets_time_pass(10.1)
    assert desk.sent(m.ComputationClosed, CLIENT)


def test_what_jobs_asked_for_still_holds() -> None:
    wishes = {'options': m.JobOptions(timeout=9.0, retries=2, priority=3), 'failures': [2, 1]}
    wishes |= {'shared': [[5], [5]], 'manifests': [b'f', b'f']}
    desk = TakeoverDesk({1: '', 2: 'a'}, resubmission=wishes)
    desk.hears(CLIENT, m.ShareData(7, 5, b'data'))
    desk.meets('a')
    desk.holds('a', 2, attempt=2)
    desk.hears('a', m.ComputationReady(7))
    (run,) = desk.sent(m.RunJobs, 'a')
    assert (run.ids, run.timeouts, run.shared, run.manifests) == ([1], [9.0], [[5]], [b'f'])
    assert [each.content for each in desk.sent(m.ShareData, 'a')] == [b'data']
    desk.tell(PeerLost('a', 'it was shot'))
    assert [each.ids for each in desk.sent(m.JobsRetried)] == [[2]]  # it has a retry left
    assert desk.settled() == {
        1: (JobStatus.CANCELLED, 'failed 3 times; last: node a (10.0.0.1) was lost: it was shot')
    }


def test_an_attempt_that_failed_before_is_not_believed_again() -> None:
    wishes = {'options': m.JobOptions(retries=2), 'failures': [1, 1]}
    desk = TakeoverDesk({1: 'a', 2: 'a'}, resubmission=wishes)
    desk.meets('a')
    desk.letter('a', 4, 1, 2, attempt=1)
    desk.letter('a', 5, 2, attempt=2)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[2]]
    assert [each.ids for each in desk.sent(m.JobsRetried)] == [[1]]  # the second one is lost


def test_urgent_jobs_of_before_go_before_others() -> None:
    desk = TakeoverDesk({}, resubmits=2)
    desk.resubmit({1: ''})
    desk.resubmit({2: ''}, options=m.JobOptions(priority=1))
    desk.join('a', cpus=1)
    assert [each.ids for each in desk.sent(m.RunJobs)] == [[2]]


def test_jobs_for_one_node_are_for_the_node_that_it_is_now() -> None:
    desk = TakeoverDesk({1: 'a', 2: ''}, reentrant=True, resubmission={'node': 'a'})
    desk.meets('a again', formerly=('a',))
    desk.holds('a again')
    desk.hears('a again', m.ComputationReady(7))
    (run,) = desk.sent(m.RunJobs, 'a again')
    assert sorted(run.ids) == [1, 2]


def test_jobs_for_a_node_that_does_not_come_end_with_it() -> None:
    desk = TakeoverDesk({1: 'a', 2: ''}, resubmission={'node': 'a'})
    desk.lets_time_pass(PATIENCE + 0.1)
    assert {status for status, _ in desk.settled().values()} == {JobStatus.CANCELLED}


def calls(desk: TakeoverDesk, node: str, *formerly: str) -> list[m.OpenComputation]:
    desk.tell(PeerConnected(node, '10.0.0.1', 'node'))  # all of them behind one gateway
    desk.hears(node, m.NodeDetails(node, 2, 'Linux', '3.11', None))
    desk.begins(node, *formerly)
    return desk.sent(m.OpenComputation, node)  # type: ignore[return-value]


def test_a_node_that_calls_does_not_answer_for_another_one_behind_its_gateway() -> None:
    desk = TakeoverDesk({1: 'a'}, nodes=[known('a', '10.0.0.1', 0)])
    calls(desk, 'z')
    desk.holds('z')  # nothing, and never did
    desk.hears('z', m.ComputationReady(7))
    assert not desk.settled()
    assert not desk.sent(m.RunJobs, 'z')
    (opened,) = calls(desk, 'a')
    assert opened.resumes
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [done.ids for done in desk.sent(m.JobsDone, CLIENT)] == [[1]]


@pytest.mark.parametrize('collects', [False, True])
def test_a_node_that_calls_and_was_started_again_is_asked_for_what_it_keeps(collects: bool) -> None:
    desk = TakeoverDesk({1: 'a'}, nodes=[known('a', '10.0.0.1', 0)], collects=collects)
    (opened,) = calls(desk, 'a again', 'a')
    assert (opened.resumes, opened.collects) == (True, collects)
    desk.letter('a again', 1, 1)
    desk.holds('a again')
    assert [done.ids for done in desk.sent(m.JobsDone, CLIENT)] == [[1]]


def test_one_that_has_nothing_is_asked_once() -> None:
    desk = TakeoverDesk({1: 'a'}, nodes=[known('a', '10.0.0.1', 0)], collects=True)
    calls(desk, 'z')
    desk.holds('z')
    desk.hears('z', m.ComputationRefused(7, 'empty', 'it has nothing of it'))
    desk.hears('z', m.NodeDetails('z', 4, 'Linux', '3.11', None))
    assert not desk.sent(m.OpenComputation, 'z')


# records


def records_of(desk: Desk, kind: type[Any]) -> list[Any]:
    """What was put on record of a kind."""
    return [record for record in desk.records if isinstance(record, kind)]


def test_a_job_is_put_on_record_before_it_is_sent() -> None:
    desk = Desk()
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    effects = desk.core.handle(
        MessageArrived(CLIENT, m.SubmitJobs(7, '', [1, 2, 3], [b'x'] * 3)), desk.now
    )
    effects += desk.core.end_turn(desk.now)
    kinds = [type(getattr(effect, 'message', effect)) for effect in effects]
    assert kinds.count(RecordPlacements) == 1
    assert kinds.index(RecordPlacements) < kinds.index(m.RunJobs)
    (record,) = [effect for effect in effects if isinstance(effect, RecordPlacements)]
    placed = dict(zip(record.nodes, record.ids, strict=True))
    assert sorted(job for ids in placed.values() for job in ids) == [1, 2, 3]
    assert [*map(len, record.attempts)] == [*map(len, record.ids)]
    assert {attempt for attempts in record.attempts for attempt in attempts} == {1}
    assert record.computations == [7] * len(record.nodes)
    assert [each.node.node for each in records_of(desk, RecordNode)] == ['a', 'b']


def test_jobs_that_wait_again_are_put_on_record_as_with_no_node() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.records.clear()
    desk.hears('a', m.ComputationRefused(7, 'busy', 'its hours are over'))
    desk.hears('a', m.JobsReturned(7, [1], [1], 'its hours are over'))
    desk.join('b', address='10.0.0.2')
    desk.submit(2)
    desk.hears('b', m.JobsReturned(7, [2], [1], 'not now'))
    last: dict[int, str] = {}
    for record in records_of(desk, RecordPlacements):
        for node, ids in zip(record.nodes, record.ids, strict=True):
            last.update(dict.fromkeys(ids, node))
    assert last[2] == 'b'  # it was given it again
    turn = next(each for each in records_of(desk, RecordPlacements) if '' in each.nodes)
    assert turn.nodes[0] == ''


def test_records_are_written_anew_when_most_do_not_matter() -> None:

    desk = Desk()
    desk.join('a', cpus=1)
    for letter, job in enumerate(range(1, SPARE + 3), 1):
        desk.effects.clear()
        effects = desk.core.handle(
            MessageArrived(CLIENT, m.SubmitJobs(7, '', [job], [b'x'])), desk.now
        )
        effects += desk.core.end_turn(desk.now)
        desk.records += [e for e in effects if isinstance(e, RewritePlacements)]
        done = m.JobsDone(7, 'a', letter, [job], [1], [11], [b''], [''], [1.0])
        desk.core.handle(MessageArrived('a', done), desk.now)
        if letter > 3:
            ack = m.AcknowledgeOutcomes(7, 'a', [letter])
            desk.core.handle(MessageArrived(CLIENT, ack), desk.now)
    (rewritten,) = records_of(desk, RewritePlacements)
    assert rewritten.nodes == ['a']
    assert sorted(rewritten.ids[0])[:3] == [1, 2, 3]  # not acknowledged
    assert len(rewritten.ids[0]) == 4
    assert rewritten.attempts == [[1] * 4]


def test_jobs_that_a_recovery_did_not_reach_stay_on_record_for_a_later_one() -> None:
    desk = TakeoverDesk({1: 'a'}, collects=True, resubmission={'attempts': [3]})
    desk.lets_time_pass(PATIENCE + 0.1)  # it did not come
    assert placements(desk.core._fleet.computations[7]) == {'a': ([1], [3])}


@pytest.mark.parametrize('told', ['', 'b'], ids=['nothing', 'another node'])
def test_what_was_recorded_here_counts_and_not_what_the_client_believes(told: str) -> None:
    found = PlacementsKnown(
        7, TOKEN, 4, [known('a', '10.0.0.1')], ['a', '', 'a'], [[1, 2], [2], []], [[1, 1], [], []]
    )
    desk = TakeoverDesk({1: told, 2: 'b'}, before=[found], is_shared=True)
    opened = desk.meets('a')
    assert (opened.resumes, opened.epoch) == (True, 5)
    desk.holds('a', 1)
    started = desk.sent(m.JobsStarted)
    assert [(each.node, each.ids) for each in started] == [('a', [1])]
    desk.hears('a', m.ComputationReady(7))
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[2]]


@pytest.mark.parametrize('told', ['on record', 'by the client'])
@pytest.mark.parametrize('answers', ['letter', 'returned', 'held'])
def test_of_a_job_in_doubt_only_the_attempt_that_is_known_counts(told: str, answers: str) -> None:
    before, resubmission = [], {'attempts': [3]}
    if told == 'on record':
        nodes = [known('a', '10.0.0.1')]
        before = [PlacementsKnown(7, TOKEN, 4, nodes, ['a', 'a'], [[1], [1]], [[2], [3]])]
        resubmission = {'attempts': [2]}  # it has not heard of the last one
    options = {'options': m.JobOptions(retries=1), **resubmission}
    desk = TakeoverDesk({1: 'a'}, before=before, is_shared=bool(before), resubmission=options)
    desk.meets('a')
    if answers == 'letter':
        desk.letter('a', 4, 1, attempt=2)
        desk.letter('a', 5, 1, attempt=3)
        desk.holds('a')
        assert [each.letter for each in desk.sent(m.JobsDone, CLIENT)] == [5]
        assert [each.letters for each in desk.sent(m.AcknowledgeOutcomes, 'a')] == [[4]]
        return
    if answers == 'returned':
        desk.hears('a', m.JobsReturned(7, [1], [2], 'long ago'))
        desk.holds('a', 1, attempt=3)
    else:
        desk.holds('a', 1, attempt=2)
        (stopped,) = desk.sent(m.StopJobs, 'a')
        assert (stopped.ids, stopped.attempts) == ([1], [2])
        assert [each.ids for each in desk.sent(m.JobsRetried)] == [[1]]
        return
    assert [each.ids for each in desk.sent(m.JobsStarted)] == [[1]]
    assert not desk.sent(m.JobsRequeued)


def test_who_shows_another_token_gets_nothing_and_is_told_so() -> None:
    found = PlacementsKnown(7, TOKEN, 4, [known('a', '10.0.0.1')], ['a'], [[1]], [[1]])
    desk = TakeoverDesk({1: 'a'}, before=[found], token=b'another', is_shared=True)
    (notice,) = desk.sent(m.Notice, CLIENT)
    assert 'it belongs to another program' in notice.text
    assert TOKEN not in notice.text.encode()
    assert not desk.core._fleet.computations
    desk.comes_back(resubmits=0)
    assert list(desk.core._fleet.computations) == [7]


@pytest.mark.parametrize('changes', [{'epoch': -1}, {'epoch': 1 << 40}, {'resubmits': -5}])
def test_a_declaration_that_cannot_be_is_refused_in_words(changes: dict[str, int]) -> None:
    desk = TakeoverDesk({}, **changes)
    assert 'cannot be used' in desk.sent(m.Notice, CLIENT)[0].text
    assert not desk.core._fleet.computations


def test_no_token_is_ever_shown() -> None:
    desk = TakeoverDesk({1: 'a'})
    desk.meets('a')
    shown = (
        repr(desk.records) + repr(desk.effects) + repr(desk.core._fleet.computations[7].declared)
    )
    assert 'sixteen' not in shown


def test_nothing_is_left_of_a_takeover() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'b', 3: ''})
    desk.meets('a')
    desk.letter('a', 4, 1)
    desk.holds('a')
    desk.hears('a', m.ComputationReady(7))
    (run,) = desk.sent(m.RunJobs, 'a')
    desk.letter('a', 5, 3, attempt=run.attempts[0])
    desk.lets_time_pass(PATIENCE + 0.1)
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [4, 5]))
    assert jobs_left_in(desk.core) == {}
    assert desk.core._fleet.computations[7].takeover is None
