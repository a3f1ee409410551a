"""One line of progress on a terminal; plain lines elsewhere, if asked for (V19)."""

import shutil
import sys
import threading
from types import TracebackType
from typing import Any, Self, TextIO, cast

from dispy_nb.snapshot import Snapshot

INTERVAL = 0.2  # seconds between updates on a terminal
PLAIN_INTERVAL = 2.0
BAR = 16  # characters; the whole line fits on 80 columns

_showing = threading.Lock()  # one line at a time: nested waits show the outer one


class ProgressLine:
    """Shows a cluster's progress on standard error while its `with` block runs.

    `wanted` None means: on a terminal, outside notebooks.
    """

    def __init__(self, cluster: Any, wanted: bool | None) -> None:
        self._cluster = cluster
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._asked = wanted is True
        self._wanted = self._terminal if wanted is None else wanted
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._wanted and self._cluster.snapshot().pending and _showing.acquire(blocking=False):
            run = self._run_on_terminal if self._terminal else self._run_plain
            self._thread = threading.Thread(target=run, name='dispy-progress', daemon=True)
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
            try:
                self._thread.join()
            finally:  # also after Ctrl-C
                _showing.release()

    def _run_plain(self) -> None:
        going_on = True
        while going_on:
            going_on = not self._stop.wait(PLAIN_INTERVAL)
            sys.stderr.write(progress_text(self._cluster.snapshot(), bar=False) + '\n')
            sys.stderr.flush()

    def _run_on_terminal(self) -> None:
        with _Terminal() as terminal:
            shown = self._asked
            while not self._stop.wait(INTERVAL):
                terminal.draw(progress_text(self._cluster.snapshot()))
                shown = True
            if shown:  # a look with a short time limit is not worth a line
                terminal.draw(progress_text(self._cluster.snapshot()), last=True)


class _Terminal:
    """The last line of a terminal: what callbacks and the log write meanwhile stays above it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._error = sys.stderr
        self._in_line = False  # whether somebody has written half a line
        self._drawn = False

    def __enter__(self) -> Self:
        self._streams = sys.stdout, sys.stderr
        self._own = cast(TextIO, _Above(self, sys.stdout)), cast(TextIO, _Above(self, sys.stderr))
        if sys.stdout.isatty():
            sys.stdout = self._own[0]
        sys.stderr = self._own[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # whoever has put another stream there meanwhile keeps it
        if sys.stdout is self._own[0]:
            sys.stdout = self._streams[0]
        if sys.stderr is self._own[1]:
            sys.stderr = self._streams[1]

    def draw(self, text: str, last: bool = False) -> None:
        """Show the text in place of what was shown before, shortened to one line."""
        with self._lock:
            if not self._in_line:
                text = text[: shutil.get_terminal_size().columns - 1]
                self._error.write(f'\r\x1b[K{text}' + ('\n' if last else ''))
                self._error.flush()
                self._drawn = not last

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write somebody's text where the line was; the line comes back below it."""
        with self._lock:
            if self._drawn:
                self._error.write('\r\x1b[K')
                self._error.flush()
                self._drawn = False
            self._in_line = not text.endswith('\n') if text else self._in_line
            return stream.write(text)


class _Above:
    """Stands in for a standard stream while there is a line of progress."""

    def __init__(self, terminal: _Terminal, stream: TextIO) -> None:
        self._terminal = terminal
        self._stream = stream

    def write(self, text: str) -> int:
        return self._terminal.write_above(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
    parts.append(rate_text(s.rate))
    parts.append(clock_text(s.elapsed))
    parts.append(f'{sum(1 for node in s.nodes if not node.closed)} nodes')
    if s.pending and not s.nodes and s.notice:
        parts.append('no node can be used: see cluster.explain()')
    return ', '.join(parts)


def rate_text(rate: float) -> str:
    """Write how many jobs end in a second."""
    return f'{rate:.1f} jobs/s' if rate < 1000 else f'{rate:,.0f} jobs/s'


def clock_text(seconds: float) -> str:
    """Write a length of time as m:ss, or with hours."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
