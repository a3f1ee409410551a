"""The widget of a cluster as it is seen and used in JupyterLab."""

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.cells import BUSY, START, STATUSES
from tests.browser.conftest import Gates, Opener
from tests.browser.looks import READABLE, contrasts, focused

pytestmark = [pytest.mark.browser]

FIVE = """
    jobs = [cluster.submit(number) for number in range(5)]
    cluster
"""


def bar(output: Locator) -> Locator:
    return output.get_by_role('progressbar').first


def button(output: Locator, name: str) -> Locator:
    return output.get_by_role('button', name=name)


def enter(field: Locator, text: str) -> None:
    """Type as a user does: the browser tells of no change that a script has made."""
    field.select_text()
    field.press_sequentially(text)
    field.press('Enter')


def node(output: Locator, name: str) -> Locator:
    nodes = output.get_by_role('table', name='Nodes')
    return nodes.get_by_role('row').filter(has_text=name)


@pytest.mark.row('V07')
def test_bar_moves_while_a_cell_runs_and_after_it_has_ended(opened: Opener, gates: Gates) -> None:
    page = opened(START, FIVE, BUSY.format(until='jobs[1].end_time'))
    page.run(0)
    page.run(1)
    output = page.output(1)
    expect(bar(output)).to_have_attribute('aria-valuenow', '0')
    page.start(2)
    gates.open(0)
    expect(bar(output)).to_have_attribute('aria-valuenow', '1')
    assert not page.is_executed()  # the kernel has had no time but for the cell
    gates.open(1)
    page.wait_until_executed()
    expect(bar(output)).to_have_attribute('aria-valuenow', '2')
    gates.open(2, 3)
    expect(bar(output)).to_have_attribute('aria-valuenow', '4')
    expect(output).to_contain_text('4 finished')
    gates.open(4)
    expect(output).to_contain_text('5 finished, 0 failed')


@pytest.mark.row('V08')
def test_buttons_cancel_jobs(opened: Opener, gates: Gates) -> None:
    page = opened(START, FIVE, STATUSES)
    page.run(0)
    page.run(1)
    output = page.output(1)
    expect(output).to_contain_text('2 running')
    output.get_by_text('5 pending jobs').click()
    expect(button(output, 'Cancel selected')).to_be_disabled()
    output.get_by_role('checkbox', name='Select job 5').check()
    button(output, 'Cancel selected').click()
    expect(output).to_contain_text('1 cancelled')
    gates.open(0)
    expect(output).to_contain_text('1 finished')
    button(output, 'Cancel all').click()
    expect(output).to_contain_text('4 cancelled')
    page.run(2)
    expect(page.output(2)).to_have_text('FINISHED CANCELLED CANCELLED CANCELLED CANCELLED')


@pytest.mark.row('V08')
def test_cpus_of_a_node_are_set(opened: Opener, gates: Gates) -> None:
    page = opened(
        START, FIVE, 'print(sorted((node.name, node.cpus) for node in cluster.snapshot().nodes))'
    )
    page.run(0)
    page.run(1)
    output = page.output(1)
    cpus = output.get_by_role('spinbutton', name='Cpus of local-1 to use')
    expect(cpus).to_have_value('1')
    enter(cpus, '2')
    expect(output).to_contain_text('local-1 has 1 cpu: give a number from 0 to 1.')
    expect(cpus).to_have_value('1')
    enter(cpus, '0')
    expect(output).to_contain_text('local-1 uses 0 cpus now.')
    expect(cpus).to_have_value('0')
    page.run(2)
    expect(page.output(2)).to_have_text("[('local-1', 0), ('local-2', 1)]")
    gates.open(0, 1)
    expect(output).to_contain_text('1 running')


@pytest.mark.row('V08')
def test_cluster_is_closed_by_a_button_and_says_so(opened: Opener, gates: Gates) -> None:
    page = opened(START, FIVE, f'{STATUSES}; print(cluster.snapshot().closed)')
    page.run(0)
    page.run(1)
    output = page.output(1)
    button(output, 'Close cluster').click()
    button(output, 'Back').click()
    button(output, 'Close cluster').click()
    button(output, 'Cancel them and close').click()
    expect(output).to_contain_text('5 cancelled')
    expect(output.get_by_role('button')).to_have_count(0)  # a picture has none
    page.run(2)
    expect(page.output(2)).to_have_text('CANCELLED ' * 5 + 'True')


