"""The checks of one place: UDP and TCP at once, then a greeting, then what the node says itself.

Where a node may be, a relay may be as well, at a port of its own: both are looked for.
"""

import asyncio
import secrets
from dataclasses import replace
from typing import Final

from dispy_nb.doctor import machine
from dispy_nb.doctor.facts import (
    LinkAnswer,
    NodeFacts,
    Order,
    OtherAddress,
    RelayTold,
    TcpAnswer,
    UdpAnswer,
)
from dispy_nb.doctor.findings import Finding
from dispy_nb.doctor.here import Basis, in_thread
from dispy_nb.doctor.judgenode import judge_node
from dispy_nb.doctor.judgerelay import is_ours, no_node
from dispy_nb.doctor.probing import Ears, Prober
from dispy_nb.doctor.visiting import Manner, Visitor
from nodeserver.core.diagnosis import TOKEN_SIZE, AskDiagnosis, Reach
from nodeserver.core.errors import DispyError
from nodeserver.core.events import NodeFound
from nodeserver.core.knocking import RELAY_PORT
from nodeserver.io import netif
from nodeserver.io.dialer import Target
from nodeserver.io.reaching import GREETING, answers_tls, is_zeromq, mechanism, try_tcp

_FIRST_WORDS_SECONDS: Final = 0.5
_OTHER_ADDRESS_SECONDS: Final = 1.0  # as a program tries it
_MOST_OTHER_ADDRESSES: Final = 4
MOST_AT_ONCE: Final = 16

Place = tuple[str, str, int]  # as it was named, address, port


class Examiner:
    """Examines places, some of them at the same time."""

    def __init__(self, order: Order, basis: Basis, prober: Prober, ears: Ears) -> None:
        self._order, self._basis, self._prober, self._ears = order, basis, prober, ears
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._versions = machine.look_at_versions()
        self._manner = Manner(basis.secret, basis.tls, order.timeout, order.node_port)

    async def examine_named(
        self, host: str, address: str, port: int
    ) -> tuple[NodeFacts, list[Finding]]:
        """Find out all about a place where a node should be, and whether a relay is there."""
        looks = [self._examine_place((host, address, port))]
        if port == self._order.node_port != RELAY_PORT:
            looks.append(self._examine_place((host, address, RELAY_PORT)))
        async with self._room:
            facts, *others = await asyncio.gather(*looks)
        relays = [each for each in others if is_ours(each)]
        found = [no_node(facts)] if relays and not is_ours(facts) else judge_node(facts)
        return facts, found + [line for each in relays for line in judge_node(each)]

    async def examine_found(self, node: NodeFound) -> tuple[NodeFacts, list[Finding]]:
        """Find out all about a node that has answered; others may share its UDP port."""
        address, port = node.address, node.asked_port or node.port
        async with self._room:
            udp, tcp = await asyncio.gather(
                self._prober.ping(address, port, self._order.timeout),
                self._try_tcp(address, node.port),
            )
            if udp.node != node.node:
                udp, port = UdpAnswer(Reach.OPEN, node.port, node.is_tls, node=node.node), node.port
            facts = await self._go_on((address, address, port), udp, tcp, was_named=False)
        return facts, judge_node(facts)

    async def _examine_place(self, place: Place) -> NodeFacts:
        _, address, port = place
        udp, tcp = await asyncio.gather(
            self._prober.ping(address, port, self._order.timeout),
            self._try_tcp(address, port),
        )
        if udp.port and udp.port != port:  # that one was in use when the node started
            tcp = await self._try_tcp(address, udp.port)
        return await self._go_on(place, udp, tcp, was_named=True)

    async def _go_on(
        self, place: Place, udp: UdpAnswer, tcp: TcpAnswer, *, was_named: bool
    ) -> NodeFacts:
        basis = self._basis
        facts = NodeFacts(
            *place,
            was_named,
            udp,
            tcp,
            neighbour=machine.neighbour(place[1]),
            key=basis.key,
            own=basis.own,
            ours=self._versions,
            client_port=self._order.port,
            certificate=basis.certificate,
            node_port=self._order.node_port,
        )
        link, other = await asyncio.gather(self._greet(facts), self._try_other_address(facts))
        if link is not None and link.relay is not None:
            link = replace(link, relay=await self._try_carrying(link.relay, facts.address))
        return replace(facts, link=link, other_address=other)

    async def _try_tcp(self, address: str, port: int) -> TcpAnswer:
        patience = _FIRST_WORDS_SECONDS
        first, then = (GREETING, b'') if self._basis.tls is None else (b'', GREETING)
        reach, words = await try_tcp(address, port, self._order.timeout, patience, first)
        is_tls = reach is Reach.OPEN and not words and await answers_tls(address, port, patience)
        if reach is Reach.OPEN and then and not (words or is_tls):  # a relay hears first
            _, words = await try_tcp(address, port, patience, patience, then)
        return TcpAnswer(reach, port, words, is_zeromq(words), mechanism(words), is_tls)

    async def _greet(self, facts: NodeFacts) -> LinkAnswer | None:
        """Go on to the link, where somebody is there who understands a greeting of ours."""
        is_tls_ours = bool(facts.certificate.kind)  # also where it cannot be used
        speaks = facts.tcp.is_tls if is_tls_ours else facts.tcp.is_zeromq
        if not speaks or facts.certificate.kind == 'unusable':
            return None
        token = secrets.token_bytes(TOKEN_SIZE)
        ask = AskDiagnosis(self._ears.tcp_port, self._ears.udp_port, token)
        visitor = Visitor(asyncio.get_running_loop(), self._manner, ask)
        try:
            return await visitor.visit(Target(facts.address, facts.tcp.port), self._ears.heard)
        finally:
            visitor.close()

    async def _try_carrying(self, told: RelayTold, address: str) -> RelayTold:
        """See whether a relay can be reached where it says that it carries connections."""
        host, port = told.ext_place
        if not told.carries or host in ('', address):
            return told
        seconds = min(self._order.timeout, _OTHER_ADDRESS_SECONDS)
        try:
            found = await in_thread(lambda: netif.resolve(host), seconds)
        except (TimeoutError, DispyError, OSError):
            return replace(told, ext_reach=Reach.UNREACHABLE)
        reach, _ = await try_tcp(found[0], port, seconds)
        return replace(told, ext_reach=reach)

    async def _try_other_address(self, facts: NodeFacts) -> OtherAddress | None:
        """Ask for the node at the address that it announces, as programs do that found it."""
        host, udp = facts.udp.ext_host, facts.udp
        if host in ('', facts.address):
            return None
        seconds = min(self._order.timeout, _OTHER_ADDRESS_SECONDS)
        try:
            found = await in_thread(lambda: netif.resolve(host), seconds)
        except (TimeoutError, DispyError, OSError):
            return OtherAddress(host)
        if facts.address in found:
            return None
        addresses = tuple(found[:_MOST_OTHER_ADDRESSES])
        answers = await asyncio.gather(
            *(self._prober.ping(address, facts.port, seconds) for address in addresses)
        )
        return OtherAddress(host, addresses, any(answer.node == udp.node for answer in answers))
