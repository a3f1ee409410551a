"""When a node takes jobs and from whom: hours, the words of whoever runs it, clients, silence."""

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import (
    CloseAsked,
    DeadlinePassed,
    Event,
    JobsReported,
    PeerConnected,
    PeerLost,
    ProvisionalReported,
    StopAsked,
    TemplateClosed,
    TemplateFailed,
)
from nodeserver.core.hours import ServiceHours, read_time
from nodeserver.core.nodeevents import (
    ClockRead,
    CpusChosen,
    PauseAsked,
    ReleaseAsked,
)
from nodeserver.core.nodefacts import NodeRules
from nodeserver.core.status import JobStatus
from tests.support.desk import CLIENT, Desk
from tests.support.nodebench import Bench, opening

EVENING = ServiceHours(read_time('17:00'), read_time('6:00'), read_time('8:00'))
WORDS = 'serves from 17:00 to 08:00, and takes jobs until 06:00'
ENDED = 'its service hours ended at 08:00'


def clock(time: str) -> ClockRead:
    return ClockRead(read_time(time))


def evening() -> Bench:
    """A node with hours, within them, and one job running while one waits."""
    bench = Bench(cpus=1, rules=NodeRules(hours=EVENING))
    bench.tell(clock('20:00'))
    bench.open(workers=1)
    bench.run(1, 2)
    return bench


def test_outside_its_hours_a_node_refuses_and_tells_when_it_can_be_asked() -> None:
    bench = Bench(rules=NodeRules(hours=EVENING))
    bench.tell(clock('12:00'))
    assert bench.take(m.NodePaused) == [m.NodePaused(WORDS)]
    bench.hears(opening())
    assert bench.take(m.ComputationRefused) == [m.ComputationRefused(7, 'busy', WORDS)]
    bench.tell(PeerConnected('t', ''))
    assert bench.take(m.NodePaused) == [m.NodePaused(WORDS)]
    bench.hears(m.CloseComputation(9))  # another of the same scheduler still waits
    bench.tell(clock('16:59:59'))
    assert not bench.take(m.NodeFree)
    bench.tell(clock('17:00'))
    assert bench.take(m.NodePaused)[0].reason == ''
    assert len(bench.take(m.NodeFree)) == 1
    bench.hears(opening())
    assert bench.take(do.OpenTemplate)


def test_at_the_stop_what_waits_goes_back_and_what_runs_goes_on() -> None:
    bench = evening()
    bench.tell(clock('6:00'))
    assert bench.take(m.JobsReturned) == [m.JobsReturned(7, [2], [1], WORDS)]
    bench.run(3)  # it was on its way
    assert bench.take(m.JobsReturned)[0].ids == [3]
    bench.reported(1, 1)
    assert bench.take(m.JobsDone)[0].statuses == [JobStatus.FINISHED]
    assert not bench.take(do.CloseTemplate)


def test_at_the_end_nothing_of_anybody_is_left() -> None:
    bench = evening()
    bench.tell(clock('8:00'))  # nobody was there to see 6:00: the machine slept
    assert bench.take(m.JobsReturned)[0].ids == [2]
    assert bench.take(m.ComputationRefused) == [m.ComputationRefused(7, 'over', ENDED)]
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    assert not bench.take(m.NodeFree)
    bench.tell(clock('17:00'))
    assert bench.take(m.NodeFree)


def test_a_clock_that_is_set_back_opens_again() -> None:
    bench = evening()
    bench.tell(clock('6:00'))
    bench.tell(clock('5:00'))
    assert [paused.reason for paused in bench.take(m.NodePaused)] == [WORDS, '']
    bench.reported(1, 1)
    bench.run(2)
    assert bench.take(do.GiveJobs)[-1].ids == [1]


def test_a_node_that_ends_is_not_opened_by_its_hours() -> None:
    bench = evening()
    bench.tell(clock('6:00'))
    bench.tell(StopAsked(False, 'SIGTERM received'))
    bench.take(m.NodePaused)
    bench.tell(clock('17:00'))
    assert not bench.take(m.NodePaused)
    bench.run(4)
    assert bench.take(m.JobsReturned)[-1].reason == 'the node is ending: SIGTERM received'


def test_stop_and_start_are_apart_from_the_hours() -> None:
    bench = evening()
    bench.tell(PauseAsked())
    bench.tell(clock('6:00'))
    bench.tell(clock('17:00'))
    assert 'has stopped its service' in bench.core.status()[1]
    assert all(paused.reason for paused in bench.take(m.NodePaused))
    bench.tell(PauseAsked(ends=True))
    assert bench.take(m.NodePaused) == [m.NodePaused('')]