@pytest.mark.row('V07')
def test_a_cluster_shown_twice_is_the_same_in_both_places(opened: Opener, gates: Gates) -> None:
    page = opened(START, FIVE, 'cluster', 'display(cluster)')
    page.run_all()
    outputs = [page.output(number) for number in (1, 2, 3)]
    gates.open(0, 1)
    for output in outputs:
        expect(bar(output)).to_have_attribute('aria-valuenow', '2')
    button(outputs[2], 'Cancel all').click()
    for output in outputs:
        expect(output).to_contain_text('2 finished, 0 failed, 3 cancelled')
    assert len({output.inner_text() for output in outputs}) == 1


@pytest.mark.row('V21', 'V08')
def test_everything_can_be_done_by_keyboard(opened: Opener, gates: Gates) -> None:
    page = opened(START, FIVE, STATUSES)
    page.run(0)
    page.run(1)
    output = page.output(1)
    expect(node(output, 'local-1')).to_be_visible()
    expect(node(output, 'local-2')).to_be_visible()
    page.focus_before(output)
    reached = []
    while '5 pending jobs' not in reached and len(reached) < 20:
        page.page.keyboard.press('Tab')
        reached.append(focused(output))
    cancel = 'Cancel all pending jobs of hold'
    wanted = [cancel, 'Close cluster hold', 'Cpus of local-1 to use', 'Cpus of local-2 to use']
    assert [name for name in reached if name in wanted] == wanted

    page.page.keyboard.press('Enter')  # opens the list of jobs
    page.page.keyboard.press('Tab')
    assert focused(output) == 'Select all jobs shown'
    page.page.keyboard.press('Tab')
    page.page.keyboard.press('Space')
    expect(button(output, 'Cancel selected (1)')).to_be_enabled()
    while focused(output) != cancel:
        page.page.keyboard.press('Shift+Tab')
    page.page.keyboard.press('Enter')
    expect(output).to_contain_text('5 cancelled')
    page.run(2)
    expect(page.output(2)).to_have_text('CANCELLED' + ' CANCELLED' * 4)


@pytest.mark.row('V21')
def test_the_bar_is_told_in_words(opened: Opener, gates: Gates) -> None:
    page = opened(START, FIVE)
    page.run_all()
    output = page.output(1)
    gates.open(0)
    words = '1 of 5 jobs ended: 1 finished, 0 failed, 0 cancelled, 2 running, 2 waiting'
    expect(bar(output)).to_have_attribute('aria-valuetext', words)
    expect(bar(output)).to_have_attribute('aria-valuemax', '5')
    expect(bar(output)).to_have_attribute('aria-label', re.compile('hold'))
    nameless = output.locator('button, input').evaluate_all(
        """all => all.filter(one => !one.textContent.trim() && !one.ariaLabel
            && !one.labels?.length).map(one => one.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.row('V21')
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_texts_can_be_read_in_both_themes(opened: Opener, gates: Gates, dark: bool) -> None:
    page = opened(
        START,
        """
        jobs = [cluster.submit(number, fail=not number) for number in range(5)]
        cluster
        """,
    )
    page.choose_theme(dark)
    page.run_all()
    output = page.output(1)
    gates.open(0)
    expect(output).to_contain_text('on purpose')
    found = contrasts(output)
    assert any('1 failed' in text for text in found)
    assert {text: ratio for text, ratio in found.items() if ratio < READABLE} == {}
    gates.open_all()
    expect(output).to_contain_text('4 finished, 1 failed')
    expect(output.get_by_role('button')).to_have_count(0)
    found = contrasts(output)  # of the picture that is saved
    assert any('4 finished' in text for text in found)
    assert {text: ratio for text, ratio in found.items() if ratio < READABLE} == {}


def test_ten_clusters_in_one_notebook_each_move(opened: Opener, gates: Gates) -> None:
    page = opened(
        START,
        """
        clusters = [dispy.JobCluster(hold, name=f'number {n}', **options) for n in range(10)]
        for number, each in enumerate(clusters):
            each.submit(f'{number} first')
            each.submit(f'{number} last')
            display(each)
        """,
    )
    page.run_all()
    shown = [page.output(1).locator('.jp-OutputArea-child').nth(number) for number in range(10)]
    for number, each in enumerate(shown):
        expect(each).to_contain_text(f'number {number}')
        expect(bar(each)).to_have_attribute('aria-valuenow', '0')
    for number in range(10):  # in any order: all of them want the two cpus
        gates.open(f'{number} first', f'{number} last')
    for each in shown:
        expect(each).to_contain_text('2 finished')
