"""What all charts of clusters have in common: a document of Bokeh, and a picture that is kept."""

import importlib
import time
from html import escape
from typing import Any

from dispy_nb.notebook.charts import picture
from dispy_nb.notebook.livedisplay import LiveDisplay, say_once
from dispy_nb.notebook.refresher import refresher_of
from dispy_nb.snapshot import Snapshot
from dispy_nb.surroundings import running_shell

INTERVAL = 0.8  # seconds between looks: a change is on the screen within one (V09, V12)
MISSING = (
    'charts that move need anywidget and bokeh: pip install "dispy-nb[notebook]", then restart'
)


class LiveChart(LiveDisplay):
    """A chart of one cluster in any number of cells; what it shows is told by classes below it."""

    interval = INTERVAL

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self._shown_in = -1  # number of the cell that has shown it unasked

    def show(self) -> None:
        """Show the chart in the running cell as well; outside of notebooks there is its text."""
        shell = running_shell()
        if not hasattr(shell, 'kernel'):
            return
        self.show_in(shell)
        self._shown_in = shell.execution_count
        refresher_of(shell).keep(self)

    def _ipython_display_(self) -> None:
        """Show it, unless the same cell has just made it: it is there once."""
        shell = running_shell()
        if not hasattr(shell, 'kernel'):
            raise NotImplementedError  # IPython takes the text
        if self._shown_in != shell.execution_count:
            self.show()
        self._shown_in = -1

    def __repr__(self) -> str:
        with self._lock:
            # where nothing refreshes it, looking is what takes in the present
            snapshot = self._look() if self._places is None else self._snapshot()
            return self._words(snapshot)

    def _page(self, snapshot: Snapshot) -> dict[str, Any]:
        words, note = self._words(snapshot), self._note()
        image = picture.image(self._picture(snapshot), words)
        html = image + (f'<div>{escape(note)}</div>' if note else '')
        return {'text/html': html, 'text/plain': words + (f'\n{note}' if note else '')}

    def _new_widget(self, snapshot: Snapshot) -> Any:
        try:
            # by name: anywidget and bokeh are optional (V20)
            chart = importlib.import_module('dispy_nb.notebook.charts.model')
        except ImportError:
            say_once(MISSING)
            return None
        return chart.new_chart(self._document(chart.VERSION), self._state(snapshot))

    def _snapshot(self) -> Snapshot:
        return self._cluster.snapshot()  # type: ignore[no-any-return]

    def _look(self) -> Snapshot:
        """Take a snapshot, and take in what is new."""
        snapshot = self._snapshot()
        self._take(snapshot, time.time())
        return snapshot

    # what classes below tell

    def _take(self, snapshot: Snapshot, now: float) -> None:
        raise NotImplementedError

    def _document(self, version: str) -> dict[str, Any]:
        raise NotImplementedError

    def _picture(self, snapshot: Snapshot) -> str:
        raise NotImplementedError

    def _words(self, snapshot: Snapshot) -> str:
        raise NotImplementedError

    def _note(self) -> str:
        """What the reader is to know besides; '' mostly."""
        return ''
