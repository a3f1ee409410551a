"""Clients of a shared scheduler that go away: what goes on, and what they find then."""

from typing import Any

import pytest

from nodeserver.core import absence
from nodeserver.core import fleetmessages as fleet
from nodeserver.core import messages as m
from nodeserver.core.absence import DORMANT_SECONDS
from nodeserver.core.events import DeadlinePassed, NodeFound, PeerConnected, PeerLost
from nodeserver.core.lacking import DATA_LOST
from nodeserver.core.overview import describe
from nodeserver.core.recoveryeffects import ForgetComputation, RecordComputation
from nodeserver.core.recoveryevents import PlacementsKnown
from nodeserver.core.scheduler import ZOMBIE_SECONDS
from nodeserver.core.status import JobStatus, NodeStatus, Unrun
from nodeserver.core.takeovers import OUTCOME_LOST
from tests.support.desk import CLIENT
from tests.support.promises import jobs_left_in
from tests.support.takeoverdesk import PATIENCE, TOKEN, TakeoverDesk, known
from tests.support.world import declaration

BACK = 'client again'


def shared(**changes: Any) -> TakeoverDesk:
    """A shared scheduler with one client, and a node with two cpus."""
    values = {'resumes': False, 'epoch': 0}
    desk = TakeoverDesk({}, is_shared=True, **(values | changes))
    desk.join('a')
    desk.effects.clear()
    return desk


def goes_away(desk: TakeoverDesk) -> None:
    """The client's program dies."""
    desk.tell(PeerLost(CLIENT, 'it was shot'))


def to_client(desk: TakeoverDesk) -> list[Any]:
    """What was sent to a client since the last look."""
    return [e for e in desk.effects if getattr(e, 'peer', '') in (CLIENT, BACK)]


def test_jobs_of_a_client_that_is_away_go_on_and_it_is_told_nothing() -> None:
    desk = shared()
    desk.submit(1, 2, 3)
    goes_away(desk)
    assert [each.computation for each in desk.sent(m.KeepOutcomes, 'a')] == [7]
    desk.effects.clear()
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[3]]
    assert not desk.sent(m.AcknowledgeOutcomes)  # the node is to keep it
    assert not to_client(desk)


def test_who_is_back_gets_what_it_has_not_acknowledged_once_more() -> None:
    desk = shared()
    desk.submit(1, 2, 3, 4)
    desk.letter('a', 1, 1)
    desk.letter('a', 2, 2)
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    goes_away(desk)
    desk.letter('a', 3, 3)
    desk.effects.clear()
    desk.comes_back(BACK, resubmits=3)
    assert not desk.sent(m.ResendLetters)  # it is to be known first what it lacks
    desk.resubmit({2: 'a', 3: '', 4: ''}, BACK)
    assert [(each.node, each.ids) for each in desk.sent(m.JobsStarted, BACK)] == [('a', [4])]
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a')] == [[2, 3]]
    desk.letter('a', 2, 2)
    desk.letter('a', 3, 3)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[2], [3]]
    desk.letter('a', 4, 4)
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [2, 3, 4]))
    assert [each.letters for each in desk.sent(m.AcknowledgeOutcomes, 'a')] == [[2, 3, 4]]
    assert jobs_left_in(desk.core) == {}
    assert desk.core._fleet.computations[7].takeover is None


def test_a_letter_that_the_client_has_is_passed_on_again_all_the_same() -> None:
    desk = shared()
    desk.submit(1)
    desk.letter('a', 1, 1)
    goes_away(desk)  # and with it, the acknowledgement
    desk.comes_back(BACK, resubmits=0)
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a')] == [[1]]
    desk.letter('a', 1, 1)
    assert [each.letter for each in desk.sent(m.JobsDone, BACK)] == [1]
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert desk.sent(m.AcknowledgeOutcomes, 'a')
    assert jobs_left_in(desk.core) == {}


def test_who_is_back_twice_gets_everything_twice_and_has_it_once() -> None:
    desk = shared()
    desk.submit(1, 2)
    desk.letter('a', 1, 1)
    for _ in range(2):
        goes_away(desk)
        desk.comes_back(CLIENT, resubmits=2)  # its program is the same
        desk.resubmit({1: 'a', 2: 'a'})
        assert [each.letters for each in desk.sent(m.ResendLetters, 'a')] == [[1]]
        desk.letter('a', 1, 1)
        assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)][-1] == [1]
    assert not desk.sent(m.RunJobs, 'a')[1:]


@pytest.mark.parametrize('is_lost', [False, True])
def test_who_is_back_while_another_node_is_waited_for_gets_what_it_has_not_acknowledged(
    is_lost: bool,
) -> None:
    desk = TakeoverDesk({1: 'a', 2: 'b'}, is_shared=True)
    desk.meets('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, CLIENT)] == [[1]]
    goes_away(desk)
    if is_lost:
        desk.tell(PeerLost('a', 'no power'))
    desk.comes_back(BACK, resubmits=2)
    desk.resubmit({1: 'a', 2: 'b'}, BACK)
    if is_lost:
        desk.lets_time_pass(PATIENCE)
        assert [*desk.settled()] == [2, 1]
        return
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a')] == [[1]]
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    desk.lets_time_pass(PATIENCE)
    assert [*desk.settled()] == [2]


def test_who_comes_while_the_one_before_seems_to_be_there_takes_its_place() -> None:
    desk = shared()
    desk.submit(1)
    desk.effects.clear()
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    desk.hears(CLIENT, m.CancelJobs(7, [1]))
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.tell(PeerLost(CLIENT, 'it ended'))
    assert not desk.sent(m.KeepOutcomes)
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]


