"""How long a cluster lives: waiting for its jobs, and its end."""

import contextvars
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from dispy_nb import closing, rerun, runtime
from dispy_nb.interrupts import closing_early, waiting_for
from dispy_nb.job import check_timeout
from dispy_nb.options import ClusterOptions
from dispy_nb.prepared import ADOPTED
from dispy_nb.progress import ProgressLine
from dispy_nb.recovery.journal import Journal
from dispy_nb.verbs import Verbs
from nodeserver.core.errors import ClusterClosed, UsageError
from nodeserver.core.events import CancelAsked, CloseAsked
from nodeserver.core.recoveryeffects import Keeping

_log = logging.getLogger('dispy_nb')

CLOSE_TIMEOUT = 15.0  # seconds that nodes may take to tidy up


class Lifetime(Verbs):
    """The part of `JobCluster` that waits and closes."""

    _submitting: threading.Lock
    _unconfirmed = 'some nodes have not confirmed the end of the cluster'
    _blocks = 0  # `with` blocks of it that run
    _journal: Journal
    _journal_ends: Callable[[Journal], None] | None = None  # what is done in place of its removal
    _is_foreign: bool  # this process is a fork of the one that made it

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all jobs have ended and their callbacks have run (C17, C18).

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether all jobs have ended.
        """
        self._check_foreign()
        seconds = None if timeout is None else check_timeout(timeout)
        with ProgressLine(self, self._options.progress), waiting_for(self):
            return self._shell.wait_idle(seconds)

    def __call__(self) -> bool:
        """Wait until all jobs have ended."""
        return self.wait()

    def waiting(self) -> None:
        """Take note that somebody is about to wait for a job, where it could never end."""
        self._check_foreign()

    def disown(self) -> None:
        """In a fork of the program: the cluster belongs to the process that made it."""
        self._is_foreign = self._is_closed = True
        self._submitting = threading.Lock()  # a thread that is not here may have held the other

    def _check_open(self) -> None:
        self._check_foreign()
        if self._is_closed:
            raise ClusterClosed(f'cluster {self.name} is closed: no job can be submitted')

    def _check_foreign(self) -> None:
        if self._is_foreign:
            raise ClusterClosed(
                f'cluster {self.name} belongs to the process that this one was forked from: '
                'make a cluster of its own here'
            )

    def close(self, timeout: float | None = None, terminate: bool = False) -> bool:
        """Wait for pending jobs, then release the nodes; no job can be submitted after (C19-C21).

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for jobs at most.
        terminate : bool
            Whether jobs still pending then are cancelled.

        Returns
        -------
        bool
            True when the cluster is closed, whatever had to be cancelled (D15); False when jobs
            are pending after `timeout`: it stays open then.
        """
        if not isinstance(terminate, bool):
            raise UsageError(f'terminate must be True or False, not {terminate!r}')
        if self._is_foreign or self._shell.closed.is_set():
            return True
        callbacks_return = True
        if not self.wait(timeout):
            if not terminate:
                return False
            if self._shell.feeder is not None:
                self._shell.feeder.take_back()
            self._runtime.post(self._seat, CancelAsked(list(self._shell.jobs)))
            callbacks_return = self._shell.wait_idle(CLOSE_TIMEOUT)
        is_first = is_asked = False
        try:
            with self._submitting:
                is_first, self._is_closed = not self._is_closed, True
                if is_first:  # at once: who sees the mark may end the nodes, which is no loss then
                    self._runtime.post(self._seat, CloseAsked())
                    is_asked = True
            if not self._shell.closed.wait(CLOSE_TIMEOUT) and is_first:
                _log.warning('%s: %s', self.name, self._unconfirmed)
            if is_first and callbacks_return:
                self._shell.wait_idle(CLOSE_TIMEOUT)
        finally:  # also after Ctrl-C
            if is_first:
                self._release(is_asked)
        return True

    def _is_the_same(
        self, options: ClusterOptions, before: dict[str, Any], now: dict[str, Any]
    ) -> bool:
        """Whether a cell that is run again gets this cluster; else it is closed (V16)."""
        if self._is_closed:
            return False
        changed = rerun.changes(before, now)
        if not changed:
            rerun.take_over(before, now)
            for name in ADOPTED:
                setattr(self._options, name, getattr(options, name))
            self._shell.context = contextvars.copy_context()
            return True
        pending = len(self._shell.jobs)
        self.close(timeout=0, terminate=True)
        if pending:
            rerun.say(
                f'cluster {self.name} is made anew, since this changed: {", ".join(changed)}; '
                f'{pending} pending {"job was" if pending == 1 else "jobs were"} cancelled'
            )
        return False

    def _release(self, is_asked: bool) -> None:
        """Let go of all that the cluster holds here; only who has set the mark does so."""
        rerun.forget(self)
        self._shell.closed.set()
        self._data.close()
        self._runtime.call(self._files.close)
        self._runtime.detach(self._seat, self._computation, None if is_asked else CloseAsked())
        self._runtime.call(self._end_journal)
        closing.forget(self)
        runtime.release(self._runtime)

    def _keep_journal(self) -> None:
        """At the end of a kernel: have its results given back in the next one."""
        if self._journal.keeping == Keeping.ALL and self._shell.submitted:
            self._journal_ends = Journal.leave

    def _end_journal(self) -> None:
        if self._journal_ends is not None:
            self._journal_ends(self._journal)
        else:  # nothing is left to be recovered
            self._journal.file.remove()

    def _leave(self) -> None:
        """Let go of everything here; nodes go on, and keep what they have for another program."""
        with self._submitting:
            self._is_closed = True
        self._shell.closed.set()
        self._data.close()
        self._runtime.call(self._files.close)
        self._runtime.detach(self._seat, self._computation)
        self._runtime.call(self._end_journal)
        closing.forget(self)
        runtime.release(self._runtime, comes_back=True)

    def __enter__(self) -> Self:
        self._blocks += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: after all jobs, or at once with pending jobs cancelled if the block failed."""
        self._blocks -= 1
        if kind is None:
            self.close()
        else:
            with closing_early(self, error):
                self.close(timeout=0, terminate=True)
