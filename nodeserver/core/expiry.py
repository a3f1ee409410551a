"""Who is told that our certificate ends: each cluster, as soon as it is known."""

from collections.abc import Callable, Mapping

from nodeserver.core import levels
from nodeserver.core.computation import Computation
from nodeserver.core.effects import Effect, Send
from nodeserver.core.events import CertificateExpiring
from nodeserver.core.messages import Notice


class Expiry:
    """Passes the warning on, to clusters that are made later as well."""

    def __init__(
        self, computations: Mapping[int, Computation], emit: Callable[[Effect], None]
    ) -> None:
        self._computations = computations
        self._emit = emit
        self._text = ''

    def warned(self, event: CertificateExpiring, now: float) -> None:
        """It is to be said, once a day."""
        self._text = event.text
        for comp in self._computations.values():
            self.declared(comp)

    def declared(self, comp: Computation) -> None:
        """Tell a cluster, if there is something to tell."""
        if self._text:
            self._emit(Send(comp.client, Notice(comp.id, levels.WARNING, self._text)))
