"""Notebooks that were saved tell what has happened to readers who have no kernel, or no Jupyter."""

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.cells import START
from tests.browser.conftest import Gates, Lab, Opener

pytestmark = [pytest.mark.browser]

SHOW = """
    jobs = [cluster.submit(number, fail=number == 3) for number in range(5)]
    cluster
"""
NUMBERS = '5 created, 0 waiting, 0 running, 4 finished, 1 failed, 0 cancelled'
DRAWN = 'image => image.complete && image.naturalWidth > 200'


def tells_all(summary: Locator, picture: Locator, page: Page) -> None:
    """Check what is visible of a run that has ended: numbers, nodes, a failure and a picture."""
    expect(summary).to_contain_text(NUMBERS)
    expect(summary.get_by_role('row').filter(has_text='local-1').first).to_be_visible()
    expect(summary.get_by_role('row').filter(has_text='local-2').first).to_be_visible()
    expect(summary).to_contain_text('on purpose')
    image = picture.get_by_role('img').first
    expect(image).to_be_visible()
    expect(image).to_have_attribute('alt', re.compile('local-1'))
    assert image.evaluate(DRAWN)
    expect(page.get_by_text(re.compile('model not found|Loading widget'))).to_have_count(0)


@pytest.mark.row('V13')
def test_a_saved_notebook_tells_the_end_without_a_kernel_and_as_html(
    opened: Opener, gates: Gates, lab: Lab, chromium: Browser
) -> None:
    page = opened(START, SHOW, 'cluster.charts()', 'cluster.wait(); cluster.close()')
    for number in range(3):
        page.run(number)
    gates.open_all()
    page.run(3)
    expect(page.output(2).locator('img')).to_be_visible()
    page.save()
    lab.copy_without_kernel(page.path, 'reader.ipynb')

    reader = opened(existing='reader.ipynb', kernel=False)
    tells_all(reader.output(1), reader.output(2), reader.page)

    export = chromium.new_context(java_script_enabled=False, offline=True)
    shown = export.new_page()
    shown.set_content(lab.export(page.path))
    outputs = shown.locator('.jp-Cell .jp-Cell-outputWrapper')
    tells_all(
        outputs.filter(has_text=NUMBERS).first, outputs.filter(has=shown.locator('img')), shown
    )
    export.close()


@pytest.mark.row('V13')
def test_a_run_that_ends_in_a_page_loaded_again_is_saved_where_it_is_shown(
    opened: Opener, gates: Gates, lab: Lab
) -> None:
    page = opened(START, SHOW, 'cluster.close(); cluster')
    page.run(0)
    page.run(1)
    page.save()
    page.load()
    gates.open_all()
    expect(page.output(1)).to_contain_text('4 finished')
    page.run(2)  # the output of before can be changed only in the page that has made it
    page.save()
    assert NUMBERS in str(lab.read(page.path).cells[2].outputs)
