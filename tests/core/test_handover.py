"""What a node keeps when a scheduler is gone, and hands over to the next one: tables of both."""

from dataclasses import replace
from typing import Any

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core import recoveryeffects as keep
from nodeserver.core.events import (
    CloseAsked,
    DeadlinePassed,
    FilesToSay,
    JobsReported,
    MessageArrived,
    PeerConnected,
    PeerLost,
    ProvisionalReported,
    StopAsked,
    TemplateClosed,
    TemplateFailed,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.filemessages import FilesPlaced
from nodeserver.core.kept import MOST_KEPT
from nodeserver.core.nodeevents import KeptFound, KeptSent, OwnerGone, PauseAsked
from nodeserver.core.nodefacts import NodeRules
from nodeserver.core.provisional import MOST_BYTES
from nodeserver.core.recoverymessages import (
    HandoverBegun,
    JobsHeld,
    KeepOutcomes,
    ResendLetters,
)
from nodeserver.core.resending import MOST_AT_ONCE
from nodeserver.core.status import JobStatus
from tests.support.nodebench import TOKEN, Bench, claim, opening

GONE = PeerLost('s', 'its connection closed')
HANDED_OVER = (
    keep.SendKept,
    m.JobsDone,
    m.JobsReturned,
    JobsHeld,
    m.ComputationReady,
    m.ComputationRefused,
    do.OpenTemplate,
)


def handover(bench: Bench) -> list[Any]:
    """What a claimant is told, in its order; templates that are made stand in it."""
    told = [e.message if isinstance(e, do.Send) else e for e in bench.effects]
    bench.effects = []
    return [each for each in told if isinstance(each, HANDED_OVER)]


def busy() -> Bench:
    """Jobs 1 and 2 have ended, 1 was acknowledged; 3 runs and 4 waits."""
    bench = Bench(cpus=1)
    bench.open(workers=4)
    bench.run(1, 2, 3, 4)
    bench.reported(1, 1)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [1]))
    bench.reported(2, 2)
    return bench


def orphaned() -> Bench:
    """The same node, whose scheduler is gone."""
    bench = busy()
    bench.tell(GONE)
    return bench


def ended() -> Bench:
    """All of it has ended, and the template is closed: letters 2, 3 and 4 are kept."""
    bench = orphaned()
    bench.reported(3, 3)
    bench.reported(4, 4)
    bench.now = bench.core.next_deadline() or 0.0
    bench.tell(DeadlinePassed())
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    return bench


def connect(bench: Bench, peer: str) -> None:
    bench.tell(PeerConnected(peer, ''))
    bench.effects = []


def is_free(bench: Bench) -> bool:
    """Whether somebody else's computation is opened."""
    connect(bench, 'other')
    bench.hears(replace(opening(8), token=b'another'), 'other')
    return bool(bench.take(do.OpenTemplate))


# when the holder is gone


def test_what_waits_and_runs_goes_on_and_letters_go_to_the_spool() -> None:
    bench = orphaned()
    (kept,) = bench.take(keep.KeepComputation)
    assert (kept.opened.computation, kept.opened.token) == (7, TOKEN)
    assert not kept.opened.package
    assert [letter.letter for each in bench.take(keep.KeepLetters) for letter in each.letters] == [
        2
    ]
    bench.take(m.JobsDone)
    bench.reported(3, 3)
    (letters,) = bench.take(keep.KeepLetters)
    assert letters.letters[0].ids == [3]
    assert not bench.take(m.JobsDone)  # nobody is there
    assert bench.take(do.GiveJobs)[-1].ids == [4]


def test_a_template_waits_a_moment_for_the_next_scheduler() -> None:
    bench = orphaned()
    bench.reported(3, 3)
    bench.reported(4, 4)
    assert not bench.take(do.CloseTemplate)
    assert bench.core.next_deadline() == bench.now + 10.0
    bench.now += 9.9
    bench.tell(DeadlinePassed())
    assert not bench.take(do.CloseTemplate)
    bench.now += 0.1
    bench.tell(DeadlinePassed())
    assert bench.take(do.CloseTemplate)


def test_it_waits_no_moment_when_somebody_else_waits_for_the_node() -> None:
    bench = orphaned()
    connect(bench, 'other')
    bench.hears(replace(opening(8), token=b'another'), 'other')
    (refusal,) = bench.take(m.ComputationRefused)
    assert (refusal.kind, refusal.reason) == (
        'busy',
        'held by Ann at box, which is gone: its jobs end first',
    )
    bench.reported(3, 3)
    assert not bench.take(do.CloseTemplate)
    bench.reported(4, 4)
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    assert bench.take(m.NodeFree)


def test_a_node_that_keeps_something_is_free_for_everybody() -> None:
    assert is_free(ended())


def test_jobs_that_lack_data_can_never_run_and_are_handed_back() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.hears(m.RunJobs(7, [1, 2], [5, 6], [b'x', b'x'], shared=[[], [9]]))
    bench.tell(GONE)
    connect(bench, 't')
    bench.hears(claim(), 't')
    returned, held, ready = handover(bench)
    assert (returned.ids, returned.attempts) == ([2], [6])
    assert held == JobsHeld(7, [1], [5])
    assert ready == m.ComputationReady(7)


def test_jobs_whose_files_a_client_was_not_there_to_send_are_handed_back_when_it_is() -> None:
    bench = busy()
    bench.hears(m.RunJobs(7, [5, 6], [1, 1], [b'x', b'x'], manifests=[b'files', b'']))
    bench.hears(KeepOutcomes(7))
    assert not bench.take(m.JobsReturned)
    bench.hears(ResendLetters(7, []))
    (returned,) = bench.take(m.JobsReturned)
    assert (returned.ids, returned.attempts) == ([5], [1])
    bench.hears(m.RunJobs(7, [5], [2], [b'x'], manifests=[b'files']))  # its files come anew
    bench.hears(ResendLetters(7, []))
    assert [each.ids for each in bench.take(m.JobsReturned)] == [[5]]


