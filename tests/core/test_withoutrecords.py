"""A shared scheduler takes over what it has no records of: only nodes know what has begun."""

from typing import Any

import pytest

from nodeserver.core import messages as m
from nodeserver.core.absence import UNKNOWN_EPOCHS
from nodeserver.core.computation import ATTEMPTS_OF_AN_EPOCH
from nodeserver.core.endings import UNSTARTED
from nodeserver.core.events import PeerLost
from nodeserver.core.recoveryeffects import RecordComputation, RecordPlacements
from nodeserver.core.recoveryevents import PlacementsKnown
from nodeserver.core.status import JobStatus, Unrun
from nodeserver.core.takeover import ALL_JOBS, ANYWHERE
from tests.support.desk import CLIENT
from tests.support.takeoverdesk import PATIENCE, TOKEN, TakeoverDesk

BACK = 'client again'


def unrecorded(*jobs: int, **changes: Any) -> TakeoverDesk:
    """A shared scheduler that is told of jobs whose program knows of no node."""
    return TakeoverDesk(dict.fromkeys(jobs, ''), is_shared=True, **changes)


def noted(desk: TakeoverDesk) -> list[str]:
    """Where all jobs are that are not on record, as was put on record."""
    found: list[str] = []
    for effect in desk.records:
        if isinstance(effect, RecordComputation) and effect.is_unknown:
            found.append(ANYWHERE[0])
        if isinstance(effect, RecordPlacements):
            pairs = zip(effect.nodes, effect.ids, strict=True)
            found += [node for node, ids in pairs if ids == [ALL_JOBS]]
    return found


def test_a_job_that_a_node_runs_does_not_begin_again() -> None:
    desk = unrecorded(1, 2)
    assert desk.meets('a').resumes
    desk.holds('a', 1)
    assert [(each.node, each.ids) for each in desk.sent(m.JobsStarted, CLIENT)] == [('a', [1])]
    desk.hears('a', m.ComputationReady(7))
    desk.lets_time_pass(PATIENCE)
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[2]]
    assert desk.core._fleet.computations[7].takeover is None


def test_an_outcome_that_a_node_keeps_is_believed() -> None:
    desk = unrecorded(1)
    desk.meets('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    assert desk.core._fleet.computations[7].takeover is None  # nobody is waited for any more


def test_all_that_no_node_has_waits_until_nodes_had_time_to_come() -> None:
    desk = unrecorded(1)
    desk.meets('a')
    desk.holds('a')
    desk.hears('a', m.ComputationReady(7))
    desk.lets_time_pass(PATIENCE - 1)
    assert not desk.sent(m.RunJobs)
    assert 'nodes are asked for 1 job that may have begun, for 1 s' in desk.explained()
    desk.submit(2)  # a new one, which nobody else can have
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[2]]
    desk.lets_time_pass(1.0)
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[1]]


def test_a_handover_that_takes_long_is_waited_for() -> None:
    desk = unrecorded(1)
    desk.join('a')
    desk.meets('b', '10.0.0.2')
    desk.lets_time_pass(PATIENCE + 1)
    assert not desk.sent(m.RunJobs)
    desk.holds('b', 1)
    assert desk.core._fleet.computations[7].places == {1: 'b'}


def test_a_node_that_is_lost_while_it_hands_over_is_asked_once_more() -> None:
    desk = unrecorded(1, 2)
    desk.meets('a')
    desk.letter('a', 1, 1)
    desk.tell(PeerLost('a', 'cut'))
    assert desk.meets('a').resumes
    desk.letter('a', 1, 1)
    desk.holds('a', 2)
    assert desk.core._fleet.computations[7].places == {2: 'a'}


def test_a_node_that_does_not_know_yet_that_the_scheduler_before_is_gone_is_asked_again() -> None:
    desk = unrecorded(1)
    desk.meets('a')
    desk.hears('a', m.ComputationRefused(7, 'busy', 'it is used by a program that runs'))
    desk.hears('a', m.NodeFree())
    assert [each.resumes for each in desk.sent(m.OpenComputation, 'a')] == [True]
    desk.begins('a')
    desk.holds('a', 1)
    assert desk.core._fleet.computations[7].places == {1: 'a'}


