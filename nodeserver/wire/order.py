"""Which messages may overtake a large one of their computation that travels in parts."""

from collections import Counter

from nodeserver.core.messages import (
    CancelJobs,
    CloseComputation,
    ComputationClosed,
    ComputationReady,
    ComputationRefused,
    DeclareComputation,
    DropData,
    JobsDone,
    JobsHeld,
    JobsProvisional,
    JobsRequeued,
    JobsRetried,
    JobsReturned,
    JobsSettled,
    JobsStarted,
    Message,
    OpenComputation,
    ResubmitJobs,
    ShareData,
    SubmitJobs,
)

Kinds = tuple[type[Message], ...]

# who does not know a computation yet could only drop what is said of it
_OPENINGS: Kinds = (DeclareComputation, OpenComputation)
# the moves of a job are told in their order, and all of them before its end
_MOVES: Kinds = (JobsStarted, JobsProvisional, JobsRequeued, JobsRetried)
_ENDS: Kinds = (JobsDone, JobsSettled, JobsReturned, JobsHeld)
# of each kind those that it stays behind, besides the openings
_BEHIND: dict[type[Message], Kinds] = {
    **dict.fromkeys((*_MOVES, JobsDone, JobsSettled), _MOVES),
    # a handover is over when all was told before, and a close when nothing is left
    **dict.fromkeys(
        (JobsHeld, ComputationReady, ComputationRefused, ComputationClosed), _MOVES + _ENDS
    ),
    **dict.fromkeys((CancelJobs, CloseComputation), (SubmitJobs, ResubmitJobs, CancelJobs)),
    DropData: (ShareData,),  # what was told to be forgotten must not come afterwards
}
_OPENINGS_OR: dict[type[Message], Kinds] = {
    kind: _OPENINGS + ahead for kind, ahead in _BEHIND.items()
}
Place = tuple[int, type[Message]]


def place_of(message: Message) -> Place:
    """What a message is found by: its computation, 0 if it has none, and its kind."""
    return getattr(message, 'computation', 0), type(message)


class Waiting:
    """The messages that are on the bulk lane."""

    def __init__(self) -> None:
        self._count: Counter[Place] = Counter()

    def enter(self, place: Place) -> None:
        """A message waits there."""
        self._count[place] += 1

    def leave(self, place: Place) -> None:
        """Its last part was sent."""
        self._count[place] -= 1
        if not self._count[place]:
            del self._count[place]

    def clear(self) -> None:
        """None of them will be sent."""
        self._count.clear()

    def hold_up(self, message: Message) -> bool:
        """Whether one waits there that this message must not overtake."""
        if not self._count:
            return False
        computation, kind = place_of(message)
        return any((computation, k) in self._count for k in _OPENINGS_OR.get(kind, _OPENINGS))
