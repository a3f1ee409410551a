"""What a cluster stores of its jobs, and when: before somebody relies on it, and not sooner."""

from typing import Any

import pytest

from nodeserver.core import events as e
from nodeserver.core import messages as m
from nodeserver.core.acknowledging import ACKNOWLEDGE_SECONDS
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.effects import Send, SettleJobs, SettleUnrun
from nodeserver.core.recoveryeffects import Keeping, StoreOutcomes, StoreUnrun
from nodeserver.core.status import JobStatus
from nodeserver.services.kept import Kept
from tests.support.world import declaration

CANCELLED = int(JobStatus.CANCELLED)


def cluster(keeping: Keeping) -> ClusterCore:
    core = ClusterCore('scheduler', declaration(), keeping=keeping)
    core.handle(e.JobsSubmitted('', [1, 2], [b'one', b'two']), 1.0)
    return core


def told(core: ClusterCore, message: Any) -> list[type[Any]]:
    return [type(each) for each in core.handle(e.MessageArrived('scheduler', message), 2.0)]


def letter(*ids: int) -> m.JobsDone:
    count = len(ids)
    columns = [[1] * count, [int(JobStatus.FINISHED)] * count, [b'out'] * count, [''] * count]
    return m.JobsDone(7, 'node', 1, list(ids), *columns, [0.1] * count)


def test_what_a_user_can_come_back_to_is_stored_before_he_is_told() -> None:
    core = cluster(Keeping.ALL)
    assert told(core, letter(1)) == [StoreOutcomes, SettleJobs]
    lost = m.JobsSettled(7, [2], CANCELLED, 'its node was lost')
    assert told(core, lost) == [StoreUnrun, SettleUnrun]


@pytest.mark.parametrize('keeping', [Keeping.ENDS, Keeping.JOBS])
def test_else_who_waits_comes_first_and_the_node_forgets_last(keeping: Keeping) -> None:
    core = cluster(keeping)
    assert told(core, letter(1)) == [SettleJobs]
    assert core.end_turn(2.0) == []
    effects = core.end_turn(2.0 + ACKNOWLEDGE_SECONDS)
    assert [type(each) for each in effects] == [StoreOutcomes, Send]


@pytest.mark.parametrize(
    ('keeping', 'order'),
    [(Keeping.ALL, ['commit', 'tell']), (Keeping.ENDS, ['tell']), (Keeping.NOTHING, ['tell'])],
)
def test_what_is_stored_is_committed_before_the_telling(keeping: Keeping, order: list[str]) -> None:
    seen: list[str] = []
    kept = Kept(keeping=keeping, flush=lambda: seen.append('commit'))
    tell = dict.fromkeys((SettleJobs, SettleUnrun), lambda effect: seen.append('tell'))
    kept.tell_after(tell)[SettleJobs](SettleJobs(letter(1)))
    assert seen == order


@pytest.mark.parametrize('asked', [e.CancelAsked([1, 2]), e.CloseAsked()], ids=['cancel', 'close'])
def test_jobs_that_end_while_the_scheduler_is_away_are_stored_as_ended(asked: e.Event) -> None:
    core = ClusterCore('scheduler', declaration(), is_elsewhere=True, keeping=Keeping.JOBS)
    core.handle(e.JobsSubmitted('', [1, 2], [b'one', b'two']), 1.0)
    effects = core.handle(asked, 2.0)
    ends = [each for each in effects if isinstance(each, StoreUnrun | SettleUnrun)]
    assert [(type(each), sorted(each.ids)) for each in ends] == [
        (StoreUnrun, [1, 2]),  # else whoever goes on with the cluster would run them
        (SettleUnrun, [1, 2]),
    ]
