"""Numbers out of provisional results: what `cluster.plot(x, y)` draws."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dispy_nb.history import Provisional
from dispy_nb.shortened import cut, value_text
from nodeserver.core.errors import UsageError

SLOW = 5.0  # seconds in a user's function, and it is named

Pick = Callable[[Any], Any]


class Point(NamedTuple):
    """One provisional result as it is drawn; `x` is None where the time is meant."""

    job: str
    x: float | None
    y: float
    at: float


class NotDrawn(Exception):  # noqa: N818 - it is told, not raised to anybody
    """A provisional result cannot be drawn, for this reason."""


class Axis:
    """How one of the two numbers is found.

    Parameters
    ----------
    name : str
        'x' or 'y'.
    given : str, int, callable or None
        Key, index, attribute, or function of a provisional result.
    """

    def __init__(self, name: str, given: Any) -> None:
        is_name = isinstance(given, str | int) and not isinstance(given, bool)
        if not (given is None or is_name or callable(given)):
            raise UsageError(
                f'{name} must be a key, an index, the name of an attribute, or a function of a '
                f'provisional result, not {given!r}'
            )
        self.name = name
        self.given = given

    @property
    def label(self) -> str:
        """What to write at the axis; '' where nothing was asked for."""
        if self.given is None:
            return ''
        if callable(self.given):
            return cut(str(getattr(self.given, '__name__', type(self.given).__name__)))
        return cut(str(self.given))

    def number(self, result: Any) -> float:
        """Find the number in a provisional result, or raise NotDrawn."""
        try:
            value = self._pick(result)
            if isinstance(value, str | bytes):
                raise NotDrawn(f'{self.name}: {value_text(value)} is no number')
            return float(value)
        except NotDrawn:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's own objects
            raise NotDrawn(f'{self.name}: {_error_text(error)}') from None

    def _pick(self, result: Any) -> Any:
        if self.given is None:
            return result
        if callable(self.given):
            return self.given(result)
        if isinstance(self.given, str) and not isinstance(result, Mapping):
            fields = getattr(getattr(result, 'dtype', None), 'names', None)
            if not fields or self.given not in fields:  # else a record of numpy
                return getattr(result, self.given)
        return result[self.given]


class Readings:
    """Points of provisional results, read once each, in a thread of its own.

    Users' classes and functions run there: should they take long, nothing else waits for them.
    """

    def __init__(self, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y
        self._read: dict[Provisional, Point | None] = {}
        self._thread: threading.Thread | None = None
        self._job = ''  # whose result is being read
        self._since = 0.0  # of time.monotonic
        self._failed = 0
        self._first_failure = ''

    def start(self, rows: Sequence[Provisional]) -> None:
        """See to it that these are read, unless the last ones still are."""
        if not self.is_busy and not self.has_all(rows):
            self._since = time.monotonic()
            self._thread = threading.Thread(target=self._run, args=[list(rows)], daemon=True)
            self._thread.name = 'dispy-plot'
            self._thread.start()

    def has_all(self, rows: Sequence[Provisional]) -> bool:
        """Whether all of these have been read."""
        return all(row in self._read for row in rows)

    def wait(self, timeout: float) -> None:
        """Wait for what is being read, but not for what has taken long already."""
        thread = self._thread
        if thread is not None and time.monotonic() - self._since < SLOW:
            thread.join(timeout)

    @property
    def is_busy(self) -> bool:
        """Whether something is being read."""
        return self._thread is not None and self._thread.is_alive()

    def points(self, rows: Sequence[Provisional]) -> dict[str, list[Point]]:
        """Return what was read of these, by job, who came first first."""
        result: dict[str, list[Point]] = {}
        for row in rows:
            point = self._read.get(row)
            if point is not None:
                result.setdefault(point.job, []).append(point)
        return result

    @property
    def note(self) -> str:
        """What could not be drawn, and who takes long, in words; '' mostly."""
        parts = []
        if self._failed:
            what = 'result is' if self._failed == 1 else 'results are'
            first = f'{self._failed} provisional {what} not drawn; the first: '
            parts.append(first + self._first_failure)
        slow = time.monotonic() - self._since
        if self.is_busy and slow >= SLOW:
            parts.append(f'the result of job {self._job} is being read for {slow:.0f} s')
        return '\n'.join(parts)

    def _run(self, rows: list[Provisional]) -> None:
        for row in rows:
            if row not in self._read:
                self._job, self._since = row.id, time.monotonic()
                self._read[row] = self._point(row)
        kept = set(rows)
        for row in [row for row in self._read if row not in kept]:
            del self._read[row]

    def _point(self, row: Provisional) -> Point | None:
        try:
            opened = row.outcome.open()
            if opened.exception is not None:
                raise NotDrawn(cut(opened.exception))
            x = None if self._x.given is None else self._x.number(opened.result)
            return Point(row.id, x, self._y.number(opened.result), row.at)
        except NotDrawn as error:
            self._failed += 1
            self._first_failure = self._first_failure or f'{error} for job {row.id}'
            return None


def _error_text(error: BaseException) -> str:
    try:
        return cut(f'{type(error).__name__} {error}'.strip())
    except Exception:  # noqa: BLE001 - its own words may fail as well
        return type(error).__name__
