"""The connecting end of a link that a relay carries: a DEALER as any other, by a detour."""

from collections.abc import Callable

from nodeserver.core.events import PeerRefusedUs
from nodeserver.io.carriedway import CarriedWay, CarryThread
from nodeserver.io.dialer import Target
from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.zmqdial import ZmqDialer
from nodeserver.wire.carriage import carriage_key


class Carriers:
    """The relays that carry connections of one link, and the thread on which that happens."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
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
            self._thread = CarryThread(self.around.us[0], carriage_key(self.around.keys))
        return self._thread

    def close(self, linger: float) -> None:
        """End the thread, once this side has closed its sockets."""
        if self._thread is not None:
            self._thread.close(linger)
            self._thread = None


class CarriedDialer(ZmqDialer):
    """Holds the DEALER of a node to which a relay carries the connection."""

    def __init__(
        self, carriers: Carriers, peer: str, target: Target, gone: Callable[[str], None]
    ) -> None:
        self._carriers = carriers
        self._way: CarriedWay | None = None
        self._told = ''
        super().__init__(carriers.around, peer, target, gone)

    def _endpoint(self) -> str:
        carriers, loop = self._carriers, self._around.loop
        way = self._way = CarriedWay(
            carriers.thread(),
            self._peer,
            lambda: carriers.place(self.target.via),
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

    def _on_connected(self) -> None:
        self._told = ''
        super()._on_connected()

    def _on_failed(self, way: CarriedWay, words: str, is_certain: bool) -> None:
        """Tell once why there is no connection; a node that refuses is certainly gone."""
        if way is not self._way:
            return
        if is_certain and self.is_greeted:
            self.give_up(words)
        elif words != self._told:
            self._told = words
            self._around.post(PeerRefusedUs(self._peer, str(self.target), words))
