"""The scheduler's core as a table: what it is told, and what it answers."""

from nodeserver.core import levels
from nodeserver.core import messages as m
from nodeserver.core.discovery import MOST_NODES
from nodeserver.core.effects import Connect, Disconnect, Ping
from nodeserver.core.events import (
    DeadlinePassed,
    NodeFound,
    OtherKeySeen,
    PeerConnected,
    PeerLost,
)
from nodeserver.core.recruiting import MOST_REMARKS
from nodeserver.core.status import JobStatus
from tests.support.desk import CLIENT, Desk
from tests.support.promises import jobs_left_in
from tests.support.world import declaration


def test_a_declared_computation_looks_for_nodes() -> None:
    desk = Desk(
        specs=[m.NodeSpec('10.0.0.9', 51350, 0, False), m.NodeSpec('10.*', 51348, 0, False)]
    )
    assert Ping([('10.0.0.9', 51350)], 51348) in desk.effects


def test_without_a_pattern_nobody_is_asked_by_broadcast() -> None:
    desk = Desk(specs=[m.NodeSpec('10.0.0.9', 51350, 0, False)])
    assert desk.effects == [Ping([('10.0.0.9', 51350)], 0)]


def test_a_node_that_matches_nothing_is_not_even_connected() -> None:
    desk = Desk(specs=[m.NodeSpec('10.1.*', 51348, 0, False)])
    desk.tell(NodeFound('n', '10.2.0.1', 51348, ''))
    assert not [e for e in desk.effects if isinstance(e, Connect)]
    assert 'matches no element' in '\n'.join(desk.core.explain(7, desk.now))


def test_a_node_that_calls_is_used_wherever_it_listens() -> None:
    desk = Desk(specs=[m.NodeSpec('10.2.0.1', 51348, 0, False)])
    desk.tell(PeerConnected('n', '10.2.0.1', 'node'))
    assert 'node 10.2.0.1, which connected to this program: found, connected' in desk.explained()
    desk.hears('n', m.NodeDetails('n', 2, 'Linux', '3.11', None))
    assert [message.computation for message in desk.sent(m.OpenComputation, 'n')] == [7]
    desk.hears('n', m.ComputationReady(7))
    assert 'node n (10.2.0.1), which connected to this program: 0 of 2 cpus' in desk.explained()
    desk.tell(NodeFound('n', '10.2.0.1', 51348, ''))  # by a ping: it is connected already
    assert not [e for e in desk.effects if isinstance(e, Connect)]


def test_a_node_that_was_heard_of_and_then_calls_is_used_wherever_it_listens() -> None:
    desk = Desk(specs=[m.NodeSpec('10.2.0.1', 51348, 0, False)])
    desk.tell(NodeFound('n', '10.2.0.1', 40001, ''))  # another port: it is not wanted
    assert not [e for e in desk.effects if isinstance(e, Connect)]
    desk.tell(PeerConnected('n', '10.2.0.1', 'node'))
    desk.hears('n', m.NodeDetails('n', 2, 'Linux', '3.11', None))
    assert desk.sent(m.OpenComputation, 'n')
    desk.hears('n', m.ComputationReady(7))
    assert [change.port for change in desk.sent(m.NodeChanged)] == [0]


def test_a_node_that_called_and_is_lost_may_have_called_again() -> None:
    desk = Desk(reentrant=True)
    called = PeerConnected('n', '10.2.0.1', 'node')
    for attempt in (1, 2):
        desk.tell(called)
        desk.hears('n', m.NodeDetails('n', 2, 'Linux', '3.11', None))
        desk.hears('n', m.ComputationReady(7))
        if attempt == 1:
            desk.submit(1)
        assert desk.sent(m.RunJobs, 'n')[0].attempts == [attempt]
        desk.tell(PeerLost('n', 'its connection was lost and taken up anew'))
    assert not [e for e in desk.effects if isinstance(e, Disconnect)]  # it would cut the new one
    desk.tell(called)
    desk.hears('n', m.Farewell('it ends'))
    assert [e for e in desk.effects if isinstance(e, Disconnect)] == [Disconnect('n')]


def test_a_node_that_matches_nothing_may_call() -> None:
    desk = Desk(specs=[m.NodeSpec('10.1.*', 51348, 0, False)])
    desk.tell(PeerConnected('n', '10.2.0.1', 'node'))
    desk.hears('n', m.NodeDetails('n', 2, 'Linux', '3.11', None))
    assert not desk.sent(m.OpenComputation)
    assert 'matches no element' in desk.explained()


