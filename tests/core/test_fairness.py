"""Clients of a shared scheduler have equal parts of the cpus, however much they ask for."""

from typing import Any

import pytest

from benchmarks.sharing import Hall, Load
from nodeserver.core import fleetmessages as f
from nodeserver.core import messages as m
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.fairness import Shares
from tests.support.shareddesk import SharedDesk

ANN, BOB, CARL = 'ann', 'bob', 'carl'


def desk_with(cpus: int, *clients: str, **settings: Any) -> SharedDesk:
    """A desk with a node, and a cluster of each client."""
    desk = SharedDesk(**settings)
    desk.join('n', cpus=cpus)
    for number, client in enumerate(clients, 1):
        desk.declare(client, number)
    return desk


def counted(desk: SharedDesk) -> dict[int, int]:
    """How many jobs of each cluster were handed out since the last look."""
    rows = desk.taken()
    return {number: sum(c == number for c, _ in rows) for number in {c for c, _ in rows}}


# who goes first


@pytest.mark.row('B07')
def test_free_cpus_are_given_out_in_equal_parts() -> None:
    desk = desk_with(6, ANN, BOB, CARL)
    jobs = [m.SubmitJobs(n, '', list(range(50)), [b''] * 50) for n in (1, 2, 3)]
    desk.submit_at_once(*jobs)
    assert counted(desk) == {1: 2, 2: 2, 3: 2}


def test_ten_jobs_beside_a_million_go_out_in_the_next_round() -> None:
    desk = desk_with(4, ANN, BOB)
    desk.submit(1, *range(1_000_000))
    taken = desk.taken()
    desk.submit(2, *range(10))
    assert desk.taken() == []  # no cpu is free
    round_of_ann = [('n', 1, job) for _, job in taken]
    desk.done(*round_of_ann)
    assert counted(desk) == {1: 2, 2: 2}  # as soon as there are free ones, half of them


def test_a_newcomer_gets_what_becomes_free_until_it_has_its_part() -> None:
    desk = desk_with(8, ANN, BOB)
    desk.submit(1, *range(100))
    desk.submit(2, *range(100))
    desk.taken()
    order = []
    for _ in range(10):
        job = min(desk.core._fleet.computations[1].jobs)
        desk.done(('n', 1, job), seconds=10.0)
        order += [computation for computation, _ in desk.taken()]
    assert order[:4] == [2, 2, 2, 2]
    assert desk.running() == {1: 4, 2: 4}


def test_a_free_cpu_goes_before_a_place_behind_jobs_that_were_taken_for_short() -> None:
    desk = desk_with(2, ANN, BOB)
    desk.submit(1, 1)
    desk.done(('n', 1, 1), seconds=0.001)
    desk.submit(1, 2, 3)  # they take hours, and count for little
    desk.join('o', cpus=2, address='10.0.0.2')
    desk.submit(2, 1)
    desk.given.clear()
    desk.submit(1, 4)
    assert desk.given == [('o', 1, [4])]  # at the other one it would be taken back, for ever


def test_who_did_nothing_for_long_gets_nothing_for_that() -> None:
    desk = desk_with(1, ANN, BOB)
    desk.submit(1, *range(100))
    for job in range(50):
        desk.done(('n', 1, job), seconds=10.0)
    desk.submit(2, *range(100))
    desk.taken()
    order = [1]
    for _ in range(20):
        (running,) = desk.running()
        (job,) = desk.core._fleet.computations[running].jobs
        desk.done(('n', running, job), seconds=10.0)
        order += [computation for computation, _ in desk.taken()]
    assert abs(order.count(1) - order.count(2)) <= 1


def test_with_fewer_cpus_than_clients_time_decides() -> None:
    desk = desk_with(1, ANN, BOB)
    desk.submit(1, *range(100))
    desk.submit(2, *range(100))
    used = {1: 0.0, 2: 0.0}
    for _ in range(66):
        (running,) = desk.running()
        (job,) = desk.core._fleet.computations[running].jobs
        seconds = 10.0 if running == 1 else 1.0
        used[running] += seconds
        desk.done(('n', running, job), seconds=seconds)
    assert used[1] == pytest.approx(used[2], abs=11.0)