def test_only_who_shows_the_token_can_come_back() -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.comes_back('a thief', token=b'')
    desk.comes_back('a thief', token=b'another')
    assert len(desk.sent(m.Notice, 'a thief')) == 2
    desk.letter('a', 1, 1)
    assert not desk.sent(m.JobsDone)
    desk.comes_back(BACK, resubmits=1)
    assert desk.core._fleet.computations[7].client == BACK


def test_names_that_steer_a_terminal_or_add_lines_are_written_out_in_the_status() -> None:
    desk = shared(name='mine\nvictim of ann: 0 jobs running', owner='\x1b[31m' + 'x' * 900)
    (row,) = desk.core.overview(desk.now).computations
    assert row.name == 'mine?victim of ann: 0 jobs running'
    assert row.owner == '?[31m' + 'x' * 195
    lines = describe(desk.core.overview(desk.now), (), 1)
    assert len(lines) == 2
    assert lines[1].startswith('mine?victim of ann: 0 jobs running of ?[31mxx')


def test_the_status_says_whose_program_is_gone() -> None:
    desk = shared()
    desk.submit(1)
    gone = '; its program is gone'
    assert not describe(desk.core.overview(desk.now), (), 1)[1].endswith(gone)
    goes_away(desk)
    assert describe(desk.core.overview(desk.now), (), 1)[1].endswith(gone)
    desk.comes_back(BACK, resubmits=1)
    assert not describe(desk.core.overview(desk.now), (), 1)[1].endswith(gone)


@pytest.mark.parametrize('column', ['name', 'owner'])
def test_a_name_without_end_is_refused(column: str) -> None:
    desk = shared()
    desk.hears(BACK, declaration(9, **{column: 'x\n' * 1000}))
    (notice,) = desk.sent(m.Notice, BACK)
    assert 'its name, or that of its program, has 2000 characters' in notice.text
    assert len(notice.text) < 300
    assert '\n' not in notice.text
    assert 9 not in desk.core._fleet.computations


def test_one_program_cannot_fill_the_scheduler_with_clusters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(absence, 'MOST_CLUSTERS', 3)
    desk = shared()
    for number in range(100, 103):
        desk.hears(BACK, declaration(number))
    desk.hears(BACK, declaration(99))
    (notice,) = desk.sent(m.Notice, BACK)
    assert 'its program has 3 clusters open already' in notice.text
    desk.hears(CLIENT, declaration(8))  # another one may
    desk.hears(BACK, m.CloseComputation(100))
    desk.hears('a', m.ComputationClosed(100))
    desk.hears(BACK, declaration(98))
    known = desk.core._fleet.computations
    assert (99 in known, 8 in known, 98 in known) == (False, True, True)


def test_a_computation_without_a_token_is_taken_over_by_nobody() -> None:
    desk = shared(token=b'')
    goes_away(desk)
    desk.comes_back('a thief', token=b'')
    assert desk.core._fleet.computations[7].client == CLIENT


def test_endings_of_the_scheduler_are_told_until_they_are_acknowledged() -> None:
    desk = shared()
    desk.submit(1, 2, 3)
    desk.hears(CLIENT, m.CancelJobs(7, [3]))
    (told,) = desk.sent(m.JobsSettled, CLIENT)
    assert told.letter == 1
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, '', [1]))
    goes_away(desk)
    desk.tell(PeerLost('a', 'it was shot'))
    assert not desk.sent(m.JobsSettled)
    desk.comes_back(BACK, resubmits=2)
    (told,) = desk.sent(m.JobsSettled, BACK)
    assert (told.ids, told.letter) == ([1, 2], 2)
    desk.resubmit({1: 'a', 2: 'a'}, BACK)
    desk.join('b', address='10.0.0.2')
    assert not desk.sent(m.RunJobs, 'b')  # they ended, whatever the client has heard of it
    desk.hears(BACK, m.AcknowledgeOutcomes(7, '', [2]))
    assert jobs_left_in(desk.core) == {}


def test_jobs_whose_submission_was_lost_are_queued() -> None:
    desk = shared()
    goes_away(desk)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({5: ''}, BACK)
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[5]]


def test_what_ends_while_jobs_are_told_of_is_not_run_again() -> None:
    desk = shared()
    desk.submit(1, 2)
    goes_away(desk)
    desk.comes_back(BACK, resubmits=2)
    desk.letter('a', 1, 1)
    desk.resubmit({1: '', 2: ''}, BACK)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    assert len(desk.sent(m.RunJobs, 'a')) == 1


