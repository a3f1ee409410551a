"""What jobs need beside one cpu: how schedulers place such jobs, and that none waits for ever."""

from dataclasses import replace

import pytest

from nodeserver.core import messages as m
from nodeserver.core.demands import capacity, describe_memory, misfit
from nodeserver.core.events import NodeFound, PeerConnected
from nodeserver.core.messages import ONE_CPU, Resources
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration

GIB = 1 << 30
OTHER = 8


class NeedyDesk(Desk):
    """A scheduler with one computation (7) that has needs, and often another one (8)."""

    def __init__(self, needs: Resources, other: Resources | None = None) -> None:
        super().__init__(resources=needs)
        self.needs = {7: needs}
        if other is not None:
            self.needs[OTHER] = other
            declared = replace(declaration(resources=other), computation=OTHER)
            self.hears(CLIENT, declared)
        self.running: list[tuple[str, int, int, int]] = []  # node, computation, job, attempt
        self.where: dict[tuple[int, int], str] = {}

    def meet(self, node: str, cpus: int, gpus: int = 0, memory: int = 16 * GIB) -> None:
        """A node comes that has more than cpus."""
        address = f'10.0.0.{len(self.core._fleet.nodes) + 1}'
        self.tell(NodeFound(node, address, 51348, ''))
        self.tell(PeerConnected(node, address))
        self.hears(node, m.NodeDetails(node, cpus, 'Linux', '3.11', None, memory, gpus))
        for opened in self.sent(m.OpenComputation, node):
            self.hears(node, m.ComputationReady(opened.computation))

    def submit_to(self, computation: int, *ids: int, node: str = '') -> None:
        """Jobs of one of them come from the client."""
        self.hears(CLIENT, m.SubmitJobs(computation, node, list(ids), [b'x'] * len(ids)))

    def with_nodes(self) -> dict[str, dict[int, int]]:
        """How many jobs of which computation are where."""
        return {n.id: dict(n.loads) for n in self.core._fleet.nodes.values() if n.loads}

    def ends(self, computation: int, node: str, seconds: float = 1.0) -> None:
        """The first job of a computation on a node ends."""
        comp = self.core._fleet.computations[computation]
        job = comp.on_node(node)[0]
        columns = ([11], [b'o'], [''], [seconds])
        self.hears(node, m.JobsDone(computation, node, 1, [job], [1], *columns))


@pytest.mark.parametrize(
    ('needs', 'jobs'),
    [
        (ONE_CPU, 5),
        (Resources(cpus=2), 2),
        (Resources(memory=6 * GIB), 2),
        (Resources(gpus=1), 3),
        (Resources(gpus=2), 1),
        (Resources(cpus=5, memory=16 * GIB, gpus=3), 1),
    ],
)
def test_a_node_gets_as_many_jobs_as_it_has_room_for(needs: Resources, jobs: int) -> None:
    desk = NeedyDesk(needs)
    desk.meet('n', cpus=5, gpus=3)
    desk.submit(*range(1, 20))
    assert desk.with_nodes() == {'n': {7: jobs}}
    desk.ends(7, 'n')
    assert desk.with_nodes() == {'n': {7: jobs}}


def test_a_limit_of_cpus_holds_for_jobs_of_several() -> None:
    desk = Desk(resources=Resources(cpus=2), specs=[m.NodeSpec('*', 51348, 5, False)])
    desk.join('n', cpus=8)
    desk.submit(*range(1, 20))
    assert desk.core._fleet.nodes['n'].load == 4


@pytest.mark.parametrize('first', [7, OTHER])
def test_clusters_on_one_node_never_have_more_cpus_than_it_has(first: int) -> None:
    desk = NeedyDesk(Resources(cpus=3), ONE_CPU)
    desk.meet('n', cpus=5)
    desk.submit_to(first, *range(1, 20))
    desk.submit_to(7 + OTHER - first, *range(1, 20))
    node = desk.core._fleet.nodes['n']
    assert node.load == 5


@pytest.mark.parametrize('needs', [Resources(memory=10 * GIB), Resources(gpus=2)])
def test_what_one_cluster_has_is_not_there_for_another(needs: Resources) -> None:
    desk = NeedyDesk(needs, needs)
    desk.meet('n', cpus=8, gpus=3)
    desk.submit_to(7, 1)
    desk.submit_to(OTHER, 1)
    assert desk.with_nodes() == {'n': {7: 1}}
    desk.ends(7, 'n')
    assert desk.with_nodes() == {'n': {OTHER: 1}}


# where no job fits


@pytest.mark.parametrize(
    ('needs', 'words'),
    [
        (Resources(cpus=4), 'not used: needs 4 cpus per job, the node gives it 2'),
        (Resources(gpus=2), 'not used: needs 2 gpus per job, the node has 1'),
        (Resources(memory=64 * GIB), 'not used: needs 64 GiB per job, the node has 16 GiB'),
    ],
)
def test_a_node_without_room_for_one_job_is_not_used_and_says_why(
    needs: Resources, words: str
) -> None:
    desk = NeedyDesk(needs)
    desk.meet('n', cpus=2, gpus=1)
    desk.submit(1)
    assert not desk.with_nodes()
    assert words in desk.explained()
    desk.waits(2.0)
    (notice,) = desk.sent(m.Notice)
    assert words in notice.text


