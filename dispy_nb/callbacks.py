"""The thread on which users' callbacks run: one for the process, strictly in order (D10)."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_log = logging.getLogger('dispy_nb')

Call = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], None]]


class CallbackThread:
    """Calls users' functions one after the other; what they raise is shown and stops nothing."""

    def __init__(self) -> None:
        # a queue for each thread: one that is ended inside a callback takes none of the next's
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.current: Callable[..., Any] | None = None  # what runs now, for messages

    def put(
        self, function: Callable[..., Any], args: tuple[Any, ...], then: Callable[[Any], None]
    ) -> None:
        """Have `function(*args)` called, and `then(value)` after it (None if it raised)."""
        with self._lock:
            if self._thread is None:
                self._start_thread()
            self._calls.put((function, args, then))

    def is_current(self) -> bool:
        """Whether the caller is itself in a callback."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread once what was put has been called."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._calls.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _start_thread(self) -> None:
        calls: SimpleQueue[Call | None] = SimpleQueue()
        self._calls = calls
        self._thread = threading.Thread(
            target=self._run, args=(calls,), name='dispy-callbacks', daemon=True
        )
        self._thread.start()

    def _run(self, calls: SimpleQueue[Call | None]) -> None:
        while (call := calls.get()) is not None:
            function, args, then = call
            self.current = function
            value = None
            try:
                value = function(*args)
            except Exception:  # noqa: BLE001
                # the user's own function: its error is his to read, and the next call goes on
                _log.exception('%s raised', getattr(function, '__qualname__', function))
            finally:
                self.current = None
                then(value)
            del call, function, args, then, value