def test_jobs_that_ran_elsewhere_meanwhile_are_where_they_are() -> None:
    desk = shared(reentrant=True)
    desk.submit(1)
    goes_away(desk)
    desk.tell(PeerLost('a', 'it was shot'))
    desk.join('b', address='10.0.0.2')
    assert desk.sent(m.KeepOutcomes, 'b')  # also of a node that came meanwhile
    desk.comes_back(BACK, resubmits=1)
    changes = {each.node: each.status for each in desk.sent(m.NodeChanged, BACK)}
    assert changes == {'a': NodeStatus.CLOSED, 'b': NodeStatus.INITIALIZED}
    desk.resubmit({1: 'a'}, BACK)
    assert [(each.node, each.ids) for each in desk.sent(m.JobsStarted, BACK)] == [('b', [1])]


def test_a_node_that_was_cut_off_meanwhile_hands_over_what_the_client_lacks() -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.tell(PeerLost('a', 'its connection was lost'))
    opened = desk.meets('a')
    assert (opened.resumes, opened.yields) == (True, False)
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert not desk.sent(m.AcknowledgeOutcomes, 'a')
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a')] == [[1]]
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]


@pytest.mark.parametrize('comes', [True, False])
def test_outcomes_on_a_node_that_is_away_as_well_are_waited_for(comes: bool) -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.tell(PeerLost('a', 'it was restarted'))
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    assert '1 job in doubt' in desk.explained()
    if comes:
        assert desk.meets('a again', formerly=('a',)).resumes
        desk.letter('a again', 1, 1)
        desk.holds('a again')
        assert [each.node for each in desk.sent(m.JobsDone, BACK)] == ['a again']
        desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a again', [1]))
        assert jobs_left_in(desk.core) == {}
    else:
        desk.lets_time_pass(PATIENCE + 0.1)
        assert list(desk.settled()) == [1]


@pytest.mark.parametrize('is_lost', [True, False], ids=['lost', 'not yet lost'])
def test_a_node_that_was_restarted_and_keeps_nothing_is_asked_once(is_lost: bool) -> None:
    desk = shared(specs=[m.NodeSpec('*', 51348, 0, True)])  # its client is asked how much it wants
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 2))
    desk.hears('a', m.ComputationReady(7))
    desk.submit(1)
    desk.letter('a', 1, 1)  # its client does not acknowledge it
    if is_lost:
        desk.tell(PeerLost('a', 'it was restarted'))
    opened = desk.meets('a again')
    assert opened.resumes and opened.collects
    desk.holds('a again')
    desk.hears('a again', m.ComputationRefused(7, 'empty', 'nothing of it runs here'))
    assert not desk.sent(m.OpenComputation, 'a again')
    assert not desk.core._fleet.computations[7].undelivered.letters


@pytest.mark.parametrize('is_reentrant', [False, True])
def test_a_job_whose_outcome_is_lost_with_its_node_is_not_run_again_for_a_client_that_is_back(
    is_reentrant: bool,
) -> None:
    desk = shared(reentrant=is_reentrant)
    desk.submit(1)
    desk.letter('a', 1, 1)
    desk.tell(PeerLost('a', 'no power'))  # before it was told that the client is gone
    desk.meets('a again')
    desk.holds('a again')
    desk.hears('a again', m.ComputationReady(7))
    goes_away(desk)
    desk.comes_back(BACK, resubmits=1, reentrant=is_reentrant)
    desk.effects.clear()
    desk.resubmit({1: ''}, BACK)
    if is_reentrant:
        assert [each.ids for each in desk.sent(m.RunJobs, 'a again')] == [[1]]
    else:
        assert not desk.sent(m.RunJobs)
        assert desk.settled() == {1: (JobStatus.ABANDONED, OUTCOME_LOST)}
    assert not desk.core._fleet.computations[7].undelivered.gone


@pytest.mark.parametrize('comes', [True, False])
def test_a_job_whose_outcome_is_lost_uses_a_retry_that_it_has_left(comes: bool) -> None:
    desk = shared()
    once_more = m.JobOptions(retries=1)
    desk.submit(1, options=once_more)
    desk.letter('a', 1, 1)
    goes_away(desk)
    desk.tell(PeerLost('a', 'no power'))
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: ''}, BACK, options=once_more)
    if comes:
        desk.meets('a again', formerly=('a',))
        desk.holds('a again')
    else:
        desk.lets_time_pass(PATIENCE)
    assert [each.ids for each in desk.sent(m.JobsRetried, BACK)] == [[1]]
    assert 1 in desk.core._fleet.computations[7].waiting


def test_an_outcome_that_its_client_has_is_not_missed_when_it_is_lost_with_its_node() -> None:
    desk = shared()
    desk.submit(1)
    desk.letter('a', 1, 1)
    desk.tell(PeerLost('a', 'no power'))
    desk.meets('a again')
    desk.holds('a again')
    assert desk.core._fleet.computations[7].undelivered.gone
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert not desk.core._fleet.computations[7].undelivered.gone


def test_a_client_that_comes_back_in_the_middle_of_a_handover_gets_what_came_before() -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'}, is_shared=True)
    desk.meets('a again', formerly=('a',))
    desk.letter('a again', 1, 1)
    goes_away(desk)  # before it had this
    desk.comes_back(BACK, resubmits=2)
    desk.resubmit({1: 'a', 2: 'a'}, BACK)
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a again')] == [[1]]
    desk.effects.clear()
    desk.holds('a again', 2)
    assert not desk.settled()
    desk.letter('a again', 1, 1)  # it was asked for after the others
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    assert 'in doubt' not in desk.explained()