def test_nodes_follow_it_and_no_attempt_has_a_number_of_before() -> None:
    desk = unrecorded(1)  # its program has heard of one scheduler before this one
    assert desk.meets('a').epoch > UNKNOWN_EPOCHS
    desk.holds('a')
    desk.hears('a', m.ComputationReady(7))
    desk.lets_time_pass(PATIENCE)
    (given,) = desk.sent(m.RunJobs, 'a')
    assert given.attempts[0] > UNKNOWN_EPOCHS * ATTEMPTS_OF_AN_EPOCH


def test_a_node_that_comes_later_is_used_anew() -> None:
    desk = unrecorded(1)
    desk.lets_time_pass(PATIENCE)
    assert not desk.meets('a').resumes


def test_jobs_are_where_their_program_was_told_that_they_are() -> None:
    desk = TakeoverDesk({1: 'a', 2: ''}, is_shared=True)
    desk.meets('a')
    desk.holds('a', 2)
    assert [*desk.settled()] == [1]
    assert desk.core._fleet.computations[7].places == {2: 'a'}


def test_a_scheduler_that_is_restarted_meanwhile_asks_as_well() -> None:
    desk = unrecorded(1)
    assert noted(desk) == [ANYWHERE[0]]
    found = PlacementsKnown(7, TOKEN, 1, [], [ANYWHERE[0], 'b'], [[ALL_JOBS], [3]], [[0], [1]])
    again = TakeoverDesk({1: '', 3: ''}, is_shared=True, before=[found])
    assert again.meets('a').resumes
    again.holds('a', 1)
    assert again.core._fleet.computations[7].places == {1: 'a'}
    assert [*again.core._fleet.computations[7].takeover.where] == [3]  # of which there is a record


@pytest.mark.parametrize('has_job', [True, False])
def test_once_nodes_were_asked_what_is_on_record_counts(has_job: bool) -> None:
    desk = unrecorded(1)
    desk.meets('a')
    desk.holds('a', *[1] * has_job)
    desk.lets_time_pass(PATIENCE)
    assert noted(desk) == [ANYWHERE[0], '']


def test_a_client_that_is_forgotten_meanwhile_may_come_back() -> None:
    desk = unrecorded(1)
    desk.tell(PeerLost(CLIENT, 'killed'))
    desk.waits(3600.0)
    desk.comes_back(BACK, resubmits=1, epoch=2)
    desk.resubmit({1: ''}, BACK)
    desk.meets('a')
    desk.holds('a', 1)
    assert desk.core._fleet.computations[7].places == {1: 'a'}


def test_jobs_that_are_taken_back_meanwhile_end_when_it_is_known_where_they_are() -> None:
    desk = unrecorded(1, 2)
    desk.hears(CLIENT, m.CancelJobs(7, [1, 2]))
    desk.meets('a')
    desk.holds('a', 1)
    assert [each.ids for each in desk.sent(m.StopJobs, 'a')] == [[1]]
    desk.lets_time_pass(PATIENCE)
    assert desk.settled() == {2: (JobStatus.CANCELLED, 'cancelled before it started')}


def test_who_collects_gets_what_nodes_have() -> None:
    desk = unrecorded(1, 2, collects=True)
    assert desk.meets('a').resumes
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    desk.lets_time_pass(PATIENCE)
    (end,) = desk.sent(m.JobsSettled)
    assert (end.ids, end.status, end.reason) == ([2], JobStatus.CANCELLED, UNSTARTED)
    assert end.kind == Unrun.UNSTARTED


def test_urgent_jobs_and_those_for_one_node_are_queued_as_such() -> None:
    desk = TakeoverDesk({}, is_shared=True, resubmits=3)
    desk.resubmit({1: ''})
    desk.resubmit({2: ''}, options=m.JobOptions(priority=5))
    desk.resubmit({3: ''}, node='10.0.0.2')
    desk.meets('a', cpus=1)
    desk.holds('a')
    desk.hears('a', m.ComputationReady(7))
    desk.lets_time_pass(PATIENCE)
    (given,) = desk.sent(m.RunJobs, 'a')
    assert (given.ids[0], 3 in given.ids) == (2, False)
    assert 3 in desk.core._fleet.computations[7].waiting


def test_a_close_does_not_wait_for_nodes_that_nobody_knows() -> None:
    desk = unrecorded(1)
    desk.hears(CLIENT, m.CloseComputation(7))
    assert [each.computation for each in desk.sent(m.ComputationClosed, CLIENT)] == [7]


def test_a_program_with_a_scheduler_of_its_own_knows_where_its_jobs_are() -> None:
    desk = TakeoverDesk({1: ''})
    desk.join('a')
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[1]]
