"""Jobs that wait on a full node are taken back when a cpu idles elsewhere."""

from dataclasses import replace

from nodeserver.core import messages as m
from nodeserver.core.events import MessageArrived, NodeFound, PeerConnected
from nodeserver.core.status import JobStatus
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration

OTHER = 8  # the second computation of the client
TINY = 0.001  # seconds: a node is given several of such jobs for each cpu


class TwoClusters(Desk):
    """A scheduler core with two computations, and nodes that are ready for both or for one."""

    def __init__(self, *specs: m.NodeSpec, other: tuple[m.NodeSpec, ...] = ()) -> None:
        super().__init__(**({'specs': list(specs)} if specs else {}))
        wanted = list(other) or declaration().specs
        self.hears(CLIENT, replace(declaration(), computation=OTHER, specs=wanted))

    def join(self, node: str, cpus: int = 1, address: str = '10.0.0.1') -> None:
        """A node comes and is ready for all that want it."""
        self.tell(NodeFound(node, address, 51348, ''))
        self.tell(PeerConnected(node, address))
        self.hears(node, m.NodeDetails(node, cpus, 'Linux', '3.11', None))
        for opened in self.sent(m.OpenComputation, node):
            self.hears(node, m.ComputationReady(opened.computation))

    def submit_to(self, computation: int, *ids: int) -> None:
        """Jobs of one of them come."""
        self.hears(CLIENT, m.SubmitJobs(computation, '', list(ids), [b'x'] * len(ids)))

    def ends(self, computation: int, node: str, *ids: int) -> None:
        """Tiny jobs end."""
        count = len(ids)
        columns = [JobStatus.FINISHED] * count, [b'o'] * count, [''] * count, [TINY] * count
        self.hears(node, m.JobsDone(computation, node, 1, list(ids), [1] * count, *columns))

    def learns(self, computation: int, node: str) -> None:
        """The jobs of a computation are known to be tiny."""
        self.submit_to(computation, 1_000_000)
        self.ends(computation, node, 1_000_000)

    def lives(self, seconds: int) -> None:
        """Time goes by, and all nodes give signs of life."""
        for _ in range(seconds):
            for node in list(self.core._fleet.nodes):
                self.hears(node, m.NodePulse(None))
            self.waits(1)

    def with_nodes(self) -> dict[str, dict[int, int]]:
        """How many jobs of each computation are with each node."""
        return {name: node.loads for name, node in self.core._fleet.nodes.items()}


def test_a_long_job_of_one_cluster_does_not_hide_what_waits_of_another() -> None:
    desk = TwoClusters()
    desk.join('n1')
    desk.learns(OTHER, 'n1')
    desk.submit(1)  # it takes an hour, and may be all that is asked for
    desk.submit_to(OTHER, 2, 3, 4, 5)
    assert desk.with_nodes() == {'n1': {7: 1, OTHER: 4}}
    desk.join('n2', address='10.0.0.2')
    for _ in range(10):
        for recall in desk.sent(m.RecallJobs, 'n1'):
            ids = [5] if recall.computation == OTHER else []
            desk.hears('n1', m.JobsReturned(recall.computation, ids, [1] * len(ids), ''))
        desk.lives(1)
    assert desk.with_nodes()['n2'] == {OTHER: 1}


def test_jobs_are_not_taken_back_in_the_turn_in_which_they_were_given() -> None:
    desk = TwoClusters()
    desk.join('n1')
    desk.learns(7, 'n1')
    desk.join('n2', cpus=2, address='10.0.0.2')
    desk.submit(1, node='n2')
    desk.effects.clear()
    urgent = m.SubmitJobs(7, '', [2], [b'x'])
    for_one = m.SubmitJobs(7, 'n1', [3, 4, 5, 6], [b'x'] * 4, m.JobOptions(priority=-1))
    for message in (urgent, for_one):
        desk.effects += desk.core.handle(MessageArrived(CLIENT, message), desk.now)
    desk.effects += desk.core.end_turn(desk.now)
    (run,) = desk.sent(m.RunJobs)
    assert sorted(run.ids) == [2, 3, 4, 5, 6]  # n1 had least to do when the first was given out
    assert not desk.sent(m.RecallJobs)  # it would get all of them again, and so on for ever
    desk.lives(1)
    assert desk.sent(m.RecallJobs, 'n1')  # if it has not begun that one by now


def test_a_node_that_does_not_answer_keeps_no_other_from_being_asked() -> None:
    desk = TwoClusters()
    desk.join('frozen')
    desk.learns(7, 'frozen')
    desk.submit(*range(2, 12))
    desk.join('idle', address='10.0.0.2')
    assert [recall.computation for recall in desk.sent(m.RecallJobs, 'frozen')] == [7]
    desk.join('full', address='10.0.0.3')
    desk.submit(*range(20, 24))
    idle = [job for job, node in desk.core._fleet.computations[7].places.items() if node == 'idle']
    desk.ends(7, 'idle', *idle)
    assert len(desk.with_nodes()['full']) == 1
    desk.lives(3)
    assert desk.sent(m.RecallJobs, 'full')


