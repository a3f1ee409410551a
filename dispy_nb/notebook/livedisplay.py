"""What all displays of clusters have in common: shown in cells, kept up to date, and kept.

snapshots ──▶ refresher thread ──▶ widget's traits            (while jobs run)
                               └─▶ a picture in its place     (when they have ended)
"""

import json
import threading
import time
import uuid
import weakref
from collections import deque
from typing import Any

from dispy_nb.snapshot import Snapshot

GRACE = 1.0  # no jobs for so long, and the display becomes a picture
TEXT_INTERVAL = 1.0  # seconds between updates where a display is replaced as a whole
MOST_MESSAGES = 4  # in any second, of all displays of a cluster; and the picture at the end (V12)
MOST_BYTES = 40_000  # in any second, before another message: the largest makes 100 kB of it


Counts = tuple[int, int, int, bool]


class LiveDisplay:
    """Something of one cluster in any number of cells: a widget, after the jobs a picture.

    What it shows is told by classes below it.
    """

    interval = 0.0  # seconds between looks, at least

    def __init__(self, cluster: Any) -> None:
        self.refreshed_at = 0.0
        self._cluster = cluster
        self._widget: Any = None
        self._places: Places | None = None  # once it was shown
        self._budget = budget_of(cluster)
        self._is_live = False
        self._settled: Counts | None = None  # of what the picture shows
        self._kept: Counts | None = None  # of the one sent at a cell's end: whoever saves has it
        self._over_since: float | None = None
        self._drawn_at = 0.0
        self._published: dict[str, Any] = {}
        self._lock = threading.Lock()

    def show_in(self, shell: Any) -> None:
        """Show it in the running cell as well."""
        with self._lock:
            self._cluster._watch_nodes()
            snapshot = self._look()
            self._is_live = not (is_over(snapshot) and self._is_complete(0.0))
            if self._places is None:
                self._places = Places(shell)
                self._widget = self._new_widget(snapshot)
            else:
                self._draw(snapshot)
            self._places.add(self._bundle(snapshot))

    def stands_for(self, before: object) -> bool:
        """Whether this is what a cell shows that was run again, in place of the one before."""
        return (
            type(before) is type(self)
            and isinstance(before, LiveDisplay)
            and before is not self
            and before._cluster is self._cluster
            and self._places is not None
            and before._places is not None
            and self._places.follow(before._places)
        )

    def refresh(self, now: float) -> bool:
        """Show what is the case now; whether that will ever change."""
        if now - self.refreshed_at < self.interval or not self._budget.is_open(now):
            return True
        with self._lock:
            self.refreshed_at = now
            snapshot = self._look() if self._is_live else self._snapshot()
            if not is_over(snapshot):
                self._over_since = None
                self._cluster._watch_nodes()
                self._go_on(snapshot, now)
                return True
            if self._over_since is None:
                self._over_since = now
            waited = now - self._over_since
            is_time = snapshot.closed or waited >= GRACE
            if self._is_live and not (is_time and self._is_complete(waited)):
                self._draw(snapshot)
            elif self._is_live or self._settled != counts(snapshot):
                self._settle(snapshot)
            if snapshot.closed and not self._is_live:
                self._closed()
                return False
            return True

    def cell_ended(self) -> None:
        """Become a picture if the jobs have ended, though the thread may have done so."""
        self._catch_up()
        with self._lock:
            snapshot = self._look() if self._is_live else self._snapshot()
            if is_over(snapshot) and self._kept != counts(snapshot):
                self._settle(snapshot)
                self._kept = self._settled

    def _go_on(self, snapshot: Snapshot, now: float) -> None:
        if not self._is_live:
            self._is_live = True
            snapshot = self._look()
            self._draw(snapshot)
            self._update_all(snapshot)
        elif self._widget is not None:
            self._draw(snapshot)
        elif now - self._drawn_at >= TEXT_INTERVAL:
            self._drawn_at = now
            self._update_all(snapshot)

    def _settle(self, snapshot: Snapshot) -> None:
        self._is_live, self._published = False, {}
        self._settled = counts(snapshot)
        self._draw(snapshot)
        self._update_all(snapshot)

    # what is sent

    def _draw(self, snapshot: Snapshot) -> None:
        """Bring the widget up to date; what has not changed is not sent."""
        if self._widget is not None:
            sent = self._widget.draw(self._state(snapshot))
            if sent:
                self._budget.spend(sent)

    def _update_all(self, snapshot: Snapshot) -> None:
        bundle = self._bundle(snapshot)
        if bundle != self._published and self._places is not None:
            self._published = bundle
            size = len(json.dumps(bundle))
            for _ in range(self._places.update(bundle)):
                self._budget.spend(size)

    def _bundle(self, snapshot: Snapshot) -> dict[str, Any]:
        view = self._widget.view() if self._widget is not None and self._is_live else {}
        return {**view, **self._page(snapshot)}

    # what classes below tell

    def _snapshot(self) -> Snapshot:
        raise NotImplementedError

    def _look(self) -> Snapshot:
        """Take a snapshot, and take in what is new."""
        return self._snapshot()

    def _is_complete(self, waited: float) -> bool:
        """Whether all that there is has been taken in, or was waited for long enough."""
        return True

    def _catch_up(self) -> None:
        """Take in what is left, if that does not take long."""

    def _closed(self) -> None:
        """The cluster is closed, and what is shown stays as it is."""

    def _new_widget(self, snapshot: Snapshot) -> Any:
        """Make the widget; None where what it needs is missing."""
        raise NotImplementedError

    def _state(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return what the widget shows, by trait."""
        raise NotImplementedError

    def _page(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return what is shown without a widget, by media type."""
        raise NotImplementedError


class Places:
    """The outputs of cells that show one display, by display id."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._places: dict[str, tuple[str, str]] = {}  # by display id: cell, and its execution

    def add(self, bundle: dict[str, Any]) -> None:
        """Show it in the running cell; the outputs that the cell had before are gone."""
        parent: dict[str, Any] = getattr(self._shell, 'get_parent', dict)() or {}
        cell = str(parent.get('metadata', {}).get('cellId') or uuid.uuid4())
        execution = str(parent.get('header', {}).get('msg_id', ''))
        for display_id, place in list(self._places.items()):
            if place[0] == cell and place[1] != execution:
                del self._places[display_id]
        display_id = uuid.uuid4().hex
        self._places[display_id] = (cell, execution)
        self._publish(display_id, bundle, update=False)

    def follow(self, before: 'Places') -> bool:
        """Whether a later run of one cell has put these in place of all that were before."""
        now = dict(self._places.values())
        return all(
            now.get(cell, execution) != execution for cell, execution in before._places.values()
        )

    def update(self, bundle: dict[str, Any]) -> int:
        """Show it in all outputs that are there, as far as can be told; return how many."""
        places = list(self._places)
        for display_id in places:
            self._publish(display_id, bundle, update=True)
        return len(places)

    def _publish(self, display_id: str, bundle: dict[str, Any], update: bool) -> None:
        transient = {'display_id': display_id}
        self._shell.display_pub.publish(bundle, transient=transient, update=update)


class Budget:
    """What the displays of one cluster may send together."""

    def __init__(self) -> None:
        self.clock = time.monotonic
        self._sent: deque[tuple[float, int]] = deque()  # when, and how much, in the last second

    def is_open(self, now: float) -> bool:
        """Whether another message may be sent at this moment."""
        while self._sent and now - self._sent[0][0] >= 1.0:
            self._sent.popleft()
        size = sum(size for _, size in self._sent)
        return len(self._sent) < MOST_MESSAGES and size < MOST_BYTES

    def spend(self, size: int) -> None:
        """A message of so many bytes was sent."""
        self._sent.append((self.clock(), size))


_budgets: weakref.WeakKeyDictionary[Any, Budget] = weakref.WeakKeyDictionary()


def budget_of(cluster: Any) -> Budget:
    """Return what all displays of a cluster share."""
    budget = _budgets.get(cluster)
    if budget is None:
        budget = _budgets[cluster] = Budget()
    return budget


def counts(snapshot: Snapshot) -> Counts:
    """Return what changes with whatever happens to a cluster that has no pending jobs."""
    return snapshot.submitted, snapshot.ended, snapshot.provisional, snapshot.closed


def is_over(snapshot: Snapshot) -> bool:
    """Whether the figures stay as they are, for now."""
    return snapshot.closed or (snapshot.submitted > 0 and not snapshot.pending)


_said: set[str] = set()


def say_once(text: str) -> None:
    """Print a line into the running cell, if it was not printed before."""
    if text not in _said:
        _said.add(text)
        print(text)  # noqa: T201 - it is for the user
