"""Clusters as the last line of a cell: their widget, and the page that is saved."""

import contextvars
import importlib
from typing import Any

from dispy_nb.notebook import pages
from dispy_nb.notebook.livedisplay import LiveDisplay, say_once
from dispy_nb.notebook.refresher import refresher_of
from dispy_nb.notebook.widget.outputs import NOTHING, Watched
from dispy_nb.notebook.widget.states import JOBS_SHOWN, state_of
from dispy_nb.notebook.widget.wishes import Wishes
from dispy_nb.snapshot import Snapshot

MISSING = 'live widgets need {}: pip install "dispy-nb[notebook]", then restart'


class ClusterDisplay(LiveDisplay):
    """The figures of a cluster, and what a user may wish of it."""

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self._watched = Watched()
        # the widget outlives the cluster, as browsers may show it, and must not keep it alive
        self._wishes = Wishes(cluster, self._watched.choose)

    def _snapshot(self) -> Snapshot:
        snapshot: Snapshot = self._cluster.snapshot(jobs=JOBS_SHOWN)
        return snapshot

    def _closed(self) -> None:
        self._wishes.forget()
        _displays.pop(self._cluster, None)

    def _new_widget(self, snapshot: Snapshot) -> Any:
        if snapshot.closed:
            return None
        try:
            # by name: ipywidgets and anywidget are optional (V20)
            module = importlib.import_module('dispy_nb.notebook.widget.model')
        except ImportError as error:
            say_once(MISSING.format(error.name or 'ipywidgets and anywidget'))
            return None
        widget = module.ClusterWidget(self._wishes.take, state_of(snapshot) | {'output': NOTHING})
        self._wishes.say = widget.say
        return widget

    def _state(self, snapshot: Snapshot) -> dict[str, Any]:
        return state_of(snapshot) | {'output': self._watched.look()}

    def _page(self, snapshot: Snapshot) -> dict[str, Any]:
        return pages.page(snapshot, self._watched.look())


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
        shown = _displays[cluster] = ClusterDisplay(cluster)
    shown.show_in(shell)
    refresher_of(shell).keep(shown)