def test_clusters_of_one_program_share_its_part() -> None:
    desk = desk_with(8, ANN, BOB)
    for number in (3, 4, 5):
        desk.declare(ANN, number)
    messages = [m.SubmitJobs(n, '', list(range(50)), [b''] * 50) for n in (1, 2, 3, 4, 5)]
    desk.submit_at_once(*messages)
    assert counted(desk) == {1: 1, 2: 4, 3: 1, 4: 1, 5: 1}


def test_priorities_order_the_jobs_of_their_own_program_only() -> None:
    desk = desk_with(2, ANN, BOB)
    desk.submit(1, *range(10), priority=1000)
    desk.submit(1, 10, priority=2000)
    desk.submit(2, *range(10))
    desk.taken()
    desk.done(('n', 1, 0), ('n', 1, 1))
    assert sorted(desk.taken()) == [(1, 10), (2, 0)]


def test_jobs_for_one_node_do_not_go_before_their_part() -> None:
    desk = desk_with(4, ANN, BOB)
    messages = [
        m.SubmitJobs(1, 'n', list(range(50)), [b''] * 50),
        m.SubmitJobs(2, '', list(range(50)), [b''] * 50),
    ]
    desk.submit_at_once(*messages)
    assert counted(desk) == {1: 2, 2: 2}


def test_jobs_with_several_cpus_count_for_as_many() -> None:
    desk = SharedDesk()
    for number in range(4):
        desk.join(f'n{number}', cpus=4, address=f'10.0.0.{number}')
    desk.declare(ANN, 1, resources=m.Resources(cpus=2))
    desk.declare(BOB, 2)
    messages = [m.SubmitJobs(n, '', list(range(50)), [b''] * 50) for n in (1, 2)]
    desk.submit_at_once(*messages)
    assert counted(desk) == {1: 4, 2: 8}


def test_who_is_taken_over_has_its_part_under_its_new_name() -> None:
    desk = desk_with(4, ANN, BOB)
    desk.submit(1, *range(100))
    desk.taken()
    desk.dies(ANN)
    desk.owners[1] = 'ann, once more'
    desk.declare('ann, once more', 1, resumes=True, epoch=1)
    desk.declare('ann, once more', 3)
    desk.submit(3, *range(100))
    desk.submit(2, *range(100))
    desk.taken()
    desk.done(('n', 1, 0), ('n', 1, 1))
    assert counted(desk) == {2: 2}  # what runs of the first cluster counts for the third


def test_it_is_noticed_when_a_client_is_ranked_by_jobs_that_it_has_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = desk_with(2, ANN, BOB)
    monkeypatch.setattr(Shares, 'changed', lambda self, comp: None)  # made on purpose
    desk.submit(1, *range(10))
    desk.submit(2, *range(10))
    with pytest.raises(InvariantBroken, match='ann'):
        desk.done(('n', 1, 0))


def test_nothing_is_kept_of_clients_that_are_gone() -> None:
    desk = desk_with(4, ANN, BOB)
    desk.submit(1, *range(10))
    desk.submit(2, *range(10))
    desk.close(1)
    desk.close(2)
    order = desk.core._dispatch._order
    kept = {name: value for name, value in vars(order).items() if value and value is not True}
    assert set(kept) <= {'_numbers', '_now', '_looked_at', '_used', '_most_held'}


# the most that one may have


def test_a_client_has_no_more_cpus_than_the_scheduler_gives_one() -> None:
    desk = desk_with(8, ANN, BOB, most_cpus=3)
    desk.submit(1, *range(100))
    assert desk.running() == {1: 3}
    desk.declare(ANN, 3)
    desk.submit(3, *range(100))
    assert desk.running() == {1: 3}  # its other cluster has no part of its own
    desk.submit(2, 1)
    assert desk.running() == {1: 3, 2: 1}
    desk.done(('n', 1, 0), seconds=0.001)
    assert sum(n for c, n in desk.running().items() if c != 2) == 3
    text = desk.explained(1)
    assert 'this scheduler gives a client at most 3 cpus at a time: jobs of this one have 3' in text