def test_only_nodes_become_nodes_by_calling() -> None:
    desk = Desk()
    desk.tell(PeerConnected('client 2', '10.2.0.1', 'client'))
    desk.hears('client 2', m.NodeDetails('n', 2, 'Linux', '3.11', None))
    assert not desk.sent(m.OpenComputation)


def test_a_flood_of_nodes_that_call_is_bounded() -> None:
    desk = Desk()
    for number in range(MOST_NODES + 1):
        desk.effects += desk.core.handle(PeerConnected(f'{number}', '10.2.0.1', 'node'), desk.now)
    assert [e for e in desk.effects if isinstance(e, Disconnect)] == [Disconnect(f'{MOST_NODES}')]


def test_first_jobs_go_one_to_each_cpu() -> None:
    desk = Desk()
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    desk.submit(1, 2, 3, 4, 5, 6)
    runs = desk.sent(m.RunJobs)
    assert sorted(job for run in runs for job in run.ids) == [1, 2, 3, 4]
    assert [len(run.ids) for run in runs] == [2, 2]


def test_late_attempt_is_not_believed() -> None:
    desk = Desk(reentrant=True)
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.tell(PeerLost('a', 'its port refuses'))
    desk.join('a', cpus=1)
    assert desk.sent(m.RunJobs)[-1].attempts == [2]
    desk.done('a', 1, attempt=1)
    assert not desk.sent(m.JobsDone, CLIENT)
    assert desk.sent(m.AcknowledgeOutcomes, 'a')
    desk.done('a', 1, attempt=2)
    assert desk.sent(m.JobsDone, CLIENT)[0].attempts == [2]


def test_a_letter_that_is_current_passes_unchanged() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    desk.done('a', 1)
    (letter,) = desk.sent(m.JobsDone, CLIENT)
    assert (letter.node, letter.letter, letter.outcomes) == ('a', 1, [b'out'])


def test_a_waiting_job_that_is_cancelled_never_runs() -> None:
    desk = Desk()
    desk.submit(1, 2)
    desk.hears(CLIENT, m.CancelJobs(7, [1]))
    assert desk.sent(m.JobsSettled)[0].ids == [1]
    desk.join('a')
    assert [run.ids for run in desk.sent(m.RunJobs)] == [[2]]


def test_nothing_is_kept_of_jobs_that_were_cancelled_before_a_node_came() -> None:
    desk = Desk()
    desk.submit(1, 2, 3)
    desk.hears(CLIENT, m.CancelJobs(7, [2, 3]))
    desk.join('a', cpus=1)
    desk.done('a', 1)
    desk.hears(CLIENT, m.AcknowledgeOutcomes(7, 'a', [1]))
    assert jobs_left_in(desk.core) == {}


def test_a_running_job_that_is_cancelled_is_stopped_once() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    for _ in range(2):
        desk.hears(CLIENT, m.CancelJobs(7, [1]))
    assert desk.sent(m.StopJobs, 'a') == [m.StopJobs(7, [1], [1])]


def test_a_job_for_one_node_waits_for_that_node() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1, node='10.0.0.2')
    assert not desk.sent(m.RunJobs)
    desk.join('b', address='10.0.0.2')
    assert desk.sent(m.RunJobs, 'b')[0].ids == [1]


def test_short_jobs_are_handed_out_ahead_and_long_ones_are_not() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, *range(10, 40))
    desk.done('a', 1, seconds=0.001)
    ahead = sum(len(run.ids) for run in desk.sent(m.RunJobs)) - 1
    assert ahead == 11  # one that runs, and 10 ms of work
    desk.done('a', 10, seconds=1.0)
    assert not desk.sent(m.RunJobs)


def test_short_jobs_go_to_every_free_cpu_before_one_waits_behind_another() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.join('b', cpus=1, address='10.0.0.2')
    desk.submit(1, 2)
    desk.done('a', 1, seconds=0.001)
    desk.done('b', 2, seconds=0.001)
    desk.submit(3, 4, 5)
    runs = {node: desk.sent(m.RunJobs, node)[-1].ids for node in 'ab'}
    assert sorted(ids[0] for ids in runs.values()) == [3, 4]


def test_what_waits_behind_a_long_job_is_recalled_when_another_node_idles() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, 3, 4)
    desk.join('b', cpus=1, address='10.0.0.2')
    assert desk.sent(m.RecallJobs, 'a') == [m.RecallJobs(7, 1)]
    desk.hears('a', m.JobsReturned(7, [4], [1], 'another node is idle'))
    run = desk.sent(m.RunJobs, 'b')[0]
    assert (run.ids, run.attempts) == ([4], [2])


