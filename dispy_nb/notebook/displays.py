"""Displays of clusters: live while jobs run, then a picture that stays in the saved notebook.

    cluster.snapshot() ──▶ refresher thread ──▶ widget's traits            (while jobs run)
                                            └─▶ update of the display id   (when they have ended)

The thread prints nothing, and what it sends names its display or widget: it cannot appear in
another cell (D11).  A display changes at most five times a second, whatever the number of jobs.
"""

import importlib
import threading
import time
import uuid
from typing import Any

from dispy_nb.notebook import pages
from dispy_nb.snapshot import Snapshot

INTERVAL = 0.2  # seconds between updates of a widget
TEXT_INTERVAL = 1.0  # the same where a display is replaced as a whole
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
            return not snapshot.closed

    def cell_ended(self) -> None:
        """Settle at the end of a cell, if the jobs have ended.

        What is sent between cells is lost where no browser listens, as under nbclient: hence
        again here, though the thread may have done so.
        """
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


class Refresher:
    """The displays of a kernel, and the thread that keeps them up to date while there are any."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._displays: dict[Any, ClusterDisplay] = {}
        self._ended: list[ClusterDisplay] = []  # shown for the last time, but perhaps unheard
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        shell.events.register('post_run_cell', self._cell_ended)

    def display_of(self, cluster: Any) -> ClusterDisplay:
        """Return a cluster's display, which is kept up to date from now on."""
        with self._lock:
            if cluster not in self._displays:
                self._displays[cluster] = ClusterDisplay(cluster, self._shell)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='dispy-displays')
                self._thread.daemon = True
                self._thread.start()
            return self._displays[cluster]

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            with self._lock:
                displays = list(self._displays.items())
                if not displays:
                    self._thread = None
                    return
            now = time.monotonic()
            ended = [cluster for cluster, display in displays if not display.refresh(now)]
            with self._lock:
                self._ended += [self._displays.pop(cluster) for cluster in ended]

    def _cell_ended(self, result: object) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
            displays = [*self._displays.values(), *ended]
        for display in displays:
            display.cell_ended()


_refreshers: dict[Any, Refresher] = {}  # one, for the one shell of this process


def show(cluster: Any, shell: Any) -> None:
    """Show a cluster in the running cell, or as text on the terminal of IPython."""
    if not hasattr(shell, 'kernel'):
        print(pages.text_page(cluster.snapshot()))  # noqa: T201 - what it is for
        return
    if shell not in _refreshers:
        _refreshers[shell] = Refresher(shell)
    _refreshers[shell].display_of(cluster).show()


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
