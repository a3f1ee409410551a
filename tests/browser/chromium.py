"""Chromium without a window, as the system has it installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ('chromium', 'chromium-browser', 'google-chrome')
_FLAGS = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu']


def chromium_path() -> str | None:
    """Answer where it is installed, if it is."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run a browser until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=_FLAGS)
        yield browser
        browser.close()
