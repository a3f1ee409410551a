"""Interrupting a cell that waits: the waiting ends, the jobs go on, and that is said (V14)."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dispy_nb.awaiting import is_cell_interrupted
from dispy_nb.cells import variable_of
from dispy_nb.surroundings import running_shell


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
        if cluster is not None and is_cell_interrupted():
            sys.stderr.write(_words(cluster))
        raise


def say_cancelled() -> None:
    """Tell a notebook's user what became of the calls of `map`: nobody could ask for results."""
    if running_shell() is not None:
        sys.stderr.write('interrupted: calls of map() that had not ended were cancelled\n')


def _words(cluster: Any) -> str:
    pending = cluster.snapshot().pending
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
