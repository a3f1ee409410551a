"""How soon nodes are found, and what a thousand of them cost a program that hears them.

    python -m benchmarks.discovery [rounds]

Real programs on hosts that are network namespaces of this machine (so root is needed).  `found` is
the time from when the last of 20 nodes that start together listens until the program knows all of
them; `met` until it has their names as well, over connections of their own.  `client` is the same
from the making of a cluster while the nodes run.  Lost datagrams are dropped by each host's packet
filter, before anybody hears them.

The thousand nodes are simulated: one process with a socket for each, which announces its node and
answers pings as a node would.  The program finds them all and uses none; one that uses them is
connected to them, and asks them even less.
"""

import asyncio
import json
import os
import random
import secrets
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dispy_nb as dispy
from benchmarks.machine import facts
from nodeserver.io.datagrams import DatagramSocket, SocketAddress
from nodeserver.io.keys import from_passphrase
from nodeserver.io.udp import CLIENT_PORT
from nodeserver.wire import beacon
from tests.support.netns import Host, Lan

NODES = 20
MANY = 1000
INTERVAL = 5.0
LISTEN_SECONDS = 20.0
LIMIT = 60.0
LOSSES = (0, 30)
SECRET = 'discovery in a benchmark'
_DROP = 'table inet loss {{ chain i {{ type filter hook input priority 0; {rule}; }}; }}'
_LOST = 'meta l4proto udp numgen random mod 100 < {loss} drop'


class Unused(dispy.NodeAllocate):
    """Meets nodes and uses none, so that only their being found takes time."""

    def allocate(self, *facts: object, **more: object) -> int:
        """Leave it."""
        return 0


def nothing() -> None:
    """Do it."""


# roles: what runs on a host


def watch(count: int) -> None:
    """Make a cluster, and tell when as many nodes as there should be are found, and met."""
    print(time.monotonic(), flush=True)
    with dispy.JobCluster(nothing, [Unused('*')], secret=SECRET) as cluster:
        found = met = 0.0
        while not met:
            rows = cluster._runtime.list_nodes().rows
            if not found and len(rows) == count:
                found = time.monotonic()
                print(found, flush=True)
            if sum(bool(row.name) for row in rows) == count:
                met = time.monotonic()
                print(met, flush=True)
            time.sleep(0.01)


def listen() -> None:
    """Make a cluster that wants none of its nodes; tell its share of a processor and how many."""
    with dispy.JobCluster(nothing, ['10.99.*'], secret=SECRET) as cluster:
        runtime = cluster._runtime
        print('listening', flush=True)
        sys.stdin.readline()
        began, used = time.monotonic(), time.process_time()
        sys.stdin.readline()
        share = (time.process_time() - used) / (time.monotonic() - began)
        print(json.dumps([share, len(runtime.list_nodes().rows)]), flush=True)


