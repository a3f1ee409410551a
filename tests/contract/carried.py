"""Two ends whose connection a relay carries, and the relay's port, in one loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from nodeserver.io.forwarding import FrontDoor
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.wire.linkkeys import LinkKeys
from tests.contract.ends import HOST, QUICK, End, ZmqEnd, new_id, until


class Relay:
    """The port of a relay that carries connections of one program to one node."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keys: LinkKeys | None) -> None:
        self.name = new_id()
        self.counts = [0]
        self._loop = loop
        self.door = FrontDoor(loop, keys, (HOST, 1), self.counts.append)
        self.port = self.door.listen(HOST, 0, '--relay_port')

    def serve(self, program: ZmqEnd, node: ZmqEnd) -> None:
        """Carry connections of a program to a node from now on."""
        self.door.admit(program.name)
        self.door.open_way(node.name, HOST, node.port)
        program.zmq.use_relay(self.name, HOST, self.port)

    def close(self) -> None:
        """End it, with all that it carries."""
        self._loop.run_until_complete(self.door.aclose())


@contextmanager
def carried_pair(
    loop: asyncio.AbstractEventLoop, keys: LinkKeys | None, options: LinkOptions = QUICK
) -> Iterator[tuple[End, End]]:
    """Connect two ends through a relay; the first one dials."""
    a, b, relay = ZmqEnd(loop, keys, options), ZmqEnd(loop, keys, options), Relay(loop, keys)
    try:
        b.port = b.zmq.listen(HOST, 0)
        relay.serve(a, b)
        a.zmq.connect(b.name, HOST, b.port, via=relay.name)
        until(loop, lambda: a.events and b.events)
        yield a, b
    finally:
        a.close()
        b.close()
        relay.close()