def test_a_template_whose_files_have_not_come_is_never_made() -> None:
    bench = Bench()
    bench.hears(replace(opening(), manifest=b'files'))
    bench.tell(GONE)
    assert not bench.take(do.OpenTemplate)
    connect(bench, 't')
    bench.hears(replace(claim(), manifest=b'files'), 't')
    assert handover(bench) == [JobsHeld(7, [], [])]
    assert not bench.take(do.OpenTemplate)
    bench.tell(FilesToSay(FilesPlaced(7, 'n', -1, '')))


def test_a_template_that_dies_without_a_holder_is_replaced_and_jobs_go_on() -> None:
    bench = orphaned()
    bench.tell(TemplateFailed(7, 'killed'))
    assert bench.take(do.CloseTemplate) == [do.CloseTemplate(7, keeps_files=True)]
    bench.tell(TemplateClosed(7))
    assert bench.take(do.OpenTemplate)
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert handover(bench)[-1] == m.ComputationReady(7)


def test_a_template_that_cannot_be_made_leaves_its_jobs_to_the_next_scheduler() -> None:
    bench = Bench(cpus=1)
    bench.hears(opening())
    bench.run(1)
    bench.tell(GONE)
    bench.tell(TemplateFailed(7, 'no such module'))
    bench.tell(TemplateClosed(7))
    assert not bench.take(m.ComputationRefused)
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    returned, held, refusal = handover(bench)
    assert returned.ids == [1]
    assert held.ids == []
    assert refusal.kind == 'empty'


def test_a_farewell_leaves_nothing() -> None:
    bench = busy()
    bench.hears(KeepOutcomes(7))
    bench.hears(m.Farewell('done'))
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    assert [type(each) for each in handover(bench)] == [JobsHeld, m.ComputationRefused]


def test_a_farewell_leaves_what_its_scheduler_had_left_as_the_client_was_gone() -> None:
    bench = busy()
    bench.hears(KeepOutcomes(7))
    bench.hears(m.CloseComputation(7, keeps=True))
    bench.hears(m.Farewell('days later'))
    assert not bench.take(keep.ForgetKept)
    assert not bench.take(do.CloseTemplate)  # what runs goes on
    bench.reported(3, 3)
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert handover(bench)[0] == keep.SendKept('t', 7, [2, 3])


def test_a_farewell_leaves_what_was_lost_with_an_earlier_connection() -> None:
    bench = ended()
    connect(bench, 's')
    bench.hears(m.Farewell('done'))
    assert not bench.take(keep.ForgetKept)
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert handover(bench)[0] == keep.SendKept('t', 7, [2, 3, 4])


def test_a_farewell_leaves_what_is_kept_without_a_template_once_its_client_is_gone() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(claim(), 't')
    bench.tell(TemplateFailed(7, 'no such module'))
    bench.tell(TemplateClosed(7))
    bench.hears(m.CloseComputation(7, keeps=True), 't')
    bench.hears(m.Farewell('days later'), 't')
    assert not bench.take(keep.ForgetKept)


def test_who_only_collects_and_leaves_early_can_come_again() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2]), 't')
    bench.hears(m.Farewell('it takes too long'), 't')
    assert not bench.take(keep.ForgetKept)
    connect(bench, 'u')
    bench.hears(claim(epoch=1, collects=True), 'u')
    assert handover(bench)[0] == keep.SendKept('u', 7, [3, 4])


def test_who_collects_what_runs_and_leaves_early_stops_nothing() -> None:
    bench = orphaned()
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    bench.hears(m.Farewell('it takes too long'), 't')
    assert not bench.take(do.CloseTemplate)
    bench.reported(3, 3)
    assert bench.take(do.GiveJobs)[-1].ids == [4]
    assert bench.take(keep.KeepLetters)


def test_what_was_closed_is_not_kept_when_its_scheduler_goes_before_its_jobs_have_ended() -> None:
    bench = busy()
    bench.hears(m.CloseComputation(7))
    bench.tell(GONE)
    bench.tell(WorkerEnded(7, 3, -9, b'', 0))
    bench.tell(TemplateClosed(7))
    assert not bench.take(keep.KeepLetters)
    assert 'keeps' not in ' '.join(bench.core.status())


# the claim


def test_everything_is_handed_over_in_order() -> None:
    bench = orphaned()
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert handover(bench) == [
        keep.SendKept('t', 7, [2]),
        JobsHeld(7, [3, 4], [1, 1]),
        m.ComputationReady(7),
    ]
    bench.reported(3, 3)
    (send,) = [e for e in bench.effects if isinstance(e, do.Send)]
    assert (send.peer, send.message.letter, send.message.ids) == ('t', 3, [3])
    assert not bench.take(keep.KeepLetters)  # somebody is there


@pytest.mark.parametrize(
    ('hears', 'told'),
    [
        ([], [(4, 1)]),  # it may be gone since before that was sent
        ([5.0], [(4, 1)]),
        ([5.0, 10.0], []),  # it knows: the job may have run elsewhere by now
    ],
    ids=['at once', 'after a pulse', 'later'],
)
def test_jobs_on_their_way_back_to_a_scheduler_that_dies_are_told_to_the_next_one(
    hears: list[float], told: list[tuple[int, int]]
) -> None:
    bench = busy()
    bench.hears(m.RecallJobs(7, 1))
    (back,) = bench.take(m.JobsReturned)
    assert back.ids == [4]
    for seconds in hears:
        bench.now = 50.0 + seconds
        bench.hears(m.SchedulerPulse())
    bench.now += 1000.0
    bench.tell(GONE)
    connect(bench, 't')
    bench.hears(claim(), 't')
    returned = [each for each in handover(bench) if isinstance(each, m.JobsReturned)]
    assert [row for r in returned for row in zip(r.ids, r.attempts, strict=True)] == told


