"""The connecting end of a link that a relay carries: as any other, by a detour.

CarriedZmqDialer: DEALER ── CarriedWay ──▶ relay ──▶ node
CarriedTlsDialer: TlsThread ─────────────▶ relay ──▶ node      TLS begins on what is carried
"""

import asyncio
import socket
from collections.abc import Callable

from nodeserver.core.errors import NotCarried, PeerRefused
from nodeserver.core.events import PeerRefusedUs
from nodeserver.io.carriedway import CarriedWay, CarryThread
from nodeserver.io.carryrequest import Requester
from nodeserver.io.dialer import Dialer, Target
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.tlsdial import TlsDialer
from nodeserver.io.zmqdial import ZmqDialer
from nodeserver.wire.carriage import carriage_key


class Carriers:
    """The relays that carry connections of one link, and the thread on which that happens."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.requester = Requester(around.us[0], carriage_key(around.keys))
        self._places: dict[str, tuple[str, int]] = {}
        self._thread: CarryThread | None = None

    def use(self, relay: str, host: str, port: int) -> None:
        """Ask this relay there from now on; with port 0, not any more."""
        self._places.pop(relay, None)
        if port:
            self._places[relay] = (host, port)

    def place(self, relay: str) -> tuple[str, int] | None:
        """Where a relay takes connections to be carried; None while there is no such relay."""
        return self._places.get(relay)

    def thread(self) -> CarryThread:
        """Return the thread, which the first connection starts."""
        if self._thread is None:
            self._thread = CarryThread(self.requester)
        return self._thread

    def close(self, linger: float) -> None:
        """End the thread, once this side has closed its sockets."""
        if self._thread is not None:
            self._thread.close(linger)
            self._thread = None


class CarriedDialer(Dialer):
    """Holds the connection to a node that a relay carries, whatever is spoken over it."""

    def __init__(
        self, carriers: Carriers, peer: str, target: Target, gone: Callable[[str], None]
    ) -> None:
        self._carriers = carriers
        self._told = ''
        super().__init__(carriers.around, peer, target, gone)

    def _place(self) -> tuple[str, int] | None:
        """Where its relay is now; called on another thread."""
        return self._carriers.place(self.target.via)

    def _on_connected(self) -> None:
        self._told = ''
        super()._on_connected()

    def _not_carried(self, words: str, is_certain: bool) -> bool:
        """Tell once why there is no connection; whether it is tried again.

        A node that refuses is certainly gone.
        """
        if is_certain and self.is_greeted:
            self.give_up(words)
            return False
        if words != self._told:
            self._told = words
            self._around.post(PeerRefusedUs(self._peer, str(self.target), words))
        return True


class CarriedZmqDialer(CarriedDialer, ZmqDialer):
    """Holds the DEALER of such a node."""

    def __init__(
        self, carriers: Carriers, peer: str, target: Target, gone: Callable[[str], None]
    ) -> None:
        self._way: CarriedWay | None = None
        super().__init__(carriers, peer, target, gone)

    def _endpoint(self) -> str:
        loop = self._around.loop
        way = self._way = CarriedWay(
            self._carriers.thread(),
            self._peer,
            self._place,
            lambda words, is_certain: loop.call_soon_threadsafe(
                self._on_failed, way, words, is_certain
            ),
        )
        return way.endpoint

    def _look_whether_gone(self) -> None:
        """The relay tells: what has this address on our own network is another machine."""

    def _shut(self, linger: float) -> None:
        super()._shut(linger)
        if self._way is not None:
            self._way.close()
            self._way = None

    def _on_failed(self, way: CarriedWay, words: str, is_certain: bool) -> None:
        if way is self._way:
            self._not_carried(words, is_certain)


class CarriedTlsDialer(CarriedDialer, TlsDialer):
    """Holds the stream to such a node, whose certificate it sees: the relay's is not enough."""

    async def _reach(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        return await self._carriers.requester.ask(loop, self._peer, self._place)

    def _failed(self, error: PeerRefused | OSError) -> None:
        if not isinstance(error, NotCarried):
            super()._failed(error)
        elif self._not_carried(str(error), error.is_certain):
            self._open_later()
