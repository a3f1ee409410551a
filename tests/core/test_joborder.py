"""Jobs with options, as the scheduler's core sees them: which go first, and which go again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.core import messages as m
from nodeserver.core.events import DeadlinePassed, PeerLost
from nodeserver.core.jobqueue import JobQueue
from nodeserver.core.status import JobStatus
from tests.support.desk import CLIENT, Desk

LOST = 'node a (10.0.0.1) was lost: its port refuses'


class Counter(Desk):
    """A desk that takes jobs with options, and is told of failures."""

    def wish(self, *ids: int, node: str = '', **options: float) -> None:
        """Jobs come with options."""
        values = m.JobOptions(**options)  # type: ignore[arg-type]
        self.hears(CLIENT, m.SubmitJobs(7, node, list(ids), [b'x'] * len(ids), values))

    def failed(self, job: int, attempt: int, reason: str = '', node: str = 'a') -> None:
        """A node reports that a job has failed."""
        columns = ([JobStatus.TERMINATED], [b'out'], [reason], [1.0])
        self.hears(node, m.JobsDone(7, node, attempt, [job], [attempt], *columns))

    def order(self, count: int) -> list[int]:
        """Have the node of one cpu run so many jobs; the order in which it was given them."""
        order = []
        for _ in range(count):
            ((job,),) = (run.ids for run in self.sent(m.RunJobs))
            order.append(job)
            self.done('a', job)
        return order

    def attempts(self) -> list[tuple[list[int], list[int]]]:
        """What was handed out since the last look."""
        return [(run.ids, run.attempts) for run in self.sent(m.RunJobs)]


def counter(**changes: bool) -> Counter:
    """A desk with one node of one cpu."""
    desk = Counter(**changes)
    desk.join('a', cpus=1)
    return desk


# priority


def test_jobs_of_a_higher_priority_go_first_and_equals_as_they_came() -> None:
    desk = counter()
    desk.submit(1, 2, 3)
    desk.wish(4, 5, priority=-1)
    desk.wish(6, 7, priority=3)
    desk.wish(8, priority=10)
    desk.wish(9, priority=3)
    desk.submit(10)
    assert desk.order(10) == [1, 8, 6, 7, 9, 2, 3, 10, 4, 5]


def test_a_priority_that_was_used_up_can_come_again() -> None:
    desk = counter()
    desk.wish(1, 2, priority=5)
    assert desk.order(2) == [1, 2]
    desk.submit(3, 4)
    desk.wish(5, priority=5)
    assert desk.order(3) == [3, 5, 4]


@pytest.mark.parametrize('name', ['a', '10.0.0.1'])
def test_jobs_for_one_node_keep_to_the_priorities_too(name: str) -> None:
    desk = counter()
    desk.submit(1)
    desk.wish(2, 3, node=name)
    desk.wish(4, priority=1)
    desk.wish(5, node=name, priority=2)
    desk.wish(6, node=name, priority=-1)
    desk.submit(7)
    assert desk.order(7) == [1, 5, 4, 2, 3, 7, 6]


def test_jobs_for_one_node_under_two_names_keep_to_the_priorities() -> None:
    desk = counter()
    desk.submit(1)
    desk.wish(2, node='a', priority=1)
    desk.wish(3, node='10.0.0.1', priority=2)
    assert desk.order(3) == [1, 3, 2]


def test_an_urgent_job_for_any_node_does_not_keep_others_from_nodes_that_it_leaves_free() -> None:
    desk = counter()
    desk.submit(1, 2)
    desk.wish(3, priority=9)
    desk.wish(4, node='10.0.0.2')
    desk.sent(m.RunJobs)
    desk.join('b', cpus=2, address='10.0.0.2')
    assert sorted(job for run in desk.sent(m.RunJobs, 'b') for job in run.ids) == [3, 4]


def test_a_job_that_lost_its_node_is_ahead_of_its_equals_and_behind_more_urgent_ones() -> None:
    desk = counter(reentrant=True)
    desk.submit(1, 2)
    desk.sent(m.RunJobs)
    desk.wish(3, priority=1)
    desk.tell(PeerLost('a', 'its port refuses'))
    desk.join('a', cpus=1)
    assert desk.attempts() == [([3], [1])]
    desk.done('a', 3)
    assert desk.attempts() == [([1], [2])]


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.booleans())))
def test_a_queue_answers_as_a_sorted_list_would(
    steps: list[tuple[int, bool, bool]],
) -> None:
    queue, model = JobQueue(), list[tuple[int, int]]()
    waiting = set[int]()
    for job, (priority, first, take) in enumerate(steps):
        waiting.add(job)
        if first:
            queue.put_first(job, priority)
            at = next((i for i, (p, _) in enumerate(model) if p <= priority), len(model))
        else:
            queue.extend([job], priority)
            at = next((i for i, (p, _) in enumerate(model) if p < priority), len(model))
        model.insert(at, (priority, job))
        if take:
            assert queue.head(waiting) == model[0][1]
            assert queue.priority == model[0][0]
            queue.line.popleft()
            waiting.discard(model.pop(0)[1])
        elif job % 3 == 0:  # cancelled
            waiting.discard(job)
            model.remove((priority, job))
    left = []
    while (head := queue.head(waiting)) is not None:
        queue.line.popleft()
        left.append(head)
    assert left == [job for _, job in model]


# retries


@pytest.mark.parametrize('reason', ['', 'its process crashed: segmentation fault (SIGSEGV)'])
def test_a_failed_job_is_run_again_as_often_as_was_wished(reason: str) -> None:
    desk = counter()
    desk.wish(1, retries=2)
    for attempt in (1, 2):
        assert desk.attempts() == [([1], [attempt])]
        desk.failed(1, attempt, reason)
        assert desk.sent(m.JobsRetried) == [m.JobsRetried(7, [1], [b'out'], [reason])]
        assert desk.sent(m.AcknowledgeOutcomes, 'a') == [m.AcknowledgeOutcomes(7, 'a', [attempt])]
        assert not desk.sent(m.JobsDone, CLIENT)
    assert desk.attempts() == [([1], [3])]
    desk.failed(1, 3, reason)
    (letter,) = desk.sent(m.JobsDone, CLIENT)
    assert (letter.attempts, letter.statuses) == ([3], [JobStatus.TERMINATED])
    assert not desk.sent(m.JobsRetried)
    assert not desk.attempts()


def test_a_retry_that_succeeds_settles_the_job() -> None:
    desk = counter()
    desk.wish(1, retries=5)
    desk.failed(1, 1)
    desk.done('a', 1, attempt=2)
    assert desk.sent(m.JobsDone, CLIENT)[0].statuses == [JobStatus.FINISHED]
    assert 'compute: 0 jobs waiting, 0 on nodes' in desk.explained()


def test_of_a_letter_only_the_failed_jobs_with_retries_left_are_kept_back() -> None:
    desk = Counter()
    desk.join('a', cpus=4)
    desk.wish(1, 2, retries=1)
    desk.submit(3, 4)
    desk.sent(m.RunJobs)
    statuses = [int(s) for s in (JobStatus.TERMINATED, JobStatus.FINISHED)] * 2
    texts = ['died', '', 'died too', '']
    outs = [b'1', b'2', b'3', b'4']
    done = m.JobsDone(7, 'a', 9, [1, 2, 3, 4], [1] * 4, statuses, outs, texts, [0.1] * 4)
    desk.hears('a', done)
    assert desk.sent(m.JobsRetried) == [m.JobsRetried(7, [1], [b'1'], ['died'])]
    (letter,) = desk.sent(m.JobsDone, CLIENT)
    assert (letter.letter, letter.ids, letter.outcomes) == (9, [2, 3, 4], [b'2', b'3', b'4'])
    assert not desk.sent(m.AcknowledgeOutcomes, 'a')  # the client's to say
    assert desk.attempts() == [([1], [2])]


def test_a_late_answer_of_an_earlier_attempt_uses_no_retry() -> None:
    desk = counter()
    desk.wish(1, retries=1)
    desk.failed(1, 1)
    desk.failed(1, 1)
    assert desk.attempts() == [([1], [1]), ([1], [2])]
    desk.hears('a', m.JobsProvisional(7, 'a', [1], [1], [b'late']))
    assert not desk.sent(m.JobsProvisional, CLIENT)


def test_a_cancelled_job_is_not_run_again() -> None:
    desk = counter()
    desk.wish(1, retries=3)
    desk.hears(CLIENT, m.CancelJobs(7, [1]))
    desk.failed(1, 1)
    assert desk.sent(m.JobsDone, CLIENT)
    assert desk.attempts() == [([1], [1])]


def test_a_job_that_waits_to_be_run_again_can_be_cancelled() -> None:
    desk = counter()
    desk.wish(1, retries=3)
    desk.submit(2)
    desk.wish(3, priority=1)
    desk.failed(1, 1)
    desk.hears(CLIENT, m.CancelJobs(7, [1, 2]))
    settled = [(s.ids, s.reason) for s in desk.sent(m.JobsSettled, CLIENT)]
    assert settled == [
        ([1], 'cancelled while it waited to be run again'),
        ([2], 'cancelled before it started'),
    ]


def test_a_lost_node_uses_a_retry_and_the_end_tells_of_all() -> None:
    desk = counter()
    desk.wish(1, retries=2)
    desk.failed(1, 1)
    desk.sent(m.JobsRetried)
    desk.tell(PeerLost('a', 'its port refuses'))
    assert desk.sent(m.JobsRetried) == [m.JobsRetried(7, [1], [b''], [LOST])]
    desk.join('a', cpus=1)
    desk.tell(PeerLost('a', 'its port refuses'))
    (settled,) = desk.sent(m.JobsSettled)
    assert settled.status == JobStatus.CANCELLED
    assert settled.reason == f'failed 3 times; last: {LOST}'


def test_a_job_cancelled_while_it_ran_is_not_said_never_to_have_begun() -> None:
    desk = counter(reentrant=True)
    desk.submit(1)
    desk.hears(CLIENT, m.CancelJobs(7, [1]))
    desk.tell(PeerLost('a', 'its port refuses'))
    assert [settled.reason for settled in desk.sent(m.JobsSettled)] == ['cancelled']


def test_a_reentrant_job_goes_elsewhere_without_using_a_retry() -> None:
    desk = counter(reentrant=True)
    desk.wish(1, retries=1)
    for _ in range(5):
        desk.tell(PeerLost('a', 'its port refuses'))
        desk.join('a', cpus=1)
    desk.failed(1, 6)
    assert desk.attempts()[-1] == ([1], [7])
    desk.failed(1, 7)
    assert desk.sent(m.JobsDone, CLIENT)[0].attempts == [7]


def test_a_job_that_came_back_unrun_has_used_no_retry() -> None:
    desk = counter()
    desk.wish(1, retries=1)
    desk.hears('a', m.JobsReturned(7, [1], [1], 'another node is idle'))
    assert desk.sent(m.JobsRequeued) == [m.JobsRequeued(7, [1], 'another node is idle')]
    desk.failed(1, 2)
    assert desk.attempts()[-1] == ([1], [3])


def test_a_retry_is_ahead_of_what_was_never_tried() -> None:
    desk = counter()
    desk.wish(1, retries=1)
    desk.submit(2, 3)
    desk.failed(1, 1)
    assert desk.attempts() == [([1], [1]), ([1], [2])]


def test_a_closed_cluster_retries_nothing() -> None:
    desk = counter()
    desk.wish(1, retries=9)
    desk.hears(CLIENT, m.CloseComputation(7))
    desk.failed(1, 1)
    desk.tell(DeadlinePassed())
    assert desk.attempts() == [([1], [1])]


# timeouts


def test_timeouts_go_along_only_where_a_job_of_the_batch_has_one() -> None:
    desk = counter()
    desk.submit(1)
    desk.wish(2, timeout=2.5)
    desk.submit(3)
    for job in (1, 2, 3):
        desk.done('a', job)
    assert [run.timeouts for run in desk.sent(m.RunJobs)] == [[], [2.5], []]
    desk.tell(PeerLost('a', 'its port refuses'))
    desk.submit(4)
    desk.wish(5, timeout=2.5)
    desk.join('b', cpus=2)
    (run,) = desk.sent(m.RunJobs)
    assert (run.ids, run.timeouts) == ([4, 5], [0.0, 2.5])
