"""Messages per second and round trips of the links between two processes, beside raw pyzmq.

    python -m benchmarks.links [rounds]

Each round measures all of them in turn; trust the ratios, not the figures.  `single` sends one
message in each turn of the loop, `gathered` sends 64.
"""

import asyncio
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from nodeserver.core.events import Event, MessageArrived
from nodeserver.core.messages import Message, Notice, SubmitJobs
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.wire.linkkeys import LinkKeys

MESSAGES = 20_000
ROUND_TRIPS = 1_000
GATHERED = 64
LARGE = 100_000_000
KINDS = ('tcp with CURVE', 'plain tcp', 'ipc')
_SAY_WHEN = 99  # the level of a notice that is to be answered
_HOST = '127.0.0.1'


class Answerer:
    """The other process: swallows messages, answers those that ask for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, path: str) -> None:
        secret = sys.stdin.readline().split()
        keys, options = keys_from(secret[:2]), options_with(*secret[2:])
        self._link = ZmqLink(loop, self._on, (name, 'answerer'), keys, options)
        self._link.listen_local(path)
        print(self._link.listen(_HOST, 0), flush=True)

    def _on(self, event: Event) -> None:
        if isinstance(event, MessageArrived):
            message = event.message
            if isinstance(message, SubmitJobs) or (
                isinstance(message, Notice) and message.level == _SAY_WHEN
            ):
                self._link.send(event.peer, Notice(0, 0, ''))


def keys_from(words: list[str]) -> LinkKeys | None:
    """Read the two secret keys that make all four."""
    if not words:
        return None
    server, client = (word.encode() for word in words)
    return LinkKeys(zmq.curve_public(server), server, zmq.curve_public(client), client)


def options_with(pair: str = '') -> LinkOptions:
    """Make the options of a link, with a certificate where one is given."""
    return LinkOptions(tls=TlsIdentity(Certificate(pair), bytes(32)) if pair else None)


class Meter:
    """This process: sends, and waits for answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kind: str, pair: str = '') -> None:
        self._loop = loop
        self._answered = asyncio.Event()
        self._directory = tempfile.TemporaryDirectory(dir='/tmp')
        self._peer = secrets.token_hex(16)
        secret = ' '.join(z85.encode(secrets.token_bytes(32)).decode() for _ in range(2))
        secret = secret if kind == 'tcp with CURVE' or pair else ''
        path = str(Path(self._directory.name) / 's')
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'benchmarks.links', '--answer', self._peer, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        print(secret, pair, file=self._process.stdin, flush=True)
        self._port = port = int(self._process.stdout.readline())
        self._keys = keys = keys_from(secret.split())
        self._link_name = secrets.token_hex(16)
        us = self._link_name, 'meter'
        self._link = ZmqLink(loop, self._on, us, keys, options_with(pair))
        self._link.connect(self._peer, _HOST, port, path if kind == 'ipc' else '')

    def _on(self, event: Event) -> None:
        if isinstance(event, MessageArrived):
            self._answered.set()

    async def _ask(self, message: Message) -> None:
        self._answered.clear()
        self._link.send(self._peer, message)
        await self._answered.wait()

    async def round_trip(self) -> float:
        """Answer the median in microseconds."""
        await self._ask(Notice(0, _SAY_WHEN, ''))
        seconds = []
        for _ in range(ROUND_TRIPS):
            begun = time.perf_counter()
            await self._ask(Notice(0, _SAY_WHEN, 'x' * 100))
            seconds.append(time.perf_counter() - begun)
        return statistics.median(seconds) * 1e6

    async def throughput(self, per_turn: int) -> float:
        """Answer messages per second, of 100 bytes, in one direction."""
        message = Notice(0, 0, 'x' * 100)
        begun = time.perf_counter()
        for _ in range(MESSAGES // per_turn):
            for _ in range(per_turn):
                self._link.send(self._peer, message)
            await asyncio.sleep(0)
        await self._ask(Notice(0, _SAY_WHEN, ''))
        return MESSAGES / (time.perf_counter() - begun)

    async def large(self) -> float:
        """Answer megabytes per second of one large payload."""
        message = SubmitJobs(0, '', [1], [bytes(LARGE)])
        begun = time.perf_counter()
        await self._ask(message)
        return LARGE / (time.perf_counter() - begun) / 1e6

    async def measure(self) -> list[float]:
        """Answer all four figures."""
        return [
            await self.round_trip(),
            await self.throughput(1),
            await self.throughput(GATHERED),
            await self.large(),
        ]

    def close(self) -> None:
        """End both processes."""
        self._link.close()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._directory.cleanup()


def measure_link(kind: str) -> list[float]:
    """Measure a link of ours."""
    with asyncio.Runner() as runner:
        meter = Meter(runner.get_loop(), kind)
        try:
            return runner.run(meter.measure())
        finally:
            meter.close()


def _answer_raw() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sock:
        sock.set_hwm(0)
        print(sock.bind_to_random_port(f'tcp://{_HOST}'), flush=True)
        while True:
            name, body = sock.recv_multipart()
            if body[:1] == b'?':
                sock.send_multipart([name, body])


def measure_raw() -> list[float]:
    """Measure what pyzmq does without loop, codec and sessions: the floor."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.links', '--answer-raw'],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.set_hwm(0)
        sock.linger = 0
        sock.connect(f'tcp://{_HOST}:{int(process.stdout.readline())}')

        def ask(body: bytes) -> float:
            begun = time.perf_counter()
            sock.send(body)
            sock.recv()
            return time.perf_counter() - begun

        ask(b'?')
        trip = statistics.median(ask(b'?' * 100) for _ in range(ROUND_TRIPS)) * 1e6
        begun = time.perf_counter()
        for _ in range(MESSAGES):
            sock.send(b'x' * 100)
        ask(b'?')
        rate = MESSAGES / (time.perf_counter() - begun)
        begun = time.perf_counter()
        sock.send(bytes(LARGE))
        ask(b'?')
        large = LARGE / (time.perf_counter() - begun) / 1e6
    process.kill()
    process.wait()
    process.stdout.close()
    return [trip, rate, rate, large]


def main(rounds: int) -> None:
    """Print the medians of so many rounds."""
    ways: dict[str, Callable[[], list[float]]] = {
        'raw pyzmq, tcp': measure_raw,
        **{kind: lambda kind=kind: measure_link(kind) for kind in KINDS},  # type: ignore[misc]
    }
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            found[name].append(measure())
    print(f'{"":16}{"round trip us":>15}{"single /s":>12}{"gathered /s":>13}{"large MB/s":>12}')
    for name, figures in found.items():
        trip, single, gathered, large = (
            statistics.median(column) for column in zip(*figures, strict=True)
        )
        print(f'{name:16}{trip:15.0f}{single:12,.0f}{gathered:13,.0f}{large:12,.0f}')


def _answer(name: str, path: str) -> None:
    loop = asyncio.new_event_loop()
    _answerer = Answerer(loop, name, path)
    loop.run_forever()


if __name__ == '__main__':
    if sys.argv[1:2] == ['--answer']:
        _answer(*sys.argv[2:4])
    elif sys.argv[1:2] == ['--answer-raw']:
        _answer_raw()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
