"""The text of an exception for its user, without frames of this package and its pickler (D9)."""

import contextlib
import traceback
from pathlib import Path

import cloudpickle

import nodeserver

_OWN = tuple(str(Path(package.__file__ or '').parent) for package in (nodeserver, cloudpickle))
_RESERVE_SIZE = 4 << 20  # of addresses: it is never written to and takes no memory
_reserve: list[bytes] = []


def describe(error: BaseException) -> str:
    """Format the traceback with the user's frames only; works also where memory ran out."""
    try:
        return _formatted(error)
    except MemoryError:
        make_room()
        traceback.clear_frames(error.__traceback__)
    try:
        return _formatted(error)
    except MemoryError:
        return 'MemoryError'


def keep_reserve() -> None:
    """Set aside what `make_room` gives back."""
    if not _reserve:
        with contextlib.suppress(MemoryError):
            _reserve.append(bytes(_RESERVE_SIZE))


def make_room() -> None:
    """Have some memory to report with, though the job holds all that it may."""
    _reserve.clear()


def _formatted(error: BaseException) -> str:
    story = traceback.TracebackException.from_exception(error)
    _trim(story)
    return ''.join(story.format()).rstrip('\n')


def _trim(story: traceback.TracebackException) -> None:
    """Leave our frames out; without recursion, as a chain of causes may be thousands long."""
    waiting: list[traceback.TracebackException | None] = [story]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list(
            [frame for frame in one.stack if not frame.filename.startswith(_OWN)]
        )
        waiting += (one.__cause__, one.__context__, *(getattr(one, 'exceptions', None) or ()))
