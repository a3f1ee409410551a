"""Service hours: at which times of day a node takes jobs, and until when they may run.

    start ── takes jobs ──▶ stop ── those that run go on ──▶ end ── none runs ──▶ start

Times are seconds of the local day, as the clock on the wall shows them: where it is put forward or
back, the next reading of it counts, whatever came before.
"""

import re
from enum import StrEnum

from nodeserver.core.errors import UsageError
from nodeserver.core.values import value

DAY = 24 * 3600
_TIME = re.compile(r'([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?')


class Service(StrEnum):
    """What a node does for others at a time of day."""

    OPEN = 'open'
    STOPPED = 'stopped'  # it takes no more jobs
    OVER = 'over'  # and none may run


@value
class ServiceHours:
    """When a node serves, every day; from `start` to `stop` to `end`, also across midnight."""

    start: int
    stop: int  # the same as `end` where no other was given
    end: int | None  # None: jobs that run at `stop` may run for ever

    def at(self, second: float) -> Service:
        """What the node does at this second of the day."""
        since = (second - self.start) % DAY
        if since < self._after_start(self.stop):
            return Service.OPEN
        if self.end is None or since < self._after_start(self.end):
            return Service.STOPPED
        return Service.OVER

    def until_change(self, second: float) -> float:
        """Seconds from then until it does something else, if nobody sets the clock."""
        moments = [self.start, self.stop] + ([] if self.end is None else [self.end])
        return min((moment - second) % DAY or float(DAY) for moment in moments)

    def _after_start(self, moment: int) -> int:
        return (moment - self.start) % DAY

    @property
    def words(self) -> str:
        """The hours as people are told of them."""
        last = self.stop if self.end is None else self.end
        text = f'serves from {write_time(self.start)} to {write_time(last)}'
        if last != self.stop:
            text += f', and takes jobs until {write_time(self.stop)}'
        return text

    @property
    def words_of_end(self) -> str:
        """What is said of a job that was killed because its node's service ended."""
        return (
            f'its service hours ended at {write_time(self.stop if self.end is None else self.end)}'
        )


def service_hours(start: str, stop: str, end: str, now: int) -> ServiceHours | None:
    """Return the hours that these times of day mean, '' standing for one that was not given.

    `start` is `now` where it was not given; None stands for service at all times.

    Raises
    ------
    UsageError
        A start without stop or end, or times that do not follow each other in this order.
    """
    if not start and not stop and not end:
        return None
    if not stop and not end:
        raise UsageError(f'--service_start {start}: give --service_stop or --service_end too')
    begins = read_time(start) if start else now
    ends = read_time(end) if end else None
    stops = read_time(stop) if stop else read_time(end)
    hours = ServiceHours(begins, stops, ends)
    if begins in (stops, ends):
        raise UsageError(
            f'the service would stop at {write_time(begins)}, when it starts: give '
            '--service_start another time than --service_stop and --service_end'
        )
    if ends is not None and (ends - begins) % DAY < (stops - begins) % DAY:
        raise UsageError(
            f'--service_stop {stop} comes after --service_end {end} for a service that starts at '
            f'{write_time(begins)}: between start and end jobs must stop being taken'
        )
    return hours


def read_time(text: str) -> int:
    """Return the second of the day that HH:MM or HH:MM:SS means.

    Raises
    ------
    UsageError
        It is no time of day.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise UsageError(f'{text!r} is not a time of day from 00:00 to 23:59 (HH:MM or HH:MM:SS)')
    hours, minutes, seconds = found.groups(default='0')
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def write_time(second: int) -> str:
    """Write a second of the day as people say it, with seconds where there are any."""
    hours, rest = divmod(second, 3600)
    minutes, seconds = divmod(rest, 60)
    return f'{hours:02}:{minutes:02}' + (f':{seconds:02}' if seconds else '')