def test_a_client_that_has_an_outcome_before_its_job_is_told_of_again_does_not_wait_for_it() -> (
    None
):
    desk = shared()
    desk.submit(1)
    desk.letter('a', 1, 1)
    goes_away(desk)
    desk.comes_back(BACK, resubmits=1)
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [1]))  # overtakes what it tells of its jobs
    desk.resubmit({1: 'a'}, BACK)
    assert 'in doubt' not in desk.explained()


@pytest.mark.parametrize('lost_first', [True, False])
def test_letters_that_the_client_has_are_not_waited_for_when_their_node_is_lost(
    lost_first: bool,
) -> None:
    desk = shared()
    desk.submit(1, 2)
    desk.letter('a', 1, 1)
    desk.letter('a', 2, 2)
    goes_away(desk)
    if lost_first:
        desk.tell(PeerLost('a', 'it was shot'))
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({2: 'a'}, BACK)  # it has the outcome of 1
    if not lost_first:
        desk.tell(PeerLost('a', 'it was shot'))
    assert [*desk.core._fleet.computations[7].undelivered.letters] == [('a', 2)]


def meets_again(desk: TakeoverDesk) -> None:
    """A node that was lost is met under the id that it had."""
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.tell(PeerConnected('a', '10.0.0.1'))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))


@pytest.mark.parametrize('is_back_first', [True, False])
def test_a_node_that_is_not_to_be_used_any_more_hands_over_what_it_has(is_back_first: bool) -> None:
    desk = shared()
    desk.submit(1)
    desk.letter('a', 1, 1)
    desk.hears(CLIENT, fleet.DeallocateNode(7, 1, 'a'))
    goes_away(desk)
    desk.tell(PeerLost('a', 'its connection was lost'))
    if not is_back_first:
        meets_again(desk)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    if is_back_first:
        meets_again(desk)
    (opened,) = desk.sent(m.OpenComputation, 'a')
    assert (opened.resumes, opened.collects) == (True, True)
    desk.begins('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    desk.hears('a', m.ComputationRefused(7, 'empty', 'nothing of it runs here'))
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    assert 'it was deallocated' in desk.explained()
    assert not desk.sent(m.OpenComputation)


@pytest.mark.parametrize('again', [True, False])
def test_a_node_is_closed_when_the_client_has_what_its_jobs_have_ended_with(again: bool) -> None:
    desk = shared()
    desk.submit(1)
    desk.hears(CLIENT, fleet.CloseNode(7, 1, 'a', False, again))
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    assert not desk.sent(m.CloseComputation)  # with which the node forgets all of it
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert [each.again for each in desk.sent(m.CloseComputation, 'a')] == [again]


@pytest.mark.parametrize('is_lost', [True, False], ids=['lost', 'not yet lost'])
def test_a_node_restarted_while_the_client_is_away_keeps_its_outcomes(is_lost: bool) -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.letter('a', 1, 1)
    if is_lost:
        desk.tell(PeerLost('a', 'it was restarted'))
    assert desk.meets(
        'a again', formerly=('a',)
    ).resumes  # at the same place: else it drops what it keeps
    desk.letter('a again', 1, 1)
    desk.holds('a again')
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a again')] == [[1]]
    desk.letter('a again', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a again', [1]))
    assert jobs_left_in(desk.core) == {}


def test_a_node_restarted_and_met_before_the_client_is_back_has_its_outcomes() -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.tell(PeerLost('a', 'it was restarted'))
    desk.meets('a again', formerly=('a',))
    desk.comes_back(BACK, resubmits=1)
    desk.letter('a again', 1, 1)
    desk.holds('a again')
    desk.effects.clear()
    desk.resubmit({1: 'a'}, BACK)  # told of only now
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a again')] == [[1]]
    desk.letter('a again', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    assert 'in doubt' not in desk.explained()


def test_outcomes_that_are_given_up_are_not_believed_later_and_no_number_is_used_twice() -> None:
    desk = shared(reentrant=True)
    desk.submit(1)
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.comes_back(BACK, resubmits=1, reentrant=True)
    desk.resubmit({1: 'a'}, BACK)
    assert desk.sent(m.ResendLetters, 'a')
    desk.effects.clear()
    desk.lets_time_pass(PATIENCE + 0.1)  # and the node, which hangs, does not do it
    assert [each.ids for each in desk.sent(m.JobsRetried)] == [[1]]
    (run,) = desk.sent(m.RunJobs, 'a')
    assert (run.ids, run.attempts) == ([1], [2])
    desk.letter('a', 1, 1)
    assert not desk.sent(m.JobsDone, BACK)
    assert [each.letters for each in desk.sent(m.AcknowledgeOutcomes, 'a')] == [[1]]


def test_a_letter_of_which_only_some_jobs_are_told_of_again_is_passed_on_as_a_whole() -> None:
    desk = shared()
    desk.submit(1, 2)
    goes_away(desk)
    desk.letter('a', 1, 1, 2)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    desk.letter('a', 1, 1, 2)
    assert sorted(job for each in desk.sent(m.JobsDone, BACK) for job in each.ids) == [1, 2]
    desk.core.check()  # none of them is taken for being with the node
    assert ', 0 on nodes' in desk.explained()
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert jobs_left_in(desk.core) == {}


def test_a_client_that_came_back_in_time_is_not_forgotten_days_later() -> None:
    found = PlacementsKnown(7, TOKEN, 4, [], [], [], [])
    desk = TakeoverDesk({}, before=[found], is_shared=True)
    assert list(desk.core._fleet.computations) == [7]
    desk.core._absence.due(desk.now + 2 * DORMANT_SECONDS)
    assert list(desk.core._fleet.computations) == [7]


def test_a_last_failure_that_comes_again_is_the_last_one_still() -> None:
    desk = shared()
    desk.submit(1, options=m.JobOptions(retries=1))
    goes_away(desk)
    for letter in (1, 2):
        desk.fails('a', letter, 1, attempt=letter)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK, options=m.JobOptions(retries=1))  # has heard of no failure
    desk.effects.clear()
    desk.fails('a', 2, 1, attempt=2)
    assert not desk.sent(m.JobsRetried)
    assert [each.letter for each in desk.sent(m.JobsDone, BACK)] == [2]


def test_a_client_that_is_back_hears_first_which_jobs_are_with_nodes() -> None:
    desk = shared()
    desk.submit(1, options=m.JobOptions(retries=1))
    goes_away(desk)
    desk.effects.clear()
    desk.comes_back(BACK, resubmits=1)
    desk.fails('a', 1, 1)  # before the client has told of the job
    kinds = [type(each.message) for each in to_client(desk)]
    assert kinds.index(m.JobsStarted) < kinds.index(m.JobsRetried)


def test_what_a_node_does_not_hand_over_again_is_not_waited_for() -> None:
    desk = shared()
    desk.submit(1, 2)
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.letter('a', 2, 2)
    desk.tell(PeerLost('a', 'its disk broke'))
    desk.meets('a')
    desk.letter('a', 2, 2)
    desk.holds('a')
    desk.comes_back(BACK, resubmits=0)
    assert jobs_left_in(desk.core)
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [2]))
    assert jobs_left_in(desk.core) == {}