def test_jobs_that_come_back_as_their_template_failed_are_told_to_the_next_one() -> None:
    """They never began, and who had sent them may have died before it heard that."""
    bench = Bench(cpus=1)
    bench.hears(opening())
    bench.run(2)
    bench.tell(TemplateFailed(7, 'no such module'))
    bench.run(3)  # on its way when the scheduler was told so
    assert [back.ids for back in bench.take(m.JobsReturned)] == [[2], [3]]
    bench.tell(GONE)
    bench.tell(TemplateClosed(7))
    connect(bench, 't')
    bench.hears(claim(), 't')
    (returned,) = bench.take(m.JobsReturned)
    assert (returned.ids, returned.attempts) == ([2, 3], [1, 1])
    bench.tell(TemplateReady(7))
    connect(bench, 'u')
    bench.hears(claim(2), 'u')
    assert not bench.take(m.JobsReturned)
    assert bench.core.figures().kept == 0


def ending_orphan() -> Bench:
    """The same node; it ends, and the template of its orphan has died while job 3 ran."""
    bench = orphaned()
    bench.tell(StopAsked(at_once=False, reason='it is to end'))
    bench.tell(TemplateFailed(7, 'killed'))
    assert bench.take(do.CloseTemplate)
    return bench


def test_what_runs_of_a_computation_that_is_being_closed_is_handed_over_when_it_has_ended() -> None:
    bench = ending_orphan()
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    connect(bench, 'u')
    bench.hears(claim(), 'u')  # two at once: the second one is told so
    assert handover(bench) == []
    bench.tell(WorkerEnded(7, 3, -9, b'', 0))
    bench.tell(TemplateClosed(7))
    assert [each.letters for each in bench.effects if isinstance(each, keep.SendKept)] == [[2, 3]]
    told = {'t': [], 'u': []}
    for each in bench.take(do.Send):
        told[each.peer].append(each.message)
    assert JobsHeld(7, [], []) in told['t']
    refusal = 'busy', 'it was taken over by another program (Ann at box)'
    assert m.ComputationRefused(7, *refusal) in told['u']


@pytest.mark.parametrize('how', ['closed', 'given up', 'left', 'lost', 'back again'])
def test_who_does_not_wait_any_more_gets_nothing_of_what_is_being_closed(how: str) -> None:
    bench = ending_orphan()
    connect(bench, 't')
    bench.hears(claim(), 't')
    if how == 'closed':
        bench.hears(m.CloseComputation(7, token=TOKEN, epoch=1), 't')
    elif how == 'given up':  # by who only collects, and has not reached all: without a token
        bench.hears(m.CloseComputation(7), 't')
    elif how == 'left':
        bench.hears(m.CloseComputation(7, keeps=True), 't')
    else:
        bench.tell(PeerLost('t', 'gone'))
    if how == 'back again':
        connect(bench, 't')
    bench.effects = []
    bench.tell(TemplateClosed(7))
    assert handover(bench) == []


def test_a_job_that_was_sent_back_and_came_again_is_held() -> None:
    bench = busy()
    bench.hears(m.RecallJobs(7, 1))
    bench.hears(m.RunJobs(7, [4], [2], [b'x']))
    bench.tell(GONE)
    connect(bench, 't')
    bench.effects = []
    bench.hears(claim(), 't')
    assert not bench.take(m.JobsReturned)
    assert [(held.ids, held.attempts) for held in bench.take(JobsHeld)] == [([3, 4], [1, 2])]


def test_what_ends_in_the_turn_of_a_claim_is_told_before_what_is_held() -> None:
    bench = busy()
    bench.core.handle(GONE, bench.now)
    bench.core.handle(PeerConnected('t', ''), bench.now)
    bench.core.handle(JobsReported(7, 3, [3], [False], [b'out'], [1.0]), bench.now)
    bench.effects = []
    bench.tell(MessageArrived('t', claim()))
    letters, held = bench.take(m.JobsDone), bench.take(JobsHeld)
    assert sorted(job for letter in letters for job in letter.ids) == [2, 3]
    assert held[0].ids == [4]


def lost_results(bench: Bench) -> list[str]:
    """What the node says of provisional results that nobody will have, on its log and to users."""
    texts = [e.text for e in bench.take(do.Report) if 'provisional' in e.text]
    told = [notice.text for notice in bench.take(m.NodeNotice)]
    assert told in (texts, [])
    return texts


def test_provisional_results_wait_for_the_next_scheduler_as_long_as_their_job_runs() -> None:
    bench = orphaned()
    for count in range(1100):
        bench.tell(ProvisionalReported(7, 3, 3, b'%d' % count))
    assert not bench.take(m.JobsProvisional)
    connect(bench, 't')
    bench.hears(claim(), 't')
    told = [e.message for e in bench.effects if isinstance(e, do.Send)]
    kinds = [type(each) for each in told]
    assert kinds.index(JobsHeld) < kinds.index(m.JobsProvisional)
    assert kinds.count(m.NodeNotice) == 1
    (results,) = bench.take(m.JobsProvisional)
    assert results.results == [b'%d' % count for count in range(100, 1100)]
    words = 'provisional results of compute could be given to nobody while its program was gone'
    assert lost_results(bench) == [f'100 {words}']
    bench.tell(PeerLost('t', 'gone'))
    bench.tell(ProvisionalReported(7, 3, 3, b'more'))
    bench.tell(ProvisionalReported(7, 3, 3, b'and more'))
    bench.reported(3, 3)
    bench.tell(ProvisionalReported(7, 4, 4, b'of 4'))
    connect(bench, 'u')
    bench.hears(claim(2), 'u')
    (results,) = bench.take(m.JobsProvisional)
    assert (results.ids, results.results) == ([4], [b'of 4'])
    assert lost_results(bench) == [f'2 {words}']


