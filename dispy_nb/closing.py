"""The end of the program: open clusters wait for their jobs, and say so (D10).

The end of a notebook's kernel waits for nobody: jobs that run go on to their end on their nodes.
"""

import atexit
import logging
import os
import sys
from typing import Any

from dispy_nb import local

_log = logging.getLogger('dispy_nb')

SAY_AFTER = 5.0  # seconds

_kept: dict[int, Any] = {}  # an open cluster lives on though its name is gone: jobs may run
_pid = os.getpid()


def register(cluster: Any) -> None:
    """Have a cluster closed at the program's end if nobody closes it before."""
    _kept[id(cluster)] = cluster


def forget(cluster: Any) -> None:
    """A cluster was closed."""
    _kept.pop(id(cluster), None)


@atexit.register
def _close_all() -> None:
    if os.getpid() != _pid:
        return  # a fork of the program: the threads and the clusters are its parent's
    interrupted = isinstance(getattr(sys, 'last_value', None), KeyboardInterrupt)
    for cluster in list(_kept.values()):
        try:
            if not (in_kernel() and cluster.snapshot().pending):
                _close(cluster, interrupted)
        except KeyboardInterrupt:
            interrupted = True
            cluster.close(timeout=0, terminate=True)
    local.close_all()


def in_kernel() -> bool:
    """Whether this program is the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get('IPython'), 'get_ipython', None)
    return hasattr(get_ipython() if get_ipython is not None else None, 'kernel')


def _close(cluster: Any, interrupted: bool) -> None:
    if interrupted:
        cluster.close(timeout=0, terminate=True)
    elif not cluster.close(timeout=SAY_AFTER):
        _log.warning(
            '%s: waiting for %d pending jobs before the program ends; interrupt (Ctrl-C) to '
            'cancel them',
            cluster.name,
            cluster.snapshot().pending,
        )
        cluster.close()