def test_a_node_lost_before_it_has_sent_again_what_the_client_lacks_is_waited_for() -> None:
    desk = shared()
    desk.submit(1)
    desk.letter('a', 1, 1)
    goes_away(desk)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    desk.tell(PeerLost('a', 'its connection was lost'))
    assert '1 job in doubt' in desk.explained()
    desk.meets('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)][-1] == [1]


@pytest.mark.parametrize(('answer', 'limit', 'runs'), [(1, 1, []), (2, 2, [3]), (0, 1, [])])
def test_a_restarted_scheduler_asks_how_much_of_a_node_that_has_jobs_is_wanted(
    answer: int, limit: int, runs: list[int]
) -> None:
    asked = [m.NodeSpec('*', 51348, 0, True)]
    found = PlacementsKnown(7, TOKEN, 1, [known('a', '10.0.0.1')], ['a'], [[1]], [[1]])
    desk = TakeoverDesk({1: 'a', 3: '', 4: ''}, is_shared=True, specs=asked, before=[found])
    opened = desk.meets('a')
    assert (opened.cpus, opened.collects) == (1, True)
    desk.holds('a', 1)
    desk.hears('a', m.ComputationReady(7))
    (ask,) = desk.sent(m.AllocateAsk, CLIENT)
    assert (ask.node, ask.cpus) == ('a', 2)
    desk.effects.clear()
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', answer))
    assert [each.cpus for each in desk.sent(fleet.LimitCpus, 'a')] == [limit]
    assert [job for each in desk.sent(m.RunJobs, 'a') for job in each.ids] == runs
    desk.letter('a', 1, 1)
    more = [job for each in desk.sent(m.RunJobs, 'a') for job in each.ids]
    assert bool(more) == (answer > 0)


def test_a_client_is_asked_again_how_much_of_a_node_it_wants() -> None:
    desk = shared(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.sent(m.AllocateAsk)
    goes_away(desk)
    desk.tell(NodeFound('b', '10.0.0.2', 51348, ''))
    desk.tell(PeerConnected('b', '10.0.0.2'))
    desk.hears('b', m.NodeDetails('b', 2, 'Linux', '3.11', None))
    assert not desk.sent(m.AllocateAsk)
    desk.comes_back(BACK, specs=[m.NodeSpec('*', 51348, 0, True)])
    assert {each.node for each in desk.sent(m.AllocateAsk, BACK)} == {'a', 'b'}


def test_a_client_that_does_not_come_back_is_forgotten_and_nodes_keep_its_outcomes() -> None:
    desk = shared()
    desk.submit(1, 2, 3, 4)
    goes_away(desk)
    desk.letter('a', 1, 1)
    desk.lets_time_pass(ZOMBIE_SECONDS - 1)
    assert not desk.sent(m.CloseComputation)
    desk.lets_time_pass(2)
    assert [each.keeps for each in desk.sent(m.CloseComputation, 'a')] == [True]
    assert not desk.core._fleet.computations
    assert not [each for each in desk.records if isinstance(each, ForgetComputation)]
    desk.comes_back(BACK, resubmits=4)  # hours later
    assert desk.core._fleet.computations[7].declared.epoch == 1
    desk.resubmit({1: '', 2: 'a', 3: '', 4: ''}, BACK)
    (opened,) = desk.sent(m.OpenComputation, 'a')
    assert opened.resumes
    desk.begins('a')
    desk.letter('a', 1, 1)
    desk.letter('a', 2, 3)
    desk.holds('a', 2)
    assert sorted(job for each in desk.sent(m.JobsDone, BACK) for job in each.ids) == [1, 3]
    desk.hears('a', m.ComputationReady(7))
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')][-1] == [4]  # it had not started
    assert not desk.settled()


def handed_over(then: str) -> TakeoverDesk:
    """A node that runs nothing has handed over an outcome, which its client does not have yet."""
    if then == 'not wanted':
        specs = [m.NodeSpec('11.*', 51348, 0, False)]
        desk = TakeoverDesk({1: 'a'}, is_shared=True, specs=specs)
    else:
        desk = shared(specs=[m.NodeSpec('*', 51348, 0, then == 'asking')])
        desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 2))
        desk.hears('a', m.ComputationReady(7))
        desk.submit(1)
        desk.letter('a', 1, 1)
    if then == 'dismissed':
        desk.hears(CLIENT, fleet.DeallocateNode(7, 1, 'a'))
    desk.tell(PeerLost('a', 'its connection was lost'))
    meets_again(desk)
    desk.begins('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    desk.hears('a', m.ComputationRefused(7, 'empty', 'nothing of it runs here'))
    use = desk.core._fleet.nodes['a'].uses.get(7)
    assert (use.state if use is not None else 'not wanted') == then
    goes_away(desk)
    desk.effects.clear()
    return desk


@pytest.mark.parametrize('then', ['asking', 'dismissed', 'not wanted'])
def test_outcomes_are_asked_for_again_at_nodes_that_are_not_used_any_more(then: str) -> None:
    desk = handed_over(then)
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    assert [each.letters for each in desk.sent(m.ResendLetters, 'a')] == [[1]]
    desk.begins('a')  # where it is not in use, it is opened once more
    desk.letter('a', 1, 1)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]