def test_two_computations_take_turns() -> None:
    desk = Desk()
    desk.hears(CLIENT, declaration(8))
    desk.join('a', cpus=2)
    desk.hears('a', m.ComputationReady(8))
    desk.submit(*range(1, 50))
    desk.sent(m.RunJobs)
    desk.hears(CLIENT, m.SubmitJobs(8, '', [1, 2], [b'x', b'x']))
    for job in (1, 2):
        desk.done('a', job)
    assert 8 in {run.computation for run in desk.sent(m.RunJobs)}


def test_remarks_on_packages_are_passed_on_once_whichever_nodes_have_them() -> None:
    desk = Desk()
    for node, remarks in (
        ('a', 'x differs\ny is missing'),
        ('b', 'x differs\nz differs'),
        ('c', ''),
    ):
        desk.tell(NodeFound(node, f'10.0.0.{node}', 51348, ''))
        desk.tell(PeerConnected(node, f'10.0.0.{node}'))
        desk.hears(node, m.NodeDetails(node, 1, 'Linux', '3.11', None))
        desk.hears(node, m.ComputationReady(7, remarks))
    notices = desk.sent(m.Notice, CLIENT)
    assert [notice.text.partition(': ')[2] for notice in notices] == [
        'at node a (10.0.0.a), x differs',
        'at node a (10.0.0.a), y is missing',
        'at node b (10.0.0.b), z differs',
    ]
    assert {notice.level for notice in notices} == {levels.WARNING}


def test_remarks_of_any_number_are_told_up_to_a_bound() -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 1, 'Linux', '3.11', None))
    desk.hears('a', m.ComputationReady(7, '\n'.join(map(str, range(1000)))))
    assert len(desk.sent(m.Notice, CLIENT)) == MOST_REMARKS


def test_a_busy_node_is_asked_again_when_it_is_free() -> None:
    desk = Desk()
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    desk.hears('a', m.ComputationRefused(7, 'busy', 'held by Ann at box'))
    assert 'held by Ann at box' in '\n'.join(desk.core.explain(7, desk.now))
    desk.sent(m.OpenComputation)
    desk.hears('a', m.NodeFree())
    assert desk.sent(m.OpenComputation, 'a')


def test_nobody_found_is_told_after_two_seconds_with_what_to_do() -> None:
    desk = Desk()
    desk.tell(OtherKeySeen('10.0.0.5'))
    desk.now += 1.9
    desk.tell(DeadlinePassed())
    assert not desk.sent(m.Notice)
    desk.now += 0.2
    desk.tell(DeadlinePassed())
    (notice,) = desk.sent(m.Notice)
    assert '10.0.0.5: uses another key' in notice.text
    assert 'dispy key export' in notice.text


def test_a_late_turn_of_ours_kills_no_node() -> None:
    desk = Desk()
    desk.join('a')
    desk.tell(DeadlinePassed())
    desk.now += 300.0
    desk.tell(DeadlinePassed())
    assert not desk.sent(m.NodeChanged, CLIENT)[1:]


def test_closing_waits_for_the_nodes_but_not_for_ever() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    desk.hears(CLIENT, m.CloseComputation(7))
    assert desk.sent(m.JobsSettled)[0].ids == [1]
    assert desk.sent(m.CloseComputation, 'a')
    assert not desk.sent(m.ComputationClosed, CLIENT)
    desk.now += 10.1
    desk.tell(DeadlinePassed())
    assert desk.sent(m.ComputationClosed, CLIENT)


def test_a_node_that_ends_gets_no_more_jobs_and_others_are_looked_for() -> None:
    desk = Desk()
    desk.join('a', cpus=2)
    desk.submit(1)
    desk.hears('a', m.NodeEnding('SIGINT received'))
    desk.sent(m.RunJobs)
    desk.submit(2)
    assert not desk.sent(m.RunJobs)
    text = '\n'.join(desk.core.explain(7, desk.now))
    assert 'no node can be used' in text
    assert 'takes no more jobs: SIGINT received' in text
    desk.effects.clear()
    desk.now += 1.0
    desk.tell(DeadlinePassed())
    assert [e for e in desk.effects if isinstance(e, Ping)]


