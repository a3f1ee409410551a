"""What `cluster.charts()` shows: figures of the nodes over time, and the jobs as bars."""

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

from dispy_nb.monitor.series import METRICS, Series, Slots
from dispy_nb.monitor.timeline import JOBS_LOOKED_AT, Band, Timeline, busy_bands, in_words
from dispy_nb.notebook.charts import figures, looks, picture
from dispy_nb.notebook.charts.figures import (
    BAND_COLUMNS,
    BAR_COLUMNS,
    LABELS,
    MOST_NODES,
    OTHERS,
    PANELS,
    near,
)
from dispy_nb.notebook.charts.livechart import LiveChart
from dispy_nb.notebook.charts.sheets import Columns, Sheets, Table
from dispy_nb.notebook.pages import numbers
from dispy_nb.progress import rate_text
from dispy_nb.shortened import cut
from dispy_nb.snapshot import Snapshot

LEAST_SECONDS = 2.0  # on the time axis
NODES_TOLD = MOST_NODES  # in words
LONGEST_NAME = 24
_ROW_HEIGHTS = ((4, 34), (8, 24), (figures.MOST_NODES * 100, 17))  # up to so many rows: pixels
_FRAME_HEIGHT = 62  # title and axis of the timeline


class ClusterCharts(LiveChart):
    """The charts of one cluster; the last line of a cell, `display` and `print` show them."""

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self._inside = cluster._shell
        self._series = Series(self._inside.cpus_per_job)
        self._slots = Slots(MOST_NODES, 2 * MOST_NODES)
        self._timeline = Timeline(self._inside.cpus_per_job)
        self._sheets = Sheets()
        self._began = 0.0
        self._tops = dict.fromkeys(PANELS, 1.0)  # the highest of each line so far

    def _snapshot(self) -> Snapshot:
        return self._cluster.snapshot(jobs=JOBS_LOOKED_AT)  # type: ignore[no-any-return]

    def _take(self, snapshot: Snapshot, now: float) -> None:
        self._began = self._began or now
        self._series.add(snapshot, now)
        self._slots.choose(self._series.busiest())
        self._tops = {metric: self._top(metric) for metric in PANELS}
        spans = self._inside.history.spans
        # both at once are no more than read: were it thinned in between, the next look is right
        self._timeline.put(snapshot, spans.items, spans.stride, self._zero, now)

    @property
    def _zero(self) -> float:
        """Moment at which the time axis begins."""
        return float(self._inside.first_submit or self._began)

    def _end(self, snapshot: Snapshot) -> float:
        latest = self._series.times[-1] - self._zero if self._series.times else 0.0
        return max(LEAST_SECONDS, snapshot.elapsed if snapshot.submitted else latest)

    def _top(self, metric: str) -> float:
        latest = [self._latest(keys, metric) for keys in self._lines().values()]
        return max([self._tops[metric], *(value for value in latest if not isnan(value))])

    def _axis(self, metric: str) -> tuple[float, float]:
        """Ends of the vertical axis; what is at the top is to be seen."""
        return (0.0, 104.0) if PANELS[metric] == '%' else (0.0, round(1.05 * self._tops[metric], 3))

    # the lines

    def _lines(self) -> dict[int, list[str]]:
        """Return the keys of the nodes whose figures each line shows, by its place."""
        lines = {place: [key] for place, key in enumerate(self._slots.keys)}
        others = [key for key in self._series.nodes if key not in self._slots.keys]
        return lines | {OTHERS: others} if others else lines

    def _latest(self, keys: Sequence[str], metric: str) -> float:
        last = len(self._series.times)
        return self._series.column(keys, metric, last - 1, last)[0]

    def _in_order(self) -> list[tuple[int, list[str]]]:
        """The same as people look for them: by name, the others last."""
        lines = self._lines().items()
        return sorted(lines, key=lambda line: (line[0] == OTHERS, in_words(self._name(line[1]))))

    def _name(self, keys: Sequence[str]) -> str:
        if len(keys) > 1:
            return f'{len(keys)} others'
        return fitting(self._series.nodes[keys[0]].name)

    def _table(self) -> Table:
        lines, series, zero = self._lines(), self._series, self._zero

        def cut_out(start: int, stop: int) -> Columns:
            columns: Columns = {'t': [round(at - zero, 1) for at in series.times[start:stop]]}
            for place, keys in lines.items():
                for metric in METRICS:
                    values = series.column(keys, metric, start, stop)
                    columns[f'{metric}{place}'] = [_brief(value) for value in values]
            return columns

        parts = tuple(map(tuple, lines.values()))
        return Table((zero, series.stride, parts), series.lasting, len(series.times), cut_out)

    # what is shown

    def _document(self, version: str) -> dict[str, Any]:
        return figures.cluster_document(version)

    def _state(self, snapshot: Snapshot) -> dict[str, Any]:
        bars = self._timeline.ended
        ended = Table(
            self._timeline.epoch,
            len(bars),
            len(bars),
            lambda start, stop: columns_of(BAR_COLUMNS, bars[start:stop]),
        )
        self._sheets.put({'nodes': self._table(), 'ended': ended})
        return {
            'data': self._sheets.data,
            'tail': self._sheets.tail,
            'live': {
                'running': columns_of(BAR_COLUMNS, self._timeline.running),
                'busy': columns_of(BAND_COLUMNS, self._bands()),
            },
            'settings': self._settings(snapshot),
            'legend': self._legend(),
            'words': self._words(snapshot),
        }

    def _bands(self) -> list[Band]:
        if self._timeline.every == 1:  # each job has a bar
            return []
        return busy_bands(self._series, self._timeline.rows, self._zero)

    def _settings(self, snapshot: Snapshot) -> dict[str, dict[str, Any]]:
        settings: dict[str, dict[str, Any]] = {
            f'{metric}.title': {'text': self._title(metric)} for metric in PANELS
        }
        for place, keys in self._lines().items():
            for metric in PANELS:
                settings[near(metric, place)] = {'name': self._name(keys)}
        rows = len(self._timeline.rows)
        height = next(height for most, height in _ROW_HEIGHTS if rows <= most)
        settings['timeline.panel'] = {'height': _FRAME_HEIGHT + max(rows, 1) * height}
        settings['timeline.title'] = {'text': self._timeline_title(snapshot)}
        settings['rows'] = {'factors': unlike(self._timeline.rows)[::-1]}
        settings |= {f'{metric}.axis': figures.ends(*self._axis(metric)) for metric in PANELS}
        settings['time'] = figures.ends(0, round(self._end(snapshot), 1))
        return settings

    def _title(self, metric: str) -> str:
        if PANELS[metric] == '%':
            return f'{LABELS[metric]} (%)'
        return 'running jobs' if metric == 'running' else LABELS[metric]

    def _timeline_title(self, snapshot: Snapshot) -> str:
        parts = ['jobs by node']
        shown = len(self._timeline.running)
        if self._timeline.every > 1:
            parts.append(f'1 of {self._timeline.every} that ended')
        if shown < snapshot.running:
            parts.append(f'{shown} of {snapshot.running} that run')
        if len(self._timeline.rows) < len({node.name for node in snapshot.nodes}):
            parts.append(f'{len(self._timeline.rows)} of {len(snapshot.nodes)} nodes')
        return ', '.join(parts)

    def _legend(self) -> list[dict[str, Any]]:
        nodes = [
            {
                'key': '+'.join(keys) if place != OTHERS else 'others',
                'name': self._name(keys) + self._how(keys),
                'color': color_at(place),
                'dash': list(dash_at(place)),
                'ids': [
                    *(f'{each}{place}' for each in PANELS),
                    *(near(each, place) for each in PANELS),
                ],
            }
            for place, keys in self._in_order()
        ]
        there = {bar.status for bar in (*self._timeline.ended, *self._timeline.running)}
        statuses = [
            {'key': name, 'name': name, 'color': color, 'hatch': looks.HATCHES[name], 'ids': []}
            for name, color in looks.STATUS_COLORS.items()
            if name in there
        ]
        groups = [{'title': 'nodes', 'items': nodes}, {'title': 'jobs', 'items': statuses}]
        return [group for group in groups if group['items']]

    def _how(self, keys: Sequence[str]) -> str:
        return ' (mean)' if len(keys) > 1 else ''

    def _words(self, snapshot: Snapshot) -> str:
        told = [self._node_words(keys) for _, keys in self._in_order()]
        head = f'charts of cluster {cut(snapshot.name)}: {numbers(snapshot)}'
        return '\n'.join([head, *told])

    def _node_words(self, keys: Sequence[str]) -> str:
        cpu, memory, running, rate = (self._latest(keys, metric) for metric in METRICS)
        parts = [f'cpu {cpu:.0f} %'] if not isnan(cpu) else []
        parts += [f'memory {memory:.0f} %'] if not isnan(memory) else []
        parts += [f'{running:.3g} running'] if not isnan(running) else []
        parts += [rate_text(rate)] if not isnan(rate) else []
        return f'{self._name(keys)}{self._how(keys)}: {", ".join(parts)}'

    def _picture(self, snapshot: Snapshot) -> str:
        xs = (0.0, self._end(snapshot))
        count = len(self._series.times)
        times = [at - self._zero for at in self._series.times]
        panels = []
        for metric in PANELS:
            lines = [
                picture.Line(
                    self._name(keys) + self._how(keys),
                    color_at(place),
                    dash_at(place),
                    times,
                    self._series.column(keys, metric, 0, count),
                )
                for place, keys in self._in_order()
            ]
            panels.append(picture.Panel(self._title(metric), lines, xs, self._axis(metric)))
        bands = [picture.Bar(*band, picture.BUSY) for band in self._bands()]
        jobs = (*self._timeline.ended, *self._timeline.running)
        bars = bands + [picture.Bar(*bar[:5]) for bar in jobs]
        rows = unlike(self._timeline.rows)[::-1]
        title = self._timeline_title(snapshot)
        return picture.svg(panels, picture.Timeline(title, rows, bars, xs))


def columns_of(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Columns:
    """Turn rows into the columns that are drawn."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def color_at(place: int) -> str:
    """Colour of the line at a place."""
    return looks.OTHERS_COLOR if place == OTHERS else looks.color_of(place)


def dash_at(place: int) -> tuple[int, ...]:
    """Dashes of the line at a place."""
    return looks.OTHERS_DASH if place == OTHERS else looks.dash_of(place)


def ids_at(place: int) -> list[str]:
    """Name all that is drawn of the line at a place."""
    return [name for each in PANELS for name in (f'{each}{place}', near(each, place))]


def fitting(name: str) -> str:
    """Shorten a name for the little room there is; `$$` would be taken for a formula."""
    name = cut(name).replace('$', '＄')
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + '…'


def unlike(names: Sequence[str]) -> list[str]:
    """Shorten names, all different."""
    result: list[str] = []
    for number, name in enumerate(map(fitting, names)):
        result.append(f'{name} ({number + 1})' if name in result else name)
    return result


def _brief(value: float) -> float:
    return nan if isnan(value) else round(value, 1) if value < 1000 else round(value)
