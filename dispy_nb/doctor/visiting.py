"""Greets a node over a link of its own, and asks it how it is."""

import asyncio
import secrets
import time
from collections.abc import Callable

from dispy_nb.doctor.facts import LinkAnswer
from nodeserver.core.diagnosis import AskDiagnosis, Diagnosis
from nodeserver.core.events import Event, MessageArrived, PeerConnected, PeerLost, PeerRefusedUs
from nodeserver.core.values import SCHEDULER_ROLE
from nodeserver.io.dialer import Target
from nodeserver.io.keys import Secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.zmqlink import ZmqLink

_LINGER = 0.2
_TOKEN_SECONDS = 0.1  # a datagram may come after what was sent behind it


class Visitor:
    """One connection to one node; it opens no computation there, and so holds nothing."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, secret: Secret, ask: AskDiagnosis, timeout: float
    ) -> None:
        self._ask = ask
        self._greeted: asyncio.Future[LinkAnswer] = loop.create_future()
        self._diagnosed: asyncio.Future[tuple[Diagnosis, float] | None] = loop.create_future()
        options = LinkOptions(handshake_timeout=timeout, hello_interval=timeout)
        us = secrets.token_hex(16), SCHEDULER_ROLE
        self._link = ZmqLink(loop, self._post, us, secret.link_keys(), options)

    async def visit(
        self, target: Target, timeout: float, heard: Callable[[bytes], bool | None]
    ) -> LinkAnswer:
        """Connect, ask, and leave; each of both may take `timeout` seconds."""
        self._link.dial(target)
        try:
            async with asyncio.timeout(timeout):
                greeting = await self._greeted
        except TimeoutError:
            return LinkAnswer()
        if not greeting.connected:
            return greeting
        try:
            async with asyncio.timeout(timeout):
                found = await self._diagnosed
        except TimeoutError:
            found = None
        if found is None:
            return greeting
        diagnosis, clock = found
        if not heard(self._ask.token):
            await asyncio.sleep(_TOKEN_SECONDS)
        return LinkAnswer(True, '', diagnosis, clock, heard(self._ask.token))

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
        elif isinstance(event, MessageArrived) and isinstance(event.message, Diagnosis):
            self._learn((event.message, event.message.clock - time.time()))

    def _greet(self, answer: LinkAnswer) -> None:
        if not self._greeted.done():
            self._greeted.set_result(answer)

    def _learn(self, found: tuple[Diagnosis, float] | None) -> None:
        if not self._diagnosed.done():
            self._diagnosed.set_result(found)
