"""Charts as they are drawn in JupyterLab: they grow, follow the theme, and ask nobody else."""

import re
from collections import Counter
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.cells import JOBS, NODES, START
from tests.browser.conftest import Gates, Opener
from tests.browser.looks import READABLE, chart_contrasts, contrasts
from tests.support.programs import eventually

pytestmark = [pytest.mark.browser]

_SOURCES = """() => [...(window.Bokeh?.documents ?? [])].flatMap(document =>
    [...document._all_models.values()].filter(model => model.type === 'ColumnDataSource'))
    .map(source => Object.fromEntries(Object.entries(source.data)
        .map(([name, column]) => [name, Array.from(column)])))"""


def sources(part: Locator) -> list[dict[str, list[Any]]]:
    """Answer the data of all charts of the page."""
    found: list[dict[str, list[Any]]] = part.page.evaluate(_SOURCES)
    return found


def points(part: Locator, at_least: int) -> None:
    """Wait until the charts of the page have so many points."""

    def count() -> int:
        return sum(len(next(iter(source.values()), ())) for source in sources(part))

    eventually(lambda: count() >= at_least, 15, lambda: f'{sources(part)}')


def statuses(part: Locator) -> Counter[str]:
    """Count the bars of jobs, by what is said of them."""
    return Counter(status for source in sources(part) for status in source.get('status', ()))


CHARTS = f"""{START}
    jobs = [cluster.submit(number) for number in range(40)]
    cluster.charts()
"""
PLOT = f"""{JOBS}{NODES}
    cluster = dispy.JobCluster(count, **options)
    jobs = [cluster.submit('first'), cluster.submit('second')]
    cluster.plot(0, 1)
"""


def chart(output: Locator) -> Locator:
    return output.get_by_role('img').first


@pytest.mark.row('V09')
def test_charts_grow_while_jobs_run(opened: Opener, gates: Gates) -> None:
    page = opened(CHARTS)
    page.run_all()
    expect(page.output(0).locator('canvas').first).to_be_visible()
    eventually(lambda: statuses(page.output(0)) == {'running': 2}, 15)
    gates.open(*range(20))
    eventually(lambda: statuses(page.output(0)) == {'finished': 20, 'running': 2}, 15)
    expect(chart(page.output(0))).to_have_attribute('aria-label', re.compile('20 finished'))
    times = [source['t'] for source in sources(page.output(0)) if 't' in source]
    assert times
    assert all(len(column) > 1 and column == sorted(column) for column in times)


@pytest.mark.row('V11', 'V09')
def test_provisional_results_are_a_growing_chart(opened: Opener, gates: Gates) -> None:
    page = opened(PLOT)
    page.run_all()
    points(page.output(0), at_least=2)
    gates.open(*(f'first-{value}' for value in range(6)))
    points(page.output(0), at_least=8)
    drawn = {
        point
        for source in sources(page.output(0))
        if {'x', 'y'} <= set(source)
        for point in zip(source['x'], source['y'], strict=True)
    }
    assert {(value, value * value) for value in range(7)} <= drawn


@pytest.mark.row('V21')
def test_charts_follow_the_theme_and_are_told_in_words(opened: Opener, gates: Gates) -> None:
    page = opened(CHARTS)
    page.run_all()
    points(page.output(0), at_least=1)
    expect(chart(page.output(0))).to_have_attribute('aria-label', re.compile('local-1'))
    painted = []
    for dark in (True, False):
        page.choose_theme(dark)

        def unreadable() -> dict[str, float]:
            found = {**chart_contrasts(page.output(0)), **contrasts(page.output(0))}
            assert any('Title' in text for text in found), found
            return {text: ratio for text, ratio in found.items() if ratio < READABLE}

        eventually(lambda unreadable=unreadable: not unreadable(), 10, lambda: f'{unreadable()}')
        painted.append(page.output(0).screenshot())
    assert painted[0] != painted[1]


@pytest.mark.row('V09')
def test_charts_shown_twice_are_both_drawn_and_leave_nothing_when_closed(
    opened: Opener, gates: Gates
) -> None:
    page = opened(CHARTS, 'cluster.charts()')
    page.run_all()
    for output in page.output(0), page.output(1):
        expect(output.locator('canvas').first).to_be_visible()
    page.leave(healthy=True)
    eventually(lambda: not page.page.evaluate('window.Bokeh.documents.length'), 10)
