"""The thread of a kernel that keeps what its cells show up to date.

It prints nothing, and what it sends names its display or widget: it cannot appear in another cell
(D11).  What a user's object does while it is drawn concerns its own display only.
"""

import logging
import threading
import time
from typing import Any, Protocol

INTERVAL = 0.2  # seconds between looks: the most often that anything on the screen changes (V12)

_log = logging.getLogger('dispy_nb')


class Display(Protocol):
    """Something that cells show, and that changes by itself."""

    refreshed_at: float  # who has waited longest comes first: displays share what they may send

    def refresh(self, now: float) -> bool:
        """Show what is the case now; whether that will ever change."""
        ...

    def stands_for(self, before: object) -> bool:
        """Whether a cell that was run again shows this in place of that one."""
        ...

    def cell_ended(self) -> None:
        """Take note that a cell has ended.

        What is sent between cells is lost where no browser listens, as under nbclient: what is to
        be saved is sent again here.
        """
        ...


class Refresher:
    """The displays of a kernel, and the thread that refreshes them while there are any."""

    def __init__(self, shell: Any) -> None:
        self._displays: list[Display] = []
        self._ended: list[Display] = []  # shown for the last time, but perhaps unheard
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        shell.events.register('post_run_cell', self._cell_ended)

    def keep(self, display: Display) -> None:
        """Keep a display up to date from now on, and let go of those that it stands for."""
        with self._lock:
            self._displays = [each for each in self._displays if not display.stands_for(each)]
            if display not in self._displays:
                self._displays.append(display)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='dispy-displays')
                self._thread.daemon = True
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            with self._lock:
                displays = sorted(self._displays, key=lambda display: display.refreshed_at)
                if not displays:
                    self._thread = None
                    return
            now = time.monotonic()
            ended = [display for display in displays if not _refreshed(display, now)]
            with self._lock:
                self._displays = [each for each in self._displays if each not in ended]
                self._ended += ended

    def _cell_ended(self, result: object) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
            displays = [*self._displays, *ended]
        for display in displays:
            _told_of_cell(display)


_refreshers: dict[Any, Refresher] = {}  # one, for the one shell of this process


def refresher_of(shell: Any) -> Refresher:
    """Return the refresher of a kernel's shell."""
    if shell not in _refreshers:
        _refreshers[shell] = Refresher(shell)
    return _refreshers[shell]


def _told_of_cell(display: Display) -> None:
    try:
        display.cell_ended()
    except Exception:  # noqa: BLE001 - the other displays are to be saved as well
        _log.exception('a display of a cluster fails at the end of a cell')


def _refreshed(display: Display, now: float) -> bool:
    try:
        return display.refresh(now)
    except Exception:  # noqa: BLE001 - the edge of a thread, which the other displays need
        _log.exception('a display of a cluster fails, and is not refreshed any more')
        return False
