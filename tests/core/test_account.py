"""What a client's short jobs use of their cpus is found from what they have used."""

import pytest

from nodeserver.core.account import LOOK_INTERVAL, Meter

EXPECTED = 0.5  # of a cpu, by jobs of which a node may hold two for each


def seen(meter: Meter, looks: int, busy: float, cpus: int = 13, used: float = 0.0) -> float:
    """Have a meter look so many times at jobs that keep their cpus busy so far."""
    for look in range(1, looks + 1):
        used += busy * cpus * LOOK_INTERVAL
        meter.look(look * LOOK_INTERVAL, cpus, used, EXPECTED)
    return meter.busy


@pytest.mark.row('B07')
@pytest.mark.parametrize('busy', [0.4, 0.65, 0.9])
def test_what_jobs_are_expected_to_use_does_not_count_for_ever(busy: float) -> None:
    assert seen(Meter(0.0, 0.0), 80, busy) == pytest.approx(busy, abs=0.005)


def test_jobs_of_which_none_has_ended_are_not_taken_for_idle() -> None:
    meter = Meter(0.0, 0.0)
    assert seen(meter, 8, 0.0) == 0.0  # not known
    meter.look(2.25, 13, 13 * LOOK_INTERVAL, EXPECTED)
    assert meter.busy >= EXPECTED