@pytest.mark.parametrize('then', ['asking', 'dismissed', 'not wanted'])
def test_nodes_that_are_not_used_any_more_keep_outcomes_for_whoever_comes(then: str) -> None:
    desk = handed_over(then)
    desk.lets_time_pass(ZOMBIE_SECONDS + 1)
    assert [each.keeps for each in desk.sent(m.CloseComputation, 'a')] == [True]


def test_an_outcome_on_its_way_when_its_client_is_forgotten_stays_at_its_node() -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.lets_time_pass(ZOMBIE_SECONDS + 1)
    desk.letter('a', 1, 1)
    assert not desk.sent(m.AcknowledgeOutcomes)  # else the node would drop it
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: 'a'}, BACK)
    desk.begins('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]


@pytest.mark.row('I05')
@pytest.mark.parametrize(
    'late',
    [
        m.JobsHeld(7, [2], [1]),
        m.ComputationReady(7),
        m.ComputationRefused(7, 'empty', 'nothing of it runs here'),
    ],
)
def test_the_end_of_an_earlier_handover_does_not_end_the_one_that_is_asked_for_now(
    late: Any,
) -> None:
    desk = TakeoverDesk({1: 'a', 2: 'a'}, is_shared=True)
    desk.meets('a')
    desk.letter('a', 1, 1)
    goes_away(desk)
    desk.lets_time_pass(ZOMBIE_SECONDS + 1)  # the connection to its node hangs meanwhile
    desk.comes_back(BACK, resubmits=2)
    desk.resubmit({1: 'a', 2: 'a'}, BACK)
    assert desk.sent(m.OpenComputation, 'a')[-1].resumes
    desk.hears('a', late)
    desk.begins('a')
    desk.letter('a', 1, 1)
    desk.holds('a', 2)
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]
    assert desk.sent(m.JobsStarted, BACK)[-1].ids == [2]
    assert not desk.settled()


def test_what_was_ended_for_a_client_that_was_forgotten_is_told_when_it_comes_after_all() -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.tell(PeerLost('a', 'it was shot'))
    desk.lets_time_pass(ZOMBIE_SECONDS + 1)
    desk.comes_back(BACK, resubmits=1)
    assert [each.ids for each in desk.sent(m.JobsSettled, BACK)] == [[1]]
    desk.resubmit({1: 'a'}, BACK)
    desk.join('b', address='10.0.0.2')
    assert not desk.sent(m.RunJobs, 'b')


def test_what_nobody_asks_for_any_more_is_forgotten_in_the_end() -> None:
    desk = shared()
    goes_away(desk)
    desk.lets_time_pass(ZOMBIE_SECONDS + 1)
    desk.now += 7 * 86400.0 - 60.0  # 100,000 pulses would tell no more
    desk.tell(DeadlinePassed())
    assert not [each for each in desk.records if isinstance(each, ForgetComputation)]
    desk.lets_time_pass(60.0)
    assert [each.computation for each in desk.records if isinstance(each, ForgetComputation)] == [7]
    assert desk.core.next_deadline() is not None  # nodes are still asked for signs of life


