"""What it costs that a relay carries a connection: the same link, direct and carried, in turn.

    python -m benchmarks.relay [rounds [certificate]]

With a certificate, a file of `dispy cert new`, the links are TLS.

Client, relay and node are processes of one machine, which has to do the work of three here.
"""

import asyncio
import secrets
import statistics
import subprocess
import sys

from benchmarks.links import Meter
from nodeserver.io.forwarding import FrontDoor
from nodeserver.wire.linkkeys import LinkKeys

_HOST = '127.0.0.1'
_KIND = 'tcp with CURVE'


class CarriedMeter(Meter):
    """Measures a link that a relay in a third process carries."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kind: str, pair: str = '') -> None:
        super().__init__(loop, kind, pair)
        assert self._keys is not None
        words = (self._link_name, self._peer, str(self._port))
        self._relay = subprocess.Popen(
            [sys.executable, '-m', 'benchmarks.relay', '--carry', *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._relay.stdin is not None and self._relay.stdout is not None
        print(self._keys.server_secret.decode(), file=self._relay.stdin, flush=True)
        relay = secrets.token_hex(16)
        self._link.use_relay(relay, _HOST, int(self._relay.stdout.readline()))
        self._link.connect(self._peer, _HOST, self._port, via=relay)

    def close(self) -> None:
        """End all processes."""
        super().close()
        self._relay.kill()
        self._relay.wait()
        for stream in (self._relay.stdin, self._relay.stdout):
            if stream is not None:
                stream.close()


def measure(kind: type[Meter], pair: str) -> list[float]:
    """Measure one way."""
    with asyncio.Runner() as runner:
        meter = kind(runner.get_loop(), _KIND, pair)
        try:
            return runner.run(meter.measure())
        finally:
            meter.close()


async def _carry(program: str, node: str, port: int) -> None:
    server_secret = sys.stdin.readline().strip().encode()
    keys = LinkKeys(b'', server_secret, b'', b'')
    door = FrontDoor(asyncio.get_running_loop(), keys, (_HOST, 1), lambda count: None)
    door.admit(program)
    door.open_way(node, _HOST, port)
    print(door.listen(_HOST, 0, '--relay_port'), flush=True)
    await asyncio.Event().wait()


def main(rounds: int, pair: str) -> None:
    """Print the medians of so many rounds, and what is left of the direct link."""
    ways: dict[str, type[Meter]] = {'direct': Meter, 'carried': CarriedMeter}
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, kind in ways.items():
            found[name].append(measure(kind, pair))
    print(f'{"":10}{"round trip us":>15}{"single /s":>12}{"gathered /s":>13}{"large MB/s":>12}')
    medians = {}
    for name, figures in found.items():
        medians[name] = [statistics.median(column) for column in zip(*figures, strict=True)]
        trip, single, gathered, large = medians[name]
        print(f'{name:10}{trip:15.0f}{single:12,.0f}{gathered:13,.0f}{large:12,.0f}')
    ratios = [b / a for a, b in zip(medians['direct'], medians['carried'], strict=True)]
    print(f'{"ratio":10}{ratios[0]:15.2f}{ratios[1]:12.2f}{ratios[2]:13.2f}{ratios[3]:12.2f}')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--carry']:
        asyncio.run(_carry(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, ''.join(sys.argv[2:3]))
