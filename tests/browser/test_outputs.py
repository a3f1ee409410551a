"""What comes from threads of the kernel is in the cell that it belongs to."""

import pytest
from playwright.sync_api import expect

from tests.browser.cells import BUSY, JOBS, NODES
from tests.browser.conftest import Gates, Opener

pytestmark = [pytest.mark.browser]

CALLBACK = f"""{JOBS}{NODES}
    def tell(job):
        print('told of', job.id)
        if job.id == 1:
            raise LookupError('wrong on purpose')

    cluster = dispy.JobCluster(hold, callback=tell, **options)
    jobs = [cluster.submit(number) for number in range(3)]
    for number, job in enumerate(jobs):
        job.id = number
"""


@pytest.mark.row('V10')
def test_what_a_callback_prints_is_in_the_cell_that_made_the_cluster(
    opened: Opener, gates: Gates
) -> None:
    page = opened(CALLBACK, BUSY.format(until='jobs[0].end_time'), 'print("another cell")')
    page.run(0)
    page.start(1)
    gates.open(0)
    page.wait_until_executed()
    expect(page.output(0)).to_contain_text('told of 0')
    page.run(2)
    gates.open(1)
    expect(page.output(0)).to_contain_text('LookupError: wrong on purpose')
    gates.open(2)
    expect(page.output(0)).to_contain_text('told of 2')
    expect(page.output(1)).to_have_text('')
    expect(page.output(2)).to_have_text('another cell')