def test_a_close_waits_for_no_client() -> None:
    desk = shared()
    desk.submit(1)
    desk.hears(CLIENT, m.CloseComputation(7))
    goes_away(desk)
    desk.hears('a', m.ComputationClosed(7))
    assert not desk.core._fleet.computations
    kinds = [type(each) for each in desk.records]
    assert kinds[0] is RecordComputation
    assert kinds[-1] is ForgetComputation


def test_nodes_of_a_client_that_was_forgotten_are_given_no_jobs_of_it() -> None:
    desk = shared()
    goes_away(desk)
    desk.lets_time_pass(ZOMBIE_SECONDS + 1)  # the books are checked at each step
    assert not desk.core._fleet.nodes['a'].uses
    assert len(desk.core._dispatch._placement) == 0


def test_clients_are_spoken_to_so_that_their_systems_say_if_they_are_gone() -> None:
    desk = shared()
    desk.lets_time_pass(6)
    assert desk.sent(m.SchedulerPulse, CLIENT)
    goes_away(desk)
    desk.lets_time_pass(20)
    assert not desk.sent(m.SchedulerPulse, CLIENT)
    desk.tell(PeerLost('a', 'it was shot'))
    desk.comes_back(BACK)
    desk.sent(m.SchedulerPulse)
    desk.lets_time_pass(11)
    assert desk.sent(m.SchedulerPulse, BACK)  # also where there is no node


def test_data_that_the_client_dropped_while_it_was_away_are_dropped() -> None:
    desk = shared()
    for data in (5, 6, 7):
        desk.hears(CLIENT, m.ShareData(7, data, b'data'))
    options = {'shared': [[5], [6], [8]]}
    desk.hears(CLIENT, m.SubmitJobs(7, '', [1, 2, 3], [b'x'] * 3, **options))
    desk.letter('a', 1, 1)
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    goes_away(desk)
    desk.comes_back(BACK, resubmits=2)
    desk.hears(BACK, m.ShareData(7, 7, b'data'))  # no job names it yet
    desk.effects.clear()
    desk.resubmit({2: 'a', 3: ''}, BACK, shared=[[6], [8]])
    assert [each.ids for each in desk.sent(m.DropData, 'a')] == [[5]]
    stock = desk.core._fleet.computations[7].data
    assert stock is not None
    assert sorted(stock._contents) == [6, 7]


@pytest.mark.parametrize('came', [True, False])
def test_jobs_that_wait_for_data_which_nobody_has_any_more_end(came: bool) -> None:
    desk = shared()
    if came:
        desk.hears(CLIENT, m.ShareData(7, 5, b'data'))
    desk.hears(CLIENT, m.SubmitJobs(7, '', [1, 2], [b'x'] * 2, shared=[[5], []]))
    assert [each.ids for each in desk.sent(m.RunJobs, 'a')] == [[1, 2]]
    goes_away(desk)
    desk.comes_back(BACK, resubmits=2, collects=True)
    desk.resubmit({1: '', 2: ''}, BACK, payloads=[b'', b''])  # it knows which jobs there are
    dropped = [each.ids for each in desk.sent(m.DropData, 'a')]
    assert dropped == ([] if came else [[5]])
    stopped = [(each.ids, each.attempts) for each in desk.sent(m.StopJobs, 'a')]
    if came:
        assert (stopped, desk.settled()) == ([], {})
    else:
        assert (stopped, desk.settled()) == ([([1], [1])], {1: (JobStatus.CANCELLED, DATA_LOST)})
        desk.letter('a', 1, 1)  # as it was stopped: nobody waits for that
        assert not desk.sent(m.JobsDone, BACK)
    assert 2 in desk.core._fleet.computations[7].places


@pytest.mark.parametrize('is_on_record', [True, False])
def test_jobs_that_an_earlier_scheduler_did_not_reach_stay_where_they_are(
    is_on_record: bool,
) -> None:
    """It died when it had told the client so, and before that has closed its cluster."""
    nodes = [known('a', '10.0.0.1'), known('b', '10.0.0.2')]
    found = PlacementsKnown(7, TOKEN, 1, nodes, ['a', 'b'], [[1], [2]], [[1], [1]])
    before = [found] if is_on_record else []
    desk = TakeoverDesk({2: 'b'}, before=before, is_shared=True, collects=True)
    desk.meets('b', '10.0.0.2')
    desk.holds('b', 2)
    desk.letter('b', 1, 2)
    desk.hears(CLIENT, m.CloseComputation(7, keeps=True))
    (closed,) = desk.sent(m.CloseComputation, 'b')
    assert not closed.token  # else it would drop what it may have of others
    desk.hears('b', m.ComputationClosed(7))
    assert desk.sent(m.ComputationClosed, CLIENT)
    assert not [each for each in desk.records if isinstance(each, ForgetComputation)]
    desk.effects.clear()
    desk.comes_back(BACK, resubmits=1, epoch=3)
    desk.resubmit({1: ''}, BACK)
    assert not desk.sent(m.RunJobs)  # it may have begun
    assert desk.meets('a').resumes
    desk.letter('a', 1, 1)
    desk.holds('a')
    assert [each.ids for each in desk.sent(m.JobsDone, BACK)] == [[1]]


