"""`make screenshots`: the pictures of docs/images, taken of a notebook that does real work.

Files of Python's own standard library are measured, as `dispy demo` does it; some are no Python on
purpose, and their jobs fail.
"""

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Locator

from tests.browser.chromium import chromium_path, running_chromium
from tests.browser.lab import Lab, running_lab
from tests.browser.page import NotebookPage, new_tab
from tests.support.programs import eventually

IMAGES = Path(__file__).resolve().parents[2] / 'docs' / 'images'
MOST_BYTES = 150_000  # of a picture: the repository keeps every version of it
WIDTH, HEIGHT = 1000, 1800
MOST_HEIGHT = {'widget': 418, 'charts': 520}  # of a picture; what is below says no more
ENDED = 1000  # jobs that have ended when the pictures are taken
LIMIT = 120.0  # seconds

# The other jobs take their time: a run that leaves nothing of the processor is slow to picture.
WORK = f"""
    import dispy_nb as dispy
    from dispy_nb import demo

    def measure(file, number):
        import time
        if number >= {ENDED}:
            time.sleep(1)
        measured = demo.measure(file)
        best = max(measured.functions, default=None)
        if best is not None and best.complexity >= demo.NOTABLE:
            dispy_provisional_result(f'{{best.name}}: {{best.complexity}} ways through it')
        return measured

    nodes = dispy.LocalNodes(3, cpus=1)
    cluster = dispy.JobCluster(measure, nodes=nodes.nodes, ip_addr='127.0.0.1')
"""
SUBMIT = 'for number, file in enumerate(demo.library_files()): cluster.submit(file, number)'
END = 'cluster.close(timeout=0, terminate=True); nodes.close()'


def main() -> int:
    """Run the notebook, and take a picture of each of its outputs in both themes."""
    if chromium_path() is None:
        print('there is no Chromium here: install it, for example by `apt install chromium`')
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='dn', dir='/tmp') as home:
        _settle_in(Path(home))
        with running_lab(Path(home)) as lab, running_chromium() as browser:
            _take_all(browser, lab)
    return 0


def _take_all(browser: Browser, lab: Lab) -> None:
    context = browser.new_context(
        viewport={'width': WIDTH, 'height': HEIGHT}, device_scale_factor=1.5
    )
    lab.write('pictures.ipynb', [WORK, 'cluster', 'cluster.charts()', SUBMIT, END])
    page = NotebookPage(new_tab(context), lab, 'pictures.ipynb')
    page.page.set_default_timeout(1000 * LIMIT)
    page.open()
    page.toggle_files()
    for number in range(4):
        page.run(number)
    bar = page.output(1).get_by_role('progressbar')
    eventually(lambda: int(bar.get_attribute('aria-valuenow') or 0) >= ENDED, LIMIT)
    for dark in (False, True):
        page.choose_theme(dark)
        theme = 'dark' if dark else 'light'
        for number, name in ((1, 'widget'), (2, 'charts')):
            _take(page.output(number), MOST_HEIGHT[name], IMAGES / f'{name}-{theme}.png')
    assert page.output(1).get_by_role('button', name='Cancel all').is_enabled(), 'it has ended'
    page.run(4)
    lab.end_kernels()


def _take(outputs: Locator, height: int, file: Path) -> None:
    output = outputs.locator('.jp-OutputArea-output')
    output.scroll_into_view_if_needed()
    box = output.bounding_box()
    assert box is not None
    box['height'] = min(box['height'], height)
    output.page.screenshot(path=file, clip=box, animations='disabled')
    size = file.stat().st_size
    print(f'{file.relative_to(IMAGES.parents[1])}: {size:,} bytes')
    assert size <= MOST_BYTES, f'{file} must not have more than {MOST_BYTES:,} bytes'


def _settle_in(home: Path) -> None:
    """Keep whoever runs this out of the pictures: no key, setting or file of theirs is used."""
    for name in list(os.environ):
        if name.startswith(('DISPY_', 'IPYTHON', 'JUPYTER', 'XDG_')):
            del os.environ[name]
    os.environ |= {'HOME': str(home), 'TMPDIR': str(home)}


if __name__ == '__main__':
    sys.exit(main())
