"""`map` and `imap`, as clusters and their views offer them."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from dispy_nb.mapping import (
    LEAST_IN_FLIGHT,
    Target,
    check_calls,
    check_count,
    map_calls,
    map_lazily,
)


class MapVerbs:
    """Calls a cluster's function many times, a chunk of calls in each job."""

    def map(
        self, *iterables: Iterable[Any], chunksize: int | None = None, errors: str = 'raise'
    ) -> list[Any]:
        """Call the function for each item of the iterables; return the results in order (Z01).

        As with the builtin `map`, several iterables give several arguments, and the shortest
        one is the end.  A chunk of calls is one job: it runs in one process, and a process that
        dies takes the calls of its chunk along.

        Parameters
        ----------
        chunksize : int, optional
            Calls in one job.  By default chunks are large at first and smaller towards the end,
            so that tiny calls cost little and long ones are spread over all cpus.
        errors : {'raise', 'return', 'stop'}
            What becomes of calls that fail.  'raise': all calls are run, then the first failure
            in order is raised.  'return': exceptions stand in the places of results.  'stop':
            the first failure is raised at once, and what is pending is cancelled.

        Raises
        ------
        Exception
            What the function raised, with the traceback of the node as its cause.
        JobFailed
            A process died, a job was cancelled, or the exception cannot be made here.
        UsageError
            An argument has a wrong value.
        PicklingFailed
            An argument cannot travel; no call is left running.
        """
        check_calls(iterables, chunksize, errors)
        chunksize = self._chunksize(chunksize)
        target = self._target(known_cpus=chunksize is not None)
        with self._progress_line():
            return map_calls(target, iterables, chunksize, errors)

    def imap(
        self,
        *iterables: Iterable[Any],
        chunksize: int = 1,
        errors: str = 'raise',
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Yield the results of `map` in order, as soon as they are ready (Z01).

        The iterables are read no further ahead than needed and may be endless.  An iterator that
        is closed, or ends with an exception, cancels what it has on its way.

        Parameters
        ----------
        chunksize : int, default 1
            Calls in one job; more for tiny calls.
        errors : {'raise', 'return', 'stop'}
            'raise': a failure is raised in its place.  'return': exceptions are yielded in place
            of results.  'stop': a failure is raised as soon as it is known.
        buffersize : int, optional
            Jobs that run, wait to run, or wait for their results to be yielded, at most; by
            default a few for each cpu.
        """
        check_calls(iterables, chunksize, errors)
        check_count('chunksize', chunksize)
        if buffersize is not None:
            check_count('buffersize', buffersize)
        target = self._target(known_cpus=buffersize is not None)
        ahead = buffersize or max(LEAST_IN_FLIGHT, 4 * target.cpus)
        return map_lazily(target, iterables, chunksize, errors, ahead)

    def _chunksize(self, given: int | None) -> int | None:
        """How many calls to put into a job; None: as many as seems best."""
        return given

    # what they need

    def _target(self, known_cpus: bool) -> Target:
        """Where chunks go, and how many cpus there are if that matters."""
        raise NotImplementedError

    def _progress_line(self) -> AbstractContextManager[object]:
        """Show progress meanwhile."""
        raise NotImplementedError
