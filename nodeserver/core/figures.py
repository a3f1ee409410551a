"""What a node tells of itself when it is asked: what it has to spare (E12), and how it is (Z07)."""

from collections.abc import Callable, Mapping
from typing import Any

from nodeserver.core.diagnosis import AskDiagnosis
from nodeserver.core.effects import Diagnose, Effect, MeasureAvailability, Send
from nodeserver.core.events import AvailabilityMeasured
from nodeserver.core.messages import Availability, NodePulse, SchedulerPulse
from nodeserver.core.nodefacts import Peer


class Figures:
    """The latest figures, and the schedulers that wait for fresh ones."""

    def __init__(
        self,
        emit: Callable[[Effect], None],
        peers: Mapping[str, Peer],
        status: Callable[[], list[str]],
    ) -> None:
        self.latest: Availability | None = None
        self.messages: dict[type[Any], Callable[[str, Any, float], None]] = {
            SchedulerPulse: self._pulse,
            AskDiagnosis: self._diagnosis,
        }
        self._asked_by: list[str] = []
        self._emit, self._peers, self._status = emit, peers, status

    def _pulse(self, peer: str, message: SchedulerPulse, now: float) -> None:
        """A scheduler wants a sign of life: it gets one with what is measured now."""
        if not self._asked_by:
            self._emit(MeasureAvailability())
        self._asked_by.append(peer)

    def _diagnosis(self, peer: str, message: AskDiagnosis, now: float) -> None:
        """A doctor asks; what holds the node is not touched by it."""
        self._emit(Diagnose(peer, self._peers[peer].address, message, self._status()))

    def measured(self, event: AvailabilityMeasured, now: float) -> None:
        """Answer everybody who has asked."""
        self.latest = event.availability
        for peer in self._asked_by:
            self._emit(Send(peer, NodePulse(self.latest)))
        self._asked_by.clear()
