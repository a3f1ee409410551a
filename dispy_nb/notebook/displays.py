"""Displays of clusters: live while jobs run, then a picture that stays in the saved notebook.

cluster.snapshot() ──▶ refresher thread ──▶ widget's traits            (while jobs run)
                                        └─▶ update of the display id   (when they have ended)
"""

import importlib
import threading
import uuid
from typing import Any

from dispy_nb.notebook import pages
from dispy_nb.notebook.refresher import refresher_of
from dispy_nb.snapshot import Snapshot

TEXT_INTERVAL = 1.0  # seconds between updates where a display is replaced as a whole
GRACE = 1.0  # no jobs for so long, and the display becomes a picture
MISSING = 'bars that move need ipywidgets: pip install "dispy-nb[notebook]", then restart'


class ClusterDisplay:
    """One cluster in any number of cells: one widget, an identifier for each cell's output."""

    def __init__(self, cluster: Any, shell: Any) -> None:
        self._cluster = cluster
        self._shell = shell
        self._widget = new_widget()
        self._ids: list[str] = []
        self._is_live = True
        self._over_since: float | None = None
        self._drawn_at = 0.0
        self._lock = threading.Lock()

    def show(self) -> None:
        """Show the cluster in the running cell as well."""
        with self._lock:
            snapshot = self._cluster.snapshot()
            self._is_live = not is_over(snapshot)
            self._draw(snapshot)
            self._ids.append(uuid.uuid4().hex)
            self._publish(self._ids[-1], self._bundle(snapshot), update=False)

    def refresh(self, now: float) -> bool:
        """Show the figures of now; whether there will be others."""
        with self._lock:
            snapshot = self._cluster.snapshot()
            if not is_over(snapshot):
                self._over_since = None
                self._go_on(snapshot, now)
                return True
            if self._over_since is None:
                self._over_since = now
            if self._is_live and (snapshot.closed or now - self._over_since >= GRACE):
                self._settle(snapshot)
            if snapshot.closed:
                _displays.pop(self._cluster, None)
            return not snapshot.closed

    def cell_ended(self) -> None:
        """Settle if the jobs have ended, though the thread may have done so."""
        with self._lock:
            snapshot = self._cluster.snapshot()
            if is_over(snapshot):
                self._settle(snapshot)

    def _go_on(self, snapshot: Snapshot, now: float) -> None:
        if not self._is_live:
            self._is_live = True
            self._update_all(snapshot)
        elif self._widget is None and now - self._drawn_at >= TEXT_INTERVAL:
            self._drawn_at = now
            self._update_all(snapshot)
        self._draw(snapshot)

    def _settle(self, snapshot: Snapshot) -> None:
        self._is_live = False
        self._draw(snapshot)
        self._update_all(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        if self._widget is not None:
            self._widget.draw(snapshot)

    def _bundle(self, snapshot: Snapshot) -> dict[str, Any]:
        view = self._widget.view() if self._widget is not None and self._is_live else {}
        return view | pages.page(snapshot)

    def _update_all(self, snapshot: Snapshot) -> None:
        bundle = self._bundle(snapshot)
        for display_id in self._ids:
            self._publish(display_id, bundle, update=True)

    def _publish(self, display_id: str, bundle: dict[str, Any], update: bool) -> None:
        transient = {'display_id': display_id}
        self._shell.display_pub.publish(bundle, transient=transient, update=update)


_displays: dict[Any, ClusterDisplay] = {}  # by cluster, until it is closed


def show(cluster: Any, shell: Any) -> None:
    """Show a cluster in the running cell, or as text on the terminal of IPython."""
    if not hasattr(shell, 'kernel'):
        print(pages.text_page(cluster.snapshot()))  # noqa: T201 - what it is for
        return
    if cluster not in _displays:
        _displays[cluster] = ClusterDisplay(cluster, shell)
    _displays[cluster].show()
    refresher_of(shell).keep(_displays[cluster])


def is_over(snapshot: Snapshot) -> bool:
    """Whether the figures stay as they are, for now."""
    return snapshot.closed or (snapshot.submitted > 0 and not snapshot.pending)


_said: set[str] = set()


def new_widget() -> Any:
    """Make the widget; without ipywidgets say once what is missing, and do without (V20)."""
    try:
        # by name: ipywidgets is optional
        return importlib.import_module('dispy_nb.notebook.widgets').ProgressWidget()
    except ImportError:
        if MISSING not in _said:
            _said.add(MISSING)
            print(MISSING)  # noqa: T201 - into the cell that shows the cluster
        return None
