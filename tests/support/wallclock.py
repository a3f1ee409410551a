"""A time zone in which it is any time of day now: what else could wait for 17:00 in a test?"""

import time

_DAY = 24 * 3600


def zone_where_it_is(text: str, later: float = 0.0) -> dict[str, str]:
    """Answer an environment whose local time will be HH:MM:SS in so many seconds."""
    hours, minutes, seconds = map(int, text.split(':'))
    wanted = hours * 3600 + minutes * 60 + seconds - later
    west = round(time.time() - wanted) % _DAY  # of Greenwich, by which POSIX counts
    hours, rest = divmod(west, 3600)
    return {'TZ': f'XXX+{hours:02}:{rest // 60:02}:{rest % 60:02}'}
