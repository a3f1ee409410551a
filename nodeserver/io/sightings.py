"""Which address a node is used at, of those at which it answered, and when that is told.

    PONG ─▶ known there, and connected ─▶ nothing
         ├▶ by IPv6, where IPv4 may answer too ─▶ a moment later, unless that has answered
         └▶ wants another address (`--ext_ip_addr`) ─▶ asked there, under our key ─▶ NodeFound

A node that asks to be called at another address is used there if the same node answers there, and
where it answered us if not: behind one gateway its outside address is often of no use.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from nodeserver.core.events import Event, NodeFound
from nodeserver.io.datagrams import Throttle
from nodeserver.io.resolver import Resolver
from nodeserver.io.udp import NONCE_LIFETIME

IPV4_GRACE: Final = 0.5  # people know nodes by their IPv4 addresses, which others then match
_SAME_INTERVAL: Final = 0.1  # an answer like the last one is nothing new; recordings are many
_UNWANTED_INTERVAL: Final = 15.0  # in which a node that nobody wants is asked once
_TRIES: Final = (0.1, 0.2, 0.3, 0.4)  # seconds after which the other address is asked again
_UNREACHED_LIFETIME: Final = 60.0
_MOST_NODES: Final = 16384
_MOST_ADDRESSES: Final = 8  # of one node
_MOST_ASIDE: Final = 4096  # nodes whose other address is awaited
_MOST_TRIED: Final = 4  # addresses of one host name
_TELL_INTERVAL: Final = 600.0
_MOST_TOLD: Final = 20  # in that time

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What answers of a node have shown."""

    addresses: set[tuple[str, int]] = field(default_factory=set)
    ipv4_at: float = float('-inf')
    is_wanted: bool = False
    latest: tuple[str, int] = ('', 0)  # where it answered last, and when
    latest_at: float = float('-inf')
    unreached_at: float = float('-inf')  # its other address, when that was tried last


@dataclass(slots=True)
class _Aside:
    """A node that answered, and whose other address is asked."""

    found: NodeFound
    host: str
    addresses: list[str]
    timer: asyncio.TimerHandle | None = None