def test_a_recall_that_a_closed_cluster_left_unanswered_is_forgotten() -> None:
    desk = TwoClusters()
    desk.join('n1')
    desk.learns(OTHER, 'n1')
    desk.submit_to(OTHER, *range(2, 12))
    desk.join('n2', address='10.0.0.2')
    assert desk.sent(m.RecallJobs, 'n1')
    desk.hears(CLIENT, m.CloseComputation(OTHER))
    for node in ('n1', 'n2'):
        desk.hears(node, m.ComputationClosed(OTHER))
    desk.learns(7, 'n1')
    desk.submit(*range(20, 30))
    ours = [job for job, node in desk.core._fleet.computations[7].places.items() if node == 'n2']
    desk.ends(7, 'n2', *ours)
    assert desk.sent(m.RecallJobs, 'n1')


def test_an_idle_node_of_another_cluster_hides_no_other_idle_one() -> None:
    ours = (m.NodeSpec('10.0.0.1', 51348, 0, False), m.NodeSpec('10.0.0.2', 51348, 0, False))
    desk = TwoClusters(*ours, other=(m.NodeSpec('10.0.0.9', 51348, 0, False),))
    for number in range(20):
        desk.join(f'other {number}', address='10.0.0.9')
    desk.join('full')
    desk.learns(7, 'full')
    desk.submit(2, 3, 4, 5)
    desk.join('idle', address='10.0.0.2')
    desk.lives(5)
    assert desk.sent(m.RecallJobs, 'full')


def test_full_nodes_of_another_cluster_hide_no_other_full_one() -> None:
    desk = TwoClusters(
        m.NodeSpec('10.0.*', 51348, 0, False), other=(m.NodeSpec('10.1.*', 51348, 0, False),)
    )
    for number in range(20):
        desk.join(f'other {number}', address=f'10.1.0.{number}')
    desk.learns(OTHER, next(iter(desk.with_nodes())))
    desk.submit_to(OTHER, *range(100, 300))
    desk.join('full')
    desk.learns(7, 'full')
    desk.submit(2, 3)
    desk.join('idle', address='10.0.0.2')
    desk.lives(5)
    assert desk.sent(m.RecallJobs, 'full')


def test_where_only_some_cpus_may_be_used_jobs_go_to_those_of_other_nodes() -> None:
    desk = TwoClusters(m.NodeSpec('10.0.0.1', 51348, 1, False), m.NodeSpec('*', 51348, 0, False))
    desk.join('limited', cpus=8)
    desk.learns(7, 'limited')
    desk.join('free', cpus=8, address='10.0.0.2')
    desk.submit(*range(10, 19))
    assert desk.with_nodes() == {'limited': {7: 1}, 'free': {7: 8}}


def test_what_waits_behind_the_only_cpu_that_may_be_used_is_taken_back() -> None:
    desk = TwoClusters(m.NodeSpec('10.0.0.1', 51348, 1, False), m.NodeSpec('*', 51348, 0, False))
    desk.join('limited', cpus=8)
    desk.learns(7, 'limited')
    desk.submit(2, 3, 4)
    desk.join('free', cpus=8, address='10.0.0.2')
    assert [recall.count for recall in desk.sent(m.RecallJobs, 'limited')] == [2]


def test_jobs_that_must_run_on_a_node_do_not_hide_others_there() -> None:
    desk = TwoClusters()
    desk.join('n1')
    desk.learns(7, 'n1')
    desk.submit(2, 3, 4)
    desk.submit(10, 11, 12, node='n1')
    held = [2, 3, 4, 10, 11, 12]
    assert desk.with_nodes() == {'n1': {7: len(held)}}
    desk.join('n2', address='10.0.0.2')
    attempts = dict.fromkeys(held, 1)
    for _ in range(10):  # the node gives back from the end of its queue
        for recall in desk.sent(m.RecallJobs, 'n1'):
            back = held[max(1, len(held) - recall.count) :]
            del held[max(1, len(held) - recall.count) :]
            desk.sent(m.RunJobs)
            answer = m.JobsReturned(7, back, [attempts[job] for job in back], '')
            desk.hears('n1', answer)
            for run in desk.sent(m.RunJobs, 'n1'):
                held += run.ids
                attempts.update(zip(run.ids, run.attempts, strict=True))
        desk.lives(1)
    assert desk.with_nodes()['n2'] == {7: 1}
    assert not desk.sent(m.RecallJobs)
