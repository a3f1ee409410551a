"""The whole examination, within a time: this machine first, then each place as it is done.

basis: key, ports ─┬─ the other checks of this machine ── its own broadcast ─▶ tell(here)
                   ├─ broadcast ── a node is found ── Examiner ─▶ tell(place)
                   └─ each HOST named ── its address ── Examiner ─▶ tell(place)
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from dispy_nb.doctor import judgelocal, machine
from dispy_nb.doctor.facts import Echo, Order
from dispy_nb.doctor.findings import HERE, Fault, Finding, Level, fine
from dispy_nb.doctor.here import Basis, in_thread, look_at_basis, look_at_rest
from dispy_nb.doctor.judgenetwork import NETWORK, Around, judge_network
from dispy_nb.doctor.probing import Ears, Prober, missing_echoes
from dispy_nb.doctor.there import Examiner
from nodeserver.core.errors import DispyError
from nodeserver.core.events import Event, NodeFound, OtherKeySeen
from nodeserver.io import netif
from nodeserver.io.clientbeacon import ClientBeacon, ClientPlace
from nodeserver.wire.beacon import Asker, Role

Tell = Callable[[str, Sequence[Finding]], None]
Examining = Coroutine[Any, Any, list[Finding]]

DISCOVERY_SECONDS: Final = 2.0
MOST_EXAMINED: Final = 32  # of the nodes that answer a broadcast; any number can be named
_PING_GAPS: Final = (0.0, 0.2, 0.4, 0.6)
_ECHO_SECONDS: Final = 0.3
_PHASES: Final = 3  # that may each take the time limit: name, reach, greeting with diagnosis
_SPARE_SECONDS: Final = 0.5


async def examine(order: Order, given: machine.Credentials, tell: Tell) -> list[Finding]:
    """Run everything; each group of findings is told as soon as it is there.

    It ends within three times the time limit of a check and half a second; what is not done by
    then is said to be missing.
    """
    deadline = asyncio.get_running_loop().time() + _PHASES * order.timeout + _SPARE_SECONDS
    basis = await look_at_basis(order, given)
    with contextlib.ExitStack() as closing:
        examination = Examination(order, basis, tell, closing)
        try:
            await examination.run(deadline)
        finally:
            await examination.stop()
    return examination.findings


class Examination:
    """One run of all checks, once it is known whom this machine trusts."""

    def __init__(
        self, order: Order, basis: Basis, tell: Tell, closing: contextlib.ExitStack
    ) -> None:
        self.findings: list[Finding] = []
        self._untold: list[list[Finding]] = []
        self._is_here_told = False
        self._order, self._basis, self._tell = order, basis, tell
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[list[Finding]], str] = {}
        self._named: dict[str, list[asyncio.Future[str]]] = {}  # by address: which node it was
        self._names_left = len(order.targets)
        self._names_known = asyncio.Event()
        self._around = Around(bool(order.targets), order.node_port)
        self._answered: set[str] = set()  # addresses
        asker = Asker(secrets.token_hex(16), Role.CLIENT)
        self._ears = Ears(self._loop, order, basis.is_free, basis.secret, asker)
        closing.callback(self._ears.close)
        self._prober = Prober(self._loop, basis.secret, asker)
        closing.callback(self._prober.close)
        place = ClientPlace(port=0)
        self._beacon = ClientBeacon(self._loop, self._heard, basis.secret, asker, place)
        closing.callback(self._beacon.close)
        self._examiner = Examiner(order, basis, self._prober, self._ears)

    async def run(self, deadline: float) -> None:
        """Do all of it, and tell."""
        self._start(HERE, self._look_here())
        if not self._order.targets:
            self._names_known.set()
        for host, port in self._order.targets:
            self._start(host, self._examine_named(host, port))
        self._start(NETWORK, self._discover())
        while self._tasks:
            left = max(0.0, deadline - self._loop.time())
            done, _ = await asyncio.wait(
                self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                self._say(self._tasks.pop(task), task.result())
        for place in self._tasks.values():
            self._say(place, [self._unfinished(place)])

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, place: str, examining: Examining) -> None:
        self._tasks[self._loop.create_task(examining)] = place

    def _say(self, place: str, found: list[Finding]) -> None:
        """Tell of a place, but of none before this machine, which may explain the others."""
        if place == HERE:
            self._untold.insert(0, found)
            self._is_here_told = True
        else:
            self._untold.append(found)
        while self._is_here_told and self._untold:
            if group := self._untold.pop(0):
                self.findings += group
                self._tell(group[0].where, group)

    def _unfinished(self, place: str) -> Finding:
        advice = f'give it more time: --timeout {2 * self._order.timeout:g}'
        words = 'not done in time'
        return Finding('time', Level.WARNING, Fault.REACH, words, advice, place)

    # this machine

    async def _look_here(self) -> list[Finding]:
        """Run the other checks, and see whether our own pings come back meanwhile."""
        found, _ = await asyncio.gather(
            look_at_rest(self._order, self._basis), asyncio.sleep(_ECHO_SECONDS)
        )
        echoes: list[Echo] = []
        if self._ears.hears_broadcast or self._basis.is_served(self._order):
            heard = self._ears.echoes | self._answered
            rows = machine.look_at_networks().rows
            echoes = [Echo(*row) for row in missing_echoes(rows, heard)]
        found += self._basis.findings
        return found + judgelocal.judge_echoes(self._order, echoes, self._basis.ports)

    # the local network

    async def _discover(self) -> list[Finding]:
        """Ask the local network for a while; who answers is examined at once."""
        for gap in _PING_GAPS:
            await asyncio.sleep(gap)
            self._beacon.ping([], self._order.node_port)
        await asyncio.sleep(DISCOVERY_SECONDS - sum(_PING_GAPS))
        return judge_network(self._around, self._named)

    def _heard(self, event: Event) -> None:
        if isinstance(event, OtherKeySeen):
            self._around.strangers.add(event.address)
            self._answered.add(event.address)
            self._prober.saw_other_key(event.address, self._order.node_port)
        elif isinstance(event, NodeFound):
            self._answered.add(event.address)
            nodes = self._around.nodes
            before = nodes.get(event.node)
            if before is None or netif.is_loopback(before.address):
                nodes[event.node] = event
            if before is None and len(nodes) <= MOST_EXAMINED:
                self._start(event.address, self._examine_found(event.node))

    async def _examine_found(self, node: str) -> list[Finding]:
        """Examine a node that answered; one of this machine at the address that others use."""
        await asyncio.gather(self._names_known.wait(), asyncio.sleep(_PING_GAPS[1] / 2))
        found = self._around.nodes[node]
        for address in {found.address, found.asked} & self._named.keys():
            await asyncio.wait(self._named[address])
            if any(named.result() == node for named in self._named[address]):
                return []
        return (await self._examiner.examine_found(found))[1]

    # hosts that were named

    async def _examine_named(self, host: str, port: int) -> list[Finding]:
        """Find the address of a host, IPv4 first, and examine it."""
        try:
            addresses = await self._resolve(host)
            address = next((each for each in addresses if ':' not in each), addresses[0])
            met = self._loop.create_future()
            self._named.setdefault(address, []).append(met)
        except (TimeoutError, DispyError, OSError) as error:
            late = isinstance(error, TimeoutError)
            words = 'the name server does not answer in time' if late else 'no such host is known'
            advice = f'correct the name, add {host} to DNS or /etc/hosts, or give its address'
            return [Finding('name', Level.PROBLEM, Fault.NAMES, words, advice, host)]
        finally:
            self._names_left -= 1
            if not self._names_left:
                self._names_known.set()
        try:
            facts, found = await self._examiner.examine_named(host, address, port)
            met.set_result(facts.udp.node)
        finally:
            if not met.done():
                met.set_result('')
        if host != address:
            found.insert(0, fine('name', f'{host} is {", ".join(addresses)}', found[0].where))
        return found

    async def _resolve(self, host: str) -> list[str]:
        return await in_thread(lambda: netif.resolve(host), self._order.timeout)