class Sightings:
    """Takes the answers of nodes, and posts a `NodeFound` where that says anything new."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Event], None],
        ping: Callable[[str, int], None],
    ) -> None:
        self._loop, self._post, self._ping = loop, post, ping
        self.is_connected: Callable[[str], bool] = lambda node: False
        self.ipv4_names: frozenset[str] = frozenset()  # of interfaces on which IPv4 is asked too
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._held: dict[str, asyncio.TimerHandle] = {}
        self._aside: dict[str, _Aside] = {}
        self._resolver = Resolver(loop)
        self._looked_up: set[str] = set()  # nodes whose other address is asked for by name
        self._told = Throttle(_TELL_INTERVAL, _MOST_TOLD)

    def wanted(self, node: str) -> None:
        """It is connected to: whenever it is not, its announcements are of interest."""
        if node in self._known:
            self._known[node].is_wanted = True

    def is_settled(self, node: str, address: str, port: int) -> bool:
        """Whether an announcement of this node from this address is nothing new."""
        known = self._known.get(node)
        if known is None or (address, port) not in known.addresses:
            return False
        if known.is_wanted:
            return self.is_connected(node)
        return self._loop.time() - known.latest_at < _UNWANTED_INTERVAL

    def seen(self, found: NodeFound, ext_host: str, is_named: bool) -> None:
        """A node answered; `is_named`: it was asked by its address, and not with all others."""
        now = self._loop.time()
        place = found.address, found.asked_port
        before = self._known.get(found.node)
        is_old = before is not None and place in before.addresses
        settled = is_old and self.is_connected(found.node)
        known = self._remember(found)
        again = known.latest == place and now - known.latest_at < _SAME_INTERVAL
        if not again:
            known.latest, known.latest_at = place, now
        if ':' not in found.address:
            known.ipv4_at = now
            self._release(found.node)
        if settled or again:
            return
        if found.address.startswith('fe80:') and not is_named:
            if now - known.ipv4_at < NONCE_LIFETIME or found.node in self._held:
                return
            if found.address.partition('%')[2] in self.ipv4_names:
                self._hold(found, ext_host)
                return
        self._place(found, ext_host)

    def close(self) -> None:
        """Post nothing more."""
        for timer in self._held.values():
            timer.cancel()
        for aside in self._aside.values():
            if aside.timer is not None:
                aside.timer.cancel()
        self._held.clear()
        self._aside.clear()
        self._resolver.close()

    def _remember(self, found: NodeFound) -> _Known:
        known = self._known.get(found.node)
        if known is None:
            known = self._known[found.node] = _Known()
            if len(self._known) > _MOST_NODES:
                self._known.popitem(last=False)
        if len(known.addresses) >= _MOST_ADDRESSES:
            known.addresses.clear()
        known.addresses.add((found.address, found.asked_port))
        return known

    # IPv6, where there is IPv4

    def _hold(self, found: NodeFound, ext_host: str) -> None:
        if len(self._held) < _MOST_ASIDE:
            self._held[found.node] = self._loop.call_later(
                IPV4_GRACE, self._let_go, found, ext_host
            )

    def _let_go(self, found: NodeFound, ext_host: str) -> None:
        del self._held[found.node]
        self._place(found, ext_host)

    def _release(self, node: str) -> None:
        if node in self._held:
            self._held.pop(node).cancel()

    # other addresses

    def _place(self, found: NodeFound, ext_host: str) -> None:
        if ext_host in ('', found.address):
            self._reached(found)
        # an answer can be sent again by anybody, from any place: one of each node waits
        elif found.node not in self._looked_up and len(self._looked_up) < _MOST_ASIDE:
            self._looked_up.add(found.node)
            self._resolver.resolve(
                ext_host, lambda addresses: self._resolved(found, ext_host, addresses)
            )

    def _resolved(self, found: NodeFound, host: str, addresses: list[str]) -> None:
        self._looked_up.discard(found.node)
        addresses = addresses[:_MOST_TRIED]
        known = self._known.get(found.node) or _Known()
        if found.address in addresses:
            self._reached(found)
        elif not addresses:
            self._fall_back(found, host, 'which has no address')
        elif self._loop.time() - known.unreached_at < _UNREACHED_LIFETIME:
            self._post(_at(found, addresses[0]))
        elif found.node not in self._aside and len(self._aside) < _MOST_ASIDE:
            aside = self._aside[found.node] = _Aside(found, host, addresses)
            self._try(aside, list(_TRIES))

    def _try(self, aside: _Aside, pauses: list[float]) -> None:
        if not pauses:
            found = aside.found
            del self._aside[found.node]
            if found.node in self._known:
                self._known[found.node].unreached_at = self._loop.time()
            self._fall_back(found, aside.host, 'where it does not answer us', aside.addresses[0])
            return
        for address in aside.addresses:
            self._ping(address, aside.found.asked_port)
        aside.timer = self._loop.call_later(pauses.pop(0), self._try, aside, pauses)

    def _reached(self, found: NodeFound) -> None:
        """It is used where this answer came from, and goes by the address of the first one too."""
        aside = self._aside.pop(found.node, None)
        if aside is not None:
            if aside.timer is not None:
                aside.timer.cancel()
            found = _at(found, aside.found.address)
        self._post(found)

    def _fall_back(self, found: NodeFound, host: str, why: str, address: str = '') -> None:
        if self._told.allows(found.node, self._loop.time()):
            _log.info(
                'a node at %s wants to be called at %s, %s: it is used at %s',
                *(found.address, host, why, found.address),
            )
        self._post(_at(found, address) if address else found)


def _at(found: NodeFound, asked: str) -> NodeFound:
    """Say that the node goes by another address than its own, too."""
    return replace(found, asked=asked if asked != found.address else '')
