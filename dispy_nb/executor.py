"""`Executor`: the nodes of the network as a `concurrent.futures` executor."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from dispy_nb.cluster import JobCluster
from dispy_nb.futures import ClusterExecutor
from dispy_nb.mapping import check_count
from dispy_nb.options import ClusterOptions
from nodeserver.core.errors import UsageError
from nodeserver.worker.anyfunction import AnyFunction

_NO_INITIALIZER = 'an executor has none: let the functions load what they need, and keep it'
_ABSENT = {
    'computation': 'an executor takes a function with each call',
    'initializer': _NO_INITIALIZER,
    'initargs': _NO_INITIALIZER,
    'mp_context': 'the nodes start the processes',
}
_KNOWN = {field.name for field in fields(ClusterOptions)} - {'allocations'} | {'max_workers'}


def check_names(options: Iterable[str]) -> None:
    """Refuse what is no option of an executor, in Python's own words."""
    for name in options:
        if name in _ABSENT:
            raise UsageError(f'{name}: {_ABSENT[name]}')
        if name not in _KNOWN:
            raise TypeError(f'Executor() got an unexpected keyword argument {name!r}')


class Executor(ClusterExecutor):
    """Runs any function on the nodes, as `concurrent.futures` has it (Z03).

    It uses the nodes that a `JobCluster` would use, and `LocalNodes` of this program; while there
    are none, calls wait and `explain()` says why.  A process is kept for each cpu
    (``isolation='worker'``) unless asked otherwise.

    Parameters
    ----------
    max_workers : int, optional
        Most calls that are with the nodes at a time; by default all cpus are kept busy.
    **options
        Parameters of `JobCluster`, such as `nodes` and `secret`.

    Raises
    ------
    UsageError
        An option has a wrong value, or makes no sense here.
    TypeError
        There is no such option.
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        if max_workers is not None:
            check_count('max_workers', max_workers)
        check_names(options)
        options = {'isolation': 'worker', 'name': 'executor', **options}
        super().__init__(JobCluster(AnyFunction(), **options), max_workers)
