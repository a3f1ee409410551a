"""The link inside one process: message objects change hands, nothing is encoded."""

from collections.abc import Callable
from typing import Self

from nodeserver.core.events import Event, MessageArrived, PeerConnected, PeerLost
from nodeserver.core.messages import Message

Post = Callable[[Event], None]


class LocalLink:
    """One end of a pair; it posts to the other end's core and never calls into it."""

    def __init__(self, name: str, post: Post) -> None:
        self._name = name
        self._post = post
        self._other: LocalLink | None = None

    @classmethod
    def pair(cls, post_a: Post, post_b: Post, name_a: str, name_b: str) -> tuple[Self, Self]:
        """Make both ends, `name_a`'s first; each core is told of the other at once."""
        a, b = cls(name_a, post_a), cls(name_b, post_b)
        a._other, b._other = b, a
        post_a(PeerConnected(name_b, ''))
        post_b(PeerConnected(name_a, ''))
        return a, b

    def send(self, peer: str, message: Message) -> None:
        """Post the message to the other end, called by the driver for `Send`."""
        other = self._other
        if other is not None and other._name == peer:
            other._post(MessageArrived(self._name, message))

    def disconnect(self, peer: str) -> None:
        """Part the two ends, called by the driver for `Disconnect`."""
        other = self._other
        if other is not None and other._name == peer:
            self._other = other._other = None
            other._post(PeerLost(self._name, 'it closed the connection'))

    def close(self) -> None:
        """Part the two ends, called by a service that ends."""
        if self._other is not None:
            self.disconnect(self._other._name)
