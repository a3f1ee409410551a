"""The thread on which users' callbacks run: one for the process, strictly in order (D10)."""

import contextvars
import inspect
import logging
import os
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from dispy_nb.cells import name_cells
from nodeserver.core.errors import UsageError

_log = logging.getLogger('dispy_nb')

SHOWN_IN_FULL = 5  # errors of one function

ARGUMENTS = {'callback': ('job',), 'cluster_status': ('status', 'node', 'job')}

Call = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], None], contextvars.Context | None]


class CallbackThread:
    """Calls users' functions one after the other; what they raise is shown and stops nothing."""

    def __init__(self) -> None:
        # a queue for each thread: one that is ended inside a callback takes none of the next's
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ending: threading.Thread | None = None  # was told to stop, and may be in a call
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget_parent)
        self.current: Callable[..., Any] | None = None  # what runs now, for messages
        self._raised: Counter[str] = Counter()

    def put(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        then: Callable[[Any], None],
        context: contextvars.Context | None = None,
    ) -> None:
        """Have `function(*args)` called, and `then(value)` after it (None if it raised).

        In a notebook the context tells which cell what it prints belongs to (V10).
        """
        with self._lock:
            if self._thread is None:
                self._start_thread()
            self._calls.put((function, args, then, context))

    def is_current(self) -> bool:
        """Whether the caller is itself in a callback."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread once what was put has been called."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._ending = thread
                self._calls.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _start_thread(self) -> None:
        calls: SimpleQueue[Call | None] = SimpleQueue()
        self._calls = calls
        self._thread = threading.Thread(
            target=self._run, args=(calls, self._ending), name='dispy-callbacks', daemon=True
        )
        self._ending = None
        self._thread.start()

    def _forget_parent(self) -> None:
        """In a fork of the program: its thread is not here, and its lock may be held."""
        self._lock = threading.Lock()
        self._thread = self._ending = self.current = None

    def _run(self, calls: SimpleQueue[Call | None], before: threading.Thread | None) -> None:
        if before is not None:
            before.join()  # never two callbacks at once
        while (call := calls.get()) is not None:
            function, args, then, context = call
            self.current = function
            value = None
            try:
                if context is None:
                    value = self._called(function, args)
                else:
                    # a copy, as a context cannot be entered twice: a callback may make a cluster
                    value = context.copy().run(self._called, function, args)
            finally:
                self.current = None
                then(value)
            del call, function, args, then, value, context

    def _called(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return function(*args)
        except BaseException as error:  # noqa: BLE001
            # the user's own function, sys.exit() included: its error is his to read, and the
            # next call goes on
            self._tell(getattr(function, '__qualname__', repr(function)), error)
            return None

    def _tell(self, name: str, error: BaseException) -> None:
        """Show the first errors of a function in full, and of thousands of others how many."""
        self._raised[name] = count = self._raised[name] + 1
        if count <= SHOWN_IN_FULL:
            trace = error.__traceback__ and error.__traceback__.tb_next  # the user's frames
            text = ''.join(traceback.format_exception(type(error), error, trace)).rstrip('\n')
            named = name_cells(text)
            if named == text:  # no cell has to do with it
                _log.exception('%s raised', name)
            else:
                _log.error('%s raised\n%s', name, named)
        elif count == 10 ** (len(str(count)) - 1):
            _log.error('%s has raised %d times by now; this time %r', name, count, error)


def check_callback(name: str, function: Any) -> None:
    """Refuse here what would fail at each call, with nobody there to see it but the log."""
    if function is None:
        return
    if not callable(function):
        raise UsageError(f'{name} must be a function or None, not {function!r}')
    if inspect.iscoroutinefunction(function):
        raise UsageError(f'{name} must be an ordinary function, not a coroutine: nobody awaits it')
    arguments = ARGUMENTS[name]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, and says nothing of its parameters
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        title = getattr(function, '__qualname__', None) or repr(function)
        raise UsageError(
            f'{name} is called as {name}({", ".join(arguments)}), which {title}{signature} '
            f'does not take: {error}'
        ) from None
