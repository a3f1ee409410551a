"""Two ends of a link in one loop, and what a contract test asks of them."""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import zmq
from zmq.utils import z85

from nodeserver.core.events import Event, MessageArrived, PeerConnected, PeerLost, PeerRefusedUs
from nodeserver.core.messages import Farewell, Message
from nodeserver.io.link import Link
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.locallink import LocalLink
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.wire.linkkeys import LinkKeys

HOST = '127.0.0.1'
LIMIT = 20.0
QUICK = LinkOptions(
    heartbeat_interval=0.5,
    heartbeat_timeout=2.0,
    handshake_timeout=1.0,
    hello_interval=0.2,
    gone_after=0.5,
    local_gone_after=0.5,
    refused_retry=0.2,
)


def make_keys() -> LinkKeys:
    """Make the keys of some secret."""
    server, client = z85.encode(secrets.token_bytes(32)), z85.encode(secrets.token_bytes(32))
    return LinkKeys(zmq.curve_public(server), server, zmq.curve_public(client), client)


@cache
def our_keys() -> LinkKeys:
    """Answer the keys that the two ends of most tests share."""
    return make_keys()


def new_id() -> str:
    """Make a peer id."""
    return secrets.token_hex(16)


class End:
    """A peer id, the events that were posted to it, and its link."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.name = new_id()
        self.events: list[Event] = []
        self.link: Link | None = None

    def send(self, peer: 'End', message: Message) -> None:
        """Send over whatever link this is."""
        assert self.link is not None
        self.link.send(peer.name, message)

    def close(self) -> None:
        """End the link."""
        if self.link is not None:
            self.link.close()
            self.link = None

    @property
    def messages(self) -> list[Message]:
        """What arrived, in order."""
        return [event.message for event in self.events if isinstance(event, MessageArrived)]

    @property
    def others(self) -> list[Event]:
        """The events that are not messages."""
        return [event for event in self.events if not isinstance(event, MessageArrived)]

    def lost(self) -> list[PeerLost]:
        """The peers that were lost."""
        return [event for event in self.events if isinstance(event, PeerLost)]

    def connected(self) -> list[PeerConnected]:
        """The greetings."""
        return [event for event in self.events if isinstance(event, PeerConnected)]

    def refused(self) -> list[PeerRefusedUs]:
        """The refusals."""
        return [event for event in self.events if isinstance(event, PeerRefusedUs)]


class ZmqEnd(End):
    """An end whose link is a `ZmqLink`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keys: LinkKeys | None = None,
        options: LinkOptions = QUICK,
        name: str = '',
        role: str = 'test',
    ) -> None:
        super().__init__(loop)
        self.name = name or self.name
        self.zmq = ZmqLink(loop, self.events.append, (self.name, role), keys, options)
        self.link = self.zmq
        self.port = 0


def until(
    loop: asyncio.AbstractEventLoop, predicate: Callable[[], object], limit: float = LIMIT
) -> None:
    """Let the loop run until the predicate holds."""

    async def wait() -> None:
        end = time.monotonic() + limit
        while not predicate():
            assert time.monotonic() < end, f'not within {limit} s'
            await asyncio.sleep(0.002)

    loop.run_until_complete(wait())


def pass_time(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Let the loop run so long, where a test shows that nothing happens."""
    loop.run_until_complete(asyncio.sleep(seconds))


@contextmanager
def local_pair(loop: asyncio.AbstractEventLoop) -> Iterator[tuple[End, End]]:
    """Connect two ends in memory."""
    a, b = End(loop), End(loop)
    a.link, b.link = LocalLink.pair(a.events.append, b.events.append, a.name, b.name)
    yield a, b
    a.close()
    b.close()


@contextmanager
def zmq_pair(
    loop: asyncio.AbstractEventLoop,
    keys: LinkKeys | None,
    is_local: bool,
    options: LinkOptions = QUICK,
) -> Iterator[tuple[End, End]]:
    """Connect two ends over ZeroMQ, or as `options` say; the first one dials."""
    a, b = ZmqEnd(loop, keys, options), ZmqEnd(loop, keys, options)
    with tempfile.TemporaryDirectory(dir='/tmp') as directory:
        try:
            if is_local:
                b.zmq.listen_local(f'{directory}/s')
                a.zmq.connect(b.name, '', 0, f'{directory}/s')
            else:
                a.zmq.connect(b.name, HOST, b.zmq.listen(HOST, 0))
            until(loop, lambda: a.events and b.events)
            yield a, b
        finally:
            a.close()
            b.close()


def works(loop: asyncio.AbstractEventLoop, one: ZmqEnd, other: ZmqEnd) -> None:
    """Show that two connected ends talk."""
    before = len(other.messages)
    one.send(other, Farewell('still here'))
    until(loop, lambda: len(other.messages) > before)
    assert other.messages[-1] == Farewell('still here')


class Made:
    """Makes ends that are closed when the test is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends: list[End] = []

    def __call__(
        self,
        keys: LinkKeys | None = None,
        options: LinkOptions = QUICK,
        name: str = '',
        role: str = 'test',
    ) -> ZmqEnd:
        end = ZmqEnd(self._loop, keys, options, name, role)
        self._ends.append(end)
        return end

    def listening(self, *args: Any, **options: Any) -> ZmqEnd:
        """Make an end that listens, of what others are made of."""
        end = self(*args, **options)
        end.port = end.zmq.listen(HOST, 0)
        return end

    def close(self) -> None:
        """Close them all."""
        for end in self._ends:
            end.close()
            pass_time(self._loop, 0.01)  # else the next ones linger for those that are gone


class Proxy:
    """A TCP relay between two ends whose connections a test can cut."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self._loop = loop
        self.target = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = loop.run_until_complete(asyncio.start_server(self._joined, HOST, 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.carried = 0
        self._flows = asyncio.Event()
        self._flows.set()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        there, back = await asyncio.open_connection(HOST, self.target)
        self._writers.append(back)
        for source, sink in ((reader, back), (there, writer)):
            task = self._loop.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                self.carried += len(data)
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            return
        finally:
            await self._flows.wait()
            sink.close()

    def hold(self) -> None:
        """Carry nothing, not even the end of a connection, until `let_go`."""
        self._flows.clear()

    def let_go(self) -> None:
        """Carry what was held, and go on."""
        self._flows.set()

    def cut(self) -> None:
        """Break all connections at once; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def close(self) -> None:
        """Refuse new connections and break the others."""
        self._server.close()
        self.cut()
        until(self._loop, lambda: not self._tasks)
        self._loop.run_until_complete(self._server.wait_closed())
