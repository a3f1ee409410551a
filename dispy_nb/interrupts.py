"""Interrupting a cell that waits: the waiting ends, the jobs go on, and that is said (V14)."""

import asyncio
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dispy_nb.awaiting import cell_interrupt
from dispy_nb.cells import variable_of
from dispy_nb.surroundings import running_shell

# by interrupt of an awaiting cell, the clusters that were told of
_told: weakref.WeakKeyDictionary[object, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


@contextmanager
def waiting_for(cluster: Any) -> Iterator[None]:
    """Somebody waits for jobs within the block; a notebook's user who ends it is told of them.

    In a program Ctrl-C is the end of it, of which others tell.
    """
    try:
        yield
    except KeyboardInterrupt:
        if running_shell() is not None and cluster is not None:
            sys.stderr.write(_words(cluster))
        raise
    except asyncio.CancelledError:
        interrupt = cell_interrupt()
        if cluster is not None and interrupt is not None:
            told = _told.setdefault(interrupt, weakref.WeakSet())
            if cluster not in told:  # of many jobs that are awaited at once, once
                told.add(cluster)
                sys.stderr.write(_words(cluster))
        raise


def say_cancelled(verb: str) -> None:
    """Tell a notebook's user what became of the calls of `map`: nobody could ask for results."""
    if running_shell() is not None:
        sys.stderr.write(f'interrupted: calls of {verb}() that had not ended were cancelled\n')


@contextmanager
def closing_early(cluster: Any, error: BaseException | None) -> Iterator[None]:
    """A cluster is closed within the block since an interrupt ended that of a `with`."""
    pending = cluster.snapshot().pending
    yield
    is_interrupt = isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
    if pending and is_interrupt and running_shell() is not None:
        jobs = 'job was' if pending == 1 else 'jobs were'
        sys.stderr.write(
            f'interrupted: the `with` block has ended, so cluster {cluster.name} is closed; '
            f'{pending} pending {jobs} cancelled\n'
        )


def _words(cluster: Any) -> str:
    pending = cluster.snapshot().pending
    if pending and cluster._blocks:
        return ''  # the end of its `with` block, to come, cancels them, and says so
    name = variable_of(cluster) or 'cluster'
    if not pending:
        return f'interrupted: all jobs of {cluster.name} have ended\n'
    jobs = 'job goes' if pending == 1 else 'jobs go'
    return (
        f'interrupted: only the waiting has ended, {pending} {jobs} on. '
        f'{name}.wait() waits again, {name}.cancel(job) cancels one, and '
        f'{name}.close(timeout=0, terminate=True) or `%dispy cancel {cluster.name} --all` cancels '
        'all.\n'
    )