class Announcer:
    """A simulated node: a socket that announces it, and answers pings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, place: tuple[str, str]) -> None:
        self._loop, self._target = loop, (place[1], CLIENT_PORT)
        self._key = from_passphrase(SECRET).beacon_key()
        self._contact = beacon.NodeContact(secrets.token_hex(16), 51348, bytes(16), '')
        self._sock = DatagramSocket(loop, self._received, (place[0], 0))
        loop.call_later(random.uniform(0, INTERVAL), self._announce)

    def _announce(self) -> None:
        nonce = secrets.token_bytes(beacon.NONCE_SIZE)
        self._sock.send(beacon.encode_here(nonce, self._contact, self._key), self._target)
        self._loop.call_later(INTERVAL * random.uniform(0.8, 1.2), self._announce)

    def _received(self, sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
        packet = beacon.decode(data, self._key)
        if isinstance(packet, beacon.Ping):
            sock.send(beacon.encode_pong(packet.nonce, self._contact, self._key), source)


async def announce(address: str, broadcast: str) -> None:
    """Be a thousand nodes until the input ends."""
    loop = asyncio.get_running_loop()
    there = [Announcer(loop, (address, broadcast)) for _ in range(MANY)]
    print(len(there), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)


# measurements


@contextmanager
def role(host: Host, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run this module on a host in another role; its words come line by line."""
    with tempfile.TemporaryDirectory() as home:
        process = host.popen(  # type: ignore[no-untyped-call]
            [sys.executable, '-m', 'benchmarks.discovery', *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a line for each node that is not used
            text=True,
            env={**os.environ, 'HOME': home, 'DISPY_SECRET': ''},
            cwd=Path(__file__).parent.parent,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()  # which closes the pipes


def line(process: subprocess.Popen[str]) -> str:
    """Read what a role says next."""
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said:
        raise RuntimeError(f'{process.args!r} ended too early')
    return said.strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Have a role go on."""
    assert process.stdin is not None
    process.stdin.write('\n')
    process.stdin.flush()


def start_nodes(hosts: list[Host], stack: ExitStack) -> float:
    """Start a node on each host at once; when the last of them listened."""
    waiting = selectors.DefaultSelector()
    stack.callback(waiting.close)
    for host in hosts:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        ready, told = os.pipe()
        host.popen(  # type: ignore[no-untyped-call]
            [
                *(sys.executable, '-m', 'nodeserver.cli.dispynode', '-c', '1', '--daemon'),
                *('--ready_fd', str(told), '--dest_path_prefix', f'{home}/files'),
            ],
            env={**os.environ, 'HOME': home, 'DISPY_SECRET': SECRET},
            stdout=subprocess.DEVNULL,
            pass_fds=[told],
        )
        os.close(told)
        stack.callback(os.close, ready)
        waiting.register(ready, selectors.EVENT_READ)
    last = time.monotonic()
    while waiting.get_map():
        for key, _ in waiting.select(LIMIT):
            waiting.unregister(key.fd)
            if not os.read(key.fd, 100):
                raise RuntimeError('a node did not start')
            last = time.monotonic()
    return last


def measure_start(loss: int, is_client_first: bool, nodes: int = NODES) -> tuple[float, float]:
    """Seconds until so many nodes are found, and until they are met."""
    with ExitStack() as stack:
        lan = stack.enter_context(Lan(nodes + 1))  # type: ignore[no-untyped-call]
        client, *hosts = lan
        if loss:
            for host in lan:
                host.filter_rules(_DROP.format(rule=_LOST.format(loss=loss)))
        if is_client_first:
            watching = stack.enter_context(role(client, 'watch', str(nodes)))
            line(watching)
            start = start_nodes(hosts, stack)
        else:
            start_nodes(hosts, stack)
            watching = stack.enter_context(role(client, 'watch', str(nodes)))
            start = float(line(watching))
        found, met = float(line(watching)), float(line(watching))
        return max(0.0, found - start), max(0.0, met - start)


def measure_many() -> tuple[float, int]:
    """Share of a processor that a thousand nodes cost a program, and how many it knows."""
    with ExitStack() as stack:
        lan = stack.enter_context(Lan(2))  # type: ignore[no-untyped-call]
        client, far = lan
        hearing = stack.enter_context(role(client, 'listen'))
        line(hearing)
        speaking = stack.enter_context(role(far, 'announce', far.ip, lan.broadcast))
        line(speaking)
        time.sleep(2 * INTERVAL)  # until each was heard, and asked once
        tell(hearing)
        time.sleep(LISTEN_SECONDS)
        tell(hearing)
        share, count = json.loads(line(hearing))
        tell(speaking)
        return float(share), int(count)


def main(rounds: int) -> None:
    """Print all figures."""
    machine = facts()
    print(machine['cpu'], '-', machine['load before'], '\n')
    print('| 20 nodes, seconds: median (most) | found | met | rounds |')
    print('| --- | --- | --- | --- |')
    for is_client_first in (True, False):
        for loss in LOSSES:
            pairs = [measure_start(loss, is_client_first) for _ in range(rounds)]
            cells = [f'{statistics.median(c):.2f} ({max(c):.2f})' for c in zip(*pairs, strict=True)]
            who = 'nodes start beside the program' if is_client_first else 'the program starts'
            print(f'| {who}, {loss} % lost | {" | ".join(cells)} | {rounds} |', flush=True)
    print('\n| 1,000 nodes that announce themselves every 5 s | of a processor | known |')
    print('| --- | --- | --- |')
    share, count = measure_many()
    print(f'| the program that hears them | {100 * share:.1f} % | {count} |')


if __name__ == '__main__':
    match sys.argv[1:]:
        case ['watch', number]:
            watch(int(number))
        case ['listen']:
            listen()
        case ['announce', address, broadcast]:
            asyncio.run(announce(address, broadcast))
        case words:
            main(int(words[0]) if words else 3)
