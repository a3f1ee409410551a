"""The checks of one place: UDP and TCP at once, then a greeting, then what the node says itself."""

import asyncio
import secrets
from dataclasses import replace
from typing import Final

from dispy_nb.doctor import machine
from dispy_nb.doctor.facts import NodeFacts, Order, TcpAnswer, UdpAnswer
from dispy_nb.doctor.findings import Finding
from dispy_nb.doctor.here import Basis
from dispy_nb.doctor.judgenode import judge_node
from dispy_nb.doctor.probing import Ears, Prober
from dispy_nb.doctor.visiting import Visitor
from nodeserver.core.diagnosis import TOKEN_SIZE, AskDiagnosis, Reach
from nodeserver.core.events import NodeFound
from nodeserver.io.dialer import Target
from nodeserver.io.reaching import is_zeromq, mechanism, try_tcp

_FIRST_WORDS_SECONDS: Final = 0.5
MOST_AT_ONCE: Final = 16


class Examiner:
    """Examines places, some of them at the same time."""

    def __init__(self, order: Order, basis: Basis, prober: Prober, ears: Ears) -> None:
        self._order, self._basis, self._prober, self._ears = order, basis, prober, ears
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._versions = machine.look_at_versions()

    async def examine_named(
        self, host: str, address: str, port: int
    ) -> tuple[NodeFacts, list[Finding]]:
        """Find out all about a place where a node should be."""
        async with self._room:
            udp, tcp = await asyncio.gather(
                self._prober.ping(address, port, self._order.timeout),
                self._try_tcp(address, port),
            )
            if udp.port and udp.port != port:  # that one was in use when the node started
                tcp = await self._try_tcp(address, udp.port)
            return await self._go_on((host, address, port), udp, tcp, was_named=True)

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
            return await self._go_on((address, address, port), udp, tcp, was_named=False)

    async def _go_on(
        self, place: tuple[str, str, int], udp: UdpAnswer, tcp: TcpAnswer, *, was_named: bool
    ) -> tuple[NodeFacts, list[Finding]]:
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
        )
        facts = await self._greet(facts)
        return facts, judge_node(facts)

    async def _try_tcp(self, address: str, port: int) -> TcpAnswer:
        reach, words = await try_tcp(address, port, self._order.timeout, _FIRST_WORDS_SECONDS)
        return TcpAnswer(reach, port, words, is_zeromq(words), mechanism(words))

    async def _greet(self, facts: NodeFacts) -> NodeFacts:
        """Go on to the link, where somebody is there who understands a greeting."""
        if facts.tcp.reach is not Reach.OPEN or not facts.tcp.is_zeromq:
            return facts
        token = secrets.token_bytes(TOKEN_SIZE)
        ask = AskDiagnosis(self._ears.tcp_port, self._ears.udp_port, token)
        loop, timeout = asyncio.get_running_loop(), self._order.timeout
        visitor = Visitor(loop, self._basis.secret, ask, timeout)
        try:
            target = Target(facts.address, facts.tcp.port)
            return replace(facts, link=await visitor.visit(target, timeout, self._ears.heard))
        finally:
            visitor.close()
