"""One server, one browser and one tab for all tests here; what each may ask, show and leave.

Playwright's loop runs for as long as its browser: these tests have a pytest process of their own
(`make browser`).
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.programs import eventually

# without the extra `browser` there is nothing here to collect
PRESENT = all(importlib.util.find_spec(name) for name in ('playwright', 'jupyterlab', 'notebook'))
collect_ignore_glob = [] if PRESENT else ['*']
if PRESENT:
    from playwright.sync_api import Browser, BrowserContext, Page, expect

    from tests.browser.chromium import chromium_path, running_chromium
    from tests.browser.lab import Lab, running_lab
    from tests.browser.page import LIMIT, NotebookPage, new_tab

    expect.set_options(timeout=LIMIT)

PICTURES = Path(__file__).resolve().parents[2] / 'build' / 'browser'
SIZE = {'width': 1000, 'height': 1000}

failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Remember a failure for the fixture that takes a picture of it."""
    report = yield
    item.stash[failed] = item.stash.get(failed, False) or report.failed
    return report


@pytest.fixture(scope='session')
def chromium(shared_home: Path) -> Iterator['Browser']:
    """A browser without a window."""
    if not chromium_path() and os.environ.get('CI') == 'true':
        pytest.fail('no chromium: install it', pytrace=False)
    if not chromium_path():
        pytest.skip('no chromium')
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope='session')
def lab(shared_home: Path) -> Iterator['Lab']:
    """A JupyterLab server, which also serves Notebook 7."""
    with running_lab(shared_home) as lab:
        yield lab


@pytest.fixture(scope='session')
def context(chromium: 'Browser') -> Iterator['BrowserContext']:
    """What tabs share: cookies, and scripts that need not be loaded again."""
    context = chromium.new_context(viewport=SIZE)
    yield context
    context.close()


@pytest.fixture(scope='session')
def tab(context: 'BrowserContext') -> 'Page':
    """The tab in which JupyterLab runs: to load it for each test would take most of the time."""
    return new_tab(context)


@pytest.fixture
def second_tab(context: 'BrowserContext') -> Iterator['Page']:
    """Another tab of the same browser, for this test alone."""
    page = new_tab(context)
    yield page
    page.close()


@pytest.fixture(autouse=True)
def own_home(lab: 'Lab', chromium: 'Browser', shared_home: Path) -> Iterator[None]:
    """Fail a test that leaves a kernel, a node or a job: the home is that of the one server.

    It stands in for the fixture of all other tests.  A browser ends and starts processes as it
    likes: those are not looked at.
    """
    before = set(python_programs())
    yield
    left = lambda: [program for program in python_programs() if program not in before]  # noqa: E731
    eventually(lambda: not left(), message=lambda: f'these go on: {left()}')


@pytest.fixture
def gates(tmp_path: Path) -> Iterator['Gates']:
    """What jobs wait for; at the end of the test nothing waits any more."""
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


class Gates:
    """Files that jobs wait for: a test lets a job end by making its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, *names: object) -> None:
        """Let the jobs of these names end."""
        for name in names:
            (self.folder / str(name)).touch()

    def open_all(self) -> None:
        """Let all jobs end, also those that are submitted later."""
        self.open('all')


Opener = Callable[..., 'NotebookPage']


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, lab: 'Lab', tab: 'Page', gates: Gates
) -> Iterator[Opener]:
    """Answer what opens a notebook made of cells; it is closed, and its kernel ended, at the end.

    The page must not have complained, nor asked anybody but our server for anything.
    """
    name = request.node.name.translate(str.maketrans('[]/ ', '----'))
    pages: list[NotebookPage] = []

    def open_notebook(
        *cells: str, page: 'Page' = tab, existing: str = '', kind: str = 'lab', kernel: bool = True
    ) -> NotebookPage:
        path = existing or f'{name}-{len(pages)}.ipynb'
        if not existing:
            lab.write(path, [cell.replace('GATES', repr(str(gates.folder))) for cell in cells])
        pages.append(NotebookPage(page, lab, path, kind))
        if kernel:
            pages[-1].open()
        else:
            pages[-1].open_without_kernel()
        return pages[-1]

    yield open_notebook
    healthy = not request.node.stash.get(failed, False)
    for number, page in enumerate(pages):
        if not healthy and not page.page.is_closed():
            PICTURES.mkdir(parents=True, exist_ok=True)
            page.page.screenshot(path=PICTURES / f'{name}-{number}.png')
    gates.open_all()
    for page in pages:
        page.leave(healthy)
    lab.end_kernels()
    assert [page.strangers for page in pages if page.strangers] == []
    assert [page.complaints for page in pages if page.complaints] == []


def python_programs() -> list[psutil.Process]:
    """Answer the programs of Python below this one: kernels, nodes, jobs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if 'python' in process.name() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
