"""Waiting in slices, so that Ctrl-C always ends it.

A signal that comes in the last moment before its thread falls asleep does not wake it, and Python
acts on it only when the wait is over.  A program under load meets that moment: the thread that
gives up the interpreter to sleep is the one that lets others run, who may send the signal.
"""

from collections.abc import Iterator
from time import monotonic

SLICE = 0.5  # seconds


def slices(seconds: float | None) -> Iterator[float]:
    """Divide a time to wait, None for ever, into parts: one at least, of 0 when no time is left."""
    if seconds is None:
        while True:
            yield SLICE
    until = monotonic() + seconds
    while seconds > SLICE:
        yield SLICE
        seconds = until - monotonic()
    yield max(0.0, seconds)
