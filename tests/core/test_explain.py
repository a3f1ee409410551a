"""What the scheduler says of jobs that wait, asked or not."""

import pytest

from nodeserver.core import messages as m
from nodeserver.core.events import DeadlinePassed, NodeFound, OtherKeySeen
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration


def test_jobs_for_a_node_that_was_not_found_are_told_by_its_name() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, 2, 3, node='9.9.9.9')
    desk.submit(4, node='bigbox\n10.0.0.9')
    desk.hears(CLIENT, m.CancelJobs(7, [2]))
    text = desk.explained()
    assert 'compute: 3 jobs waiting, 0 on nodes; 1 node ready' in text
    assert '2 jobs wait for node 9.9.9.9, which was not found' in text
    assert '1 job waits for node bigbox (10.0.0.9), which was not found' in text
    assert 'busy' not in text


def test_jobs_for_a_node_that_is_no_use_are_told_why() -> None:
    desk = Desk(specs=[m.NodeSpec('10.*', 51348, 0, False)])
    desk.tell(NodeFound('x', '11.0.0.1', 51348, ''))
    desk.submit(1, node='11.0.0.1')
    assert '1 job waits for node 11.0.0.1: found, but it matches no element' in desk.explained()


def test_jobs_for_a_node_whose_cpus_are_busy_wait_for_it() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, 2, node='10.0.0.1')
    text = desk.explained()
    assert '1 job waits for node a (10.0.0.1): all cpus busy: 1 of 1 cpu in use' in text
    assert 'usable' not in text


def test_of_very_many_names_only_some_are_told() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    for number in range(30):
        desk.submit(number, node=f'h{number}')
    lines = desk.explained().splitlines()
    assert len(lines) < 20
    assert '20 jobs wait for 20 more nodes that were named' in lines


def test_all_cpus_are_called_busy_only_when_they_are_and_jobs_for_any_node_wait() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, node='9.9.9.9')
    assert 'busy' not in desk.explained()
    desk.submit(2, 3)
    assert 'compute: 2 jobs waiting, 1 on nodes; all cpus of the 1 usable' in desk.explained()


def test_cpus_that_another_computation_keeps_busy_are_told_of() -> None:
    desk = Desk()
    desk.hears(CLIENT, declaration(8))
    desk.join('a', cpus=2)
    desk.hears('a', m.ComputationReady(8))
    desk.hears(CLIENT, m.SubmitJobs(8, '', [1, 2], [b'x', b'x']))
    desk.submit(1)
    text = desk.explained()
    assert 'all cpus of the 1 usable node are busy' in text
    assert 'all cpus busy: 0 of 2 cpus in use, 2 jobs of other computations' in text


def test_jobs_that_wait_behind_running_ones_are_told_of() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1)
    desk.done('a', 1, seconds=0.001)
    desk.submit(2, 3, 4)
    assert '1 of 1 cpu in use; 2 more jobs wait there behind running ones' in desk.explained()


@pytest.mark.parametrize('submitted_after', [0.0, 30.0])
def test_an_absent_node_is_told_of_by_itself_within_two_seconds_and_once_a_minute(
    submitted_after: float,
) -> None:
    desk = Desk(pulse_interval=600.0)
    desk.join('a', cpus=1)
    desk.waits(submitted_after)
    desk.submit(1, node='9.9.9.9')
    assert not desk.sent(m.Notice)
    desk.waits(2.1)
    (notice,) = desk.sent(m.Notice)
    assert notice.text == 'compute: 1 job waits for node 9.9.9.9, which was not found'
    desk.submit(2, node='9.9.9.9')
    desk.waits(30.0)
    assert not desk.sent(m.Notice)
    desk.waits(30.1)
    assert '2 jobs wait for node 9.9.9.9' in desk.sent(m.Notice)[0].text


def test_jobs_for_nodes_that_are_there_are_no_news() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, 2, node='10.0.0.1')
    desk.waits(2.1)
    assert not desk.sent(m.Notice)


@pytest.mark.parametrize(
    ('kind', 'words'), [('busy', 'busy: why'), ('failed', 'cannot run this computation: why')]
)
def test_nodes_that_are_all_busy_or_failed_are_told_of_by_themselves(kind: str, words: str) -> None:
    desk = Desk()
    for node, address in (('a', '10.0.0.1'), ('b', '10.0.0.2')):
        desk.tell(NodeFound(node, address, 51348, ''))
        desk.hears(node, m.NodeDetails(node, 2, 'Linux', '3.11', None))
        desk.hears(node, m.ComputationRefused(7, kind, 'why'))
    desk.sent(m.Notice)
    desk.waits(2.1)
    (notice,) = desk.sent(m.Notice)
    assert 'no node can be used' in notice.text
    assert notice.text.count(words) == 2


def test_strangers_are_listed_only_where_nodes_were_looked_for() -> None:
    specs = [m.NodeSpec('10.0.*', 51348, 0, False), m.NodeSpec('10.1.0.1', 51348, 0, False)]
    desk = Desk(specs=specs)
    for address in ('10.0.0.7', '10.1.0.1', '10.1.0.2', '192.168.0.1'):
        desk.tell(OtherKeySeen(address))
    told = [
        line.partition(':')[0] for line in desk.explained().splitlines() if 'uses another' in line
    ]
    assert told == ['10.0.0.7', '10.1.0.1']
    desk.join('a', address='10.0.0.7')
    assert '10.0.0.7: uses another key' not in desk.explained()


def test_a_stranger_elsewhere_does_not_take_the_place_of_advice() -> None:
    desk = Desk(specs=[m.NodeSpec('10.1.0.1', 51348, 0, False)])
    desk.tell(OtherKeySeen('10.1.0.2'))
    assert 'nobody answered' in desk.explained()


@pytest.mark.parametrize('reason', ["allocate() returned 'many', not a number", ''])
def test_what_allocate_said_is_repeated(reason: str) -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 0, reason))
    desk.tell(DeadlinePassed())
    assert f'not used: {reason or "allocate() returned 0 for it"}' in desk.explained()
