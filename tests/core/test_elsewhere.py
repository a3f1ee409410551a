"""A cluster whose scheduler is in another program, which comes and goes: the core's decisions."""

from typing import Any

import pytest

from nodeserver.core import effects as do
from nodeserver.core import events as e
from nodeserver.core import filemessages as f
from nodeserver.core import fleetmessages as fleet
from nodeserver.core import messages as m
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.missing import SAY_INTERVAL, SAY_OTHER_INTERVAL
from nodeserver.core.recoveryeffects import Keeping, RecordNode, StoreEpoch, StoreUnrun
from nodeserver.core.status import JobStatus, NodeStatus, Unrun
from nodeserver.core.unsettled import MOST_BYTES, MOST_JOBS
from tests.support.world import declaration

AWAY = e.SchedulerMissed('somewhere, port 51349', 'connection refused')
FINISHED = int(JobStatus.FINISHED)


class Program:
    """The core of one cluster, and what it has answered since the last look."""

    def __init__(
        self,
        before: tuple[m.ResubmitJobs, ...] = (),
        keeping: Keeping = Keeping.NOTHING,
        **changes: Any,
    ) -> None:
        declared = declaration(**changes)
        self.core = ClusterCore('scheduler', declared, before, is_elsewhere=True, keeping=keeping)
        self.now = 50.0
        self.effects: list[Any] = []

    def tell(self, event: Any) -> None:
        self.effects += self.core.handle(event, self.now)
        self.effects += self.core.end_turn(self.now)

    def hears(self, message: Any) -> None:
        self.tell(e.MessageArrived('scheduler', message))

    def met(self) -> list[Any]:
        """The scheduler comes; what it is told."""
        self.tell(e.PeerConnected('scheduler', '10.0.0.9'))
        return self.sent()

    def lost(self) -> None:
        self.tell(e.PeerLost('scheduler', 'connection refused'))

    def submit(self, *ids: int, node: str = '', **more: Any) -> None:
        self.tell(e.JobsSubmitted(node, list(ids), [b'%d' % job for job in ids], **more))

    def done(self, *ids: int, node: str = 'n1', letter: int = 1) -> None:
        count = len(ids)
        columns = [[1] * count, [FINISHED] * count, [b'out'] * count, [''] * count, [0.1] * count]
        self.hears(m.JobsDone(7, node, letter, list(ids), *columns))

    def all(self, kind: type[Any]) -> list[Any]:
        """Effects of a kind since the last look, which are then forgotten."""
        found = [each for each in self.effects if isinstance(each, kind)]
        self.effects = [each for each in self.effects if not isinstance(each, kind)]
        return found

    def sent(self) -> list[Any]:
        return [each.message for each in self.all(do.Send)]

    def said(self) -> list[str]:
        return [each.text for each in self.all(do.Report) if each.level >= 30]


@pytest.fixture
def program() -> Program:
    """A cluster that has met its scheduler."""
    made = Program(token=b't' * 16)
    assert [type(each) for each in made.met()] == [m.DeclareComputation]
    return made


def changed(node: str, address: str, status: NodeStatus = NodeStatus.INITIALIZED) -> m.NodeChanged:
    return m.NodeChanged(7, status, node, address, node, 2, '', None, '', 51348)


# before the first meeting


def test_jobs_wait_for_a_scheduler_and_are_told_to_it_in_order() -> None:
    program = Program()
    program.tell(e.DataShared(1, b'shared'))
    program.submit(1, 2)
    program.submit(3, options=m.JobOptions(retries=2))
    program.submit(4, 5, shared=[[1], []], manifests=[b'', b'files'])
    program.submit(6, node='n1')
    assert program.sent() == []

    declared, data, *jobs = program.met()

    assert (declared.resumes, declared.epoch, declared.resubmits) == (False, 0, 0)
    assert data == m.ShareData(7, 1, b'shared')
    assert jobs == [
        m.SubmitJobs(7, '', [1, 2], [b'1', b'2']),
        m.SubmitJobs(7, '', [3], [b'3'], m.JobOptions(retries=2)),
        m.SubmitJobs(7, '', [4, 5], [b'4', b'5'], m.ORDINARY, [[1], []], [b'', b'files']),
        m.SubmitJobs(7, 'n1', [6], [b'6']),
    ]


