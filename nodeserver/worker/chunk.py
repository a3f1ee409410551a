"""A chunk: many calls of the computation in one job, so that tiny ones cost little.

One call's failure is its own: the others have their results.  An interrupt ends the whole job.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nodeserver.core.errors import PicklingFailed
from nodeserver.payload import CallFailure, dump_exception, dump_result
from nodeserver.wire.packed import Packed
from nodeserver.worker.tracebacks import describe


def run_chunk(
    computation: Callable[..., Any],
    calls: tuple[Any, ...],
    was_interrupted: Callable[[], bool],
) -> bytes | Packed:
    """Call the computation once for each row of the columns; answer the pickled results.

    The arguments `leading` stand first in every call.  With `stop` the first failure is the end;
    so is an interrupt that the node sent, but not one that a call raises by itself.
    """
    leading: tuple[Any, ...]
    columns: Sequence[Sequence[Any]]
    leading, columns, stop = calls
    values: list[Any] = []
    failures: dict[int, CallFailure] = {}
    append = values.append
    for row in zip(*columns, strict=True):
        try:
            append(computation(*leading, *row) if leading else computation(*row))
        except BaseException as error:
            if was_interrupted():
                raise
            failures[len(values)] = describe(error), dump_exception(error)
            append(None)
            if stop:
                break
    return _dump_values(values, failures)


def _dump_values(values: list[Any], failures: dict[int, CallFailure]) -> bytes | Packed:
    """Pickle what the calls gave; a value that cannot be pickled is its own call's failure."""
    try:
        return dump_result((values, failures))
    except PicklingFailed:
        for index, value in enumerate(values):
            try:
                dump_result(value)
            except PicklingFailed as error:
                failures[index] = describe(error), dump_exception(error)
                values[index] = None
    return dump_result((values, failures))