def test_provisional_results_wait_for_a_client_that_is_away() -> None:
    bench = busy()
    bench.hears(KeepOutcomes(7))
    bench.tell(ProvisionalReported(7, 3, 3, b'first'))
    assert not bench.take(m.JobsProvisional)
    bench.hears(ResendLetters(7, []))
    (results,) = bench.take(m.JobsProvisional)
    assert results.results == [b'first']
    bench.tell(ProvisionalReported(7, 3, 3, b'second'))
    assert bench.take(m.JobsProvisional)[0].results == [b'second']
    assert lost_results(bench) == []


def test_large_provisional_results_for_nobody_take_bounded_memory() -> None:
    bench = orphaned()
    for letter in b'abc':
        bench.tell(ProvisionalReported(7, 3, 3, bytes([letter]) * (MOST_BYTES // 2)))
    connect(bench, 't')
    bench.hears(claim(), 't')
    (results,) = bench.take(m.JobsProvisional)
    assert [result[:1] for result in results.results] == [b'b', b'c']
    bench.tell(PeerLost('t', 'gone'))
    bench.tell(ProvisionalReported(7, 3, 3, b'd'))
    bench.tell(ProvisionalReported(7, 3, 3, bytes(MOST_BYTES + 1)))  # more alone
    connect(bench, 'u')
    bench.hears(claim(2), 'u')
    (results,) = bench.take(m.JobsProvisional)
    assert [len(result) for result in results.results] == [MOST_BYTES + 1]


def test_provisional_results_for_which_nobody_came_in_time_are_said_to_be_lost() -> None:
    bench = orphaned()
    bench.tell(ProvisionalReported(7, 3, 3, b'first'))
    bench.reported(3, 3)
    bench.reported(4, 4)
    bench.now = bench.core.next_deadline() or 0.0
    bench.tell(DeadlinePassed())
    assert bench.take(do.CloseTemplate)
    assert lost_results(bench) == []
    bench.tell(TemplateClosed(7))
    assert [text[:20] for text in lost_results(bench)] == ['1 provisional result']


def test_kept_letters_are_fetched_while_somebody_else_has_the_node() -> None:
    bench = ended()
    assert is_free(bench)
    connect(bench, 't')
    bench.hears(claim(), 't')
    sent, held, refusal = handover(bench)
    assert sent == keep.SendKept('t', 7, [2, 3, 4])
    assert held == JobsHeld(7, [], [])
    assert refusal.kind == 'busy'
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2, 3]), 't')
    assert bench.take(keep.ForgetLetters) == [keep.ForgetLetters(7, [2, 3])]
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [4]), 't')
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]


def test_a_claim_without_a_template_makes_one_and_letters_are_counted_on() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert [type(each) for each in handover(bench)] == [keep.SendKept, do.OpenTemplate, JobsHeld]
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2, 3, 4]), 't')
    bench.tell(TemplateReady(7))
    bench.tell(WorkerForked(7, 9))
    bench.hears(m.RunJobs(7, [5], [1], [b'x']), 't')
    bench.reported(9, 5)
    assert bench.take(m.JobsDone)[-1].letter == 5


def test_no_letter_number_is_used_twice_after_everything_was_fetched() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2, 3, 4]), 't')
    bench.hears(claim(epoch=2), 't')
    bench.tell(TemplateReady(7))
    bench.tell(WorkerForked(7, 9))
    bench.hears(m.RunJobs(7, [5], [1], [b'x']), 't')
    bench.reported(9, 5)
    assert bench.take(m.JobsDone)[-1].letter == 5


def test_a_claim_of_what_was_never_here_is_an_opening() -> None:
    bench = Bench()
    bench.hears(claim())
    assert [type(each) for each in handover(bench)] == [JobsHeld, do.OpenTemplate]
    bench.tell(GONE)
    connect(bench, 't')
    bench.hears(claim(epoch=2, token=b'somebody else'), 't')
    assert handover(bench)[-1].kind == 'failed'


def test_who_only_collects_is_told_that_nothing_is_here() -> None:
    bench = Bench()
    bench.hears(claim(collects=True))
    held, refusal = handover(bench)
    assert held == JobsHeld(7, [], [])
    assert refusal.kind == 'empty'


@pytest.mark.parametrize('start', [busy, orphaned, ended])
@pytest.mark.parametrize('token', [b'', b'the token of iT.', TOKEN[:-1]])
@pytest.mark.parametrize('resumes', [True, False])
def test_another_token_gets_nothing_and_learns_nothing(
    start: Any, token: bytes, resumes: bool
) -> None:
    bench = start()
    connect(bench, 't')
    bench.hears(replace(claim(epoch=99, token=token), resumes=resumes), 't')
    (refusal,) = handover(bench)
    assert refusal.kind == 'failed'
    assert 'token' not in refusal.reason
    assert not bench.take(keep.ForgetKept)
    assert not bench.take(do.CloseTemplate)


