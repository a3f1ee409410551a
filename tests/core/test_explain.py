"""What the scheduler says of jobs that wait, asked or not."""

from typing import Any

import pytest

from nodeserver.core import fleetmessages as f
from nodeserver.core import messages as m
from nodeserver.core.events import (
    DeadlinePassed,
    NodeFound,
    OtherKeySeen,
    PeerConnected,
    PeerRefusedUs,
)
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


def test_of_very_many_strangers_and_nodes_of_others_only_some_are_told() -> None:
    desk = Desk(specs=[m.NodeSpec('10.*', 51348, 0, False)])
    for number in range(200):
        desk.tell(NodeFound(f'n{number}', f'11.0.0.{number}', 51348, ''))
        desk.tell(OtherKeySeen(f'10.0.1.{number}'))
        desk.tell(PeerRefusedUs('', f'10.0.2.{number}:51348', 'another certificate'))
    lines = desk.explained().splitlines()
    assert len(lines) < 40
    assert 'and 190 more nodes that match no element' in lines
    assert 'and 190 more addresses with another key' in lines
    assert 'and 190 more addresses without a connection' in lines


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


# each way in which a node may stand has words, and says what to do


def found(desk: Desk, *, details: bool = True) -> None:
    """A node is found, and tells about itself."""
    desk.tell(NodeFound('a', '10.0.0.1', 51348, ''))
    if details:
        desk.tell(PeerConnected('a', '10.0.0.1'))
        desk.hears('a', m.NodeDetails('a', 2, 'Linux', '3.11', None))


def ask(desk: Desk, kind: type[Any], *values: object) -> None:
    desk.hears(CLIENT, kind(7, 1, *values))


def test_a_node_that_is_found_and_has_not_told_of_itself() -> None:
    desk = Desk()
    found(desk, details=False)
    assert 'node 10.0.0.1 port 51348: connecting' in desk.explained()
    desk.tell(PeerConnected('a', '10.0.0.1'))
    assert 'found, connected, waiting for its details' in desk.explained()


def test_a_node_that_refuses_to_talk() -> None:
    desk = Desk()
    found(desk, details=False)
    desk.tell(PeerRefusedUs('a', '10.0.0.1', 'it speaks version 9'))
    assert 'node 10.0.0.1 port 51348: it speaks version 9' in desk.explained()


def test_a_node_that_is_no_element_of_nodes_can_be_added() -> None:
    desk = Desk(specs=[m.NodeSpec('11.*', 51348, 0, False)])
    found(desk)
    assert 'matches no element of `nodes`; `allocate_node()` adds it' in desk.explained()


def test_a_node_for_which_allocate_is_asked() -> None:
    desk = Desk(specs=[m.NodeSpec('*', 51348, 0, True)])
    found(desk)
    assert 'waiting for the answer of `allocate()`, which runs behind other' in desk.explained()
    desk.hears(CLIENT, m.AllocateAnswer(7, 'a', 0))
    words = 'not used: allocate() returned 0 for it; `allocate_node()` asks again'
    assert words in desk.explained()


def test_a_node_that_sets_up_is_told_of_with_the_time() -> None:
    desk = Desk()
    found(desk)
    desk.now += 7.0
    words = 'setting up for 7 s: it receives the computation and runs `setup`'
    assert words in desk.explained()
    desk.hears('a', m.ComputationReady(7))
    assert 'setting up' not in desk.explained()


@pytest.mark.parametrize('ready_before', [False, True])
def test_a_setup_that_runs_long_is_told_of_by_itself(ready_before: bool) -> None:
    desk = Desk(pulse_interval=600.0)
    if ready_before:
        desk.join('b', address='10.0.0.2')
    desk.waits(30.0)
    desk.effects.clear()
    found(desk)
    desk.waits(1.0)
    assert not desk.sent(m.Notice)
    desk.waits(1.5)
    (notice,) = desk.sent(m.Notice)
    assert 'node a (10.0.0.1) port 51348: setting up for 2 s' in notice.text
    desk.waits(30.0)
    assert not desk.sent(m.Notice)
    desk.waits(30.0)
    assert 'setting up for 62 s' in desk.sent(m.Notice)[0].text


