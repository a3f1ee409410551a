"""What all charts of clusters have in common: how they are shown, kept up to date, and kept.

snapshots ──▶ refresher thread ──▶ widget's traits            (while jobs run)
                               └─▶ a picture in its place     (when they have ended)
"""

import importlib
import threading
import time
import uuid
from html import escape
from typing import Any

from dispy_nb.notebook import picture
from dispy_nb.notebook.refresher import refresher_of
from dispy_nb.snapshot import Snapshot
from dispy_nb.surroundings import running_shell

INTERVAL = 0.8  # seconds between looks: a change is on the screen within one (V09, V12)
TEXT_INTERVAL = 1.0  # the same where a display is replaced as a whole
GRACE = 1.0  # no jobs for so long, and the chart becomes a picture
MISSING = (
    'charts that move need anywidget and bokeh: pip install "dispy-nb[notebook]", then restart'
)

_said: set[str] = set()


class LiveChart:
    """A chart of one cluster in any number of cells: one widget, an identifier for each output.

    What it shows is told by classes below it.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._shell: Any = None  # of the notebook, once it was shown there
        self._widget: Any = None
        self._ids: list[str] = []
        self._is_live = False
        self._is_kept = False  # the picture was sent at the end of a cell: whoever saves has it
        self._over_since: float | None = None
        self._looked_at = 0.0
        self._drawn_at = 0.0
        self._shown_in = -1  # number of the cell that has shown it unasked
        self._lock = threading.Lock()

    # showing

    def show(self) -> None:
        """Show the chart in the running cell as well; outside of notebooks there is its text."""
        shell = running_shell()
        if not hasattr(shell, 'kernel'):
            return
        with self._lock:
            is_first, self._shell = self._shell is None, shell
            snapshot = self._look()
            self._is_live = not (_is_over(snapshot) and self._is_complete(0.0))
            if is_first:
                self._widget = self._new_widget(snapshot)
            else:
                self._draw(snapshot)
            self._ids.append(uuid.uuid4().hex)
            self._publish(self._ids[-1], self._bundle(snapshot), update=False)
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
            snapshot = self._look() if self._shell is None else self._snapshot()
            return self._words(snapshot)

    # for the refresher

    def refresh(self, now: float) -> bool:
        """Show the figures of now; whether there will be others."""
        if now - self._looked_at < INTERVAL:
            return True
        with self._lock:
            self._looked_at = now
            snapshot = self._look() if self._is_live else self._snapshot()
            if not _is_over(snapshot):
                self._over_since = None
                self._go_on(snapshot, now)
                return True
            if self._over_since is None:
                self._over_since = now
            waited = now - self._over_since
            if self._is_live and self._is_complete(waited) and (snapshot.closed or waited >= GRACE):
                self._settle(snapshot)
            return self._is_live or not snapshot.closed

    def cell_ended(self) -> None:
        """Become a picture if the jobs have ended, though the thread may have done so."""
        self._catch_up()
        with self._lock:
            snapshot = self._look() if self._is_live else self._snapshot()
            if _is_over(snapshot) and not self._is_kept:
                self._settle(snapshot)
                self._is_kept = True

    def _go_on(self, snapshot: Snapshot, now: float) -> None:
        if not self._is_live:
            self._is_live, self._is_kept = True, False
            snapshot = self._look()
            self._draw(snapshot)
            self._update_all(snapshot)
        elif self._widget is not None:
            self._draw(snapshot)
        elif now - self._drawn_at >= TEXT_INTERVAL:
            self._drawn_at = now
            self._update_all(snapshot)

    def _settle(self, snapshot: Snapshot) -> None:
        self._is_live = self._is_kept = False
        self._draw(snapshot)
        self._update_all(snapshot)

    # what is sent

    def _draw(self, snapshot: Snapshot) -> None:
        """Bring the widget up to date; what has not changed is not sent."""
        if self._widget is not None:
            with self._widget.hold_sync():  # one message
                for name, value in self._state(snapshot).items():
                    setattr(self._widget, name, value)

    def _bundle(self, snapshot: Snapshot) -> dict[str, Any]:
        words = self._words(snapshot)
        note = self._note()
        image = picture.image(self._picture(snapshot), words)
        html = image + (f'<div>{escape(note)}</div>' if note else '')
        text = words + (f'\n{note}' if note else '')
        view: dict[str, Any] = {}
        if self._widget is not None and self._is_live:
            view = dict(self._widget._repr_mimebundle_()[0])
        return view | {'text/html': html, 'text/plain': text}

    def _update_all(self, snapshot: Snapshot) -> None:
        bundle = self._bundle(snapshot)
        for display_id in self._ids:
            self._publish(display_id, bundle, update=True)

    def _publish(self, display_id: str, bundle: dict[str, Any], update: bool) -> None:
        transient = {'display_id': display_id}
        self._shell.display_pub.publish(bundle, transient=transient, update=update)

    def _new_widget(self, snapshot: Snapshot) -> Any:
        """Make the widget; without what it needs say once what is missing, and do without (V20)."""
        try:
            # by name: anywidget and bokeh are optional
            chart = importlib.import_module('dispy_nb.notebook.chart')
        except ImportError:
            if MISSING not in _said:
                _said.add(MISSING)
                print(MISSING)  # noqa: T201 - into the cell that shows the chart
            return None
        return chart.new_chart(self._document(chart.VERSION), self._state(snapshot))

    # what classes below tell

    def _snapshot(self) -> Snapshot:
        return self._cluster.snapshot()  # type: ignore[no-any-return]

    def _look(self) -> Snapshot:
        """Take a snapshot, and take in what is new."""
        snapshot = self._snapshot()
        self._take(snapshot, time.time())
        return snapshot

    def _take(self, snapshot: Snapshot, now: float) -> None:
        raise NotImplementedError

    def _is_complete(self, waited: float) -> bool:
        """Whether all that there is has been taken in, or was waited for long enough."""
        return True

    def _catch_up(self) -> None:
        """Take in what is left, if that does not take long."""

    def _document(self, version: str) -> dict[str, Any]:
        raise NotImplementedError

    def _state(self, snapshot: Snapshot) -> dict[str, Any]:
        raise NotImplementedError

    def _picture(self, snapshot: Snapshot) -> str:
        raise NotImplementedError

    def _words(self, snapshot: Snapshot) -> str:
        raise NotImplementedError

    def _note(self) -> str:
        """What the reader is to know besides; '' mostly."""
        return ''


def _is_over(snapshot: Snapshot) -> bool:
    """Whether the figures stay as they are, for now."""
    return snapshot.closed or (snapshot.submitted > 0 and not snapshot.pending)
