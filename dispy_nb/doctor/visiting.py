"""Greets a node, or a relay, over a link of its own, and asks it how it is."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from dispy_nb.doctor.facts import LinkAnswer, RelayTold
from nodeserver.core.diagnosis import AskDiagnosis, Diagnosis
from nodeserver.core.events import Event, MessageArrived, PeerConnected, PeerLost, PeerRefusedUs
from nodeserver.core.messages import Message
from nodeserver.core.relaymessages import AskNodes, NodesSeen, RelayDetails
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.certificate import TlsIdentity
from nodeserver.io.dialer import Target
from nodeserver.io.keys import Secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.zmqlink import ZmqLink

_LINGER = 0.2
_TOKEN_SECONDS = 0.1  # a datagram may come after what was sent behind it
_RELAY_SECONDS = 1.0  # in which a relay hears of its nodes, if it did not know them
_MOST_NODES = 1000  # that a relay is believed to know


@dataclass(frozen=True, slots=True)
class Manner:
    """How nodes are visited: with which proofs, and for how long."""

    secret: Secret
    tls: TlsIdentity | None
    timeout: float
    node_port: int  # of the nodes that a relay is asked for


# a node's, with its clock minus ours; what a relay says; None: neither, it is gone
_Answer = tuple[Diagnosis, float] | RelayDetails | None


class Visitor:
    """One connection to one node; it opens no computation there, and so holds nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, manner: Manner, ask: AskDiagnosis) -> None:
        self._ask, self._manner = ask, manner
        self._greeted: asyncio.Future[LinkAnswer] = loop.create_future()
        self._answered: asyncio.Future[_Answer] = loop.create_future()
        self._nodes_seen: asyncio.Future[tuple[tuple[str, int], ...]] = loop.create_future()
        timeout = manner.timeout
        options = LinkOptions(handshake_timeout=timeout, hello_interval=timeout, tls=manner.tls)
        us = secrets.token_hex(16), SCHEDULER_ROLE
        self._link = ZmqLink(loop, self._post, us, manner.secret.link_keys(), options)

    async def visit(self, target: Target, heard: Callable[[bytes], bool | None]) -> LinkAnswer:
        """Connect, ask, and leave; each of both may take the time limit."""
        self._link.dial(target)
        timeout = self._manner.timeout
        try:
            async with asyncio.timeout(timeout):
                greeting = await self._greeted
        except TimeoutError:
            return LinkAnswer()
        if not greeting.connected:
            return greeting
        try:
            async with asyncio.timeout(timeout):
                found = await self._answered
        except TimeoutError:
            found = None
        if found is None:
            return greeting
        if isinstance(found, RelayDetails):
            return LinkAnswer(True, relay=await self._relay(found))
        diagnosis, clock = found
        if not heard(self._ask.token):
            await asyncio.sleep(_TOKEN_SECONDS)
        return LinkAnswer(True, '', diagnosis, clock, heard(self._ask.token))

    async def _relay(self, details: RelayDetails) -> RelayTold:
        """Hear which nodes a relay knows; of none it says nothing."""
        seconds = min(self._manner.timeout, _RELAY_SECONDS)
        await asyncio.wait([self._nodes_seen], timeout=seconds)
        nodes = self._nodes_seen.result() if self._nodes_seen.done() else ()
        place = details.host, details.port
        return RelayTold(details.name, bool(details.port), nodes, place)

    def close(self) -> None:
        """Leave."""
        self._link.close(_LINGER)

    def _post(self, event: Event) -> None:
        if isinstance(event, PeerConnected):
            self._greet(LinkAnswer(connected=True))
            self._link.send(event.peer, self._ask)
        elif isinstance(event, PeerRefusedUs):
            self._greet(LinkAnswer(refusal=event.reason))
        elif isinstance(event, PeerLost):
            self._learn(None)
        elif isinstance(event, MessageArrived):
            self._hear(event.peer, event.message)

    def _hear(self, peer: str, message: Message) -> None:
        if isinstance(message, Diagnosis):
            self._learn((message, message.clock - time.time()))
        elif isinstance(message, RelayDetails):
            self._learn(message)
            self._link.send(peer, AskNodes([self._manner.node_port]))
        elif isinstance(message, NodesSeen) and not self._nodes_seen.done():
            places = zip(message.addresses, message.asked_ports, strict=False)
            self._nodes_seen.set_result(tuple(dict.fromkeys(islice(places, _MOST_NODES))))

    def _greet(self, answer: LinkAnswer) -> None:
        if not self._greeted.done():
            self._greeted.set_result(answer)

    def _learn(self, found: _Answer) -> None:
        if not self._answered.done():
            self._answered.set_result(found)
