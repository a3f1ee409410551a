"""What a scheduler's core is made of, for those of its modules that need several of the others."""

from collections.abc import Callable

from nodeserver.core.deadlines import Deadlines
from nodeserver.core.dispatch import Dispatch
from nodeserver.core.effects import Effect, Send
from nodeserver.core.endings import Endings
from nodeserver.core.fairdispatch import FairDispatch
from nodeserver.core.fairness import Ring, Shares
from nodeserver.core.fileroutes import FileRoutes
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import Message
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.steering import Steering
from nodeserver.core.watching import Watching


class Parts:
    """The small machines of one scheduler, and the way out of it."""

    def __init__(
        self,
        emit: Callable[[Effect], None],
        is_tls: bool,
        is_shared: bool,
        order: Ring | Shares,
    ) -> None:
        self.emit = emit
        self.fleet = Recruiting(emit, self._node_changed, is_tls)
        self.records = self.fleet.records
        self.fleet.is_shared = is_shared
        kind = FairDispatch if is_shared else Dispatch
        self.dispatch = kind(self.fleet, emit, order)
        self.endings = Endings(self.dispatch, self.records, emit, is_shared)
        self.steering = Steering(self.fleet, self.dispatch, self.endings, emit, is_shared)
        self.watching = Watching(self.fleet, emit)
        self.deadlines = Deadlines(self.fleet, self.watching)
        self.files = FileRoutes(self.fleet, emit)

    def send(self, peer: str, message: Message) -> None:
        """Tell a node or a client something."""
        self.emit(Send(peer, message))

    def _node_changed(self, node: NodeRecord) -> None:
        self.dispatch.place(node)
