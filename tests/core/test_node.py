"""A node's core as a table: what it is told, and what it answers."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from nodeserver.core import effects as do
from nodeserver.core import levels
from nodeserver.core import messages as m
from nodeserver.core.events import (
    AvailabilityMeasured,
    DeadlinePassed,
    JobsRecalled,
    JobsReported,
    PeerConnected,
    PeerLost,
    StopAsked,
    TemplateClosed,
    TemplateFailed,
    TemplateNoted,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.nodeevents import (
    OwnerGone,
)
from nodeserver.core.status import JobStatus
from tests.support.nodebench import Bench, opening


def test_no_cpu_gets_a_second_job_before_the_first_has_ended() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=2)
    bench.run(1, 2)
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[1]]
    bench.reported(1, 1)
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[2]]


def test_the_outcome_frees_the_cpu_before_the_process_is_gone() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=2)
    bench.run(1, 2)
    bench.reported(1, 1)
    assert bench.take(do.GiveJobs)[-1].worker == 2


def test_a_worker_that_dies_takes_only_the_job_it_was_in() -> None:
    bench = Bench(cpus=1)
    bench.open('worker', workers=1)
    bench.run(1)
    bench.reported(1, 1, seconds=0.0001)
    bench.run(2, 3, 4)
    assert bench.take(do.GiveJobs)[-1].ids == [2, 3, 4]
    bench.take(m.JobsDone)
    bench.tell(WorkerEnded(7, 1, -signal.SIGSEGV, b'', 0))
    (letter,) = bench.take(m.JobsDone)
    assert letter.ids == [2]
    assert letter.statuses == [JobStatus.TERMINATED]
    assert 'segmentation fault' in letter.reasons[0]
    bench.tell(WorkerForked(7, 2))
    assert bench.take(do.GiveJobs)[-1].ids == [3, 4]


def test_a_worker_that_tells_of_jobs_it_does_not_have_is_killed() -> None:
    bench = Bench(cpus=1)
    bench.open('worker', workers=1)
    bench.run(1, 2)
    bench.reported(1, 2)
    assert bench.take(do.SignalWorker) == [do.SignalWorker(7, 1, signal.SIGKILL)]
    assert not bench.take(m.JobsDone)
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'', 1))
    (letter,) = bench.take(m.JobsDone)
    assert (letter.ids, letter.statuses) == ([1], [JobStatus.TERMINATED])


def test_one_letter_a_turn_is_kept_until_it_is_acknowledged() -> None:
    bench = Bench()
    bench.open()
    bench.run(1, 2)
    bench.reported(1, 1)
    bench.reported(2, 2)
    assert [letter.letter for letter in bench.take(m.JobsDone)] == [1, 2]
    bench.tell(StopAsked(False, 'SIGTERM received'))
    assert not bench.take(do.Stop)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [1, 2]))
    assert bench.take(do.Stop)


def test_a_job_is_interrupted_then_terminated_then_killed() -> None:
    bench = Bench()
    bench.open()
    bench.run(1)
    bench.hears(m.StopJobs(7, [1], [1]))
    for pause, number in ((0, signal.SIGINT), (3, signal.SIGTERM), (2, signal.SIGKILL)):
        bench.now += pause
        bench.tell(DeadlinePassed())
        assert [effect.signal for effect in bench.take(do.SignalWorker)] == [number]
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'', 0))
    assert bench.take(m.JobsDone)[0].statuses == [JobStatus.CANCELLED]


def test_a_stop_that_overtakes_its_job_is_remembered() -> None:
    bench = Bench()
    bench.open()
    bench.hears(m.StopJobs(7, [1], [1]))
    bench.run(1)
    assert not bench.take(do.GiveJobs)
    assert bench.take(m.JobsDone)[0].statuses == [JobStatus.CANCELLED]


def test_a_second_scheduler_is_told_who_holds_the_node_and_when_it_is_free() -> None:
    bench = Bench()
    bench.open()
    bench.tell(PeerConnected('t', ''))
    bench.hears(opening(8), peer='t')
    (refusal,) = bench.take(m.ComputationRefused)
    assert (refusal.kind, refusal.reason) == ('busy', 'held by Ann at box')
    bench.hears(m.CloseComputation(7))
    assert not bench.take(m.NodeFree)
    bench.tell(TemplateClosed(7))
    assert bench.take(m.NodeFree)


def test_a_second_computation_of_the_same_scheduler_is_accepted() -> None:
    bench = Bench()
    bench.open()
    bench.hears(opening(8))
    assert bench.take(do.OpenTemplate)[-1].computation == 8


def test_another_python_is_refused_in_words() -> None:
    bench = Bench()
    bench.hears(opening(python='3.12'))
    (refusal,) = bench.take(m.ComputationRefused)
    assert 'Python 3.11 and the program Python 3.12' in refusal.reason


def test_jobs_that_have_not_begun_are_given_back_from_the_end() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1, 2, 3, 4)
    bench.hears(m.RecallJobs(7, 2))
    assert bench.take(m.JobsReturned)[0].ids == [3, 4]


def test_a_lost_schedulers_jobs_end_and_then_the_node_is_free() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=2)
    bench.run(1, 2)
    bench.tell(PeerLost('s', 'its connection closed'))
    bench.reported(1, 1)
    bench.now += 3600.0
    bench.tell(DeadlinePassed())
    assert not bench.take(do.CloseTemplate)
    bench.reported(2, 2)
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[1], [2]]
    bench.now = bench.core.next_deadline() or 0.0
    bench.tell(DeadlinePassed())
    assert bench.take(do.CloseTemplate)


def test_a_node_that_ends_gives_back_what_waits_and_lets_run_what_runs() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1, 2)
    bench.tell(StopAsked(False, 'SIGINT received'))
    assert bench.take(m.JobsReturned)[0].ids == [2]
    assert not bench.take(do.Stop)
    bench.reported(1, 1)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [1]))
    assert bench.take(do.Stop)
    assert bench.take(m.Farewell)


def test_a_second_interrupt_ends_at_once() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.tell(StopAsked(False, 'SIGINT received'))
    bench.tell(StopAsked(True, 'SIGINT received'))
    assert bench.take(do.CloseTemplate)
    assert bench.take(do.Stop)


def test_an_owned_node_outlives_its_owner_by_ten_minutes_at_most() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.tell(OwnerGone())
    bench.now += 600.1
    bench.tell(DeadlinePassed())
    assert bench.take(do.Stop)


def test_what_a_template_remarks_goes_to_the_scheduler() -> None:
    bench = Bench(cpus=1)
    bench.hears(opening())
    bench.tell(TemplateReady(7, 'x differs'))
    assert bench.take(m.ComputationReady) == [m.ComputationReady(7, 'x differs')]


def test_a_computation_gets_no_more_cpus_than_its_scheduler_allows() -> None:
    bench = Bench(cpus=4)
    bench.hears(opening(cpus=1))
    bench.tell(TemplateReady(7))
    assert [fork.count for fork in bench.take(do.ForkWorkers)] == [1]
    bench.tell(WorkerForked(7, 1))
    bench.run(1, 2)
    bench.tell(WorkerForked(7, 2))
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[1]]
    bench.reported(1, 1)
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[2]]


def test_a_node_says_that_it_ends_and_which_jobs_it_broke_off() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1, 2)
    bench.tell(StopAsked(False, 'SIGINT received'))
    assert bench.take(m.NodeEnding) == [m.NodeEnding('SIGINT received')]
    bench.tell(StopAsked(True, 'SIGINT received'))
    assert bench.take(m.Farewell) == [m.Farewell('SIGINT received', {7: [1]})]


def test_what_has_ended_in_the_very_turn_of_an_order_to_stop_is_reported_first() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.effects += bench.core.handle(StopAsked(True, 'SIGINT received'), bench.now)
    bench.reported(1, 1)
    last = [e.message for e in bench.effects if isinstance(e, do.Send)][-2:]
    assert [type(message) for message in last] == [m.JobsDone, m.Farewell]
    assert last[1].begun == {7: [1]}


def test_a_node_that_leaves_names_the_jobs_whose_outcomes_may_be_behind_its_farewell() -> None:
    # a large outcome travels in parts, which a farewell overtakes
    bench = Bench(cpus=1)
    bench.open(workers=2)
    bench.run(1, 2)
    bench.reported(1, 1)
    bench.tell(StopAsked(True, 'SIGINT received'))
    (farewell,) = bench.take(m.Farewell)
    assert sorted(farewell.begun[7]) == [1, 2]


@pytest.mark.parametrize('event', [StopAsked(True, 'again'), OwnerGone()])
def test_a_node_that_has_stopped_is_not_woken_for_another_order_to_stop(event: Any) -> None:
    bench = Bench(cpus=1)
    bench.tell(StopAsked(True, 'SIGINT received'))
    assert bench.take(do.Stop)
    bench.tell(event)
    assert bench.core.next_deadline() not in (bench.now, bench.now + 600.0)


# templates that die


def reopen(bench: Bench) -> None:
    """The template dies, and another is opened once the first is closed."""
    bench.take(do.OpenTemplate)
    bench.tell(TemplateFailed(7, 'its template: killed'))
    assert bench.take(do.CloseTemplate)
    assert not bench.take(do.OpenTemplate)
    bench.tell(TemplateClosed(7))
    (order,) = bench.take(do.OpenTemplate)
    assert (order.computation, order.name) == (7, 'compute')


def test_a_template_that_died_is_opened_again_and_the_queue_goes_on() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1, 2)
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'', 0))
    bench.take(do.GiveJobs)
    reopen(bench)
    assert 'killed' in bench.take(do.Report)[0].text
    bench.take(m.ComputationReady)
    bench.take(do.ForkWorkers)
    bench.tell(TemplateReady(7))
    assert not bench.take(m.ComputationReady)  # its scheduler knows that
    assert [fork.count for fork in bench.take(do.ForkWorkers)] == [1]
    bench.tell(WorkerForked(7, 2))
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[2]]
    assert not bench.take(m.ComputationRefused)
    assert not bench.take(m.ComputationClosed)


def test_a_template_that_dies_again_and_again_is_given_up() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=0)
    bench.run(1)
    for _ in range(3):
        reopen(bench)
        bench.tell(TemplateReady(7))
    bench.tell(TemplateFailed(7, 'its template: killed'))
    assert bench.take(m.ComputationRefused) == [
        m.ComputationRefused(7, 'failed', 'its template: killed')
    ]
    assert bench.take(m.JobsReturned)[0].ids == [1]


def test_a_job_that_ended_well_gives_its_template_new_chances() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=0)
    for worker in range(1, 7):
        bench.tell(WorkerForked(7, worker))
        bench.run(worker)
        bench.reported(worker, worker)
        reopen(bench)
        bench.tell(TemplateReady(7))
    assert not bench.take(m.ComputationRefused)


def test_a_computation_closed_while_its_template_is_opened_again_is_closed_once() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=0)
    bench.take(do.OpenTemplate)
    bench.tell(TemplateFailed(7, 'its template: killed'))
    bench.hears(m.CloseComputation(7))
    assert len(bench.take(do.CloseTemplate)) == 1
    bench.tell(TemplateClosed(7))
    assert bench.take(m.ComputationClosed) == [m.ComputationClosed(7)]
    assert not bench.take(do.OpenTemplate)


def test_a_package_that_never_loaded_is_refused_at_once() -> None:
    bench = Bench()
    bench.hears(opening())
    bench.tell(TemplateFailed(7, 'setup returned 3'))
    assert bench.take(m.ComputationRefused)


# workers that never began


def test_jobs_that_their_worker_never_began_go_to_another() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1, 2)
    bench.tell(WorkerEnded(7, 1, -signal.SIGKILL, b'', 0, begun=False))
    assert not bench.take(m.JobsDone)
    bench.take(do.GiveJobs)
    bench.tell(WorkerForked(7, 2))
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[1]]


def test_why_a_worker_left_is_told() -> None:
    bench = Bench(cpus=1)
    bench.open('worker', workers=1)
    bench.run(1)
    bench.tell(WorkerEnded(7, 1, 0, b'', 0, False, 'cannot restore: no directory'))
    assert 'cannot restore: no directory' in bench.take(do.Report)[0].text
    assert not bench.take(m.JobsDone)


def test_workers_that_never_begin_are_not_tried_for_ever() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=0)
    bench.run(1)
    for worker in range(1, 200):
        bench.tell(WorkerForked(7, worker))
        bench.tell(WorkerEnded(7, worker, 1, b'', 0, begun=False))
        if bench.take(m.JobsDone):
            return
    raise AssertionError('tried 200 times')


def test_workers_that_end_one_after_the_other_are_forked_for_waiting_jobs_only() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=0)
    for worker in range(1, 200):
        bench.tell(WorkerForked(7, worker))
        bench.take(do.ForkWorkers)
        bench.tell(WorkerEnded(7, worker, -signal.SIGSEGV, b'', 0, begun=False))
        if not bench.take(do.ForkWorkers):
            break
    else:
        raise AssertionError('forked 200 times')
    bench.run(1)
    assert bench.take(do.ForkWorkers)
    bench.tell(WorkerForked(7, 999))
    bench.reported(999, 1)
    assert bench.take(do.ForkWorkers)  # forgiven: there is one in reserve again


def test_a_cancelled_job_that_never_began_is_cancelled() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.hears(m.StopJobs(7, [1], [1]))
    bench.tell(WorkerEnded(7, 1, -signal.SIGINT, b'', 0, begun=False))
    assert bench.take(m.JobsDone)[0].statuses == [JobStatus.CANCELLED]


# what must not grow, and what need not be said


def test_stops_that_come_too_late_are_not_remembered_for_ever() -> None:
    bench = Bench()
    bench.open()
    count = 25_000
    bench.hears(m.StopJobs(7, list(range(count)), [1] * count))
    assert len(bench.core._hosted[7].stopped_ahead) == 10_000
    bench.run(count - 1)
    assert bench.take(m.JobsDone)[0].statuses == [JobStatus.CANCELLED]


def test_a_node_that_has_ended_says_nothing_of_the_program_that_used_it() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.tell(StopAsked(True, 'SIGINT received'))
    bench.take(do.Report)
    bench.tell(PeerLost('s', 'it closed the connection'))
    assert not bench.take(do.Report)


def test_a_scheduler_silent_for_an_hour_is_given_up_and_forgotten_by_the_link() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    for _ in range(61):
        bench.now += 60.1
        bench.tell(DeadlinePassed())
    assert 'nothing was heard' in bench.take(do.Report)[0].text
    assert bench.take(do.Disconnect) == [do.Disconnect('s')]
    assert bench.take(do.CloseTemplate)


# lasting workers: what waits in their pipes


def pipes(count: int, cpus: int = 2) -> Bench:
    """A node with lasting workers that hold `count` short jobs each, and none that waits."""
    bench = Bench(cpus)
    bench.open('worker', workers=cpus)
    bench.run(*range(1, cpus + 1))
    for worker in range(1, cpus + 1):  # learn that the jobs are short
        bench.tell(JobsReported(7, worker, [worker], [False], [b'out'], [1e-4]))
    first = cpus + 1
    bench.run(*range(first, first + count * cpus))
    bench.effects.clear()
    return bench


def held(bench: Bench, worker: int) -> list[int]:
    return [job.id for job in bench.core._hosted[7].workers[worker].held]


def test_what_waits_behind_a_long_job_is_recalled_when_a_cpu_idles() -> None:
    bench = pipes(40)
    first, second = held(bench, 1), held(bench, 2)
    bench.tell(JobsReported(7, 2, second, [False] * 40, [b''] * 40, [1e-4] * 40))
    (recall,) = bench.take(do.RecallFromWorker)
    assert (recall.worker, recall.delay) == (1, 0.0)
    bench.tell(JobsRecalled(7, 1, 3, 41))  # numbers: it was given one job before these
    (given,) = bench.take(do.GiveJobs)
    assert given.worker == 2
    assert given.ids == first[1:][: len(given.ids)]
    assert held(bench, 1)[0] == first[0]


def test_jobs_that_will_be_done_soon_have_a_moment_before_they_are_recalled() -> None:
    bench = pipes(4)
    second = held(bench, 2)
    bench.tell(JobsReported(7, 2, second, [False] * 4, [b''] * 4, [1e-4] * 4))
    (recall,) = bench.take(do.RecallFromWorker)
    assert recall.delay > 0


def test_nothing_more_is_put_behind_the_job_that_others_were_taken_from() -> None:
    bench = pipes(40)
    second = held(bench, 2)
    bench.tell(JobsReported(7, 2, second, [False] * 40, [b''] * 40, [1e-4] * 40))
    bench.tell(JobsRecalled(7, 1, 3, 41))
    bench.run(*range(500, 700))
    assert len(held(bench, 1)) == 1


def test_a_cancelled_job_in_a_pipe_never_begins() -> None:
    bench = pipes(4)
    waiting = held(bench, 1)[2]
    bench.hears(m.StopJobs(7, [waiting], [1]))
    assert [effect.worker for effect in bench.take(do.RecallFromWorker)] == [1]
    assert bench.take(do.SignalWorker) == []
    bench.tell(JobsRecalled(7, 1, 3, 5))
    (letter,) = bench.take(m.JobsDone)
    assert (letter.ids, letter.statuses) == ([waiting], [JobStatus.CANCELLED])


def test_a_signal_is_for_one_job_and_what_waits_behind_it_is_recalled_first() -> None:
    bench = pipes(4)
    running = held(bench, 1)[0]
    bench.hears(m.StopJobs(7, [running], [1]))
    kinds = [type(effect) for effect in bench.effects]
    assert kinds.index(do.RecallFromWorker) < kinds.index(do.SignalWorker)
    (signalled,) = bench.take(do.SignalWorker)
    assert signalled.number == 2  # the second job that this worker was given
    bench.run(*range(500, 700))
    assert len(held(bench, 1)) == 4  # nothing is put behind a job that is being ended


def test_the_schedulers_recall_reaches_into_the_pipes() -> None:
    bench = pipes(40)
    bench.hears(m.RecallJobs(7, 10))
    assert bench.take(m.JobsReturned) == []  # not before the workers have answered
    assert len(bench.take(do.RecallFromWorker)) == 2
    bench.tell(JobsRecalled(7, 1, 3, 41))
    assert bench.take(m.JobsReturned) == []
    bench.tell(JobsRecalled(7, 2, 3, 41))
    (back,) = bench.take(m.JobsReturned)
    assert len(back.ids) == 10


def test_a_recall_that_comes_too_late_is_answered_with_nothing() -> None:
    bench = pipes(2)
    bench.hears(m.RecallJobs(7, 1))
    for worker in (1, 2):
        ids = held(bench, worker)
        bench.tell(JobsReported(7, worker, ids, [False] * 2, [b''] * 2, [1e-4] * 2))
    (back,) = bench.take(m.JobsReturned)
    assert back.ids == []


def test_what_happens_in_a_template_is_told_on_the_log_and_to_the_user() -> None:
    bench = Bench()
    bench.open()
    for closing in (False, True):
        if closing:
            bench.hears(m.CloseComputation(7))
        bench.tell(TemplateNoted(7, levels.WARNING, 'cleanup failed'))
        assert bench.take(m.NodeNotice) == [m.NodeNotice(7, levels.WARNING, 'cleanup failed')]
        (report,) = bench.take(do.Report)
        assert (report.level, 'cleanup failed' in report.text) == (levels.WARNING, True)
    bench.tell(TemplateClosed(7))
    bench.tell(TemplateNoted(7, levels.WARNING, 'too late'))
    assert not bench.take(m.NodeNotice)


def test_arguments_of_setup_reach_the_template() -> None:
    bench = Bench()
    opened = replace(opening(), setup_args=b'pickled')
    bench.hears(opened)
    assert [order.setup_args for order in bench.take(do.OpenTemplate)] == [b'pickled']


def test_a_pulse_is_answered_with_what_is_measured_then() -> None:
    bench = Bench()
    bench.tell(AvailabilityMeasured(m.Availability(90.0, 1, 1, 0.0)))
    assert not bench.take(m.NodePulse)
    bench.tell(PeerConnected('other', ''))
    bench.hears(m.SchedulerPulse())
    bench.hears(m.SchedulerPulse(), 'other')
    assert bench.take(do.MeasureAvailability) == [do.MeasureAvailability()]
    assert not bench.take(m.NodePulse)
    fresh = m.Availability(10.0, 1, 1, 0.0)
    bench.tell(AvailabilityMeasured(fresh))
    assert bench.take(m.NodePulse) == [m.NodePulse(fresh)] * 2
    bench.tell(AvailabilityMeasured(None))
    assert not bench.take(m.NodePulse)