def test_what_a_node_does_not_tell_is_not_believed_to_be_there() -> None:
    desk = Desk(resources=Resources(memory=1, gpus=1))
    desk.join('n')
    text = desk.explained()
    assert 'needs 1 gpu per job, the node has none; needs 0 kiB' in text
    assert 'the node does not tell its' in text


def test_jobs_that_wait_for_room_are_told_of() -> None:
    desk = NeedyDesk(Resources(gpus=1), ONE_CPU)
    desk.meet('n', cpus=4, gpus=1)
    desk.submit_to(OTHER, 1)
    desk.submit(1, 2)
    text = desk.explained()
    assert 'compute: 1 job waiting, 1 on nodes; no room for one more on 1 usable node' in text
    assert 'full: 1 job of at most 1 at a time, 1 job of other computations' in text


# nobody waits for ever


def busy_with_small_ones(needs: Resources, small: Resources = ONE_CPU) -> NeedyDesk:
    """A node that small jobs keep full, one ending after the other, and a job that needs more."""
    desk = NeedyDesk(needs, small)
    desk.meet('n', cpus=4, gpus=2)
    desk.submit_to(OTHER, *range(1, 1000))
    return desk


@pytest.mark.parametrize('node', ['', '10.0.0.1'])
@pytest.mark.parametrize(
    ('needs', 'small'),
    [
        (Resources(cpus=4), ONE_CPU),
        (Resources(cpus=2), ONE_CPU),
        (Resources(memory=16 * GIB), Resources(memory=4 * GIB)),
        (Resources(gpus=2), Resources(gpus=1)),
    ],
)
def test_a_job_with_needs_does_not_wait_for_ever_behind_small_ones(
    needs: Resources, small: Resources, node: str
) -> None:
    desk = busy_with_small_ones(needs, small)
    desk.submit_to(7, 1, 2, node=node)
    ended = 0
    while 7 not in desk.with_nodes()['n']:
        desk.now += 0.3
        desk.ends(OTHER, 'n', seconds=1.2)
        ended += 1
        assert ended < 10
    record = desk.core._fleet.nodes['n']
    while record.free_for(7) < 0:  # it is there, and waits: no small one comes after it
        desk.ends(OTHER, 'n', seconds=1.2)
        ended += 1
        assert ended < 20
    desk.ends(7, 'n')
    assert desk.with_nodes()['n'][OTHER] >= 1  # and small ones have their turn


def test_only_one_job_at_a_time_is_given_to_a_node_without_room() -> None:
    desk = busy_with_small_ones(Resources(cpus=4))
    desk.submit_to(7, *range(1, 9))
    for _ in range(8):
        desk.waits(1.0)
        desk.submit_to(OTHER, int(desk.now * 1000))
    assert desk.with_nodes() == {'n': {OTHER: 4, 7: 1}}


def test_a_job_that_waits_behind_small_ones_goes_to_a_node_that_comes() -> None:
    desk = NeedyDesk(Resources(cpus=4), ONE_CPU)
    desk.meet('n', cpus=4)
    desk.submit_to(OTHER, 1, 2, 3, 4)
    desk.submit_to(7, 1)
    desk.waits(1.5)
    assert desk.with_nodes() == {'n': {OTHER: 4, 7: 1}}
    desk.meet('m', cpus=4)
    (asked,) = (a for a in desk.sent(m.RecallJobs, 'n') if a.computation == 7)
    assert asked.count == 1
    desk.hears('n', m.JobsReturned(7, [1], [1], ''))
    assert desk.with_nodes() == {'n': {OTHER: 4}, 'm': {7: 1}}


# figures and words


@pytest.mark.parametrize(
    ('needs', 'count'),
    [(Resources(3), 2), (Resources(1, 3), 3), (Resources(1, 0, 2), 2), (Resources(4, 5, 5), 1)],
)
def test_capacity_is_what_the_scarcest_allows(needs: Resources, count: int) -> None:
    assert capacity(needs, 8, 10, 5) == count


def test_needs_that_no_program_of_ours_sends_are_refused() -> None:
    for wrong in (Resources(cpus=0), Resources(memory=-1), Resources(gpus=-1)):
        assert misfit(wrong, 8, 8, 8) == 'asks for less than nothing'


@pytest.mark.parametrize(
    ('count', 'text'),
    [(1 << 30, '1 GiB'), (1536 << 20, '1.5 GiB'), (512 << 20, '512 MiB'), (1 << 50, '1024 TiB')],
)
def test_memory_is_told_as_people_count_it(count: int, text: str) -> None:
    assert describe_memory(count) == text