def test_a_job_that_needs_more_than_a_client_may_have_is_told_so() -> None:
    desk = SharedDesk(most_cpus=2)
    desk.join('n', cpus=8)
    desk.declare(ANN, 1, resources=m.Resources(cpus=4))
    desk.submit(1, 1, 2)
    assert desk.running() == {}
    text = desk.explained(1)
    told = 'it needs 4 cpus per job, and this scheduler gives a client at most 2 cpus'
    assert told in text
    desk.waits(3.0)
    (notice,) = (said for said in desk.said[ANN] if isinstance(said, m.Notice))
    assert told in notice.text


# what is said


def test_who_waits_is_told_who_goes_first() -> None:
    desk = desk_with(4, ANN, BOB, CARL)
    desk.submit(1, *range(1_000))
    desk.done(('n', 1, 0), seconds=7200.0)
    desk.submit(2, 1)
    desk.submit(3, *range(5))
    text = desk.explained(2)
    assert 'the cpus are shared with 2 other clients' in text
    assert (
        'ann, f1: 4 jobs on nodes, with 4 cpus, 2.0 h of cpu time in ended jobs, 995 jobs' in text
    )
    assert 'this one is next' in text
    assert '2 clients before this one' in desk.explained(1)
    assert 'before it: carl, f3: 0 jobs on nodes' in desk.explained(1)


def test_who_is_alone_hears_nothing_of_others() -> None:
    desk = desk_with(1, ANN, BOB)
    desk.submit(1, 1, 2)
    assert 'client' not in desk.explained(1)


# single nodes


@pytest.mark.row('B14')
def test_the_cpus_of_a_shared_node_stay_as_they_are() -> None:
    desk = desk_with(4, ANN, BOB)
    desk.hears(ANN, f.SetNodeCpus(1, 1, '10.0.0.1', 2))
    (answer,) = (said for said in desk.said[ANN] if isinstance(said, f.RequestAnswered))
    assert answer.value == 4
    assert 'node n (10.0.0.1) keeps its cpus' in answer.reason
    desk.submit(1, *range(10))
    assert desk.running() == {1: 4}


# over time

MIXES = {
    'lengths': [Load(4000, 0.3), Load(2000, 1.0, spread=0.5), Load(500, 4.0)],
    'very short and long': [Load(60_000, 0.005, spread=0.5), Load(1000, 2.0, spread=0.5)],
    'short, several clusters': [Load(20_000, 0.05, computations=3), Load(20_000, 0.05)],
    'several cpus': [Load(4000, 0.5, cpus=4, spread=0.5), Load(4000, 0.5, spread=0.5)],
}


@pytest.mark.parametrize('loads', MIXES.values(), ids=MIXES)
def test_cpu_time_is_shared_within_five_percent(loads: list[Load]) -> None:
    hall = Hall([8] * 4, loads)
    hall.run(10.0)
    hall.core.check()
    assert all(client.left for client in hall.clients)
    for client in hall.clients:
        assert client.share == pytest.approx(1.0, abs=0.05)
    used = sum(client.used for client in hall.clients)
    assert used > 0.97 * hall.cpus * 10.0  # and nothing is wasted for it


def test_who_may_use_one_node_only_has_it_where_others_have_all_the_rest() -> None:
    only = ('10.0.3.1',)
    loads = [Load(9000, 0.5), Load(4000, 1.0, nodes=only), Load(8000, 0.25, nodes=only)]
    hall = Hall([8] * 4, loads)
    hall.run(8.0)
    rest, one, other = hall.clients
    assert one.used == pytest.approx(other.used, rel=0.1)
    assert one.used + other.used == pytest.approx(8 * 8.0, rel=0.05)
    assert rest.used == pytest.approx(24 * 8.0, rel=0.05)


def test_a_client_never_runs_on_more_cpus_than_it_may_have() -> None:
    hall = Hall([8] * 2, [Load(20_000, 0.005), Load(200, 1.0)], most_cpus=5)
    hall.run(2.0)
    assert max(hall.most_running.values()) <= 5