def test_what_a_recovery_that_died_has_not_reached_and_the_next_one_has_is_not_left() -> None:
    desk = TakeoverDesk({1: 'a'}, is_shared=True, collects=True)
    desk.lets_time_pass(PATIENCE + 0.1)  # the node did not come
    assert desk.settled()[1][0] == JobStatus.ABANDONED
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, '', [1]))
    goes_away(desk)
    desk.comes_back(BACK, collects=True, resubmits=1, epoch=2)
    desk.resubmit({1: 'a'}, BACK)
    desk.meets('a')
    desk.letter('a', 1, 1)
    desk.holds('a')
    desk.hears(BACK, m.AcknowledgeOutcomes(7, 'a', [1]))
    desk.hears(BACK, m.CloseComputation(7))
    desk.hears('a', m.ComputationClosed(7))
    assert [each.computation for each in desk.records if isinstance(each, ForgetComputation)] == [7]
    assert not desk.core._absence._dormant


def test_an_outcome_that_came_while_its_job_was_told_of_again_need_not_have_arrived() -> None:
    desk = shared()
    desk.submit(1)
    goes_away(desk)
    desk.comes_back(BACK, resubmits=1)
    desk.letter('a', 1, 1)  # its client has told of the job by then, without a place
    desk.resubmit({1: ''}, BACK)
    desk.tell(PeerLost('a', 'it was shot'))
    desk.tell(PeerLost(BACK, 'its connection was lost, with the letter'))
    desk.join('a again')  # the same machine
    desk.effects.clear()
    desk.comes_back(BACK, resubmits=1)
    desk.resubmit({1: ''}, BACK)
    assert not desk.sent(m.RunJobs)  # it has run, and is not reentrant
    assert desk.settled()[1][0] == JobStatus.ABANDONED


def test_who_comes_only_to_collect_has_nothing_more_started() -> None:
    desk = shared()
    desk.submit(1, 2, 3)
    goes_away(desk)
    desk.tell(PeerLost('a', 'its connection was lost'))
    desk.effects.clear()
    desk.comes_back(BACK, collects=True, resubmits=1)
    desk.resubmit({3: ''}, BACK)
    assert desk.settled()[3] == (
        JobStatus.CANCELLED,
        'it had not started, and only what had was asked for',
    )
    assert not desk.core._fleet.computations[7].waiting


def test_jobs_that_are_taken_back_when_the_client_is_back() -> None:
    desk = shared()
    desk.submit(1, 2, 3)
    goes_away(desk)
    desk.comes_back(BACK, resubmits=3)
    desk.resubmit({1: 'a', 2: 'a', 3: ''}, BACK)
    desk.hears(BACK, m.CancelJobs(7, [1, 3]))
    assert [each.ids for each in desk.sent(m.StopJobs, 'a')] == [[1]]
    assert desk.settled() == {3: (JobStatus.CANCELLED, 'cancelled before it started')}


@pytest.mark.row('I05')
@pytest.mark.parametrize('knows', [False, True])
def test_what_a_recovery_that_died_had_not_reached_is_in_doubt_for_who_attaches(
    knows: bool,
) -> None:
    before = [PlacementsKnown(7, TOKEN, 1, [known('a', '10.0.0.1')], ['a'], [[1, 2]], [[1, 1]])]
    desk = TakeoverDesk({1: 'a', 2: 'a'}, is_shared=True, before=before, collects=True)
    desk.lets_time_pass(PATIENCE + 0.1)  # it did not come
    (end,) = desk.sent(m.JobsSettled)
    assert end.kind == Unrun.UNREACHED
    if knows:
        desk.hears(CLIENT, m.AcknowledgeOutcomes(7, '', [end.letter]))
    desk.tell(PeerLost(CLIENT, 'its connection closed'))
    desk.comes_back('next', epoch=2, resubmits=2)
    desk.resubmit({1: '', 2: ''}, 'next')  # the file does not know where they are
    desk.join('b', address='10.0.0.2')
    assert not desk.sent(m.JobsSettled)
    assert not desk.sent(m.RunJobs)
    assert desk.meets('a').resumes
    desk.holds('a', 1)
    assert [each.ids for each in desk.sent(m.JobsStarted, 'next')] == [[1]]
    assert desk.settled() == {2: (JobStatus.CANCELLED, 'node a (10.0.0.1) has it no more')}
    assert not desk.core._fleet.computations[7].unreached


def test_what_was_not_reached_and_is_not_asked_for_stays_for_a_later_try() -> None:
    before = [PlacementsKnown(7, TOKEN, 1, [known('a', '10.0.0.1')], ['a'], [[1, 2]], [[1, 1]])]
    desk = TakeoverDesk({1: 'a', 2: 'a'}, is_shared=True, before=before, collects=True)
    desk.lets_time_pass(PATIENCE + 0.1)
    desk.tell(PeerLost(CLIENT, 'its connection closed'))
    desk.comes_back(epoch=2, collects=True)  # it has heard of it
    assert desk.core._fleet.computations[7].unreached == {'a': ([1, 2], [1, 1])}
    desk.hears(CLIENT, m.CloseComputation(7, keeps=True))
    assert desk.core._absence._dormant[7].places == {1: ('a', 1), 2: ('a', 1)}