def test_what_was_opened_without_a_token_cannot_be_taken_over() -> None:
    bench = Bench()
    bench.hears(replace(opening(), token=b''))
    bench.tell(GONE)
    connect(bench, 't')
    bench.hears(claim(token=b''), 't')
    assert handover(bench)[-1].kind == 'failed'


@pytest.mark.parametrize(
    ('epoch', 'yields', 'silence', 'words'),
    [
        (1, True, 14.9, 'it is used by a program that runs (Ann at box)'),
        (1, True, 15.0, ''),
        (0, True, 15.0, 'it was taken over by another program (Ann at box)'),
        (0, False, 99.0, 'it was taken over by another program (Ann at box)'),
        (1, False, 0.0, ''),
    ],
)
def test_of_two_that_are_connected_the_one_that_lives_or_came_last_has_it(
    epoch: int, yields: bool, silence: float, words: str
) -> None:
    bench = busy()
    connect(bench, 't')
    bench.now += silence
    bench.hears(claim(epoch, yields=yields), 't')
    told = handover(bench)
    if words:
        assert told == [m.ComputationRefused(7, 'busy', words)]
    else:
        assert [type(each) for each in told] == [m.JobsDone, JobsHeld, m.ComputationReady]


def test_a_former_holder_is_not_listened_to() -> None:
    bench = busy()
    connect(bench, 't')
    bench.hears(claim(), 't')
    bench.effects = []
    bench.hears(m.StopJobs(7, [3, 4], [1, 1]))
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2]))
    bench.hears(m.CloseComputation(7))
    bench.hears(KeepOutcomes(7))
    bench.hears(m.RunJobs(7, [5], [1], [b'x']))
    assert not bench.take(do.SignalWorker)
    assert not bench.take(do.CloseTemplate)
    assert bench.take(m.JobsReturned)[0].ids == [5]
    bench.tell(GONE)
    assert not bench.take(keep.KeepComputation)
    bench.reported(3, 3)
    assert bench.take(do.GiveJobs)[-1].ids == [4]
    bench.hears(claim(epoch=1), 't')  # once more: everything is told again
    letters = [each for each in handover(bench) if isinstance(each, m.JobsDone)]
    assert sorted({job for letter in letters for job in letter.ids}) == [2, 3]


def test_orders_of_the_former_holder_that_came_too_early_are_forgotten() -> None:
    bench = busy()
    bench.hears(m.StopJobs(7, [9], [1]))
    bench.tell(GONE)
    connect(bench, 't')
    bench.hears(claim(), 't')
    bench.hears(m.RunJobs(7, [9], [1], [b'x']), 't')
    assert not any(9 in letter.ids for letter in bench.take(m.JobsDone))


def test_a_scheduler_that_opens_it_anew_has_given_up_what_was_here() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(opening(), 't')
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.take(do.OpenTemplate)


def test_a_scheduler_that_was_handed_it_and_opens_it_later_gives_up_nothing() -> None:
    bench = ended()
    assert is_free(bench)
    connect(bench, 't')
    bench.hears(claim(), 't')
    bench.tell(PeerLost('other', 'gone'))
    assert bench.take(m.NodeFree)
    bench.effects = []
    bench.hears(m.CloseComputation(8), 'other')
    bench.hears(opening(), 't')
    assert not bench.take(keep.ForgetKept)


def test_who_closes_it_has_all_of_it_removed() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    bench.hears(m.CloseComputation(7), 't')
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7)]


# a client that is away while its scheduler is here


@pytest.mark.parametrize(
    ('change', 'is_dropped'),
    [({}, True), ({'token': b'another'}, False), ({'epoch': -1}, False), ({'token': b''}, False)],
    ids=['by its client', 'another token', 'taken over since', 'no token'],
)
def test_what_a_client_is_done_with_goes_whoever_says_so(
    change: dict[str, Any], is_dropped: bool
) -> None:
    bench = ended()
    bench.effects = []
    connect(bench, 's2')
    bench.hears(replace(m.CloseComputation(7, token=TOKEN, epoch=9), **change), 's2')
    assert bool(bench.take(keep.ForgetKept)) is is_dropped


@pytest.mark.parametrize('is_noticed', [True, False], ids=['noticed', 'not noticed'])
def test_what_runs_goes_as_well_where_its_holder_is_gone(is_noticed: bool) -> None:
    bench = busy()
    connect(bench, 't')
    if is_noticed:
        bench.tell(GONE)
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=1), 't')
    if not is_noticed:
        assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7, waits=True)]
        assert not bench.take(do.CloseTemplate)
        bench.tell(GONE)
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    assert len(bench.take(keep.KeepComputation)) == len(bench.take(keep.ForgetKept))
    assert not any('keeps' in line for line in bench.core.status())
    assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7)]


def test_what_was_closed_while_its_holder_was_here_goes_with_that_from_the_disk_too() -> None:
    bench = ended()
    for peer in ('s2', 's3'):
        connect(bench, peer)
    bench.hears(claim(collects=True), 's2')
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=9), 's3')
    assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7, waits=True)]
    assert not bench.take(keep.ForgetKept)
    bench.tell(PeerLost('s2', 'its connection closed'))
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7)]


def test_what_was_closed_goes_when_its_holder_gives_its_client_up() -> None:
    bench = busy()
    connect(bench, 't')
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=1), 't')
    bench.hears(m.CloseComputation(7, keeps=True))
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    assert m.ComputationClosed(7) in bench.take(m.ComputationClosed)
    assert not any('keeps' in line for line in bench.core.status())