def test_a_setup_that_is_quick_is_no_news() -> None:
    desk = Desk()
    desk.join('a')
    desk.waits(2.5)
    assert not desk.sent(m.Notice)


def test_a_node_that_failed_can_be_set_up_anew() -> None:
    desk = Desk()
    found(desk)
    desk.hears('a', m.ComputationRefused(7, 'failed', 'setup() returned 1'))
    words = 'cannot run this computation: setup() returned 1; `resetup_node()` tries again'
    assert words in desk.explained()


def test_a_node_that_somebody_else_holds_is_used_as_soon_as_it_is_free() -> None:
    desk = Desk()
    found(desk)
    desk.hears('a', m.ComputationRefused(7, 'busy', 'held by Ann at box'))
    assert 'busy: held by Ann at box; it is used as soon as it is free' in desk.explained()


def test_a_node_that_ends_takes_no_more_jobs() -> None:
    desk = Desk()
    desk.join('a')
    desk.hears('a', m.NodeEnding('interrupted'))
    assert 'takes no more jobs: interrupted' in desk.explained()
    assert 'no node can be used' in desk.explained()


@pytest.mark.parametrize(
    ('kind', 'values', 'words'),
    [
        (f.DeallocateNode, (), 'takes no new jobs: deallocated; 1 job there may end; `allocate_'),
        (f.CloseNode, (False, False), 'is being closed; 1 job there may end'),
        (f.CloseNode, (False, True), 'is being closed; 1 job there may end, and it is set up anew'),
        (f.SetNodeCpus, (0,), 'none of its cpus are to be used; 1 job there may end; `set_node_'),
    ],
)
def test_a_node_that_its_user_does_not_want_is_told_of_with_the_way_back(
    kind: type[Any], values: tuple[object, ...], words: str
) -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, 2)
    ask(desk, kind, 'a', *values)
    assert f'node a (10.0.0.1) port 51348: {words}' in desk.explained()
    assert '1 job waiting, 1 on nodes; no node can be used' in desk.explained()


def test_a_node_that_was_closed_can_be_allocated() -> None:
    desk = Desk()
    desk.join('a')
    ask(desk, f.CloseNode, 'a', False, False)
    assert 'closing: it ends what is left of this computation' in desk.explained()
    desk.hears('a', m.ComputationClosed(7))
    words = 'not used: it was closed with close_node(); `allocate_node()` uses it again'
    assert words in desk.explained()


def test_jobs_for_a_node_that_its_user_does_not_want_are_told_of_by_themselves() -> None:
    desk = Desk(pulse_interval=600.0)
    desk.join('a', cpus=1)
    desk.join('b', address='10.0.0.2')
    ask(desk, f.SetNodeCpus, 'a', 0)
    desk.submit(1, node='a')
    desk.waits(2.1)
    (notice,) = desk.sent(m.Notice)
    assert '1 job waits for node a (10.0.0.1): none of its cpus are to be used' in notice.text


def test_jobs_behind_those_of_a_higher_priority_are_told_of() -> None:
    desk = Desk()
    desk.join('a', cpus=1)
    desk.submit(1, 2)
    desk.hears(CLIENT, m.SubmitJobs(7, '', [3, 4], [b'x', b'x'], m.JobOptions(priority=5)))
    assert '2 jobs of priority 5 go first; 1 job waits behind' in desk.explained()
    desk.hears(CLIENT, m.CancelJobs(7, [3, 4]))
    assert 'go first' not in desk.explained()


def test_where_no_node_is_found_it_is_told_where_they_were_looked_for() -> None:
    desk = Desk(specs=[m.NodeSpec('10.0.0.9', 51348, 0, False), m.NodeSpec('*', 51348, 0, False)])
    text = desk.explained()
    assert 'looked for nodes at: 10.0.0.9 (port 51348), the local network by broadcast' in text
    assert 'nobody answered: start `dispynode`' in text
    assert '`dispy doctor HOST` says which of these it is' in text
    ask(desk, f.AddNodes, [m.NodeSpec('10.0.0.8', 51348, 0, False)])
    assert 'looked for nodes at: 10.0.0.8 (port 51348), 10.0.0.9' in desk.explained()
