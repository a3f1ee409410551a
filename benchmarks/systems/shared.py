"""dispy-nb through a dispyscheduler on this machine: one node with two cpus."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dispy_nb
from benchmarks.systems.base import Session
from benchmarks.systems.dispy import Dispy, DispySession

_SERVER = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '--daemon', '-i', '127.0.0.1')


class Shared(Dispy):
    """A node, a scheduler, and clusters that use both."""

    def start(self) -> None:
        """Start the node and the scheduler."""
        super().start()
        command = [*_SERVER, '--port', '0', '--scheduler_port', '0']
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        for line in self._server.stdout:
            _, found, rest = line.partition(': port ')
            if found:
                self._port = int(rest.split()[0])
                return
        raise RuntimeError('dispyscheduler did not start')

    def stop(self) -> None:
        """End both."""
        self._server.terminate()
        self._server.wait()
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
            scheduler_port=self._port,
            isolation=self._isolation,
            progress=False,
            **options,
        ) as cluster:
            yield DispySession(cluster)


SYSTEMS = {'shared-worker': partial(Shared, 'worker'), 'shared-job': partial(Shared, 'job')}