def test_what_was_closed_goes_from_the_disk_as_well_when_its_holder_gives_its_client_up() -> None:
    bench = ended()
    for peer in ('s2', 's3'):
        connect(bench, peer)
    bench.hears(claim(collects=True), 's2')
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=9), 's3')
    bench.effects = []
    bench.hears(m.CloseComputation(7, keeps=True), 's2')
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.effects == [do.Send('s3', m.ComputationClosed(7))]


def test_a_node_that_is_started_again_before_that_keeps_it_until_it_is_told_once_more() -> None:
    bench = Bench()
    bench.tell(KeptFound(opening(), [1], [1], 120.0, ('n',)))
    connect(bench, 's3')
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=9), 's3')
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7)]


def test_who_takes_it_over_after_it_was_closed_has_it() -> None:
    bench = busy()
    connect(bench, 't')
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=0), 't')
    bench.hears(claim(), 't')
    bench.effects = []
    bench.tell(PeerLost('t', 'its connection closed'))
    assert not bench.take(do.CloseTemplate)
    assert bench.take(keep.KeepLetters)


def test_what_another_program_has_taken_over_stays_although_it_was_closed_before() -> None:
    bench = ended()
    for peer in ('s2', 's3'):
        connect(bench, peer)
    bench.hears(replace(claim(), collects=True), 's2')
    bench.effects = []
    bench.hears(m.CloseComputation(7, token=TOKEN, epoch=9), 's3')
    assert not bench.take(keep.ForgetKept)


def test_letters_of_a_client_that_is_away_are_kept_and_sent() -> None:
    bench = busy()
    bench.take(m.JobsDone)
    bench.hears(KeepOutcomes(7))
    assert [each.letter for k in bench.take(keep.KeepLetters) for each in k.letters] == [2]
    assert not bench.take(m.JobsDone)
    bench.reported(3, 3)
    assert [each.letter for k in bench.take(keep.KeepLetters) for each in k.letters] == [3]
    assert [letter.letter for letter in bench.take(m.JobsDone)] == [3]
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2]))
    assert bench.take(keep.ForgetLetters) == [keep.ForgetLetters(7, [2])]


def test_a_client_that_is_back_gets_what_it_names_and_no_more_is_kept() -> None:
    bench = busy()
    bench.hears(KeepOutcomes(7))
    bench.reported(3, 3)
    bench.effects = []
    bench.hears(ResendLetters(7, [2, 3, 99]))
    assert bench.take(keep.SendKept) == [keep.SendKept('s', 7, [2, 3])]
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2, 3]))
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    bench.reported(4, 4)
    assert not bench.take(keep.KeepLetters)
    bench.take(m.JobsDone)
    bench.hears(ResendLetters(7, [4]))  # one that is still in memory
    assert [letter.letter for letter in bench.take(m.JobsDone)] == [4]


@pytest.mark.parametrize('told', [KeepOutcomes(7), ResendLetters(7, [])])
def test_what_ends_last_of_a_template_that_failed_is_kept_whether_its_client_is_there(
    told: Any,
) -> None:
    bench = busy()
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2]))
    bench.tell(StopAsked(at_once=False, reason='it is to end'))
    bench.tell(TemplateFailed(7, 'killed'))
    bench.hears(told)
    bench.tell(WorkerEnded(7, 3, -9, b'', 0))
    assert [letter.ids for letter in bench.take(m.JobsDone)][-1] == [3]
    bench.tell(TemplateClosed(7))
    assert bench.core.figures().kept == 1  # as nobody has acknowledged it


def test_a_scheduler_that_is_gone_while_its_client_is_away_changes_nothing() -> None:
    bench = busy()
    bench.hears(KeepOutcomes(7))
    bench.tell(GONE)
    bench.reported(3, 3)
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert handover(bench) == [
        keep.SendKept('t', 7, [2, 3]),
        JobsHeld(7, [4], [1]),
        m.ComputationReady(7),
    ]


# letters that are too many to be sent at once


def with_letters(*letters: int, at_once: int = 0) -> Bench:
    """A node that has found these letters, and of which a scheduler wants to have them."""
    bench = Bench()
    bench.at_once = at_once
    bench.tell(KeptFound(opening(), [*letters], [1] * len(letters), 120.0, ('old',)))
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    return bench


def test_letters_are_sent_a_few_at_a_time_and_what_is_told_after_them_waits() -> None:
    bench = with_letters(1, 2, 3, at_once=0)
    assert handover(bench) == [keep.SendKept('t', 7, [1, 2, 3])]
    bench.tell(KeptSent('t', 7, [1]))
    assert handover(bench) == [keep.SendKept('t', 7, [2, 3])]
    bench.tell(KeptSent('t', 7, [2, 3]))
    held, refused = handover(bench)
    assert held == JobsHeld(7, [], [])
    assert isinstance(refused, m.ComputationRefused)
    bench.tell(KeptSent('t', 7, [2, 3]))  # a late one is of no matter
    assert not bench.effects


def test_who_asks_once_more_while_letters_are_sent_is_told_first_that_they_come() -> None:
    bench = with_letters(1, 2, at_once=0)
    bench.effects.clear()
    bench.hears(claim(collects=True), 't')
    assert bench.effects == [do.Send('t', HandoverBegun(7, ('old',)))]
    bench.tell(KeptSent('t', 7, [1, 2]))
    assert handover(bench) == [keep.SendKept('t', 7, [1, 2])]  # they may have come before that


def test_one_effect_names_no_more_letters_than_it_may() -> None:
    bench = with_letters(*range(1, MOST_AT_ONCE + 3), at_once=10_000)
    assert [len(each.letters) for each in bench.take(keep.SendKept)] == [MOST_AT_ONCE, 2]
    assert bench.take(JobsHeld)


