"""What `cluster.plot(x, y)` shows: provisional results as a chart that grows."""

from collections.abc import Sequence
from functools import partial
from math import isfinite
from typing import Any

from dispy_nb.history import Provisional
from dispy_nb.monitor.series import Slots
from dispy_nb.notebook.charts import figures, looks, picture
from dispy_nb.notebook.charts.figures import MOST_JOBS
from dispy_nb.notebook.charts.livechart import LiveChart
from dispy_nb.notebook.charts.readings import Axis, Point, Readings
from dispy_nb.notebook.charts.sheets import Columns, Sheets, Table
from dispy_nb.shortened import cut
from dispy_nb.snapshot import Snapshot

MOST_POINTS = 800  # of all jobs
LEAST_POINTS = 20  # of a job, if there are so many
MOST_NAMED = 8  # jobs, and there is no legend
PATIENCE = 5.0  # seconds after the jobs that the last results may take to be read
CELL_PATIENCE = 1.0  # the same at the end of a cell


class ClusterPlot(LiveChart):
    """One chart of provisional results; the last line of a cell, `display` and `print` show it.

    Parameters
    ----------
    cluster : JobCluster
        Whose jobs they are from.
    x, y : str, int, callable or None
        What to draw of a provisional result.
    """

    def __init__(self, cluster: Any, x: Any, y: Any) -> None:
        super().__init__(cluster)
        self._inside = cluster._shell
        self._x, self._y = Axis('x', x), Axis('y', y)
        self._readings = Readings(self._x, self._y)
        self._slots = Slots(MOST_JOBS)
        self._sheets = Sheets()
        self._points: dict[str, list[Point]] = {}
        self._stride = 1

    @property
    def _rows(self) -> list[Provisional]:
        return self._inside.history.points.items  # type: ignore[no-any-return]

    def _take(self, snapshot: Snapshot, now: float) -> None:
        rows = self._rows
        self._stride = self._inside.history.points.stride
        self._readings.start(rows)
        self._points = self._readings.points(rows)
        self._slots.choose(list(self._points)[: -MOST_JOBS - 1 : -1])

    def _is_complete(self, waited: float) -> bool:
        rows = self._rows
        is_read = not self._readings.is_busy and self._readings.has_all(rows)
        if is_read:
            self._take(self._snapshot(), 0.0)
        return is_read or waited >= PATIENCE

    def _catch_up(self) -> None:
        if self._is_live and not self._inside.jobs:
            self._readings.wait(CELL_PATIENCE)
            self._readings.start(self._rows)
            self._readings.wait(CELL_PATIENCE)

    # what is shown

    def _document(self, version: str) -> dict[str, Any]:
        return figures.plot_document(version)

    def _state(self, snapshot: Snapshot) -> dict[str, Any]:
        self._sheets.put({f'job{place}': self._table(job) for place, job in self._shown()})
        return {
            'data': self._sheets.data,
            'tail': self._sheets.tail,
            'settings': self._settings(),
            'legend': self._legend(),
            'words': self._words(snapshot),
            'note': self._note(),
        }

    def _shown(self) -> list[tuple[int, str]]:
        return [(place, job) for place, job in enumerate(self._slots.keys) if job in self._points]

    def _table(self, job: str) -> Table:
        points, each = self._points[job], self._each(job)
        chosen = points[::each]
        rows = chosen if chosen[-1] is points[-1] else [*chosen, points[-1]]
        zero = self._zero
        cut_out = partial(_columns, rows, zero)
        return Table((job, zero, self._stride, each), len(chosen), len(rows), cut_out)

    def _each(self, job: str) -> int:
        """One of so many points of a job is shown."""
        most = max(LEAST_POINTS, MOST_POINTS // len(self._slots.keys))
        each = 1
        while len(self._points[job]) > each * most:
            each *= 2
        return each

    @property
    def _zero(self) -> float:
        return float(self._inside.first_submit or 0.0)

    def _axes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        points = [point for _, job in self._shown() for point in self._points[job]]
        xs = [point.at - self._zero if point.x is None else point.x for point in points]
        return _ends(xs), _ends([point.y for point in points])

    def _settings(self) -> dict[str, dict[str, Any]]:
        xs, ys = self._axes()
        settings: dict[str, dict[str, Any]] = {
            'plot.title': {'text': self._title()},
            'x': {'axis_label': _no_formula(self._label_x)},
            'y': {'axis_label': _no_formula(self._label_y)},
            'x.axis': figures.ends(*xs),
            'y.axis': figures.ends(*ys),
        }
        for place, job in self._shown():
            settings[f'marks{place}'] = {'name': job}
        return settings

    @property
    def _label_x(self) -> str:
        return self._x.label or 'seconds since the first job was submitted'

    @property
    def _label_y(self) -> str:
        return self._y.label or 'provisional result'

    def _title(self) -> str:
        parts = [f'provisional results of {_no_formula(cut(self._cluster.name))}']
        each = max([self._each(job) for _, job in self._shown()], default=1) * self._stride
        if each > 1:
            parts.append(f'1 of up to {each} points')
        if len(self._points) > MOST_JOBS:
            parts.append(f'the latest {MOST_JOBS} of {len(self._points)} jobs')
        return ', '.join(parts)

    def _legend(self) -> list[dict[str, Any]]:
        shown = self._shown()
        if not 1 < len(shown) <= MOST_NAMED:
            return []
        items = [
            {
                'key': job,
                'name': f'job {job}',
                'color': looks.color_of(place),
                'dash': list(looks.dash_of(place)),
                'ids': [f'line{place}', f'marks{place}'],
            }
            for place, job in shown
        ]
        return [{'title': 'jobs', 'items': items}]

    def _words(self, snapshot: Snapshot) -> str:
        head = f'chart of {self._label_y} by {self._label_x}: '
        if self._places is None:
            words = f'{snapshot.provisional} provisional results of cluster {cut(snapshot.name)}'
            return f'{head}{words}; notebooks draw them'
        count = sum(map(len, self._points.values()))
        jobs = list(self._points)[: -MOST_NAMED - 1 : -1]
        told = [_job_words(job, self._points[job], self._zero) for job in jobs]
        more = [f'and {len(self._points) - len(jobs)} more jobs'] if len(self._points) > 8 else []
        head += f'{count} provisional results of {len(self._points)} jobs'
        return '\n'.join([f'{head} of cluster {cut(snapshot.name)}', *told, *more])

    def _note(self) -> str:
        return self._readings.note

    def _picture(self, snapshot: Snapshot) -> str:
        shown = self._shown()
        lines = []
        for place, job in shown:
            columns = _columns(self._points[job], self._zero, 0, len(self._points[job]))
            style = (looks.color_of(place), looks.dash_of(place))
            lines.append(picture.Line(f'job {job}', *style, columns['x'], columns['y'], True))
        xs, ys = self._axes()
        labels = (self._label_x, self._label_y)
        panel = picture.Panel(self._title(), lines, xs, ys, is_clock=False, labels=labels)
        return picture.svg([panel], has_legend=len(shown) <= MOST_NAMED)


def _columns(rows: Sequence[Point], zero: float, start: int, stop: int) -> Columns:
    part = rows[start:stop]
    after = [round(point.at - zero, 2) for point in part]
    xs = [at if point.x is None else point.x for point, at in zip(part, after, strict=True)]
    return {'x': xs, 'y': [point.y for point in part], 'at': after}


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Find both ends of an axis on which all these values are."""
    finite = [value for value in values if isfinite(value)]
    least, most = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = 0.05 * (most - least) or abs(most) * 0.05 or 1.0
    return (least - room, most + room) if isfinite(room) else (least, most)


def _job_words(job: str, points: Sequence[Point], zero: float) -> str:
    last = points[-1]
    x = last.at - zero if last.x is None else last.x
    number = '1 point' if len(points) == 1 else f'{len(points)} points'
    return f'job {job}: {number}, the last one at x {x:.6g}, y {last.y:.6g}'


def _no_formula(text: str) -> str:
    return text.replace('$', '＄')
