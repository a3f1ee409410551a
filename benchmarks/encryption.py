"""10 MB messages over our links, each beside what carries the same without them.

    python -m benchmarks.encryption [rounds]

    our link with CURVE   beside   DEALER and ROUTER of pyzmq with CURVE
    our link over TLS     beside   the plain tunnel of `recipetunnel.py`
    our local link        beside   DEALER and ROUTER of pyzmq over ipc

All six are measured in turn within each round; trust the ratios, not the figures.
"""

import asyncio
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from benchmarks.links import keys_from
from benchmarks.recipetunnel import tls_in, tls_out
from nodeserver.core.events import Event, MessageArrived
from nodeserver.core.messages import Message, Notice, SubmitJobs
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.zmqlink import ZmqLink

SIZE = 10_000_000
MESSAGES = 30
PAIRS = (
    ('our link, CURVE', 'raw pyzmq, CURVE'),
    ('our link, TLS', 'plain TLS tunnel'),
    ('our local link', 'raw pyzmq, ipc'),
)
_HOST = '127.0.0.1'
_LINKS = {'our link, CURVE': 'curve', 'our link, TLS': 'tls', 'our local link': 'local'}
_RAW = {'raw pyzmq, CURVE': 'curve', 'plain TLS tunnel': 'tunnel', 'raw pyzmq, ipc': 'ipc'}


def make_pair(path: Path) -> Path:
    """Make a self-signed pair in one file."""
    subprocess.run(
        [
            *('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'),
            *('-nodes', '-days', '9', '-subj', '/CN=bench', '-keyout', path, '-out', path),
        ],
        check=True,
        capture_output=True,
    )
    return path


@contextmanager
def other_process(*words: object) -> Iterator[str]:
    """Run the answering side; the block gets the line that it writes."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.encryption', *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# our links


def _link(
    loop: asyncio.AbstractEventLoop,
    post: Callable[[Event], None],
    name: str,
    kind: str,
    place: Path,
) -> ZmqLink:
    keys = keys_from((place / 'keys').read_text().split()) if kind == 'curve' else None
    certificate = Certificate(str(place / 'pair.pem'))
    tls = TlsIdentity(certificate, bytes(32)) if kind == 'tls' else None
    return ZmqLink(loop, post, (name, 'bench'), keys, LinkOptions(tls=tls))


def answer_link(kind: str, name: str, place: Path) -> None:
    """Answer each message on one of our links."""
    loop = asyncio.new_event_loop()

    def post(event: Event) -> None:
        if isinstance(event, MessageArrived):
            link.send(event.peer, Notice(0, 0, ''))

    link = _link(loop, post, name, kind, place)
    if kind == 'local':
        link.listen_local(str(place / name))
        print(0, flush=True)
    else:
        print(link.listen(_HOST, 0), flush=True)
    loop.run_forever()


async def _send_all(link: ZmqLink, peer: str, answers: 'asyncio.Queue[None]') -> float:
    """Send with two messages under way, as a node is kept busy; seconds."""

    def send(message: Message) -> None:
        link.send(peer, message)

    send(Notice(0, 0, ''))
    await answers.get()
    payload = secrets.token_bytes(SIZE)
    begun = time.perf_counter()
    for number in range(MESSAGES):
        send(SubmitJobs(0, '', [1], [payload]))
        if number:
            await answers.get()
    await answers.get()
    return time.perf_counter() - begun


def measure_link(kind: str, place: Path) -> float:
    """Answer megabytes per second over one of our links."""
    name = secrets.token_hex(16)
    with other_process('link', kind, name, place) as port, asyncio.Runner() as runner:
        answers: asyncio.Queue[None] = asyncio.Queue()

        def post(event: Event) -> None:
            if isinstance(event, MessageArrived):
                answers.put_nowait(None)

        link = _link(runner.get_loop(), post, secrets.token_hex(16), kind, place)
        try:
            link.connect(name, _HOST, int(port), str(place / name) if kind == 'local' else '')
            seconds = runner.run(_send_all(link, name, answers))
        finally:
            link.close()
    return SIZE * MESSAGES / seconds / 1e6


# pyzmq alone


def answer_raw(kind: str, name: str, place: Path) -> None:
    """Answer each message of a DEALER."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sock:
        sock.set_hwm(0)
        port = 0
        if kind == 'curve':
            keys = keys_from((place / 'keys').read_text().split())
            assert keys is not None
            sock.curve_server = True
            sock.curve_publickey, sock.curve_secretkey = keys.server_public, keys.server_secret
            port = sock.bind_to_random_port(f'tcp://{_HOST}')
        else:
            sock.bind(f'ipc://{place / name}')
        if kind == 'tunnel':
            port = _in_thread(tls_in(_HOST, str(place / name), place / 'pair.pem'))
        print(port, flush=True)
        while True:
            peer, _ = sock.recv_multipart()
            sock.send_multipart([peer, b''])


def _in_thread(serving: Coroutine[Any, Any, int | None]) -> int:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(serving, loop).result() or 0


def measure_raw(kind: str, place: Path) -> float:
    """Answer megabytes per second of pyzmq alone, or through the plain tunnel."""
    name = secrets.token_hex(8)
    with (
        other_process('raw', kind, name, place) as port,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as sock,
    ):
        sock.set_hwm(0)
        sock.linger = 0
        if kind == 'curve':
            keys = keys_from((place / 'keys').read_text().split())
            assert keys is not None
            sock.curve_serverkey = keys.server_public
            sock.curve_publickey, sock.curve_secretkey = keys.client_public, keys.client_secret
            sock.connect(f'tcp://{_HOST}:{port}')
        elif kind == 'ipc':
            sock.connect(f'ipc://{place / name}')
        else:
            path = str(place / f'{name}-out')
            _in_thread(tls_out(path, _HOST, int(port), place / 'pair.pem'))
            sock.connect(f'ipc://{path}')
        return SIZE * MESSAGES / _send_raw(sock) / 1e6


def _send_raw(sock: zmq.Socket[bytes]) -> float:
    sock.send(b'')
    sock.recv()
    payload = secrets.token_bytes(SIZE)
    begun = time.perf_counter()
    for number in range(MESSAGES):
        sock.send(payload)
        if number:
            sock.recv()
    sock.recv()
    return time.perf_counter() - begun


def main(rounds: int) -> None:
    """Print the median of each, and of the ratios within the rounds."""
    found: dict[str, list[float]] = {name: [] for pair in PAIRS for name in pair}
    with tempfile.TemporaryDirectory(dir='/tmp') as directory:
        place = Path(directory)
        make_pair(place / 'pair.pem')
        secret = ' '.join(z85.encode(secrets.token_bytes(32)).decode() for _ in range(2))
        (place / 'keys').write_text(secret)
        for _ in range(rounds):
            for ours, raw in PAIRS:
                found[ours].append(measure_link(_LINKS[ours], place))
                found[raw].append(measure_raw(_RAW[raw], place))
    for ours, raw in PAIRS:
        ratios = [a / b for a, b in zip(found[ours], found[raw], strict=True)]
        print(
            f'{ours:16}{statistics.median(found[ours]):7.0f} MB/s   '
            f'{raw:17}{statistics.median(found[raw]):7.0f} MB/s   '
            f'ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
        )


if __name__ == '__main__':
    if sys.argv[1:2] == ['link']:
        answer_link(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    elif sys.argv[1:2] == ['raw']:
        answer_raw(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