def test_jobs_that_end_while_letters_are_sent_are_told_after_them() -> None:
    bench = orphaned()
    bench.at_once = 0
    connect(bench, 't')
    bench.hears(claim(), 't')
    bench.reported(3, 3)
    assert handover(bench) == [keep.SendKept('t', 7, [2])]
    bench.tell(KeptSent('t', 7, [2]))
    held, ready, letter = handover(bench)
    assert held == JobsHeld(7, [3, 4], [1, 1])
    assert ready == m.ComputationReady(7)
    assert (letter.letter, letter.ids) == (3, [3])


def test_a_scheduler_that_is_lost_while_letters_are_sent_leaves_them_to_the_next_one() -> None:
    bench = with_letters(1, 2, 3)
    bench.tell(PeerLost('t', 'its connection closed'))
    bench.tell(KeptSent('t', 7, [1]))
    assert handover(bench) == [keep.SendKept('t', 7, [1, 2, 3])]
    connect(bench, 'u')
    bench.hears(claim(2), 'u')
    bench.at_once = 2
    bench.tell(KeptSent('u', 7, [1]))
    sent = [each.letters for each in bench.take(keep.SendKept)]
    assert sent == [[1, 2, 3], [2, 3]]
    assert bench.take(JobsHeld)


def test_of_letters_that_another_scheduler_takes_over_no_more_are_sent_to_the_first() -> None:
    bench = with_letters(1, 2, 3)
    connect(bench, 'u')
    bench.hears(claim(2, collects=True), 'u')
    assert handover(bench) == [keep.SendKept('u', 7, [1, 2, 3])]
    bench.tell(KeptSent('t', 7, [1]))
    assert not bench.take(keep.SendKept)


def test_letters_that_are_acknowledged_or_given_up_meanwhile_are_not_sent() -> None:
    bench = with_letters(1, 2, 3, 4)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [1, 3]), 't')
    bench.effects = []
    bench.tell(KeptSent('t', 7, [1, 2]))
    assert handover(bench) == [keep.SendKept('t', 7, [4])]
    bench.hears(m.CloseComputation(7), 't')
    bench.tell(KeptSent('t', 7, [4]))
    assert not bench.take(keep.SendKept)
    assert bench.take(m.ComputationClosed)


def test_a_client_that_is_back_again_while_letters_are_sent_has_them_once_more() -> None:
    bench = with_letters(1, 2, 3)
    bench.tell(KeptSent('t', 7, [1]))
    bench.effects = []
    bench.hears(ResendLetters(7, [1, 2, 3]), 't')
    bench.tell(KeptSent('t', 7, [2]))  # which may have come before the client
    (sent,) = bench.take(keep.SendKept)
    assert sorted(sent.letters) == [1, 2, 3]


def test_a_letter_that_had_arrived_before_a_client_came_back_is_sent_once_more() -> None:
    bench = with_letters(1, 2, 3)
    bench.effects = []
    bench.hears(ResendLetters(7, [1, 2]), 't')  # 1 came, and the client was gone
    bench.tell(KeptSent('t', 7, [1]))
    (sent,) = bench.take(keep.SendKept)
    assert sorted(sent.letters) == [1, 2, 3]
    bench.tell(KeptSent('t', 7, sent.letters))  # the others had not been sent before
    assert not bench.take(keep.SendKept)


# the node itself


def test_what_an_earlier_run_has_kept_is_handed_over_under_its_former_names() -> None:
    bench = Bench()
    bench.tell(KeptFound(opening(), [3, 5], [1, 2], 120.0, ('old', 'older')))
    assert (
        'keeps 3 outcomes of compute for Ann at box, first kept 2 minutes ago'
        in bench.core.status()
    )
    connect(bench, 't')
    bench.hears(claim(), 't')
    assert [e for e in bench.effects if isinstance(e, do.Send | keep.SendKept)][:2] == [
        do.Send('t', HandoverBegun(7, ('old', 'older'))),
        keep.SendKept('t', 7, [3, 5]),
    ]
    sent, _, held = handover(bench)
    assert sent == keep.SendKept('t', 7, [3, 5])
    assert held == JobsHeld(7, [], [])
    bench.tell(TemplateReady(7))
    bench.tell(WorkerForked(7, 1))
    bench.hears(m.RunJobs(7, [5], [1], [b'x']), 't')
    bench.reported(1, 5)
    assert bench.take(m.JobsDone)[-1].letter == 6


def test_a_record_without_letters_is_not_kept() -> None:
    bench = Bench()
    bench.tell(KeptFound(opening(), [], [], 1.0, ('old',)))
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]


def test_of_too_many_computations_the_oldest_are_dropped_and_said() -> None:
    bench = Bench()
    for number in range(MOST_KEPT + 1):
        bench.tell(KeptFound(opening(number + 1), [1], [4], 1.0, ('old',)))
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(1)]
    assert bench.take(do.Report)[-1].text == (
        '4 outcomes of compute for Ann at box are dropped: '
        'outcomes of no more than 1000 computations are kept'
    )


def test_what_nobody_comes_for_is_dropped_after_a_month_and_said() -> None:
    bench = Bench()
    bench.tell(KeptFound(opening(), [1], [4], 86400.0, ('old',)))
    bench.tell(KeptFound(opening(8), [1], [4], 0.0, ('old',)))
    connect(bench, 't')
    bench.hears(replace(claim(), computation=8, collects=True), 't')
    bench.now += 29 * 86400.0 - 1.0
    bench.hears(m.SchedulerPulse(), 't')
    bench.tell(DeadlinePassed())
    assert not bench.take(keep.ForgetKept)
    bench.now += 1.0
    bench.tell(DeadlinePassed())
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]
    assert bench.take(do.Report)[-1].text.endswith('nobody came for it in 30 days')
    bench.now += 86400.0
    bench.hears(m.SchedulerPulse(), 't')
    bench.tell(DeadlinePassed())
    assert not bench.take(keep.ForgetKept)  # somebody is about to take it


