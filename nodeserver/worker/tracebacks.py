"""The text of an exception for its user: the frames of this package are left out (D9)."""

import traceback
from pathlib import Path

import nodeserver

_OWN = str(Path(nodeserver.__file__).parent)


def describe(error: BaseException) -> str:
    """Format the traceback with the user's frames only."""
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
