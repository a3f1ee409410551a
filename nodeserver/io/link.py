"""The interface of what carries messages between roles (D3)."""

from typing import Protocol

from nodeserver.core.messages import Message


class Link(Protocol):
    """Carries messages to named peers; what happens on it is posted as events.

    A link posts `PeerConnected` before the first message of a peer, each message once and in
    its lane's order, and `PeerLost` when a peer is certainly gone.  All calls are made on the
    loop's thread.
    """

    def send(self, peer: str, message: Message) -> None:
        """Hand a message over; called by the driver for each effect `Send`.

        It never waits and never fails for a peer's sake: what cannot go out yet is kept, what
        is for an unknown peer is dropped, as the core has or will have `PeerLost` for it.
        """

    def disconnect(self, peer: str) -> None:
        """Forget a peer; called by the driver for `Disconnect`.  Posts nothing on this side."""

    def close(self) -> None:
        """End everything; called by a service after its core answered `Stop`."""