def test_jobs_that_a_leaving_node_never_began_wait_for_another_one() -> None:
    desk = Desk()
    desk.join('a', cpus=2)
    desk.submit(1, 2)
    desk.hears('a', m.Farewell('SIGINT received', {7: [1]}))
    assert [message.ids for message in desk.sent(m.JobsRequeued)] == [[2]]
    (settled,) = desk.sent(m.JobsSettled)
    assert (settled.ids, settled.status) == ([1], JobStatus.CANCELLED)
    desk.join('b', address='10.0.0.2')
    assert [run.ids for run in desk.sent(m.RunJobs, 'b')] == [[2]]


def test_a_node_whose_port_was_in_use_is_found_at_the_port_that_was_asked() -> None:
    desk = Desk(specs=[m.NodeSpec('10.0.0.9', 51348, 0, False)])
    desk.tell(NodeFound('n', '10.0.0.9', 41000, '', 51348))
    assert Connect('n', '10.0.0.9', 41000, '') in desk.effects


def stuck_desk() -> Desk:
    """Node a runs one long job with two more behind it; b, of one cpu, idles."""
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, 3, 4)
    desk.join('b', cpus=1, address='10.0.0.2')
    return desk


def test_a_node_that_has_nothing_to_give_back_is_not_asked_again_until_it_moves() -> None:
    desk = stuck_desk()
    assert desk.sent(m.RecallJobs, 'a')
    for _ in range(3):
        desk.hears('a', m.JobsReturned(7, [], [], ''))
        desk.waits(1.0)
    assert not desk.sent(m.RecallJobs)
    desk.done('a', 2, seconds=0.001)
    assert desk.sent(m.RecallJobs, 'a') == [m.RecallJobs(7, 1)]


def test_a_node_that_had_nothing_to_give_back_does_not_hide_another_that_has() -> None:
    desk = stuck_desk()
    desk.hears('a', m.JobsReturned(7, [], [], ''))
    desk.submit(10, 11, 12, 13, 14, 15, 16, 17)
    desk.hears('b', m.JobsReturned(7, [], [], ''))
    desk.sent(m.RecallJobs)
    desk.join('c', cpus=1, address='10.0.0.3')
    assert desk.sent(m.RecallJobs)


def test_jobs_for_one_node_are_not_recalled() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, 3, 4, node='10.0.0.1')
    desk.join('b', cpus=1, address='10.0.0.2')
    assert not desk.sent(m.RecallJobs)


def test_nothing_is_recalled_for_cpus_that_the_computation_may_not_use() -> None:
    specs = [m.NodeSpec('10.0.0.1', 51348, 0, False), m.NodeSpec('10.0.0.2', 51348, 1, False)]
    desk = Desk(specs=specs)
    desk.join('a', cpus=1)
    desk.join('b', cpus=4, address='10.0.0.2')
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, node='10.0.0.2')
    desk.submit(3, 4, 5, node='10.0.0.1')
    assert not desk.sent(m.RecallJobs)


def test_jobs_that_wait_for_an_absent_node_do_not_keep_others_from_being_recalled() -> None:
    desk = Desk()
    desk.submit(99, node='10.9.9.9')
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, 3, 4)
    desk.join('b', cpus=1, address='10.0.0.2')
    assert desk.sent(m.RecallJobs, 'a') == [m.RecallJobs(7, 1)]


def test_a_provisional_result_that_is_stale_does_not_drop_the_others_of_its_batch() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1, 2)
    desk.hears('a', m.JobsProvisional(7, 'a', [1, 2, 1], [1, 9, 1], [b'x', b'y', b'z']))
    (passed,) = desk.sent(m.JobsProvisional, CLIENT)
    assert passed == m.JobsProvisional(7, 'a', [1, 1], [1, 1], [b'x', b'z'])
    desk.hears('a', m.JobsProvisional(7, 'a', [2], [9], [b'y']))
    assert not desk.sent(m.JobsProvisional, CLIENT)


def test_a_notice_of_a_node_reaches_the_user_also_while_the_cluster_is_being_closed() -> None:
    desk = Desk()
    desk.join('a')
    for closing in (False, True):
        if closing:
            desk.hears(CLIENT, m.CloseComputation(7))
        desk.hears('a', m.NodeNotice(7, levels.WARNING, 'cleanup failed'))
        (notice,) = desk.sent(m.Notice, CLIENT)
        assert notice.level == levels.WARNING
        assert notice.text.endswith('on node a (10.0.0.1): cleanup failed')
    desk.hears('a', m.NodeNotice(8, levels.WARNING, 'of nobody'))
    assert not desk.sent(m.Notice)
