"""Charts as a picture: what stays of them in the saved notebook, and where there are no widgets.

An image in the text of a page is all that notebooks which are not trusted, and exports, let pass.
It has a ground of its own, so that it can be read whatever the page looks like.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, isfinite, log10

from dispy_nb.notebook.charts.looks import GREEN, STATUS_COLORS
from dispy_nb.progress import clock_text
from dispy_nb.shortened import cut

WIDTH = 700  # about that of a cell beside a file browser: what is written keeps its size there
_MOST_WIDTH = 800  # on the screen
MOST_LINE_POINTS = 100  # of a line; more cannot be told apart
_PANEL, _PLOT, _ROW = 120, 260, 16  # heights of what is drawn in
_LEFT, _TOP, _BOTTOM, _SPACE = 52, 24, 20, 10
_NAMES = 130  # width of the names of nodes
_INK, _FAINT, _GROUND = '#212121', '#dddddd', '#ffffff'
_FONT = 'font-family="sans-serif" font-size="11"'
_HATCHES = {'failed': 'M0 0L6 6M6 0L0 6', 'cancelled': 'M0 6L6 0', 'running': 'M2 3h2'}
_LETTER = 6.2  # width of one, about

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One line; an empty place in it is a `nan`."""

    name: str
    color: str
    dash: tuple[int, ...]
    xs: Sequence[float]
    ys: Sequence[float]
    has_marks: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: Sequence[Line]
    xs: tuple[float, float]
    ys: tuple[float, float]
    is_clock: bool = True  # whether x is seconds, to be written as m:ss
    labels: tuple[str, str] = ('', '')


BUSY = 'busy'  # in place of a job's status: the node had jobs, whichever


@dataclass(frozen=True, slots=True)
class Bar:
    """One job; from a moment to another one, from a height to another one, as in the chart."""

    left: float
    right: float
    bottom: float
    top: float
    status: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Jobs by node; the rows from the bottom up."""

    title: str
    rows: Sequence[str]
    bars: Sequence[Bar]
    xs: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is drawn, and the ends of its axes."""

    left: float
    top: float
    width: float
    height: float
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        """Place a value on the horizontal axis."""
        first, last = self.xs
        share = (value - first) / (last - first) if last > first else 0.5
        return self.left + self.width * min(max(share, 0.0), 1.0)

    def y(self, value: float) -> float:
        """Place a value on the vertical axis."""
        first, last = self.ys
        share = (value - first) / (last - first) if last > first else 0.5
        return self.top + self.height * (1 - min(max(share, 0.0), 1.0))


def image(drawn: str, words: str) -> str:
    """Put a picture into HTML that survives wherever a notebook is shown."""
    data = base64.b64encode(drawn.encode('utf-8')).decode('ascii')
    return (
        f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(words)}" '
        f'style="width:100%;max-width:{_MOST_WIDTH}px">'
    )


def svg(panels: Sequence[Panel], timeline: Timeline | None = None, has_legend: bool = True) -> str:
    """Draw panels side by side, or one alone, their legend, and the timeline below."""
    parts: list[str] = []
    columns = 2 if len(panels) > 1 else 1
    inner = _PANEL if columns == 2 else _PLOT
    outer, top = (WIDTH - _SPACE) / columns, 0.0
    for number, panel in enumerate(panels):
        left = _SPACE + (number % columns) * outer
        place = Place(left + _LEFT, top + _TOP, outer - _LEFT - _SPACE, inner, panel.xs, panel.ys)
        parts += _panel(panel, place)
        if number % columns == columns - 1 or number == len(panels) - 1:
            top += _TOP + inner + _BOTTOM + (14 if any(panel.labels) else 0)
    legend, top = _legend(panels[0].lines if has_legend else (), top + 4)
    parts += legend
    if timeline is not None:
        drawn, top = _timeline(timeline, top)
        parts += drawn
    height = round(top + _SPACE)
    ground = f'<rect width="{WIDTH}" height="{height}" rx="4" fill="{_GROUND}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" {_FONT} fill="{_INK}">{ground}{"".join(parts)}</svg>'
    )


