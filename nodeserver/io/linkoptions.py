"""What all connections of one link share, whatever carries them."""

import asyncio
import hashlib
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import zmq

from nodeserver.core.events import Event
from nodeserver.io.certificate import TlsIdentity
from nodeserver.io.tlsthread import TlsThread
from nodeserver.wire.bulk import FileAccess, MemorySink, Sink
from nodeserver.wire.linkkeys import LinkKeys
from nodeserver.wire.session import Limits, Session

MSG_TIMEOUT = 5.0  # seconds
# Where the system itself notices that a wire is cut (`unacknowledged_timeout`), this is for peers
# that hang; an answer may be long in coming, behind a message of megabytes on a slow link.
_HEARTBEAT_TIMEOUT = 25.0 if sys.platform in ('linux', 'win32') else 8.0


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Times (seconds) and sizes of a link; the defaults are for use, tests shorten them.

    `sink` says what large payloads are gathered in: memory, or files for other processes;
    `files` opens those of peers on this machine, so that nothing has to be gathered.
    With `tls` all connections are made over TLS.
    """

    heartbeat_interval: float = 2.0
    heartbeat_timeout: float = _HEARTBEAT_TIMEOUT
    handshake_timeout: float = 5.0
    connect_timeout: float = 2.0
    unacknowledged_timeout: float = 3.0  # what was sent, and the other system has not got
    hello_interval: float = 1.0  # an unanswered greeting is repeated so often
    # A closed connection may come back for so long.  A gateway that has forgotten it refuses what
    # the listening side sends, and the other side finds out by its next heartbeat at the earliest.
    gone_after: float = 8.0
    local_gone_after: float = 2.0  # where the system tells both at once
    refused_retry: float = 5.0
    # A peer for which more than so many bytes wait, and that takes none of them for so many
    # seconds, is lost: what jobs write to it would fill the memory.
    most_unread: int = 1 << 30
    unread_patience: float = 60.0
    limits: Limits = field(default_factory=Limits)
    sink: Callable[[int], Sink] = MemorySink
    files: FileAccess | None = None
    tls: TlsIdentity | None = None
    takes: tuple[str, ...] = ()  # roles of peers that may connect, in place of the usual ones
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
        connect_timeout=usual.connect_timeout * max(1.0, scale),
        unacknowledged_timeout=usual.unacknowledged_timeout * max(1.0, scale),
        gone_after=usual.gone_after * scale,
        local_gone_after=usual.local_gone_after * scale,
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
    tls: TlsThread | None = None  # carries the connections, where they are made over TLS
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def name_for(self, listener: str) -> str:
        """Our name for the connections to a listener, which it and nobody else gets to know.

        Whoever connects under the name of another takes its place: a name that could be found
        out, as peer ids can, would do for that.
        """
        both = f'{self.us[0]} {listener}'.encode()
        return hashlib.blake2b(both, digest_size=16, key=self.seed).hexdigest()


def new_session(around: Surroundings, is_local: bool, name: str = '') -> Session:
    """Make a session, on the connecting side with the name of its connections.

    Large payloads go as files over a local socket (D7).
    """
    options = around.options
    files = options.files if is_local else None
    return Session(
        around.us,
        secrets.token_hex(8),
        options.limits,
        sink=options.sink,
        files=files,
        name=name,
    )
