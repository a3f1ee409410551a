"""dispy-nb through a dispyscheduler on this machine: one node with two cpus."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import dispy_nb
from benchmarks.systems.base import Session
from benchmarks.systems.dispy import Dispy, DispySession

_SERVER = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler')


class Shared(Dispy):
    """A node, a scheduler, and clusters that use both."""

    def __init__(self, isolation: str, server: Sequence[str] = _SERVER) -> None:
        super().__init__(isolation)
        self._command = [*server, '--daemon', '-i', '127.0.0.1']

    def start(self) -> None:
        """Start the node and the scheduler."""
        super().start()
        self._state = tempfile.TemporaryDirectory(prefix='bench-scheduler-')
        self.start_server(0, 0)

    def start_server(self, port: int, node_port: int) -> None:
        """Start the scheduler at these ports for programs and nodes; 0: any."""
        place = ['--scheduler_port', str(port), '--port', str(node_port)]
        command = [*self._command, *place, '--dest_path_prefix', self._state.name]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        for line in self._server.stdout:
            _, found, rest = line.partition(': port ')
            if found:
                numbers = [int(word) for word in rest.split() if word.isdecimal()]
                self.port, self.node_port = numbers
                return
        raise RuntimeError('dispyscheduler did not start')

    def stop(self) -> None:
        """End both."""
        self._server.terminate()
        self._server.wait()
        self._state.cleanup()
        super().stop()

    @property
    def server(self) -> int:
        """Process id of the scheduler."""
        return self._server.pid

    @contextmanager
    def open(self, function: Callable[..., Any], **options: Any) -> Iterator[Session]:
        """Make a cluster."""
        with dispy_nb.SharedJobCluster(
            function,
            nodes=self.nodes,
            ip_addr='127.0.0.1',
            port=0,
            scheduler_node='127.0.0.1',
            scheduler_port=self.port,
            isolation=self._isolation,
            progress=False,
            **options,
        ) as cluster:
            yield DispySession(cluster)


SYSTEMS = {'shared-worker': partial(Shared, 'worker'), 'shared-job': partial(Shared, 'job')}
