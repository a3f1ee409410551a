"""What an ended job left, opened in the user's thread: never on the loop's."""

from typing import Any

from dispy_nb.cells import name_cells
from nodeserver.core.lastwords import last_words
from nodeserver.core.status import JobStatus
from nodeserver.payload import load_result
from nodeserver.wire.outcome import Outcome, decode_outcome
from nodeserver.wire.packed import Buffer

_FINISHED = JobStatus.FINISHED  # looked up for each job otherwise, which takes long in an enum


class OpenedOutcome:
    """What only an ended job has."""

    __slots__ = ('error', 'exception', 'is_unreadable', 'result', 'stderr', 'stdout')

    def __init__(
        self, result: Any, stdout: Any, stderr: Any, exception: str | None, error: Buffer = b''
    ) -> None:
        self.is_unreadable = False  # there is a result, which cannot be unpickled here
        self.error = error  # the exception itself, pickled
        self.result = result
        self.stdout = stdout
        self.stderr = stderr
        self.exception = exception


class ProvisionalOutcome:
    """A provisional result as it came; opened by the first thread that looks at it."""

    __slots__ = ('_data', '_opened')

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._opened: OpenedOutcome | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self._data)

    def open(self) -> OpenedOutcome:
        """Unpickle it, once."""
        if self._opened is None:
            self._opened = _open_provisional(self._data)
        return self._opened


NOTHING = OpenedOutcome(None, None, None, None)


def _open_provisional(data: bytes) -> OpenedOutcome:
    try:
        return OpenedOutcome(load_result(data), None, None, None)
    except (Exception, SystemExit) as exc:  # noqa: BLE001
        # user code runs in unpickling; what it raises belongs to the job
        return OpenedOutcome(
            None, None, None, f'the provisional result cannot be unpickled: {exc!r}'
        )


def open_outcome(status: JobStatus, outcome: bytes, reason: str) -> OpenedOutcome:
    """Open what the job's process wrote, under the rules of its status (D9)."""
    if not outcome:
        why = 'Cancelled' if status == JobStatus.CANCELLED else reason or None
        if status == JobStatus.FINISHED:  # every process that reports leaves more than nothing
            why = 'no memory was left here for its result'
        return OpenedOutcome(None, None, None, why)
    opened, pickled = decode_outcome(outcome)
    if status is _FINISHED and pickled and not (reason or opened.exception):
        return _finished(pickled, opened, None)
    if status == JobStatus.CANCELLED:
        return OpenedOutcome(None, opened.stdout, opened.stderr, 'Cancelled')
    if opened.exception:
        told = reason, name_cells(opened.exception)
        exception: str | None = '\n'.join(filter(None, told))
    else:
        exception = _story(reason, opened) or None
    if status != JobStatus.FINISHED or not pickled:
        error = pickled if opened.exception else b''
        return OpenedOutcome(None, opened.stdout, opened.stderr, exception, error)
    return _finished(pickled, opened, exception)


def _finished(pickled: Buffer, opened: Outcome, exception: str | None) -> OpenedOutcome:
    try:
        result = load_result(pickled)
    except (Exception, SystemExit) as exc:  # noqa: BLE001
        # user code runs in unpickling; what it raises belongs to the job
        exception = f'the result cannot be unpickled here: {exc!r}'
        unreadable = OpenedOutcome(None, opened.stdout, opened.stderr, exception)
        unreadable.is_unreadable = True
        return unreadable
    return OpenedOutcome(result, opened.stdout, opened.stderr, exception)


def _story(reason: str, opened: Outcome) -> str:
    """How a process died that left no exception; what it wrote last may tell why."""
    words = last_words(opened.stdout, opened.stderr) if reason else ''
    return f'{reason}\n{words}' if words else reason
