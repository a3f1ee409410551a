"""Displays of clusters: live while jobs run, then a picture that stays in the saved notebook.

cluster.snapshot() ──▶ refresher thread ──▶ widget's traits            (while jobs run)
                                        └─▶ update of the display id   (when they have ended)
"""

import contextvars
import importlib
import json
import threading
import time
import uuid
from typing import Any

from dispy_nb.notebook import pages
from dispy_nb.notebook.outputs import NOTHING, Watched
from dispy_nb.notebook.refresher import INTERVAL, refresher_of
from dispy_nb.notebook.states import JOBS_SHOWN, state_of
from dispy_nb.notebook.wishes import Wishes
from dispy_nb.snapshot import Snapshot

TEXT_INTERVAL = 1.0  # seconds between updates where a display is replaced as a whole
GRACE = 1.0  # no jobs for so long, and the display becomes a picture
MOST_RATE = 60_000  # bytes of messages a second, on average: never 100 kB in any one (V12)
MISSING = 'live widgets need {}: pip install "dispy-nb[notebook]", then restart'


class ClusterDisplay:
    """One cluster in any number of cells: one widget, an identifier for each cell's output."""

    def __init__(self, cluster: Any, shell: Any) -> None:
        self._cluster = cluster
        self._shell = shell
        self._watched = Watched()
        # the widget outlives the cluster, as browsers may show it, and must not keep it alive
        self._wishes = Wishes(cluster, self._watched.choose)
        self._widget = self._new_widget()
        self._places = Places(shell)
        self._is_live = True
        self._is_saved = False  # the picture went out at the end of a cell, where all listen
        self._over_since: float | None = None
        self._published: dict[str, Any] = {}  # by all outputs
        self._next_at = 0.0  # not before: the messages so far have taken their time
        self._lock = threading.Lock()

    def show(self) -> None:
        """Show the cluster in the running cell as well."""
        with self._lock:
            snapshot = self._snapshot()
            self._is_live, self._is_saved = not is_over(snapshot), False
            self._draw(snapshot)
            self._publish(self._places.add(), self._bundle(snapshot), update=False)

    def refresh(self, now: float) -> bool:
        """Show the figures of now; whether there will be others."""
        with self._lock:
            if now < self._next_at:
                return True
            snapshot = self._snapshot()
            sent = self._draw(snapshot) + self._change_form(snapshot, now)
            least = 0.0 if self._widget is not None else TEXT_INTERVAL - INTERVAL / 2
            self._next_at = now + max(sent / MOST_RATE, least)
            if snapshot.closed:
                self._wishes.forget()
                _displays.pop(self._cluster, None)
            return not snapshot.closed

    def cell_ended(self) -> None:
        """Settle if the jobs have ended, though the thread may have done so."""
        with self._lock:
            if self._is_saved:
                return
            snapshot = self._snapshot()
            if is_over(snapshot):
                sent = self._settle(snapshot)
                self._next_at = time.monotonic() + sent / MOST_RATE
                self._is_saved = True

    def _new_widget(self) -> Any:
        snapshot = self._snapshot()
        if snapshot.closed:
            return None
        widget = new_widget(self._wishes.take, state_of(snapshot) | {'output': NOTHING})
        if widget is not None:
            self._wishes.say = widget.say
        return widget

    def _snapshot(self) -> Snapshot:
        snapshot: Snapshot = self._cluster.snapshot(jobs=JOBS_SHOWN)
        return snapshot

    def _change_form(self, snapshot: Snapshot, now: float) -> int:
        """Be a widget while there are jobs, a picture after; return the bytes that it took."""
        if not is_over(snapshot):
            self._over_since, self._is_saved = None, False
            self._cluster._watch_nodes()
            if self._is_live and self._widget is not None:
                return 0
            self._is_live = True
            return self._update_all(snapshot)
        if self._over_since is None:
            self._over_since = now
        if self._is_live and (snapshot.closed or now - self._over_since >= GRACE):
            return self._settle(snapshot)
        return 0

    def _settle(self, snapshot: Snapshot) -> int:
        self._is_live, self._published = False, {}
        return self._update_all(snapshot)

    def _draw(self, snapshot: Snapshot) -> int:
        if self._widget is None:
            return 0
        sent: int = self._widget.draw(state_of(snapshot) | {'output': self._watched.look()})
        return sent

    def _bundle(self, snapshot: Snapshot) -> dict[str, Any]:
        view = self._widget.view() if self._widget is not None and self._is_live else {}
        return view | pages.page(snapshot, self._watched.look())

    def _update_all(self, snapshot: Snapshot) -> int:
        bundle, ids = self._bundle(snapshot), self._places.ids()
        if bundle == self._published:
            return 0
        self._published = bundle
        for display_id in ids:
            self._publish(display_id, bundle, update=True)
        return len(ids) * len(json.dumps(bundle))

    def _publish(self, display_id: str, bundle: dict[str, Any], update: bool) -> None:
        transient = {'display_id': display_id}
        self._shell.display_pub.publish(bundle, transient=transient, update=update)


class Places:
    """The outputs of cells that show one cluster, by display id."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._places: dict[str, tuple[str, str]] = {}  # by display id: cell, and its execution

    def add(self) -> str:
        """Return the id for a new output of the running cell; those it had before are gone."""
        parent: dict[str, Any] = getattr(self._shell, 'get_parent', dict)() or {}
        cell = str(parent.get('metadata', {}).get('cellId') or uuid.uuid4())
        execution = str(parent.get('header', {}).get('msg_id', ''))
        for display_id, place in list(self._places.items()):
            if place[0] == cell and place[1] != execution:
                del self._places[display_id]
        display_id = uuid.uuid4().hex
        self._places[display_id] = (cell, execution)
        return display_id

    def ids(self) -> list[str]:
        """List the ids of outputs that are there, as far as can be told."""
        return list(self._places)


_displays: dict[Any, ClusterDisplay] = {}  # by cluster, until it is closed


def show(cluster: Any, shell: Any) -> None:
    """Show a cluster in the running cell, or as text on the terminal of IPython."""
    # what callbacks print appears where the cluster was shown last (V10)
    cluster._shell.context = contextvars.copy_context()
    if not hasattr(shell, 'kernel'):
        print(pages.text_page(cluster.snapshot()))  # noqa: T201 - what it is for
        return
    shown = _displays.get(cluster)  # once: the thread takes it out when the cluster is closed
    if shown is None:
        shown = _displays[cluster] = ClusterDisplay(cluster, shell)
    shown.show()
    refresher_of(shell).keep(shown)


def is_over(snapshot: Snapshot) -> bool:
    """Whether the figures stay as they are, for now."""
    return snapshot.closed or (snapshot.submitted > 0 and not snapshot.pending)


_said: set[str] = set()


def new_widget(take: Any, state: dict[str, Any]) -> Any:
    """Make the widget; without its packages say once what is missing, and do without (V20)."""
    try:
        # by name: ipywidgets and anywidget are optional
        module = importlib.import_module('dispy_nb.notebook.widgets')
    except ImportError as error:
        if MISSING not in _said:
            _said.add(MISSING)
            name = error.name or 'ipywidgets and anywidget'
            print(MISSING.format(name))  # noqa: T201 - into the cell that shows the cluster
        return None
    return module.ClusterWidget(take, state)
