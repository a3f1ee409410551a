"""How far ahead jobs are handed out, by what the last ones took."""

from math import inf

from nodeserver.core.pace import MOST_PER_CPU, MOST_PER_WORKER, Pace


def paced(*reports: list[float]) -> Pace:
    pace = Pace()
    for seconds in reports:
        pace.learn(seconds)
    return pace


def test_one_job_at_a_time_while_nothing_is_known() -> None:
    assert Pace().jobs_per_cpu() == Pace().jobs_per_worker() == 1
    assert paced([]).jobs_per_cpu() == 1


def test_tiny_jobs_are_handed_out_by_the_hundred() -> None:
    pace = paced([1e-5] * 30)
    assert pace.jobs_per_cpu() > 500
    assert pace.jobs_per_worker() > 300
    assert paced([1e-9] * 30).jobs_per_cpu() == MOST_PER_CPU
    assert paced([1e-9] * 30).jobs_per_worker() == MOST_PER_WORKER


def test_short_jobs_have_one_behind_them() -> None:
    pace = paced([0.005], [0.005])
    assert pace.jobs_per_cpu() == 3
    assert pace.jobs_per_worker() == 2


def test_long_jobs_have_none_behind_them() -> None:
    pace = paced([0.5], [0.5])
    assert pace.jobs_per_cpu() == pace.jobs_per_worker() == 1


def test_one_tiny_job_that_waited_for_a_cpu_does_not_empty_the_queues() -> None:
    pace = paced([1e-5] * 30)
    pace.learn([1e-5] * 15 + [0.01] + [1e-5] * 15)
    assert pace.jobs_per_cpu() > 200
    assert pace.jobs_per_worker() > 300
    pace.learn([0.01])  # alone in its report it counts, but not for long
    for _ in range(20):
        pace.learn([1e-5] * 30)
    assert pace.jobs_per_cpu() > 100


def test_a_long_job_among_short_ones_keeps_others_from_waiting_behind_it() -> None:
    reports = [[0.001]] * 9 + [[0.5]] + [[0.001]] * 2
    assert paced(*reports).jobs_per_cpu() == 1


def test_nonsense_that_processes_report_adds_up_to_a_finite_time() -> None:
    assert paced([1e308], [1e308, 1e308, 1e308]).used_seconds < inf