def _panel(panel: Panel, place: Place) -> Iterator[str]:
    yield _text(place.left, place.top - 8, panel.title, 'font-weight="bold"')
    yield _frame(place)
    for value in ticks(*panel.ys, most=4):
        yield _across(place, place.y(value))
        yield _text(place.left - 4, place.y(value) + 4, number_text(value), 'text-anchor="end"')
    yield from _times(place, clock_text if panel.is_clock else number_text)
    below, beside = panel.labels
    bottom = place.top + place.height
    if below:
        yield _text(place.left + place.width / 2, bottom + 28, below, 'text-anchor="middle"')
    if beside:
        yield _text(place.left + place.width, place.top - 8, beside, 'text-anchor="end"')
    for line in panel.lines:
        yield from _line(line, place)


def _line(line: Line, place: Place) -> Iterator[str]:
    for part in _unbroken(line, place):
        places = [(round(x), round(y)) for x, y in part]
        steps = ''.join(f'l{x - w} {y - v}' for (w, v), (x, y) in pairwise(places))
        dash = ' '.join(map(str, line.dash))
        style = f'fill="none" stroke="{line.color}" stroke-width="2"'
        if len(part) == 1 or line.has_marks:
            dots = ''.join(f'M{x} {y}h0' for x, y in places)
            round_ = f'stroke="{line.color}" stroke-width="5" stroke-linecap="round"'
            yield f'<path d="{dots}" {round_}/>'
        if len(part) > 1:
            path = f'M{places[0][0]} {places[0][1]}{steps}'
            yield f'<path d="{path}" {style} stroke-dasharray="{dash}"/>'


