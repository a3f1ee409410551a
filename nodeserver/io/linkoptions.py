"""What all connections of one link share, whatever carries them."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import zmq

from nodeserver.core.events import Event
from nodeserver.wire.bulk import FileAccess, MemorySink, Sink
from nodeserver.wire.linkkeys import LinkKeys
from nodeserver.wire.session import Limits, Session

MSG_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Times (seconds) and sizes of a link; the defaults are for use, tests shorten them.

    `sink` says what large payloads are gathered in: memory, or files for other processes;
    `files` opens those of peers on this machine, so that nothing has to be gathered.
    """

    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 15.0
    handshake_timeout: float = 5.0
    hello_interval: float = 1.0  # an unanswered greeting is repeated so often
    gone_after: float = 2.0  # a closed connection may come back for so long
    refused_retry: float = 5.0
    # A peer for which more than so many bytes wait, and that takes none of them for so many
    # seconds, is lost: what jobs write to it would fill the memory.
    most_unread: int = 1 << 30
    unread_patience: float = 60.0
    limits: Limits = field(default_factory=Limits)
    sink: Callable[[int], Sink] = MemorySink
    files: FileAccess | None = None
    # who is behind an address that a connection comes from, where others are joined to our own
    origin: Callable[[str], str] = str


def patient_options(msg_timeout: float) -> LinkOptions:
    """Times of a link where a peer has `msg_timeout` seconds to say who it is.

    The other times that rule when a connection is given up keep their proportion to it.
    """
    usual, scale = LinkOptions(), msg_timeout / MSG_TIMEOUT
    return replace(
        usual,
        handshake_timeout=usual.handshake_timeout * scale,
        heartbeat_interval=usual.heartbeat_interval * scale,
        heartbeat_timeout=usual.heartbeat_timeout * scale,
        gone_after=usual.gone_after * scale,
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sockets of one link share."""

    loop: asyncio.AbstractEventLoop
    context: zmq.Context[zmq.Socket[bytes]]
    post: Callable[[Event], None]
    posted: Callable[[], None]  # called after the last `post` for what came together
    us: tuple[str, str]  # peer id and role
    keys: LinkKeys | None
    options: LinkOptions
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def routing_id(self, listener: str) -> bytes:
        """Our name for the connections to a listener, which it and nobody else gets to know.

        Whoever connects under the name of another takes its place: a name that could be found
        out, as peer ids can, would do for that.
        """
        digest = hashlib.blake2b(listener.encode(), digest_size=16, key=self.seed)
        return digest.hexdigest().encode()


def new_session(around: Surroundings, is_local: bool) -> Session:
    """Make a session; large payloads go as files over a local socket (D7)."""
    options = around.options
    files = options.files if is_local else None
    return Session(around.us, secrets.token_hex(8), options.limits, sink=options.sink, files=files)