def test_release_waits_for_running_jobs_and_their_acknowledgement() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.tell(PeerConnected('t', ''))
    bench.hears(opening(8), peer='t')
    bench.run(1, 2)
    bench.tell(ReleaseAsked())
    assert bench.take(m.JobsReturned)[0].ids == [2]
    bench.reported(1, 1)
    assert not bench.take(do.CloseTemplate)
    bench.hears(m.AcknowledgeOutcomes(7, 'n', [1]))
    assert bench.take(do.CloseTemplate)
    assert bench.take(m.ComputationRefused)[-1].kind == 'failed'
    bench.tell(TemplateClosed(7))
    assert bench.take(do.Send)[-1] == do.Send('t', m.NodeFree())


def test_close_takes_the_node_from_its_client_at_once() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1, 2)
    bench.tell(CloseAsked())
    assert bench.take(m.JobsReturned)[0].ids == [2]
    assert bench.take(m.ComputationRefused)[0].kind == 'failed'
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    bench.hears(opening(8), peer='s')
    assert bench.take(do.OpenTemplate)


def test_release_and_close_of_a_node_that_nobody_holds_change_nothing() -> None:
    bench = Bench()
    bench.tell(ReleaseAsked())
    bench.tell(CloseAsked())
    assert not bench.take(m.NodePaused)
    bench.hears(opening())
    assert bench.take(do.OpenTemplate)


@pytest.mark.parametrize('clients', [1, 2])
def test_a_client_is_served_once_all_its_computations_are_closed(clients: int) -> None:
    bench = Bench(rules=NodeRules(clients=clients))
    for number in range(clients):
        peer = f'peer{number}'
        bench.tell(PeerConnected(peer, ''))
        bench.hears(opening(7), peer=peer)
        bench.hears(opening(8), peer=peer)
        assert len(bench.take(do.OpenTemplate)) == 2
        bench.hears(m.CloseComputation(7), peer=peer)
        bench.tell(TemplateClosed(7))
        assert not bench.take(do.Stop)
        bench.hears(m.CloseComputation(8), peer=peer)
        bench.tell(TemplateClosed(8))
    (stop,) = bench.take(do.Stop)
    assert stop.reason == ('it has served 1 client' if clients == 1 else 'it has served 2 clients')
    assert {closed.computation for closed in bench.take(m.ComputationClosed)} == {7, 8}


def test_a_client_that_comes_back_is_counted_once() -> None:
    bench = Bench(rules=NodeRules(clients=1))
    bench.hears(opening(7))
    bench.hears(m.CloseComputation(7, again=True))
    bench.tell(TemplateClosed(7))
    assert not bench.take(do.Stop)
    bench.hears(opening(7))
    bench.hears(m.CloseComputation(7))
    bench.tell(TemplateClosed(7))
    assert len(bench.take(do.Stop)) == 1


def test_a_client_that_was_to_come_back_and_is_gone_was_served() -> None:
    bench = Bench(rules=NodeRules(clients=1))
    bench.hears(opening(7))
    bench.hears(m.CloseComputation(7, again=True))
    bench.tell(TemplateClosed(7))
    bench.tell(PeerLost('s', 'gone'))
    assert len(bench.take(do.Stop)) == 1


def test_a_client_that_was_to_come_back_holds_up_nobody() -> None:
    bench = Bench(rules=NodeRules(clients=2))
    bench.hears(opening(7))
    bench.hears(m.CloseComputation(7, again=True))
    bench.tell(TemplateClosed(7))
    bench.tell(PeerConnected('t', ''))
    bench.hears(opening(8), peer='t')
    assert len(bench.take(do.OpenTemplate)) == 2
    bench.hears(m.CloseComputation(8), peer='t')
    bench.tell(TemplateClosed(8))
    assert len(bench.take(do.Stop)) == 1


def test_a_client_whose_node_has_ended_its_hours_is_served_on_with_the_next_ones() -> None:
    bench = Bench(cpus=1, rules=NodeRules(hours=EVENING, clients=1))
    bench.tell(clock('20:00'))
    bench.open(workers=1)
    bench.tell(clock('8:00'))
    bench.tell(TemplateClosed(7))
    bench.tell(clock('17:00'))
    assert not bench.take(do.Stop)
    assert bench.take(m.NodeFree)