def _unbroken(line: Line, place: Place) -> Iterator[list[Point]]:
    """Yield what is drawn in one stroke, as places on the picture."""
    each = max(1, -(-len(line.xs) // MOST_LINE_POINTS))
    last = len(line.xs) - 1
    part: list[Point] = []
    for number, (x, y) in enumerate(zip(line.xs, line.ys, strict=True)):
        if not isfinite(y) or not isfinite(x) or x < place.xs[0]:
            if part:
                yield part
            part = []
        elif number % each == 0 or number == last:
            part.append((place.x(x), place.y(y)))
    if part:
        yield part


def _legend(lines: Iterable[Line], top: float) -> tuple[list[str], float]:
    """Name the lines, in as many rows as that takes."""
    parts: list[str] = []
    left = float(_LEFT)
    for line in lines:
        width = 36 + _LETTER * len(cut(line.name))
        if left + width > WIDTH and left > _LEFT:
            left, top = float(_LEFT), top + 16
        dash = ' '.join(map(str, line.dash))
        parts.append(
            f'<path d="M{left:.0f} {top + 8:.0f}h24" stroke="{line.color}" stroke-width="2.5" '
            f'stroke-dasharray="{dash}"/>{_text(left + 28, top + 12, line.name)}'
        )
        left += width + 8
    return parts, top + 22 if parts else top


def _timeline(timeline: Timeline, top: float) -> tuple[list[str], float]:
    rows = max(len(timeline.rows), 1)
    height = rows * _ROW + 8
    width = WIDTH - _NAMES - 2 * _SPACE
    place = Place(_NAMES, top + _TOP, width, height, timeline.xs, (0, rows))
    parts = [_text(_SPACE, top + 16, timeline.title, 'font-weight="bold"'), _frame(place)]
    parts += [_pattern(status, path) for status, path in _HATCHES.items()]
    for number, name in enumerate(timeline.rows):
        at = place.y(number + 0.5) + 4
        parts.append(_text(_NAMES - 4, at, _fitting(name), 'text-anchor="end"'))
    parts += _times(place, clock_text)
    behind = ''.join(_bar(bar, place) for bar in timeline.bars if bar.status == BUSY)
    if behind:
        parts.append(f'<path d="{behind}" fill="{GREEN}" fill-opacity="0.2"/>')
    for status, color in STATUS_COLORS.items():
        path = ''.join(_bar(bar, place) for bar in timeline.bars if bar.status == status)
        if path:
            # its own outline, that the shortest ones are seen
            style = f'fill="{color}" fill-opacity="0.6" stroke="{color}" stroke-width="0.7"'
            parts.append(f'<path d="{path}" {style}/>')
            if status in _HATCHES:
                parts.append(f'<path d="{path}" fill="url(#{status})"/>')
    bottom = top + _TOP + height + _BOTTOM
    return parts + _statuses(timeline, bottom), bottom + 22


def _pattern(name: str, path: str) -> str:
    lines = f'<path d="{path}" stroke="#000" stroke-opacity="0.5"/>'
    size = 'width="6" height="6" patternUnits="userSpaceOnUse"'
    return f'<pattern id="{name}" {size}>{lines}</pattern>'


def _bar(bar: Bar, place: Place) -> str:
    left, right = place.x(bar.left), place.x(bar.right)
    high, low = place.y(bar.top), place.y(bar.bottom)
    return f'M{left:.1f} {high:.1f}h{max(right - left, 0.3):.1f}v{low - high:.1f}H{left:.1f}z'


def _statuses(timeline: Timeline, top: float) -> list[str]:
    parts, left = [], float(_NAMES)
    there = {bar.status for bar in timeline.bars}
    for status, color in STATUS_COLORS.items():
        if status in there:
            size = f'x="{left:.0f}" y="{top + 4:.0f}" width="20" height="8"'
            parts.append(f'<rect {size} fill="{color}"/>')
            if status in _HATCHES:
                parts.append(f'<rect {size} fill="url(#{status})"/>')
            parts.append(_text(left + 25, top + 12, status))
            left += 100
    return parts


def _times(place: Place, write: Callable[[float], str]) -> Iterator[str]:
    bottom = place.top + place.height
    for value in ticks(*place.xs, most=6, whole=write is clock_text):
        x = place.x(value)
        yield f'<path d="M{x:.0f} {place.top:.0f}V{bottom:.0f}" stroke="{_FAINT}"/>'
        text = write(value)
        most = place.left + place.width + _SPACE - _LETTER * len(text) / 2  # or it is cut off
        yield _text(min(x, most), bottom + 14, text, 'text-anchor="middle"')


def _frame(place: Place) -> str:
    where = f'x="{place.left:.0f}" y="{place.top:.0f}"'
    size = f'width="{place.width:.0f}" height="{place.height:.0f}"'
    return f'<rect {where} {size} fill="none" stroke="{_FAINT}"/>'


def _across(place: Place, y: float) -> str:
    return f'<path d="M{place.left:.0f} {y:.0f}h{place.width:.0f}" stroke="{_FAINT}"/>'


def _text(x: float, y: float, text: str, style: str = '') -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(cut(text))}</text>'


def _fitting(name: str) -> str:
    most = int((_NAMES - 8) / _LETTER)
    return name if len(name) <= most else name[: most - 1] + '…'


def ticks(first: float, last: float, most: int, whole: bool = False) -> list[float]:
    """Choose at most so many round values between two; `whole`: of seconds."""
    span = last - first
    if not isfinite(span) or span <= 0:
        return [first] if isfinite(first) else []
    steps = _seconds(span / most) if whole else _rounds(span / most)
    step = next(step for step in steps if span / step <= most)
    start = floor(first / step)
    values = [number * step for number in range(start, start + most + 3)]
    return [value for value in values if first - step / 1e6 <= value <= last + step / 1e6]


def _rounds(least: float) -> Iterator[float]:
    power = 10.0 ** floor(log10(least))
    yield from (power, 2 * power, 5 * power, 10 * power, 20 * power)


def _seconds(least: float) -> Iterator[float]:
    yield from (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200)
    days = 86400.0
    while True:
        yield days
        days *= 2


def number_text(value: float) -> str:
    """Write a number briefly."""
    if not isfinite(value):
        return str(value)
    return f'{value:,.0f}' if value == int(value) and abs(value) < 1e7 else f'{value:.4g}'