@pytest.mark.parametrize('size', [1, MOST_BYTES // 4])
def test_many_jobs_are_told_in_messages_of_bounded_size(size: int) -> None:
    program = Program()
    count = 2 * MOST_JOBS + 1 if size == 1 else 20
    ids = list(range(1, count + 1))
    program.tell(e.JobsSubmitted('', ids, [b'x' * size] * count))

    _, *messages = program.met()

    assert [job for message in messages for job in message.ids] == ids
    assert max(len(message.ids) for message in messages) <= MOST_JOBS
    assert max(sum(map(len, message.payloads)) for message in messages) <= MOST_BYTES + size


def test_a_scheduler_that_is_not_there_is_said_at_once_and_then_once_a_minute() -> None:
    program = Program()
    program.tell(AWAY)
    (text,) = program.said()
    assert 'no dispyscheduler answers at somewhere, port 51349: connection refused' in text
    assert 'start `dispyscheduler` there' in text
    for _ in range(int(SAY_INTERVAL) - 1):
        program.now += 1
        program.tell(AWAY)
    assert program.said() == []
    program.now += 1
    program.tell(AWAY)
    assert program.said() == [text]


def test_another_reason_is_said_soon_but_not_each_time() -> None:
    program = Program()
    other = e.SchedulerMissed('somewhere, port 51349', 'it has another key', is_refusal=True)
    program.tell(AWAY)
    for _ in range(100):
        program.now += 0.1
        program.tell(other)
        program.tell(AWAY)
    program.now += SAY_OTHER_INTERVAL
    program.tell(other)
    texts = program.said()
    assert len(texts) <= 3
    assert 'cannot be used as scheduler: it has another key' in texts[-1]
    assert 'dispy key export' in texts[-1]


def test_what_was_said_is_taken_back_when_the_scheduler_is_there() -> None:
    program = Program()
    program.met()
    assert program.all(do.TakeBackNotice) == []
    program.lost()
    program.met()
    assert len(program.all(do.TakeBackNotice)) == 1


def test_without_a_scheduler_a_request_is_refused_and_a_closed_cluster_is_closed() -> None:
    program = Program()
    program.tell(AWAY)
    program.submit(1)
    program.tell(e.RequestMade(fleet.CloseNode(7, 3, 'n1', False, False)))
    (settled,) = program.all(do.SettleRequest)
    assert (settled.answer.request, settled.answer.value) == (3, -1)
    assert settled.answer.reason == 'the scheduler cannot be reached now: connection refused'

    program.tell(e.CloseAsked())
    (unrun,) = program.all(do.SettleUnrun)
    assert (unrun.ids, unrun.status) == ([1], JobStatus.CANCELLED)
    assert len(program.all(do.SayClosed)) == 1


# a scheduler that is gone, and back


def test_it_is_told_of_what_has_not_ended_and_where_that_was(program: Program) -> None:
    program.submit(1, 2, 3)
    program.submit(4, options=m.JobOptions(retries=5))
    change = (10, 'n1', '10.0.0.1', 'one', 2, 'Linux', None, '')
    program.hears(m.NodeChanged(7, *change, port=51348))
    program.hears(m.JobsStarted(7, 'n1', [1, 2]))
    program.hears(m.JobsRetried(7, [4], [b''], ['it raised']))
    program.done(1)
    program.sent()

    program.lost()
    assert program.all(StoreEpoch) == [StoreEpoch(1)]
    assert program.sent() == []
    declared, first, second = program.met()

    assert (declared.resumes, declared.epoch, declared.resubmits) == (True, 1, 3)
    assert declared.token == b't' * 16
    assert declared.nodes == [m.KnownNode('n1', '10.0.0.1', 51348)]
    assert first == m.ResubmitJobs(7, '', [2, 3], [b'2', b'3'], ['n1', ''], failures=[0, 0])
    options = m.JobOptions(retries=5)
    assert second == m.ResubmitJobs(7, '', [4], [b'4'], [''], options, failures=[1])


def test_each_loss_is_a_takeover_of_its_own(program: Program) -> None:
    for epoch in (1, 2, 3):
        program.lost()
        program.lost()  # told twice, lost once
        assert program.met()[0].epoch == epoch


def test_jobs_submitted_while_it_is_away_are_told_when_it_is_back(program: Program) -> None:
    program.lost()
    program.submit(1)
    assert program.sent() == []
    _, again = program.met()
    assert again == m.ResubmitJobs(7, '', [1], [b'1'], [''])


def test_a_letter_is_acknowledged_to_the_scheduler_that_sent_it_only(program: Program) -> None:
    program.submit(1)
    program.done(1, letter=4)
    program.lost()
    program.now += 1
    program.tell(e.DeadlinePassed())
    program.met()
    assert program.sent() == []

    program.done(1, letter=4)  # as nobody has acknowledged it, it comes again
    assert len(program.all(do.SettleJobs)) == 1
    program.now += 1
    program.tell(e.DeadlinePassed())
    assert program.sent() == [m.AcknowledgeOutcomes(7, 'n1', [4])]


def test_letters_of_the_scheduler_itself_are_acknowledged_and_believed_once(
    program: Program,
) -> None:
    program.submit(1)
    settled = m.JobsSettled(7, [1], int(JobStatus.CANCELLED), 'its node was lost', letter=3)
    program.hears(settled)
    program.hears(settled)
    assert len(program.all(do.SettleUnrun)) == 1
    program.now += 1
    program.tell(e.DeadlinePassed())
    assert m.AcknowledgeOutcomes(7, '', [3, 3]) in program.sent()


def test_a_job_that_is_told_once_more_to_run_where_it_runs_is_not_started_again(
    program: Program,
) -> None:
    program.submit(1, 2)
    program.hears(m.JobsStarted(7, 'n1', [1]))
    program.all(do.MarkStarted)
    program.lost()
    program.met()
    program.hears(m.JobsStarted(7, 'n1', [1, 2]))
    assert program.all(do.MarkStarted) == [do.MarkStarted('n1', [2])]


def test_a_job_that_has_moved_meanwhile_has_left_its_node_first(program: Program) -> None:
    program.submit(1)
    program.hears(m.JobsStarted(7, 'n1', [1]))
    program.lost()
    program.met()
    program.effects.clear()
    program.hears(m.JobsStarted(7, 'n2', [1]))
    requeued, started = program.effects
    assert isinstance(requeued, do.MarkRequeued)
    assert requeued.ids == [1]
    assert started == do.MarkStarted('n2', [1])


def test_a_job_cancelled_meanwhile_has_ended_and_the_scheduler_is_told(program: Program) -> None:
    program.submit(1, 2)
    program.hears(m.JobsStarted(7, 'n1', [1]))
    program.sent()
    program.lost()
    program.tell(e.CancelAsked([1]))
    (unrun,) = program.all(do.SettleUnrun)
    assert unrun == do.SettleUnrun(
        [1], JobStatus.CANCELLED, 'cancelled while the scheduler was away'
    )

    _, again, cancelled = program.met()
    assert again.ids == [2]
    assert cancelled == m.CancelJobs(7, [1])
    program.done(1)
    assert program.all(do.SettleJobs) == []


def test_data_that_are_dropped_meanwhile_are_dropped_behind_the_jobs_that_named_them(
    program: Program,
) -> None:
    program.tell(e.DataShared(1, b'data'))
    program.tell(e.DataShared(2, b'data'))
    program.submit(1, shared=[[1]])
    program.lost()
    program.tell(e.CancelAsked([1]))
    program.tell(e.DataDropped([1]))
    program.sent()
    told = program.met()
    assert [each.data for each in told if isinstance(each, m.ShareData)] == [2]
    assert told[-2:] == [m.CancelJobs(7, [1]), m.DropData(7, [1])]
    program.lost()
    assert m.DropData not in map(type, program.met())  # it was told


def test_data_that_are_dropped_before_a_cluster_is_closed_are_not_remembered(
    program: Program,
) -> None:
    program.tell(e.DataShared(1, b'data'))
    program.lost()
    program.tell(e.DataDropped([1]))
    program.tell(e.CloseAsked())
    program.hears(m.ComputationClosed(7))  # another scheduler that knew of it has told that
    assert program.all(do.SayClosed)
    assert not program.core._unsettled.dropped


@pytest.mark.parametrize('ends', [e.CancelAsked([1]), e.CloseAsked()], ids=['job', 'cluster'])
def test_who_takes_a_cluster_over_does_not_run_what_was_cancelled_meanwhile(ends: Any) -> None:
    program = Program(keeping=Keeping.ALL)
    program.submit(1)
    program.tell(ends)
    stored, unrun = [each for each in program.effects if hasattr(each, 'reason')]
    assert isinstance(stored, StoreUnrun)  # before its user is told
    assert isinstance(unrun, do.SettleUnrun)
    assert stored.ids == unrun.ids == [1]


def test_a_job_cancelled_just_before_does_not_wait_for_the_next_one(program: Program) -> None:
    program.submit(1, 2, 3)
    program.tell(e.CancelAsked([1, 3]))
    program.sent()
    assert program.all(do.SettleUnrun) == []  # it is asked
    program.lost()
    (unrun,) = program.all(do.SettleUnrun)
    assert unrun.ids == [1, 3]
    _, again, cancelled = program.met()
    assert (again.ids, cancelled) == ([2], m.CancelJobs(7, [1, 3]))


def test_a_cluster_that_closes_as_it_is_lost_waits_for_nothing(program: Program) -> None:
    program.submit(1, 2)
    program.tell(e.CloseAsked())
    assert program.all(do.SettleUnrun) == []
    program.lost()
    assert [each.ids for each in program.all(do.SettleUnrun)] == [[1, 2]]


def test_who_has_jobs_that_were_not_reached_says_so_to_each_scheduler_as_it_closes() -> None:
    program = Program(resumes=True, collects=True)
    program.met()
    program.submit(1)
    reason = 'node 10.0.0.1 cannot be reached: it was not found again within 25 s'
    kind = int(Unrun.UNREACHED)
    program.hears(m.JobsSettled(7, [1], int(JobStatus.ABANDONED), reason, 1, kind))
    program.sent()
    program.tell(e.CloseAsked())
    assert program.sent()[-1] == m.CloseComputation(7, keeps=True)
    program.lost()  # before that scheduler had closed it
    assert program.met()[-1] == m.CloseComputation(7, keeps=True)


def test_how_a_node_is_called_does_not_say_that_its_jobs_were_not_reached() -> None:
    program = Program()
    program.met()
    program.submit(1)
    reason = 'node "cannot be reached" (10.0.0.1) came back without it'
    program.hears(m.JobsSettled(7, [1], int(JobStatus.ABANDONED), reason, 1))
    program.tell(e.CloseAsked())
    assert program.sent()[-1] == m.CloseComputation(7)


def test_a_cluster_that_was_closed_before_any_scheduler_heard_of_it_is_declared_to_none() -> None:
    program = Program()
    program.submit(1)
    program.tell(e.CloseAsked())
    assert len(program.all(do.SayClosed)) == 1
    assert program.met() == []  # one that dies then would leave a record of it


def test_a_cluster_closed_meanwhile_is_closed_when_it_is_back(program: Program) -> None:
    program.submit(1)
    program.lost()
    program.said()
    program.tell(e.CloseAsked())
    assert [each.ids for each in program.all(do.SettleUnrun)] == [[1]]
    assert program.all(do.SayClosed) == []
    (said,) = program.said()
    assert 'the scheduler is away (connection refused): it is waited for some seconds' in said
    *_, last = program.met()
    assert last == m.CloseComputation(7)
    program.hears(m.ComputationClosed(7))
    assert len(program.all(do.SayClosed)) == 1


def test_requests_and_files_under_way_end_with_it(program: Program) -> None:
    program.tell(e.RequestMade(fleet.CloseNode(7, 1, 'n1', False, False)))
    program.hears(fleet.RequestAnswered(7, 1, 0, ''))
    program.tell(e.RequestMade(fleet.CloseNode(7, 2, 'n1', False, False)))
    program.tell(e.FilesToSay(f.PlaceFiles(7, 'n1', -1, b'')))
    program.effects.clear()
    program.lost()
    (settled,) = program.all(do.SettleRequest)
    assert settled.answer.request == 2
    (heard,) = program.all(do.HearOfFiles)
    assert isinstance(heard.message, f.FilesFailed)

    program.tell(e.FilesToSay(f.PlaceFiles(7, 'n1', -2, b'')))
    (heard,) = program.all(do.HearOfFiles)
    assert isinstance(heard.message, f.FilesPlaced)
    assert heard.message.reason


def test_a_node_of_which_nothing_is_under_way_any_more_is_not_remembered(program: Program) -> None:
    program.hears(f.FetchFiles(7, 'n1', f.OWN_FILES, [0], 100))
    program.hears(f.FilesFailed(7, 'n1', f.OWN_FILES, 'the node was lost'))
    program.all(do.HearOfFiles)
    program.lost()
    assert not program.all(do.HearOfFiles)


def test_nodes_that_were_added_are_declared_to_the_next_scheduler(program: Program) -> None:
    spec, other = m.NodeSpec('10.0.0.5', 51348, 0, False), m.NodeSpec('*', 51348, 0, False)
    program.tell(e.RequestMade(fleet.AddNodes(7, 1, [spec])))
    program.hears(fleet.RequestAnswered(7, 1, 0, ''))
    program.tell(e.RequestMade(fleet.AddNodes(7, 2, [other])))
    program.hears(fleet.RequestAnswered(7, 2, -1, 'no'))
    third, fourth = (m.NodeSpec(f'10.0.0.{n}', 51348, 0, False) for n in (6, 7))
    program.tell(e.RequestMade(fleet.AddNodes(7, 3, [third])))
    program.lost()  # which may have heard it, or not
    program.tell(e.RequestMade(fleet.AddNodes(7, 4, [fourth])))
    program.sent()
    answers = [each.answer for each in program.all(do.SettleRequest)]
    assert [(a.request, a.value) for a in answers] == [(1, 0), (2, -1), (3, 0), (4, 0)]
    declared = program.met()[0]
    assert declared.specs == [fourth, third, spec, *declaration().specs]


def test_how_things_stand_is_said_while_it_is_away(program: Program) -> None:
    program.submit(1, 2, 3)
    program.hears(m.JobsStarted(7, 'n1', [1, 2]))
    program.lost()
    jobs, reason = program.core.explain_absence()
    assert '3 jobs pending, 2 of them with nodes when the scheduler was last heard of' in jobs
    assert reason == 'the scheduler cannot be asked now: connection refused'
    program.tell(AWAY)
    assert 'no dispyscheduler answers' in program.core.explain_absence()[1]


def test_jobs_of_a_cluster_that_is_gone_are_resubmitted_at_the_first_meeting() -> None:
    before = m.ResubmitJobs(7, '', [1, 2], [b'', b'2'], ['n1', ''])
    program = Program((before,), resumes=True, epoch=3, token=b't' * 16)
    declared, again = program.met()
    assert (declared.epoch, declared.resubmits) == (3, 2)
    assert again == before


def test_what_has_ended_is_not_kept(program: Program) -> None:
    program.submit(1, 2, shared=[[1], [1]], manifests=[b'f', b'f'])
    program.hears(m.JobsStarted(7, 'n1', [1, 2]))
    program.hears(m.JobsRetried(7, [2], [b''], ['it raised']))
    program.done(1, 2)
    kept = program.core._unsettled
    assert (len(kept), kept.placed, kept._extras, kept._failures) == (0, 0, {}, {})


def test_where_nodes_are_is_stored_once_so_that_it_can_be_told_later_where_jobs_ran() -> None:
    program = Program(keeping=Keeping.ALL)
    program.met()
    for node, address in (('n1', '10.0.0.1'), ('n2', '10.0.0.2'), ('n1', '10.0.0.1')):
        program.hears(changed(node, address))
    program.hears(changed('n1', '10.0.0.1', NodeStatus.FIGURES))
    assert [each.node for each in program.all(RecordNode)] == [
        m.KnownNode('n1', '10.0.0.1', 51348),
        m.KnownNode('n2', '10.0.0.2', 51348),
    ]
    program.hears(changed('n1', '10.0.0.9'))
    assert [each.node.address for each in program.all(RecordNode)] == ['10.0.0.9']


def test_of_jobs_that_nobody_comes_back_to_no_node_is_stored(program: Program) -> None:
    program.hears(changed('n1', '10.0.0.1'))
    assert program.all(RecordNode) == []