def test_a_silent_scheduler_is_given_up_when_its_time_is_up_and_not_before() -> None:
    bench = Bench(cpus=1, rules=NodeRules(zombie_seconds=60.0))
    bench.open(workers=1)
    bench.run(1, 2)
    bench.now += 30
    bench.hears(m.SchedulerPulse())
    for silence in (30.0, 29.9):
        bench.now += silence
        bench.tell(DeadlinePassed())
        assert not bench.take(do.Disconnect)
    due = bench.core.next_deadline()
    assert due is not None
    bench.now = due
    bench.tell(DeadlinePassed())
    assert bench.take(do.Disconnect) == [do.Disconnect('s')]
    (farewell,) = bench.take(m.Farewell)
    assert farewell == m.Farewell('nothing was heard of it for 1 minute', {7: [1, 2]})
    assert not bench.take(do.SignalWorker)  # its jobs run on, also what waits
    assert not bench.take(do.CloseTemplate)


def test_cpus_are_chosen_anew_and_what_runs_goes_on() -> None:
    bench = Bench(cpus=2)
    bench.open(workers=3)
    bench.run(1, 2, 3, 4)
    bench.tell(CpusChosen(1))
    assert [details.cpus for details in bench.take(m.NodeDetails)] == [2, 1]
    bench.take(do.GiveJobs)
    bench.reported(1, 1)
    assert not bench.take(do.GiveJobs)
    bench.reported(2, 2)
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[3]]
    bench.take(do.ForkWorkers)
    bench.tell(CpusChosen(3))  # one that may use all may use those too
    (fork,) = bench.take(do.ForkWorkers)
    assert fork.count == 2  # and one is on its way


def test_status_says_who_holds_the_node_and_what_it_does() -> None:
    bench = evening()
    assert bench.core.status() == [
        'n: 1 cpu, 1 in use',
        'takes jobs',
        WORDS,
        'held by Ann at box',
        'computation compute (ready): 1 job running, 1 waiting',
        '1 program connected, 0 of them waiting for it',
    ]
    bench.tell(PeerLost('s', 'gone'))
    assert 'held by Ann at box, which is gone: its jobs end first' in bench.core.status()
    bench.tell(StopAsked(False, 'SIGTERM received'))
    assert bench.core.status()[1] == 'the node is ending: SIGTERM received'


# the scheduler's side


def test_jobs_wait_for_a_paused_node_and_are_told_why() -> None:
    desk = Desk()
    desk.join('a')
    desk.hears('a', m.NodePaused(WORDS))
    desk.submit(1)
    assert not desk.sent(m.RunJobs)
    assert f'takes no more jobs: {WORDS}' in desk.explained()
    desk.hears('a', m.NodePaused(''))
    assert desk.sent(m.RunJobs)[0].ids == [1]


@pytest.mark.parametrize('reentrant', [False, True])
def test_jobs_of_a_node_whose_hours_end_are_terminated_or_run_elsewhere(reentrant: bool) -> None:
    desk = Desk(reentrant=reentrant)
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.join('b', cpus=1, address='10.0.0.2')
    desk.sent(m.RunJobs)
    desk.hears('a', m.NodePaused(WORDS))
    desk.hears('a', m.ComputationRefused(7, 'over', ENDED))
    if reentrant:
        assert desk.sent(m.RunJobs, 'b')[0].ids == [1]
        assert not desk.sent(m.JobsSettled)
    else:
        (settled,) = desk.sent(m.JobsSettled, CLIENT)
        assert settled.status == JobStatus.TERMINATED
        assert settled.reason == f'node a (10.0.0.1): {ENDED}'
    desk.hears('a', m.NodePaused(''))
    desk.hears('a', m.NodeFree())
    assert desk.sent(m.OpenComputation, 'a')


def test_a_node_that_offers_more_cpus_again_gets_more_jobs() -> None:
    desk = Desk()
    desk.join('a', cpus=2)
    for cpus in (1, 2):
        desk.hears('a', m.NodeDetails('a', cpus, 'Linux', '3.11', None))
    desk.submit(1, 2)
    assert desk.sent(m.RunJobs)[0].ids == [1, 2]


@pytest.mark.parametrize('end', [CloseAsked(), clock('8:00'), TemplateFailed(7, 'it was killed')])
def test_what_jobs_have_brought_is_told_before_the_node_says_that_they_will_not_end(
    end: Event,
) -> None:
    bench = evening()
    bench.tell(StopAsked(False, 'the machine is needed'))  # so no other template is made
    bench.effects.clear()
    bench.core.handle(ProvisionalReported(7, 1, 1, b'half'), bench.now)
    bench.core.handle(JobsReported(7, 1, [1], [False], [b'out'], [1.0]), bench.now)
    bench.tell(end)  # in the same turn
    told = [type(e.message) for e in bench.effects if isinstance(e, do.Send)]
    told = [kind for kind in told if kind in (m.JobsProvisional, m.JobsDone, m.ComputationRefused)]
    assert told == [m.JobsProvisional, m.JobsDone, m.ComputationRefused]