def test_what_an_earlier_run_has_left_is_kept_for_a_week_whatever_the_clock_says() -> None:
    bench = Bench()
    by_a_wrong_clock = 40 * 365 * 86400.0
    bench.tell(KeptFound(opening(), [1], [4], by_a_wrong_clock, ('old',)))
    bench.now += 7 * 86400.0 - 1.0
    bench.tell(DeadlinePassed())
    assert not bench.take(keep.ForgetKept)
    bench.now += 1.0
    bench.tell(DeadlinePassed())
    assert bench.take(keep.ForgetKept) == [keep.ForgetKept(7)]


def test_a_node_that_ends_for_another_reason_leaves_what_it_keeps() -> None:
    bench = orphaned()
    bench.tell(StopAsked(False, 'SIGTERM received'))
    bench.reported(3, 3)
    assert bench.take(do.Stop)
    assert not bench.take(keep.ForgetKept)
    letters = [each.letter for k in bench.take(keep.KeepLetters) for each in k.letters]
    assert letters == [2, 3]


@pytest.mark.parametrize(('silence', 'kept'), [(14.9, []), (15.0, [2])])
def test_a_node_that_ends_at_once_keeps_what_a_silent_scheduler_may_not_have(
    silence: float, kept: list[int]
) -> None:
    bench = busy()
    bench.now += silence
    bench.tell(StopAsked(True, 'SIGTERM received'))
    assert bench.take(do.Stop)
    letters = [each.letter for k in bench.take(keep.KeepLetters) for each in k.letters]
    assert letters == kept


def test_a_node_whose_owner_was_killed_ends_what_waits_too_and_once_all_is_fetched() -> None:
    bench = busy()
    bench.tell(OwnerGone())
    bench.tell(GONE)
    assert not bench.take(m.JobsReturned)
    bench.reported(3, 3)
    bench.reported(4, 4)
    bench.tell(TemplateClosed(7))
    assert not bench.take(do.Stop)
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2, 3]), 't')
    assert not bench.take(do.Stop)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [4]), 't')
    assert bench.take(do.Stop)


def test_a_node_whose_owner_was_killed_waits_ten_minutes_for_who_fetches() -> None:
    bench = busy()
    bench.tell(OwnerGone())
    bench.tell(GONE)
    bench.reported(3, 3)
    bench.reported(4, 4)
    bench.tell(TemplateClosed(7))
    bench.now += 599.0
    bench.tell(DeadlinePassed())
    assert not bench.take(do.Stop)
    bench.now += 1.0
    bench.tell(DeadlinePassed())
    assert bench.take(do.Stop)
    assert not bench.take(keep.ForgetKept)


def test_a_node_whose_owner_was_killed_ends_when_told_to_whatever_it_keeps() -> None:
    bench = busy()
    bench.tell(OwnerGone())
    bench.tell(GONE)
    bench.tell(StopAsked(False, 'SIGTERM received'))
    assert not bench.take(do.Stop)  # what runs may end
    bench.reported(3, 3)
    bench.tell(TemplateClosed(7))
    assert bench.take(do.Stop)


def test_who_comes_to_a_node_that_ends_is_told_so() -> None:
    bench = busy()
    bench.tell(OwnerGone())
    bench.tell(PeerConnected('t', ''))
    assert bench.take(m.NodeEnding)[-1].reason == 'the program that started this node has ended'


def test_a_client_that_only_collects_is_awaited_by_a_node_that_ends() -> None:
    bench = ended()
    connect(bench, 't')
    bench.hears(claim(collects=True), 't')
    bench.tell(StopAsked(False, 'SIGTERM received'))
    assert not bench.take(do.Stop)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [2, 3, 4]), 't')
    assert bench.take(do.Stop)


def test_a_pause_hands_what_waits_to_the_next_scheduler() -> None:
    bench = orphaned()
    bench.tell(PauseAsked())
    connect(bench, 't')
    bench.hears(claim(), 't')
    _, returned, held, _ = handover(bench)
    assert returned.ids == [4]
    assert held.ids == [3]


def test_whoever_closes_a_client_leaves_what_has_ended() -> None:
    bench = orphaned()
    bench.tell(CloseAsked())
    assert bench.take(do.CloseTemplate)
    assert not bench.take(keep.ForgetKept)


@pytest.mark.row('L29')
def test_a_killed_client_counts_as_served_once_its_jobs_have_ended() -> None:
    bench = Bench(cpus=1, rules=NodeRules(clients=1))
    bench.open(workers=1)
    bench.run(1)
    bench.tell(GONE)
    bench.reported(1, 1)
    bench.now += 10.0
    bench.tell(DeadlinePassed())
    bench.tell(TemplateClosed(7))
    assert bench.take(do.Stop) == [do.Stop('it has served 1 client')]
    assert bench.take(keep.KeepLetters)[0].letters[0].statuses == [JobStatus.FINISHED]


def test_what_a_scheduler_leaves_as_its_client_is_gone_goes_on_and_is_kept() -> None:
    bench = Bench()
    bench.open()
    bench.run(1)
    bench.effects.clear()
    bench.hears(m.CloseComputation(7, keeps=True))
    assert not bench.take(do.CloseTemplate)
    bench.reported(1, 1)
    assert not bench.take(m.JobsDone)
    (kept,) = bench.take(keep.KeepLetters)
    assert [letter.ids for letter in kept.letters] == [[1]]
