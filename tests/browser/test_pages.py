"""Pages are loaded again, opened twice and closed, kernels die: what the reader sees then."""

import os
import re
import signal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.cells import JOBS, NODES, START
from tests.browser.conftest import Gates, Opener
from tests.browser.test_charts import points
from tests.browser.test_widget import FIVE, bar, button

pytestmark = [pytest.mark.browser]

PLOT = f"""{JOBS}{NODES}
    cluster = dispy.JobCluster(count, **options)
    jobs = [cluster.submit('first'), cluster.submit('second')]
    cluster
"""


@pytest.mark.row('V07', 'V09')
def test_a_page_loaded_again_shows_what_is_the_case_now(opened: Opener, gates: Gates) -> None:
    page = opened(PLOT, 'cluster.plot(0, 1)')
    page.run_all()
    gates.open('first-0')
    expect(page.output(0)).to_contain_text('2 running')
    page.save()
    page.load()
    gates.open(*(f'first-{value}' for value in range(1, 9)))
    expect(bar(page.output(0))).to_have_attribute('aria-valuenow', '0')
    points(page.output(1), at_least=11)
    button(page.output(0), 'Cancel all').click()
    expect(page.output(0)).to_contain_text('2 cancelled')


@pytest.mark.row('V07', 'V08')
def test_two_tabs_show_one_cluster(opened: Opener, gates: Gates, second_tab: Page) -> None:
    page = opened(START, FIVE)
    page.run_all()
    page.save()
    other = opened(page=second_tab, existing=page.path)
    gates.open(0)
    for each in page, other:
        expect(bar(each.output(1))).to_have_attribute('aria-valuenow', '1')
    button(other.output(1), 'Cancel all').click()
    for each in page, other:
        expect(each.output(1)).to_contain_text('4 cancelled')


@pytest.mark.row('V07')
def test_a_tab_closed_and_opened_again_has_missed_nothing(
    opened: Opener, gates: Gates, second_tab: Page
) -> None:
    page = opened(START, FIVE, page=second_tab)
    page.run_all()
    page.save()
    page.page.close()
    gates.open(0, 1, 2)
    again = opened(existing=page.path)
    expect(bar(again.output(1))).to_have_attribute('aria-valuenow', '3')
    gates.open(3)
    expect(bar(again.output(1))).to_have_attribute('aria-valuenow', '4')


@pytest.mark.leaves('files')  # of the kernel that was killed; the next nodes remove them
def test_a_killed_kernel_leaves_what_was_known_and_no_page_that_hangs(
    opened: Opener, gates: Gates
) -> None:
    # other tests of this home leave clusters, too, that could be attached to
    own_state = 'import os; os.environ["XDG_STATE_HOME"] = GATES'
    attach = 'cluster = __import__("dispy_nb").attach(); print(len(cluster.attached_jobs), "jobs")'
    close = 'print(cluster.close(timeout=0, terminate=True))'  # else the nodes keep what has ended
    first, again = f'{own_state}; print(os.getpid())', f'{own_state}; {attach}'
    page = opened(first, START, FIVE, again, close)
    for number in range(3):
        page.run(number)
    gates.open(0)
    expect(page.output(2)).to_contain_text('1 finished')
    os.kill(int(page.output(0).inner_text()), signal.SIGKILL)
    dialog = page.page.get_by_role('dialog').filter(has_text=re.compile('died|restart'))
    dialog.get_by_role('button', name=re.compile('Ok', re.IGNORECASE)).click()
    expect(page.output(2)).to_contain_text('5 created')
    gates.open_all()
    page.wait_for_kernel()
    page.run(3)
    expect(page.output(3)).to_contain_text('5 jobs')
    page.run(4)
    expect(page.output(4)).to_contain_text('True')


# anywidget waits for 2 s; here it waits for none, as if all had taken longer
NO_PATIENCE = """AbortSignal.timeout = () => {
    const control = new AbortController();
    setTimeout(() => control.abort());
    return control.signal;
}"""


@pytest.mark.row('V07', 'V09', 'V11')
def test_views_that_were_slow_to_load_are_kept_up_to_date(
    opened: Opener, gates: Gates, second_tab: Page
) -> None:
    second_tab.add_init_script(NO_PATIENCE)
    page = opened(PLOT, 'cluster.plot(0, 1)', page=second_tab)
    page.run_all()
    expect(page.output(0)).to_contain_text('2 running')
    gates.open(*(f'first-{value}' for value in range(9)))
    points(page.output(1), at_least=11)
    button(page.output(0), 'Cancel all').click()
    expect(page.output(0)).to_contain_text('2 cancelled')
