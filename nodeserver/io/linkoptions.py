"""What all connections of one link share, whatever carries them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from nodeserver.core.events import Event
from nodeserver.wire.linkkeys import LinkKeys
from nodeserver.wire.session import Limits


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Times (seconds) and sizes of a link; the defaults are for use, tests shorten them."""

    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 15.0
    handshake_timeout: float = 5.0
    hello_interval: float = 1.0  # an unanswered greeting is repeated so often
    gone_after: float = 2.0  # a closed connection may come back for so long
    refused_retry: float = 5.0
    limits: Limits = field(default_factory=Limits)


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
