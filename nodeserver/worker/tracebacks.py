"""The text of an exception for its user: the frames of this package are left out (D9)."""

import traceback
from pathlib import Path

import nodeserver

_OWN = str(Path(nodeserver.__file__).parent)


def describe(error: BaseException) -> str:
    """Format the traceback with the user's frames only."""
    story = traceback.TracebackException.from_exception(error)
    _trim(story, set())
    return ''.join(story.format()).rstrip('\n')


def _trim(story: traceback.TracebackException | None, seen: set[int]) -> None:
    if story is None or id(story) in seen:
        return
    seen.add(id(story))
    story.stack = traceback.StackSummary.from_list(
        [frame for frame in story.stack if not frame.filename.startswith(_OWN)]
    )
    _trim(story.__cause__, seen)
    _trim(story.__context__, seen)
    for inner in getattr(story, 'exceptions', None) or ():
        _trim(inner, seen)
