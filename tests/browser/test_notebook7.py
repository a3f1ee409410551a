"""Notebook 7 shows the same as JupyterLab."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.cells import START
from tests.browser.conftest import Gates, Opener
from tests.browser.test_charts import points
from tests.browser.test_widget import FIVE, bar, button

pytestmark = [pytest.mark.browser]


@pytest.mark.row('V07', 'V08', 'V09')
def test_widget_and_charts_work_in_notebook_7(
    opened: Opener, gates: Gates, second_tab: Page
) -> None:
    page = opened(START, FIVE, 'cluster.charts()', page=second_tab, kind='notebooks')
    page.start_all()
    expect(bar(page.output(1))).to_have_attribute('aria-valuenow', '0')
    expect(page.output(2).locator('canvas').first).to_be_visible()
    gates.open(0)
    expect(bar(page.output(1))).to_have_attribute('aria-valuenow', '1')
    points(page.output(2), at_least=2)
    button(page.output(1), 'Cancel all').click()
    expect(page.output(1)).to_contain_text('4 cancelled')
