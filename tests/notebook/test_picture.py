"""The picture that stays of charts: small, legible anywhere, and nobody's text breaks it."""

import base64
import re
from html import unescape
from math import nan
from xml.etree import ElementTree

import pytest

from dispy_nb.notebook.charts.picture import (
    Bar,
    Line,
    Panel,
    Timeline,
    image,
    number_text,
    svg,
    ticks,
)

SVG = '{http://www.w3.org/2000/svg}'
HOSTILE = '<script>alert(1)</script>"&\x00\x1b[31m\ud800' + 'x' * 500


def line(name: str, ys: list[float], marks: bool = False) -> Line:
    return Line(name, '#0072B2', (4, 2), [float(n) for n in range(len(ys))], ys, marks)


def panel(*lines: Line, **more) -> Panel:
    return Panel('cpu in use (%)', lines, (0.0, 100.0), (0.0, 100.0), **more)


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def texts(root: ElementTree.Element) -> list[str]:
    return [each.text or '' for each in root.iter(f'{SVG}text')]


@pytest.mark.row('V13')
def test_panels_timeline_and_legend_are_there():
    bars = [Bar(0, 5, 0.1, 0.9, 'finished'), Bar(5, 9, 0.1, 0.9, 'failed')]
    drawn = svg([panel(line('node-1', [1.0, 99.0]))] * 4, Timeline('jobs', ['n'], bars, (0, 10)))
    root = parsed(drawn)
    there = texts(root)
    assert there.count('cpu in use (%)') == 4
    for text in ('node-1', 'jobs', 'n', 'finished', 'failed', '0', '50', '0:00', '1:00'):
        assert text in there
    assert 'cancelled' not in there  # none was
    assert root.find(f'{SVG}rect').get('fill') == '#ffffff'  # a ground of its own
    assert 'stroke-dasharray="4 2"' in drawn
    assert 'url(#failed)' in drawn  # not by its colour alone


def test_hostile_text_stays_text():
    bars = [Bar(0, 1, 0, 1, 'running')]
    drawn = svg([panel(line(HOSTILE, [1.0]))], Timeline(HOSTILE, [HOSTILE], bars, (0, 1)))
    root = parsed(drawn)  # it is XML, whatever was in it
    assert '<script' not in drawn
    assert not list(root.iter(f'{SVG}script'))
    shown = [text for text in texts(root) if text.startswith('<script>alert(1)')]
    assert shown
    assert all(len(text) <= 80 for text in shown)
    html = image(drawn, HOSTILE)
    assert '<script' not in html


def test_image_is_one_that_untrusted_notebooks_show():
    html = image(svg([panel(line('a', [1.0, 2.0]))]), 'two "words" & <more>')
    found = re.fullmatch(
        r'<img src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)" alt="([^"]*)" style="[^"]*">',
        html,
    )
    assert found is not None
    parsed(base64.b64decode(found[1]).decode())
    assert unescape(found[2]) == 'two "words" & <more>'


def test_lines_are_broken_where_nothing_is_known():
    root = parsed(svg([panel(line('a', [1.0, 2.0, nan, 4.0, 5.0, nan, 7.0]))]))
    strokes = [p for p in root.iter(f'{SVG}path') if p.get('stroke') == '#0072B2']
    in_plot = [p.get('d') or '' for p in strokes if 'l' in (p.get('d') or '')]
    assert len(in_plot) == 2
    assert any('h0' in (p.get('d') or '') for p in strokes)  # the lone one is a dot


def test_what_was_before_the_axis_is_left_out():
    early = Line('a', '#0072B2', (), [-50.0, -1.0, 10.0, 20.0], [1.0, 1.0, 2.0, 3.0])
    root = parsed(svg([panel(early)]))
    (path,) = [p.get('d') for p in root.iter(f'{SVG}path') if 'l' in (p.get('d') or '')]
    assert path is not None
    assert path.count('l') == 1


def test_the_largest_picture_is_small_enough_to_be_kept():
    lines = [line(f'node-{n}', [(n * 37 + k * 13.7) % 100 for k in range(200)]) for n in range(9)]
    bars = [Bar(n * 0.4, n * 0.4 + 1, n % 16 + 0.1, n % 16 + 0.4, 'finished') for n in range(304)]
    rows = [f'a rather long name of a node {n}' for n in range(16)]
    html = image(svg([panel(*lines)] * 4, Timeline('jobs', rows, bars, (0, 130))), 'words')
    assert len(html) <= 60_000


@pytest.mark.parametrize(
    ('ends', 'values'),
    [((0, 100), [0, 50, 100]), ((0, 1), [0, 0.5, 1]), ((2, 2), [2]), ((nan, 1), [])],
)
def test_ticks_are_round_values(ends: tuple[float, float], values: list[float]):
    assert ticks(*ends, most=3) == values


@pytest.mark.parametrize('last', [0.001, 3.0, 59.0, 61.0, 3700.0, 86400.0, 1e9])
def test_ticks_of_time_are_whole_seconds_minutes_or_hours(last: float):
    values = ticks(0, last, most=6, whole=True)
    assert 1 <= len(values) <= 7
    assert all(value == int(value) for value in values)


def test_numbers_are_brief():
    assert [number_text(value) for value in (0.0, 1234.0, 0.12345, 1e9)] == [
        *('0', '1,234', '0.1235', '1e+09'),
    ]
    assert number_text(nan) == 'nan'


@pytest.mark.row('V13')
def test_what_is_written_is_legible_in_a_narrow_cell_and_is_not_cut_off():
    drawn = svg([panel(line('node-1', [1.0, 99.0]))] * 2)
    root = parsed(drawn)
    width = float(root.get('width'))
    assert 540 / width * float(root.get('font-size')) >= 8  # a cell beside a file browser
    assert f'max-width:{width:.0f}px' not in image(drawn, 'words')  # larger where there is room
    one = panel(line('node-1', [1.0]))
    wide = Panel('loss', one.lines, (0.0, 1e6), (0.0, 1.0), is_clock=False)
    last = next(each for each in parsed(svg([wide])).iter(f'{SVG}text') if each.text == '1,000,000')
    assert float(last.get('x')) + 6.2 * len('1,000,000') / 2 <= width
