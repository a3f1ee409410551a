"""What a cluster is made with whose scheduler is `dispyscheduler`."""

from dataclasses import dataclass
from typing import Any

from dispy_nb.options import ClusterOptions, check_port
from nodeserver.core.errors import UsageError
from nodeserver.io.netif import check_bindable, resolve
from nodeserver.io.schedulercall import SchedulerPlace
from nodeserver.io.udp import SCHEDULER_PORT


@dataclass(slots=True)
class SharedOptions(ClusterOptions):
    """The parameters of `SharedJobCluster`, under its names."""

    scheduler_node: str | None = None
    scheduler_port: int | None = None

    def check(self) -> None:
        """Raise `UsageError` for a wrong value and `NotYetSupported` for a feature to come."""
        ClusterOptions.check(self)
        for address in self.ip_addr or []:
            check_bindable(address)
        if not isinstance(self.exclusive, bool):
            raise UsageError(f'exclusive must be True or False, not {self.exclusive!r}')
        node = self.scheduler_node
        if node is not None and not isinstance(node, str):
            raise UsageError(
                f'scheduler_node must be a host name or an IP address, or None for this machine, '
                f'not {node!r}'
            )
        if node:
            try:
                resolve(node)
            except UsageError as error:
                raise UsageError(f'scheduler_node: {error}') from error
        port = check_port('scheduler_port', self.scheduler_port, SCHEDULER_PORT)
        if port == 0:
            raise UsageError('scheduler_port must be the port of dispyscheduler, not 0')
        self.scheduler_port = port

    @property
    def place(self) -> SchedulerPlace:
        """Where the scheduler is."""
        return SchedulerPlace(self.scheduler_node or '', self.scheduler_port or SCHEDULER_PORT)

    def with_own_nodes(self, nodes: Any) -> Any:
        """Add nothing: the nodes that this program has started serve this program alone.

        They listen on this machine's loopback interface, which may not be the scheduler's.
        """
        return nodes
