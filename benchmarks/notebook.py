"""What a notebook's displays cost: jobs with and without a widget on the screen, and messages.

    python -m benchmarks.notebook [rounds] [jobs]

Each measurement has a kernel of its own, in turned order (A B B A).  A reader counts whatever the
kernel tells its front ends, as a browser would be sent it.
"""

import statistics
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

JOBS = 100_000
START = """
    import time
    import dispy_nb as dispy

    def nothing(n):
        return n

    def timed(what):
        began = time.perf_counter()
        what()
        return time.perf_counter() - began

    def work(count):
        jobs = [cluster.submit(n) for n in range(count)]
        cluster.wait()
        assert [job.result for job in jobs] == list(range(count))

    nodes = dispy.LocalNodes(2, cpus=1)
    cluster = dispy.JobCluster(
        nothing, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0, isolation='worker'
    )
    cluster.wait_for_nodes(2)
    work(1000)
"""
DISPLAYS = {
    'nothing': '',
    'widget': 'display(cluster)',
    'widget and charts': 'display(cluster); display(cluster.charts())',
}


class Kernel:
    """Runs cells, and counts what is said meanwhile."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self.messages = self.bytes = 0
        self._printed = ''

    def run(self, source: str) -> str:
        """Run a cell, and answer what it printed."""
        self._printed, self.messages, self.bytes = '', 0, 0
        cell = self._client.execute(textwrap.dedent(source).strip())
        while not self._is_end(cell):
            pass
        return self._printed

    def _is_end(self, cell: str) -> bool:
        frames = self._client.iopub_channel.socket.recv_multipart()
        _, parts = self._client.session.feed_identities(frames)
        message: dict[str, Any] = self._client.session.deserialize(parts)
        kind, content = message['msg_type'], message['content']
        if kind in ('comm_msg', 'comm_open', 'update_display_data', 'display_data'):
            self.messages += 1
            self.bytes += sum(map(len, frames))
        elif kind == 'stream':
            self._printed += content['text'] if content['name'] == 'stdout' else ''
        elif kind == 'error':
            raise RuntimeError('\n'.join(content['traceback']))
        is_idle = content.get('execution_state') == 'idle'
        return bool(is_idle and message['parent_header'].get('msg_id') == cell)


@contextmanager
def running_kernel() -> Iterator[Kernel]:
    """Run a kernel with a cluster of two nodes of this machine."""
    manager = KernelManager(kernel_name='python3')
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        kernel = Kernel(client)
        kernel.run(START)
        yield kernel
        kernel.run('cluster.close(); nodes.close()')
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()


def measure(shown: str, jobs: int) -> dict[str, float]:
    """Run so many jobs with this on the screen."""
    with running_kernel() as kernel:
        found = {}
        if shown != 'nothing':
            first = kernel.run(f'print(timed(lambda: {_display("cluster")}))')
            again = kernel.run(f'print(timed(lambda: {_display("cluster")}))')
            found = {'first display (s)': float(first), 'next display (s)': float(again)}
        if 'charts' in shown:
            first = kernel.run(f'print(timed(lambda: {_display("cluster.charts()")}))')
            again = kernel.run(f'print(timed(lambda: {_display("cluster.charts()")}))')
            found |= {'first charts (s)': float(first), 'next charts (s)': float(again)}
        seconds = float(kernel.run(f'print(timed(lambda: work({jobs})))'))
        found |= {
            'jobs/s': jobs / seconds,
            'messages/s': kernel.messages / seconds,
            'kB/s': kernel.bytes / seconds / 1000,
        }
        return found | _replies(kernel, jobs)


def _replies(kernel: Kernel, jobs: int) -> dict[str, float]:
    """How long an empty cell takes while jobs run."""
    kernel.run(f'jobs = [cluster.submit(n) for n in range({jobs})]')
    times = []
    while kernel.run('print(cluster.snapshot().pending)') != '0\n':
        began = time.perf_counter()
        kernel.run('pass')
        times.append(1000 * (time.perf_counter() - began))
    if not times:
        return {}
    return {'cell meanwhile (ms)': statistics.median(times), 'slowest (ms)': max(times)}


def _display(what: str) -> str:
    return f'display({what})'


def main() -> None:
    """Measure in rounds, and print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else JOBS
    found: dict[str, list[dict[str, float]]] = {shown: [] for shown in DISPLAYS}
    for number in range(rounds):
        order = list(DISPLAYS) if number % 2 else list(DISPLAYS)[::-1]
        for shown in order:
            found[shown].append(measure(shown, jobs))
            print(f'  round {number + 1}, {shown}: {found[shown][-1]}', file=sys.stderr)
    _report(found, rounds, jobs)


def _report(found: dict[str, list[dict[str, float]]], rounds: int, jobs: int) -> None:
    print(f'{jobs:,} no-op jobs; medians of {rounds}\n\n| on the screen | | |\n|---|---|---|')
    plain = [each['jobs/s'] for each in found['nothing']]
    for shown, each in found.items():
        for what in each[0]:
            print(f'| {shown} | {what} | {statistics.median(one[what] for one in each):.3f} |')
        ratios = [one['jobs/s'] / other for one, other in zip(each, plain, strict=True)]
        print(f'| {shown} | jobs/s, ratio to nothing | {statistics.median(ratios):.3f} |')


if __name__ == '__main__':
    main()
