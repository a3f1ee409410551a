"""Service hours: what a node does at which time of day, and which times make sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.core.errors import UsageError
from nodeserver.core.hours import DAY, Service, ServiceHours, read_time, service_hours, write_time

NOON = 12 * 3600


def hours(start: str = '', stop: str = '', end: str = '', now: str = '12:00') -> ServiceHours:
    found = service_hours(start, stop, end, read_time(now))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ('times', 'expected'),
    [
        (
            ('17:00', '06:00', '08:00'),  # as the manual has it
            {
                '16:59:59': Service.OVER,
                '17:00': Service.OPEN,
                '00:00': Service.OPEN,
                '05:59:59': Service.OPEN,
                '06:00': Service.STOPPED,
                '07:59:59': Service.STOPPED,
                '08:00': Service.OVER,
            },
        ),
        (
            ('17:00', '', '08:00'),
            {'07:59:59': Service.OPEN, '08:00': Service.OVER, '17:00': Service.OPEN},
        ),
        (
            ('09:00', '17:00', ''),  # jobs that run at 17:00 may run for ever
            {'08:59:59': Service.STOPPED, '09:00': Service.OPEN, '17:00': Service.STOPPED},
        ),
        (
            ('', '', '13:30'),  # from now on
            {'12:00': Service.OPEN, '13:30': Service.OVER, '11:59:59': Service.OVER},
        ),
    ],
)
def test_what_a_node_does_at_a_time_of_day(
    times: tuple[str, str, str], expected: dict[str, Service]
) -> None:
    when = hours(*times)
    assert {time: when.at(read_time(time)) for time in expected} == expected


def test_people_are_told_from_when_to_when() -> None:
    assert hours('17:00', '', '08:00').words == 'serves from 17:00 to 08:00'
    assert hours('9:00', '17:00').words == 'serves from 09:00 to 17:00'
    assert (
        hours('17:00', '06:00', '08:00').words
        == 'serves from 17:00 to 08:00, and takes jobs until 06:00'
    )
    assert hours('17:00', '06:00', '08:00').words_of_end == 'its service hours ended at 08:00'
    assert hours(end='13:30').words == 'serves from 12:00 to 13:30'


def test_a_node_without_hours_serves_at_all_times() -> None:
    assert service_hours('', '', '', NOON) is None


@pytest.mark.parametrize(
    ('times', 'says'),
    [
        (('17:00', '', ''), '--service_start 17:00: give --service_stop or --service_end too'),
        (('17:00', '', '17:00'), 'would stop at 17:00, when it starts'),
        (('', '12:00', ''), 'would stop at 12:00, when it starts'),
        (('17:00', '09:00', '08:00'), '--service_stop 09:00 comes after --service_end 08:00'),
        (('08:00', '18:00', '17:00'), '--service_stop 18:00 comes after --service_end 17:00'),
    ],
)
def test_times_that_make_no_sense_are_refused(times: tuple[str, str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace('.', r'\.')):
        service_hours(*times, now=NOON)


@pytest.mark.parametrize('text', ['', '8', '24:00', '12:60', '12:00:60', '-1:00', '5 pm', '1234'])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match='is not a time of day from 00:00 to 23:59'):
        read_time(text)


seconds_of_day = st.integers(0, DAY - 1)


@given(seconds_of_day)
def test_times_are_read_as_they_are_written(second: int) -> None:
    assert read_time(write_time(second)) == second


@given(seconds_of_day, st.integers(1, DAY - 1), st.integers(0, DAY - 1), seconds_of_day)
def test_whoever_wakes_at_the_next_change_misses_none(
    start: int, to_stop: int, to_end: int, second: int
) -> None:
    """Also across midnight: between two changes the service is what it was."""
    after = min(to_stop + to_end, DAY - 1)
    when = ServiceHours(start, (start + to_stop) % DAY, (start + after) % DAY)
    pause = when.until_change(second)
    assert 0 < pause <= DAY
    assert when.at((second + pause - 0.5) % DAY) is when.at(second)
    later = (second + pause / 2) % DAY
    assert when.at(later) is when.at(second)
    assert when.until_change(later) == pytest.approx(pause / 2)
