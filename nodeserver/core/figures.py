"""What a node has to spare, as it tells with its pulses: measured when it is asked (E12)."""

from collections.abc import Callable

from nodeserver.core.effects import Effect, MeasureAvailability, Send
from nodeserver.core.events import AvailabilityMeasured
from nodeserver.core.messages import Availability, NodePulse, SchedulerPulse


class Figures:
    """The latest figures, and the schedulers that wait for fresh ones."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self.latest: Availability | None = None
        self._asked_by: list[str] = []
        self._emit = emit

    def pulse(self, peer: str, message: SchedulerPulse, now: float) -> None:
        """A scheduler wants a sign of life: it gets one with what is measured now."""
        if not self._asked_by:
            self._emit(MeasureAvailability())
        self._asked_by.append(peer)

    def measured(self, event: AvailabilityMeasured, now: float) -> None:
        """Answer everybody who has asked."""
        self.latest = event.availability
        for peer in self._asked_by:
            self._emit(Send(peer, NodePulse(self.latest)))
        self._asked_by.clear()
