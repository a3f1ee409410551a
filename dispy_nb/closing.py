"""The end of the program: open clusters wait for their jobs, and say so (D10).

The end of a notebook's kernel waits for nobody: jobs that run go on to their end on their nodes.
"""

import atexit
import logging
import os
import sys
from typing import Any

from dispy_nb import local
from dispy_nb.interrupts import closing_early
from dispy_nb.surroundings import in_kernel

_log = logging.getLogger('dispy_nb')

SAY_AFTER = 5.0  # seconds

_kept: dict[int, Any] = {}  # an open cluster lives on though its name is gone: jobs may run


def register(cluster: Any) -> None:
    """Have a cluster closed at the program's end if nobody closes it before."""
    _kept[id(cluster)] = cluster


def forget(cluster: Any) -> None:
    """A cluster was closed."""
    _kept.pop(id(cluster), None)


def open_clusters() -> list[Any]:
    """Return the clusters of this program that nobody has closed, in the order they were made."""
    return list(_kept.values())


def _forget_parent() -> None:
    """In a fork of the program: the clusters are its parent's."""
    for cluster in _kept.values():
        cluster.disown()
    _kept.clear()


os.register_at_fork(after_in_child=_forget_parent)


class _Ending:
    """Whether the program ends."""

    has_begun = False


def _is_left(cluster: Any) -> bool:
    """Whether the end of a kernel leaves a cluster as it is: its jobs or callbacks take time."""
    return in_kernel() and not cluster._shell.is_idle()


@atexit.register
def _close_all() -> None:
    _Ending.has_begun = True
    interrupted = isinstance(getattr(sys, 'last_value', None), KeyboardInterrupt)
    try:
        for cluster in list(_kept.values()):
            if _is_left(cluster):
                continue
            if in_kernel():
                cluster._keep_journal()
            try:
                _close(cluster, interrupted)
            except KeyboardInterrupt:
                interrupted = True
                cluster.close(timeout=0, terminate=True)
            except Exception:  # noqa: BLE001 - the end of the program: the others are closed too
                _log.exception('%s could not be closed', cluster.name)
    finally:
        local.close_all()


def _close_clusters_of(nodes: set[tuple[str, int]], failed: bool) -> None:
    """Node servers are about to end: so do the clusters that have no others."""
    for cluster in list(_kept.values()):
        if not cluster.uses_only(nodes):
            continue
        if _Ending.has_begun and _is_left(cluster):  # what runs ends with its node
            cluster._cancel_all(list(cluster._shell.jobs.values()))
            continue
        with closing_early(cluster, sys.exc_info()[1]):
            _close(cluster, failed)


local.before_end(_close_clusters_of)


def _close(cluster: Any, at_once: bool) -> None:
    if at_once:
        cluster.close(timeout=0, terminate=True)
    elif not cluster.close(timeout=SAY_AFTER):
        _log.warning(
            '%s: waiting for %d pending jobs before the end; interrupt (Ctrl-C) to cancel them',
            cluster.name,
            cluster.snapshot().pending,
        )
        cluster.close()
