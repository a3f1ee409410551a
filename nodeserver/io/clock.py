"""The clock on the wall."""

import time

from nodeserver.core.hours import DAY


def second_of_day() -> float:
    """Return the second of the local day, as the clock shows it: also after it was put forward."""
    now = time.time()
    shown = time.localtime(now)
    return (shown.tm_hour * 3600 + shown.tm_min * 60 + min(shown.tm_sec, 59) + now % 1) % DAY
