"""One line of progress on a terminal; plain lines elsewhere, if asked for (V19)."""

import sys
import threading
from types import TracebackType
from typing import Any, Self

from dispy_nb.snapshot import Snapshot

INTERVAL = 0.2  # seconds between updates on a terminal
PLAIN_INTERVAL = 2.0
BAR = 24

_showing = threading.Lock()  # one line at a time: nested waits show the outer one


class ProgressLine:
    """Shows a cluster's progress on standard error while its `with` block runs.

    `wanted` None means: on a terminal, outside notebooks.
    """

    def __init__(self, cluster: Any, wanted: bool | None) -> None:
        self._cluster = cluster
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._wanted = self._terminal if wanted is None else wanted
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._wanted and self._cluster.snapshot().pending and _showing.acquire(blocking=False):
            self._thread = threading.Thread(target=self._run, name='dispy-progress', daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            _showing.release()

    def _run(self) -> None:
        interval = INTERVAL if self._terminal else PLAIN_INTERVAL
        while not self._stop.wait(interval):
            self._show()
        self._show()
        if self._terminal:
            sys.stderr.write('\n')
            sys.stderr.flush()

    def _show(self) -> None:
        text = progress_text(self._cluster.snapshot(), bar=self._terminal)
        sys.stderr.write(f'\r\x1b[K{text}' if self._terminal else f'{text}\n')
        sys.stderr.flush()


def progress_text(snapshot: Snapshot, bar: bool = True) -> str:
    """Say in one line how far a cluster is."""
    s = snapshot
    parts = [f'{s.name}: {s.ended}/{s.submitted}']
    if bar:
        full = BAR * s.ended // s.submitted if s.submitted else 0
        parts = [f'{s.name} |{"█" * full}{"·" * (BAR - full)}| {s.ended}/{s.submitted}']
    if s.running:
        parts.append(f'{s.running} running')
    if s.failed:
        parts.append(f'{s.failed} failed')
    if s.cancelled:
        parts.append(f'{s.cancelled} cancelled')
    parts.append(f'{s.rate:.1f} jobs/s' if s.rate < 1000 else f'{s.rate:,.0f} jobs/s')
    parts.append(clock_text(s.elapsed))
    parts.append(f'{sum(1 for node in s.nodes if not node.closed)} nodes')
    if s.pending and not s.nodes and s.notice:
        parts.append('no node can be used: see cluster.explain()')
    return ', '.join(parts)


def clock_text(seconds: float) -> str:
    """Write a length of time as m:ss, or with hours."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
