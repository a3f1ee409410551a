"""The documents of the charts: what is drawn from which column.  Made once per kernel."""

from functools import cache
from typing import Any

from dispy_nb.notebook.charts import looks
from dispy_nb.notebook.charts.blueprint import (
    Model,
    again,
    document,
    field,
    mapping,
    model,
    renderer,
    source,
)

MOST_NODES = 8  # lines of nodes of their own; all others are one more
MOST_JOBS = 20  # lines of `plot`
OTHERS = MOST_NODES  # the place of the others

PANELS = {'cpu': '%', 'memory': '%', 'running': 'jobs', 'rate': 'jobs/s'}
LABELS = {
    'cpu': 'cpu in use',
    'memory': 'memory in use',
    'running': 'running',
    'rate': 'jobs per second',
}
BAND_COLUMNS = ('left', 'right', 'bottom', 'top')
BAR_COLUMNS = ('left', 'right', 'bottom', 'top', 'status', 'id', 'arguments', 'node', 'took')

_PANEL_HEIGHT, _PLOT_HEIGHT = 150, 300
_SMALL = '11px'
_CLOCK = """
const whole = Math.floor(seconds), m = Math.floor(whole / 60) % 60, h = Math.floor(whole / 3600);
const rest = digits ? (seconds % 60).toFixed(digits) : String(whole % 60);
const two = (text) => (text.split(".")[0].length < 2 ? "0" + text : text);
return (h ? h + ":" + two(String(m)) : String(m)) + ":" + two(rest);
"""


@cache
def cluster_document(version: str) -> dict[str, Any]:
    """Write down the charts of a cluster: four panels of its nodes, and the jobs over time."""
    time = model('Range1d', 'time', start=0, end=2)
    names = [f'{metric}{place}' for metric in PANELS for place in range(MOST_NODES + 1)]
    table = source('nodes', ['t', *names])
    panels: list[Model] = []
    for metric, unit in PANELS.items():
        shared = (time, table) if not panels else (again(time), again(table))
        panels.append(_panel(metric, unit, *shared))
    rows = [_row(panels[0], panels[1]), _row(panels[2], panels[3])]
    wide = model('Column', 'root', sizing_mode='stretch_width', spacing=4)
    wide['attributes']['children'] = [*rows, _timeline(again(time))]
    return document(wide, version)


@cache
def plot_document(version: str) -> dict[str, Any]:
    """Write down the chart of provisional results: a line and markers for each job."""
    renderers: list[Model] = []
    for place in range(MOST_JOBS):
        table = source(f'job{place}', ['x', 'y', 'at'])
        color = looks.color_of(place)
        dash = list(looks.dash_of(place))
        line = _glyph('Line', 'x', 'y', line_color=color, line_dash=dash, line_width=1.5)
        marks = _glyph('Scatter', 'x', 'y', line_color=color, fill_color=color, size=6)
        marks['attributes'] |= {'marker': looks.marker_of(place), 'fill_alpha': 0.5}
        renderers.append(renderer(f'line{place}', table, line))
        renderers.append(renderer(f'marks{place}', again(table), marks))
    tips = [['job', '$name'], ['x', '@x'], ['y', '@y'], ['after', '@at{custom}']]
    axes = model('Range1d', 'x.axis'), model('Range1d', 'y.axis')
    chart = _plot('plot', _PLOT_HEIGHT, *axes, renderers)
    chart['attributes'] |= {
        'below': [model('LinearAxis', 'x', ticker=model('BasicTicker'), formatter=_plain())],
        'left': [model('LinearAxis', 'y', ticker=model('BasicTicker'), formatter=_plain())],
        'center': _grids(),
        'toolbar': _hover(renderers[1::2], tips, {'@at': _hover_clock()}),
    }
    return document(chart, version)


def ends(first: float, last: float) -> dict[str, float]:
    """Set both ends of an axis."""
    return {'start': first, 'end': last}


def near(metric: str, place: int) -> str:
    """Name what a pointer meets near the line of a node: it has the node's name."""
    return f'{metric}{place}.near'


def _panel(metric: str, unit: str, time: Model, table: Model) -> Model:
    renderers: list[Model] = []
    for place in range(MOST_NODES + 1):
        name = f'{metric}{place}'
        is_others = place == OTHERS
        line = _glyph('Line', 't', name, line_width=2)
        line['attributes'] |= {
            'line_color': looks.OTHERS_COLOR if is_others else looks.color_of(place),
            'line_dash': list(looks.OTHERS_DASH if is_others else looks.dash_of(place)),
        }
        first = table if not renderers else again(table)
        renderers.append(renderer(name, first, line))
        wide = _glyph('Line', 't', name, line_width=14, line_alpha=0.0)
        renderers.append(renderer(near(metric, place), again(table), wide))
    bounds = model('Range1d', f'{metric}.axis', start=0, end=1)
    ticker = model('BasicTicker', desired_num_ticks=3, min_interval=1 if metric == 'running' else 0)
    tips = [['node', '$name'], [LABELS[metric], f'$snap_y{{0.[00]}} {unit}']]
    tips.append(['at', '$snap_x{custom}'])
    chart = _plot(metric, _PANEL_HEIGHT, time, bounds, renderers)
    chart['attributes'] |= {
        'below': [_time_axis()],
        'left': [model('LinearAxis', ticker=ticker, formatter=_plain())],
        'center': _grids(),
        'toolbar': _hover(renderers[1::2], tips, {'$snap_x': _hover_clock()}),
    }
    return chart


def _timeline(time: Model) -> Model:
    ended, running = source('ended', BAR_COLUMNS), source('running', BAR_COLUMNS)
    behind = renderer('busy.bands', source('busy', BAND_COLUMNS), _bands())
    renderers = [
        renderer('ended.bars', ended, _bars()),
        renderer('running.bars', running, _bars()),
    ]
    tips = [
        ['job', '@id'],
        ['arguments', '@arguments'],
        ['node', '@node'],
        ['status', '@status'],
        ['time', '@left{custom} to @right{custom}'],
        ['took', '@took'],
    ]
    clock = _hover_clock()
    rows = model('FactorRange', 'rows', factors=[], range_padding=0.1)
    chart = _plot('timeline', 80, time, rows, [behind, *renderers])
    axis = model('CategoricalAxis', ticker=model('CategoricalTicker'))
    axis['attributes']['formatter'] = model('CategoricalTickFormatter')
    chart['attributes'] |= {
        'below': [_time_axis()],
        'left': [axis],
        'center': _grids()[:1],
        'toolbar': _hover(renderers, tips, {'@left': clock, '@right': again(clock)}),
    }
    return chart


def _bands() -> Model:
    band = model('Quad', fill_color=looks.GREEN, fill_alpha=0.2, line_alpha=0.0)
    band['attributes'] |= {name: field(name) for name in BAND_COLUMNS}
    return band


def _bars() -> Model:
    statuses = list(looks.STATUS_COLORS)
    colors = list(looks.STATUS_COLORS.values())
    paint = model('CategoricalColorMapper', factors=statuses, palette=colors)
    hatch = model('CategoricalPatternMapper', factors=statuses)
    hatch['attributes']['patterns'] = list(looks.HATCHES.values())
    return model(
        'Quad',
        left=field('left'),
        right=field('right'),
        bottom=field('bottom'),
        top=field('top'),
        fill_color=field('status', paint),
        line_color=field('status', again(paint)),
        hatch_pattern=field('status', hatch),
        hatch_color='#000000',
        hatch_alpha=0.5,
        hatch_scale=6,
        line_width=1,
        fill_alpha=0.6,
    )


def _glyph(kind: str, x: str, y: str, **attributes: Any) -> Model:
    return model(kind, x=field(x), y=field(y), **attributes)


def _plot(id: str, height: int, x_range: Model, y_range: Model, renderers: list[Model]) -> Model:
    title = model('Title', f'{id}.title', text='', text_font_size='12px')
    title['attributes']['text_font_style'] = 'bold'
    y_scale = 'CategoricalScale' if y_range['name'] == 'FactorRange' else 'LinearScale'
    return model(
        'Plot',
        f'{id}.panel',
        name=f'{id}.panel',
        height=height,
        sizing_mode='stretch_width',
        min_width=160,
        x_range=x_range,
        y_range=y_range,
        x_scale=model('LinearScale'),
        y_scale=model(y_scale),
        title=title,
        renderers=renderers,
        toolbar_location=None,
    )


def _row(*charts: Model) -> Model:
    return model('Row', sizing_mode='stretch_width', spacing=8, children=list(charts))


def _grids() -> list[Model]:
    return [model('Grid', dimension=0), model('Grid', dimension=1)]


def _plain() -> Model:
    return model('BasicTickFormatter', use_scientific=False)


def _time_axis() -> Model:
    fine = model('AdaptiveTicker', base=10, mantissas=[1, 2, 5], desired_num_ticks=5)
    fine['attributes'] |= {'min_interval': 0.1, 'max_interval': 0.5}
    coarse = model('AdaptiveTicker', base=60, mantissas=[1, 2, 5, 10, 15, 30], desired_num_ticks=5)
    coarse['attributes']['min_interval'] = 1
    code = f'const seconds = tick, digits = Number.isInteger(tick) ? 0 : 1;{_CLOCK}'
    return model(
        'LinearAxis',
        ticker=model('CompositeTicker', tickers=[fine, coarse]),
        formatter=model('CustomJSTickFormatter', code=code),
        major_label_text_font_size=_SMALL,
    )


def _hover_clock() -> Model:
    return model('CustomJSHover', code=f'const seconds = value, digits = 1;{_CLOCK}')


def _hover(renderers: list[Model], tips: list[list[str]], formatters: dict[str, Model]) -> Model:
    hover = model('HoverTool', renderers=[again(each) for each in renderers], tooltips=tips)
    hover['attributes'] |= {'formatters': mapping(formatters), 'line_policy': 'nearest'}
    return model('Toolbar', tools=[hover])
